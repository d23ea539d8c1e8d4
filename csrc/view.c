/*
 * eci-view - a view of a container's root file system with the container's own ids.
 *
 * The root of a container lives in a superblock whose files belong to the ids BASE … BASE+SIZE-1.
 * The engine, which copies in and out of it and exports it, must see 0 … SIZE-1.  This program
 * mounts a pass-through FUSE file system over the directory that the engine looks at.
 *
 * Who translates.  Not this file: the kernel does.  The process that serves requests lives in a
 * user namespace that maps 0 → BASE, so fstat(), fchownat(), POSIX ACLs and the root id in
 * security.capability come and go translated; an id outside the range reads as the overflow id
 * (65534) and cannot be given (EINVAL).
 *
 * What that buys.  The server meets the bytes of an untrusted container, and it can do to the
 * machine no more than that container's root can: it has no capability outside its namespace, the
 * uid of nobody, no path of the host (its root directory is empty), and one directory fd.  A
 * device node cannot be made through the view, because the container's root could not make it
 * either (EPERM).
 *
 * Two processes.  The keeper of the mount (the one that was started) stays root and does four
 * things: mount, tell that the mount stands, have the kernel drop what it caches, and unmount.
 * The server is its child.  The mount becomes visible only after the server runs, and it goes
 * when the server goes.  Whoever unmounts ends both.
 *
 * Names are used once.  A node holds an O_PATH fd; what a name leads to is looked up below its
 * parent's fd, one component, no symlink followed, no mount crossed.  To reopen a node, the name
 * of its fd in /proc/self/fd is used (the working directory, so "7" is fd 7).  A container that
 * renames and swaps at the same time can make a request fail or reach another file of its own,
 * never one outside.  Only regular files and directories are ever opened; a fifo or a device is
 * the kernel's business, and the mount is nodev.
 *
 * Nothing is cached.  The container writes behind our back: all timeouts are zero and files are
 * read and written with direct I/O.
 *
 * Nodes are not shared between hard links.  An overlay without `index` gives two inodes that carry
 * one number for two links in a lower layer, and a write to one must not copy up the other.
 *
 * The kernel holds a node as long as it caches the name, and a node pins a file which the container
 * may have removed.  So the keeper remounts (which drops unused names) when there are too many
 * nodes, and when the view has been idle for a second.
 */
#define FUSE_USE_VERSION 34
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <getopt.h>
#include <grp.h>
#include <libgen.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <linux/securebits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

enum {
    BUCKETS = 1024,       /* of the node table */
    TRANSFER = 128 << 10, /* bytes in one read, write or readdir; at least XATTR_SIZE_MAX */
    NODES_HIGH = 4096,    /* nodes at which the kernel is asked to drop names */
    IDLE_MS = 1000,       /* without a new node for so long, the view counts as idle */
    END_MS = 3000,        /* given to the server to end after the unmount */
    NOBODY = 65534,
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
static struct {
    struct node root;
    struct node *table[BUCKETS];
    uint32_t size; /* of the id range */
    struct shared *shared;
    int keeper; /* socket; one byte wakes the keeper of the mount */
    unsigned long waked_at;
    char buffer[TRANSFER];
} view;

/* ---- small things ---- */

static void close_fd(int *fd)
{
    int saved = errno;

    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
    errno = saved;
}
#define cleanup_fd __attribute__((cleanup(close_fd)))

/* Hand over what a cleanup_fd variable owns. */
static int take_fd(int *fd)
{
    int taken = *fd;

    *fd = -1;
    return taken;
}

/* The result of a libc call as >= 0 or -errno. */
static int sys(long result)
{
    return result < 0 ? -errno : (int)result;
}

static void reply(fuse_req_t req, int result)
{
    (void)fuse_reply_err(req, result < 0 ? -result : 0);
}

/* The name of `fd` in the working directory of the server, /proc/self/fd; valid until the next
 * call. */
static const char *fd_name(int fd)
{
    static char name[16];

    (void)snprintf(name, sizeof(name), "%d", fd);
    return name;
}

/* ---- nodes ---- */

static struct node *node_of(fuse_ino_t ino)
{
    return ino == FUSE_ROOT_ID ? &view.root : (struct node *)(uintptr_t)ino;
}

static int fd_of(fuse_ino_t ino)
{
    return node_of(ino)->fd;
}

static uint32_t bucket_of(fuse_ino_t parent, const char *name, ino_t ino)
{
    uint64_t hash = 0xcbf29ce484222325u ^ parent ^ (ino << 17);

    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 0x100000001b3u;
    return (uint32_t)(hash >> 32) % BUCKETS;
}

/* One component below `parent`, O_PATH: no symlink is followed, no mount crossed (EXDEV). */
static int open_child(int parent, const char *name)
{
    struct open_how how = {
        .flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
        .resolve = RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH,
    };

    if (!*name || strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, ".."))
        return -EINVAL;
    /* NO_SYMLINKS refuses a trailing symlink only if it would be followed: O_PATH|O_NOFOLLOW is
     * not. */
    return sys(syscall(SYS_openat2, parent, name, &how, sizeof(how)));
}

/*
 * Count one lookup of `name` in `parent`, which leads to `fd` (consumed), and fill `entry`.
 * Returns 0 or -errno; on error nothing is counted.
 */
static int enter(int fd_owned, fuse_ino_t parent, const char *name, struct fuse_entry_param *entry)
{
    cleanup_fd int fd = fd_owned;
    struct node *node;
    uint32_t bucket;
    unsigned long made;

    *entry = (struct fuse_entry_param){0}; /* both timeouts are zero */
    if (fstat(fd, &entry->attr) < 0)
        return -errno;
    bucket = bucket_of(parent, name, entry->attr.st_ino);
    for (node = view.table[bucket]; node; node = node->next) {
        if (node->parent == parent && node->ino == entry->attr.st_ino &&
            node->dev == entry->attr.st_dev && node->type == (entry->attr.st_mode & S_IFMT) &&
            !strcmp(node->name, name)) {
            /* The fresh fd is what the name means now; the old one may be an unlinked twin. */
            int old = node->fd;

            node->fd = take_fd(&fd);
            (void)close(old);
            node->lookups++;
            entry->ino = (uintptr_t)node;
            return 0;
        }
    }
    node = malloc(sizeof(*node) + strlen(name) + 1);
    if (!node)
        return -ENOMEM;
    *node = (struct node){
        .next = view.table[bucket],
        .parent = parent,
        .dev = entry->attr.st_dev,
        .ino = entry->attr.st_ino,
        .lookups = 1,
        .bucket = bucket,
        .type = entry->attr.st_mode & S_IFMT,
        .fd = take_fd(&fd),
    };
    memcpy(node->name, name, strlen(name) + 1);
    view.table[bucket] = node;
    entry->ino = (uintptr_t)node;

    made = atomic_fetch_add(&view.shared->made, 1) + 1;
    if (atomic_fetch_add(&view.shared->nodes, 1) == 0 ||
        (atomic_load(&view.shared->nodes) >= NODES_HIGH &&
         made - view.waked_at >= NODES_HIGH / 2)) {
        view.waked_at = made;
        /* A full socket means that it is awake. */
        (void)send(view.keeper, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    return 0;
}

static void forget(fuse_ino_t ino, uint64_t count)
{
    struct node *node = node_of(ino);
    struct node **link;

    if (node == &view.root)
        return;
    node->lookups -= count < node->lookups ? count : node->lookups;
    if (node->lookups)
        return;
    for (link = &view.table[node->bucket]; *link != node; link = &(*link)->next)
        continue;
    *link = node->next;
    (void)close(node->fd);
    free(node);
    atomic_fetch_sub(&view.shared->nodes, 1);
}

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
static int become_caller(fuse_req_t req)
{
    const struct fuse_ctx *ctx = fuse_req_ctx(req);

    if (ctx->uid >= view.size || ctx->gid >= view.size)
        return -EOVERFLOW;
    (void)setfsgid(ctx->gid);
    (void)setfsuid(ctx->uid);
    return 0;
}

static void become_self(void)
{
    int saved = errno;

    (void)setfsuid(0);
    (void)setfsgid(0);
    errno = saved;
}

/* ---- names ---- */

static void view_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    reply_entry(req, parent, name, 0);
}

static void view_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
    forget(ino, count);
    fuse_reply_none(req);
}

static void view_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    for (size_t i = 0; i < count; i++)
        forget(forgets[i].ino, forgets[i].nlookup);
    fuse_reply_none(req);
}

static void view_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
    int result = become_caller(req);

    if (result == 0)
        result = sys(mknodat(fd_of(parent), name, mode, rdev));
    become_self();
    reply_entry(req, parent, name, result);
}

static void view_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    int result = become_caller(req);

    if (result == 0)
        result = sys(mkdirat(fd_of(parent), name, mode));
    become_self();
    reply_entry(req, parent, name, result);
}

static void view_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
    int result = become_caller(req);

    if (result == 0)
        result = sys(symlinkat(target, fd_of(parent), name));
    become_self();
    reply_entry(req, parent, name, result);
}

static void view_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
    int result = sys(linkat(AT_FDCWD, fd_name(fd_of(ino)), fd_of(parent), name, AT_SYMLINK_FOLLOW));

    reply_entry(req, parent, name, result);
}

static void view_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    reply(req, sys(unlinkat(fd_of(parent), name, 0)));
}

static void view_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    reply(req, sys(unlinkat(fd_of(parent), name, AT_REMOVEDIR)));
}

static void view_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
                        const char *newname, unsigned int flags)
{
    reply(req, sys(renameat2(fd_of(parent), name, fd_of(newparent), newname, flags)));
}

static void view_readlink(fuse_req_t req, fuse_ino_t ino)
{
    int length = sys(readlinkat(fd_of(ino), "", view.buffer, PATH_MAX));

    if (length < 0)
        return reply(req, length);
    view.buffer[length] = '\0';
    (void)fuse_reply_readlink(req, view.buffer);
}

/* ---- attributes ---- */

static void view_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
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
static int reopen(const struct node *node, int flags)
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

static void view_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int set,
                         struct fuse_file_info *fi)
{
    int result = set_attributes(node_of(ino), attr, set, fi);

    if (result < 0)
        return reply(req, result);
    view_getattr(req, ino, fi);
}

static void view_statfs(fuse_req_t req, fuse_ino_t ino)
{
    struct statvfs st;

    if (fstatvfs(fd_of(ino), &st) < 0)
        return reply(req, -errno);
    (void)fuse_reply_statfs(req, &st);
}

/* Extended attributes go by the fd's name, since O_PATH refuses f*xattr(); the link is not followed
 * further. */

static void view_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
                          size_t size, int flags)
{
    reply(req, sys(setxattr(fd_name(fd_of(ino)), name, value, size, flags)));
}

static void view_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
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

static void view_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    reply_xattr(req, sys(getxattr(fd_name(fd_of(ino)), name, view.buffer, TRANSFER)), size);
}

static void view_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    reply_xattr(req, sys(listxattr(fd_name(fd_of(ino)), view.buffer, TRANSFER)), size);
}

/* ---- files ---- */

static void view_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
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

static void view_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
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

static void view_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                      struct fuse_file_info *fi)
{
    int length = sys(pread((int)fi->fh, view.buffer, size < TRANSFER ? size : TRANSFER, offset));

    (void)ino;
    if (length < 0)
        return reply(req, length);
    (void)fuse_reply_buf(req, view.buffer, (size_t)length);
}

static void view_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset,
                       struct fuse_file_info *fi)
{
    int length = sys(pwrite((int)fi->fh, data, size, offset));

    (void)ino;
    if (length < 0)
        return reply(req, length);
    (void)fuse_reply_write(req, (size_t)length);
}

static void view_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence,
                       struct fuse_file_info *fi)
{
    off_t found = lseek((int)fi->fh, offset, whence);

    (void)ino;
    if (found < 0)
        return reply(req, -errno);
    (void)fuse_reply_lseek(req, found);
}

static void view_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
                           struct fuse_file_info *fi)
{
    (void)ino;
    reply(req, sys(fallocate((int)fi->fh, mode, offset, length)));
}

/* Also for directories. */
static void view_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    (void)ino;
    reply(req, sys(datasync ? fdatasync((int)fi->fh) : fsync((int)fi->fh)));
}

/* Also for directories. */
static void view_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    (void)close((int)fi->fh);
    reply(req, 0);
}

/* ---- directories ---- */

static void view_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
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

static void view_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
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

static void view_init(void *userdata, struct fuse_conn_info *conn)
{
    (void)userdata;
    /* Truncation is part of the open; nothing else of what libfuse would turn on by itself. */
    conn->want = conn->capable & FUSE_CAP_ATOMIC_O_TRUNC;
    conn->max_write = TRANSFER;
}

/* Locks, and what is not here, are the kernel's own affair or ENOSYS. */
static const struct fuse_lowlevel_ops operations = {
    .init = view_init,
    .lookup = view_lookup,
    .forget = view_forget,
    .forget_multi = view_forget_multi,
    .getattr = view_getattr,
    .setattr = view_setattr,
    .readlink = view_readlink,
    .mknod = view_mknod,
    .mkdir = view_mkdir,
    .unlink = view_unlink,
    .rmdir = view_rmdir,
    .symlink = view_symlink,
    .rename = view_rename,
    .link = view_link,
    .open = view_open,
    .create = view_create,
    .read = view_read,
    .write = view_write,
    .lseek = view_lseek,
    .fallocate = view_fallocate,
    .fsync = view_fsync,
    .release = view_release,
    .opendir = view_opendir,
    .readdir = view_readdir,
    .fsyncdir = view_fsync,
    .releasedir = view_release,
    .statfs = view_statfs,
    .setxattr = view_setxattr,
    .getxattr = view_getxattr,
    .listxattr = view_listxattr,
    .removexattr = view_removexattr,
};

/* ---- the server's process ---- */

/* Close all but stdin, stdout, stderr and the `count` fds of `keep`. */
static void close_all_but(const int *keep, size_t count)
{
    for (unsigned int from = 3;;) {
        unsigned int next = UINT_MAX;

        for (size_t i = 0; i < count; i++)
            if ((unsigned int)keep[i] >= from && (unsigned int)keep[i] < next)
                next = (unsigned int)keep[i];
        if (next > from)
            (void)close_range(from, next - 1, 0);
        if (next == UINT_MAX)
            return;
        from = next + 1;
    }
}

/*
 * Give up the machine.  Returns 0 or -errno.  From here on the process has its capabilities over
 * files of the container's ids only; ids come and go translated.
 */
static int enter_user_namespace(int keeper)
{
    const uint64_t kept = 1u << CAP_CHOWN | 1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH |
                          1u << CAP_FOWNER | 1u << CAP_FSETID | 1u << CAP_SETGID |
                          1u << CAP_SETUID | 1u << CAP_SETFCAP;
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {
        {.effective = (uint32_t)kept, .permitted = (uint32_t)kept}, {0}};
    char byte = 0;
    int result;

    /* nobody: a uid of root would still own the host's files, a uid of the range could be signalled
     * from inside. */
    if ((result = sys(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0))) < 0 ||
        (result = sys(setgroups(0, NULL))) < 0 ||
        (result = sys(setresgid(NOBODY, NOBODY, NOBODY))) < 0 ||
        (result = sys(setresuid(NOBODY, NOBODY, NOBODY))) < 0 ||
        (result = sys(unshare(CLONE_NEWUSER))) < 0)
        return result;
    /* The keeper of the mount writes the map. */
    if (send(keeper, &byte, 1, MSG_NOSIGNAL) != 1 || recv(keeper, &byte, 1, 0) != 1)
        return -ESRCH;
    /* setfsuid() must not take capabilities away: the new namespace has forgotten the bit. */
    if ((result = sys(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0))) < 0)
        return result;
    (void)setfsgid(0);
    (void)setfsuid(0);
    if (setfsuid((uid_t)-1) != 0 || setfsgid((gid_t)-1) != 0)
        return -EPERM;
    /* An empty root directory; the working directory stays reachable by relative names only. */
    if ((result = sys(chdir("/proc/self/fd"))) < 0 ||
        (result = sys(chroot("/proc/self/fdinfo"))) < 0 ||
        (result = sys(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))) < 0 ||
        (result = sys(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))) < 0)
        return result;
    return sys(syscall(SYS_capset, &header, data));
}

/* Serve until the mount is gone.  Returns 0 or -errno; consumes its fds. */
static int serve(int device, int root, int keeper)
{
    struct fuse_args args = FUSE_ARGS_INIT(1, ((char *[]){(char *)"eci-view", NULL}));
    const int keep[] = {device, root, keeper};
    struct rlimit limit;
    struct fuse_session *session;
    char where[32];
    int result;

    close_all_but(keep, sizeof(keep) / sizeof(*keep));
    /* libfuse would print what a read says when the keeper ends it, which aborts the mount. */
    if (!freopen("/dev/null", "w", stderr))
        return -errno;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    (void)umask(0);
    view.root.fd = root;
    view.root.type = S_IFDIR;
    view.keeper = keeper;
    session = fuse_session_new(&args, &operations, sizeof(operations), NULL);
    (void)snprintf(where, sizeof(where), "/dev/fd/%d", device);
    if (!session || fuse_session_mount(session, where) != 0)
        return -EINVAL;
    if ((result = enter_user_namespace(keeper)) < 0)
        return result;
    if (send(keeper, "", 1, MSG_NOSIGNAL) != 1)
        return -ESRCH;
    /* From here on only the end of the mount ends the loop. */
    result = fuse_session_loop(session);
    fuse_session_destroy(session);
    return result;
}

/* ---- the keeper of the mount ---- */

struct options {
    unsigned long base, size;
    int root, mntns, ready;
    char *mountpoint;
};

/*
 * A mount of its own that shows what `root` shows, without what is mounted below it.  open_tree(2)
 * clones only mounts of the caller's namespace, so this goes into `mntns` and back; nothing is
 * resolved there.  EINVAL: the mount has children that are locked, see mount_namespaces(7).
 */
static int clone_mount(int root, int mntns)
{
    cleanup_fd int home = sys(open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC));
    int tree, result;

    if (home < 0)
        return home;
    if ((result = sys(setns(mntns, CLONE_NEWNS))) < 0)
        return result;
    tree = sys(open_tree(root, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH));
    if ((result = sys(setns(home, CLONE_NEWNS))) < 0 && tree >= 0)
        (void)close(tree);
    return result < 0 ? result : tree;
}

/* A detached mount of a new FUSE superblock that `device` serves. */
static int make_mount(int device)
{
    cleanup_fd int context = sys(fsopen("fuse", FSOPEN_CLOEXEC));
    char number[16];
    const char *const strings[][2] = {
        {"source", "eci-view"}, {"subtype", "eci-view"}, {"fd", number},
        {"rootmode", "40000"},  {"user_id", "0"},        {"group_id", "0"},
        {"max_read", "131072"},
    };

    if (context < 0)
        return context;
    (void)snprintf(number, sizeof(number), "%d", device);
    for (size_t i = 0; i < sizeof(strings) / sizeof(*strings); i++)
        if (fsconfig(context, FSCONFIG_SET_STRING, strings[i][0], strings[i][1], 0) < 0)
            return -errno;
    if (fsconfig(context, FSCONFIG_SET_FLAG, "allow_other", NULL, 0) < 0 ||
        fsconfig(context, FSCONFIG_SET_FLAG, "default_permissions", NULL, 0) < 0 ||
        fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return -errno;
    /* Nothing in the container's tree is to be run by the host or to act as a device for it. */
    return sys(fsmount(context, FSMOUNT_CLOEXEC,
                       MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC));
}

/* The id of the mount that stands on top of `name` now, or 0.  Asks the server nothing. */
static uint64_t mount_on(int at, const char *name, int flags)
{
    struct statx stx;

    if (statx(at, name, flags | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC,
              STATX_MNT_ID, &stx) < 0)
        return 0;
    return stx.stx_mnt_id;
}

static int write_map(pid_t pid, const char *which, const struct options *options)
{
    cleanup_fd int file = -1;
    char text[64];
    int length;

    (void)snprintf(text, sizeof(text), "/proc/%d/%s", pid, which);
    if ((file = sys(open(text, O_WRONLY | O_CLOEXEC))) < 0)
        return file;
    length = snprintf(text, sizeof(text), "0 %lu %lu\n", options->base, options->size);
    return write(file, text, (size_t)length) == length ? 0 : -errno;
}

/* Let the child finish its preparations.  Returns 0 once it serves, or -errno. */
static int bring_up(pid_t child, int server, const struct options *options)
{
    char byte = 0;
    int result;

    if (recv(server, &byte, 1, 0) != 1)
        return -ECHILD;
    if ((result = write_map(child, "uid_map", options)) < 0 ||
        (result = write_map(child, "gid_map", options)) < 0)
        return result;
    if (send(server, &byte, 1, MSG_NOSIGNAL) != 1 || recv(server, &byte, 1, 0) != 1)
        return -ECHILD;
    return 0;
}

/* The signals that ask the keeper to unmount. */
static const sigset_t *ending_signals(void)
{
    static sigset_t set;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGHUP);
    return &set;
}

/*
 * Stay until the server has ended.  The working directory is the parent of the mount point, which
 * `name` names there: an fd on the mount itself would make an unmount by the engine fail with
 * EBUSY. Returns 0 if it ended in order, or -errno.
 */
static int keep(pid_t child, int server, const char *name, uint64_t mount_id, struct shared *shared)
{
    cleanup_fd int process = sys(pidfd_open(child, 0));
    cleanup_fd int signals = -1;
    unsigned long made = 0;
    int status = 0, patience = -1;

    signals = sys(signalfd(-1, ending_signals(), SFD_CLOEXEC));
    if (process < 0 || signals < 0)
        return process < 0 ? process : signals;
    for (;;) {
        struct pollfd fds[] = {{.fd = process, .events = POLLIN},
                               {.fd = signals, .events = POLLIN},
                               {.fd = server, .events = POLLIN}};
        char bytes[64];
        int events = poll(fds, 3, patience);
        bool idle = events == 0;

        if (events < 0 && errno != EINTR)
            return -errno;
        if (fds[0].revents)
            break;
        if (events > 0 && fds[1].revents) {
            /* MNT_FORCE aborts what hangs: at a container's end nothing waits for the view. */
            if (mount_on(AT_FDCWD, name, 0) == mount_id)
                (void)umount2(name, MNT_FORCE | MNT_DETACH | UMOUNT_NOFOLLOW);
            if (poll(fds, 1, END_MS) == 0)
                (void)kill(child, SIGKILL);
            /* The container can hold a lock that the server waits for; then nobody reaps it here.
             */
            if (poll(fds, 1, END_MS) > 0)
                (void)waitpid(child, NULL, 0);
            return 0;
        }
        if (events > 0 && fds[2].revents)
            (void)recv(server, bytes, sizeof(bytes), MSG_DONTWAIT);
        idle = idle && atomic_load(&shared->made) == made;
        made = atomic_load(&shared->made);
        /* A remount that changes nothing has the kernel drop all names that nobody uses. */
        if ((idle || atomic_load(&shared->nodes) >= NODES_HIGH) &&
            mount_on(AT_FDCWD, name, 0) == mount_id)
            (void)mount(NULL, name, NULL, MS_REMOUNT | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
        /* What is left over is in use: ask again, ever more seldom. */
        if (atomic_load(&shared->nodes) == 0)
            patience = -1;
        else if (!idle)
            patience = IDLE_MS;
        else if (patience < 64 * IDLE_MS)
            patience *= 2;
    }
    (void)waitpid(child, &status, 0);
    /* A server that died leaves no dead mount behind. */
    if (mount_on(AT_FDCWD, name, 0) == mount_id)
        (void)umount2(name, MNT_DETACH | UMOUNT_NOFOLLOW);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -ECONNABORTED;
}

/* All of the work.  `*step` names what failed.  Returns 0 or -errno. */
static int run(const struct options *options, const char **step)
{
    cleanup_fd int tree = options->root;
    cleanup_fd int device = -1, mount_fd = -1, parent = -1, target = -1, server = -1;
    char directory[PATH_MAX], last[PATH_MAX];
    const char *name;
    uint64_t mount_id;
    int sockets[2], result;
    pid_t child;

    *step =
        "cannot clone the root mount (locked submounts? give the runtime's own mount namespace)";
    if (options->mntns >= 0) {
        cleanup_fd int mntns = options->mntns;

        if ((result = clone_mount(tree, mntns)) < 0)
            return result;
        (void)close(tree);
        tree = result;
    }
    *step = "cannot open the mount point";
    (void)snprintf(directory, sizeof(directory), "%s", options->mountpoint);
    (void)snprintf(last, sizeof(last), "%s", options->mountpoint);
    name = basename(last);
    if ((parent = sys(open(dirname(directory), O_PATH | O_DIRECTORY | O_CLOEXEC))) < 0)
        return parent;
    if ((target = sys(openat(parent, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC))) < 0)
        return target;
    if ((result = sys(fchdir(parent))) < 0)
        return result;
    *step = "cannot make the FUSE mount";
    if ((device = sys(open("/dev/fuse", O_RDWR | O_CLOEXEC))) < 0)
        return device;
    if ((mount_fd = make_mount(device)) < 0)
        return mount_fd;
    *step = "cannot start the server";
    view.size = (uint32_t)options->size;
    view.shared =
        mmap(NULL, sizeof(*view.shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (view.shared == MAP_FAILED)
        return -errno;
    if ((result = sys(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets))) < 0)
        return result;
    /* Blocked before the server is there, so that no signal leaves a mount behind.  They stay
     * blocked in the server: it ends with the mount. */
    (void)sigprocmask(SIG_BLOCK, ending_signals(), NULL);
    server = sockets[0];
    if ((child = sys(fork())) < 0) {
        (void)close(sockets[1]);
        return child;
    }
    if (child == 0)
        _exit(serve(device, tree, sockets[1]) == 0 ? 0 : 1);
    (void)close(sockets[1]);
    /* The last fd of the device must be the server's, and the container's root not be pinned by us.
     */
    (void)close(take_fd(&device));
    (void)close(take_fd(&tree));
    if ((result = bring_up(child, server, options)) < 0) {
        (void)kill(child, SIGKILL);
        (void)waitpid(child, NULL, 0);
        return result;
    }
    *step = "cannot attach the mount";
    mount_id = mount_on(mount_fd, "", AT_EMPTY_PATH);
    result = sys(
        move_mount(mount_fd, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH));
    (void)close(take_fd(&mount_fd)); /* if it was not attached, this ends the server */
    (void)close(take_fd(&target));
    (void)close(take_fd(&parent));
    if (result < 0) {
        (void)waitpid(child, NULL, 0);
        return result;
    }
    if (options->ready >= 0) {
        (void)!write(options->ready, "", 1);
        (void)close(options->ready);
    }
    *step = "the server failed";
    return keep(child, server, name, mount_id, view.shared);
}

/* A number from 0 to `max`, in decimal, and nothing else. */
static bool parse(const char *text, unsigned long max, unsigned long *value)
{
    char *end;

    errno = 0;
    *value = strtoul(text, &end, 10);
    return *text >= '0' && *text <= '9' && *end == '\0' && errno == 0 && *value <= max;
}

int main(int argc, char **argv)
{
    static const struct option table[] = {
        {"base", required_argument, NULL, 'b'},     {"size", required_argument, NULL, 's'},
        {"root-fd", required_argument, NULL, 'r'},  {"mntns-fd", required_argument, NULL, 'm'},
        {"ready-fd", required_argument, NULL, 'y'}, {NULL, 0, NULL, 0},
    };
    struct options options = {.root = -1, .mntns = -1, .ready = -1};
    const char *step = "";
    unsigned long value;
    bool good = true;
    int option, result;

    while ((option = getopt_long(argc, argv, "", table, NULL)) != -1) {
        bool number = option == 'b' || option == 's';

        good = good && option != '?' && parse(optarg, number ? UINT32_MAX - 1 : INT_MAX, &value);
        if (!good)
            break;
        switch (option) {
        case 'b':
            options.base = value;
            break;
        case 's':
            options.size = value;
            break;
        case 'r':
            options.root = (int)value;
            break;
        case 'm':
            options.mntns = (int)value;
            break;
        default:
            options.ready = (int)value;
            break;
        }
    }
    if (!good || optind != argc - 1 || options.root < 0 || options.size == 0 ||
        options.base + options.size > UINT32_MAX || argv[optind][0] != '/' ||
        strlen(argv[optind]) >= PATH_MAX) {
        (void)fprintf(stderr, "usage: eci-view --base ID --size COUNT --root-fd FD [--mntns-fd FD] "
                              "[--ready-fd FD] /MOUNTPOINT\n");
        return 2;
    }
    options.mountpoint = argv[optind];
    result = run(&options, &step);
    if (result < 0) {
        (void)fprintf(stderr, "eci-view: %s: %s: %s\n", options.mountpoint, step,
                      strerror(-result));
        return 1;
    }
    return 0;
}
