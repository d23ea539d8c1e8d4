/* SPDX-License-Identifier: Apache-2.0 */
/* Requests on open files and directories. */
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>

#include "view.h"

void view_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    int fd = reopen(node_of(ino), fi->flags);

    if (fd < 0)
        return reply(req, fd);
    fi->fh = (uint64_t)fd;
    fi->direct_io = 1;
    if (fuse_reply_open(req, fi) == -ENOENT)
        (void)close(fd);
}

/*
 * Make `name` and open it; without O_EXCL a regular file that is there already will do.  It is
 * always tried as O_EXCL first, so that a fifo put there meanwhile is not opened.
 * Returns the open file; `path` receives an O_PATH fd to the same inode.  Or -errno.
 */
static int create_file(fuse_req_t req, int parent, const char *name, mode_t mode, int flags,
                       int *path)
{
    int wanted = flags & (O_ACCMODE | O_APPEND | O_DSYNC | O_SYNC);
    int file = become_caller(req);

    if (file == 0)
        file = sys(openat(parent, name, wanted | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode));
    become_self();
    if (file >= 0) {
        *path = sys(open(fd_name(file), O_PATH | O_CLOEXEC));
        if (*path >= 0)
            return file;
        (void)close(file);
        return *path;
    }
    if (file == -EEXIST && !(flags & O_EXCL)) {
        cleanup_fd int found = open_child(parent, name);
        struct stat st;

        if (found < 0)
            return found;
        if (fstat(found, &st) < 0)
            return -errno;
        /* ESTALE has the kernel look again: it will see the symlink or the fifo and know what to
         * do. */
        if (!S_ISREG(st.st_mode))
            return -ESTALE;
        file = reopen(&(struct node){.fd = found, .type = S_IFREG}, flags);
        if (file >= 0)
            *path = take_fd(&found);
    }
    return file;
}

void view_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
                 struct fuse_file_info *fi)
{
    struct fuse_entry_param entry;
    int path = -1;
    int file = create_file(req, fd_of(parent), name, mode, fi->flags, &path);
    int result = file < 0 ? file : enter(path, parent, name, &entry);

    if (result < 0) {
        if (file >= 0)
            (void)close(file);
        return reply(req, result);
    }
    fi->fh = (uint64_t)file;
    fi->direct_io = 1;
    if (fuse_reply_create(req, &entry, fi) == -ENOENT) {
        (void)close(file);
        forget(entry.ino, 1);
    }
}

void view_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
    int length = sys(pread((int)fi->fh, view.buffer, size < TRANSFER ? size : TRANSFER, offset));

    (void)ino;
    if (length < 0)
        return reply(req, length);
    (void)fuse_reply_buf(req, view.buffer, (size_t)length);
}

void view_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset,
                struct fuse_file_info *fi)
{
    int length = sys(pwrite((int)fi->fh, data, size, offset));

    (void)ino;
    if (length < 0)
        return reply(req, length);
    (void)fuse_reply_write(req, (size_t)length);
}

void view_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi)
{
    off_t found = lseek((int)fi->fh, offset, whence);

    (void)ino;
    if (found < 0)
        return reply(req, -errno);
    (void)fuse_reply_lseek(req, found);
}

void view_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
                    struct fuse_file_info *fi)
{
    (void)ino;
    reply(req, sys(fallocate((int)fi->fh, mode, offset, length)));
}

/* Also for directories. */
void view_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    (void)ino;
    reply(req, sys(datasync ? fdatasync((int)fi->fh) : fsync((int)fi->fh)));
}

/* Also for directories. */
void view_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    (void)close((int)fi->fh);
    reply(req, 0);
}

/* -- directories -- */

void view_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    /* O_DIRECTORY opens nothing that is not a directory. */
    int fd = sys(open(fd_name(fd_of(ino)), O_RDONLY | O_DIRECTORY | O_CLOEXEC));

    if (fd < 0)
        return reply(req, fd);
    fi->fh = (uint64_t)fd;
    if (fuse_reply_open(req, fi) == -ENOENT)
        (void)close(fd);
}

/* What getdents64(2) fills in. */
struct dirent64_raw {
    uint64_t ino;
    int64_t next; /* offset of the entry that follows */
    uint16_t length;
    uint8_t type;
    char name[];
};

void view_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                  struct fuse_file_info *fi)
{
    static char entries[TRANSFER / 2] __attribute__((aligned(8)));
    size_t room = size < TRANSFER ? size : TRANSFER;
    size_t used = 0;
    long length;

    (void)ino;
    /* An entry that did not fit the last reply is read again, from the offset of its predecessor.
     */
    if (lseek((int)fi->fh, offset, SEEK_SET) < 0)
        return reply(req, -errno);
    length = syscall(SYS_getdents64, (int)fi->fh, entries,
                     room < sizeof(entries) ? room : sizeof(entries));
    if (length < 0)
        return reply(req, -errno);
    for (long at = 0; at < length;) {
        const struct dirent64_raw *raw = (const void *)(entries + at);
        struct stat st = {.st_ino = raw->ino, .st_mode = (mode_t)raw->type << 12};
        size_t needed =
            fuse_add_direntry(req, view.buffer + used, room - used, raw->name, &st, raw->next);

        if (needed > room - used)
            break;
        used += needed;
        at += raw->length;
    }
    (void)fuse_reply_buf(req, view.buffer, used);
}
