/* SPDX-License-Identifier: Apache-2.0 */
/*
 * eci-view - a view of a container's root file system with the container's own ids.
 *
 * The root of a container lives in a superblock whose files belong to the ids BASE … BASE+SIZE-1.
 * The engine, which copies in and out of it and exports it, must see 0 … SIZE-1.  This program
 * mounts a pass-through FUSE file system over the directory that the engine looks at.
 *
 * Who translates.  Not this program: the kernel does.  The process that serves requests lives in a
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
#include <fcntl.h>
#include <getopt.h>
#include <libgen.h>
#include <limits.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "filters.h"
#include "privilege.h"
#include "view.h"

enum {
    IDLE_MS = 1000, /* without a new node for so long, the view counts as idle */
    END_MS = 3000,  /* given to the server to end after the unmount */
};

struct options {
    unsigned long base, size;
    int root, mntns, ready;
    bool readonly; /* only with mntns: what is cloned there is to be */
    char *mountpoint;
};

/*
 * A mount of its own that shows what `root` shows, without what is mounted below it.  open_tree(2)
 * clones only mounts of the caller's namespace, so this goes into `mntns` and back; nothing is
 * resolved there.  EINVAL: the mount has children that are locked, see mount_namespaces(7).
 */
static int clone_mount(int root, int mntns, bool readonly)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
    cleanup_fd int home = sys(open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC));
    int tree, result;

    if (home < 0)
        return home;
    if ((result = sys(setns(mntns, CLONE_NEWNS))) < 0)
        return result;
    tree = sys(open_tree(root, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH));
    result = sys(setns(home, CLONE_NEWNS));
    if (result == 0 && tree >= 0 && readonly)
        result = sys(mount_setattr(tree, "", AT_EMPTY_PATH, &attr, sizeof(attr)));
    if (result < 0 && tree >= 0)
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

        if ((result = clone_mount(tree, mntns, options->readonly)) < 0)
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
        _exit(view_serve(device, tree, sockets[1]) == 0 ? 0 : 1);
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
    /* It may be in a directory that is another root's. */
    *step = "cannot give up privileges";
    if ((result = privilege_seal()) < 0 ||
        (result = privilege_keep(CAPABILITY(SYS_ADMIN) | CAPABILITY(KILL) |
                                 CAPABILITY(DAC_READ_SEARCH))) < 0 ||
        (result = filter_view_keeper()) < 0) {
        (void)umount2(name, MNT_DETACH | UMOUNT_NOFOLLOW);
        (void)waitpid(child, NULL, 0);
        return result;
    }
    if (options->ready >= 0) {
        /* Where the one who waits was killed, the container is not made, and may be cleared up. */
        *step = "nobody waits for the view";
        (void)signal(SIGPIPE, SIG_IGN);
        result = sys(write(options->ready, "", 1));
        (void)close(options->ready);
        if (result < 0) {
            if (mount_on(AT_FDCWD, name, 0) == mount_id)
                (void)umount2(name, MNT_DETACH | UMOUNT_NOFOLLOW);
            (void)waitpid(child, NULL, 0);
            return result;
        }
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
        {"base", required_argument, NULL, 'b'},
        {"size", required_argument, NULL, 's'},
        {"root-fd", required_argument, NULL, 'r'},
        {"mntns-fd", required_argument, NULL, 'm'},
        {"ready-fd", required_argument, NULL, 'y'},
        {"read-only", no_argument, NULL, 'o'},
        {NULL, 0, NULL, 0},
    };
    struct options options = {.root = -1, .mntns = -1, .ready = -1};
    const char *step = "";
    unsigned long value;
    bool good = true;
    int option, result;

    while ((option = getopt_long(argc, argv, "", table, NULL)) != -1) {
        bool number = option == 'b' || option == 's';

        if (option == 'o') {
            options.readonly = true;
            continue;
        }
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
                              "[--ready-fd FD] [--read-only] /MOUNTPOINT\n");
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
