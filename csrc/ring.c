/*
 * The event ring: a bounded queue for many writers and one reader in shared memory.
 *
 * Each slot carries a turn number.  A writer may fill slot (t mod n) when its turn is t and
 * publishes it with t + 1; the reader frees it with t + n.  Writers reserve a turn by
 * compare-and-swap and never wait: a slot that is not free means a full ring, and the event is
 * counted and dropped.
 *
 * The reader is not at the mercy of the writers: how many slots there are it knows by itself, so
 * that nothing that stands in the memory leads it out of there.
 */
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "api.h"

static struct eci_event *slot_of(struct eci_ring *ring, uint32_t n, uint64_t turn)
{
    struct eci_event *slots = (void *)(ring + 1);

    return &slots[turn & (n - 1)];
}

uint64_t eci_ring_bytes(uint32_t slots)
{
    return sizeof(struct eci_ring) + (uint64_t)slots * sizeof(struct eci_event);
}

void eci_ring_init(struct eci_ring *ring, uint32_t slots)
{
    memset(ring, 0, sizeof(*ring));
    ring->slots = slots;
    for (uint32_t i = 0; i < slots; i++)
        slot_of(ring, slots, i)->turn = i;
}

int eci_ring_put(struct eci_ring *ring, const struct eci_event *event)
{
    const size_t body = offsetof(struct eci_event, time_ns);
    uint64_t turn = __atomic_load_n(&ring->head, __ATOMIC_RELAXED);
    struct eci_event *slot;

    for (;;) {
        uint64_t seen;

        slot = slot_of(ring, ring->slots, turn);
        seen = __atomic_load_n(&slot->turn, __ATOMIC_ACQUIRE);
        if (seen == turn) {
            if (__atomic_compare_exchange_n(&ring->head, &turn, turn + 1, false, __ATOMIC_RELAXED,
                                            __ATOMIC_RELAXED))
                break;
        } else if (seen < turn) {
            __atomic_fetch_add(&ring->dropped, 1, __ATOMIC_RELAXED);
            return -EAGAIN;
        } else {
            turn = __atomic_load_n(&ring->head, __ATOMIC_RELAXED);
        }
    }
    memcpy((char *)slot + body, (const char *)event + body, sizeof(*event) - body);
    /* Sequentially consistent with eci_ring_sleep: one of the two sees the other. */
    __atomic_store_n(&slot->turn, turn + 1, __ATOMIC_SEQ_CST);
    return __atomic_exchange_n(&ring->waiting, 0, __ATOMIC_SEQ_CST) ? 1 : 0;
}

int eci_ring_get(struct eci_ring *ring, uint32_t slots, struct eci_event *event)
{
    uint64_t tail = __atomic_load_n(&ring->tail, __ATOMIC_RELAXED);

    /* Not for ever: who writes may be hostile. */
    for (uint32_t i = 0; i < slots; i++) {
        struct eci_event *slot = slot_of(ring, slots, tail);

        if (__atomic_load_n(&slot->turn, __ATOMIC_SEQ_CST) != tail + 1)
            return 0;
        memcpy(event, slot, sizeof(*event));
        __atomic_store_n(&slot->turn, tail + slots, __ATOMIC_RELEASE);
        __atomic_store_n(&ring->tail, ++tail, __ATOMIC_RELAXED);
        if (event->arch != ECI_ARCH_NONE)
            return 1;
    }
    return 0;
}

void eci_ring_mend(struct eci_ring *ring)
{
    uint64_t head = __atomic_load_n(&ring->head, __ATOMIC_RELAXED);

    for (uint64_t turn = head > ring->slots ? head - ring->slots : 0; turn < head; turn++) {
        struct eci_event *slot = slot_of(ring, ring->slots, turn);

        if (__atomic_load_n(&slot->turn, __ATOMIC_ACQUIRE) != turn)
            continue;
        slot->arch = ECI_ARCH_NONE;
        __atomic_fetch_add(&ring->dropped, 1, __ATOMIC_RELAXED);
        __atomic_store_n(&slot->turn, turn + 1, __ATOMIC_SEQ_CST);
    }
}

int eci_ring_sleep(struct eci_ring *ring, uint32_t slots)
{
    uint64_t tail = __atomic_load_n(&ring->tail, __ATOMIC_RELAXED);

    __atomic_store_n(&ring->waiting, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&slot_of(ring, slots, tail)->turn, __ATOMIC_SEQ_CST) == tail + 1) {
        __atomic_store_n(&ring->waiting, 0, __ATOMIC_SEQ_CST);
        return 0;
    }
    return 1;
}
