/* SPDX-License-Identifier: Apache-2.0 */
/* The process that serves requests, and what it gives up before: view.c. */
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <stdio.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "filters.h"
#include "privilege.h"
#include "view.h"

enum {
    MEMORY = 512 << 20, /* bytes of address space, at most */
    NOBODY = 65534,
};

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
    const uint64_t kept = CAPABILITY(CHOWN) | CAPABILITY(DAC_OVERRIDE) |
                          CAPABILITY(DAC_READ_SEARCH) | CAPABILITY(FOWNER) | CAPABILITY(FSETID) |
                          CAPABILITY(SETGID) | CAPABILITY(SETUID) | CAPABILITY(SETFCAP);
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
    /* An empty root directory; what the working directory holds is reached by relative names only.
     */
    if ((result = sys(chroot("/proc/self/fdinfo"))) < 0 ||
        (result = privilege_limit(RLIMIT_AS, MEMORY)) < 0 || (result = privilege_seal()) < 0 ||
        (result = privilege_keep(kept)) < 0)
        return result;
    return filter_view();
}

/* To a /proc/self/fd that is a mount of its own, of which ".." leads nowhere.  0 or -errno. */
static int go_to_own_fds(void)
{
    cleanup_fd int fds =
        sys(open_tree(AT_FDCWD, "/proc/self/fd", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));

    return fds < 0 ? fds : sys(fchdir(fds));
}

/* Serve until the mount is gone.  Returns 0 or -errno; consumes its fds. */
int view_serve(int device, int root, int keeper)
{
    struct fuse_args args = FUSE_ARGS_INIT(1, ((char *[]){(char *)"eci-view", NULL}));
    const int keep[] = {device, root, keeper};
    struct fuse_session *session;
    char where[32];
    int result;

    close_all_but(keep, sizeof(keep) / sizeof(*keep));
    /* libfuse would print what a read says when the keeper ends it, which aborts the mount. */
    if (!freopen("/dev/null", "w", stderr))
        return -errno;
    /* As many as there may be: each name that the kernel knows is one. */
    (void)privilege_limit(RLIMIT_NOFILE, RLIM_INFINITY);
    (void)umask(0);
    view.root.fd = root;
    view.root.type = S_IFDIR;
    view.keeper = keeper;
    session = fuse_session_new(&args, &operations, sizeof(operations), NULL);
    (void)snprintf(where, sizeof(where), "/dev/fd/%d", device);
    if (!session || fuse_session_mount(session, where) != 0)
        return -EINVAL;
    if ((result = go_to_own_fds()) < 0 || (result = enter_user_namespace(keeper)) < 0)
        return result;
    if (send(keeper, "", 1, MSG_NOSIGNAL) != 1)
        return -ESRCH;
    /* From here on only the end of the mount ends the loop. */
    result = fuse_session_loop(session);
    fuse_session_destroy(session);
    return result;
}
