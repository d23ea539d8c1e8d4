/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event ring and the watch file: in order, they are a queue and a window; and whatever the
 * other side has written into the memory, the reader stays in it.
 */
#include <errno.h>

#include "../../../csrc/api.h"
#include "fuzz.h"

enum { SLOTS = 4, WRITES = 64 };

/* Some events, and now and then somebody who reads: first in, first out, and each loss counted. */
static void as_a_queue(struct input *in)
{
    struct eci_ring *ring = malloc(eci_ring_bytes(SLOTS));
    struct eci_event event = {0};
    uint64_t written = 0;
    uint64_t read = 0;
    uint64_t lost = 0;
    bool asleep = false;

    NEED(ring);
    eci_ring_init(ring, SLOTS);
    while (in->left) {
        uint8_t what = take_byte(in);
        int r;

        if (what % 3 == 0) {
            event.args[0] = written;
            event.nr = what;
            r = eci_ring_put(ring, &event);
            if (written - read == SLOTS) {
                CHECK(r == -EAGAIN);
                lost++;
            } else {
                CHECK(r == (asleep ? 1 : 0));
                written++;
                asleep = false;
            }
        } else if (what % 3 == 1) {
            r = eci_ring_get(ring, SLOTS, &event);
            CHECK(r == (written > read));
            if (r)
                CHECK(event.args[0] == read++);
        } else {
            r = eci_ring_sleep(ring, SLOTS);
            CHECK(r == (written == read));
            asleep = r == 1;
        }
        CHECK(ring->dropped == lost);
    }
    free(ring);
}

/* The last events are to be had, older ones are known to be gone. */
static void as_a_window(struct input *in)
{
    struct eci_watch *watch = malloc(eci_watch_bytes(SLOTS));
    struct eci_event event = {0};
    uint64_t written = 0;

    NEED(watch);
    memset(watch, 0, eci_watch_bytes(SLOTS));
    eci_watch_init(watch, SLOTS);
    CHECK(eci_watch_check(watch, eci_watch_bytes(SLOTS)) == 0);
    while (in->left) {
        uint8_t what = take_byte(in);

        if (what & 1) {
            event.args[0] = written++;
            eci_watch_put(watch, &event);
            eci_watch_count(watch, what, what >> 1);
            eci_watch_time(watch, (uint64_t)1 << (what % 64));
        } else {
            uint64_t turn = (what >> 1) % (WRITES + 1);
            int r = eci_watch_get(watch, SLOTS, turn, &event);

            if (turn >= written)
                CHECK(r == 0);
            else if (turn + SLOTS < written)
                CHECK(r == -ESTALE);
            else
                CHECK(r == 1 && event.args[0] == turn);
        }
    }
    free(watch);
}

/* All of the memory is somebody else's. */
static void with_anything_in_it(struct input *in)
{
    size_t ring_size = eci_ring_bytes(SLOTS);
    size_t watch_size = eci_watch_bytes(SLOTS);
    struct eci_ring *ring = calloc(1, ring_size);
    struct eci_watch *watch = calloc(1, watch_size);
    struct eci_event event;
    uint64_t turn;

    NEED(ring && watch);
    take(in, ring, sizeof(*ring));
    turn = take_number(in);
    for (unsigned int i = 0; i < SLOTS; i++)
        ((struct eci_event *)(ring + 1))[i].turn = ring->tail + (turn >> (16 * i)) % 8 - 3;
    for (unsigned int i = 0; i < 2 * SLOTS; i++)
        if (!eci_ring_get(ring, SLOTS, &event))
            break;
    (void)eci_ring_sleep(ring, SLOTS);

    take(in, &watch->counts, 8);
    watch->follow_until = take_number(in);
    watch->slots = (uint32_t)take_number(in);
    for (unsigned int i = 0; i < 2 * SLOTS; i++)
        (void)eci_watch_get(watch, SLOTS, turn + i, &event);
    if (eci_watch_check(watch, watch_size) == 0)
        CHECK(watch->slots == SLOTS);
    free(watch);
    free(ring);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    uint8_t which = take_byte(&in);

    if (in.left > WRITES && which % 3 < 2)
        return -1;
    if (which % 3 == 0)
        as_a_queue(&in);
    else if (which % 3 == 1)
        as_a_window(&in);
    else
        with_anything_in_it(&in);
    return 0;
}
