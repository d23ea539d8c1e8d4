/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of eci-view share: view.c says what it is.
 *
 *     view.c             the mount and the process that keeps it
 *     view_server.c      the process that serves, and what it gives up
 *     view_nodes.c       the names that the kernel knows
 *     view_names.c       requests that look up, make, rename and remove names
 *     view_attributes.c  requests on what a node stands for, without opening it
 *     view_files.c       requests on open files and directories
 */
#ifndef ECI_VIEW_H
#define ECI_VIEW_H

#define FUSE_USE_VERSION 34
#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    BUCKETS = 1024,       /* of the node table */
    TRANSFER = 128 << 10, /* bytes in one read, write or readdir; at least XATTR_SIZE_MAX */
    NODES_HIGH = 4096,    /* nodes at which the kernel is asked to drop names */
};

/* What the server tells the keeper of the mount, in a page that both share. */
struct shared {
    atomic_ulong nodes; /* nodes that exist now, the root not counted */
    atomic_ulong made;  /* nodes ever made */
};

/* A name that the kernel knows.  Its address is the nodeid of the FUSE protocol. */
struct node {
    struct node *next; /* in the bucket */
    fuse_ino_t parent; /* a part of the identity; never dereferenced, may be gone */
    dev_t dev;
    ino_t ino;
    uint64_t lookups; /* the node dies when the kernel has forgotten so many */
    uint32_t bucket;
    mode_t type; /* S_IFMT bits */
    int fd;      /* O_PATH, owned */
    char name[];
};

/* State of the server, which has one thread. */
struct view {
    struct node root;
    struct node *table[BUCKETS];
    uint32_t size; /* of the id range */
    struct shared *shared;
    int keeper; /* socket; one byte wakes the keeper of the mount */
    unsigned long waked_at;
    char buffer[TRANSFER];
};
extern struct view view;

static inline void close_fd(int *fd)
{
    int saved = errno;

    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
    errno = saved;
}
#define cleanup_fd __attribute__((cleanup(close_fd)))

/* Hand over what a cleanup_fd variable owns. */
static inline int take_fd(int *fd)
{
    int taken = *fd;

    *fd = -1;
    return taken;
}

/* The result of a libc call as >= 0 or -errno. */
static inline int sys(long result)
{
    return result < 0 ? -errno : (int)result;
}

static inline void reply(fuse_req_t req, int result)
{
    (void)fuse_reply_err(req, result < 0 ? -result : 0);
}

/* view_server.c */
int view_serve(int device, int root, int keeper);

/* view_nodes.c */
struct node *node_of(fuse_ino_t ino);
int fd_of(fuse_ino_t ino);
const char *fd_name(int fd);
int open_child(int parent, const char *name);
int enter(int fd_owned, fuse_ino_t parent, const char *name, struct fuse_entry_param *entry);
void forget(fuse_ino_t ino, uint64_t count);

/* view_names.c: requests, as struct fuse_lowlevel_ops has them; and whose files are made. */
int become_caller(fuse_req_t req);
void become_self(void);
void view_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void view_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count);
void view_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void view_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void view_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void view_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void view_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name);
void view_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void view_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void view_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
                 const char *newname, unsigned int flags);
void view_readlink(fuse_req_t req, fuse_ino_t ino);

/* view_attributes.c: likewise; and the way to an open file. */
int reopen(const struct node *node, int flags);
void view_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void view_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int set,
                  struct fuse_file_info *fi);
void view_statfs(fuse_req_t req, fuse_ino_t ino);
void view_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
                   int flags);
void view_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);
void view_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void view_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);

/* view_files.c: likewise; fsync and release serve directories as well. */
void view_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void view_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
                 struct fuse_file_info *fi);
void view_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
               struct fuse_file_info *fi);
void view_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset,
                struct fuse_file_info *fi);
void view_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence,
                struct fuse_file_info *fi);
void view_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
                    struct fuse_file_info *fi);
void view_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void view_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void view_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void view_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                  struct fuse_file_info *fi);

#endif
