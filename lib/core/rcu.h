/*
 * Publication to workers: the control thread swaps a pointer, and frees the old object when every
 * worker has passed through a quiescent state (rte_rcu_qsbr). Workers pay one store per loop.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Prepares for `workers` reading threads (numbered from 0). 0 or negative errno. */
int rcu_init(unsigned workers);
void rcu_free(void);

/* Worker side: this thread begins / ends to read published state. */
void rcu_online(unsigned worker);
void rcu_offline(unsigned worker);
/* Worker side: holds no reference to published state at this moment. */
void rcu_quiescent(unsigned worker);

/* Control side: calls free_fn(owner, memory, size) once no worker can see the memory any more. Has
 * the shape of `retire_fn` (core/retire.h); `context` is not used. Never blocks. */
void rcu_retire(void *context, void (*free_fn)(void *owner, void *memory, size_t size), void *owner,
                void *memory, size_t size);

/* Control side: runs what has become due. Called by the event loop's turn; returns what is left. */
size_t rcu_reclaim(void);

/* Any thread, for what workers free themselves: a token for this moment, and whether every worker has
 * passed a quiescent state since. Neither waits. */
uint64_t rcu_token(void);
bool rcu_passed(uint64_t token);

/* Control side: waits until every worker has passed a quiescent state. On a machine whose only lcore
 * does both jobs, the calling thread's own worker is taken as quiescent. */
void rcu_synchronize(void);

/* Tells that control and worker share this thread (tests, one-lcore machines). Whoever turns the worker
 * then calls rcu_shared_quiescent() after each turn. */
void rcu_set_shared_thread(unsigned worker);
void rcu_shared_quiescent(void);
