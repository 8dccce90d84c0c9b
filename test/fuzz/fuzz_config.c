/*
 * Any JSON as a configuration: decoding and the checks across sections. They touch nothing, neither
 * the router nor the document, come to the same verdict about the same document, and name a place
 * and a sentence for every problem.
 */
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/config_store.h"
#include "core/log.h"
#include "core/problem.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    log_set_level(LOG_LEVEL_ERROR);
    return 0;
}

/* Is it right? Every problem has a place and a sentence. */
static bool decodes(const json_t *document) {
    struct problems problems = {0};
    struct config *config = config_decode(document, &problems);
    bool right = config != NULL;

    if (right != (problems.count + problems.omitted == 0))
        abort();
    for (size_t i = 0; i < problems.count; i++) {
        if (problems.list[i].path[0] != '$' || problems.list[i].message[0] == '\0')
            abort();
    }
    config_free(config);
    problems_free(&problems);
    return right;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    json_t *document = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
    json_t *same;

    if (!document)
        return 0;
    same = json_deep_copy(document);
    if (decodes(document) != decodes(same) || !json_equal(document, same))
        abort();
    json_decref(same);
    json_decref(document);
    return 0;
}
