/* SPDX-License-Identifier: Apache-2.0 */
/* Looks at the memory of every worker now and then. What a worker shares with its template counts
 * once for each, because it becomes its own with the first write, and the kernel does not tell. */
#include "node/process/memory_limit.h"

#include "node/process/handle.h"
#include "node/process/node.h"
#include "node/process/workers.h"

#define MIB_SHIFT 20

static void check(pls_client *client, uint64_t limit_bytes)
{
    pls_worker *worker = client->worker;
    if (client->process.fd < 0 || client->pid <= 0 || worker->over_memory ||
        client->stage >= PLS_CLIENT_DYING) {
        return;
    }
    uint64_t bytes = pls_process_anonymous_bytes(client->pid);
    if (bytes <= limit_bytes) {
        return;
    }
    worker->over_memory = true;
    /* Known before the kernel has torn it down, which takes long just now. */
    pls_directory_end_set(client->node->directory, client->slot, PLS_ENDED_NOT, 0,
                          PLS_ENDED_HINT_MEMORY, pls_loop_now_ns());
    pls_output_note(client->node->output,
                    "pulsing: pid %d, worker %d, has %llu MiB resident and may have %llu: it is "
                    "killed (with_workers(memory=...) sets the limit)",
                    (int)client->pid, (int)worker->index, (unsigned long long)(bytes >> MIB_SHIFT),
                    (unsigned long long)(limit_bytes >> MIB_SHIFT));
    pls_worker_stop(worker, 0);
}

static void look(pls_alarm *alarm)
{
    pls_node *node = alarm->owner;
    for (uint32_t slot = 0; slot < PLS_SLOTS_MAX; slot++) {
        pls_client *client = node->slots[slot].client;
        if (client != NULL && client->worker != NULL) {
            check(client, node->settings.options.worker_memory_bytes);
        }
    }
    if (node->worker_count > 0) {
        pls_memory_limit_begin(node);
    }
}

void pls_memory_limit_begin(pls_node *node)
{
    pls_memory_limit *limit = &node->memory_limit;
    if (node->settings.options.worker_memory_bytes == 0 || limit->alarm.place != 0) {
        return;
    }
    limit->alarm.ring = look;
    limit->alarm.owner = node;
    /* Without memory for an alarm the next worker tries again. */
    (void)!pls_loop_alarm(node->loop, &limit->alarm,
                          pls_loop_now_ns() + PLS_MEMORY_LOOK_MS * PLS_NS_PER_MS);
}

void pls_memory_limit_end(pls_node *node)
{
    pls_loop_alarm_clear(node->loop, &node->memory_limit.alarm);
}
