/*
 * Configuration files: reading them with limits, and replacing them so that a crash or a full disk
 * leaves either the old file or the new one, never half of one.
 */
#pragma once

#include <jansson.h>

#include "core/problem.h"

enum {
    CONFIG_FILE_MAX = 64 << 20, /* bytes */
    CONFIG_FILE_MODE = 0600,    /* of a new file: it holds secrets */
};

/* Reads one JSON document. NULL with a problem, whose path is "FILE" or "FILE:LINE:COLUMN". A pipe
 * is read to its end, and waited for: at the start of the program only. */
json_t *config_file_read(const char *path, struct problems *problems);

/* Writes the document, indented, to a temporary file in the same directory, makes sure that it is
 * on the disk, and renames it to `path`. A symbolic link stays one: the file it points to is
 * replaced. An existing file keeps its mode and owner, and is only replaced if it is a regular file
 * that is empty or starts like a JSON object: a mistyped path must not cost the user another file.
 * 0, or negative errno with a problem. */
int config_file_write(const char *path, const json_t *document, struct problems *problems);
