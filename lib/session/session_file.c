/*
 * Sessions in a file: written when the router ends, taken back when it starts, so that a restart is
 * no more than a moment without packets for those who talk through it.
 *
 * The file is a header, the names of interfaces and VRFs, and one record per session, in the byte
 * order of the machine; a CRC over all of it and a version say whether it can be trusted. Numbers
 * of interfaces, VRFs and rules do not outlive the process, so names stand in their place, firewall
 * and NAT are asked about each session again, and a session they do not allow any more is left out.
 */
#include <errno.h>
#include <fcntl.h>
#include <rte_hash_crc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/log.h"
#include "interface/interface.h"
#include "session/session_internal.h"

enum { FILE_VERSION = 2, NAMES_MAX = INTERFACES_MAX + VRFS_MAX };

/* Of a flow's flags, what a session is made with. */
enum { KEPT_FLAGS = FLOW_IPV6 | FLOW_SOURCE | FLOW_DESTINATION | FLOW_OTHER_FAMILY | FLOW_PORTS };

static const char magic[8] = "DRsessn";

struct file_header {
    char magic[8];
    uint32_t version;
    uint32_t checksum; /* CRC-32C of what follows this field, to the end */
    uint32_t names, records;
    uint64_t time; /* seconds of CLOCK_REALTIME: the router may start a while later */
};

struct file_name {
    char text[INTERFACE_NAME_TEXT];
};

struct file_record {
    union flow_key key, answers;
    uint8_t flow_flags; /* KEPT_FLAGS */
    uint8_t state, flags, traffic_class;
    uint8_t mapped; /* it has a mapping of the NAT */
    uint8_t reserved[3];
    uint16_t in, out;      /* numbers of names plus one; 0 = the router itself */
    uint16_t vrf, out_vrf; /* numbers of names plus one */
    uint32_t idle, age;    /* ticks */
    uint64_t packets[2], bytes[2];
};

/* --- writing --- */

struct writing {
    struct file_header header;
    struct file_name names[NAMES_MAX];
    struct file_record *records;
    uint32_t room;
    uint16_t interface_name[INTERFACES_MAX], vrf_name[VRFS_MAX];
};

static uint16_t add_name(struct writing *writing, uint16_t *known, const char *name) {
    if (*known == 0 && name && writing->header.names < NAMES_MAX) {
        snprintf(writing->names[writing->header.names].text, INTERFACE_NAME_TEXT, "%s", name);
        *known = (uint16_t)++writing->header.names;
    }
    return *known;
}

static uint16_t interface_number(struct writing *writing, uint16_t id) {
    const struct interface *interface = id ? interface_by_id(id) : NULL;

    return interface ? add_name(writing, &writing->interface_name[id], interface->name) : 0;
}

static uint16_t vrf_number(struct writing *writing, uint16_t vrf) {
    return add_name(writing, &writing->vrf_name[vrf % VRFS_MAX], vrf_name(vrf));
}

static bool write_record(uint32_t number, const struct session *session, void *context) {
    struct writing *writing = context;
    const struct flow *flow = &session_flows[number * 2];
    uint32_t now = atomic_load(&session_clock);
    struct file_record *record;

    if (writing->header.records == writing->room)
        return false;
    record = &writing->records[writing->header.records];
    memset(record, 0, sizeof(*record));
    record->key = flow_key_of(&flow[0]);
    record->answers = flow_key_of(&flow[1]);
    record->flow_flags = flow->flags & KEPT_FLAGS;
    record->state = session->state;
    record->flags = session->flags;
    record->traffic_class = session->traffic_class;
    record->mapped = session->mapping != 0;
    record->in = interface_number(writing, session->in_interface);
    record->out = interface_number(writing, session->out_interface);
    record->vrf = vrf_number(writing, flow_vrf(&flow[0]));
    record->out_vrf = vrf_number(writing, flow_vrf(&flow[1]));
    record->idle = session_idle(number, now);
    record->age = session_ticks_since(now, session->created);
    for (unsigned way = 0; way < 2; way++) {
        record->packets[way] = flow[way].packets;
        record->bytes[way] = flow[way].bytes;
    }
    writing->header.records++;
    return true;
}

static uint32_t checksum_of(const struct file_header *header, const struct file_name *names,
                            const struct file_record *records) {
    const size_t behind = offsetof(struct file_header, names);
    uint32_t sum = rte_hash_crc((const uint8_t *)header + behind, sizeof(*header) - behind, 0);

    sum = rte_hash_crc(names, header->names * sizeof(*names), sum);
    for (uint32_t i = 0; i < header->records; i++)
        sum = rte_hash_crc(&records[i], sizeof(records[i]), sum);
    return sum;
}

static bool write_all(int fd, const void *from, size_t size) {
    while (size > 0) {
        ssize_t written = write(fd, from, size);

        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return false;
        from = (const uint8_t *)from + written;
        size -= (size_t)written;
    }
    return true;
}

/* Under another name first: whoever ends the process meanwhile leaves no half of a file. */
static int write_file(const char *path, const struct writing *writing) {
    char temporary[4096];
    int fd, error = 0;

    if (snprintf(temporary, sizeof(temporary), "%s.new", path) >= (int)sizeof(temporary))
        return -ENAMETOOLONG;
    /* Not to be held up by a FIFO. */
    fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (fd < 0)
        return -errno;
    if (!write_all(fd, &writing->header, sizeof(writing->header)) ||
        !write_all(fd, writing->names, writing->header.names * sizeof(writing->names[0])) ||
        !write_all(fd, writing->records,
                   (size_t)writing->header.records * sizeof(writing->records[0])))
        error = errno ? -errno : -EIO;
    if (close(fd) != 0 && error == 0)
        error = -errno;
    if (error == 0 && rename(temporary, path) != 0)
        error = -errno;
    if (error != 0)
        unlink(temporary);
    return error;
}

int session_save(const char *path) {
    struct writing *writing;
    struct session_totals totals;
    uint32_t cursor = 0;
    int error = 0;

    if (!session_flows)
        return 0;
    session_totals(&totals);
    writing = calloc(1, sizeof(*writing));
    if (!writing)
        return -ENOMEM;
    writing->room = totals.most;
    writing->records = malloc((size_t)writing->room * sizeof(writing->records[0]));
    if (!writing->records) {
        free(writing);
        return -ENOMEM;
    }
    memcpy(writing->header.magic, magic, sizeof(magic));
    writing->header.version = FILE_VERSION;
    writing->header.time = (uint64_t)time(NULL);
    session_walk(&cursor, UINT32_MAX, write_record, writing);
    writing->header.checksum = checksum_of(&writing->header, writing->names, writing->records);
    error = write_file(path, writing);
    if (error == 0)
        log_notice("session", "%u sessions are kept in %s", writing->header.records, path);
    else
        log_warning("session", "sessions are not kept: %s: %s", path, strerror(-error));
    free(writing->records);
    free(writing);
    return error;
}

/* --- reading --- */

struct reading {
    uint8_t *bytes;
    const struct file_header *header;
    const struct file_name *names;
    const struct file_record *records;
    uint32_t away; /* ticks since it was written */
    uint32_t taken, expired, refused;
};

/* Why the file cannot be used; NULL if it can. */
static const char *look_at(struct reading *reading, size_t size) {
    const struct file_header *header = (const struct file_header *)reading->bytes;

    if (size < sizeof(*header) || memcmp(header->magic, magic, sizeof(magic)) != 0)
        return "it is no file of sessions";
    if (header->version != FILE_VERSION)
        return "another version of the router has written it";
    if (header->names > NAMES_MAX ||
        size != sizeof(*header) + header->names * sizeof(struct file_name) +
                    (uint64_t)header->records * sizeof(struct file_record))
        return "it is not complete";
    reading->header = header;
    reading->names = (const struct file_name *)(reading->bytes + sizeof(*header));
    reading->records = (const struct file_record *)(reading->names + header->names);
    if (checksum_of(header, reading->names, reading->records) != header->checksum)
        return "its checksum is wrong";
    for (uint32_t i = 0; i < header->names; i++) {
        if (!memchr(reading->names[i].text, '\0', INTERFACE_NAME_TEXT))
            return "a name in it has no end";
    }
    return NULL;
}

static uint8_t *read_file(const char *path, size_t *size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat status;
    uint8_t *bytes = NULL;
    size_t at = 0;

    if (fd < 0)
        return NULL;
    errno = EINVAL; /* what is no regular file */
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode)) {
        *size = (size_t)status.st_size;
        bytes = malloc(*size + 1);
    }
    while (bytes && at < *size) {
        ssize_t got = read(fd, bytes + at, *size - at);

        if (got <= 0)
            break;
        at += (size_t)got;
    }
    *size = at;
    close(fd);
    return bytes;
}

/* The id of the interface with that name; false when it is gone. */
static bool find_interface(const struct reading *reading, uint16_t number, uint16_t *id) {
    const struct interface *interface;

    *id = 0;
    if (number == 0)
        return true;
    if (number > reading->header->names)
        return false;
    interface = interface_by_name(reading->names[number - 1].text);
    if (interface)
        *id = interface->id;
    return interface != NULL;
}

static bool find_vrf(const struct reading *reading, uint16_t number, uint16_t *id) {
    int vrf = number > 0 && number <= reading->header->names
                  ? vrf_by_name(reading->names[number - 1].text)
                  : -ENOENT;

    *id = (uint16_t)vrf;
    return vrf >= 0;
}

/* Only they have FLOW_PORTS. */
static bool is_hairpin6(uint8_t flags) {
    const uint8_t all = FLOW_IPV6 | FLOW_SOURCE | FLOW_DESTINATION;

    return (flags & all) == all;
}

static bool is_possible(const struct file_record *record) {
    uint8_t protocol = (uint8_t)(record->flow_flags & FLOW_IPV6 ? record->key.v6.protocol_vrf
                                                                : record->key.v4.protocol_vrf);
    enum session_state first = session_first_state(protocol, false);
    bool tcp = record->state >= SESSION_TCP_OPENING && record->state <= SESSION_TCP_CLOSED;
    bool udp = record->state == SESSION_UDP_NEW || record->state == SESSION_UDP;
    bool fits = first == SESSION_TCP_OPENING ? tcp
                : first == SESSION_UDP_NEW   ? udp
                                             : record->state == first;

    return fits &&
           !(record->flags & SESSION_FROM_ROUTER &&
             record->flow_flags & (FLOW_SOURCE | FLOW_DESTINATION | FLOW_OTHER_FAMILY)) &&
           !(record->flow_flags & FLOW_OTHER_FAMILY &&
             record->flow_flags & (FLOW_SOURCE | FLOW_DESTINATION | FLOW_PORTS)) &&
           (!(record->flow_flags & FLOW_PORTS) || is_hairpin6(record->flow_flags));
}

/* What its packets became is the answers' key turned round. */
static void read_answers(const union flow_key *answers, struct session_new *draft) {
    if (flow_becomes_ipv6(draft->flags)) {
        memcpy(draft->source6, answers->v6.destination, sizeof(draft->source6));
        memcpy(draft->destination6, answers->v6.source, sizeof(draft->destination6));
        draft->source_port = answers->v6.destination_port;
        draft->destination_port = answers->v6.source_port;
    } else {
        draft->source = answers->v4.destination;
        draft->destination = answers->v4.source;
        draft->source_port = answers->v4.destination_port;
        draft->destination_port = answers->v4.source_port;
    }
}

static void take_record(struct reading *reading, const struct file_record *record) {
    const uint32_t timeout = atomic_load(&session_limits.timeout[record->state % SESSION_STATES]);
    struct session_new draft = {
        .key = record->key,
        .flags = record->flow_flags & KEPT_FLAGS,
        .traffic_class = record->traffic_class,
        .local = record->flags & SESSION_LOCAL,
        .from_router = record->flags & SESSION_FROM_ROUTER,
        .bound = record->flags & SESSION_BOUND,
    };
    struct session_restored restored = {
        .state = record->state,
        .flags = record->flags & (SESSION_LOCAL | SESSION_FROM_ROUTER | SESSION_FIN_FORWARD |
                                  SESSION_FIN_BACKWARD | SESSION_PICKED_UP | SESSION_BOUND),
        .mapped = record->mapped,
        .idle = record->idle + reading->away,
        .age = record->age + reading->away,
    };

    if (restored.idle >= timeout || restored.idle < record->idle) {
        reading->expired++;
        return;
    }
    if (!is_possible(record) || !find_interface(reading, record->in, &draft.in_interface) ||
        !find_interface(reading, record->out, &draft.out_interface) ||
        !find_vrf(reading, record->vrf, &draft.vrf) ||
        !find_vrf(reading, record->out_vrf, &draft.out_vrf)) {
        reading->refused++;
        return;
    }
    read_answers(&record->answers, &draft);
    if (draft.flags & FLOW_IPV6)
        draft.key.v6.protocol_vrf =
            flow_protocol_vrf((uint8_t)record->key.v6.protocol_vrf, draft.vrf);
    else
        draft.key.v4.protocol_vrf =
            flow_protocol_vrf((uint8_t)record->key.v4.protocol_vrf, draft.vrf);
    memcpy(restored.packets, record->packets, sizeof(restored.packets));
    memcpy(restored.bytes, record->bytes, sizeof(restored.bytes));
    if (session_reopen(&draft, &restored))
        reading->taken++;
    else
        reading->refused++;
}

int session_load(const char *path) {
    struct reading reading = {0};
    const char *why;
    uint64_t now = (uint64_t)time(NULL);
    size_t size = 0;

    if (!session_flows)
        return 0;
    reading.bytes = read_file(path, &size);
    if (!reading.bytes) {
        if (errno == ENOENT)
            return 0;
        log_warning("session", "%s cannot be read: %s; starting without it", path, strerror(errno));
        return -errno;
    }
    why = look_at(&reading, size);
    if (why) {
        log_warning("session", "%s is not used: %s; starting without it", path, why);
        free(reading.bytes);
        return -EINVAL;
    }
    /* A clock that was set back counts as no time. */
    if (now > reading.header->time)
        reading.away = (uint32_t)RTE_MIN((now - reading.header->time) * SESSION_TICKS,
                                         (uint64_t)UINT32_MAX / 2);
    for (uint32_t i = 0; i < reading.header->records; i++)
        take_record(&reading, &reading.records[i]);
    log_notice("session",
               "%u sessions are taken back from %s; %u had timed out, %u are not possible any more",
               reading.taken, path, reading.expired, reading.refused);
    free(reading.bytes);
    unlink(path); /* what is in it is not true for long */
    session_look_again();
    return 0;
}
