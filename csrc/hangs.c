/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls that hang.
 *
 * A call can take for ever: the caller's memory, or a path, may belong to a file system that does
 * not answer.  No signal but a fatal one ends that, so the thread is left to it, and another one
 * serves the listener.  The main thread sees to this: it looks every so often, as long as calls
 * come.  All of this is the main thread's but hangs_wake().
 */
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "worker.h"

#define LOOKS      5 /* at nothing, before it is not done any more */
#define HELD_UP_NS UINT64_C(100000000)
#define LEFT_MAX   32 /* threads that may be left at a time; what they cost is the host's */

/* Has the main thread look around. */
void hangs_wake(const struct worker *worker)
{
    const uint64_t one = 1;

    /* Nothing to do about a failure: the eventfd is full, so it is awake. */
    if (write(worker->wake, &one, sizeof(one)) < 0)
        return;
}

/* Has another thread take the listener over from one that a call holds up. */
static void succeed(struct session **all, struct session *session)
{
    int listener = fcntl(session->listener, F_DUPFD_CLOEXEC, 0);
    struct flight *flight = listener < 0 ? NULL : flight_take(session->worker, listener);

    if (listener >= 0 && !flight)
        close(listener);
    session->succeeded = flight && session_start(session->worker, flight, all);
}

/* Is this thread under way, or was it since the last look?  One that is held up is left. */
static bool is_awake(struct session *session, uint64_t now)
{
    uint64_t at = __atomic_load_n(&session->at, __ATOMIC_SEQ_CST);
    bool came = at != session->seen;

    session->seen = at;
    if (session->left || session->hung_up)
        return !session->succeeded && !session->hung_up;
    if ((at & SESSION_RESTS) || now < at + HELD_UP_NS)
        return came || !(at & SESSION_RESTS);
    if (session->worker->n_left < LEFT_MAX &&
        __atomic_compare_exchange_n(&session->at, &at, SESSION_IS_LEFT, false, __ATOMIC_SEQ_CST,
                                    __ATOMIC_SEQ_CST)) {
        session->left = true;
        session->worker->n_left++;
    }
    return true;
}

/* Looks after all threads; whether it has to be done again. */
static bool look(struct session **all)
{
    struct timespec ts;
    bool again = false;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    for (struct session *session = *all; session; session = session->next) {
        if (is_awake(session, (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec))
            again = true;
        /* Tried again each time, where there was no room: nobody else has the listener. */
        if (session->left && !session->succeeded && !session->hung_up)
            succeed(all, session);
    }
    return again;
}

/* The same, and says to the threads whether it will be. */
void hangs_look(struct worker *worker, struct session **all)
{
    worker->looks = look(all) ? 0 : worker->looks + 1;
    if (!worker->looks) {
        __atomic_store_n(&worker->watching, true, __ATOMIC_SEQ_CST);
    } else if (worker->watching && worker->looks >= LOOKS) {
        /* A call that began meanwhile did so without waking us. */
        __atomic_store_n(&worker->watching, false, __ATOMIC_SEQ_CST);
        __atomic_store_n(&worker->watching, look(all), __ATOMIC_SEQ_CST);
    }
}
