/* SPDX-License-Identifier: Apache-2.0 */
/*
 * procfs and sysfs with the masks and read-only paths of the container, which the kernel holds.
 *
 * A mask that a runtime puts on /proc is a mount like any other: root in the container takes it
 * away, or gets beneath it where no call tells (the end of a mount namespace disconnects mounts
 * that are not locked).  The kernel locks a mount in its place, MNT_LOCKED, when a tree of mounts
 * comes into a mount namespace from one that another user namespace owns (mount_namespaces(7)).
 * So the worker has two small mount namespaces of its own, which nothing in the container can
 * name:
 *
 *     build    owned by the container's user namespace.  Here a new file system is mounted on
 *              /build and covered.  It has a procfs and a sysfs without masks, so that the kernel
 *              finds a new one no more revealing (fs/namespace.c, mnt_already_visible).
 *     locked   owned by a user namespace below it.  What is moved to /slot/tree in the one comes
 *              here by propagation, all but its root locked.  A clone of that goes to its place.
 *
 * Where nothing is covered there is neither, but `home`: a mount namespace with the host's procfs
 * only, for worker_find_self(); else `build` is that as well.
 *
 * Here are the two, and what becomes of a new file system; exchange.c does the same to the ones
 * that the runtime has mounted.  What is to be done comes as records, each a letter and a text:
 *
 *     R path          the container's root, as the runtime's mount namespace has it
 *     s name=value    a sysctl: /proc/sys may become read-only before the runtime writes it
 *     o point         /proc or /sys is read-only as a whole
 *     r path, m path  a read-only path, a masked path
 *     b path          a mount to be exchanged, so that its flags are locked, and what is
 *                     read-only on it in its place
 *     c path          the same for cgroups, which are read-only
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#include "compat.h"
#include "kernfs.h"

#define DEVNULL "/null"
#define EMPTY   "/empty"

#define MQUEUE_MAGIC 0x19800202 /* ipc/mqueue.c */

/* Per-mount flags that a caller may set and take back. */
#define OWN_FLAGS                                                                                  \
    (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC |                \
     MOUNT_ATTR_NODIRATIME | MOUNT_ATTR_NOSYMFOLLOW)

const struct slot directory_slot = {BUILD, SLOT "/tree"};
const struct slot file_slot = {"/file", SLOT "/file"};

const struct kernfs_kind kernfs_kinds[] = {
    [KERNFS_PROC] = {"proc", PROC_SUPER_MAGIC},
    [KERNFS_SYS] = {"sys", SYSFS_MAGIC},
};

/* The next record of `kind` after `at` (NULL: the first), without its first letter; or NULL. */
const char *next_record(const struct worker *worker, const char *at, char kind)
{
    const char *end = worker->cover + worker->cover_size;

    for (at = at ? at + strlen(at) + 1 : worker->cover; at < end; at += strlen(at) + 1)
        if (*at == kind)
            return at + 1;
    return NULL;
}

/* Where a record lies in a file system of that kind ("/proc/sys" → "sys"), or NULL. */
static const char *inside(const char *path, enum kernfs kind)
{
    size_t n = strlen(kernfs_kinds[kind].point);

    if (path[0] != '/' || strncmp(path + 1, kernfs_kinds[kind].point, n) != 0 || path[n + 1] != '/')
        return NULL;
    return path + n + 2;
}

bool kernfs_covers(const struct worker *worker, enum kernfs kind)
{
    for (const char *letter = "mr"; *letter; letter++)
        for (const char *path = NULL; (path = next_record(worker, path, *letter));)
            if (inside(path, kind))
                return true;
    return false;
}

static bool is_wanted(const struct worker *worker)
{
    return kernfs_covers(worker, KERNFS_PROC) || kernfs_covers(worker, KERNFS_SYS) ||
           next_record(worker, NULL, 'b') || next_record(worker, NULL, 'c');
}

/* Makes the thread's root the directory that it is in, which is the root of a mount. */
static int be_root(void)
{
    return syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0
               ? -errno
               : 0;
}

/* Makes `home` where there is no `build`: nothing but the host's procfs. */
static int open_home(void)
{
    cleanup_fd int proc =
        (int)syscall(SYS_open_tree, AT_FDCWD, "/proc", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

    if (proc < 0 || unshare(CLONE_NEWNS) < 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        syscall(SYS_move_mount, proc, "", AT_FDCWD, "/proc", MOVE_MOUNT_F_EMPTY_PATH) < 0 ||
        chdir("/proc") < 0)
        return -errno;
    return be_root();
}

/* Makes the tree of `build`, in a mount namespace of the host's user namespace. */
int kernfs_open(struct worker *worker)
{
    static const char *const directories[] = {"proc", "sys", "build", "slot", "slot/tree", "empty"};
    cleanup_fd int proc = -1;
    cleanup_fd int sys = -1;
    struct stat st;

    worker->build = worker->locked = -1;
    if (!is_wanted(worker))
        return open_home();
    proc = (int)syscall(SYS_open_tree, AT_FDCWD, "/proc", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    sys = (int)syscall(SYS_open_tree, AT_FDCWD, "/sys", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (proc < 0 || sys < 0 || unshare(CLONE_NEWNS) < 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return -errno;
    /* Any directory will do to begin with; afterwards nothing but this file system is left. */
    if (mount("tmpfs", "/proc", "tmpfs", 0, "mode=0755,size=64k") < 0 || chdir("/proc") < 0)
        return -errno;
    for (unsigned int i = 0; i < sizeof(directories) / sizeof(directories[0]); i++)
        if (mkdir(directories[i], 0755) < 0)
            return -errno;
    if (mknod("file", S_IFREG | 0600, 0) < 0 || mknod("slot/file", S_IFREG | 0600, 0) < 0)
        return -errno;
    if (mknod("null", S_IFCHR | 0600, makedev(1, 3)) < 0 || chmod("null", 0666) < 0 ||
        syscall(SYS_move_mount, proc, "", AT_FDCWD, "proc", MOVE_MOUNT_F_EMPTY_PATH) < 0 ||
        syscall(SYS_move_mount, sys, "", AT_FDCWD, "sys", MOVE_MOUNT_F_EMPTY_PATH) < 0 ||
        mount("slot", "slot", NULL, MS_BIND, NULL) < 0 ||
        mount("empty", "empty", NULL, MS_BIND, NULL) < 0 ||
        mount(NULL, "empty", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NOEXEC, NULL) <
            0)
        return -errno;
    if (stat(".", &st) < 0)
        return -errno;
    worker->masks_major = major(st.st_dev);
    worker->masks_minor = minor(st.st_dev);
    return be_root();
}

static int open_own_mntns(const struct worker *worker)
{
    int fd = openat(worker->proc, "self/ns/mnt", O_RDONLY | O_CLOEXEC);

    return fd < 0 ? -errno : fd;
}

/* Body of a child that shares our fds: puts a namespace that is locked in place of `fd`. */
static int make_locked(const struct worker *worker, int fd)
{
    int ns;

    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
        return errno;
    ns = open_own_mntns(worker);
    if (ns < 0)
        return -ns;
    if (dup3(ns, fd, O_CLOEXEC) < 0)
        return errno;
    close(ns);
    return 0;
}

/* Makes these namespaces, once in the container's user namespace.  Single-threaded. */
int kernfs_enter(struct worker *worker)
{
    int status;
    pid_t child;

    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return -errno;
    worker->home = open_own_mntns(worker);
    if (worker->home < 0 || !is_wanted(worker))
        return worker->home < 0 ? worker->home : 0;
    worker->build = worker->home;
    if (mount(NULL, SLOT, NULL, MS_SHARED, NULL) < 0)
        return -errno;
    worker->locked = fcntl(worker->build, F_DUPFD_CLOEXEC, 0);
    if (worker->locked < 0)
        return -errno;
    child = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0UL, 0UL, 0UL, 0UL);
    if (child < 0)
        return -errno;
    if (child == 0)
        _exit(make_locked(worker, worker->locked));
    if (waitpid(child, &status, 0) < 0)
        return -errno;
    if (!WIFEXITED(status))
        return -ECHILD;
    return -WEXITSTATUS(status);
}

int kernfs_go(int ns)
{
    return setns(ns, CLONE_NEWNS) < 0 ? -errno : 0;
}

/* Something beneath the file system on /build; a link there would be no name of it. */
int kernfs_place(int fs, const char *path)
{
    struct open_how how = {
        .flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    int fd = (int)syscall(SYS_openat2, fs, path, &how, sizeof(how));

    return fd < 0 ? -errno : fd;
}

int attach_mount(int tree, int place, unsigned int flags)
{
    flags |= MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    return syscall(SYS_move_mount, tree, "", place, "", flags) < 0 ? -errno : 0;
}

int set_mount_flags(int tree, uint64_t set, uint64_t clear)
{
    struct mount_attr attr = {.attr_set = set, .attr_clr = clear};

    return syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0 ? -errno
                                                                                        : 0;
}

int clone_mount(int dir, const char *path, unsigned int flags)
{
    int fd = (int)syscall(SYS_open_tree, dir, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | flags);

    return fd < 0 ? -errno : fd;
}

/* Does this procfs show processes only ("subset=pid")? */
static bool is_subset(int fs)
{
    cleanup_fd int place = kernfs_place(fs, "filesystems");

    return place == -ENOENT;
}

/*
 * Changes the subset of a procfs.  A list without an entry takes back "pid", which root in the
 * container can do as well; so what has to be covered is covered there, too.  -EINVAL from a kernel
 * that lets nobody take it back.
 */
static int set_subset(int fs, const char *subset)
{
    cleanup_fd int context = (int)syscall(SYS_fspick, fs, "", FSPICK_EMPTY_PATH | FSPICK_CLOEXEC);

    if (context < 0 ||
        syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "subset", subset, 0) < 0 ||
        syscall(SYS_fsconfig, context, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0) < 0)
        return -errno;
    return 0;
}

/* Does a procfs show that where it is whole, as `build` has it?  That one is the host's. */
static bool is_in_kernel(const char *path)
{
    cleanup_fd int whole = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    cleanup_fd int place = whole < 0 ? whole : kernfs_place(whole, path);

    return place != -ENOENT;
}

/*
 * 0 as well where the kernel has no such file: the runtimes do the same.  Where it has one, and the
 * procfs does not show it, somebody is changing the subset in this moment.  A sysfs has none, and
 * what it shows is its network namespace's.
 */
static int cover(int fs, enum kernfs kind, const char *path, bool mask)
{
    cleanup_fd int place = kernfs_place(fs, path);
    cleanup_fd int tree = -1;
    struct stat st;
    int r;

    if (place == -ENOENT)
        return kind == KERNFS_PROC && is_in_kernel(path) ? -EBUSY : 0;
    if (place < 0)
        return place;
    if (fstat(place, &st) < 0)
        return -errno;
    if (mask)
        tree = clone_mount(AT_FDCWD, S_ISDIR(st.st_mode) ? EMPTY : DEVNULL, 0);
    else
        tree = clone_mount(place, "", AT_EMPTY_PATH | AT_RECURSIVE);
    if (tree < 0)
        return tree;
    r = mask ? 0 : set_mount_flags(tree, MOUNT_ATTR_RDONLY, 0);
    return r < 0 ? r : attach_mount(tree, place, 0);
}

/*
 * In `build`, where the file system is on /build: masks and read-only paths, in runc's order.  What
 * a subset does not show is masked altogether.
 */
int kernfs_cover(const struct worker *worker, enum kernfs kind)
{
    cleanup_fd int fs = open(BUILD, O_PATH | O_DIRECTORY | O_CLOEXEC);
    bool subset;
    int r = 0;

    if (fs < 0)
        return -errno;
    subset = kind == KERNFS_PROC && is_subset(fs);
    if (subset) {
        r = set_subset(fs, ",");
        if (r < 0)
            return r == -EINVAL ? 0 : r;
    }
    for (const char *letter = "rm"; r == 0 && *letter; letter++) {
        for (const char *path = NULL; r == 0 && (path = next_record(worker, path, *letter));) {
            const char *name = inside(path, kind);

            r = name ? cover(fs, kind, name, subset || *letter == 'm') : 0;
        }
    }
    return r == 0 && subset ? set_subset(fs, "pid") : r;
}

/*
 * From `build`, where a tree lies in its slot, to a detached copy of it in which all but the root
 * is locked, and the root's flags are.  Leaves nothing behind, and the thread in `build`.
 */
int kernfs_lock(const struct worker *worker, const struct slot *slot)
{
    int tree;
    int r;

    if (mount(slot->build, slot->tree, NULL, MS_MOVE, NULL) < 0)
        return -errno;
    tree = kernfs_go(worker->locked);
    if (tree == 0)
        tree = clone_mount(AT_FDCWD, slot->tree, AT_RECURSIVE);
    r = kernfs_go(worker->build);
    if (r == 0 && umount2(slot->tree, MNT_DETACH) < 0)
        r = -errno;
    if (r < 0 && tree >= 0)
        close(tree);
    return r < 0 ? r : tree;
}

/*
 * Takes away what a failure has left in `build`, where the thread is afterwards: there it would
 * stay as long as the container.  0 or -errno.
 */
int kernfs_clear(const struct worker *worker)
{
    const char *const places[] = {directory_slot.tree, file_slot.tree, directory_slot.build,
                                  file_slot.build};
    unsigned int tried = 0;
    int r;

    while ((r = kernfs_go(worker->build)) < 0 && try_again(&tried))
        ;
    for (unsigned int i = 0; r == 0 && i < sizeof(places) / sizeof(places[0]); i++)
        /* EINVAL: nothing is mounted there any more. */
        while (umount2(places[i], MNT_DETACH | UMOUNT_NOFOLLOW) == 0 ||
               (errno != EINVAL && try_again(&tried)))
            ;
    return r;
}

/* A file system that the container has already may not come up looser than it has it. */
static int hold(const struct worker *worker)
{
    cleanup_fd int fs = open(BUILD, O_PATH | O_CLOEXEC);
    struct eci_place place = {0};
    struct statx stx;
    uint32_t held;
    int tree;
    int r = fs < 0 ? -errno : stat_object(fs, "", &stx);

    place.mnt_id = r < 0 ? 0 : stx.stx_mnt_id;
    if (r == 0)
        r = facts_storage(&place);
    if (r == 0) {
        held = eci_policy_held(worker->policy, place.sb_major, place.sb_minor, place.root);
        r = held ? set_mount_flags(fs, held, 0) : 0; /* ECI_* are MOUNT_ATTR_* */
    }
    tree = r < 0 ? r : clone_mount(fs, "", AT_EMPTY_PATH);
    if (umount2(BUILD, MNT_DETACH) < 0)
        (void)kernfs_clear(worker);
    return tree;
}

/* From what is mounted on /build to a detached tree, and /build is free again. */
static int finish(const struct worker *worker, enum kernfs kind)
{
    cleanup_fd int tree = -1;
    uint64_t flags = 0;
    int r;

    if (kind == KERNFS_NONE || !kernfs_covers(worker, kind))
        return hold(worker);
    r = kernfs_cover(worker, kind);
    if (r == 0) {
        /* Its own flags are the caller's to change: they come on after the locking. */
        cleanup_fd int fs = open(BUILD, O_PATH | O_DIRECTORY | O_CLOEXEC);
        struct statx stx = {0};

        r = fs < 0 ? -errno : stat_at(fs, "", &stx);
        if (r == 0)
            r = facts_attributes(stx.stx_mnt_id, &flags);
        flags &= OWN_FLAGS;
        if (r == 0)
            r = set_mount_flags(fs, worker->kernfs_flags[kind],
                                flags & ~worker->kernfs_flags[kind]);
    }
    if (r == 0)
        tree = kernfs_lock(worker, &directory_slot);
    if (r < 0 || tree < 0) {
        (void)kernfs_clear(worker);
        return r < 0 ? r : tree;
    }
    if (flags) {
        r = set_mount_flags(tree, flags, 0);
        if (r < 0)
            return r;
    }
    return take_fd(&tree);
}

/*
 * A new file system, mounted with mount(2), on the directory `target`; covered, if it is of a kind
 * that has to be.  `source`, `flags` and `data` are the caller's; a name in `data` begins at the
 * thread's working directory.  The thread has joined the namespaces that the file system shall
 * show, and has all its capabilities.
 */
int kernfs_mount(struct session *session, const struct caller *caller, enum kernfs kind,
                 const struct mount_args *args, uint64_t flags, const char *data, int target)
{
    const struct worker *worker = session->worker;
    cleanup_fd int ns = openat(caller->dir, "ns/mnt", O_RDONLY | O_CLOEXEC);
    cleanup_fd int tree = -1;
    struct stat st;
    int r;

    if (ns < 0 || fstat(target, &st) < 0)
        return -errno;
    session_strays(session);
    r = kernfs_go(worker->build);
    if (r == 0 && (fchdir(worker->self_fds) < 0 || mount(args->has_source ? args->source : NULL,
                                                         BUILD, args->type, flags, data) < 0))
        r = -errno;
    if (r < 0)
        return r;
    tree = finish(worker, kind);
    if (tree < 0)
        return tree;
    /* The last that the kernel looks at. */
    if (!S_ISDIR(st.st_mode))
        return -ENOTDIR;
    r = kernfs_go(ns);
    return r < 0 ? r : attach_mount(tree, target, 0);
}

/*
 * Is nothing mounted on this procfs or sysfs but what we have put there?  Not asked of the
 * container's first procfs, nor of a copy of it: those masks every container has.
 */
bool kernfs_has_masks_only(const struct worker *worker, struct eci_place *place)
{
    struct mnt_id_req req = {.size = MNT_ID_REQ_SIZE_VER0, .mnt_id = place->mnt_id};
    const struct eci_grant *grants = eci_policy_grants(worker->policy);
    uint64_t ids[256];
    uint64_t magic;
    long n;

    if (worker->build < 0 || !place->is_root || facts_storage(place) < 0 ||
        strcmp(place->root, "/") != 0 || facts_magic(place->mnt_id, &magic) < 0 ||
        (magic != PROC_SUPER_MAGIC && magic != SYSFS_MAGIC))
        return false;
    for (uint32_t i = 0; i < worker->policy->n_grants; i++)
        if (grants[i].kind == ECI_KIND_PROC && grants[i].sb_major == place->sb_major &&
            grants[i].sb_minor == place->sb_minor)
            return false;
    n = syscall(__NR_listmount, &req, ids, sizeof(ids) / sizeof(ids[0]), 0);
    if (n <= 0 || n == sizeof(ids) / sizeof(ids[0]))
        return false;
    for (long i = 0; i < n; i++) {
        struct eci_place child = {.mnt_id = ids[i]};

        if (facts_storage(&child) < 0)
            return false;
        if ((child.sb_major != worker->masks_major || child.sb_minor != worker->masks_minor) &&
            (child.sb_major != place->sb_major || child.sb_minor != place->sb_minor))
            return false;
    }
    return true;
}

static enum kernfs kind_of(uint64_t magic)
{
    for (enum kernfs kind = KERNFS_PROC; kind < KERNFS_NONE; kind++)
        if (magic == kernfs_kinds[kind].magic)
            return kind;
    return KERNFS_NONE;
}

/* May the container have the very same file system mounted already? */
static bool is_shared(uint64_t magic)
{
    return is_cgroup(magic) || magic == MQUEUE_MAGIC;
}

/*
 * May statfs(2) wait for somebody who serves the file system?  The root of a FUSE file system has
 * this inode and this number of links, until it is served (fs/fuse/inode.c, fuse_get_root_inode).
 * 1, 0, or -errno.
 */
static int may_be_silent(int mount)
{
    struct statx stx = {0};
    int r = stat_at(mount, "", &stx);

    if (r < 0)
        return r == -EACCES ? 1 : r;
    return stx.stx_ino == FUSE_ROOT_ID && stx.stx_nlink == 1;
}

/* What the file system on /build is, which is not asked itself. */
static int magic_of_build(uint64_t *magic)
{
    cleanup_fd int fs = open(BUILD, O_PATH | O_CLOEXEC);
    struct statx stx = {0};
    int r = fs < 0 ? -errno : stat_object(fs, "", &stx);

    return r < 0 ? r : facts_magic(stx.stx_mnt_id, magic);
}

static int magic_of(int mount, uint64_t *magic)
{
    struct statfs fs;

    if (fstatfs(mount, &fs) < 0)
        return -errno;
    *magic = (uint64_t)fs.f_type;
    return 0;
}

static int mount_build(int made)
{
    return syscall(SYS_move_mount, made, "", AT_FDCWD, BUILD, MOVE_MOUNT_F_EMPTY_PATH) < 0 ? -errno
                                                                                           : 0;
}

/* Why the container may not have a new file system of that kind, or ECI_REASON_PERFORMED. */
static uint32_t refusal(const struct worker *worker, enum kernfs kind, uint64_t magic)
{
    /* Its layers have been given to fsconfig(2), which nobody has seen. */
    if (worker->exposed && magic == OVERLAYFS_SUPER_MAGIC)
        return ECI_REASON_PROTECTED;
    /* As of a new one by mount(2): a mask that could not be covered would be missing. */
    if ((kind == KERNFS_PROC && worker->policy->proc_masked) ||
        (kind == KERNFS_SYS && worker->policy->sysfs_masked))
        return ECI_REASON_NEW_KERNEL_FS;
    return ECI_REASON_PERFORMED;
}

/*
 * fsmount(2) of the caller's file system context, of which nobody can tell what it is before it
 * has been mounted.  Returns the detached mount, covered where it has to be.  One of FUSE cannot be
 * opened before it is served: `stand_in` becomes a mount that the caller can have in its place, of
 * an empty directory, else -1.
 */
int kernfs_fsmount(struct session *session, struct caller *caller, int context, unsigned int flags,
                   unsigned int attributes, struct eci_verdict *verdict, int *stand_in)
{
    const struct worker *worker = session->worker;
    cleanup_fd int made = -1;
    int silent;
    enum kernfs kind;
    uint64_t magic = 0;
    int r;

    *stand_in = -1;
    if (worker->build >= 0) {
        caller_resume(session, caller);
        session_strays(session);
        r = kernfs_go(worker->build);
        if (r < 0)
            return r;
    }
    made = (int)syscall(SYS_fsmount, context, flags | FSMOUNT_CLOEXEC, attributes);
    if (made < 0)
        return -errno;
    silent = worker->build >= 0 ? may_be_silent(made) : 0;
    if (silent < 0)
        return silent;
    r = silent ? 0 : magic_of(made, &magic);
    /* Whatever may wait for a file system has been done. */
    (void)session_take_turn(session);
    if (silent) {
        r = mount_build(made);
        if (r == 0)
            r = magic_of_build(&magic);
    }
    kind = kind_of(magic);
    if (r == 0) {
        verdict->reason = refusal(worker, kind, magic);
        r = verdict->reason == ECI_REASON_PERFORMED ? 0 : -EPERM;
        verdict->error = -r;
    }
    if (r == 0 && !silent) {
        if (worker->build < 0 || (kind == KERNFS_NONE && !is_shared(magic)))
            return take_fd(&made);
        r = mount_build(made);
    }
    if (r == 0 && magic == FUSE_SUPER_MAGIC) {
        *stand_in = clone_mount(AT_FDCWD, EMPTY, 0);
        r = *stand_in < 0 ? *stand_in : 0;
    }
    if (r < 0) {
        if (silent)
            (void)kernfs_clear(worker);
        return r;
    }
    return finish(worker, kind);
}
