/* SPDX-License-Identifier: Apache-2.0 */
/* The parent's part: it does to producers what a system's bad days do, and nothing to the memory
 * but ring the dead bell after the kernel has confirmed a death. */
#include "tests/stress/crowd.h"

#include "tests/fork_check.h"
#include "tests/stress/wire.h"

#include <check.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CLEAR_LIMIT_MS 2000
#define JOIN_LIMIT_MS 10000

double crowd_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

void crowd_pause_us(uint32_t us)
{
    struct timespec pause = {.tv_sec = us / 1000000, .tv_nsec = (long)(us % 1000000) * 1000};
    nanosleep(&pause, NULL);
}

void crowd_pin(uint32_t index)
{
    cpu_set_t usable;
    cpu_set_t one;
    CPU_ZERO(&one);
    if (sched_getaffinity(0, sizeof usable, &usable) != 0 || CPU_COUNT(&usable) < 2) {
        return;
    }
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &usable) && index-- == 0) {
            CPU_SET(cpu, &one);
            (void)sched_setaffinity(0, sizeof one, &one);
            return;
        }
    }
}

static pid_t child_start(void)
{
    pid_t parent = getpid();
    pid_t pid = fork();
    fork_check(pid);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) {
            _exit(1);
        }
    }
    return pid;
}

static void producer_start(crowd *c, uint32_t lane)
{
    crowd_lane *score = &c->score->lanes[lane];
    c->epochs[lane]++;
    atomic_store(&score->begun, 0);
    atomic_store(&score->committed, 0);
    atomic_store(&score->rung, 0);
    atomic_store(&score->delivered, 0);
    c->pids[lane] = child_start();
    if (c->pids[lane] == 0) {
        crowd_produce(c, lane);
    }
}

void crowd_open(crowd *c, const crowd_manner *manner, uint32_t producers, uint64_t seed)
{
    int introduce[2];
    wire_packet packet;
    memset(c, 0, sizeof *c);
    c->manner = *manner;
    c->producers = producers;
    c->seed = seed;
    c->score =
        mmap(NULL, sizeof *c->score, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(c->score, MAP_FAILED);
    wire_open(c->sockets);
    wire_open(introduce);
    c->consumer = child_start();
    if (c->consumer == 0) {
        crowd_consume(c, introduce[1]);
    }
    ck_assert(wire_receive(introduce[0], &packet, c->fds, JOIN_LIMIT_MS));
    close(introduce[0]);
    close(introduce[1]);
    ck_assert_int_eq(
        pls_peer_attach(dup(c->fds[0]), dup(c->fds[1]), CROWD_CONSUMER_SLOT, CROWD_EPOCH, &c->bell),
        PLS_OK);
    for (uint32_t lane = 0; lane < producers; lane++) {
        producer_start(c, lane);
    }
}

/* The kernel's word that it is gone. */
static void producer_end(crowd *c, uint32_t lane)
{
    kill(c->pids[lane], SIGKILL);
    int status = 0;
    ck_assert_int_eq(waitpid(c->pids[lane], &status, 0), c->pids[lane]);
    /* One that ended by itself has found something wrong. */
    ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
                  "a producer ended by itself: status %d", status);
}

static void producer_clear(crowd *c, uint32_t lane, double killed_ms)
{
    crowd_lane *score = &c->score->lanes[lane];
    pls_peer_ring_dead(c->bell, CROWD_PRODUCER_SLOT + lane);
    while (atomic_load(&score->cleared) != c->epochs[lane]) {
        if (crowd_now_ms() - killed_ms > CLEAR_LIMIT_MS) {
            c->late++;
            return;
        }
        crowd_pause_us(20);
    }
    double took_ms = crowd_now_ms() - killed_ms;
    c->clear_sum_ms += took_ms;
    c->clear_max_ms = took_ms > c->clear_max_ms ? took_ms : c->clear_max_ms;
    uint32_t delivered = atomic_load(&score->delivered);
    if (delivered < atomic_load(&score->committed) || delivered > atomic_load(&score->begun)) {
        c->undelivered++;
    }
}

void crowd_kill(crowd *c, uint32_t lane)
{
    double killed_ms = crowd_now_ms();
    producer_end(c, lane);
    producer_clear(c, lane, killed_ms);
    c->kills++;
    producer_start(c, lane);
}

void crowd_freeze(crowd *c, pid_t pid, uint32_t us)
{
    kill(pid, SIGSTOP);
    crowd_pause_us(us);
    kill(pid, SIGCONT);
}

void crowd_close(crowd *c)
{
    for (uint32_t lane = 0; lane < c->producers; lane++) {
        double killed_ms = crowd_now_ms();
        producer_end(c, lane);
        producer_clear(c, lane, killed_ms);
    }
    atomic_store(&c->score->stop, 1);
    pls_peer_wake(c->bell);
    int status = 0;
    ck_assert_int_eq(waitpid(c->consumer, &status, 0), c->consumer);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the consumer ended with %d",
                  status);
    pls_peer_release(c->bell);
    close(c->fds[0]);
    close(c->fds[1]);
    close(c->sockets[0]);
    close(c->sockets[1]);
}

bool crowd_is_sound(const crowd *c, const char *name)
{
    const crowd_score *score = c->score;
    double deaths = (double)(c->kills + c->producers);
    printf(
        "%s: seed %llu, %llu kills, %llu letters (%llu with a block), %llu sleeps, %llu rechecks "
        "that found work, %u broken, %llu deaths with letters lost or doubled, %llu cleared late, "
        "%u left open; kill to cleared mean %.2f ms, max %.1f ms\n",
        name, (unsigned long long)c->seed, (unsigned long long)c->kills,
        (unsigned long long)atomic_load(&score->delivered),
        (unsigned long long)atomic_load(&score->enclosed),
        (unsigned long long)atomic_load(&score->sleeps),
        (unsigned long long)atomic_load(&score->found_work), atomic_load(&score->broken),
        (unsigned long long)c->undelivered, (unsigned long long)c->late,
        atomic_load(&score->left_open), c->clear_sum_ms / deaths, c->clear_max_ms);
    fflush(stdout);
    return atomic_load(&score->found_work) == 0 && atomic_load(&score->broken) == 0 &&
           c->undelivered == 0 && c->late == 0 && atomic_load(&score->left_open) == 0;
}
