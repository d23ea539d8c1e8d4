/*
 * race - one thread makes a mount call over and over, another changes what the call points at.
 *
 *     race CALL WHAT ROUNDS OWN FOREIGN
 *
 * OWN is the caller's to act upon, FOREIGN is not.  CALL is one of
 *
 *     remount    mount(NULL, NAME, NULL, MS_REMOUNT|MS_BIND, NULL)
 *     umount     a tmpfs is mounted on OWN, then umount2(NAME, MNT_DETACH)
 *     move       move_mount(NAME, /tmp/to); what was moved goes back to OWN
 *     attach     move_mount of a detached copy of OWN or FOREIGN to /tmp/to, by descriptor
 *     setattr    mount_setattr(NAME), MOUNT_ATTR_RDONLY taken off
 *     bind       mount(NAME, "/tmp/to", NULL, MS_BIND, NULL)
 *
 * and WHAT says what NAME is and what changes:
 *
 *     string     the bytes of the path; OWN and FOREIGN have the same length, and a reader sees one
 *                of them or a torn mix
 *     fd         a descriptor (by number, or /proc/self/fd/N), with dup2(2)
 *     link       a symbolic link, with renameat2(RENAME_EXCHANGE)
 *     struct     for setattr: FOREIGN's attributes, between taking off RDONLY and NODIRATIME
 *     swap       OWN and FOREIGN themselves, siblings and mount points, exchanged from a mount
 *                namespace in which neither is a mount point
 *     grow       for setattr, of the whole tree and to take off MOUNT_ATTR_NOSUID: FOREIGN, a
 *                nosuid mount, is bound to OWN/l, looked at and taken off; it leaks if it lacks
 *                nosuid then
 *     pivot      the same, but what comes to OWN/l is the old root, FOREIGN in it: pivot_root(2)
 *
 * ROUNDS is the least number of calls: on one busy processor all the changes can fall between two
 * rounds, so it goes on until both variants have had their share.  Output: one line "NAME=COUNT
 * ..." with a count per outcome, flips=N, the number of changes, and leaks=N, how often /tmp/to
 * came to show a file "mark", which is in FOREIGN only.  The caller then looks at what FOREIGN has
 * become. Exit status 2: not understood; 3: OWN could not be used.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ENOUGH 200 /* rounds that begin with either variant */

#define BIND_MOUNT   4096
#define REMOUNT      32
#define DETACH       2
#define REC          16384
#define PRIVATE      (1 << 18)
#define NODIRATIME   0x80
#define RDONLY       1
#define NOSUID       2
#define TO           "/tmp/to"
#define LINK         "/tmp/race"
#define OTHER_LINK   "/tmp/race2"
#define RACED        9 /* descriptor that changes: a duplicate of one of the next */
#define OF_OWN       20
#define OF_FOREIGN   21
#define OF_DIRECTORY 22

static volatile char path[4096];
static char own[4096], foreign[4096], spot[4096];
static const char *call, *what;
static volatile uint64_t attributes[4];
static atomic_bool stop, ready;
static atomic_int variant; /* 1: FOREIGN */
static atomic_ulong flips, leaks;

static bool is(const char *word, const char *other)
{
    return strcmp(word, other) == 0;
}

static const char *name_in_directory(const char *whole)
{
    return strrchr(whole, '/') + 1;
}

static void grow(int to)
{
    struct statvfs seen;

    if (to) {
        if (syscall(SYS_mount, foreign, spot, NULL, BIND_MOUNT, NULL) < 0)
            _exit(3);
        return;
    }
    if (statvfs(spot, &seen) < 0)
        _exit(3);
    if (!(seen.f_flag & ST_NOSUID))
        atomic_fetch_add(&leaks, 1);
    /* Whoever holds it open for a moment lets it go. */
    while (syscall(SYS_umount2, spot, 0) < 0)
        if (errno != EBUSY)
            _exit(3);
}

static void pivot(int to)
{
    char back[4096 + 2];
    struct statvfs seen;

    strcat(strcpy(back, "/l"), own);
    if (syscall(SYS_pivot_root, to ? own : "/l", to ? spot : back) < 0)
        _exit(3);
    if (!to && (statvfs(foreign, &seen) < 0 || !(seen.f_flag & ST_NOSUID)))
        atomic_fetch_add(&leaks, 1);
}

/* Does the tree change of which the attributes are set? */
static bool is_tree(void)
{
    return is(what, "grow") || is(what, "pivot");
}

static void change(int to)
{
    const char *from = to ? foreign : own;

    if (is(what, "string"))
        for (size_t i = 0; from[i]; i++)
            if (path[i] != from[i])
                path[i] = from[i];
    if (is(what, "fd"))
        dup2(to ? OF_FOREIGN : OF_OWN, RACED);
    if (is(what, "link"))
        syscall(SYS_renameat2, AT_FDCWD, LINK, AT_FDCWD, OTHER_LINK, RENAME_EXCHANGE);
    if (is(what, "struct"))
        attributes[1] = to ? RDONLY : NODIRATIME;
    if (is_tree() && to != atomic_load(&variant))
        (is(what, "grow") ? grow : pivot)(to);
    if (is(what, "swap"))
        syscall(SYS_renameat2, OF_DIRECTORY, name_in_directory(own), OF_DIRECTORY,
                name_in_directory(foreign), RENAME_EXCHANGE);
    atomic_store(&variant, to);
}

/* To where the directory of OWN and FOREIGN shows no mounts. */
static void leave(void)
{
    char directory[4096];

    strcpy(directory, own);
    *strrchr(directory, '/') = 0;
    if (dup2(open(directory, O_PATH | O_DIRECTORY), OF_DIRECTORY) < 0 || unshare(CLONE_NEWNS) < 0 ||
        syscall(SYS_umount2, directory, DETACH) < 0)
        _exit(3);
}

static void *keep_changing(void *unused)
{
    (void)unused;
    if (is(what, "swap"))
        leave();
    atomic_store(&ready, true);
    while (!atomic_load(&stop)) {
        unsigned long now = atomic_fetch_add(&flips, 1);

        change(!(now & 1));
        /* Periods of many lengths, so that a change falls into each step of a call. */
        for (volatile unsigned long spin = 0; spin < (now * 7919) % 20000; spin++)
            ;
    }
    if (atomic_load(&variant) && (is(what, "swap") || is_tree()))
        change(0);
    return NULL;
}

static long move(int from, const char *from_path, const char *to)
{
    return syscall(SYS_move_mount, from, from_path, AT_FDCWD, to,
                   *from_path ? MOVE_MOUNT_F_SYMLINKS : MOVE_MOUNT_F_EMPTY_PATH);
}

static long detached(const char *of, int as)
{
    int fd = (int)syscall(SYS_open_tree, AT_FDCWD, of, OPEN_TREE_CLONE);

    if (fd < 0 || dup2(fd, as) < 0)
        return -1;
    return close(fd);
}

static long open_as(const char *of, int as)
{
    int fd = open(of, O_PATH);

    if (fd < 0 || dup2(fd, as) < 0)
        return -1;
    return close(fd);
}

/* What a round needs: -1 where it cannot be had. */
static long prepare(void)
{
    long r = 0;

    if (is(call, "umount"))
        r = syscall(SYS_mount, "none", own, "tmpfs", 0, NULL);
    if (r == 0 && is(call, "attach"))
        return detached(own, OF_OWN);
    if (r == 0 && is(call, "umount") && is(what, "fd"))
        return open_as(own, OF_OWN);
    return r;
}

static long make_call(const char *name)
{
    bool by_fd = is(what, "fd");
    int dfd = by_fd ? RACED : is_tree() ? OF_OWN : AT_FDCWD;
    const char *at = by_fd || is_tree() ? "" : name;

    if (is(call, "remount"))
        return syscall(SYS_mount, NULL, name, NULL, REMOUNT | BIND_MOUNT, NULL);
    if (is(call, "umount"))
        return syscall(SYS_umount2, name, DETACH);
    if (is(call, "move") || is(call, "attach"))
        return move(dfd, at, TO);
    if (is(call, "setattr"))
        return syscall(SYS_mount_setattr, dfd, at,
                       (*at ? 0 : AT_EMPTY_PATH) | (is_tree() ? AT_RECURSIVE : 0), attributes,
                       sizeof(attributes));
    if (is(call, "bind"))
        return syscall(SYS_mount, name, TO, NULL, BIND_MOUNT, NULL);
    exit(2);
}

/* Back to how it was before the round; -1 where that cannot be. */
static long undo(bool done)
{
    if (is(call, "umount") && !done)
        return syscall(SYS_umount2, own, DETACH);
    if (is(call, "move") && done)
        return move(AT_FDCWD, TO, own);
    if ((is(call, "attach") || is(call, "bind")) && done)
        return syscall(SYS_umount2, TO, DETACH);
    return 0;
}

static int set_up(void)
{
    if (is(what, "pivot") &&
        (unshare(CLONE_NEWNS) < 0 || syscall(SYS_mount, NULL, "/", NULL, REC | PRIVATE, NULL) < 0))
        return -1;
    unlink(LINK);
    unlink(OTHER_LINK);
    if ((mkdir(TO, 0755) < 0 && errno != EEXIST) || symlink(own, LINK) < 0 ||
        symlink(foreign, OTHER_LINK) < 0)
        return -1;
    if (is(call, "attach"))
        return detached(own, OF_OWN) < 0 || detached(foreign, OF_FOREIGN) < 0 ? -1 : 0;
    return open_as(own, OF_OWN) < 0 || open_as(foreign, OF_FOREIGN) < 0 ? -1 : 0;
}

int main(int argc, char **argv)
{
    static unsigned long counts[4096], begun[2];
    const char *name = (const char *)path;
    pthread_t thread;
    bool swaps;

    if (argc != 6 || strlen(argv[4]) + 2 >= sizeof own || strlen(argv[5]) >= sizeof foreign)
        return 2;
    call = argv[1];
    what = argv[2];
    strcpy(own, argv[4]);
    strcpy(foreign, argv[5]);
    strcpy((char *)path, own);
    swaps = is(what, "swap");
    if (is(what, "string") && strlen(own) != strlen(foreign))
        return 2;
    if (is(what, "fd"))
        name = "/proc/self/fd/9";
    if (is(what, "link"))
        name = LINK;
    if (is(what, "struct"))
        name = foreign;
    attributes[1] = is(what, "struct") ? NODIRATIME : is_tree() ? NOSUID : RDONLY;
    strcat(strcpy(spot, own), "/l");
    if (set_up() < 0)
        return 3;
    dup2(OF_OWN, RACED);
    if (pthread_create(&thread, NULL, keep_changing, NULL))
        return 2;
    while (!atomic_load(&ready))
        ;
    for (long round = strtol(argv[3], NULL, 10);
         round > 0 || begun[0] < ENOUGH || begun[1] < ENOUGH; round--) {
        long result;
        int error;

        if (prepare() < 0 && !swaps) /* a name can be gone for a moment */
            return 3;
        begun[atomic_load(&variant)]++;
        result = make_call(name);
        error = result < 0 ? errno : 0;
        counts[error]++;
        if (!error && access(TO "/mark", F_OK) == 0)
            atomic_fetch_add(&leaks, 1);
        if (undo(!error) < 0 && !swaps)
            return 3;
    }
    atomic_store(&stop, 1);
    pthread_join(thread, NULL);
    for (int i = 0; i < 4096; i++)
        if (counts[i])
            printf("%s=%lu ", strerrorname_np(i), counts[i]);
    printf("flips=%lu leaks=%lu\n", atomic_load(&flips), atomic_load(&leaks));
    return 0;
}
