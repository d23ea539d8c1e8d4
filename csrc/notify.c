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
#include <stddef.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <time.h>

#include "compat.h"
#include "worker.h"

static uint64_t now_ns(clockid_t clock)
{
    struct timespec ts;

    clock_gettime(clock, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static bool is_alive(const struct session *session)
{
    return ioctl(session->listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &session->notif.id) == 0;
}

/* The one place that replies.  0, or -ENOENT when the caller is no longer waiting. */
static int reply(struct session *session, int error, bool pass)
{
    struct seccomp_notif_resp *resp = &session->resp;
    int r;

    if (!error && !pass && session->result >= 0) {
        struct seccomp_notif_addfd addfd = {
            .id = session->notif.id,
            .flags = SECCOMP_ADDFD_FLAG_SEND, /* one step: no answer without the fd */
            .srcfd = (uint32_t)session->result,
            .newfd_flags = session->result_flags,
        };

        r = ioctl(session->listener, SECCOMP_IOCTL_NOTIF_ADDFD, &addfd) < 0 ? -errno : 0;
        if (r == 0 || r == -ENOENT)
            return r;
        error = r; /* EMFILE: the caller has no room for it */
    }
    memset(resp, 0, sizeof(*resp));
    resp->id = session->notif.id;
    if (pass)
        resp->flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE; /* see caller_settle() for why */
    else
        resp->error = error;
    return ioctl(session->listener, SECCOMP_IOCTL_NOTIF_SEND, resp) < 0 ? -errno : 0;
}

static void put_text(struct eci_event *event, unsigned int i, const struct text *text)
{
    size_t copied = text->length < ECI_EVENT_STRING ? text->length : ECI_EVENT_STRING;

    event->length[i] = text->given ? (uint32_t)text->length : ECI_STRING_NULL;
    if (text->given)
        memcpy(event->text[i], text->text, copied);
}

/* The caller's command name, read while it waits: after the reply it may be gone. */
static void read_comm(struct session *session, const struct caller *caller)
{
    cleanup_fd int fd = openat(caller->dir, "comm", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, session->comm, sizeof(session->comm));

    if (n > 0 && session->comm[n - 1] == '\n')
        n--;
    if (n >= 0 && (size_t)n < sizeof(session->comm))
        session->comm[n] = 0;
}

/* Tells the ring: every call when tracing, otherwise what a rule refused. */
static void record(struct session *session, enum family family, const struct eci_verdict *verdict,
                   bool pass, bool known, uint64_t began)
{
    const struct seccomp_notif *notif = &session->notif;
    struct worker *worker = session->worker;
    struct eci_event event;

    if (!worker->policy->trace && verdict->reason < ECI_REASON_LOOSEN)
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
    if (eci_ring_put(worker->ring, &event) == 1) {
        const uint64_t one = 1;

        /* Nothing to do about a failure: the eventfd is full, so the reader is awake. */
        if (write(worker->ring_event, &one, sizeof(one)) < 0)
            return;
    }
}

/*
 * A runtime that cannot set SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (runc 1.1) lets signals
 * interrupt callers, and an interrupted call comes again by itself.  What was performed and cannot
 * be taken back is then not performed twice: the same call of the same thread, at the same
 * instruction, gets the answer that it missed.
 */
static void keep_untold(struct session *session)
{
    close_fd(&session->untold.result);
    session->untold.result = take_fd(&session->result);
    session->untold.tid = session->notif.pid;
    session->untold.data = session->notif.data;
    memcpy(session->untold.source, session->args.source, sizeof(session->untold.source));
    memcpy(session->untold.path, session->args.path, sizeof(session->untold.path));
}

/*
 * The caller's memory has been read: the strings have to be the same ones, not their addresses.
 * Where the answer was a descriptor, that is in `result` again.
 */
static bool is_untold(struct session *session)
{
    cleanup_fd int result = -1;

    if (session->untold.tid != session->notif.pid)
        return false;
    session->untold.tid = 0;
    result = take_fd(&session->untold.result);
    if (memcmp(&session->untold.data, &session->notif.data, sizeof(session->notif.data)) != 0 ||
        strcmp(session->untold.source, session->args.source) != 0 ||
        strcmp(session->untold.path, session->args.path) != 0)
        return false;
    session->result = take_fd(&result);
    return true;
}

/*
 * Decides and performs one call in the caller's place, and replies before anyone else has a
 * turn, so that a mount whose caller has gone can be taken back.
 */
static void handle_in_place(struct session *session, struct caller *caller, enum family family,
                            struct eci_verdict *verdict)
{
    int r = caller_stand_in(session, caller, call_begins_at_cwd(session, family));

    if (r == 0)
        r = caller_assume(session, caller);
    /* All that was read by thread id counts only if the caller still waits. */
    if (r == 0 && !is_alive(session))
        r = -ENOENT;
    if (r < 0) {
        verdict->reason = ECI_REASON_INTERNAL;
        r = -EPERM;
    } else {
        verdict->reason = ECI_REASON_PERFORMED;
        r = call_perform(session, caller, family, verdict);
        if (r < 0 && verdict->reason == ECI_REASON_PERFORMED)
            verdict->reason = ECI_REASON_KERNEL;
    }
    verdict->error = -r;
    if (verdict->reason >= ECI_REASON_LOOSEN && !session->comm[0])
        read_comm(session, caller);
    if (reply(session, r, false) == -ENOENT) {
        if (r == 0 && call_added(session, family))
            perform_undo(session->target.mnt_id);
        else if (r == 0)
            keep_untold(session);
        verdict->reason = ECI_REASON_GONE;
    }
    close_fd(&session->result);
    session->result = -1;
    caller_leave(session, caller);
}

static void handle(struct session *session)
{
    struct caller *caller = &session->caller;
    struct eci_verdict verdict = {.error = EPERM, .reason = ECI_REASON_INTERNAL};
    enum family family = call_family(&session->notif.data);
    uint64_t began = now_ns(CLOCK_MONOTONIC);
    bool known = false;
    int r;

    session->comm[0] = 0;
    session->result = -1;
    if (family == FAMILY_NONE) {
        verdict.error = ENOSYS;
        verdict.reason = ECI_REASON_UNKNOWN_CALL;
        reply(session, -ENOSYS, false);
        goto out;
    }
    if (family == FAMILY_OLDUMOUNT)
        session->notif.data.args[1] = 0; /* umount(2) of i386 has no flags */

    r = caller_settle(session, caller, &verdict.reason);
    if (r >= 0 && session->worker->policy->trace)
        read_comm(session, caller);
    if (r == 1) {
        verdict.error = 0;
        reply(session, 0, true);
        record(session, family, &verdict, true, false, began);
        return;
    }
    if (r < 0) {
        reply(session, -EPERM, false);
        goto out;
    }
    r = call_read(session, family);
    known = true;
    if (r == 0 && call_passes(session, family, &verdict.reason)) {
        verdict.error = 0;
        reply(session, 0, true);
        record(session, family, &verdict, true, true, began);
        return;
    }
    if (r < 0) {
        verdict.error = -r;
        verdict.reason = ECI_REASON_ARGUMENT;
        reply(session, r, false);
        goto out;
    }
    if (is_untold(session)) {
        verdict.error = 0;
        verdict.reason = ECI_REASON_PERFORMED;
        /* Interrupted once more: once more it comes again. */
        if (reply(session, 0, false) == -ENOENT)
            keep_untold(session);
        close_fd(&session->result);
        session->result = -1;
        goto out;
    }
    pthread_mutex_lock(&session->worker->turn);
    handle_in_place(session, caller, family, &verdict);
    pthread_mutex_unlock(&session->worker->turn);
out:
    record(session, family, &verdict, false, known, began);
}

static bool has_hung_up(const struct session *session)
{
    struct pollfd fd = {.fd = session->listener};

    return poll(&fd, 1, 0) == 1 && (fd.revents & (POLLHUP | POLLERR | POLLNVAL));
}

/* Serves one listener until no thread has the filter any more. */
void session_serve(struct session *session)
{
    __u64 flags = SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP;

    /* Only a matter of speed: the caller is woken on this processor, where its data is. */
    (void)ioctl(session->listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, flags);
    session->caller = (struct caller){.dir = -1, .pidfd = -1, .cwd = -1};
    session->untold.result = -1;
    for (;;) {
        memset(&session->notif, 0, sizeof(session->notif));
        if (ioctl(session->listener, SECCOMP_IOCTL_NOTIF_RECV, &session->notif) == 0) {
            handle(session);
            continue;
        }
        /* EINTR: the main thread wants a look.  ENOENT: the caller died, or all did. */
        if ((errno != EINTR && errno != ENOENT) || has_hung_up(session))
            break;
    }
    caller_close(&session->caller);
    close_fd(&session->untold.result);
}
