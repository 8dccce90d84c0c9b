/*
 * Secrets in the configuration: string members named "key", "authentication_key", "psk",
 * "secret" or "password", at any
 * depth. They are put to work and saved, but never shown or logged.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "core/problem.h"

/* What is shown in a secret's place. */
#define SECRET_MASK "***"

/* Is the member of this name and value a secret? `name` may be NULL (an array's element). */
bool secret_is(const char *name, const json_t *value);

/* A copy of the value, which stands under `name` (NULL: in an array, or at the top), with every
 * secret masked. A new reference; NULL when memory is short. */
json_t *secrets_masked(const char *name, const json_t *value);

/* Adds a problem for each secret that is a mask: the document comes from config.get, and applying
 * it would put the mask to work. */
void secrets_refuse_masks(const json_t *document, struct problems *problems);

/* Masks what problems found in the document repeat of its secrets. */
void secrets_scrub(const json_t *document, struct problems *problems);
