/*
 * mnt - raw system calls by words, for tests.
 *
 *     mnt mount none /t tmpfs - - , umount2 /t MNT_DETACH , write /ro/x
 *
 * Commands are separated by a word ",".  Each prints one line: "0", a value, or the name of the
 * errno.  `-` is a null pointer or the number 0.  Flags are kernel names joined by "|", or numbers.
 * The calls are made by number, so that no C library, no busybox and no util-linux decides
 * anything. Exit status: 0, or 2 where a word was not understood (then nothing was tested).
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/mount.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct {
    const char *name;
    unsigned long value;
} names[] = {
    {"MS_RDONLY", 1},
    {"MS_NOSUID", 2},
    {"MS_NODEV", 4},
    {"MS_NOEXEC", 8},
    {"MS_SYNCHRONOUS", 16},
    {"MS_REMOUNT", 32},
    {"MS_MANDLOCK", 64},
    {"MS_DIRSYNC", 128},
    {"MS_NOATIME", 1024},
    {"MS_NODIRATIME", 2048},
    {"MS_BIND", 4096},
    {"MS_MOVE", 8192},
    {"MS_REC", 16384},
    {"MS_SILENT", 32768},
    {"MS_UNBINDABLE", 1 << 17},
    {"MS_PRIVATE", 1 << 18},
    {"MS_SLAVE", 1 << 19},
    {"MS_SHARED", 1 << 20},
    {"MS_RELATIME", 1 << 21},
    {"MS_STRICTATIME", 1 << 24},
    {"MS_MGC_VAL", 0xC0ED0000},
    {"MNT_FORCE", 1},
    {"MNT_DETACH", 2},
    {"MNT_EXPIRE", 4},
    {"UMOUNT_NOFOLLOW", 8},
    {"CLONE_NEWNS", 0x20000},
    {"CLONE_NEWUSER", 0x10000000},
    {"CLONE_NEWPID", 0x20000000},
    {"CLONE_FS", 0x200},
    {"MOUNT_ATTR_RDONLY", 1},
    {"MOUNT_ATTR_NOSUID", 2},
    {"MOUNT_ATTR_NODEV", 4},
    {"MOUNT_ATTR_NOEXEC", 8},
    {"AT_RECURSIVE", 0x8000},
    {"AT_EMPTY_PATH", 0x1000},
    {"OPEN_TREE_CLONE", 1},
};

static void bad(const char *what, const char *word)
{
    fprintf(stderr, "mnt: %s: %s\n", what, word);
    exit(2);
}

static unsigned long number(const char *word)
{
    unsigned long value = 0;
    char copy[512], *rest = copy, *part, *end;

    if (!strcmp(word, "-"))
        return 0;
    if (strlen(word) >= sizeof copy)
        bad("too long", word);
    strcpy(copy, word);
    while ((part = strsep(&rest, "|"))) {
        size_t i, count = sizeof names / sizeof *names;

        for (i = 0; i < count && strcmp(names[i].name, part); i++)
            ;
        if (i < count) {
            value |= names[i].value;
            continue;
        }
        value |= strtoul(part, &end, 0);
        if (!*part || *end)
            bad("no such flag", part);
    }
    return value;
}

static const char *text(const char *word)
{
    return strcmp(word, "-") ? word : NULL;
}

static long attr_call(char **w)
{
    uint64_t attr[4] = {number(w[3]), number(w[4]), number(w[5]), 0};

    return syscall(442, AT_FDCWD, w[1], number(w[2]), attr, sizeof attr);
}

/* clone SRC DST FLAGS: open_tree(OPEN_TREE_CLONE|FLAGS), move_mount. */
static long clone_tree(char **w)
{
    long fd = syscall(428, AT_FDCWD, w[1], OPEN_TREE_CLONE | number(w[3]));

    return fd < 0 ? fd : syscall(429, fd, "", AT_FDCWD, w[2], MOVE_MOUNT_F_EMPTY_PATH);
}

/* tree_attr SRC DST CLEAR: open_tree_attr(OPEN_TREE_CLONE, CLEAR taken off), move_mount. */
static long clone_with_attr(char **w)
{
    uint64_t attr[4] = {0, number(w[3]), 0, 0};
    long fd = syscall(467, AT_FDCWD, w[1], OPEN_TREE_CLONE, attr, sizeof attr);

    return fd < 0 ? fd : syscall(429, fd, "", AT_FDCWD, w[2], MOVE_MOUNT_F_EMPTY_PATH);
}

/* fsmount TYPE DST: fsopen, fsconfig(CMD_CREATE), fsmount, move_mount. */
static long new_mount(char **w)
{
    long fs = syscall(430, w[1], 0), fd;

    if (fs < 0)
        return fs;
    if (syscall(431, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return -1;
    fd = syscall(432, fs, 0, 0);
    return fd < 0 ? fd : syscall(429, fd, "", AT_FDCWD, w[2], MOVE_MOUNT_F_EMPTY_PATH);
}

static void on_alarm(int number)
{
    (void)number;
}

/*
 * interrupted ROUNDS: fsmount of so many tmpfs, while signals come at all moments and the kernel
 * makes the call anew.  Prints how many answers were a mount that can be attached to /mnt, and
 * how many were anything else.
 */
static int print_interrupted(unsigned long rounds)
{
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    const struct itimerval never = {0};
    unsigned long good = 0;

    sigaction(SIGALRM, &action, NULL);
    for (unsigned long i = 0; i < rounds; i++) {
        struct itimerval soon = {.it_value.tv_usec = (long)(20 + i * 7 % 400)};
        long fs = syscall(430, "tmpfs", 0);
        long fd;

        if (fs < 0 || syscall(431, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
            return -1;
        setitimer(ITIMER_REAL, &soon, NULL);
        fd = syscall(432, fs, 0, 0);
        setitimer(ITIMER_REAL, &never, NULL);
        if (fd > fs && syscall(429, fd, "", AT_FDCWD, "/mnt", MOVE_MOUNT_F_EMPTY_PATH) == 0 &&
            syscall(SYS_umount2, "/mnt", 2) == 0) /* MNT_DETACH */
            good++;
        close((int)fs);
        if (fd > fs)
            close((int)fd);
    }
    printf("%lu %lu\n", good, rounds - good);
    return 0;
}

/* fsoverlay LOWERDIR DST: the same for an overlay. */
static long new_overlay(char **w)
{
    long fs = syscall(430, "overlay", 0), fd;

    if (fs < 0)
        return fs;
    if (syscall(431, fs, FSCONFIG_SET_STRING, "lowerdir", w[1], 0) < 0 ||
        syscall(431, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return -1;
    fd = syscall(432, fs, 0, 0);
    return fd < 0 ? fd : syscall(429, fd, "", AT_FDCWD, w[2], MOVE_MOUNT_F_EMPTY_PATH);
}

static long write_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    long done;

    if (fd < 0)
        return -1;
    done = write(fd, "x", 1);
    close(fd);
    return done == 1 ? 0 : -1;
}

static long open_file(const char *path, const char *mode)
{
    int how = !strcmp(mode, "rw") ? O_RDWR : !strcmp(mode, "w") ? O_WRONLY : O_RDONLY;
    int fd = open(path, how | O_NONBLOCK | O_CLOEXEC);

    return fd < 0 ? -1 : close(fd);
}

static long become(unsigned long uid)
{
    if (setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0)
        return -1;
    return setresuid(uid, uid, uid);
}

/* Map the caller's effective ids of the parent namespace to 0 in a new user namespace. */
static long map_self(unsigned long uid)
{
    static const char *const files[] = {"setgroups", "uid_map", "gid_map"};
    char path[64], line[64];

    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "/proc/self/%s", files[i]);
        snprintf(line, sizeof line, i ? "0 %lu 1" : "deny", uid);
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd < 0)
            return -1;
        long done = write(fd, line, strlen(line));
        close(fd);
        if (done < 0)
            return -1;
    }
    return 0;
}

static int held = -1;

/* hold DIR, back: keep a directory open, and make it the working directory again. */
static long hold(const char *path)
{
    held = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return held < 0 ? -1 : 0;
}

static int print_kind(const char *path)
{
    struct stat st;

    if (lstat(path, &st) < 0)
        return -1;
    if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode))
        printf("%s %u:%u\n", S_ISCHR(st.st_mode) ? "chr" : "blk", major(st.st_rdev),
               minor(st.st_rdev));
    else
        puts(S_ISDIR(st.st_mode)   ? "dir"
             : S_ISREG(st.st_mode) ? "reg"
             : S_ISLNK(st.st_mode) ? "lnk"
                                   : "other");
    return 0;
}

static int print_count(const char *path)
{
    DIR *dir = opendir(path);
    int count = 0;

    if (!dir)
        return -1;
    while (readdir(dir))
        count++;
    closedir(dir);
    printf("%d\n", count - 2);
    return 0;
}

static int print_flags(const char *path)
{
    struct statvfs st;

    if (statvfs(path, &st) < 0)
        return -1;
    printf("%s%s%s%s\n", st.f_flag & ST_RDONLY ? "ro" : "rw",
           st.f_flag & ST_NOSUID ? ",nosuid" : "", st.f_flag & ST_NODEV ? ",nodev" : "",
           st.f_flag & ST_NOEXEC ? ",noexec" : "");
    return 0;
}

/* x32: the x32 spelling of mount(2), in a child, because the filter may kill. */
static int print_x32(char **w)
{
#ifdef __x86_64__
    int status;
    pid_t pid;

    fflush(stdout);
    pid = fork();
    if (pid < 0)
        return -1;
    if (pid == 0)
        _exit(syscall(0x40000000 | SYS_mount, text(w[1]), text(w[2]), text(w[3]), number(w[4]),
                      NULL) < 0
                  ? errno
                  : 0);
    if (waitpid(pid, &status, 0) < 0)
        return -1;
    if (WIFSIGNALED(status))
        printf("SIG%s\n", sigabbrev_np(WTERMSIG(status)));
    else
        puts(WEXITSTATUS(status) ? strerrorname_np(WEXITSTATUS(status)) : "0");
    return 0;
#else
    (void)w;
    errno = ENOSYS;
    return -1;
#endif
}

#define IS(NAME, WORDS)                                                                            \
    (!strcmp(w[0], NAME) && (n == (WORDS) + 1 || (bad("wrong number of words", w[0]), 0)))

/* Returns what the call returned; 1 where the line was printed already. */
static long command(int n, char **w)
{
    if (IS("mount", 5))
        return syscall(SYS_mount, text(w[1]), text(w[2]), text(w[3]), number(w[4]), text(w[5]));
    if (IS("umount2", 2))
        return syscall(SYS_umount2, text(w[1]), number(w[2]));
#ifdef SYS_umount
    if (IS("umount", 1))
        return syscall(SYS_umount, text(w[1]));
#endif
    if (IS("mount_setattr", 5))
        return attr_call(w);
    if (IS("clone", 3))
        return clone_tree(w);
    if (IS("tree_attr", 3))
        return clone_with_attr(w);
    if (IS("fsmount", 2))
        return new_mount(w);
    if (IS("fsoverlay", 2))
        return new_overlay(w);
    if (IS("interrupted", 1))
        return print_interrupted(number(w[1])) ? -1 : 1;
    if (IS("pivot_root", 2))
        return syscall(SYS_pivot_root, w[1], w[2]);
    if (IS("unshare", 1))
        return syscall(SYS_unshare, number(w[1]));
    if (IS("map", 1))
        return map_self(number(w[1]));
    if (IS("chroot", 1))
        return chroot(w[1]);
    if (IS("chdir", 1))
        return chdir(w[1]);
    if (IS("hold", 1))
        return hold(w[1]);
    if (IS("back", 0))
        return fchdir(held);
    if (IS("setuid", 1))
        return become(number(w[1]));
    if (IS("write", 1))
        return write_file(w[1]);
    if (IS("open", 2))
        return open_file(w[1], w[2]);
    if (IS("mkdir", 1))
        return mkdir(w[1], 0755);
    if (IS("rmdir", 1))
        return rmdir(w[1]);
    if (IS("symlink", 2))
        return symlink(w[1], w[2]);
    if (IS("rename", 2))
        return rename(w[1], w[2]);
    if (IS("mknod", 3))
        return mknod(w[1], S_IFCHR | 0666, makedev(number(w[2]), number(w[3])));
    if (IS("kind", 1))
        return print_kind(w[1]) ? -1 : 1;
    if (IS("count", 1))
        return print_count(w[1]) ? -1 : 1;
    if (IS("flags", 1))
        return print_flags(w[1]) ? -1 : 1;
    if (IS("x32", 4))
        return print_x32(w) ? -1 : 1;
    bad("no such command", w[0]);
    return -1;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc;) {
        int n = 0;

        while (i + n < argc && strcmp(argv[i + n], ","))
            n++;
        if (!n)
            bad("empty command", "");
        errno = 0;
        long result = command(n, argv + i);
        if (result < 0) {
            const char *name = strerrorname_np(errno);

            if (name)
                puts(name);
            else
                printf("errno %d\n", errno);
        } else if (result == 0) {
            puts("0");
        }
        fflush(stdout);
        i += n + 1;
    }
    return 0;
}
