/* Layer 3: the tables that the stages look up, and the order in which the parts come up. */
#include "l3/l3.h"

#include <errno.h>
#include <rte_random.h>

#include "l3/connected.h"
#include "l3/flow_hash.h"
#include "l3/nd.h"
#include "l3/neighbour.h"
#include "l3/next_hop.h"
#include "l3/protocol.h"
#include "l3/rib.h"

struct fib4 *_Atomic fib4_of_vrf[VRFS_MAX];
struct prefix_trie *_Atomic fib6_of_vrf[VRFS_MAX];
uint32_t flow_hash_seed;

/* Listeners are told of interfaces in this order: connected routes exist before neighbours look for
 * them, and neighbours before ARP and ND announce anything. */
int l3_init(void) {
    int (*const parts[])(void) = {next_hop_init,  rib_init, connected_init,
                                  neighbour_init, arp_init, nd_init};

    flow_hash_seed = (uint32_t)rte_rand();
    for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        int error = parts[i]();

        if (error)
            return error;
    }
    return 0;
}

void l3_farewell(void) { ra_shutdown(); }
