/* SPDX-License-Identifier: Apache-2.0 */
/*
 * eci-cleanup STATE WORK ROOTFS MNTNS NONCE     the OCI poststop hook
 * eci-cleanup --locked STATE WORK ROOTFS        for eci_supervisor/runtime/cleanup.py
 * eci-cleanup --of FD STATE WORK ROOTFS         for csrc/keeper.c
 *
 * Removes what the container of the state directory STATE has left: its overlay's work directory
 * WORK, those that STATE/works names, the view on the engine's mount ROOTFS (each may be empty),
 * its ID range, its worker's memory cgroup, its state.  What is gone already is no error, so
 * whoever is killed in the midst, the next one ends the work: what the record names goes first, and
 * the record last.
 *
 * All under the lock of the whole state, which the caller has (--locked) or this program takes. The
 * hook first waits for the keeper to end, and goes into the engine's mount namespace, whose inode
 * is MNTNS.  A new container may have the same STATE, so nothing is done where its record has
 * another nonce than NONCE (hooks of an older version do not give it), and with --of unless the
 * keeper's lock file in STATE is the one open as FD.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "api.h"
#include "filters.h"
#include "privilege.h"

#define RECORD    "container.json"
#define KEPT      "lock"
#define WATCH     "watch"
#define COUNTS    "counts"
#define MET       "met"
#define WORK_NAME "eci-work"
#define WORKS     "works"
#define MEMORY    "memory"

enum {
    PATIENCE_MS = 10000, /* for the keeper, which has the last trace lines to write */
    PAUSE_NS = 500 * 1000,
    PAUSES = PATIENCE_MS * 1000 / 500,
    BUSY_PAUSES = 4000,    /* for a worker that is about to end, like PAUSES */
    LATE_LINES = 16,       /* of a proxy's log, at most */
    OPEN_DIRECTORIES = 16, /* at most, while a tree is removed */
};

static const char *doing = ""; /* what a failure is about */

/* Joins two parts of a path with a slash.  Returns 0 or -ENAMETOOLONG. */
static int join(char out[PATH_MAX], const char *directory, const char *name)
{
    return snprintf(out, PATH_MAX, "%s/%s", directory, name) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

static int open_lock(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC, 0600);

    return fd < 0 ? -errno : fd;
}

/* Whether somebody holds the keeper's lock in `state`. */
static bool is_kept(const char *state)
{
    char path[PATH_MAX];
    bool held;
    int fd;

    if (join(path, state, KEPT) < 0)
        return false;
    fd = open_lock(path, O_RDONLY);
    if (fd < 0)
        return false;
    held = flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK;
    close(fd);
    return held;
}

/*
 * Where the runtime fails before its first hook it runs the last one all the same, and waits for
 * it: then the keeper has met no process yet, knows nothing but how to clear up, and waits for the
 * runtime.
 */
static void wait_for_keeper(const char *state)
{
    const struct timespec pause = {.tv_nsec = PAUSE_NS};
    char met[PATH_MAX];

    if (join(met, state, MET) < 0 || access(met, F_OK) < 0)
        return;
    for (int i = 0; i < PAUSES && is_kept(state); i++)
        nanosleep(&pause, NULL);
}

/* Takes what the runtime says to its hooks: one that does not listen lets crun die of SIGPIPE. */
static void hear_out(void)
{
    char buffer[4096];

    while (read(STDIN_FILENO, buffer, sizeof(buffer)) > 0)
        ;
}

/* The parent of a process, both in this PID namespace; 0 where there is none. */
static long parent_of(long pid)
{
    char path[64];
    char text[1024];
    const char *end;
    ssize_t n;
    int fd;

    snprintf(path, sizeof(path), "/proc/%ld/stat", pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    n = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (n <= 0)
        return 0;
    text[n] = 0;
    end = strrchr(text, ')'); /* the name, which may hold anything: proc(5) */
    return end && strlen(end) > 4 ? strtol(end + 4, NULL, 10) : 0;
}

/* Goes into the mount namespace of `pid` if `wanted`, an inode, is its own or 0.  0 or -errno. */
static int enter_mounts_of(long pid, ino_t wanted)
{
    char path[64];
    struct stat there;
    struct stat here;
    int r = 0;
    int fd;

    snprintf(path, sizeof(path), "/proc/%ld/ns/mnt", pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (fstat(fd, &there) < 0 || stat("/proc/self/ns/mnt", &here) < 0 ||
        (wanted && there.st_ino != wanted))
        r = -ESRCH;
    else if (there.st_ino != here.st_ino && setns(fd, CLONE_NEWNS) < 0)
        r = -errno;
    close(fd);
    return r;
}

/*
 * Goes into the engine's mount namespace, by way of the ancestor that lives in it.  The hook of
 * `runc run` starts in the stage's own namespace; what it gave back there, the engine would not
 * see.  Without such an ancestor nothing is done: then nobody waits for it.
 */
static void enter_engine_mounts(ino_t inode)
{
    for (long pid = getpid(); pid > 0; pid = parent_of(pid))
        if (enter_mounts_of(pid, inode) == 0)
            return;
}

/*
 * Goes to the mount namespace that the view was mounted in, if this is another one: a `crun delete`
 * runs in a private one of the launcher's, from where nothing propagates.
 */
static void enter_view_mounts(const char *state)
{
    static const char program[] = "/eci-view";
    char path[PATH_MAX];
    char text[32] = "";
    ssize_t n;
    long pid;
    int fd;

    if (join(path, state, "view.pid") < 0)
        return;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    n = read(fd, text, sizeof(text) - 1);
    close(fd);
    pid = n > 0 ? strtol(text, NULL, 10) : 0;
    snprintf(path, sizeof(path), "/proc/%ld/exe", pid);
    char exe[PATH_MAX];
    n = pid > 0 ? readlink(path, exe, sizeof(exe) - 1) : -1;
    if (n < (ssize_t)strlen(program))
        return;
    exe[n] = 0;
    if (strcmp(exe + n - strlen(program), program) == 0)
        (void)enter_mounts_of(pid, 0);
}

/* `path` as mountinfo writes it: proc_pid_mountinfo(5). */
static int escape(char *out, size_t size, const char *path)
{
    size_t at = 0;

    for (; *path; path++) {
        if (at + 5 > size)
            return -ENAMETOOLONG;
        if (strchr(" \t\n\\#", *path))
            at += (size_t)snprintf(out + at, size - at, "\\%03o", (unsigned char)*path);
        else
            out[at++] = *path;
    }
    out[at] = 0;
    return 0;
}

/* How many views lie on `rootfs`, or -errno. */
static int count_views(const char *rootfs)
{
    char wanted[4 * PATH_MAX];
    int count = escape(wanted, sizeof(wanted), rootfs);
    FILE *file = count < 0 ? NULL : fopen("/proc/self/mountinfo", "re");
    char *line = NULL;
    size_t size = 0;

    if (!file)
        return count < 0 ? count : -errno;
    while (getline(&line, &size, file) > 0) {
        char *rest = line;
        const char *target = NULL;

        /* id, parent, device, root, target */
        for (int i = 0; i < 5 && rest; i++)
            target = strsep(&rest, " ");
        if (rest && target && strcmp(target, wanted) == 0 && strstr(rest, " - fuse.eci-view "))
            count++;
    }
    if (!feof(file))
        count = -errno;
    free(line);
    fclose(file);
    return count;
}

/* Of a system call on a mount: whether it failed for another reason than that there is none. */
static int unless_gone(long result)
{
    return result < 0 && (errno == ENOMEM || errno == EINTR || errno == EIO) ? -errno : 0;
}

/* Gives the engine's own mount back as it was; where it is gone already nothing is to do. */
static int give_back(const char *state, const char *rootfs)
{
    struct mount_attr attr = {.attr_clr = MOUNT_ATTR_RDONLY};
    int r = 0;
    int n;

    enter_view_mounts(state);
    n = count_views(rootfs);
    for (; n > 0 && r == 0; n--)
        r = unless_gone(umount2(rootfs, MNT_DETACH | UMOUNT_NOFOLLOW));
    if (n < 0 || r < 0)
        return n < 0 ? n : r;
    return unless_gone(syscall(SYS_mount_setattr, AT_FDCWD, rootfs, 0, &attr, sizeof(attr)));
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    (void)st;
    (void)where;
    return (kind == FTW_DP || kind == FTW_DNR ? rmdir(path) : unlink(path)) < 0 && errno != ENOENT
               ? -1
               : 0;
}

/* Removes an overlay's work directory, if it is one of ours; nothing is ever mounted in one. */
static int remove_work(const char *path)
{
    const char *name = strrchr(path, '/');
    size_t size = strlen(WORK_NAME);

    if (!name || strncmp(name + 1, WORK_NAME, size) != 0 ||
        (name[1 + size] != '\0' && name[1 + size] != '-'))
        return 0;
    if (nftw(path, remove_entry, OPEN_DIRECTORIES, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) < 0 &&
        errno != ENOENT)
        return -errno;
    return 0;
}

/* Removes the work directories of the overlays among the volumes (stage.py). */
static int remove_works(const char *state)
{
    char path[PATH_MAX];
    char *work = NULL;
    size_t size = 0;
    int r = join(path, state, WORKS);
    FILE *file = r < 0 ? NULL : fopen(path, "re");

    if (!file)
        return r < 0 ? r : errno == ENOENT ? 0 : -errno;
    while (r == 0 && getdelim(&work, &size, '\0', file) > 0)
        r = remove_work(work);
    if (r == 0 && !feof(file))
        r = -errno;
    free(work);
    fclose(file);
    return r;
}

/* Removes the worker's memory cgroup (supervisor/memory.py), once nobody is in it any more. */
static int remove_memory(const char *state)
{
    const struct timespec pause = {.tv_nsec = PAUSE_NS};
    char path[PATH_MAX];
    char group[PATH_MAX];
    const char *name;
    ssize_t n;
    int fd = join(path, state, MEMORY) < 0 ? -1 : open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    n = read(fd, group, sizeof(group) - 1);
    close(fd);
    if (n < 0)
        return -errno;
    group[n] = 0;
    name = strrchr(group, '/');
    if (!name || strncmp(name, "/eci-", 5) != 0)
        return 0;
    for (int i = 0; rmdir(group) < 0 && errno != ENOENT; i++) {
        if (errno != EBUSY || i == BUSY_PAUSES)
            return -errno;
        nanosleep(&pause, NULL);
    }
    return 0;
}

/* The next entry; NULL after the last one, or where `r` becomes -errno or was. */
static struct dirent *next_entry(DIR *dir, int *r)
{
    struct dirent *entry = NULL;

    if (*r == 0) {
        errno = 0;
        entry = readdir(dir);
        *r = entry ? 0 : -errno;
    }
    return entry;
}

/* Takes `key` out of every slot; the last holder of one takes it away (ranges.py). */
static int release_range(const char *root, const char *key)
{
    struct dirent *slot;
    char path[PATH_MAX];
    DIR *dir;
    int r = join(path, root, "ranges");

    if (r < 0)
        return r;
    dir = opendir(path);
    if (!dir)
        return errno == ENOENT ? 0 : -errno;
    while ((slot = next_entry(dir, &r))) {
        char holder[PATH_MAX];

        if (slot->d_name[0] == '.')
            continue;
        r = join(holder, slot->d_name, key);
        if (r < 0 || (unlinkat(dirfd(dir), holder, 0) < 0 && (r = errno == ENOENT ? 0 : -errno)))
            break;
        /* Not while another container shares it. */
        (void)unlinkat(dirfd(dir), slot->d_name, AT_REMOVEDIR);
    }
    closedir(dir);
    return r;
}

/* Reads what `path` begins with; the descriptor, which the caller owns, or -errno. */
static int open_counts(const char *path, int flags, struct eci_counts *counts)
{
    int fd = open(path, flags | O_CLOEXEC, 0600);

    if (fd < 0)
        return -errno;
    memset(counts, 0, sizeof(*counts));
    if (pread(fd, counts, sizeof(*counts), 0) != sizeof(*counts))
        memset(counts, 0, sizeof(*counts));
    return fd;
}

/*
 * Adds what the worker has counted to what all former ones have: no number may ever shrink.  Who is
 * killed between the two steps counts this container twice.  Nothing else fails for it.
 */
static void keep_counts(const char *root, const char *state)
{
    struct eci_counts more;
    struct eci_counts sum;
    char path[PATH_MAX];
    char total[PATH_MAX];
    int to = -1;
    int from;

    if (join(path, state, WATCH) < 0 || join(total, root, COUNTS) < 0)
        return;
    from = open_counts(path, O_RDONLY, &more);
    if (from < 0)
        return;
    to = open_counts(total, O_RDWR | O_CREAT, &sum);
    if (to >= 0) {
        eci_counts_add(&sum, &more);
        (void)!pwrite(to, &sum, sizeof(sum), 0);
        close(to);
    }
    close(from);
    (void)unlink(path);
}

/*
 * Removes the empty directory `name`, from under a mount if there is one here: a poststop hook of
 * `runc run` runs in the very mount namespace that the stage was built in.  So this never descends:
 * what is mounted there is the user's.
 */
static int remove_mount_point(const char *state, const char *name)
{
    char path[PATH_MAX];
    int r = join(path, state, name);

    if (r < 0)
        return r;
    if (rmdir(path) == 0 || errno == ENOENT)
        return 0;
    if (errno != EBUSY)
        return -errno;
    if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 || rmdir(path) < 0)
        return -errno;
    return 0;
}

/* Removes the files in `path`, `last` after all others, and the directory. */
static int remove_flat(const char *path, const char *last)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    int r = 0;

    if (!dir)
        return errno == ENOENT ? 0 : -errno;
    while ((entry = next_entry(dir, &r)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            strcmp(entry->d_name, last) != 0 && unlinkat(dirfd(dir), entry->d_name, 0) < 0 &&
            errno != ENOENT)
            r = -errno;
    if (r == 0 && *last && unlinkat(dirfd(dir), last, 0) < 0 && errno != ENOENT)
        r = -errno;
    closedir(dir);
    if (r == 0 && rmdir(path) < 0 && errno != ENOENT)
        r = -errno;
    return r;
}

/*
 * Removes the directory of a restricted engine socket (socket/launch.py).  Its proxy, which ends
 * when it sees that, may be writing a line to its log meanwhile, and make that file anew.
 */
static int remove_socket(const char *state)
{
    char path[PATH_MAX];
    int r = join(path, state, "socket");

    if (r == 0)
        r = remove_flat(path, "");
    for (int i = 0; i < LATE_LINES && r == -ENOTEMPTY; i++)
        r = remove_flat(path, "");
    return r;
}

/* Whatever is neither ours by name nor a plain file is left, and then an error. */
static int remove_state(const char *state)
{
    char bundle[PATH_MAX];
    int r = join(bundle, state, "bundle");

    if (r == 0)
        r = remove_socket(state);
    if (r == 0)
        r = remove_mount_point(state, "rootfs");
    if (r == 0)
        r = remove_mount_point(state, "m");
    if (r == 0)
        r = remove_flat(bundle, "");
    return r == 0 ? remove_flat(state, RECORD) : r;
}

/* Whether the keeper's lock file in `state` is the one that is open as `fd`. */
static bool is_that_of(const char *state, int fd)
{
    char path[PATH_MAX];
    struct stat named;
    struct stat held;

    return join(path, state, KEPT) == 0 && lstat(path, &named) == 0 && fstat(fd, &held) == 0 &&
           named.st_dev == held.st_dev && named.st_ino == held.st_ino;
}

/*
 * Whether the record in `state` is that of another container than `nonce` names.  Where there is
 * none yet or any more, and nobody makes one, what is left is a dead container's.
 */
static bool is_of_another(const char *state, const char *nonce)
{
    char path[PATH_MAX];
    char wanted[64];
    char text[8192]; /* as state.py writes it, the nonce comes third */
    ssize_t n;
    int fd;

    if (!nonce || join(path, state, RECORD) < 0)
        return false;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    n = read(fd, text, sizeof(text) - 1);
    close(fd);
    text[n < 0 ? 0 : n] = 0;
    /* In a string of JSON a quote has a backslash before it. */
    return snprintf(wanted, sizeof(wanted), "\"nonce\":\"%s\"", nonce) >= (int)sizeof(wanted) ||
           !strstr(text, wanted);
}

struct job {
    const char *state;
    const char *work;
    const char *rootfs;
    const char *nonce; /* NULL: whoever's it is */
    bool locked;
    int of; /* -1: whoever's it is */
};

static int clean(const struct job *job)
{
    char root[PATH_MAX];
    char lock[PATH_MAX];
    char *key;
    int r;

    /* ROOT/containers/KEY */
    if (snprintf(root, sizeof(root), "%s", job->state) >= (int)sizeof(root))
        return -ENAMETOOLONG;
    key = strrchr(root, '/');
    if (!key || !key[1])
        return -EINVAL;
    *key++ = 0;
    if (!strrchr(root, '/'))
        return -EINVAL;
    *strrchr(root, '/') = 0;
    doing = "the lock of the state";
    r = join(lock, root, "lock");
    if (r == 0 && !job->locked) {
        int fd = open_lock(lock, O_RDWR | O_CREAT); /* until this process ends */

        if (fd < 0)
            return fd;
        if (flock(fd, LOCK_EX) < 0)
            return -errno;
    }
    if (r < 0 || (job->of >= 0 && !is_that_of(job->state, job->of)) ||
        is_of_another(job->state, job->nonce))
        return r;
    doing = "the overlay's work directory";
    r = remove_work(job->work);
    if (r == 0)
        r = remove_works(job->state);
    if (r < 0)
        return r;
    doing = "the view of its files";
    if (*job->rootfs)
        r = give_back(job->state, job->rootfs);
    if (r < 0)
        return r;
    doing = "the ID range";
    r = release_range(root, key);
    if (r < 0)
        return r;
    doing = "the memory cgroup of its worker";
    r = remove_memory(job->state);
    if (r < 0)
        return r;
    keep_counts(root, job->state);
    doing = "the state directory";
    return remove_state(job->state);
}

int main(int argc, char **argv)
{
    struct job job = {.of = -1};
    bool is_hook = false;
    int at = 1;
    int r;

    if (argc > 1 && strcmp(argv[1], "--locked") == 0) {
        job.locked = true;
        at = 2;
    } else if (argc > 2 && strcmp(argv[1], "--of") == 0) {
        job.of = atoi(argv[2]);
        at = 3;
    } else {
        is_hook = true;
    }
    if (is_hook && argc - at == 5)
        job.nonce = argv[--argc];
    if (argc - at != (is_hook ? 4 : 3) || argv[at][0] != '/') {
        fputs("usage: eci-cleanup [--locked | --of FD] STATE WORK ROOTFS [MNTNS [NONCE]]\n",
              stderr);
        return 2;
    }
    /* To go to where the view is, to take it away, and to remove what others own. */
    r = privilege_seal();
    if (r == 0)
        r = privilege_keep(CAPABILITY(SYS_ADMIN) | CAPABILITY(SYS_CHROOT) | CAPABILITY(SYS_PTRACE) |
                           CAPABILITY(DAC_OVERRIDE) | CAPABILITY(DAC_READ_SEARCH) |
                           CAPABILITY(FOWNER));
    if (r == 0)
        r = filter_cleanup();
    if (r < 0) {
        fprintf(stderr, "eci-cleanup: cannot give up privileges: %s\n", strerror(-r));
        return 1;
    }
    job.state = argv[at];
    job.work = argv[at + 1];
    job.rootfs = argv[at + 2];
    if (is_hook) {
        hear_out();
        if (is_of_another(job.state, job.nonce))
            return 0;
        wait_for_keeper(job.state);
        enter_engine_mounts((ino_t)strtoull(argv[at + 3], NULL, 10));
    }
    r = clean(&job);
    if (r < 0)
        fprintf(stderr, "eci-runtime: cannot clear up %s: %s: %s\n", job.state, doing,
                strerror(-r));
    return r < 0;
}
