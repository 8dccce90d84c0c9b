/*
 * Assembly of a worker's rte_pipeline. Everything of DPDK's packet framework (rte_pipeline, rte_port,
 * rte_table) stays behind this header, so that a move to another engine is one file's work.
 *
 * How it costs next to nothing: each stage is a table whose lookup function does the stage's work on
 * the whole burst; the table's default entry carries the burst on, so the usual packet causes no
 * per-packet bookkeeping; the last table's default action is one output port that sorts the burst
 * into the real ports' transmit buffers. Only packets that leave the path are returned as hits.
 */
#pragma once

#include "core/worker.h"

/* A receive queue that the worker polls. */
struct rx_queue {
    uint16_t port, queue;
};

/* How the worker reaches one port for transmission. */
struct tx_route {
    bool usable;
    bool linear;
    bool by_ring;
    uint16_t queue;
    struct worker *owner;
};

struct pipeline;

/* Builds a pipeline for the worker with the stages that are wanted now. NULL with a logged reason. */
struct pipeline *pipeline_create(struct worker *worker, const struct rx_queue *queues,
                                 unsigned queue_count, const struct tx_route tx[PORTS_MAX]);
/* The pipeline must not be in use. NULL is allowed. */
void pipeline_free(struct pipeline *pipeline);

/* Each input once. Returns the packets taken in. */
unsigned pipeline_turn(struct pipeline *pipeline);

const struct tx_route *pipeline_tx(const struct pipeline *pipeline, uint16_t port);
bool pipeline_rx(const struct pipeline *pipeline, unsigned i, struct rx_queue *out);
