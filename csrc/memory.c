/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory that the kernel charges the worker for what it does: the container's mounts, most of
 * all.  The worker has a memory cgroup of its own (supervisor/memory.py), with a bound above which
 * nothing is added any more.  Unmounting is always possible, and so the way back.
 *
 * The kernel's own limit is at twice that.  What comes too fast for a look now and then, or at once
 * (one call can make a million mounts, by propagation), ends there, with this process.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker.h"

#define ADDED_UNSEEN 64                   /* calls that add mounts; of tmpfs that is 100 KiB */
#define PAUSE_NS     UINT64_C(1000000000) /* between two attempts to have something dropped */
#define MARGIN       (UINT64_C(2) << 20) /* bytes by which a worker counts as larger than the holder */
#define SCORE_MAX    1000

/*
 * Where the kernel ends a process for want of memory, it shall be the one that serves, and not the
 * holder, which starts the next one.  As the host's root.  Returns 0 or -errno.
 */
int memory_set_up(struct worker *worker)
{
    char text[16] = "";

    worker->score = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
    if (worker->score < 0 || read(worker->score, text, sizeof(text) - 1) < 0)
        return -errno;
    worker->base_score = (int)strtol(text, NULL, 10);
    return 0;
}

/*
 * What the holder forks while it is `exposed` stays that.  Only the first holder can do it.  A
 * score counts in thousandths of the cgroup's limit, or of the host's memory.
 */
void memory_expose(const struct worker *worker, bool exposed)
{
    char text[16];
    int score = worker->base_score;

    if (!worker->memory_most)
        return;
    if (exposed)
        score += (int)(MARGIN * SCORE_MAX / (2 * worker->memory_most)) + 1;
    (void)snprintf(text, sizeof(text), "%d", score > SCORE_MAX ? SCORE_MAX : score);
    (void)!write(worker->score, text, strlen(text));
}

/* What is charged, in bytes; 0 where that cannot be read: then the kernel's limit is left. */
static uint64_t charged(const struct worker *worker)
{
    char text[32];
    ssize_t n = pread(worker->given[GIVEN_USAGE], text, sizeof(text) - 1, 0);

    text[n < 0 ? 0 : n] = 0;
    return strtoull(text, NULL, 10);
}

/*
 * Inodes and names that a look-up has left in the kernel's caches are charged as well; they can be
 * dropped, which takes the kernel some milliseconds.
 */
static bool is_above(struct worker *worker, uint64_t now)
{
    char text[24];
    uint64_t before = __atomic_load_n(&worker->reclaimed, __ATOMIC_RELAXED);

    if (charged(worker) < worker->memory_most)
        return false;
    if (now < before + PAUSE_NS ||
        !__atomic_compare_exchange_n(&worker->reclaimed, &before, now, false, __ATOMIC_RELAXED,
                                     __ATOMIC_RELAXED))
        return true;
    (void)snprintf(text, sizeof(text), "%" PRIu64, worker->memory_most / 4);
    /* EAGAIN: it was less than that. */
    (void)!write(worker->given[GIVEN_RECLAIM], text, strlen(text));
    return charged(worker) >= worker->memory_most;
}

/*
 * Is there no room for more mounts?  Asks the kernel once in a while, where there was none, and
 * where a call can add many (`recursive`): else it would be one more system call for each.
 */
bool memory_is_full(struct session *session, bool recursive)
{
    struct worker *worker = session->worker;
    bool full = __atomic_load_n(&worker->full, __ATOMIC_RELAXED);

    if (!worker->memory_most)
        return false;
    if (!full && !recursive &&
        __atomic_add_fetch(&worker->added, 1, __ATOMIC_RELAXED) % ADDED_UNSEEN)
        return false;
    full = is_above(worker, __atomic_load_n(&session->at, __ATOMIC_RELAXED));
    __atomic_store_n(&worker->full, full, __ATOMIC_RELAXED);
    return full;
}
