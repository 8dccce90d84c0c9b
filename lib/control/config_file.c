/*
 * Configuration files. What can go wrong is what the file system and the user can think of; each
 * case is one sentence in the list of problems.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* mkostemp() */
#endif

#include "control/config_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/json_scan.h"
#include "control/json_text.h"
#include "core/log.h"

/* ---- reading ---- */

/* The descriptor's whole contents in new memory, or NULL with a problem. */
static char *read_all(int fd, const char *path, size_t *length, struct problems *problems) {
    size_t capacity = 64 << 10;
    char *text = malloc(capacity);
    *length = 0;
    while (text) {
        if (*length == capacity) {
            capacity *= 2;
            char *more = realloc(text, capacity);
            if (!more) {
                break;
            }
            text = more;
        }
        ssize_t got = read(fd, text + *length, capacity - *length);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            problems_add(problems, path, "cannot be read: %s", strerror(errno));
            free(text);
            return NULL;
        }
        if (got == 0) {
            return text;
        }
        *length += (size_t)got;
        if (*length > CONFIG_FILE_MAX) {
            problems_add(problems, path, "is longer than %d bytes", CONFIG_FILE_MAX);
            free(text);
            return NULL;
        }
    }
    problems_add(problems, path, "cannot be read: out of memory");
    free(text);
    return NULL;
}

json_t *config_file_read(const char *path, struct problems *problems) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) {
        problems_add(problems, path, "cannot be opened: %s", strerror(errno));
        return NULL;
    }
    struct stat status;
    char *text = NULL;
    size_t length = 0;
    if (fstat(fd, &status) != 0) {
        problems_add(problems, path, "cannot be examined: %s", strerror(errno));
    } else if (S_ISREG(status.st_mode) && status.st_size > CONFIG_FILE_MAX) {
        problems_add(problems, path, "has %lld bytes; a configuration may have %d",
                     (long long)status.st_size, CONFIG_FILE_MAX);
    } else {
        text = read_all(fd, path, &length, problems);
    }
    close(fd);
    if (!text) {
        return NULL;
    }

    struct json_fault fault;
    json_t *document = json_text_load(text, length, &fault);
    if (!document) {
        size_t size = strlen(path) + 48;
        char *place = malloc(size);
        if (place) {
            snprintf(place, size, "%s:%zu:%zu", path, fault.line, fault.column);
        }
        problems_add(problems, place ? place : path, "%s", fault.text);
        free(place);
    }
    free(text);
    return document;
}

/* ---- writing ---- */

/* Does the file look like a configuration, or is it empty? */
static bool may_replace(const char *path) {
    char start[512];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) {
        return false;
    }
    ssize_t length = read(fd, start, sizeof(start));
    close(fd);
    ssize_t i = 0;
    while (i < length && json_scan_is_space(start[i])) {
        i++;
    }
    return length == 0 || (length > 0 && (i == length || start[i] == '{'));
}

/* The file that `path` means, in new memory; status->st_mode is 0 when there is none yet. */
static char *find_target(const char *path, struct stat *status, struct problems *problems) {
    memset(status, 0, sizeof(*status));
    char *target = realpath(path, NULL);
    if (!target) {
        struct stat link;
        if (errno != ENOENT) {
            problems_add(problems, path, "cannot be saved to: %s", strerror(errno));
        } else if (lstat(path, &link) == 0) {
            problems_add(problems, path, "is a symbolic link to a file that does not exist");
        } else {
            return strdup(path);
        }
        return NULL;
    }
    if (stat(target, status) != 0) {
        problems_add(problems, target, "cannot be examined: %s", strerror(errno));
    } else if (!S_ISREG(status->st_mode)) {
        problems_add(problems, target, "is not a regular file; it is left alone");
    } else if (!may_replace(target)) {
        problems_add(problems, target,
                     "exists and does not look like a configuration; it is left alone");
    } else {
        return target;
    }
    free(target);
    return NULL;
}

static int write_all(int fd, const char *text, size_t length) {
    while (length > 0) {
        ssize_t written = write(fd, text, length);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written < 0) {
            return -1;
        }
        text += written;
        length -= (size_t)written;
    }
    return 0;
}

/* Fills and syncs the temporary file. 0 or negative errno. */
static int fill(int fd, const json_t *document, const struct stat *status) {
    mode_t mode = CONFIG_FILE_MODE;
    if (status->st_mode) {
        mode = status->st_mode & 07777;
        /* Not being allowed to give the file away is no reason not to save; but then its mode must
         * not open it to a group that could not read it before. */
        if (fchown(fd, status->st_uid, status->st_gid) != 0) {
            mode &= ~(mode_t)070;
        }
    }
    if (fchmod(fd, mode) != 0) {
        return -errno;
    }
    char *text = json_dumps(document, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    if (!text) {
        return -ENOMEM;
    }
    int rc = write_all(fd, text, strlen(text)) == 0 && write_all(fd, "\n", 1) == 0 ? 0 : -errno;
    free(text);
    if (rc == 0 && fsync(fd) != 0) {
        rc = -errno;
    }
    return rc;
}

/* Makes the rename itself lasting. Some file systems cannot; the file is in place all the same. */
static void sync_directory(const char *directory) {
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0) {
        log_debug("config", "cannot sync %s: %s", directory, strerror(errno));
    }
    if (fd >= 0) {
        close(fd);
    }
}

/* The directory part of a path, in new memory. */
static char *directory_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) {
        return strdup(".");
    }
    return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

int config_file_write(const char *path, const json_t *document, struct problems *problems) {
    struct stat status;
    char *target = find_target(path, &status, problems);
    if (!target) {
        return -EINVAL;
    }
    char *directory = directory_of(target);
    char *temporary = NULL;
    if (!directory || asprintf(&temporary, "%s/.dpdk-router.XXXXXX", directory) < 0) {
        problems_add(problems, target, "cannot be saved to: out of memory");
        free(directory);
        free(target);
        return -ENOMEM;
    }

    int rc = 0;
    int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0) {
        rc = -errno;
        problems_add(problems, target, "cannot be saved to: no file can be made in %s: %s",
                     directory, strerror(-rc));
    } else {
        rc = fill(fd, document, &status);
        if (close(fd) != 0 && rc == 0) {
            rc = -errno;
        }
        if (rc == 0 && rename(temporary, target) != 0) {
            rc = -errno;
        }
        if (rc == 0) {
            sync_directory(directory);
        } else {
            problems_add(problems, target, "cannot be saved to: %s", strerror(-rc));
            unlink(temporary);
        }
    }
    free(temporary);
    free(directory);
    free(target);
    return rc;
}
