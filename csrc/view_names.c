/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that look up, make, rename and remove names. */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/fsuid.h>

#include "view.h"

/* Look `name` up and reply with the entry, or with `made` if what should have made it failed. */
static void reply_entry(fuse_req_t req, fuse_ino_t parent, const char *name, int made)
{
    struct fuse_entry_param entry;
    int fd = made < 0 ? made : open_child(fd_of(parent), name);
    int result = fd < 0 ? fd : enter(fd, parent, name, &entry);

    if (result < 0)
        reply(req, result);
    else if (fuse_reply_entry(req, &entry) == -ENOENT)
        forget(entry.ino, 1); /* the request was interrupted: the kernel never saw the entry */
}

/*
 * New files belong to the caller.  Only the ids are taken over: what the caller may do was decided
 * by the kernel (default_permissions).  Returns 0 or -EOVERFLOW; become_self() undoes it.
 */
int become_caller(fuse_req_t req)
{
    const struct fuse_ctx *ctx = fuse_req_ctx(req);

    if (ctx->uid >= view.size || ctx->gid >= view.size)
        return -EOVERFLOW;
    (void)setfsgid(ctx->gid);
    (void)setfsuid(ctx->uid);
    return 0;
}

void become_self(void)
{
    int saved = errno;

    (void)setfsuid(0);
    (void)setfsgid(0);
    errno = saved;
}

void view_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    reply_entry(req, parent, name, 0);
}

void view_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
    forget(ino, count);
    fuse_reply_none(req);
}

void view_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    for (size_t i = 0; i < count; i++)
        forget(forgets[i].ino, forgets[i].nlookup);
    fuse_reply_none(req);
}

void view_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
    int result = become_caller(req);

    if (result == 0)
        result = sys(mknodat(fd_of(parent), name, mode, rdev));
    become_self();
    reply_entry(req, parent, name, result);
}

void view_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    int result = become_caller(req);

    if (result == 0)
        result = sys(mkdirat(fd_of(parent), name, mode));
    become_self();
    reply_entry(req, parent, name, result);
}

void view_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
    int result = become_caller(req);

    if (result == 0)
        result = sys(symlinkat(target, fd_of(parent), name));
    become_self();
    reply_entry(req, parent, name, result);
}

void view_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
    int result = sys(linkat(AT_FDCWD, fd_name(fd_of(ino)), fd_of(parent), name, AT_SYMLINK_FOLLOW));

    reply_entry(req, parent, name, result);
}

void view_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    reply(req, sys(unlinkat(fd_of(parent), name, 0)));
}

void view_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    reply(req, sys(unlinkat(fd_of(parent), name, AT_REMOVEDIR)));
}

void view_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
                 const char *newname, unsigned int flags)
{
    reply(req, sys(renameat2(fd_of(parent), name, fd_of(newparent), newname, flags)));
}

void view_readlink(fuse_req_t req, fuse_ino_t ino)
{
    int length = sys(readlinkat(fd_of(ino), "", view.buffer, PATH_MAX));

    if (length < 0)
        return reply(req, length);
    view.buffer[length] = '\0';
    (void)fuse_reply_readlink(req, view.buffer);
}
