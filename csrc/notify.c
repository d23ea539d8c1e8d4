/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The protocol: receive a call, settle or decide and perform it, reply.
 *
 * A reply starts as a denial and there is one place that sends it.  Nothing here rests on bytes
 * that the caller can still change: what was read is used once, to get fds, and the fds are
 * what is judged and acted upon.
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

/* linux/arch/x86/entry/syscalls/syscall_32.tbl */
#define I386_MOUNT   21
#define I386_UMOUNT  22
#define I386_UMOUNT2 52

enum family { FAMILY_NONE, FAMILY_MOUNT, FAMILY_UMOUNT, FAMILY_OLDUMOUNT };

static enum family family_of(const struct seccomp_data *data)
{
    if (data->arch == AUDIT_ARCH_X86_64) {
        if (data->nr == SYS_mount)
            return FAMILY_MOUNT;
        if (data->nr == SYS_umount2)
            return FAMILY_UMOUNT;
    } else if (data->arch == AUDIT_ARCH_I386) {
        if (data->nr == I386_MOUNT)
            return FAMILY_MOUNT;
        if (data->nr == I386_UMOUNT2)
            return FAMILY_UMOUNT;
        if (data->nr == I386_UMOUNT)
            return FAMILY_OLDUMOUNT;
    }
    return FAMILY_NONE;
}

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

/* Reads all strings of the call, in the kernel's order, so that the first fault is the same. */
static int read_args(struct session *session, enum family family)
{
    const uint64_t *args = (const uint64_t *)session->notif.data.args;
    struct mount_args *out = &session->args;
    pid_t tid = (pid_t)session->notif.pid;
    int r;

    out->has_source = out->has_type = out->has_data = out->has_path = false;
    out->source[0] = 0;
    if (family == FAMILY_MOUNT) {
        const uint64_t wanted[3] = {args[2], args[0], args[1]};
        char *const into[3] = {out->type, out->source, out->path};

        if (args[1] && remote_strings(tid, wanted, into)) {
            out->has_type = args[2] != 0;
            out->has_source = args[0] != 0;
            r = remote_page(tid, args[4], out->data, &out->has_data);
            if (r < 0)
                return r;
            out->has_path = true;
            return *out->path ? 0 : -ENOENT;
        }
        r = remote_string(tid, args[2], out->type, &out->has_type);
        if (r < 0)
            return r;
        r = remote_string(tid, args[0], out->source, &out->has_source);
        if (r < 0)
            return r;
        r = remote_page(tid, args[4], out->data, &out->has_data);
        if (r < 0)
            return r;
        r = remote_path(tid, args[1], out->path);
    } else {
        const uint32_t known = MNT_FORCE | MNT_DETACH | MNT_EXPIRE | UMOUNT_NOFOLLOW;

        /* ksys_umount() looks at the flags before the path. */
        if ((uint32_t)args[1] & ~known)
            return -EINVAL;
        r = remote_path(tid, args[0], out->path);
    }
    out->has_path = r >= 0;
    return r < 0 ? r : 0;
}

static int do_umount(struct session *session, struct caller *caller, struct eci_verdict *verdict)
{
    struct target target = TARGET_INIT;
    struct eci_call call = {.op = ECI_OP_UMOUNT, .flags = session->notif.data.args[1]};
    int r;

    call.flags &= 0xffffffff; /* an int in the kernel */
    r = resolve(caller, session->args.path, !(call.flags & UMOUNT_NOFOLLOW), WANT_NAME, &target);
    if (r == 0 && target.parent < 0)
        resolve_down(session->worker, &target);
    if (r == 0)
        r = facts_place(session->worker, &target, &session->target);
    if (r == 0) {
        facts_covered(session->worker, &target, &session->target);
        eci_decide(session->worker->policy, &call, NULL, &session->target, verdict);
        r = verdict->error ? -verdict->error
                           : perform_umount(session, &target, session->target.mnt_id, call.flags);
    }
    target_close(&target);
    return r;
}

static bool is_remount(uint32_t op)
{
    return op == ECI_OP_REMOUNT || op == ECI_OP_REMOUNT_BIND;
}

static int do_mount(struct session *session, struct caller *caller, struct eci_verdict *verdict)
{
    const struct mount_args *args = &session->args;
    struct worker *worker = session->worker;
    struct target source = TARGET_INIT;
    struct target target = TARGET_INIT;
    struct eci_call call;
    bool has_source;
    int r;

    eci_decode_mount(session->notif.data.args[3], &call);
    if (call.op == ECI_OP_NEW && args->has_type) {
        if (strcmp(args->type, "proc") == 0)
            call.fs = ECI_FS_PROC;
        else if (strcmp(args->type, "sysfs") == 0)
            call.fs = ECI_FS_SYSFS;
    }
    has_source = call.op == ECI_OP_BIND || call.op == ECI_OP_MOVE;

    r = resolve(caller, args->path, true, WANT_OBJECT, &target);
    /* path_mount() says so before anything else; MS_NOUSER is an int there, with all bits above. */
    if (r == 0 && (call.flags & 0xffffffff80000000u))
        r = -EINVAL;
    if (r < 0)
        goto out;
    r = facts_place(worker, &target, &session->target);
    if (r == 0 && is_remount(call.op)) {
        r = facts_storage(&session->target);
        /* A mount of another namespace, or of none: the kernel remounts only its caller's. */
        if (r == -ENOENT)
            r = -EINVAL;
    }
    if (r < 0)
        goto out;
    if (has_source) {
        /* As do_loopback() and do_move_mount_old(): none and an empty one alike. */
        if (!args->has_source || !*args->source)
            r = -EINVAL;
        else
            r = resolve(caller, args->source, true,
                        call.op == ECI_OP_MOVE ? WANT_OBJECT | WANT_NAME : WANT_OBJECT, &source);
        if (r < 0)
            goto out;
        r = facts_place(worker, &source, &session->source);
        if (r < 0)
            goto out;
        if (call.op == ECI_OP_MOVE)
            facts_covered(worker, &source, &session->source);
    }
    eci_decide(worker->policy, &call, has_source ? &session->source : NULL, &session->target,
               verdict);
    if (verdict->error)
        r = -verdict->error;
    else if (call.op == ECI_OP_NEW)
        r = perform_new(session, caller, args, session->notif.data.args[3], call.fs, target.fd);
    else if (call.op == ECI_OP_REMOUNT)
        r = perform_remount(session, target.fd, session->notif.data.args[3], args);
    else
        r = perform_on(session, source.fd, target.fd, session->notif.data.args[3], args->data,
                       args->has_data);
out:
    target_close(&source);
    target_close(&target);
    return r;
}

/* Has the call put something on the target that can be taken back? */
static bool has_added(uint64_t flags)
{
    struct eci_call call;

    eci_decode_mount(flags, &call);
    return call.op == ECI_OP_NEW || call.op == ECI_OP_BIND;
}

/* The one place that replies.  0, or -ENOENT when the caller is no longer waiting. */
static int reply(struct session *session, int error, bool pass)
{
    struct seccomp_notif_resp *resp = &session->resp;

    memset(resp, 0, sizeof(*resp));
    resp->id = session->notif.id;
    if (pass)
        resp->flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE; /* see caller_settle() for why */
    else
        resp->error = error;
    return ioctl(session->listener, SECCOMP_IOCTL_NOTIF_SEND, resp) < 0 ? -errno : 0;
}

static void put_text(struct eci_event *event, unsigned int i, bool given, const char *text)
{
    size_t length = given ? strlen(text) : 0;
    size_t copied = length < ECI_EVENT_STRING ? length : ECI_EVENT_STRING;

    event->length[i] = given ? (uint32_t)length : ECI_STRING_NULL;
    if (given)
        memcpy(event->text[i], text, copied);
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
    const struct mount_args *args = &session->args;
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
    if (known && family == FAMILY_MOUNT) {
        put_text(&event, 0, args->has_source, args->source);
        put_text(&event, 1, args->has_path, args->path);
        put_text(&event, 2, args->has_type, args->type);
        put_text(&event, 3, args->has_data, args->data);
    } else if (known) {
        put_text(&event, 0, args->has_path, args->path);
    }
    if (eci_ring_put(worker->ring, &event) == 1) {
        const uint64_t one = 1;

        /* Nothing to do about a failure: the eventfd is full, so the reader is awake. */
        if (write(worker->ring_event, &one, sizeof(one)) < 0)
            return;
    }
}

/* May anything in the call begin at the caller's working directory? */
static bool begins_at_cwd(const struct session *session, enum family family)
{
    const struct mount_args *args = &session->args;

    return *args->path != '/' || (family == FAMILY_MOUNT &&
                                  ((args->has_source && *args->source != '/') || args->has_data));
}

/*
 * A runtime that cannot set SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (runc 1.1) lets signals
 * interrupt callers, and an interrupted call comes again by itself.  What was performed and cannot
 * be taken back is then not performed twice: the same call of the same thread, at the same
 * instruction, gets the answer that it missed.
 */
static void keep_untold(struct session *session)
{
    session->untold.tid = session->notif.pid;
    session->untold.data = session->notif.data;
    memcpy(session->untold.source, session->args.source, sizeof(session->untold.source));
    memcpy(session->untold.path, session->args.path, sizeof(session->untold.path));
}

/* The caller's memory has been read: the strings have to be the same ones, not their addresses. */
static bool is_untold(struct session *session)
{
    if (session->untold.tid != session->notif.pid)
        return false;
    session->untold.tid = 0;
    return memcmp(&session->untold.data, &session->notif.data, sizeof(session->notif.data)) == 0 &&
           strcmp(session->untold.source, session->args.source) == 0 &&
           strcmp(session->untold.path, session->args.path) == 0;
}

/*
 * Decides and performs one call in the caller's place, and replies before anyone else has a
 * turn, so that a mount whose caller has gone can be taken back.
 */
static void handle_in_place(struct session *session, struct caller *caller, enum family family,
                            struct eci_verdict *verdict)
{
    int r = caller_stand_in(session, caller, begins_at_cwd(session, family));

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
        r = family == FAMILY_MOUNT ? do_mount(session, caller, verdict)
                                   : do_umount(session, caller, verdict);
        if (r < 0 && verdict->reason == ECI_REASON_PERFORMED)
            verdict->reason = ECI_REASON_KERNEL;
    }
    verdict->error = -r;
    if (verdict->reason >= ECI_REASON_LOOSEN && !session->comm[0])
        read_comm(session, caller);
    if (reply(session, r, false) == -ENOENT) {
        if (r == 0 && family == FAMILY_MOUNT && has_added(session->notif.data.args[3]))
            perform_undo(session->target.mnt_id);
        else if (r == 0)
            keep_untold(session);
        verdict->reason = ECI_REASON_GONE;
    }
    caller_leave(session, caller);
}

static void handle(struct session *session)
{
    struct caller *caller = &session->caller;
    struct eci_verdict verdict = {.error = EPERM, .reason = ECI_REASON_INTERNAL};
    enum family family = family_of(&session->notif.data);
    uint64_t began = now_ns(CLOCK_MONOTONIC);
    bool known = false;
    int r;

    session->comm[0] = 0;
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
    r = read_args(session, family);
    known = true;
    if (r < 0) {
        verdict.error = -r;
        verdict.reason = ECI_REASON_ARGUMENT;
        reply(session, r, false);
        goto out;
    }
    if (is_untold(session)) {
        verdict.error = 0;
        verdict.reason = ECI_REASON_PERFORMED;
        reply(session, 0, false);
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
}
