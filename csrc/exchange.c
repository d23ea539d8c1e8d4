/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the runtime has mounted, exchanged for the same with locks.
 *
 * At the createRuntime hook the procfs and sysfs of the container become clones of themselves that
 * are covered (kernfs.c).  crun makes clones of bind sources outside of the user namespace, so
 * their flags are not locked: these are exchanged, too, and so are mounts that have read-only ones
 * on them, and read-only cgroups, which crun makes read-only later.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "compat.h"
#include "kernfs.h"

enum { MAX_CHILDREN = 64 };

struct child {
    char name[NAME_MAX + 1];
    int mount; /* the mount itself, O_PATH; or, of a read-only one, a clone of it */
    bool read_only;
};

static void close_children(struct child *children, unsigned int n)
{
    for (unsigned int i = 0; i < n; i++)
        close_fd(&children[i].mount);
}

/*
 * What lies directly on the mount `fs`, with all beneath: cgroups, and binds.  With `sealed`, the
 * cgroups become read-only.
 */
static int take_children(const struct statx *fs, bool sealed, struct child *children,
                         unsigned int *n)
{
    struct mnt_id_req req = {.size = MNT_ID_REQ_SIZE_VER0, .mnt_id = fs->stx_mnt_id};
    char above[PATH_MAX];
    uint64_t ids[256];
    long found;
    int r = facts_mount_point(fs->stx_mnt_id, above);

    if (r < 0)
        return r;
    found = syscall(__NR_listmount, &req, ids, sizeof(ids) / sizeof(ids[0]), 0);
    if (found < 0)
        return -errno;
    if (found == sizeof(ids) / sizeof(ids[0]))
        return -E2BIG;
    for (long i = 0; i < found; i++) {
        struct child *child = &children[*n];
        size_t length = strlen(above);
        char point[PATH_MAX];
        struct statfs kind;
        struct statx stx;
        uint64_t parent;
        uint64_t flags;
        bool seal;

        r = facts_parent(ids[i], &parent);
        if (r < 0)
            return r;
        if (ids[i] == fs->stx_mnt_id || parent != fs->stx_mnt_id)
            continue;
        r = facts_mount_point(ids[i], point);
        if (r == 0)
            r = facts_attributes(ids[i], &flags);
        if (r < 0)
            return r;
        if (*n == MAX_CHILDREN || strncmp(point, above, length) != 0 || point[length] != '/' ||
            strlen(point + length + 1) > NAME_MAX)
            return -E2BIG;
        memcpy(child->name, point + length + 1, strlen(point + length + 1) + 1);
        child->mount = open(point, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        if (child->mount < 0)
            return -errno;
        (*n)++;
        if (stat_at(child->mount, "", &stx) < 0 || stx.stx_mnt_id != ids[i])
            return -ESTALE;
        if (sealed && fstatfs(child->mount, &kind) < 0)
            return -errno;
        seal = sealed && is_cgroup((uint64_t)kind.f_type);
        child->read_only = seal || (flags & MOUNT_ATTR_RDONLY);
        if (child->read_only) {
            int copy = clone_mount(child->mount, "", AT_EMPTY_PATH | AT_RECURSIVE);

            if (copy < 0)
                return copy;
            close(child->mount);
            child->mount = copy;
            r = seal ? set_mount_flags(copy, MOUNT_ATTR_RDONLY, 0) : 0;
            if (r < 0)
                return r;
        }
    }
    return 0;
}

static int attach_children(int fs, const struct child *children, unsigned int n, bool read_only)
{
    for (unsigned int i = 0; i < n; i++) {
        cleanup_fd int place = -1;
        int r;

        if (children[i].read_only != read_only)
            continue;
        place = kernfs_place(fs, children[i].name);
        if (place < 0)
            return place;
        r = attach_mount(children[i].mount, place, 0);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Flags that the runtime may set only later, on the mount that will be gone (crun). */
static uint64_t wanted_flags(const struct worker *worker, enum kernfs kind)
{
    for (const char *record = NULL; (record = next_record(worker, record, 'o'));)
        if (*record == '/' && strcmp(record + 1, kernfs_kinds[kind].point) == 0)
            return MOUNT_ATTR_RDONLY;
    return 0;
}

/*
 * The children that the runtime holds fds of, and may still change, move over as they are.  What is
 * read-only hides what is writable, so a copy of it is locked together with the masks.
 */
static int exchange(struct worker *worker, int old, const struct statfs *fs, enum kernfs kind,
                    bool sealed, struct child *children, unsigned int *n)
{
    const struct slot *slot = &directory_slot;
    cleanup_fd int copy = -1;
    cleanup_fd int tree = -1;
    char name[16];
    uint64_t flags;
    struct statx stx;
    int r = stat_at(old, "", &stx);

    if (r == 0)
        r = facts_attributes(stx.stx_mnt_id, &flags);
    if (r == 0)
        r = take_children(&stx, sealed, children, n);
    if (r < 0)
        return r;
    copy = clone_mount(old, "", AT_EMPTY_PATH);
    if (copy < 0)
        return copy;

    r = kernfs_go(worker->build);
    if (!S_ISDIR(stx.stx_mode))
        slot = &file_slot;
    if (r == 0 &&
        syscall(SYS_move_mount, copy, "", AT_FDCWD, slot->build, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        r = -errno;
    if (r == 0 && kind != KERNFS_NONE) {
        worker->kernfs_flags[kind] = (flags & MOUNT_ATTR_RDONLY) | wanted_flags(worker, kind);
        r = set_mount_flags(copy, worker->kernfs_flags[kind], 0);
    }
    /* Of version 2 it is one mount, of version 1 a tmpfs with one for each hierarchy. */
    if (r == 0 && sealed && is_cgroup((uint64_t)fs->f_type))
        r = set_mount_flags(copy, MOUNT_ATTR_RDONLY, 0);
    if (r == 0)
        r = attach_children(copy, children, *n, true);
    if (r == 0 && kind != KERNFS_NONE)
        r = kernfs_cover(worker, kind);
    tree = r < 0 ? r : kernfs_lock(worker, slot);
    if (tree < 0)
        return tree;

    /* Beneath the old one, so that umount2(2), which takes what is on top, takes that. */
    r = kernfs_go(worker->mntns);
    if (r == 0)
        r = attach_mount(tree, old, MOVE_MOUNT_BENEATH);
    if (r == 0)
        r = attach_children(tree, children, *n, false);
    if (r < 0)
        return r;
    snprintf(name, sizeof(name), "%d", old);
    if (fchdir(worker->self_fds) < 0 || umount2(name, MNT_DETACH) < 0)
        return -errno;
    return 0;
}

/* Exchanges the mount at `path` in the container's root, which must be the root of a mount. */
static int exchange_at(struct worker *worker, const char *rootfs, const char *path,
                       enum kernfs kind, bool sealed)
{
    struct open_how how = {
        .flags = O_PATH | O_CLOEXEC,
        .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    };
    struct child children[MAX_CHILDREN];
    cleanup_fd int root = -1;
    cleanup_fd int old = -1;
    unsigned int n = 0;
    struct statfs fs;
    struct statx stx;
    int r = kernfs_go(worker->mntns);

    if (r < 0)
        return r;
    root = open(rootfs, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return -errno;
    old = (int)syscall(SYS_openat2, root, path, &how, sizeof(how));
    if (old < 0 || fstatfs(old, &fs) < 0)
        return -errno;
    r = stat_at(old, "", &stx);
    if (r < 0)
        return r;
    if (!(stx.stx_attributes & STATX_ATTR_MOUNT_ROOT) ||
        (kind != KERNFS_NONE && fs.f_type != kernfs_kinds[kind].magic))
        return -ENODEV;
    r = exchange(worker, old, &fs, kind, sealed, children, &n);
    close_children(children, n);
    return r;
}

/* Writes a sysctl, "net/ipv4/ip_forward=1", with the container's rights and in its namespaces. */
static int write_sysctl(const char *record, char *failed, size_t size)
{
    const char *value = strchr(record, '=');
    char path[PATH_MAX];
    ssize_t n = -1;

    if (!value || snprintf(path, sizeof(path), "/proc/sys/%.*s", (int)(value - record), record) >=
                      (int)sizeof(path))
        return -EINVAL;
    cleanup_fd int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0)
        n = write(fd, value + 1, strlen(value + 1));
    if (n >= 0)
        return 0;
    n = -errno;
    snprintf(failed, size, "sysctl %s", record);
    return (int)n;
}

/*
 * What has to be done when the runtime has mounted everything and has not yet gone into the
 * container's root: sysctls, as they may become read-only, and the first procfs and sysfs.  On
 * failure `failed` says what it was about.
 */
int exchange_all(struct worker *worker, char *failed, size_t size)
{
    const char *rootfs = next_record(worker, NULL, 'R');
    int r = 0;

    if (worker->build < 0)
        return 0;
    snprintf(failed, size, "its sysctls");
    r = kernfs_go(worker->build);
    for (const char *record = NULL; r == 0 && (record = next_record(worker, record, 's'));)
        r = write_sysctl(record, failed, size);
    for (enum kernfs kind = KERNFS_PROC; r == 0 && rootfs && kind < KERNFS_NONE; kind++) {
        if (!kernfs_covers(worker, kind))
            continue;
        snprintf(failed, size, "the masks of /%s", kernfs_kinds[kind].point);
        r = exchange_at(worker, rootfs, kernfs_kinds[kind].point, kind, false);
    }
    for (const char *kind = "bc"; *kind; kind++) {
        const char *path = NULL;

        while (r == 0 && rootfs && (path = next_record(worker, path, *kind))) {
            snprintf(failed, size, "the flags of %s", path);
            r = exchange_at(worker, rootfs, path, KERNFS_NONE, *kind == 'c');
        }
    }
    return r;
}
