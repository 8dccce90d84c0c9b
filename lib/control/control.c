/*
 * The control side's face: ties the configuration store and the server together.
 *
 * What can go wrong: the file (all its problems are reported), the socket's path.
 */
#include "control/control.h"

#include <errno.h>

#include "control/config_file.h"
#include "control/config_store.h"
#include "control/control_internal.h"
#include "control/server.h"
#include "core/log.h"

enum { PROBLEMS_LOGGED = 100 }; /* of one reload; the log keeps about a thousand lines */

static const struct control_facts no_facts = {.version = "", .dpdk_version = "", .config_file = ""};
static const struct control_facts *current_facts = &no_facts;
static struct server *server;

const struct control_facts *control_facts(void) {
    return current_facts;
}

int control_start(const struct control_facts *facts, const char *socket_path,
                  struct problems *problems) {
    if (server) {
        problems_add(problems, socket_path, "the control server runs already");
        return -EALREADY;
    }
    server = server_new(socket_path, problems);
    if (!server) {
        return -EADDRNOTAVAIL;
    }
    current_facts = facts;
    log_info("control", "listening on %s", socket_path);
    return 0;
}

int control_load(struct problems *problems) {
    json_t *document = config_file_read(current_facts->config_file, problems);
    if (!document) {
        return -EINVAL;
    }
    enum config_result result = config_store_apply(document, 0, NULL, problems);
    json_decref(document);
    switch (result) {
    case CONFIG_DONE:
        return 0;
    case CONFIG_INVALID:
        return -EINVAL;
    case CONFIG_CONFLICT:
    case CONFIG_FAILED:
    default:
        return -EIO;
    }
}

int control_check(const char *path, struct problems *problems) {
    json_t *document = config_file_read(path, problems);
    if (!document) {
        return -EINVAL;
    }
    struct config *config = config_decode(document, problems);
    json_decref(document);
    if (!config) {
        return -EINVAL;
    }
    config_free(config);
    return 0;
}

static void log_problems(const struct problems *problems) {
    size_t shown = problems->count < PROBLEMS_LOGGED ? problems->count : PROBLEMS_LOGGED;
    for (size_t i = 0; i < shown; i++) {
        log_error("config", "%s: %s", problems->list[i].path, problems->list[i].message);
    }
    size_t more = problems->count - shown + problems->omitted;
    if (more > 0) {
        log_error("config", "and %zu more problems", more);
    }
}

void control_reload(void) {
    struct problems problems = {0};
    log_notice("control", "reading %s again", current_facts->config_file);
    if (control_load(&problems) != 0) {
        log_problems(&problems);
        log_error("config", "%s was not put in force; the configuration stays as it was",
                  current_facts->config_file);
    }
    problems_free(&problems);
}

void control_unload(void) {
    struct problems problems = {0};
    if (config_store_unload(&problems) != CONFIG_DONE) {
        log_problems(&problems);
        log_error("config", "the configuration could not be unloaded");
    }
    problems_free(&problems);
}

void control_stop(void) {
    server_free(server);
    server = NULL;
    config_store_free();
    current_facts = &no_facts;
}
