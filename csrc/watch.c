/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can be seen of a worker from outside: counts, and while somebody follows it, events.
 *
 * Counts are relaxed atomic additions: each is exact, and two of them need not be of the same
 * moment.  An event's slot carries a turn number as in ring.c, but here nobody frees a slot: the
 * writer of turn t takes that of turn t - n away from whoever has not read it yet.
 */
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "api.h"

#define BEING_WRITTEN ((uint64_t)1 << 63)

_Static_assert(sizeof(struct eci_watch) <= ECI_WATCH_HEAD, "the slots lie behind the head");

static uint64_t offset_of(uint32_t slots, uint64_t turn)
{
    return ECI_WATCH_HEAD + (turn & (slots - 1)) * sizeof(struct eci_event);
}

uint64_t eci_watch_bytes(uint32_t slots)
{
    return ECI_WATCH_HEAD + (uint64_t)slots * sizeof(struct eci_event);
}

void eci_watch_init(struct eci_watch *watch, uint32_t slots)
{
    memset(watch, 0, sizeof(*watch));
    watch->counts.magic = ECI_WATCH_MAGIC;
    watch->counts.version = ECI_WATCH_VERSION;
    watch->slots = slots;
}

int eci_watch_check(const struct eci_watch *watch, uint64_t size)
{
    uint32_t slots;

    if (size < ECI_WATCH_HEAD || watch->counts.magic != ECI_WATCH_MAGIC ||
        watch->counts.version != ECI_WATCH_VERSION)
        return -EINVAL;
    slots = __atomic_load_n(&watch->slots, __ATOMIC_RELAXED); /* once: others can change it */
    return slots && !(slots & (slots - 1)) && size == eci_watch_bytes(slots) ? 0 : -EINVAL;
}

static void add(uint64_t *to, uint64_t n)
{
    __atomic_fetch_add(to, n, __ATOMIC_RELAXED);
}

void eci_count(uint64_t *number)
{
    add(number, 1);
}

void eci_watch_count(struct eci_watch *watch, uint32_t kind, uint32_t reason)
{
    add(&watch->counts.calls[kind % ECI_KINDS][reason % ECI_REASONS], 1);
}

void eci_watch_time(struct eci_watch *watch, uint64_t spent_ns)
{
    unsigned int i = 0;

    while (i < ECI_TIMES - 1 && spent_ns >= (uint64_t)1000 << i)
        i++;
    add(&watch->counts.times[i], 1);
    add(&watch->counts.times_ns, spent_ns);
}

void eci_watch_put(struct eci_watch *watch, const struct eci_event *event)
{
    const size_t body = offsetof(struct eci_event, time_ns);
    uint64_t turn = __atomic_fetch_add(&watch->head, 1, __ATOMIC_RELAXED);
    struct eci_event *slot = (void *)((char *)watch + offset_of(watch->slots, turn));
    uint64_t seen = __atomic_load_n(&slot->turn, __ATOMIC_RELAXED);

    /* Only where a writer was overtaken by all slots: one of the two has to give way. */
    if ((seen & BEING_WRITTEN) || seen > turn ||
        !__atomic_compare_exchange_n(&slot->turn, &seen, turn | BEING_WRITTEN, false,
                                     __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
        add(&watch->missed, 1);
        return;
    }
    __atomic_thread_fence(__ATOMIC_RELEASE);
    memcpy((char *)slot + body, (const char *)event + body, sizeof(*event) - body);
    __atomic_store_n(&slot->turn, turn + 1, __ATOMIC_RELEASE);
}

int eci_watch_get(const struct eci_watch *watch, uint32_t slots, uint64_t turn,
                  struct eci_event *event)
{
    const struct eci_event *slot = (const void *)((const char *)watch + offset_of(slots, turn));
    uint64_t seen = __atomic_load_n(&slot->turn, __ATOMIC_ACQUIRE);

    if ((seen & ~BEING_WRITTEN) > turn + 1)
        return -ESTALE;
    if (seen != turn + 1)
        return 0;
    memcpy(event, slot, sizeof(*event));
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return __atomic_load_n(&slot->turn, __ATOMIC_RELAXED) == seen && event->arch != ECI_ARCH_NONE
               ? 1
               : -ESTALE;
}

void eci_watch_mend(struct eci_watch *watch)
{
    uint64_t head = __atomic_load_n(&watch->head, __ATOMIC_RELAXED);

    for (uint64_t turn = head > watch->slots ? head - watch->slots : 0; turn < head; turn++) {
        struct eci_event *slot = (void *)((char *)watch + offset_of(watch->slots, turn));

        if (__atomic_load_n(&slot->turn, __ATOMIC_ACQUIRE) == turn + 1)
            continue;
        slot->arch = ECI_ARCH_NONE;
        __atomic_store_n(&slot->turn, turn + 1, __ATOMIC_RELEASE);
    }
}

void eci_watch_follow(struct eci_watch *watch, uint64_t until_ns)
{
    uint64_t now = __atomic_load_n(&watch->follow_until, __ATOMIC_RELAXED);

    while (now < until_ns &&
           !__atomic_compare_exchange_n(&watch->follow_until, &now, until_ns, false,
                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
}

void eci_counts_add(struct eci_counts *sum, const struct eci_counts *more)
{
    if (more->magic != ECI_WATCH_MAGIC || more->version != ECI_WATCH_VERSION)
        return;
    if (sum->magic != ECI_WATCH_MAGIC || sum->version != ECI_WATCH_VERSION) {
        memset(sum, 0, sizeof(*sum));
        sum->magic = ECI_WATCH_MAGIC;
        sum->version = ECI_WATCH_VERSION;
    }
    for (unsigned int kind = 0; kind < ECI_KINDS; kind++)
        for (unsigned int reason = 0; reason < ECI_REASONS; reason++)
            sum->calls[kind][reason] += more->calls[kind][reason];
    for (unsigned int i = 0; i < ECI_TIMES; i++)
        sum->times[i] += more->times[i];
    sum->times_ns += more->times_ns;
    sum->dropped += more->dropped;
}
