/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a file descriptor stands for: the facts that a decision rests on.
 *
 * Asked of the kernel for one mount at a time (statx(2), statmount(2)), so that the price does
 * not depend on how many mounts there are.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#include "compat.h"
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

static int stat_fd(int fd, const char *name, struct statx *stx)
{
    int flags = *name ? AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT : AT_EMPTY_PATH;

    if (statx(fd, name, flags, STATX_TYPE | STATX_INO | STATX_MNT_ID_UNIQUE, stx) < 0)
        return -errno;
    return (stx->stx_mask & STATX_MNT_ID_UNIQUE) ? 0 : -ENOSYS;
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
    if (stat_fd(dir, slash + 1, &seen) < 0 || !same_inode(&seen, file)) {
        close(dir);
        return -ENOENT;
    }
    return dir;
}

/*
 * ECI_INODE_* of all ancestors inside the same mount.  By identity, not by name: a rename
 * changes nothing.  Whatever cannot be found out counts as protected.
 */
static uint32_t hits_above(const struct worker *worker, int fd, const struct statx *object)
{
    struct statx here = *object;
    cleanup_fd int at = -1;
    uint32_t hits = 0;

    if (S_ISDIR(object->stx_mode)) {
        at = openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
    } else if (object->stx_attributes & STATX_ATTR_MOUNT_ROOT) {
        return 0; /* a file bound alone: nothing above it can be reached */
    } else {
        at = open_directory_of(worker, fd, object);
    }
    for (unsigned int depth = 0; depth < MAX_DEPTH; depth++) {
        struct statx up;
        int next;

        if (at < 0 || stat_fd(at, "", &up) < 0)
            return hits | ECI_INODE_PROTECTED;
        if (up.stx_mnt_id != object->stx_mnt_id || same_inode(&up, &here))
            return hits;
        hits |= eci_policy_inode(worker->policy, up.stx_dev_major, up.stx_dev_minor, up.stx_ino);
        here = up;
        next = openat(at, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
        close(at);
        at = next;
    }
    return hits | ECI_INODE_PROTECTED;
}

/* The object itself, and what the policy knows of it. */
int facts_place(const struct worker *worker, int fd, struct eci_place *place)
{
    const struct eci_policy *policy = worker->policy;
    struct statx stx;
    uint32_t known;
    int r = stat_fd(fd, "", &stx);

    if (r < 0)
        return r;
    memset(place, 0, offsetof(struct eci_place, root));
    place->root[0] = 0;
    place->mnt_id = stx.stx_mnt_id;
    place->ino = stx.stx_ino;
    place->major = stx.stx_dev_major;
    place->minor = stx.stx_dev_minor;
    place->is_root = (stx.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;

    known = eci_policy_knows_device(policy, place->major, place->minor);
    if (!known)
        return 0;
    place->self_hits = eci_policy_inode(policy, place->major, place->minor, place->ino);
    if (known & ECI_INODE_PROTECTED)
        place->up_hits = hits_above(worker, fd, &stx);
    return 0;
}

/* The inode that `name` in `parent` has when nothing is mounted on it. */
static int stat_under(int parent, const char *name, struct statx *stx)
{
    cleanup_fd int bare = (int)syscall(SYS_open_tree, parent, "",
                                       AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

    return bare < 0 ? -errno : stat_fd(bare, name, stx);
}

/* For calls on a mount: its storage and, if the policy cares, what it hides. */
int facts_mount(const struct worker *worker, const struct target *target, struct eci_place *place)
{
    struct mount_buffer buffer;
    struct statx stx;
    int r = stat_mount(place->mnt_id, STATMOUNT_SB_BASIC | STATMOUNT_MNT_ROOT, &buffer);

    if (r < 0)
        return r;
    place->sb_major = buffer.mount.sb_dev_major;
    place->sb_minor = buffer.mount.sb_dev_minor;
    if (snprintf(place->root, sizeof(place->root), "%s",
                 buffer.mount.str + buffer.mount.mnt_root) >= (int)sizeof(place->root))
        return -ENAMETOOLONG;
    if (place->is_root && target->parent >= 0 &&
        eci_policy_hides(worker->policy, place->sb_major, place->sb_minor, place->root) &&
        stat_under(target->parent, target->name, &stx) == 0) {
        place->cov_major = stx.stx_dev_major;
        place->cov_minor = stx.stx_dev_minor;
        place->cov_ino = stx.stx_ino;
        place->cov_known = 1;
    }
    return 0;
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
    r = snprintf(out, PATH_MAX, "%s", buffer.mount.str + buffer.mount.mnt_point);
    return r >= PATH_MAX ? -ENAMETOOLONG : 0;
}

/* Everything above a mask, up to the root of its procfs or sysfs, is bound recursively or not. */
static int mark_above(struct eci_policy *policy, int parent)
{
    cleanup_fd int at = dup(parent);
    struct statfs fs;
    struct statx first;
    struct statx here;

    if (at < 0 || fstatfs(at, &fs) < 0)
        return -errno;
    /* Elsewhere a directory can be renamed away from above its mounts; see ARCHITECTURE.md. */
    if (fs.f_type != PROC_SUPER_MAGIC && fs.f_type != SYSFS_MAGIC)
        return 0;
    int r = stat_fd(at, "", &first);
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
        r = stat_fd(at, "", &up);
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

/*
 * Completes the table before the first call is decided, in the container's mount namespace:
 * the inodes under the mounts that hide something, and the ids of /proc and /sys.
 */
int facts_prepare(const struct worker *worker)
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
        int r;

        if (grant->kind == ECI_KIND_PROC || grant->kind == ECI_KIND_SYSFS) {
            r = stat_fd(AT_FDCWD, point, &stx);
            if (r < 0)
                return r;
            grant->mnt_id = stx.stx_mnt_id;
        }
        if (!grant->hides)
            continue;
        if (snprintf(copy, sizeof(copy), "%s", point) >= (int)sizeof(copy))
            return -ENAMETOOLONG;
        parent = open_parent(copy, &name);
        if (parent < 0)
            return parent;
        r = stat_under(parent, name, &stx);
        if (r < 0)
            return r;
        grant->cov_major = stx.stx_dev_major;
        grant->cov_minor = stx.stx_dev_minor;
        grant->cov_ino = stx.stx_ino;
        r = mark_above(policy, parent);
        if (r < 0)
            return r;
    }
    return 0;
}
