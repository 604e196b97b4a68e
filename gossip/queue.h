/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PLS_GOSSIP_QUEUE_H
#define PLS_GOSSIP_QUEUE_H

#include "base/bytes.h"
#include "gossip/gossip.h"
#include "gossip/index.h"

/* Threads: owner thread for every function of this header; none blocks. */

/* Times that one update can be sent: retransmit_mult * digits of the member count stays below. */
#define PLS_TRANSMITS_MAX 64

/* Updates in one packet, and updates that may be passed over because they are too long for it. */
#define PLS_UPDATES_PER_PACKET_MAX 128
#define PLS_UPDATES_SKIPPED_MAX 16

/* So many updates are more than one packet holds: a storm. */
#define PLS_QUEUE_STORM 64

/* Something to tell everybody: about a member, or a range of an owner's names. */
typedef struct pls_update {
    uint64_t incarnation; /* NAMES: from */
    uint64_t accuser;     /* NAMES: to */
    pls_member subject;
    uint32_t kind; /* of pls_wire_kind: SUSPECT, ALIVE, DEAD, LEFT, NAMES */
} pls_update;

typedef struct pls_queue_item {
    pls_update update;
    uint32_t previous;
    uint32_t next; /* in its list, or in the free list */
    uint32_t transmits;
} pls_queue_item;

typedef struct pls_queue_list {
    uint32_t first; /* PLS_INDEX_NONE: empty */
    uint32_t last;
} pls_queue_list;

/* Updates ordered by how often they have been sent, the newest first among those never sent. One
 * list for each number of transmits makes taking and putting back constant work. Of one subject
 * there is one update; of one owner's names there is one range that was never sent, and ranges that
 * were. */
typedef struct pls_queue {
    pls_queue_item *items;
    uint32_t capacity;
    uint32_t limit;
    uint32_t free_first;
    uint32_t count;
    uint32_t count_max; /* beyond it the most sent update goes; 0: no bound */
    pls_index by_subject;
    pls_queue_list lists[PLS_TRANSMITS_MAX];
} pls_queue;

/* An empty queue of at most `count_max` updates (0: one for each member), and its end. */
void pls_queue_init(pls_queue *queue, uint32_t count_max);
void pls_queue_fini(pls_queue *queue, pls_heap *heap);

/* Put an update in, in place of an older one of the same subject. `transmits` counts it as sent
 * that often already. Without memory it is dropped and counted: others spread it too. */
void pls_queue_put(pls_gossip *gossip, pls_queue *queue, const pls_update *update,
                   uint32_t transmits);

/* Nothing of `subject` is left in the queue. */
void pls_queue_remove(pls_queue *queue, pls_member subject);

/* Another has told me that `subject` is alive. In a storm, what others tell too leaves the queue:
 * packets are full, and what few know yet needs the room. Accusations stay. True: it left. */
bool pls_queue_heard(pls_queue *queue, pls_member subject, uint64_t incarnation);

/* Whether an update of `subject` waits. */
bool pls_queue_has(const pls_queue *queue, pls_member subject);

/* Write as many updates as fit; each counts as sent. */
void pls_queue_fill(pls_gossip *gossip, pls_queue *queue, pls_writer *packet);

/* Assert the lists and the index against each other. */
void pls_queue_check(const pls_queue *queue);

#endif
