/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mount_setattr(2) of a tree that grows meanwhile.
 *
 * Where binds are not trapped (runtime/spare.py) one can bring a mount with flags to hold into a
 * tree between the look at it and the change, as pivot_root(2) can.  So each mount is changed by
 * itself, on the very descriptor that it was judged by: what a mount shows never changes.
 */
#include <errno.h>
#include <fcntl.h>

#include "kernfs.h"

/* Changes a mount of this mount namespace, unless that clears a flag that it has to keep. */
static int change(const struct worker *worker, int fd, uint64_t mnt_id, const void *attr,
                  size_t size, uint64_t cleared)
{
    uint32_t held = 0;
    int r = facts_held_by(worker, mnt_id, &held);

    if (r < 0)
        return r;
    return held & cleared ? -EPERM : perform_setattr(fd, AT_EMPTY_PATH, attr, size);
}

/* The mount `mnt_id` as an O_PATH descriptor; -ENOENT where no path leads to it. */
static int open_mount(uint64_t mnt_id)
{
    char point[PATH_MAX];
    cleanup_fd int fd = -1;
    struct statx stx;
    int r = facts_mount_point(mnt_id, point);

    if (r < 0)
        return r;
    fd = open(point, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    r = stat_object(fd, "", &stx);
    if (r < 0)
        return r;
    return stx.stx_mnt_id == mnt_id ? take_fd(&fd) : -ENOENT;
}

/*
 * The tree on whose root `target` lies, an attached one.  `cleared`: ECI_RDONLY ... of what `attr`
 * clears.  Mounts that come or go meanwhile are left as they are, and so are those that others
 * cover, to which no path leads.
 */
int tree_setattr(struct session *session, const struct target *target, const void *attr,
                 size_t size, uint64_t cleared)
{
    const struct worker *worker = session->worker;
    struct beneath beneath = {.mnt_id = target->stx.stx_mnt_id};
    /* All or nothing: what the kernel would say of the whole tree, it says of a copy. */
    cleanup_fd int copy = clone_mount(target->fd, "", AT_EMPTY_PATH | AT_RECURSIVE);
    uint64_t id;
    int r = 0;

    /* -EINVAL: something in it cannot be copied. */
    if (copy < 0 && copy != -EINVAL)
        return copy;
    if (copy >= 0)
        r = perform_setattr(copy, AT_EMPTY_PATH | AT_RECURSIVE, attr, size);
    if (r == 0)
        r = caller_take_root(session, &session->caller);
    if (r < 0)
        return r;
    /* As the kernel, which asks nobody for the way to them. */
    caller_resume(session, &session->caller);
    r = change(worker, target->fd, beneath.mnt_id, attr, size, cleared);
    while (r == 0 && (r = facts_next(&beneath, &id)) > 0) {
        cleanup_fd int fd = open_mount(id);

        r = fd < 0 ? fd : change(worker, fd, id, attr, size, cleared);
        if (r == -ENOENT || r == -ENOTDIR)
            r = 0;
    }
    return r;
}
