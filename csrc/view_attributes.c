/* SPDX-License-Identifier: Apache-2.0 */
/* Requests on what a node stands for: its attributes, its size, the extended ones. */
#include <fcntl.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>

#include "view.h"

void view_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct stat st;

    (void)fi;
    if (fstat(fd_of(ino), &st) < 0)
        return reply(req, -errno);
    (void)fuse_reply_attr(req, &st, 0);
}

/*
 * Open a node again.  `flags` are taken from a list, since they come from the caller.  Nothing here
 * may block: the type is checked, and O_NONBLOCK answers EAGAIN where the container holds a lease.
 */
int reopen(const struct node *node, int flags)
{
    int wanted = flags & (O_ACCMODE | O_APPEND | O_TRUNC | O_DSYNC | O_SYNC);

    if (node->type != S_IFREG)
        return node->type == S_IFDIR ? -EISDIR : -ENXIO;
    return sys(open(fd_name(node->fd), wanted | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
}

static int set_size(const struct node *node, off_t size, const struct fuse_file_info *fi)
{
    cleanup_fd int own = -1;

    if (fi)
        return sys(ftruncate((int)fi->fh, size));
    own = reopen(node, O_WRONLY);
    return own < 0 ? own : sys(ftruncate(own, size));
}

static int set_attributes(const struct node *node, const struct stat *attr, int set,
                          const struct fuse_file_info *fi)
{
    int result = 0;

    /* The owner first: giving a file away clears its set-user-ID bit, and the mode may bring it
     * back. */
    if (set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID))
        result = sys(fchownat(node->fd, "", set & FUSE_SET_ATTR_UID ? attr->st_uid : (uid_t)-1,
                              set & FUSE_SET_ATTR_GID ? attr->st_gid : (gid_t)-1, AT_EMPTY_PATH));
    if (result == 0 && (set & FUSE_SET_ATTR_SIZE))
        result = set_size(node, attr->st_size, fi);
    if (result == 0 && (set & FUSE_SET_ATTR_MODE))
        result = sys(chmod(fd_name(node->fd), attr->st_mode & 07777));
    if (result == 0 && (set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME))) {
        struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_OMIT}};

        if (set & FUSE_SET_ATTR_ATIME)
            times[0] = attr->st_atim;
        if (set & FUSE_SET_ATTR_ATIME_NOW)
            times[0].tv_nsec = UTIME_NOW;
        if (set & FUSE_SET_ATTR_MTIME)
            times[1] = attr->st_mtim;
        if (set & FUSE_SET_ATTR_MTIME_NOW)
            times[1].tv_nsec = UTIME_NOW;
        result = sys(utimensat(node->fd, "", times, AT_EMPTY_PATH));
    }
    return result;
}

void view_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int set,
                  struct fuse_file_info *fi)
{
    int result = set_attributes(node_of(ino), attr, set, fi);

    if (result < 0)
        return reply(req, result);
    view_getattr(req, ino, fi);
}

void view_statfs(fuse_req_t req, fuse_ino_t ino)
{
    struct statvfs st;

    if (fstatvfs(fd_of(ino), &st) < 0)
        return reply(req, -errno);
    (void)fuse_reply_statfs(req, &st);
}

/* Extended attributes go by the fd's name, since O_PATH refuses f*xattr(); the link is not followed
 * further. */

void view_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
                   int flags)
{
    reply(req, sys(setxattr(fd_name(fd_of(ino)), name, value, size, flags)));
}

void view_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
    reply(req, sys(removexattr(fd_name(fd_of(ino)), name)));
}

/* `length` bytes are in the buffer, or would be: a caller that gave no size asks for the length. */
static void reply_xattr(fuse_req_t req, int length, size_t size)
{
    if (length < 0)
        reply(req, length);
    else if (size == 0)
        (void)fuse_reply_xattr(req, (size_t)length);
    else if ((size_t)length > size)
        reply(req, -ERANGE);
    else
        (void)fuse_reply_buf(req, view.buffer, (size_t)length);
}

void view_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    reply_xattr(req, sys(getxattr(fd_name(fd_of(ino)), name, view.buffer, TRANSFER)), size);
}

void view_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    reply_xattr(req, sys(listxattr(fd_name(fd_of(ino)), view.buffer, TRANSFER)), size);
}
