/*
 * What changed between two JSON documents, as a list a person can read.
 *
 * Objects are compared key by key. In arrays, equal elements are matched first, wherever an
 * insertion or removal has moved them, so one new route among a million is one "add". What is left
 * between two matches is compared in order: objects that still have a member in common are one
 * element that changed, anything else was replaced as a whole. Elements that changed places show as
 * a removal and an addition (in a list of rules, order matters).
 */
#pragma once

#include <jansson.h>

/* A new array of {"path", "action", "old", "new"}: "add" has no "old", "remove" has no "new",
 * "change" has both. Paths of removals tell the place in the old document, all others that in the
 * new one. Secrets are masked. NULL when memory is short. */
json_t *json_diff(const json_t *old, const json_t *new);
