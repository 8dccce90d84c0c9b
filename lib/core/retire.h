/*
 * Handing memory back when lock-free readers may still be looking at it.
 *
 * A table that workers read without locks never frees what it has unlinked: it hands the memory to
 * the retire function it was created with. That function belongs to whoever knows the readers (for
 * the router: the RCU module), and calls `free_fn` once every reader has passed a quiescent state.
 *
 * What can go wrong: a retire function that forgets an item leaks it (and keeps its owner's mapping
 * alive, see below); one that calls back too early hands live memory to the next update.
 */
#pragma once

#include <stddef.h>

/*
 * Gives `memory` of `size` bytes back to `owner` for reuse. Supplied by the table, called by the
 * retire function's side exactly once per retired item.
 *
 * Must run on the table's writer thread: the free lists behind it are not locked. It only pushes to
 * a free list, so it may be called from inside a retire call for this or for older items.
 */
typedef void (*retire_free_fn)(void *owner, void *memory, size_t size);

/*
 * Takes charge of `memory` until no reader can see it, then calls free_fn(owner, memory, size).
 * Must not fail: an implementation whose queue is full has to wait for the readers.
 *
 * ctx is the pointer that was given together with the function. An owner may be destroyed while
 * items are still waiting: it then stays mapped until the last of them has come back, so the order
 * of destroying a table and draining the queue does not matter.
 *
 * Tables accept NULL instead of a retire function: memory is then freed at once, which is right
 * only if nobody but the writer reads the table.
 */
typedef void (*retire_fn)(void *ctx, retire_free_fn free_fn, void *owner, void *memory,
                          size_t size);
