/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The protocol: receive a call, settle or decide and perform it, reply.
 *
 * A reply starts as a denial and there is one place that sends it.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <time.h>

#include "compat.h"
#include "worker.h"

_Static_assert(FAMILY_FSCONFIG < ECI_KINDS, "each kind of call has its counts");
_Static_assert(ECI_REASON_INTERNAL < ECI_REASONS, "each reason has its count");

/*
 * How long a caller may be awake without running: its cgroup can keep it off the processors for
 * as long as a period of its quota, a second at most.
 */
enum { AWAKE_SHORT_NS = 50 * 1000, AWAKE_LONG_NS = 6400 * 1000, AWAKE_LOOKS = 320 };

static uint64_t now_ns(clockid_t clock)
{
    struct timespec ts;

    clock_gettime(clock, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Does the caller still wait for the answer?  Only then all counts that was read by thread id. */
bool session_is_awaited(const struct session *session)
{
    return ioctl(session->listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &session->notif->id) == 0;
}

/*
 * The session's until its reply; to ask for it again is nothing.  -ERESTART where somebody else has
 * changed something since call_perform() began: a name can mean something else by now.  (What is
 * held as an fd does not.)
 */
int session_take_turn(struct session *session)
{
    struct worker *worker = session->worker;

    if (session->has_turn)
        return 0;
    pthread_mutex_lock(&worker->turn);
    session->has_turn = true;
    return worker->changes == session->changes ? 0 : -ERESTART;
}

static void give_turn(struct session *session)
{
    if (!session->has_turn)
        return;
    session->has_turn = false;
    pthread_mutex_unlock(&session->worker->turn);
}

/*
 * Puts the result into the caller's table and answers with its number, in one step.  0 or -errno.
 *
 * No signal may come between: the kernel would take the descriptor back and leave the reply, which
 * by then says 0 (seccomp_notify_addfd(), Linux 6.18).
 */
static int reply_fd(struct session *session)
{
    struct seccomp_notif_addfd addfd = {
        .id = session->notif->id,
        .flags = SECCOMP_ADDFD_FLAG_SEND,
        .srcfd = (uint32_t)session->result,
        .newfd_flags = session->result_flags,
    };
    sigset_t all;
    sigset_t before;
    int r;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = ioctl(session->listener, SECCOMP_IOCTL_NOTIF_ADDFD, &addfd) < 0 ? -errno : 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return r;
}

/* The one place that replies.  0, or -ENOENT when the caller is no longer waiting. */
static int reply(struct session *session, int error, bool pass)
{
    struct seccomp_notif_resp *resp = &session->resp;
    int r;

    memset(resp, 0, sizeof(*resp));
    if (!error && !pass && session->result >= 0) {
        r = reply_fd(session);
        if (r == 0 || r == -ENOENT)
            return r;
        error = r; /* EMFILE: the caller has no room for it; ESRCH: it was interrupted just now */
    }
    resp->id = session->notif->id;
    if (pass)
        resp->flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE; /* see caller_settle() for why */
    else
        resp->error = error;
    /* A signal of the main thread's can come between; the caller would wait for ever. */
    while ((r = ioctl(session->listener, SECCOMP_IOCTL_NOTIF_SEND, resp)) < 0 && errno == EINTR)
        ;
    return r < 0 ? -errno : 0;
}

static void put_text(struct eci_event *event, unsigned int i, const struct text *text)
{
    size_t copied = text->length < ECI_EVENT_STRING ? text->length : ECI_EVENT_STRING;

    event->length[i] = text->given ? (uint32_t)text->length : ECI_STRING_NULL;
    if (text->given)
        memcpy(event->text[i], text->text, copied);
}

/* The caller's command name, read while it waits: after the reply it may be gone. */
static void read_comm(struct session *session, struct caller *caller)
{
    int n = caller_comm(caller, session->comm, sizeof(session->comm));

    if (n > 0 && session->comm[n - 1] == '\n')
        n--;
    if (n >= 0 && (size_t)n < sizeof(session->comm))
        session->comm[n] = 0;
}

static void put_objects(struct eci_event *event, const struct session *session)
{
    for (unsigned int i = 0; i < ECI_EVENT_OBJECTS; i++) {
        size_t length = session->noted_as[i].object.length;

        event->object[i] = session->noted_as[i].object;
        memcpy(event->path[i], session->noted_as[i].path,
               length < ECI_EVENT_STRING ? length : ECI_EVENT_STRING);
    }
}

/*
 * Counts the call, and tells the ring: every call when tracing, otherwise what a rule refused.
 * Whoever follows the container sees every call in the meantime.
 */
static void record(struct session *session, enum family family, const struct eci_verdict *verdict,
                   bool pass, bool known, uint64_t began)
{
    const struct seccomp_notif *notif = session->notif;
    struct worker *worker = session->worker;
    bool refused = verdict->reason >= ECI_REASON_LOOSEN;
    struct eci_event event;
    int r;

    eci_watch_count(worker->watch, family, verdict->reason);
    /* Another look at the clock: only once somebody has asked for it. */
    if (__atomic_load_n(&worker->watch->timed, __ATOMIC_RELAXED))
        eci_watch_time(worker->watch, now_ns(CLOCK_MONOTONIC) - began);
    if (!session->shown && !refused)
        return;
    memset(&event, 0, offsetof(struct eci_event, text));
    event.spent_ns = now_ns(CLOCK_MONOTONIC) - began;
    event.time_ns = now_ns(CLOCK_REALTIME) - event.spent_ns;
    memcpy(event.args, notif->data.args, sizeof(event.args));
    event.nr = (uint32_t)notif->data.nr;
    event.arch = notif->data.arch;
    event.tid = (int32_t)notif->pid;
    event.error = verdict->error;
    event.reason = verdict->reason;
    event.passed = pass;
    memcpy(event.comm, session->comm, sizeof(event.comm));
    for (unsigned int i = 0; i < ECI_EVENT_STRINGS; i++)
        event.length[i] = ECI_STRING_FAULT;
    if (known) {
        struct text texts[ECI_EVENT_STRINGS];
        unsigned int n = call_texts(session, family, texts);

        for (unsigned int i = 0; i < n; i++)
            put_text(&event, i, &texts[i]);
    }
    if (refused && session->noted)
        put_objects(&event, session);
    if (session->followed)
        eci_watch_put(worker->watch, &event);
    if (!refused && !worker->policy->trace)
        return;
    r = eci_ring_put(worker->ring, &event);
    if (r < 0 && refused)
        __atomic_fetch_add(&worker->watch->counts.dropped, 1, __ATOMIC_RELAXED);
    if (r == 1) {
        const uint64_t one = 1;

        /* Nothing to do about another failure: the eventfd is full, so the reader is awake. */
        while (write(worker->ring_event, &one, sizeof(one)) < 0 && errno == EINTR)
            ;
    }
}

static void forget(struct worker *worker, struct untold *untold)
{
    __atomic_store_n(&untold->tid, 0, __ATOMIC_RELEASE); /* first: struct flight says why */
    close_fd(&untold->dir);
    call_let_go(worker, untold->made);
    __atomic_fetch_sub(&worker->n_untold, 1, __ATOMIC_RELAXED);
}

/* A thread that ends loses its memory first. */
static bool is_gone(const struct untold *untold)
{
    char text[1];

    return readlinkat(untold->dir, "exe", text, sizeof(text)) < 0;
}

/*
 * A runtime that cannot set SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (runc before 1.5) lets signals
 * interrupt callers, and an interrupted call comes again by itself or by the program's doing.  What
 * was performed and cannot be taken back is then not performed twice: the same call of the same
 * thread, at the same instruction, gets the answer that it missed.  Any other call of the thread
 * says that it has gone on.  All of this under `turn`.
 */
static void keep_untold(struct session *session, int answer)
{
    struct worker *worker = session->worker;
    struct untold *untold = NULL;

    for (unsigned int i = 0; i < UNTOLD && !untold; i++)
        if (!worker->untold[i].tid)
            untold = &worker->untold[i];
    if (!untold) {
        untold = &worker->untold[worker->next_untold++ % UNTOLD];
        forget(worker, untold);
    }
    untold->dir = fcntl(session->caller.dir, F_DUPFD_CLOEXEC, 0);
    if (untold->dir < 0) {
        call_let_go(worker, session->made);
        return;
    }
    __atomic_fetch_add(&worker->n_untold, 1, __ATOMIC_RELAXED);
    untold->data = session->notif->data;
    untold->args = session->args;
    untold->answer = answer;
    untold->made = session->made;
    __atomic_store_n(&untold->tid, session->notif->pid, __ATOMIC_RELEASE);
}

static bool same_text(bool has_one, const char *one, bool has_other, const char *other)
{
    return has_one == has_other && (!has_one || strcmp(one, other) == 0);
}

/*
 * The strings have to be the same ones, too.  In the registers that a call does not use there is
 * whatever was there before.
 */
static bool same_call(const struct untold *untold, const struct session *session)
{
    const struct seccomp_data *was = &untold->data;
    const struct seccomp_data *is = &session->notif->data;
    size_t used = call_arguments(call_family(is)) * sizeof(is->args[0]);
    const struct mount_args *a = &untold->args;
    const struct mount_args *b = &session->args;

    return was->nr == is->nr && was->arch == is->arch &&
           was->instruction_pointer == is->instruction_pointer &&
           memcmp(was->args, is->args, used) == 0 &&
           same_text(a->has_source, a->source, b->has_source, b->source) &&
           same_text(a->has_path, a->path, b->has_path, b->path) &&
           same_text(a->has_type, a->type, b->has_type, b->type) && a->has_data == b->has_data &&
           a->data_size == b->data_size &&
           (!a->has_data || (a->data_size ? memcmp(a->data, b->data, a->data_size) == 0
                                          : strcmp(a->data, b->data) == 0));
}

/* The answer that the caller has missed, or NULL.  Its memory has been read; with the turn. */
static struct untold *find_untold(struct session *session)
{
    struct worker *worker = session->worker;

    for (unsigned int i = 0; worker->n_untold && i < UNTOLD; i++) {
        struct untold *untold = &worker->untold[i];

        if (untold->tid != session->notif->pid)
            continue;
        if (!is_gone(untold) && same_call(untold, session) &&
            (!untold->made || call_hand_out(session, untold->made) == 0))
            return untold;
        forget(worker, untold);
    }
    return NULL;
}

/* The same before the turn: it is taken where there is such an answer, and only then. */
static struct untold *find_untold_early(struct session *session)
{
    struct untold *untold;

    if (!__atomic_load_n(&session->worker->n_untold, __ATOMIC_RELAXED))
        return NULL;
    (void)session_take_turn(session);
    untold = find_untold(session);
    if (!untold)
        give_turn(session);
    return untold;
}

/* Forgets what threads have missed that are gone. */
void untold_sweep(struct worker *worker)
{
    /* Whoever has the turn may have it for long; some later time is as good. */
    if (pthread_mutex_trylock(&worker->turn) != 0)
        return;
    for (unsigned int i = 0; i < UNTOLD; i++)
        if (worker->untold[i].tid && is_gone(&worker->untold[i]))
            forget(worker, &worker->untold[i]);
    pthread_mutex_unlock(&worker->turn);
}

/* Says what was missed; it may be missed once more. */
static void answer_again(struct session *session, struct untold *untold,
                         struct eci_verdict *verdict)
{
    verdict->error = -untold->answer;
    verdict->reason = ECI_REASON_PERFORMED;
    if (reply(session, untold->answer, false) == -ENOENT) {
        verdict->reason = ECI_REASON_GONE;
        return;
    }
    if (!session->resp.error)
        untold->made = 0; /* the caller has it now */
    forget(session->worker, untold);
}

/* Whether a call that has this answer was performed, so that made again it is made twice. */
static bool leaves_something(enum family family, int answer)
{
    return answer == 0 || (answer == -EAGAIN && family == FAMILY_UMOUNT); /* MNT_EXPIRE marked */
}

/* Does it matter that the call is made twice?  Not where it says how a mount is to be. */
static bool shows_twice(const struct session *session, enum family family)
{
    return family != FAMILY_MOUNT_SETATTR &&
           !(family == FAMILY_MOUNT && (session->notif->data.args[3] & MS_REMOUNT));
}

/* The call was performed, and the caller was interrupted or killed before it got the answer. */
static void miss(struct session *session, enum family family, int answer)
{
    if (session->added_on >= 0 && perform_undo(session, session->added_on) == 0)
        return;
    if (leaves_something(family, answer))
        keep_untold(session, answer);
}

/* The call is under way, and its listener stays with this thread unless it was left already. */
static void is_not_held_up(struct session *session)
{
    uint64_t at = __atomic_load_n(&session->at, __ATOMIC_RELAXED);

    if (at != SESSION_IS_LEFT)
        __atomic_compare_exchange_n(&session->at, &at, now_ns(CLOCK_MONOTONIC) & ~SESSION_RESTS,
                                    false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

/*
 * A signal wakes a caller that does not wait killable.  From when that one has seen the signal
 * until it has the listener's lock, the kernel takes an answer and says that all is well, and then
 * drops it (kernel/seccomp.c, seccomp_do_user_notification).  So a caller that is awake already
 * gets no answer before it has left, which makes the call one that was missed, or sleeps: it may
 * not have come to that yet.  To wake up takes longer than to answer, as a rule; that the worker is
 * held up between this look and the answer is what remains.
 */
static void await_sleep(struct session *session)
{
    struct timespec pause = {.tv_nsec = AWAKE_SHORT_NS};

    if (session->worker->policy->waits_killable)
        return;
    for (unsigned int i = 0; i < AWAKE_LOOKS && caller_is_awake(&session->caller); i++) {
        if (!session_is_awaited(session))
            return;
        is_not_held_up(session);
        nanosleep(&pause, NULL);
        if (pause.tv_nsec < AWAKE_LONG_NS)
            pause.tv_nsec *= 2;
    }
}

static int perform_in_place(struct session *session, struct caller *caller, enum family family,
                            struct eci_verdict *verdict)
{
    int r = caller_stand_in(session, caller, call_begins_at_root(session, family),
                            call_begins_at_cwd(session, family));

    if (r == 0)
        r = caller_assume(session, caller);
    if (r < 0) {
        verdict->reason = ECI_REASON_INTERNAL;
        return -EPERM;
    }
    verdict->reason = ECI_REASON_PERFORMED;
    return call_perform(session, caller, family, verdict);
}

/*
 * As the kernel says of mounts of another namespace; and by what cannot be found out of them, a
 * rule.  (What is not loosened has been found.)
 */
static bool may_be_of_another_namespace(int answer, const struct eci_verdict *verdict)
{
    return answer == -EINVAL || (answer == -EPERM && verdict->reason != ECI_REASON_LOOSEN);
}

/*
 * Decides and performs one call in the caller's place, and replies before anyone else has a
 * turn, so that a mount whose caller has gone can be taken back.  call_perform() takes the turn
 * once it has looked everything up; what it has looked up by name counts only if nobody else has
 * changed anything meanwhile, else all of it is done once more, with the turn.
 */
static void handle_in_place(struct session *session, struct caller *caller, enum family family,
                            struct eci_verdict *verdict)
{
    int r = perform_in_place(session, caller, family, verdict);

    if (r == -ERESTART) {
        /* This very call may have been made before, and have been another thread's (hangs.c). */
        struct untold *missed = find_untold(session);

        if (missed) {
            answer_again(session, missed, verdict);
            give_turn(session);
            caller_leave(session, caller);
            return;
        }
        r = call_perform(session, caller, family, verdict);
    }
    if (may_be_of_another_namespace(r, verdict) && caller_was_elsewhere(session, caller)) {
        caller_leave(session, caller);
        session->flight->call.stage = STAGE_RECEIVED;
        session->noted = false;
        r = perform_in_place(session, caller, family, verdict);
        if (r == -ERESTART)
            r = call_perform(session, caller, family, verdict);
    }
    if (r < 0 && verdict->reason == ECI_REASON_PERFORMED)
        verdict->reason = ECI_REASON_KERNEL;
    session->flight->call.answer = r;
    session->flight->call.made = session->made;
    __atomic_store_n(&session->flight->call.stage, STAGE_PERFORMED, __ATOMIC_RELEASE);
    verdict->error = -r;
    if (verdict->reason >= ECI_REASON_LOOSEN && !session->comm[0])
        read_comm(session, caller);
    if (leaves_something(family, r)) {
        (void)session_take_turn(session);
        __atomic_store_n(&session->worker->changes, session->worker->changes + 1, __ATOMIC_RELEASE);
        if (shows_twice(session, family))
            await_sleep(session);
    }
    if (reply(session, r, false) == -ENOENT) {
        miss(session, family, r);
        verdict->reason = ECI_REASON_GONE;
    } else if (session->resp.error) {
        call_let_go(session->worker, session->made); /* no room for the fd */
    }
    give_turn(session);
    close_fd(&session->added_on);
    session->added_on = -1;
    caller_leave(session, caller);
}

/* The kernel carries the call out itself. */
static void pass(struct session *session, enum family family, struct eci_verdict *verdict,
                 bool known, uint64_t began)
{
    verdict->error = 0;
    reply(session, 0, true);
    record(session, family, verdict, true, known, began);
}

static void handle(struct session *session, uint64_t began)
{
    struct caller *caller = &session->caller;
    struct eci_verdict verdict = {.error = EPERM, .reason = ECI_REASON_INTERNAL};
    enum family family = call_family(&session->notif->data);
    struct untold *missed;
    bool known = false;
    int r;

    session->comm[0] = 0;
    session->result = session->added_on = -1;
    session->made = 0;
    session->noted = false;
    session->followed =
        __atomic_load_n(&session->worker->watch->follow_until, __ATOMIC_RELAXED) > began;
    session->shown = session->followed || session->worker->policy->trace;
    if (family == FAMILY_NONE) {
        verdict.error = ENOSYS;
        verdict.reason = ECI_REASON_UNKNOWN_CALL;
        reply(session, -ENOSYS, false);
        goto out;
    }
    if (family == FAMILY_SETNS || family == FAMILY_UNSHARE) {
        caller_parts(session, family);
        reply(session, 0, true);
        return;
    }
    if (family == FAMILY_OLDUMOUNT)
        session->notif->data.args[1] = 0; /* umount(2) of i386 has no flags */

    r = caller_settle(session, caller, &verdict.reason);
    if (r >= 0 && session->shown)
        read_comm(session, caller);
    if (r == 1) {
        pass(session, family, &verdict, false, began);
        return;
    }
    if (r < 0) {
        reply(session, -EPERM, false);
        goto out;
    }
    if (call_passes_unread(session, family, &verdict.reason)) {
        /* Only to be shown: the kernel reads again, and says what cannot be read. */
        known = session->shown && call_read(session, family) == 0;
        pass(session, family, &verdict, known, began);
        return;
    }
    r = call_read(session, family);
    known = true;
    if (r == 0 && call_passes(session, family, &verdict.reason)) {
        pass(session, family, &verdict, true, began);
        return;
    }
    if (r < 0) {
        verdict.error = -r;
        verdict.reason = ECI_REASON_ARGUMENT;
        reply(session, r, false);
        goto out;
    }
    missed = find_untold_early(session);
    if (missed)
        answer_again(session, missed, &verdict);
    else
        handle_in_place(session, caller, family, &verdict);
    give_turn(session);
    close_fd(&session->result);
out:
    record(session, family, &verdict, false, known, began);
}

static bool has_hung_up(const struct session *session)
{
    struct pollfd fd = {.fd = session->listener};

    return poll(&fd, 1, 0) == 1 && (fd.revents & (POLLHUP | POLLERR | POLLNVAL));
}

/*
 * Handles a call, with the main thread watching (hangs.c).  False where that took so long that
 * another thread has the listener now.
 */
static bool handle_watched(struct session *session)
{
    uint64_t began = now_ns(CLOCK_MONOTONIC) & ~SESSION_RESTS;

    /* Both in this order for both threads: either it sees the call, or we see that it sleeps. */
    __atomic_store_n(&session->at, began, __ATOMIC_SEQ_CST);
    if (!__atomic_load_n(&session->worker->watching, __ATOMIC_SEQ_CST))
        hangs_wake(session->worker);
    handle(session, began);
    return __atomic_exchange_n(&session->at, began | SESSION_RESTS, __ATOMIC_SEQ_CST) !=
           SESSION_IS_LEFT;
}

/*
 * What the process before this one has left: a call that it received and has not answered.  It gets
 * one answer.  Where a call is met a second time it is what kills, and is denied.  As
 * handle_watched().
 */
__attribute__((noinline, cold)) static bool settle(struct session *session)
{
    struct flight *flight = session->flight;
    struct eci_verdict verdict = {.error = EPERM, .reason = ECI_REASON_INTERNAL};
    int r = -EPERM;

    if (!session->notif->pid || !session_is_awaited(session))
        return true;
    if (flight->call.attempts++ == 0) {
        if (flight->call.stage != STAGE_PERFORMED && !flight->call.made)
            return handle_watched(session);
        r = flight->call.stage == STAGE_PERFORMED ? flight->call.answer : 0;
        verdict = (struct eci_verdict){.error = -r, .reason = ECI_REASON_PERFORMED};
    }
    (void)session_take_turn(session);
    session->result = -1;
    session->shown = session->followed = session->noted = false;
    if (r == 0 && flight->call.made && (r = call_hand_out(session, flight->call.made)) < 0)
        verdict.error = -r;
    reply(session, r, false);
    close_fd(&session->result);
    give_turn(session);
    record(session, call_family(&session->notif->data), &verdict, false, false,
           now_ns(CLOCK_MONOTONIC));
    return true;
}

/* Serves one listener until no thread has the filter any more, it is to `leave`, or is left. */
void session_serve(struct session *session, const bool *leave)
{
    __u64 flags = SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP;
    struct flight *flight = session->flight;
    bool goes_on;
    unsigned int tried = 0;

    /* Only a matter of speed: the caller is woken on this processor, where its data is. */
    (void)ioctl(session->listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, flags);
    caller_init(&session->caller);
    goes_on = settle(session);
    sem_post(&session->settled);
    while (goes_on && !__atomic_load_n(leave, __ATOMIC_RELAXED)) {
        flight->call.stage = STAGE_RECEIVED;
        flight->call.attempts = 0;
        flight->call.made = 0;
        memset(&flight->call.notif, 0, sizeof(flight->call.notif));
        if (ioctl(session->listener, SECCOMP_IOCTL_NOTIF_RECV, &flight->call.notif) == 0) {
            goes_on = handle_watched(session);
            tried = 0;
            continue;
        }
        /*
         * EINTR: the main thread wants a look.  ENOENT: the caller died, or all did.  After
         * anything else the call is still to be had; a listener without a thread would let it wait
         * for ever.
         */
        if (errno != EINTR && errno != ENOENT && !try_again(&tried))
            _exit(1);
        if (has_hung_up(session))
            break;
    }
    caller_close(&session->caller);
}
