/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads at what a worker's threads share with readers: ring.c and watch.c, small, so that writers
 * overtake each other.  Exits 0 where no event was torn, doubled or lost without being counted.
 */
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "api.h"

enum { SLOTS = 8, WRITERS = 4, EACH = 20000, ALL = WRITERS * EACH };

static struct eci_ring *ring;
static struct eci_watch *watch;
static bool over;

static void *write_events(void *first)
{
    int from = *(int *)first;

    for (int i = from; i < from + EACH; i++) {
        struct eci_event event = {.tid = i, .nr = (uint32_t)i, .spent_ns = (uint64_t)i};

        if (eci_ring_put(ring, &event) < 0)
            sched_yield(); /* full: the reader's turn */
        eci_watch_put(watch, &event);
        eci_watch_count(watch, 1, 2);
        eci_watch_follow(watch, (uint64_t)i);
    }
    return NULL;
}

/* Whether the event is whole, and not one that was `seen`. */
static bool is_good(const struct eci_event *event, bool *seen)
{
    bool good = event->tid >= 0 && event->tid < ALL && event->nr == (uint32_t)event->tid &&
                event->spent_ns == (uint64_t)event->tid && !seen[event->tid];

    if (good)
        seen[event->tid] = true;
    return good;
}

/* A follower: sees what it is quick enough for. */
static void *follow(void *bad)
{
    bool *seen = calloc(ALL, sizeof(*seen));
    struct eci_event event;
    uint64_t turn = 0;

    while (!__atomic_load_n(&over, __ATOMIC_ACQUIRE)) {
        int r = eci_watch_get(watch, SLOTS, turn, &event);

        if (r == 1 && !is_good(&event, seen))
            ++*(int *)bad;
        if (r != 0)
            turn++;
    }
    free(seen);
    return NULL;
}

int main(void)
{
    pthread_t writers[WRITERS];
    pthread_t follower;
    int from[WRITERS];
    struct eci_event event;
    bool *seen = calloc(ALL, sizeof(*seen));
    int torn = 0;
    int bad = 0;
    uint64_t n = 0;

    ring = calloc(1, eci_ring_bytes(SLOTS));
    watch = calloc(1, eci_watch_bytes(SLOTS));
    if (!seen || !ring || !watch)
        return 2;
    eci_ring_init(ring, SLOTS);
    eci_watch_init(watch, SLOTS);
    pthread_create(&follower, NULL, follow, &torn);
    for (int i = 0; i < WRITERS; i++) {
        from[i] = i * EACH;
        pthread_create(&writers[i], NULL, write_events, &from[i]);
    }
    while (n + __atomic_load_n(&ring->dropped, __ATOMIC_RELAXED) < ALL) {
        if (eci_ring_get(ring, SLOTS, &event)) {
            bad += !is_good(&event, seen);
            n++;
        } else {
            eci_ring_sleep(ring, SLOTS);
        }
    }
    for (int i = 0; i < WRITERS; i++)
        pthread_join(writers[i], NULL);
    __atomic_store_n(&over, true, __ATOMIC_RELEASE);
    pthread_join(follower, NULL);
    printf("shared: %llu events read, %llu dropped, %d wrong, %d of the follower's wrong\n",
           (unsigned long long)n, (unsigned long long)ring->dropped, bad, torn);
    return bad || torn || eci_ring_get(ring, SLOTS, &event) || watch->counts.calls[1][2] != ALL;
}
