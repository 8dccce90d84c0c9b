/* Reserves the packet metadata's place in the mbuf. */
#include "core/packet.h"

#include <rte_errno.h>
#include <rte_mbuf_dyn.h>

#include "core/log.h"

_Static_assert(PACKET_META_OFFSET >= offsetof(struct rte_mbuf, dynfield1), "inside the dynamic area");
_Static_assert(PACKET_META_OFFSET + sizeof(struct packet_meta) <= sizeof(struct rte_mbuf),
               "inside the mbuf");

int packet_meta_init(void) {
    static const struct rte_mbuf_dynfield field = {
        .name = "dpdk_router_packet_meta", .size = sizeof(struct packet_meta), .align = 8};

    if (rte_mbuf_dynfield_register_offset(&field, PACKET_META_OFFSET) != PACKET_META_OFFSET) {
        log_error("core", "cannot reserve the packet metadata in the mbuf: %s",
                  rte_strerror(rte_errno));
        return -rte_errno;
    }
    return 0;
}
