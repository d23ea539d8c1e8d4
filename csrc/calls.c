/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The calls of the mount family: which they are, what is read of each, and how each is looked
 * up, decided and performed.
 *
 * Nothing here rests on bytes that the caller can still change: what was read is used once, to
 * get fds, and the fds are what is judged and acted upon.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>

#include "compat.h"
#include "worker.h"

/* linux/arch/x86/entry/syscalls/syscall_32.tbl; the later calls have one number everywhere. */
#define I386_MOUNT   21
#define I386_UMOUNT  22
#define I386_UMOUNT2 52
#define I386_UNSHARE 310
#define I386_SETNS   346

#define UMOUNT_FLAGS  (MNT_FORCE | MNT_DETACH | MNT_EXPIRE | UMOUNT_NOFOLLOW)
#define SETATTR_FLAGS (AT_EMPTY_PATH | AT_RECURSIVE | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT)
#define MOVE_FLAGS                                                                                 \
    (MOVE_MOUNT_F_SYMLINKS | MOVE_MOUNT_F_AUTOMOUNTS | MOVE_MOUNT_F_EMPTY_PATH |                   \
     MOVE_MOUNT_T_SYMLINKS | MOVE_MOUNT_T_AUTOMOUNTS | MOVE_MOUNT_T_EMPTY_PATH |                   \
     MOVE_MOUNT_SET_GROUP | MOVE_MOUNT_BENEATH)

enum family call_family(const struct seccomp_data *data)
{
    static const struct {
        uint32_t arch;
        int nr;
        enum family family;
    } calls[] = {
        {AUDIT_ARCH_X86_64, SYS_mount, FAMILY_MOUNT},
        {AUDIT_ARCH_X86_64, SYS_umount2, FAMILY_UMOUNT},
        {AUDIT_ARCH_X86_64, SYS_move_mount, FAMILY_MOVE_MOUNT},
        {AUDIT_ARCH_X86_64, SYS_mount_setattr, FAMILY_MOUNT_SETATTR},
        {AUDIT_ARCH_X86_64, SYS_fsmount, FAMILY_FSMOUNT},
        {AUDIT_ARCH_X86_64, SYS_fsconfig, FAMILY_FSCONFIG},
        {AUDIT_ARCH_I386, I386_MOUNT, FAMILY_MOUNT},
        {AUDIT_ARCH_I386, I386_UMOUNT2, FAMILY_UMOUNT},
        {AUDIT_ARCH_I386, I386_UMOUNT, FAMILY_OLDUMOUNT},
        {AUDIT_ARCH_I386, SYS_move_mount, FAMILY_MOVE_MOUNT},
        {AUDIT_ARCH_I386, SYS_mount_setattr, FAMILY_MOUNT_SETATTR},
        {AUDIT_ARCH_I386, SYS_fsmount, FAMILY_FSMOUNT},
        {AUDIT_ARCH_I386, SYS_fsconfig, FAMILY_FSCONFIG},
        {AUDIT_ARCH_X86_64, SYS_setns, FAMILY_SETNS},
        {AUDIT_ARCH_X86_64, SYS_unshare, FAMILY_UNSHARE},
        {AUDIT_ARCH_I386, I386_SETNS, FAMILY_SETNS},
        {AUDIT_ARCH_I386, I386_UNSHARE, FAMILY_UNSHARE},
    };

    for (unsigned int i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
        if (data->nr == calls[i].nr && data->arch == calls[i].arch)
            return calls[i].family;
    return FAMILY_NONE;
}

/* How many arguments the call has. */
unsigned int call_arguments(enum family family)
{
    switch (family) {
    case FAMILY_UMOUNT:
        return 2;
    case FAMILY_OLDUMOUNT:
        return 1;
    case FAMILY_FSMOUNT:
        return 3;
    default:
        return 5;
    }
}

/* Would every new procfs and sysfs be as the kernel makes it? */
static bool is_nothing_covered(const struct worker *worker)
{
    return worker->build < 0 && !worker->policy->proc_masked && !worker->policy->sysfs_masked;
}

/* Can no path of the container's lead to a host-protected one? */
static bool is_nothing_shown(const struct worker *worker)
{
    return !worker->exposed && !worker->receives;
}

/* -- reading ------------------------------------------------------------------------------ */

/* In the kernel's order, so that the first fault is the same. */
static int read_mount(struct session *session, const uint64_t *args)
{
    struct mount_args *out = &session->args;
    pid_t tid = (pid_t)session->notif->pid;
    const uint64_t wanted[3] = {args[2], args[0], args[1]};
    char *const into[3] = {out->type, out->source, out->path};
    int r;

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
    out->has_path = r >= 0;
    return r;
}

/* A path that may be empty, or none, where the flags say so. */
static int read_at(pid_t tid, uint64_t address, bool may_be_empty, char out[PATH_MAX], bool *given)
{
    int r;

    *given = false;
    out[0] = 0;
    if (!address && may_be_empty)
        return 0;
    r = remote_path(tid, address, out);
    if (r == -ENOENT && may_be_empty && address)
        r = 0;
    *given = r >= 0;
    if (r < 0)
        out[0] = 0; /* one that is too long has no end */
    return r;
}

static int read_move_mount(struct session *session, const uint64_t *args)
{
    struct mount_args *out = &session->args;
    pid_t tid = (pid_t)session->notif->pid;
    uint64_t flags = args[4] & 0xffffffff;
    const uint64_t wanted[3] = {args[3], args[1], 0};
    char *const into[3] = {out->path, out->source, out->type};
    int r;

    if ((flags & ~(uint64_t)MOVE_FLAGS) || (flags & (MOVE_MOUNT_BENEATH | MOVE_MOUNT_SET_GROUP)) ==
                                               (MOVE_MOUNT_BENEATH | MOVE_MOUNT_SET_GROUP))
        return -EINVAL;
    if (args[3] && args[1] && remote_strings(tid, wanted, into)) {
        out->has_path = *out->path || (flags & MOVE_MOUNT_T_EMPTY_PATH);
        out->has_source = *out->source || (flags & MOVE_MOUNT_F_EMPTY_PATH);
        out->path_error = out->has_source ? 0 : -ENOENT;
        return out->has_path ? 0 : -ENOENT;
    }
    r = read_at(tid, args[3], flags & MOVE_MOUNT_T_EMPTY_PATH, out->path, &out->has_path);
    if (r < 0)
        return r;
    /* The kernel has looked up the target before it reads the other path. */
    r = read_at(tid, args[1], flags & MOVE_MOUNT_F_EMPTY_PATH, out->source, &out->has_source);
    out->path_error = r < 0 ? r : 0;
    return 0;
}

static int read_mount_setattr(struct session *session, const uint64_t *args)
{
    struct mount_args *out = &session->args;
    pid_t tid = (pid_t)session->notif->pid;
    uint64_t flags = args[2] & 0xffffffff;
    int r;

    if (flags & ~(uint64_t)SETATTR_FLAGS)
        return -EINVAL;
    if (args[4] > sizeof(out->data))
        return -E2BIG;
    if (args[4] < MOUNT_ATTR_SIZE_VER0)
        return -EINVAL;
    out->data_size = (size_t)args[4];
    if (args[1] && remote_struct(tid, args[3], out->data, out->data_size, args[1], out->path)) {
        out->has_data = true;
        out->has_path = *out->path || (flags & AT_EMPTY_PATH);
        out->path_error = out->has_path ? 0 : -ENOENT;
        return 0;
    }
    r = remote_bytes(tid, args[3], out->data, out->data_size);
    if (r < 0)
        return r;
    out->has_data = true;
    /* The kernel looks at the path only after the attributes have been found in order. */
    r = read_at(tid, args[1], flags & AT_EMPTY_PATH, out->path, &out->has_path);
    /* None is not as good as an empty one here. */
    if (!args[1])
        r = -EFAULT;
    out->path_error = r < 0 ? r : 0;
    return 0;
}

/* Reads all that the call points at; 0 or -errno. */
int call_read(struct session *session, enum family family)
{
    const uint64_t *args = (const uint64_t *)session->notif->data.args;
    struct mount_args *out = &session->args;
    int r;

    out->has_source = out->has_type = out->has_data = out->has_path = false;
    out->source[0] = out->path[0] = 0;
    out->data_size = 0;
    out->path_error = 0;
    switch (family) {
    case FAMILY_MOUNT:
        r = read_mount(session, args);
        break;
    case FAMILY_UMOUNT:
    case FAMILY_OLDUMOUNT:
        /* ksys_umount() looks at the flags before the path. */
        if ((uint32_t)args[1] & ~(uint32_t)UMOUNT_FLAGS)
            return -EINVAL;
        r = remote_path((pid_t)session->notif->pid, args[0], out->path);
        out->has_path = r >= 0;
        break;
    case FAMILY_MOVE_MOUNT:
        r = read_move_mount(session, args);
        break;
    case FAMILY_MOUNT_SETATTR:
        r = read_mount_setattr(session, args);
        break;
    case FAMILY_FSMOUNT:
        r = 0;
        break;
    case FAMILY_FSCONFIG:
        /* What cannot be read is the kernel's to refuse. */
        (void)remote_string((pid_t)session->notif->pid, args[2], out->type, &out->has_type);
        (void)remote_string((pid_t)session->notif->pid, args[3], out->data, &out->has_data);
        r = 0;
        break;
    default:
        r = -ENOSYS;
    }
    return r < 0 ? r : 0;
}

/* Can options of mount(2) have paths in them, which only the kernel looks up? */
static bool has_options(const struct session *session)
{
    struct eci_call call;

    eci_decode_mount(session->notif->data.args[3], &call);
    return session->args.has_data && (call.op == ECI_OP_NEW || call.op == ECI_OP_REMOUNT);
}

/* Does a path of the *at() kind begin at the caller's working directory? */
static bool is_at_cwd(uint64_t dfd, const char *path)
{
    return *path != '/' && (int)dfd == AT_FDCWD;
}

/* May anything in the call begin at the caller's working directory? */
bool call_begins_at_cwd(const struct session *session, enum family family)
{
    const struct mount_args *args = &session->args;
    const uint64_t *call = (const uint64_t *)session->notif->data.args;

    switch (family) {
    case FAMILY_MOUNT:
        return *args->path != '/' || (args->has_source && *args->source != '/') ||
               has_options(session);
    case FAMILY_UMOUNT:
    case FAMILY_OLDUMOUNT:
        return *args->path != '/';
    case FAMILY_MOVE_MOUNT:
        return is_at_cwd(call[2], args->path) || is_at_cwd(call[0], args->source);
    case FAMILY_MOUNT_SETATTR:
        return is_at_cwd(call[0], args->path);
    default:
        return false;
    }
}

/*
 * Does it matter from the beginning where the caller's root is?  To umount2(2) it always does: the
 * mount that the caller's root lies on is only made read-only.
 */
bool call_begins_at_root(const struct session *session, enum family family)
{
    const struct mount_args *args = &session->args;
    struct eci_call call;

    /* Then it is found out what lies above the object, from the root. */
    if (!is_nothing_shown(session->worker))
        return true;
    switch (family) {
    case FAMILY_MOUNT:
        eci_decode_mount(session->notif->data.args[3], &call);
        return call.op == ECI_OP_NEW || has_options(session) || !resolve_leads_down(args->path) ||
               (args->has_source && !resolve_leads_down(args->source));
    case FAMILY_MOVE_MOUNT:
        return !resolve_leads_down(args->path) || !resolve_leads_down(args->source);
    case FAMILY_MOUNT_SETATTR:
        return !resolve_leads_down(args->path);
    default:
        return true;
    }
}

/* What was not given may have no end. */
static struct text text_of(bool given, const char *text)
{
    return (struct text){given, text, given ? strlen(text) : 0};
}

/* Which strings an event shows, in the order of the arguments that are pointers. */
unsigned int call_texts(const struct session *session, enum family family,
                        struct text texts[ECI_EVENT_STRINGS])
{
    const struct mount_args *args = &session->args;
    unsigned int n = 0;

    switch (family) {
    case FAMILY_MOUNT:
        texts[n++] = text_of(args->has_source, args->source);
        texts[n++] = text_of(args->has_path, args->path);
        texts[n++] = text_of(args->has_type, args->type);
        texts[n++] = text_of(args->has_data, args->data);
        break;
    case FAMILY_UMOUNT:
    case FAMILY_OLDUMOUNT:
        texts[n++] = text_of(args->has_path, args->path);
        break;
    case FAMILY_MOVE_MOUNT:
        texts[n++] = text_of(args->has_source, args->source);
        texts[n++] = text_of(args->has_path, args->path);
        break;
    case FAMILY_FSCONFIG:
        texts[n++] = text_of(args->has_type, args->type);
        texts[n++] = text_of(args->has_data, args->data);
        break;
    case FAMILY_MOUNT_SETATTR:
        texts[n++] = text_of(args->has_path, args->path);
        texts[n++] = (struct text){args->has_data, args->data, args->data_size};
        break;
    default:
        break;
    }
    return n;
}

/* -- refusing ----------------------------------------------------------------------------- */

/*
 * Keeps for the event what a refused call was about.  The path is what it is called where the
 * thread's root is, which is the caller's or the container's; it is for people, nothing rests on
 * it.
 */
__attribute__((noinline, cold)) static void note(struct session *session, unsigned int i,
                                                 const struct target *target,
                                                 const struct eci_place *place)
{
    char *path = session->noted_as[i].path;
    char whole[PATH_MAX + NAME_MAX + 2];
    char number[16];
    int fd = target->fd >= 0 ? target->fd : target->parent;
    ssize_t n;

    session->noted_as[i].object = (struct eci_object){
        .mnt_id = place->mnt_id,
        .ino = place->ino,
        .major = place->major,
        .minor = place->minor,
        .known = 1,
    };
    snprintf(number, sizeof(number), "%d", fd);
    n = fd < 0 ? 0 : readlinkat(session->worker->self_fds, number, whole, PATH_MAX);
    if (n <= 0)
        return;
    if (target->fd < 0)
        n +=
            snprintf(whole + n, sizeof(whole) - (size_t)n, "%s%s", n == 1 ? "" : "/", target->name);
    memcpy(path, whole, (size_t)n < ECI_EVENT_STRING ? (size_t)n : ECI_EVENT_STRING);
    session->noted_as[i].object.length = (uint32_t)n;
}

/* Of the call's source, where it has one, and of its target. */
static void note_refusal(struct session *session, const struct eci_verdict *verdict,
                         const struct target *source, const struct target *target)
{
    if (verdict->reason < ECI_REASON_LOOSEN)
        return;
    memset(session->noted_as, 0, sizeof(session->noted_as));
    session->noted = true;
    if (source)
        note(session, 0, source, &session->source);
    note(session, 1, target, &session->target);
}

/* -- performing --------------------------------------------------------------------------- */

/*
 * Where a mount lies that is to go, and what it hides, if the policy cares.  What cannot be found
 * out is not known, and then the worst is believed.
 */
static void find_covered(struct session *session, struct caller *caller, struct target *target,
                         struct eci_place *place)
{
    if (!place->is_root ||
        !eci_policy_hides(session->worker->policy, place->major, place->minor, place->ino) ||
        caller_take_root(session, caller) < 0)
        return;
    if (target->parent < 0)
        perform_find_name(place->mnt_id, target);
    facts_covered(session->worker, target, place);
}

/* Decides, and sees that the call is still to be performed. */
static void judge(const struct session *session, const struct eci_call *call,
                  const struct eci_place *source, struct eci_verdict *verdict)
{
    eci_decide(session->worker->policy, call, source, &session->target, verdict);
    if (!verdict->error && !session_is_awaited(session))
        *verdict = (struct eci_verdict){.error = EPERM, .reason = ECI_REASON_GONE};
}

static int do_umount(struct session *session, struct caller *caller, struct eci_verdict *verdict)
{
    struct target target = TARGET_INIT;
    struct eci_call call = {.op = ECI_OP_UMOUNT, .flags = session->notif->data.args[1]};
    int r;

    if (flight_is_in_doubt(session) && flight_umounted(session))
        return 0;
    call.flags &= 0xffffffff; /* an int in the kernel */
    r = resolve(session, caller, caller->cwd, session->args.path, !(call.flags & UMOUNT_NOFOLLOW),
                WANT_NAME, &target);
    if (r == 0 && target.parent < 0)
        r = resolve_down(session->worker, &target);
    if (r == 0)
        r = session_take_turn(session);
    if (r == 0)
        r = facts_place(session->worker, &target, &session->target);
    if (r == 0 && target.parent < 0)
        r = facts_on_top(session->worker, &target, &session->target);
    if (r == 0) {
        facts_covered(session->worker, &target, &session->target);
        judge(session, &call, NULL, verdict);
        if (!verdict->error)
            flight_performs(session, session->target.mnt_id, 0);
        r = verdict->error ? -verdict->error
                           : perform_umount(session, &target, session->target.mnt_id, call.flags);
        /* The masks that we have put on it are no reason to call it busy. */
        if (r == -EBUSY && !verdict->error && !(call.flags & (MNT_EXPIRE | MNT_DETACH)) &&
            kernfs_has_masks_only(session->worker, &session->target))
            r = perform_umount(session, &target, session->target.mnt_id, call.flags | MNT_DETACH);
        note_refusal(session, verdict, NULL, &target);
    }
    target_close(&target);
    return r;
}

/*
 * Can a mount that was just added be taken back, so that the call may come again?  FUSE's
 * descriptor serves for one mount only.
 */
static bool can_be_undone(const struct eci_call *call, const struct mount_args *args)
{
    if (call->op == ECI_OP_NEW)
        return !args->has_type || strncmp(args->type, "fuse", 4) != 0;
    return call->op == ECI_OP_BIND;
}

/* Does it put a mount there that was none before? */
static bool adds(uint32_t op)
{
    return op == ECI_OP_NEW || op == ECI_OP_BIND;
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
    uint64_t parent = 0;
    bool has_source;
    int r;

    eci_decode_mount(session->notif->data.args[3], &call);
    if (call.op == ECI_OP_NEW && args->has_type) {
        if (strcmp(args->type, "proc") == 0)
            call.fs = ECI_FS_PROC;
        else if (strcmp(args->type, "sysfs") == 0)
            call.fs = ECI_FS_SYSFS;
    }
    has_source = call.op == ECI_OP_BIND || call.op == ECI_OP_MOVE;

    r = resolve(session, caller, caller->cwd, args->path, true, WANT_OBJECT, &target);
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
    if (flight_is_in_doubt(session) &&
        (adds(call.op) ? flight_added(session)
                       : call.op == ECI_OP_MOVE && flight_moved(session, session->target.mnt_id)))
        goto done;
    if (has_source) {
        /* As do_loopback() and do_move_mount_old(): none and an empty one alike. */
        if (!args->has_source || !*args->source)
            r = -EINVAL;
        else
            r = resolve(session, caller, caller->cwd, args->source, true,
                        call.op == ECI_OP_MOVE ? WANT_OBJECT | WANT_NAME : WANT_OBJECT, &source);
        if (r < 0)
            goto out;
    }
    /* What follows can wait for a file system as well, and is decided on this fd alone. */
    if (call.op != ECI_OP_NEW && call.op != ECI_OP_REMOUNT) {
        r = session_take_turn(session);
        if (r < 0 && call.op == ECI_OP_MOVE)
            goto out;
    }
    if (has_source) {
        r = facts_place(worker, &source, &session->source);
        if (r < 0)
            goto out;
        /* As in do_move_mount(). */
        if (call.op == ECI_OP_MOVE && facts_parent(session->source.mnt_id, &parent) == -ENOENT)
            call.op = ECI_OP_ATTACH;
        if (call.op == ECI_OP_MOVE)
            find_covered(session, caller, &source, &session->source);
    }
    /* A move under a shared mount adds copies elsewhere. */
    call.full = (adds(call.op) || has_source) && memory_is_full(session, call.flags & MS_REC);
    judge(session, &call, has_source ? &session->source : NULL, verdict);
    if (!verdict->error && adds(call.op))
        flight_performs(session, session->target.mnt_id, 0);
    else if (!verdict->error && has_source)
        flight_performs(session, session->source.mnt_id, parent);
    if (verdict->error)
        r = -verdict->error;
    else if (call.op == ECI_OP_NEW)
        r = perform_new(session, caller, args, session->notif->data.args[3], call.fs, target.fd,
                        verdict);
    else if (call.op == ECI_OP_REMOUNT_BIND)
        r = perform_remount_bind(target.fd, call.flags);
    else if (call.op == ECI_OP_REMOUNT)
        r = perform_remount(session, target.fd, session->notif->data.args[3], args);
    else
        r = perform_on(session, source.fd, target.fd, session->notif->data.args[3], args->data,
                       args->has_data);
    note_refusal(session, verdict, has_source ? &source : NULL, &target);
done:
    if (r == 0 && can_be_undone(&call, args))
        session->added_on = take_fd(&target.fd);
out:
    target_close(&source);
    target_close(&target);
    return r;
}

/* Resolves a path of the *at() kind; an empty one means what `dfd` of the caller stands for. */
static int resolve_at(struct session *session, struct caller *caller, uint64_t dfd,
                      const char *path, bool follow, unsigned int want, struct target *target)
{
    cleanup_fd int base = -1;
    int at = caller->cwd;

    if (*path != '/' && (int)dfd != AT_FDCWD) {
        base = caller_fd(caller, (int)dfd);
        if (base < 0)
            return base;
        at = base;
    }
    if (*path)
        return resolve(session, caller, at, path, follow, want, target);
    target->fd = base >= 0 ? take_fd(&base) : fcntl(at, F_DUPFD_CLOEXEC, 0);
    if (target->fd < 0)
        return -errno;
    return stat_object(target->fd, "", &target->stx);
}

static void drop(struct worker *worker, struct kept *kept)
{
    if (!kept->mnt_id)
        return;
    worker->n_stand_ins -= kept->stand_in >= 0;
    __atomic_store_n(&kept->mnt_id, 0, __ATOMIC_RELEASE); /* first: struct flight says why */
    close_fd(&kept->fd);
    close_fd(&kept->stand_in);
}

/* Takes the fds of a detached mount; the oldest has to go for it. */
static void keep(struct worker *worker, uint64_t mnt_id, int fd, int stand_in)
{
    struct kept *kept = &worker->kept[worker->next_kept++ % KEPT];

    drop(worker, kept);
    worker->n_stand_ins += stand_in >= 0;
    kept->fd = fd;
    kept->stand_in = stand_in;
    __atomic_store_n(&kept->mnt_id, mnt_id, __ATOMIC_RELEASE);
}

/* A detached mount has found its place, and lives there; or nobody has an fd of it. */
void call_let_go(struct worker *worker, uint64_t made)
{
    for (unsigned int i = 0; i < KEPT; i++)
        if (made && worker->kept[i].mnt_id == made)
            drop(worker, &worker->kept[i]);
}

/* Where `target` is a stand-in: the mount that it stands in for. */
static int see_through(const struct worker *worker, struct target *target)
{
    for (unsigned int i = 0; worker->n_stand_ins && i < KEPT; i++) {
        const struct kept *kept = &worker->kept[i];

        if (!kept->mnt_id || kept->stand_in < 0 || kept->mnt_id != target->stx.stx_mnt_id)
            continue;
        target_close(target);
        target->fd = fcntl(kept->fd, F_DUPFD_CLOEXEC, 0);
        return target->fd < 0 ? -errno : stat_object(target->fd, "", &target->stx);
    }
    return 0;
}

static int do_move_mount(struct session *session, struct caller *caller,
                         struct eci_verdict *verdict)
{
    const uint64_t *args = (const uint64_t *)session->notif->data.args;
    struct worker *worker = session->worker;
    struct target source = TARGET_INIT;
    struct target target = TARGET_INIT;
    uint64_t flags = args[4] & 0xffffffff;
    struct eci_call call = {
        .op = ECI_OP_ATTACH,
        .flags = flags,
        .beneath = (flags & MOVE_MOUNT_BENEATH) != 0,
        .joins = (flags & MOVE_MOUNT_SET_GROUP) != 0,
    };
    uint64_t parent = 0;
    uint64_t made = 0;
    int r;

    r = resolve_at(session, caller, args[2], session->args.path, flags & MOVE_MOUNT_T_SYMLINKS,
                   call.beneath ? WANT_OBJECT | WANT_NAME : WANT_OBJECT, &target);
    if (r == 0 && flight_is_in_doubt(session) && !call.joins &&
        flight_moved(session, target.stx.stx_mnt_id)) {
        made = session->flight->call.mnt_id;
        goto done;
    }
    if (r == 0)
        r = session->args.path_error;
    if (r == 0)
        r = resolve_at(session, caller, args[0], session->args.source,
                       flags & MOVE_MOUNT_F_SYMLINKS, WANT_OBJECT | WANT_NAME, &source);
    if (r == 0)
        r = session_take_turn(session);
    if (r == 0) {
        made = source.stx.stx_mnt_id;
        r = see_through(worker, &source);
    }
    if (r == 0)
        r = facts_place(worker, &target, &session->target);
    if (r == 0)
        r = facts_place(worker, &source, &session->source);
    if (r < 0)
        goto out;
    if (call.beneath)
        find_covered(session, caller, &target, &session->target);
    /* A detached tree is in no mount namespace, so nothing is found out about its mounts. */
    r = call.joins ? -ENOENT : facts_parent(session->source.mnt_id, &parent);
    if (r == 0) {
        call.op = ECI_OP_MOVE;
        find_covered(session, caller, &source, &session->source);
    } else if (r != -ENOENT) {
        goto out;
    }
    call.full = memory_is_full(session, false);
    judge(session, &call, &session->source, verdict);
    if (!verdict->error)
        flight_performs(session, session->source.mnt_id, parent);
    r = verdict->error ? -verdict->error : perform_move(source.fd, target.fd, flags);
    note_refusal(session, verdict, &source, &target);
done:
    /* Detached, and not to be looked at, it was none that is known; now it has a place. */
    if (r == 0 && made == NO_MOUNT && stat_object(source.fd, "", &source.stx) == 0)
        made = source.stx.stx_mnt_id;
    if (r == 0)
        call_let_go(worker, made);
out:
    target_close(&source);
    target_close(&target);
    return r;
}

static int do_mount_setattr(struct session *session, struct caller *caller,
                            struct eci_verdict *verdict)
{
    const uint64_t *args = (const uint64_t *)session->notif->data.args;
    struct mount_args *out = &session->args;
    struct target target = TARGET_INIT;
    struct mount_attr attr;
    unsigned int flags = (unsigned int)args[2];
    cleanup_fd int userns = -1;
    bool no_userns = false;
    struct eci_call call = {.op = ECI_OP_SETATTR};
    uint64_t parent;
    char ours[PATH_MAX];
    int r;

    memcpy(&attr, out->data, sizeof(attr));
    memcpy(ours, out->data, out->data_size);
    if ((attr.attr_set & MOUNT_ATTR_IDMAP) && attr.userns_fd <= INT_MAX) {
        userns = caller_file(caller, (int)attr.userns_fd);
        /* Never the number that the caller gave: among our fds it is something else. */
        attr.userns_fd = userns >= 0 ? (uint64_t)userns : INT_MAX;
        memcpy(ours, &attr, sizeof(attr));
        no_userns = userns < 0;
    }
    /* The kernel's own opinion of the attributes: what is in order gets as far as the fd. */
    r = perform_setattr(-1, AT_EMPTY_PATH | (flags & AT_RECURSIVE), ours, out->data_size);
    if (r != -EBADF || no_userns || out->path_error)
        return r == -EBADF && !no_userns ? out->path_error : r;
    r = resolve_at(session, caller, args[0], out->path, !(flags & AT_SYMLINK_NOFOLLOW), WANT_OBJECT,
                   &target);
    (void)session_take_turn(session);
    if (r == 0)
        r = see_through(session->worker, &target);
    if (r == 0)
        r = facts_place(session->worker, &target, &session->target);
    if (r == 0) {
        /* MOUNT_ATTR_RDONLY and the next three are ECI_RDONLY and the next three. */
        call.flags = attr.attr_clr &
                     (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
        call.unbindable = (attr.propagation & MS_UNBINDABLE) != 0;
        call.recursive = (flags & AT_RECURSIVE) != 0;
        session->target.detached =
            call.unbindable && facts_parent(session->target.mnt_id, &parent) < 0;
        r = facts_held(session, &target, call.flags, call.recursive, &session->target.held);
    }
    if (r == 0) {
        judge(session, &call, NULL, verdict);
        if (verdict->error)
            r = -verdict->error;
        else if (session->worker->policy->spared && call.recursive && call.flags &&
                 facts_parent(session->target.mnt_id, &parent) != -ENOENT)
            r = tree_setattr(session, &target, ours, out->data_size, call.flags);
        else
            r = perform_setattr(target.fd, AT_EMPTY_PATH | (flags & AT_RECURSIVE), ours,
                                out->data_size);
        note_refusal(session, verdict, NULL, &target);
    }
    target_close(&target);
    return r;
}

/* Makes the fd that the caller of fsmount(2) gets; -ENOENT where the mount is no longer kept. */
int call_hand_out(struct session *session, uint64_t made)
{
    for (unsigned int i = 0; i < KEPT; i++) {
        const struct kept *kept = &session->worker->kept[i];

        if (kept->mnt_id != made)
            continue;
        session->result = openat(kept->stand_in < 0 ? kept->fd : kept->stand_in, ".",
                                 O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (session->result < 0)
            return -errno;
        session->result_flags = (session->notif->data.args[1] & FSMOUNT_CLOEXEC) ? O_CLOEXEC : 0;
        session->made = made;
        return 0;
    }
    return -ENOENT;
}

/*
 * The descriptor that the kernel makes is an O_PATH one, which SECCOMP_IOCTL_NOTIF_ADDFD does not
 * take.  The caller gets a directory opened on the mount, and the worker keeps the other, because
 * the detached mount lives as long as that: until move_mount, or until many more have been made.
 * Where nobody serves the file system yet, the directory is one that stands in for it.
 */
static int do_fsmount(struct session *session, struct caller *caller, struct eci_verdict *verdict)
{
    const uint64_t *args = (const uint64_t *)session->notif->data.args;
    cleanup_fd int context = caller_file(caller, (int)args[0]);
    cleanup_fd int stand_in = -1;
    cleanup_fd int made = -1;
    struct statx stx;
    int r;

    /* Flags and attributes come first: the kernel's opinion of them. */
    if (context < 0)
        return syscall(SYS_fsmount, -1, args[1], args[2]) < 0 ? -errno : -EBADF;
    if (!session_is_awaited(session))
        return -EPERM;
    made = kernfs_fsmount(session, caller, context, (unsigned int)args[1], (unsigned int)args[2],
                          verdict, &stand_in);
    if (made < 0)
        return made;
    r = stat_at(stand_in < 0 ? made : stand_in, "", &stx);
    if (r < 0)
        return r;
    keep(session->worker, stx.stx_mnt_id, take_fd(&made), take_fd(&stand_in));
    /* From here on whoever comes later hands it out. */
    __atomic_store_n(&session->flight->call.made, stx.stx_mnt_id, __ATOMIC_RELEASE);
    r = call_hand_out(session, stx.stx_mnt_id);
    if (r < 0) {
        session->flight->call.made = 0;
        call_let_go(session->worker, stx.stx_mnt_id);
    }
    return r;
}

/*
 * Before it has been read: may the kernel carry the call out itself, whatever the caller has in
 * memory?  The rules ask of a new file system whether it has to be covered, and of its place, as of
 * one whose propagation changes, whether it is host-protected.  (To make a mount unbindable can
 * matter.)  What mount(2) is to do stands in its flags, which are a register.
 */
bool call_passes_unread(const struct session *session, enum family family, uint32_t *reason)
{
    const struct worker *worker = session->worker;
    struct eci_call call;

    if (family == FAMILY_FSMOUNT && is_nothing_covered(worker) && !worker->exposed) {
        *reason = ECI_REASON_NOTHING_COVERED;
        return true;
    }
    if (family != FAMILY_MOUNT || !is_nothing_shown(worker))
        return false;
    eci_decode_mount(session->notif->data.args[3], &call);
    *reason = call.op == ECI_OP_NEW ? ECI_REASON_NOTHING_COVERED : ECI_REASON_AS_IT_IS;
    return (call.op == ECI_OP_NEW && is_nothing_covered(worker)) ||
           (call.op == ECI_OP_PROPAGATION && !(call.flags & MS_UNBINDABLE));
}

/*
 * Once it has been read: may the kernel carry the call out itself?  For fsconfig it rests on what
 * the caller has in memory, and that does not matter: what is at stake is whether an id is
 * translated, for the caller's own good.
 */
bool call_passes(struct session *session, enum family family, uint32_t *reason)
{
    const struct worker *worker = session->worker;
    const struct mount_args *args = &session->args;
    char number[16];

    if (family == FAMILY_FSCONFIG &&
        !(args->has_type && args->has_data &&
          perform_translates(worker->policy, args->type, args->data, number))) {
        *reason = ECI_REASON_AS_IT_IS;
        return true;
    }
    return false;
}

/* An id as a tmpfs shows it (perform_translates) becomes the container's. */
static int do_fsconfig(struct session *session, struct caller *caller)
{
    const uint64_t *call = (const uint64_t *)session->notif->data.args;
    const struct mount_args *args = &session->args;
    cleanup_fd int context = caller_file(caller, (int)call[0]);
    char number[16];

    if (context < 0)
        return -EBADF;
    if (!session_is_awaited(session))
        return -EPERM;
    if (!perform_translates(session->worker->policy, args->type, args->data, number))
        return -EINVAL;
    return syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, args->type, number, (int)call[4]) < 0
               ? -errno
               : 0;
}

/*
 * Looks up, decides and performs.  0 or -errno; a descriptor for the caller in `result`.  -ERESTART
 * where nothing was done, as what was looked up by name does not count: the turn has been taken.
 */
int call_perform(struct session *session, struct caller *caller, enum family family,
                 struct eci_verdict *verdict)
{
    session->changes = __atomic_load_n(&session->worker->changes, __ATOMIC_ACQUIRE);
    switch (family) {
    case FAMILY_MOUNT:
        return do_mount(session, caller, verdict);
    case FAMILY_UMOUNT:
    case FAMILY_OLDUMOUNT:
        return do_umount(session, caller, verdict);
    case FAMILY_MOVE_MOUNT:
        return do_move_mount(session, caller, verdict);
    case FAMILY_MOUNT_SETATTR:
        return do_mount_setattr(session, caller, verdict);
    case FAMILY_FSMOUNT:
        return do_fsmount(session, caller, verdict);
    case FAMILY_FSCONFIG:
        return do_fsconfig(session, caller);
    default:
        return -ENOSYS;
    }
}
