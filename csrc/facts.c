/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a file descriptor stands for: the facts that a decision rests on.
 *
 * Asked of the kernel for one mount at a time (statx(2), statmount(2)), so that the price does
 * not depend on how many mounts there are.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "compat.h"
#include "kernfs.h"
#include "worker.h"

#define MAX_DEPTH 4096 /* of a directory; deeper counts as protected */

struct mount_buffer {
    struct statmount mount;
    char text[2 * PATH_MAX];
};

static int stat_mount(uint64_t mnt_id, uint64_t mask, struct mount_buffer *buffer)
{
    struct mnt_id_req req = {
        .size = MNT_ID_REQ_SIZE_VER0,
        .mnt_id = mnt_id,
        .param = mask,
    };

    if (syscall(__NR_statmount, &req, buffer, sizeof(*buffer), 0) < 0)
        return -errno;
    return (buffer->mount.mask & mask) == mask ? 0 : -ENODATA;
}

static bool same_inode(const struct statx *a, const struct statx *b)
{
    return a->stx_ino == b->stx_ino && a->stx_dev_major == b->stx_dev_major &&
           a->stx_dev_minor == b->stx_dev_minor;
}

/* The directory of a file, found by the name that the kernel has for it now and verified. */
static int open_directory_of(const struct worker *worker, int fd, const struct statx *file)
{
    char number[16];
    char path[PATH_MAX];
    struct statx seen;
    char *slash;
    ssize_t n;
    int dir;

    snprintf(number, sizeof(number), "%d", fd);
    n = readlinkat(worker->self_fds, number, path, sizeof(path));
    if (n <= 0 || (size_t)n >= sizeof(path) || *path != '/')
        return -ENOENT;
    path[n] = 0;
    slash = strrchr(path, '/');
    *slash = 0;
    dir = open(*path ? path : "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return -errno;
    if (stat_at(dir, slash + 1, &seen) < 0 || !same_inode(&seen, file)) {
        close(dir);
        return -ENOENT;
    }
    return dir;
}

/* Not protected, whatever it lies in.  What is both is protected. */
static bool is_shared(uint32_t hits)
{
    return (hits & (ECI_INODE_SHARED | ECI_INODE_PROTECTED)) == ECI_INODE_SHARED;
}

/*
 * ECI_INODE_* of the ancestors inside the same mount, up to one that is shared.  By identity, not
 * by name: a rename changes nothing.  Whatever cannot be found out counts as protected.
 *
 * Nothing is remembered of a mount: through another mount of the same file system a container can
 * rename a protected path into what a mount shows that showed none before.
 */
static uint32_t hits_above(const struct worker *worker, int fd, const struct statx *object)
{
    struct statx here = *object;
    cleanup_fd int at = -1;
    uint32_t hits = 0;
    int next;

    if (object->stx_attributes & STATX_ATTR_MOUNT_ROOT)
        return 0;
    if (S_ISDIR(object->stx_mode))
        at = openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
    else
        at = open_directory_of(worker, fd, object);
    for (unsigned int depth = 0; depth < MAX_DEPTH; depth++) {
        struct statx up;
        uint32_t what;

        /* A step out of the mount, or none: the object was moved meanwhile. */
        if (at < 0 || stat_at(at, "", &up) < 0 || up.stx_mnt_id != object->stx_mnt_id ||
            same_inode(&up, &here))
            break;
        what = eci_policy_inode(worker->policy, up.stx_dev_major, up.stx_dev_minor, up.stx_ino);
        hits |= what;
        if ((up.stx_attributes & STATX_ATTR_MOUNT_ROOT) || is_shared(what))
            return hits;
        here = up;
        next = openat(at, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
        close(at);
        at = next;
    }
    return hits | ECI_INODE_PROTECTED;
}

static bool has_grant_on(const struct eci_policy *policy, const struct statx *stx)
{
    const struct eci_grant *grants = eci_policy_grants(policy);

    for (uint32_t i = 0; i < policy->n_grants; i++)
        if (grants[i].own_major == stx->stx_dev_major && grants[i].own_minor == stx->stx_dev_minor)
            return true;
    return false;
}

/* The object itself, and what the policy knows of it. */
int facts_place(const struct worker *worker, const struct target *target, struct eci_place *place)
{
    const struct eci_policy *policy = worker->policy;
    const struct statx *stx = &target->stx;
    uint64_t parent;
    uint32_t known;

    memset(place, 0, offsetof(struct eci_place, name));
    place->name[0] = 0;
    place->root[0] = 0;
    place->mnt_id = stx->stx_mnt_id;
    place->ino = stx->stx_ino;
    place->major = stx->stx_dev_major;
    place->minor = stx->stx_dev_minor;
    place->is_root = (stx->stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;

    known = eci_policy_knows_device(policy, place->major, place->minor);
    /* Which inode it is nobody tells, and something of the policy's is on the same device. */
    if (!(stx->stx_mask & STATX_INO) && (known || has_grant_on(policy, stx)))
        return -EACCES;
    if (!known)
        return 0;
    place->self_hits = eci_policy_inode(policy, place->major, place->minor, place->ino);
    if (!(known & ECI_INODE_PROTECTED) || is_shared(place->self_hits))
        return 0;
    /* Of what no mount shows, none can show a part: rename(2) needs to see both sides. */
    if (!worker->exposed && !worker->receives)
        return 0;
    /* Nobody tells what the root of a detached copy lies in. */
    if (worker->exposed && facts_parent(stx->stx_mnt_id, &parent) < 0) {
        place->up_hits = ECI_INODE_PROTECTED;
        return 0;
    }
    if (target->fd >= 0) {
        place->up_hits = hits_above(worker, target->fd, stx);
    } else {
        cleanup_fd int fd = openat(target->parent, target->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        struct statx again;

        if (fd < 0 || stat_at(fd, "", &again) < 0 || !same_inode(&again, stx) ||
            again.stx_mnt_id != stx->stx_mnt_id)
            return -ENOENT; /* it was renamed just now */
        place->up_hits = hits_above(worker, fd, stx);
    }
    return 0;
}

/* The inode that `name` in `parent` has when nothing is mounted on it. */
static int stat_under(int parent, const char *name, struct statx *stx)
{
    cleanup_fd int bare = (int)syscall(SYS_open_tree, parent, "",
                                       AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

    return bare < 0 ? -errno : stat_at(bare, name, stx);
}

/* The inode number that the directory itself has for `name`, whatever is mounted there, or 0. */
static int entry_ino(int parent, const char *name, uint64_t *ino)
{
    cleanup_fd int dir = openat(parent, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    _Alignas(struct directory_entry) char buffer[4096];
    long n;

    *ino = 0;
    if (dir < 0)
        return -errno;
    while ((n = syscall(SYS_getdents64, dir, buffer, sizeof(buffer))) > 0) {
        for (long at = 0; at < n;) {
            const struct directory_entry *entry = (const struct directory_entry *)(buffer + at);

            if (strcmp(entry->name, name) == 0) {
                *ino = entry->ino;
                return 0;
            }
            at += entry->size;
        }
    }
    return n < 0 ? -errno : 0;
}

static int copy_text(char *out, size_t size, const char *text)
{
    size_t n = strlen(text);

    if (n >= size)
        return -ENAMETOOLONG;
    memcpy(out, text, n + 1);
    return 0;
}

/* The next mount that lies beneath, at whatever depth: 1, 0 after the last one, or -errno. */
int facts_next(struct beneath *beneath, uint64_t *mnt_id)
{
    struct mnt_id_req req = {
        .size = MNT_ID_REQ_SIZE_VER0,
        .mnt_id = beneath->mnt_id,
        .param = beneath->n ? beneath->ids[beneath->n - 1] : 0,
    };

    *mnt_id = 0;
    if (beneath->at == beneath->n) {
        long n = syscall(__NR_listmount, &req, beneath->ids,
                         sizeof(beneath->ids) / sizeof(beneath->ids[0]), 0);

        if (n <= 0)
            return n < 0 ? -errno : 0;
        beneath->n = (unsigned int)n;
        beneath->at = 0;
    }
    *mnt_id = beneath->ids[beneath->at++];
    return 1;
}

/* For a remount: which storage the mount shows. */
int facts_storage(struct eci_place *place)
{
    struct mount_buffer buffer;
    int r = stat_mount(place->mnt_id, STATMOUNT_SB_BASIC | STATMOUNT_MNT_ROOT, &buffer);

    if (r < 0)
        return r;
    place->sb_major = buffer.mount.sb_dev_major;
    place->sb_minor = buffer.mount.sb_dev_minor;
    return copy_text(place->root, sizeof(place->root), buffer.mount.str + buffer.mount.mnt_root);
}

/* Adds what has to stay on one mount of this mount namespace; -ENOENT if it is not in there. */
int facts_held_by(const struct worker *worker, uint64_t mnt_id, uint32_t *held)
{
    struct eci_place place = {.mnt_id = mnt_id};
    int r = facts_storage(&place);

    if (r == 0)
        *held |= eci_policy_held(worker->policy, place.sb_major, place.sb_minor, place.root);
    return r;
}

/* The same of all beneath it. */
static int add_held_beneath(const struct worker *worker, uint64_t mnt_id, uint32_t *held)
{
    struct beneath beneath = {.mnt_id = mnt_id};
    uint64_t id;
    int r;

    while ((r = facts_next(&beneath, &id)) > 0) {
        r = facts_held_by(worker, id, held);
        /* A mount goes without a call of anyone's when its mount point is removed. */
        if (r < 0 && r != -ENOENT)
            return r;
    }
    return r;
}

/* Attaches a mount of a directory or file in this mount namespace, which nobody else sees. */
static int attach_anywhere(int mount, mode_t mode)
{
    cleanup_fd int context = -1;
    cleanup_fd int tree = -1;
    cleanup_fd int file = -1;

    if (S_ISDIR(mode))
        return syscall(SYS_move_mount, mount, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0
                   ? -errno
                   : 0;
    context = (int)syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC);
    if (context < 0 || syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return -errno;
    tree = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, 0);
    if (tree < 0)
        return -errno;
    file = openat(tree, "file", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0 || syscall(SYS_move_mount, tree, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0 ||
        syscall(SYS_move_mount, mount, "", tree, "file", MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return -errno;
    return 0;
}

/*
 * The same of a detached tree, about which the kernel tells nothing: a copy of it is attached where
 * nobody else is.  What cannot be copied counts as holding everything.
 */
static int held_on_detached(struct session *session, const struct target *target, bool recursive,
                            uint32_t *held)
{
    const struct worker *worker = session->worker;
    struct caller *caller = &session->caller;
    cleanup_fd int ns = caller_open_own(caller, "ns/mnt", O_RDONLY);
    const unsigned int whole = AT_EMPTY_PATH | AT_RECURSIVE;
    cleanup_fd int copy = clone_mount(target->fd, "", whole);
    struct statx stx = {0};
    int r;

    if (ns < 0)
        return ns;
    caller_resume(session, caller);
    session_strays(session);
    /* Made in another mount namespace: one of ours, for fsmount(2), or somebody's. */
    if (copy < 0 && worker->locked >= 0 && setns(worker->locked, CLONE_NEWNS) == 0)
        copy = clone_mount(target->fd, "", whole);
    if (setns(worker->build >= 0 ? worker->build : worker->mntns, CLONE_NEWNS) < 0)
        return -errno;
    if (copy < 0 && worker->build >= 0)
        copy = clone_mount(target->fd, "", whole);
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return -errno;
    r = copy < 0 ? copy : stat_at(copy, "", &stx);
    if (r == 0)
        r = attach_anywhere(copy, stx.stx_mode);
    if (r == 0)
        r = facts_held_by(worker, stx.stx_mnt_id, held);
    if (r == 0 && recursive)
        r = add_held_beneath(worker, stx.stx_mnt_id, held);
    /* Binds that are not trapped come into the tree, by propagation, after it was copied. */
    for (uint32_t i = 0; recursive && worker->policy->spared && i < worker->policy->n_grants; i++)
        *held |= eci_policy_grants(worker->policy)[i].flags;
    if (r < 0)
        *held = UINT32_MAX;
    return setns(ns, CLONE_NEWNS) < 0 ? -errno : 0;
}

/* Which of the flags `cleared` have to stay on the mount that `target` lies on. */
int facts_held(struct session *session, const struct target *target, uint64_t cleared,
               bool recursive, uint32_t *held)
{
    int r;

    *held = 0;
    if (!cleared)
        return 0;
    r = facts_held_by(session->worker, target->stx.stx_mnt_id, held);
    /*
     * In no mount namespace, or in another one.  Asked of the mount itself only: a copy of a tree
     * lacks what is unbindable, so one that is attached must not be judged by a copy.
     */
    if (r == -ENOENT)
        return held_on_detached(session, target, recursive, held);
    if (r == 0 && recursive)
        r = add_held_beneath(session->worker, target->stx.stx_mnt_id, held);
    return r;
}

/* Does a path other than the first one's lead to this procfs or sysfs?  A copy of a whole tree. */
static bool is_elsewhere(const struct eci_policy *policy, const struct eci_place *place)
{
    const struct eci_grant *grants = eci_policy_grants(policy);
    char point[PATH_MAX];

    for (uint32_t i = 0; i < policy->n_grants; i++)
        if (eci_grant_is_kernel_fs(&grants[i]) && grants[i].own_ino == place->ino &&
            grants[i].own_major == place->major && grants[i].own_minor == place->minor)
            return facts_mount_point(place->mnt_id, point) == 0 &&
                   strcmp(point, (const char *)policy + grants[i].point_off) != 0;
    return false;
}

/*
 * For a mount that is to go: where it lies and what it hides, if it may be one that the policy
 * cares for.  What was asked and not answered is left unknown, of which the worst is believed.
 */
void facts_covered(const struct worker *worker, const struct target *target,
                   struct eci_place *place)
{
    struct statx above;
    struct statx stx;
    int r;

    if (!place->is_root || target->parent < 0 ||
        !eci_policy_hides(worker->policy, place->major, place->minor, place->ino))
        return;
    place->elsewhere = is_elsewhere(worker->policy, place);
    r = stat_under(target->parent, target->name, &stx);
    if ((r < 0 && r != -EINVAL) || stat_at(target->parent, "", &above) < 0)
        return;
    place->dir_major = above.stx_dev_major;
    place->dir_minor = above.stx_dev_minor;
    place->dir_ino = above.stx_ino;
    snprintf(place->name, sizeof(place->name), "%s", target->name);
    if (r < 0) {
        /* The kernel has locked a mount in this directory or below. */
        (void)entry_ino(target->parent, target->name, &place->ent_ino);
        return;
    }
    place->cov_major = stx.stx_dev_major;
    place->cov_minor = stx.stx_dev_minor;
    place->cov_ino = stx.stx_ino;
    place->cov_known = 1;
}

int facts_parent(uint64_t mnt_id, uint64_t *parent)
{
    struct mount_buffer buffer;
    int r = stat_mount(mnt_id, STATMOUNT_MNT_BASIC, &buffer);

    if (r == 0)
        *parent = buffer.mount.mnt_parent_id;
    return r;
}

/* Where a mount is, from the thread's root. */
int facts_mount_point(uint64_t mnt_id, char out[PATH_MAX])
{
    struct mount_buffer buffer;
    int r = stat_mount(mnt_id, STATMOUNT_MNT_POINT, &buffer);

    if (r < 0)
        return r;
    return copy_text(out, PATH_MAX, buffer.mount.str + buffer.mount.mnt_point);
}

/* The per-mount flags, MOUNT_ATTR_*. */
int facts_attributes(uint64_t mnt_id, uint64_t *attributes)
{
    struct mount_buffer buffer;
    int r = stat_mount(mnt_id, STATMOUNT_MNT_BASIC, &buffer);

    if (r == 0)
        *attributes = buffer.mount.mnt_attr;
    return r;
}

/* One mount that lies on another. */
struct on {
    uint64_t parent;
    uint64_t id;
};

static int by_parent(const void *a, const void *b)
{
    const struct on *one = a;
    const struct on *other = b;

    return (one->parent > other->parent) - (one->parent < other->parent);
}

/* All that lies beneath `mnt_id`, by what each lies on.  Allocated, even where it fails. */
static int take_beneath(uint64_t mnt_id, struct on **found, size_t *n)
{
    struct beneath beneath = {.mnt_id = mnt_id};
    struct on on;
    size_t room = 0;
    int r;

    *found = NULL;
    *n = 0;
    while ((r = facts_next(&beneath, &on.id)) > 0) {
        r = facts_parent(on.id, &on.parent);
        if (r == -ENOENT)
            continue; /* it has gone just now */
        if (r < 0)
            return r;
        if (*n == room) {
            struct on *more = realloc(*found, (room = 2 * room + 64) * sizeof(on));

            if (!more)
                return -ENOMEM;
            *found = more;
        }
        (*found)[(*n)++] = on;
    }
    if (*n)
        qsort(*found, *n, sizeof(on), by_parent);
    return r;
}

/*
 * The last of the mounts that lie on `mnt_id`, or on one that does, all at that very path; it
 * itself where none does.  As many can be stacked as the container likes: what each lies on is
 * asked once.
 */
static int top_at(uint64_t mnt_id, const char *point, uint64_t *top)
{
    char seen[PATH_MAX];
    struct on *all;
    size_t n;
    int r = take_beneath(mnt_id, &all, &n);

    *top = mnt_id;
    for (bool higher = r == 0; higher;) {
        size_t low = 0;

        for (size_t high = n; low < high;) {
            size_t middle = low + (high - low) / 2;

            if (all[middle].parent < *top)
                low = middle + 1;
            else
                high = middle;
        }
        higher = false;
        for (uint64_t parent = *top; !higher && low < n && all[low].parent == parent; low++) {
            int told = all[low].id == parent ? -ENOENT : facts_mount_point(all[low].id, seen);

            /* -ENODATA: out of reach of the thread's root. */
            if (told < 0 && told != -ENOENT && told != -ENODATA)
                r = told;
            higher = told == 0 && strcmp(seen, point) == 0;
            if (higher)
                *top = all[low].id;
        }
    }
    free(all);
    return r;
}

/*
 * For an umount by a path without a name, of what has been mounted on the object, where a directory
 * above is covered and no name leads there: makes `place` that mount.  Nobody gets a descriptor of
 * it, so its storage tells whether the policy cares for it, and where it lies is not known.
 */
int facts_on_top(const struct worker *worker, const struct target *target, struct eci_place *place)
{
    const struct eci_grant *grants = eci_policy_grants(worker->policy);
    char point[PATH_MAX];
    char number[16];
    uint64_t top;
    ssize_t n;
    int r;

    snprintf(number, sizeof(number), "%d", target->fd);
    n = readlinkat(worker->self_fds, number, point, sizeof(point));
    if (n < 0)
        return -errno;
    if (n == 0 || (size_t)n >= sizeof(point))
        return -ENAMETOOLONG;
    point[n] = 0;
    r = top_at(target->stx.stx_mnt_id, point, &top);
    if (r < 0)
        return r == -ENOENT ? 0 : r; /* detached, or in another namespace */
    if (top == target->stx.stx_mnt_id)
        return 0;
    memset(place, 0, offsetof(struct eci_place, name));
    place->mnt_id = top;
    place->is_root = 1;
    r = facts_storage(place);
    for (uint32_t i = 0; r == 0 && i < worker->policy->n_grants; i++) {
        const struct eci_grant *grant = &grants[i];

        if (grant->sb_major == place->sb_major && grant->sb_minor == place->sb_minor &&
            strcmp((const char *)worker->policy + grant->root_off, place->root) == 0) {
            place->major = grant->own_major;
            place->minor = grant->own_minor;
            place->ino = grant->own_ino;
        }
    }
    return r;
}

/* The kind of its file system, as statfs(2) numbers them. */
int facts_magic(uint64_t mnt_id, uint64_t *magic)
{
    struct mount_buffer buffer;
    int r = stat_mount(mnt_id, STATMOUNT_SB_BASIC, &buffer);

    if (r == 0)
        *magic = buffer.mount.sb_magic;
    return r;
}

/*
 * What lies above something hidden, up to the root of its mount, is bound with its mounts or not
 * at all; the kernel says so too, of mounts that it has locked.
 */
static int mark_above(struct eci_policy *policy, int parent)
{
    cleanup_fd int at = fcntl(parent, F_DUPFD_CLOEXEC, 0);
    struct statx first;
    struct statx here;

    if (at < 0)
        return -errno;
    int r = stat_at(at, "", &first);
    if (r < 0)
        return r;
    here = first;
    for (;;) {
        struct statx up;
        int next;

        r = eci_policy_add_inode(policy, here.stx_dev_major, here.stx_dev_minor, here.stx_ino,
                                 ECI_INODE_RECURSE);
        if (r < 0)
            return r;
        next = openat(at, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (next < 0)
            return -errno;
        close(at);
        at = next;
        r = stat_at(at, "", &up);
        if (r < 0)
            return r;
        if (up.stx_mnt_id != first.stx_mnt_id || same_inode(&up, &here))
            return 0;
        here = up;
    }
}

/* Splits "/a/b" and opens "/a" without following a link; the points come from mountinfo. */
static int open_parent(char *point, const char **name)
{
    char *slash = strrchr(point, '/');
    int fd;

    if (!slash || !slash[1])
        return -EINVAL;
    *slash = 0;
    *name = slash + 1;
    fd = open(slash == point ? "/" : point, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/* Can a host-protected path be seen through this mount, or might one when the host mounts more? */
static int look_for_protected(struct worker *worker, const char *point)
{
    struct mount_buffer buffer;
    struct statx stx;
    int r = stat_at(AT_FDCWD, point, &stx);

    if (r == 0)
        r = stat_mount(stx.stx_mnt_id, STATMOUNT_MNT_BASIC, &buffer);
    if (r == -ENOENT || r == -ENOTDIR || r == -EACCES) {
        worker->receives = true; /* buried, or a FUSE file system that tells us nothing */
        return 0;
    }
    if (r < 0)
        return r;
    if (buffer.mount.mnt_master)
        worker->receives = true;
    if (eci_policy_inode(worker->policy, stx.stx_dev_major, stx.stx_dev_minor, stx.stx_ino) &
        (ECI_INODE_PROTECTED | ECI_INODE_ABOVE))
        worker->exposed = true;
    return 0;
}

/*
 * Where unmounts are not trapped but those with MNT_DETACH, the others find /proc and /sys busy,
 * for as long as this process lives.
 */
static int keep_busy(struct worker *worker, const char *point)
{
    int fd;

    if (worker->n_busy == sizeof(worker->busy) / sizeof(worker->busy[0]))
        return -EMFILE;
    fd = open(point, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    worker->busy[worker->n_busy++] = fd;
    return 0;
}

/*
 * Does no rule ask about unmounts, binds and new file systems, as was expected of a container whose
 * filters do not trap these (runtime/spare.py)?
 */
static bool asks_little(const struct worker *worker)
{
    const struct eci_policy *policy = worker->policy;
    const struct eci_grant *grants = eci_policy_grants(policy);

    for (uint32_t i = 0; i < policy->n_grants; i++)
        if (grants[i].hides)
            return false;
    return worker->build < 0 && !policy->proc_masked && !policy->sysfs_masked && !worker->exposed;
}

/*
 * Completes the table before the first call is decided, in the container's mount namespace:
 * the inodes under the mounts that have to stay where they are.  -EACCES: something hides or shows
 * what was not expected.
 */
int facts_prepare(struct worker *worker)
{
    struct eci_policy *policy = worker->policy;
    struct eci_grant *grants = (struct eci_grant *)eci_policy_grants(policy);

    for (uint32_t i = 0; i < policy->n_grants; i++) {
        struct eci_grant *grant = &grants[i];
        const char *point = (const char *)policy + grant->point_off;
        cleanup_fd int parent = -1;
        char copy[PATH_MAX];
        const char *name;
        struct statx stx;
        int r = look_for_protected(worker, point);

        if (r < 0)
            return r;
        if (!grant->hides && !eci_grant_is_kernel_fs(grant))
            continue;
        r = stat_at(AT_FDCWD, point, &stx);
        /* Another initial mount has buried it, and hides the path: that one has to stay. */
        if (r == -ENOENT || r == -ENOTDIR)
            continue;
        if (r < 0)
            return r;
        if (policy->spared && eci_grant_is_kernel_fs(grant) && (r = keep_busy(worker, point)) < 0)
            return r;
        grant->mnt_id = stx.stx_mnt_id;
        grant->own_major = stx.stx_dev_major;
        grant->own_minor = stx.stx_dev_minor;
        grant->own_ino = stx.stx_ino;
        if (snprintf(copy, sizeof(copy), "%s", point) >= (int)sizeof(copy))
            return -ENAMETOOLONG;
        parent = open_parent(copy, &name);
        if (parent < 0)
            return parent;
        r = stat_at(parent, "", &stx);
        if (r < 0)
            return r;
        grant->dir_major = stx.stx_dev_major;
        grant->dir_minor = stx.stx_dev_minor;
        grant->dir_ino = stx.stx_ino;
        r = stat_under(parent, name, &stx);
        if (r < 0 && r != -EINVAL)
            return r;
        /*
         * The kernel has locked a mount in this directory or below, this one or another, and so
         * gives nobody a bare copy.  The name stands for what is beneath, and so does the
         * directory's entry: rename(2) refuses a mount point only where the mount is to be seen.
         */
        grant->by_name = r == -EINVAL;
        if (grant->by_name) {
            r = entry_ino(parent, name, &grant->ent_ino);
            if (r < 0 && r != -EACCES)
                return r;
        } else {
            grant->cov_major = stx.stx_dev_major;
            grant->cov_minor = stx.stx_dev_minor;
            grant->cov_ino = stx.stx_ino;
        }
        /* Under /proc and /sys there is an empty directory of the image. */
        if (eci_grant_is_kernel_fs(grant))
            continue;
        r = mark_above(policy, parent);
        if (r < 0)
            return r;
    }
    return policy->spared && !asks_little(worker) ? -EACCES : 0;
}
