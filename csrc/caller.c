/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is calling, and standing in for it: its mount namespace, root, working directory and
 * credentials.
 *
 * The worker is in the container's user namespace with all capabilities there, and never in
 * its PID namespace.  Each thread has a file system context of its own (unshare CLONE_FS) and
 * sits, between calls, at the root of the container's mount namespace with its working
 * directory on the host's procfs, so that it pins no mount.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#include "compat.h"
#include "kernfs.h"
#include "privilege.h"

enum { OFTEN = 4 }; /* calls of one thread, after which more of its own is kept open */
enum { TRIES = 100, PAUSE_NS = 10 * 1000 * 1000 };

/*
 * Waits before another try of what has to succeed, and can fail for want of memory: all but a plain
 * chdir takes some.  False after a second: then it never will.
 */
bool try_again(unsigned int *tried)
{
    const struct timespec pause = {.tv_nsec = PAUSE_NS};

    nanosleep(&pause, NULL);
    return ++*tried < TRIES;
}

static int set_caps(const struct caps *caps)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};

    return syscall(SYS_capset, &head, caps->data) < 0 ? -errno : 0;
}

static int get_caps(pid_t tid, struct caps *caps)
{
    struct __user_cap_header_struct head = {
        .version = _LINUX_CAPABILITY_VERSION_3,
        .pid = tid,
    };

    return syscall(SYS_capget, &head, caps->data) < 0 ? -errno : 0;
}

static bool has_cap(const struct caps *caps, unsigned int cap)
{
    return caps->data[cap / 32].effective & (1u << (cap % 32));
}

/*
 * Inode number of a namespace, read from the link's text ("user:[4026531837]").  Without a name it
 * is `dir` that is the link.
 */
static int ns_ino(int dir, const char *name, uint64_t *ino)
{
    char text[64];
    const char *open;
    ssize_t n = readlinkat(dir, name, text, sizeof(text) - 1);

    if (n < 0)
        return -errno;
    text[n] = 0;
    open = strchr(text, '[');
    if (!open)
        return -EINVAL;
    *ino = 0;
    for (const char *at = open + 1; *at >= '0' && *at <= '9'; at++)
        *ino = *ino * 10 + (uint64_t)(*at - '0');
    return 0;
}

/* The host's procfs; with what is mounted on it only where the kernel has locked that in place. */
static int open_proc(void)
{
    const unsigned int flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
    int fd = (int)syscall(SYS_open_tree, AT_FDCWD, "/proc", flags);

    if (fd < 0 && errno == EINVAL)
        fd = (int)syscall(SYS_open_tree, AT_FDCWD, "/proc", flags | AT_RECURSIVE);
    return fd < 0 ? -errno : fd;
}

/* Opens what belongs to the container and enters its user namespace.  Single-threaded. */
int worker_enter(struct worker *worker, pid_t pid)
{
    static const char *const others[] = {"ns/net", "ns/ipc", "ns/uts", "ns/cgroup"};
    cleanup_fd int dir = -1;
    char name[16];
    int r;

    /* Mounts of their own that begin here, so that ".." leads nowhere else. */
    worker->proc = open_proc();
    if (worker->proc < 0)
        return worker->proc;
    worker->self_fds =
        (int)syscall(SYS_open_tree, AT_FDCWD, "/proc/self/fd", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (worker->self_fds < 0)
        return -errno;
    snprintf(name, sizeof(name), "%d", pid);
    dir = openat(worker->proc, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return -errno;
    worker->userns = openat(dir, "ns/user", O_RDONLY | O_CLOEXEC);
    worker->mntns = openat(dir, "ns/mnt", O_RDONLY | O_CLOEXEC);
    if (worker->userns < 0 || worker->mntns < 0)
        return -errno;
    r = ns_ino(dir, "ns/user", &worker->userns_ino);
    if (r < 0)
        return r;
    r = ns_ino(dir, "ns/mnt", &worker->mntns_ino);
    if (r < 0)
        return r;

    /* sysfs, mqueue and cgroup mounts show the namespaces of whoever makes them. */
    for (unsigned int i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        cleanup_fd int ns = openat(dir, others[i], O_RDONLY | O_CLOEXEC);

        if (ns < 0 || setns(ns, 0) < 0)
            return -errno;
    }
    r = kernfs_open(worker);
    if (r < 0)
        return r;
    if (setgroups(0, NULL) < 0 || setns(worker->userns, CLONE_NEWUSER) < 0)
        return -errno;
    /* Root of the container, so that what is mounted belongs to it. */
    if (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
        return -errno;
    /* After the change of ids, which resets it: nobody in the container may look at us. */
    if (prctl(PR_SET_DUMPABLE, 0) < 0)
        return -errno;
    r = get_caps(0, &worker->caps);
    if (r < 0)
        return r;
    for (unsigned int i = 0; i < 2; i++)
        worker->caps.data[i].effective = worker->caps.data[i].permitted;
    r = set_caps(&worker->caps);
    return r < 0 ? r : kernfs_enter(worker);
}

/*
 * Over the container's user namespace all capabilities stay: callers can have any of them, and who
 * stands in for one that has more than he is shown none of its peers' links in procfs
 * (__ptrace_may_access(): the capabilities have to be a superset).  None is handed on.
 * Single-threaded.
 */
int worker_settle(struct worker *worker)
{
    int r = privilege_keep(UINT64_MAX);

    return r < 0 ? r : get_caps(0, &worker->caps);
}

/*
 * Of a process that came later: its own /proc/self/fd, as above.  Only in `home` the host's procfs
 * is mounted where it may be cloned.
 */
int worker_find_self(struct worker *worker)
{
    const char *path = worker->home == worker->build ? "/proc/self/fd" : "/self/fd";
    int r = kernfs_go(worker->home);
    int fd;

    if (r < 0)
        return r;
    fd = (int)syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (fd < 0)
        return -errno;
    worker->self_fds = fd; /* the former one's is closed with all that nobody owns */
    return 0;
}

/*
 * To where "7" is fd 7, and where the thread rests.  Nearly every call begins and ends there, so
 * the way is gone only where something has led elsewhere: session_to(), session_strays().
 */
int session_to_fds(struct session *session)
{
    if (session->on_fds)
        return 0;
    if (fchdir(session->worker->self_fds) < 0)
        return -errno;
    session->on_fds = true;
    return 0;
}

/* To a directory of the container's. */
int session_to(struct session *session, int dir)
{
    session->on_fds = false;
    return fchdir(dir) < 0 ? -errno : 0;
}

/* To be said before a setns(2) or chroot(2): both change the working directory or the root. */
void session_strays(struct session *session)
{
    session->away = true;
    session->on_fds = false;
}

/* To the container's mount namespace, its root, and off its mounts. */
static int go_home(struct session *session)
{
    session_strays(session);
    if (setns(session->worker->mntns, CLONE_NEWNS) < 0)
        return -errno;
    session->away = false;
    return session_to_fds(session);
}

static int enter(struct session *session)
{
    return unshare(CLONE_FS) < 0 ? -errno : go_home(session);
}

/* First thing of a thread. */
int session_enter(struct session *session)
{
    unsigned int tried = 0;
    int r;

    while ((r = enter(session)) < 0 && try_again(&tried))
        ;
    return r;
}

void caller_init(struct caller *caller)
{
    *caller = (struct caller){.dir = -1,
                              .pidfd = -1,
                              .cwd = -1,
                              .stat = -1,
                              .syscall = -1,
                              .userns = -1,
                              .mntns = -1,
                              .comm = -1};
}

void caller_close(struct caller *caller)
{
    close_fd(&caller->dir);
    close_fd(&caller->pidfd);
    close_fd(&caller->cwd);
    close_fd(&caller->userns);
    close_fd(&caller->mntns);
    close_fd(&caller->comm);
    close_fd(&caller->stat);
    close_fd(&caller->syscall);
    caller_init(caller);
}

/*
 * An entry of the caller's directory that is looked at in every call, as an fd: what is kept is who
 * is asked, never the answer.  Like the directory it stands for one thread for good.  -1 for a
 * caller that has not called often yet, as it costs as much as it saves in three calls.
 */
static int own_entry(const struct caller *caller, int *kept, const char *name, int flags)
{
    if (*kept < 0 && caller->calls >= OFTEN)
        *kept = openat(caller->dir, name, flags | O_CLOEXEC);
    return *kept;
}

static int own_ns(struct caller *caller, int *kept, const char *name, uint64_t *ino)
{
    int link = own_entry(caller, kept, name, O_PATH | O_NOFOLLOW);

    return link < 0 ? ns_ino(caller->dir, name, ino) : ns_ino(link, "", ino);
}

/* A file of the caller's directory, without a terminator; its length or -errno. */
static int read_own(const struct caller *caller, int *kept, const char *name, char *text,
                    size_t size)
{
    int entry = own_entry(caller, kept, name, O_RDONLY);
    cleanup_fd int fd = entry < 0 ? openat(caller->dir, name, O_RDONLY | O_CLOEXEC) : -1;
    ssize_t n = pread(entry < 0 ? fd : entry, text, size, 0);

    return n < 0 ? -errno : (int)n;
}

/* The caller's command name, without a terminator; its length or -errno. */
int caller_comm(struct caller *caller, char *text, size_t size)
{
    return read_own(caller, &caller->comm, "comm", text, size);
}

static int caller_open(struct session *session, struct caller *caller, pid_t tid)
{
    char name[16];

    caller_close(caller);
    snprintf(name, sizeof(name), "%d", tid);
    caller->dir = openat(session->worker->proc, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (caller->dir < 0)
        return -errno;
    caller->pidfd = (int)syscall(SYS_pidfd_open, tid, PIDFD_THREAD);
    /* Before 6.9 only a process has one, by its first thread. */
    if (caller->pidfd < 0 && errno == EINVAL)
        caller->pidfd = (int)syscall(SYS_pidfd_open, tid, 0);
    /* What is kept is kept for good: a caller without one because there was no room is not. */
    if (caller->pidfd < 0 && errno != EINVAL && errno != ENOENT)
        return -errno;
    caller->tid = tid;
    return 0;
}

/* A file of procfs as a string, cut where it does not fit. */
int read_text(int dir, const char *path, char *text, size_t size)
{
    cleanup_fd int fd = openat(dir, path, O_RDONLY | O_CLOEXEC);
    size_t have = 0;
    ssize_t n;

    if (fd < 0)
        return -errno;
    while (have < size - 1 && (n = read(fd, text + have, size - 1 - have)) != 0) {
        if (n < 0)
            return -errno;
        have += (size_t)n;
    }
    text[have] = 0;
    return 0;
}

/* fsuid, fsgid and, where they can matter, the groups, from /proc/TID/status. */
static int read_status(struct caller *caller, bool with_groups, gid_t *groups, int *n_groups)
{
    char text[8192];
    const char *line;
    int r = read_text(caller->dir, "status", text, sizeof(text));

    if (r < 0)
        return r;
    line = strstr(text, "\nUid:");
    if (!line || sscanf(line, "\nUid: %*u %*u %*u %u", &caller->fsuid) != 1)
        return -EINVAL;
    line = strstr(text, "\nGid:");
    if (!line || sscanf(line, "\nGid: %*u %*u %*u %u", &caller->fsgid) != 1)
        return -EINVAL;
    if (!with_groups)
        return 0;
    line = strstr(text, "\nGroups:");
    if (!line)
        return -EINVAL;
    line += strlen("\nGroups:");
    for (*n_groups = 0; *n_groups < 256; (*n_groups)++) {
        char *end;

        while (*line == ' ' || *line == '\t')
            line++;
        if (*line == '\n' || !*line)
            break;
        groups[*n_groups] = (gid_t)strtoul(line, &end, 10);
        if (end == line)
            return -EINVAL;
        line = end;
    }
    return 0;
}

/*
 * Asks the kernel for fsuid and fsgid, and so whether the caller is still the thread that it was:
 * one ioctl (6.13).  0 or -errno.
 */
static int ask_ids(struct caller *caller)
{
    struct pidfd_info info = {.mask = PIDFD_INFO_CREDS};

    if (caller->pidfd < 0)
        return -ENOTTY;
    if (ioctl(caller->pidfd, PIDFD_GET_INFO, &info) < 0)
        return -errno;
    if ((info.mask & PIDFD_INFO_CREDS) == 0)
        return -ENOTTY;
    caller->fsuid = info.fsuid;
    caller->fsgid = info.fsgid;
    caller->told = true;
    return 0;
}

static int read_fsids(struct caller *caller)
{
    /* Where the kernel does not tell, the text does, at ten times the price. */
    return caller->told || ask_ids(caller) == 0 ? 0 : read_status(caller, false, NULL, NULL);
}

/*
 * Is what is known of the caller's namespaces to be had without asking for them?  If not, it is
 * known no more.
 */
static bool is_where_it_was(const struct session *session, struct caller *caller, uint64_t parted)
{
    caller->told = caller->asked = false;
    if (caller->in_userns && caller->parted == parted &&
        session->worker->policy->tells_of_parting && ask_ids(caller) == 0)
        return true;
    caller->in_userns = caller->in_mntns = 0;
    return false;
}

/*
 * Before a thread changes its namespaces, which the kernel then does by itself: nothing in the call
 * is decided by us.  What is known of callers counts for one value of `parted`: they are asked for
 * their namespaces once, until somebody's may change.
 */
void caller_parts(struct session *session, enum family family)
{
    const uint32_t apart = CLONE_NEWNS | CLONE_NEWUSER;
    bool joins = family == FAMILY_SETNS;
    uint32_t flags = (uint32_t)session->notif->data.args[joins ? 1 : 0];

    /* Without flags setns(2) joins whatever the descriptor is. */
    if ((flags & apart) || (joins && flags == 0))
        __atomic_fetch_add(&session->worker->parted, 1, __ATOMIC_SEQ_CST);
}

/*
 * Settles what needs no argument of the call.  Returns 1 when the kernel may carry the call out
 * itself (SECCOMP_USER_NOTIF_FLAG_CONTINUE), 0 when it has to be decided, -errno when the caller
 * is gone or cannot be looked at.
 *
 * CONTINUE is sound for these two, because credentials and user namespace of a thread change
 * only by its own doing, and it is blocked:
 * - no CAP_SYS_ADMIN: the kernel refuses, wherever the thread is.  (Its mount namespace could
 *   be one that it owns as a child user namespace's creator; the next argument covers that.)
 * - a user namespace other than the container's, hence below it: the capabilities of the thread
 *   count only there.  In a mount namespace that the container's user namespace owns the kernel
 *   says EPERM; in one that a descendant owns every mount was locked when it was copied.
 */
int caller_settle(struct session *session, struct caller *caller, uint32_t *reason)
{
    pid_t tid = (pid_t)session->notif->pid;
    uint64_t parted = __atomic_load_n(&session->worker->parted, __ATOMIC_SEQ_CST);
    int r = -ESRCH;

    /*
     * A directory of procfs, and a pidfd, stand for one thread and never for the next one with the
     * same number: once the thread is gone, whatever is asked of them is ESRCH.
     */
    if (caller->tid == tid)
        r = is_where_it_was(session, caller, parted)
                ? 0
                : own_ns(caller, &caller->userns, "ns/user", &caller->in_userns);
    if (r < 0) {
        r = caller_open(session, caller, tid);
        if (r == 0)
            r = ns_ino(caller->dir, "ns/user", &caller->in_userns);
        if (r < 0)
            return r;
    }
    caller->parted = parted;
    caller->calls++;
    r = get_caps(caller->tid, &caller->caps);
    if (r < 0)
        return r;
    if (!has_cap(&caller->caps, CAP_SYS_ADMIN)) {
        *reason = ECI_REASON_NO_CAPABILITY;
        return 1;
    }
    if (caller->in_userns != session->worker->userns_ino) {
        *reason = ECI_REASON_OTHER_USERNS;
        return 1;
    }
    return 0;
}

static int stat_root(int dir, const char *name, struct statx *stx)
{
    return statx(dir, name, 0, STATX_INO | STATX_MNT_ID_UNIQUE, stx) < 0 ? -errno : 0;
}

static int ask_mntns(struct caller *caller)
{
    caller->asked = true;
    return own_ns(caller, &caller->mntns, "ns/mnt", &caller->in_mntns);
}

/*
 * Goes to the caller's mount namespace, if that is another; by the pidfd, as to open a namespace
 * takes as long as to go there.
 */
static int join(struct session *session, struct caller *caller)
{
    cleanup_fd int ns = -1;
    int r = caller->in_mntns ? 0 : ask_mntns(caller);

    if (r < 0 || caller->in_mntns == session->worker->mntns_ino)
        return r;
    session_strays(session);
    if (caller->pidfd >= 0)
        return setns(caller->pidfd, CLONE_NEWNS) < 0 ? -errno : 0;
    ns = openat(caller->dir, "ns/mnt", O_RDONLY | O_CLOEXEC);
    return ns < 0 || setns(ns, CLONE_NEWNS) < 0 ? -errno : 0;
}

static int take_root(struct session *session, struct caller *caller)
{
    cleanup_fd int root = -1;
    struct statx theirs;
    struct statx ours;
    int r;

    r = stat_root(caller->dir, "root", &theirs);
    if (r < 0)
        return r;
    /* Looked at anew each time: a pivot_root(2) takes our root along with everybody's. */
    r = stat_root(AT_FDCWD, "/", &ours);
    if (r < 0)
        return r;
    caller->rooted = true;
    if (theirs.stx_mnt_id == ours.stx_mnt_id && theirs.stx_ino == ours.stx_ino)
        return 0;

    session_strays(session);
    root = openat(caller->dir, "root", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0 || fchdir(root) < 0 || chroot(".") < 0)
        return -errno;
    return 0;
}

/*
 * Takes the caller's mount namespace and, where a path begins there, its root, and opens its
 * working directory.  The worker's capabilities are still full; what is done in the directory is
 * judged by the caller's.
 *
 * A thread can hold a root in one mount namespace and be a member of another, by fchdir and chroot
 * to a directory of /proc/PID/root: then the kernel tells it EINVAL.  So both are compared.
 */
int caller_stand_in(struct session *session, struct caller *caller, bool with_root, bool with_cwd)
{
    int r = join(session, caller);

    caller->rooted = false;
    if (r == 0 && with_root)
        r = take_root(session, caller);
    if (r < 0 || !with_cwd)
        return r;
    caller->cwd = openat(caller->dir, "cwd", O_PATH | O_DIRECTORY | O_CLOEXEC);
    return caller->cwd < 0 ? -errno : 0;
}

/*
 * A thread may look at what is its own or its thread group's whatever its ids and capabilities
 * are, in a set-user-ID program (fusermount3) as well.  So for a look at the caller's own in its
 * place, the worker takes all of its capabilities.
 */
static int raise_caps(const struct caller *caller)
{
    struct caps full = caller->taken;

    if (!caller->assumed)
        return 0;
    for (unsigned int i = 0; i < 2; i++)
        full.data[i].effective = full.data[i].permitted;
    return set_caps(&full);
}

/* Never on with more than the caller has. */
static void lower_caps(const struct caller *caller)
{
    unsigned int tried = 0;

    while (caller->assumed && set_caps(&caller->taken) < 0)
        if (!try_again(&tried))
            abort();
}

/*
 * Of a call that the kernel would not do on mounts of another namespace, and has not: was that so
 * because what is known of the caller is wrong?  A thread that executes a program takes over the
 * number and the pidfd of its process's first one, and it may have left that one's mount namespace,
 * or been made in another (clone(2) takes CLONE_THREAD with CLONE_NEWNS).  With user namespaces
 * there is no such thing: a process has one.
 */
bool caller_was_elsewhere(struct session *session, struct caller *caller)
{
    uint64_t known = caller->in_mntns;
    int r;

    if (caller->asked || known != session->worker->mntns_ino || raise_caps(caller) < 0)
        return false;
    r = ask_mntns(caller);
    lower_caps(caller);
    return r == 0 && caller->in_mntns != known;
}

/*
 * The same for the root of a call that has turned out to need it: a link leads there, or it is to
 * be told where something lies.
 */
int caller_take_root(struct session *session, struct caller *caller)
{
    int r;

    if (caller->rooted)
        return 0;
    r = raise_caps(caller);
    if (r < 0)
        return r;
    r = take_root(session, caller);
    lower_caps(caller);
    return r;
}

/*
 * A path that begins at `dir`, a directory of procfs that is the caller's own, as an fd opened with
 * `flags`.
 */
int caller_open_at(const struct caller *caller, int dir, const char *path, int flags)
{
    int fd;
    int r = raise_caps(caller);

    if (r < 0)
        return r;
    fd = openat(dir, path, flags | O_CLOEXEC);
    r = fd < 0 ? -errno : fd;
    lower_caps(caller);
    return r;
}

/*
 * What a link in the caller's own directory of the host's procfs stands for ("cwd", "fd/7",
 * "task/9/root"), as an fd opened with `flags`.
 */
int caller_open_own(const struct caller *caller, const char *path, int flags)
{
    return caller_open_at(caller, caller->dir, path, flags);
}

/* What an fd of the caller's stands for, as an O_PATH fd: a directory, a mount. */
int caller_fd(const struct caller *caller, int fd)
{
    char name[32];
    int path;

    if (fd < 0)
        return -EBADF;
    snprintf(name, sizeof(name), "fd/%d", fd);
    path = caller_open_own(caller, name, O_PATH);
    return path == -ENOENT ? -EBADF : path;
}

/* The open file itself that the caller has as `fd`. */
int caller_file(const struct caller *caller, int fd)
{
    int file;
    int r = raise_caps(caller);

    if (r < 0)
        return r;
    file = (int)syscall(SYS_pidfd_getfd, caller->pidfd, fd, 0);
    lower_caps(caller);
    return file < 0 ? -EBADF : file;
}

/*
 * Whether the caller does anything but sleep.  False where nothing can be told.
 *
 * /proc/TID/syscall is "running" for one that does not sleep, or begins with a number, and takes
 * half as long as stat, whose state tells besides whether only a signal wakes it.  Woken by one it
 * can sleep without that, until it gets the listener's lock; but whoever holds that for so long
 * keeps our answer waiting as well.
 */
bool caller_is_awake(struct caller *caller)
{
    char text[64];
    const char *end; /* of the number and the name (up to 15 characters): proc(5) */
    int n = read_own(caller, &caller->syscall, "syscall", text, sizeof(text) - 1);

    if (n > 0)
        return *text == 'r';
    /* Who has less than the caller may have is not shown that. */
    n = read_own(caller, &caller->stat, "stat", text, sizeof(text) - 1);
    if (n <= 0)
        return false;
    text[n] = 0;
    end = strrchr(text, ')');
    return end && strncmp(end, ") S", 3) != 0;
}

/*
 * The two report no error: they return what was before (setfsuid(2)).  An id that is 0 already is
 * left alone.
 */
static int set_fsids(uint32_t uid, uint32_t gid)
{
    if (gid)
        syscall(SYS_setfsgid, gid);
    if (uid)
        syscall(SYS_setfsuid, uid);
    if ((uid && (uint32_t)syscall(SYS_setfsuid, -1) != uid) ||
        (gid && (uint32_t)syscall(SYS_setfsgid, -1) != gid))
        return -EPERM;
    return 0;
}

/*
 * Takes the caller's fsuid, fsgid and effective capabilities, so that the kernel judges our
 * system calls as it would judge the caller's.  Threads have credentials of their own as long
 * as no libc wrapper is used.
 */
int caller_assume(struct session *session, struct caller *caller)
{
    const struct worker *worker = session->worker;
    struct caps caps = worker->caps;
    bool fewer = false;
    int r;

    r = read_fsids(caller);
    if (r < 0)
        return r;
    for (unsigned int i = 0; i < 2; i++) {
        caps.data[i].effective &= caller->caps.data[i].effective;
        if (caps.data[i].effective != worker->caps.data[i].effective)
            fewer = true;
    }
    if (!caller->fsuid && !caller->fsgid && !fewer)
        return 0;

    caller->assumed = true;
    caller->taken = caps;
    if (!has_cap(&caps, CAP_DAC_OVERRIDE)) {
        gid_t groups[256];
        int n = 0;

        r = read_status(caller, true, groups, &n);
        if (r < 0)
            return r;
        if (syscall(SYS_setgroups, (size_t)n, groups) < 0)
            return -errno;
    }
    r = set_fsids(caller->fsuid, caller->fsgid);
    /* After the ids: to leave 0 takes capabilities away. */
    return r < 0 ? r : set_caps(&caps);
}

/* Joins namespaces of the caller that decide what a new file system shows. */
int caller_enter_namespaces(struct caller *caller, const char *const names[])
{
    for (; *names; names++) {
        cleanup_fd int ns = caller_open_own(caller, *names, O_RDONLY);

        if (ns < 0)
            return ns;
        if (setns(ns, 0) < 0)
            return -errno;
    }
    return 0;
}

/* One try; made again it does no harm. */
static int resume(const struct session *session, const struct caller *caller)
{
    int r;

    if (caller->fsuid)
        syscall(SYS_setfsuid, 0);
    if (caller->fsgid)
        syscall(SYS_setfsgid, 0);
    /* Also they can want memory, and say nothing of it. */
    if ((caller->fsuid && syscall(SYS_setfsuid, -1) != 0) ||
        (caller->fsgid && syscall(SYS_setfsgid, -1) != 0))
        return -ENOMEM;
    r = set_caps(&session->worker->caps);
    if (r == 0 && !has_cap(&caller->caps, CAP_DAC_OVERRIDE) &&
        syscall(SYS_setgroups, 0UL, NULL) < 0)
        r = -errno;
    return r;
}

/* Back to the worker's own credentials. */
void caller_resume(struct session *session, struct caller *caller)
{
    unsigned int tried = 0;

    while (caller->assumed && resume(session, caller) < 0)
        if (!try_again(&tried))
            abort();
    caller->assumed = false;
}

/* Back to the worker's own self.  A thread that cannot go back must not serve another call. */
void caller_leave(struct session *session, struct caller *caller)
{
    unsigned int tried = 0;

    caller_resume(session, caller);
    close_fd(&caller->cwd);
    caller->cwd = -1;
    while ((session->away ? go_home(session) : session_to_fds(session)) < 0)
        if (!try_again(&tried))
            abort();
}
