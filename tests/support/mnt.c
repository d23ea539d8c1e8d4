/*
 * mnt - raw system calls by words, for tests.
 *
 *     mnt mount none /t tmpfs - - , umount2 /t MNT_DETACH , write /ro/x
 *
 * Commands are separated by a word ",".  Each prints one line: "0", a value, or the name of the
 * errno.  `-` is a null pointer or the number 0.  Flags are kernel names joined by "|", or numbers.
 * `twice COMMAND` waits in between, as `wait` does, and makes the very same call.
 * `mnt -`: commands come on stdin, one in a line, their words separated by tabs.
 * The calls are made by number, so that no C library, no busybox and no util-linux decides
 * anything. Exit status: 0, or 2 where a word was not understood (then nothing was tested).
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/mount.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
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
    {"CLONE_NEWNET", 0x40000000},
    {"CLONE_NEWIPC", 0x08000000},
    {"CLONE_NEWUTS", 0x04000000},
    {"CLONE_NEWCGROUP", 0x02000000},
    {"CLONE_FS", 0x200},
    {"MOUNT_ATTR_RDONLY", 1},
    {"MOUNT_ATTR_NOSUID", 2},
    {"MOUNT_ATTR_NODEV", 4},
    {"MOUNT_ATTR_NOEXEC", 8},
    {"MOUNT_ATTR_IDMAP", 0x100000},
    {"MOVE_MOUNT_F_EMPTY_PATH", 4},
    {"MOVE_MOUNT_T_EMPTY_PATH", 0x40},
    {"MOVE_MOUNT_SET_GROUP", 0x100},
    {"MOVE_MOUNT_BENEATH", 0x200},
    {"AT_RECURSIVE", 0x8000},
    {"AT_EMPTY_PATH", 0x1000},
    {"AT_SYMLINK_NOFOLLOW", 0x100},
    {"OPEN_TREE_CLONE", 1},
    {"FSCONFIG_SET_FLAG", 0},
    {"FSCONFIG_SET_STRING", 1},
    {"FSCONFIG_CMD_CREATE", 6},
    {"FSCONFIG_CMD_RECONFIGURE", 7},
    {"OPEN_TREE_NAMESPACE", 2},
    {"SA_RESTART", SA_RESTART},
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

/* A path: `''` is the empty one. */
static const char *path_of(const char *word)
{
    return strcmp(word, "''") ? text(word) : "";
}

/* Descriptors that later commands name by the number of a slot; `cwd` is AT_FDCWD. */
static int slots[16];

static int *slot(const char *word)
{
    unsigned long n = number(word);

    if (n >= sizeof slots / sizeof *slots)
        bad("no such slot", word);
    return &slots[n];
}

static int fd_of(const char *word)
{
    return strcmp(word, "cwd") ? *slot(word) : AT_FDCWD;
}

static long keep(const char *word, long fd)
{
    if (fd < 0)
        return -1;
    *slot(word) = (int)fd;
    return 0;
}

/* open_at SLOT DFD PATH: O_PATH.  open_dir SLOT PATH: a directory to read. */
static long open_at(char **w)
{
    return keep(w[1], openat(fd_of(w[2]), w[3], O_PATH | O_CLOEXEC));
}

/* open_tree SLOT DFD PATH FLAGS */
static long open_tree_call(char **w)
{
    return keep(w[1], syscall(428, fd_of(w[2]), path_of(w[3]), number(w[4])));
}

/* move_mount DFD PATH DFD PATH FLAGS */
static long move_mount_call(char **w)
{
    return syscall(429, fd_of(w[1]), path_of(w[2]), fd_of(w[3]), path_of(w[4]), number(w[5]));
}

/* setattr DFD PATH FLAGS SET CLEAR PROPAGATION */
static long setattr_call(char **w)
{
    uint64_t attr[4] = {number(w[4]), number(w[5]), number(w[6]), 0};

    return syscall(442, fd_of(w[1]), path_of(w[2]), number(w[3]), attr, sizeof attr);
}

/* fsconfig SLOT COMMAND KEY VALUE */
static long fsconfig_call(char **w)
{
    return syscall(431, *slot(w[1]), number(w[2]), text(w[3]), text(w[4]), 0);
}

/* fsmount_at SLOT CONTEXT ATTRIBUTES */
static long fsmount_call(char **w)
{
    return keep(w[1], syscall(432, *slot(w[2]), 0, number(w[3])));
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

static int tree = -1, context = -1;

/* tree SRC FLAGS: open_tree; what follows is about the fd that it gave. */
static long open_the_tree(char **w)
{
    tree = syscall(428, AT_FDCWD, w[1], number(w[2]));
    return tree < 0 ? -1 : 0;
}

/* attach DST FLAGS: move_mount of the tree. */
static long attach(char **w)
{
    return syscall(429, tree, "", AT_FDCWD, w[1], MOVE_MOUNT_F_EMPTY_PATH | number(w[2]));
}

/* onto SRC NAME: move_mount of a clone of SRC to NAME ("-": the root) in the tree. */
static long attach_onto(char **w)
{
    int fd = syscall(428, AT_FDCWD, w[1], OPEN_TREE_CLONE);
    const char *name = text(w[2]);

    return syscall(429, fd, "", tree, name ? name : "",
                   MOVE_MOUNT_F_EMPTY_PATH | (name ? 0 : MOVE_MOUNT_T_EMPTY_PATH));
}

/* tree_setattr FLAGS SET CLEAR PROPAGATION: mount_setattr of the tree. */
static long setattr_tree(char **w)
{
    uint64_t attr[4] = {number(w[2]), number(w[3]), number(w[4]), 0};

    return syscall(442, tree, "", AT_EMPTY_PATH | number(w[1]), attr, sizeof attr);
}

/* enter: fchdir to the tree. */
static long enter_tree(void)
{
    return fchdir(tree);
}

/* context TYPE: fsopen, fsconfig(CMD_CREATE). */
static long make_context(const char *type)
{
    context = syscall(430, type, 0);
    return context < 0 ? -1 : syscall(431, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
}

/* made: fsmount of the context. */
static long make_tree(void)
{
    tree = syscall(432, context, 0, 0);
    return tree < 0 ? -1 : 0;
}

/* descriptor PATH N: opens it, as N. */
static long open_as(const char *path, unsigned long n)
{
    int fd = open(path, O_RDWR);

    if (fd < 0 || dup2(fd, n) < 0)
        return -1;
    return close(fd);
}

static void say(const char *word)
{
    if (write(1, word, strlen(word)) < 0)
        exit(2);
}

static void on_signal(int unused)
{
    (void)unused;
    say("caught\n");
}

/* catch FLAGS: SIGUSR2 has a handler, which says so. */
static long catch_signal(unsigned long flags)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)flags};

    return sigaction(SIGUSR2, &action, NULL);
}

/* wait: says that it waits, until there is something to read. */
static long wait_for_word(void)
{
    char byte;

    say("waiting\n");
    return read(0, &byte, 1) == 1 ? 0 : -1;
}

static void *inherit(void *path)
{
    char byte;

    if (read(0, &byte, 1) == 1)
        execl("/proc/self/exe", "mnt", "wait", ",", "mounts", path, NULL);
    return NULL;
}

/* heir PATH: once there is something to read, another thread becomes `mnt wait , mounts PATH`. */
static long leave_to_heir(char *path)
{
    pthread_t thread;

    errno = pthread_create(&thread, NULL, inherit, path);
    return errno ? -1 : 0;
}

static sem_t heirs_turn;
static char *heirs_path;
static int turn[2];

static void *leave_siblings(void *flags)
{
    char byte = syscall(SYS_unshare, (unsigned long)(uintptr_t)flags) < 0;

    if (write(turn[1], &byte, 1) != 1 || sem_wait(&heirs_turn) < 0)
        return NULL;
    execl("/proc/self/exe", "mnt", "mount", heirs_path, heirs_path, "-", "MS_BIND", "-", ",",
          "mounts", heirs_path, NULL);
    return NULL;
}

/* thread_leaves FLAGS: another thread unshares that, and waits. */
static long let_thread_leave(unsigned long flags)
{
    pthread_t thread;
    char failed;

    if (pipe(turn) < 0 || sem_init(&heirs_turn, 0, 0) < 0)
        return -1;
    errno = pthread_create(&thread, NULL, leave_siblings, (void *)(uintptr_t)flags);
    return errno || read(turn[0], &failed, 1) != 1 || failed ? -1 : 0;
}

static int begin_apart(void *nothing)
{
    leave_siblings(nothing);
    return 0;
}

/* thread_apart FLAGS: a thread that is made with these flags of clone(2), and waits. */
static long make_thread_apart(unsigned long flags)
{
    static char stack[1 << 16] __attribute__((aligned(16)));
    int like_a_thread = CLONE_THREAD | CLONE_SIGHAND | CLONE_VM;
    char failed;

    if (pipe(turn) < 0 || sem_init(&heirs_turn, 0, 0) < 0)
        return -1;
    /* It has our thread-local storage, too: we do nothing more by then than wait. */
    if (clone(begin_apart, stack + sizeof stack, like_a_thread | (int)flags, NULL) < 0)
        return -1;
    return read(turn[0], &failed, 1) != 1 || failed ? -1 : 0;
}

/* exec_there PATH: that thread becomes `mnt mount PATH PATH - MS_BIND - , mounts PATH`. */
__attribute__((noreturn)) static void exec_in_thread(char *path)
{
    fflush(stdout);
    heirs_path = path;
    sem_post(&heirs_turn);
    for (;;)
        pause();
}

/* mounts PATH: how many mounts lie there. */
static int print_mounts(const char *path)
{
    FILE *file = fopen("/proc/self/mountinfo", "re");
    char line[8192], point[4096];
    int count = 0;

    if (!file)
        return -1;
    while (fgets(line, sizeof line, file))
        count += sscanf(line, "%*d %*d %*s %*s %4095s", point) == 1 && !strcmp(point, path);
    fclose(file);
    printf("%d\n", count);
    return 0;
}

/* join PID: setns to the mount namespace of that process. */
static long join_mounts_of(const char *pid)
{
    char path[64];
    int fd;

    snprintf(path, sizeof path, "/proc/%s/ns/mnt", pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -1 : setns(fd, CLONE_NEWNS);
}

/* namespace SRC: open_tree(OPEN_TREE_NAMESPACE) and setns to what it gave. */
static long join_new_namespace(const char *source)
{
    int fd = syscall(428, AT_FDCWD, source, 2 /* OPEN_TREE_NAMESPACE */ | AT_RECURSIVE);

    return fd < 0 ? -1 : setns(fd, CLONE_NEWNS);
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

/* attr_here PATH CLEAR: open_tree_attr without OPEN_TREE_CLONE changes the mount itself. */
static long attr_here(char **w)
{
    uint64_t attr[4] = {0, number(w[2]), 0, 0};

    return keep("14", syscall(467, AT_FDCWD, w[1], 0, attr, sizeof attr));
}

/* umount_fd SLOT FLAGS, setns SLOT|PATH FLAGS, and handles: by_handle MOUNT FILE. */
static long umount_fd(char **w)
{
    char path[64];

    snprintf(path, sizeof path, "/proc/self/fd/%d", fd_of(w[1]));
    return syscall(SYS_umount2, path, number(w[2]));
}

static long join(char **w)
{
    int ns = *w[1] == '/' ? open(w[1], O_RDONLY | O_CLOEXEC) : fd_of(w[1]);

    return ns < 0 ? -1 : syscall(SYS_setns, ns, number(w[2]));
}

union handle {
    struct file_handle head;
    char space[sizeof(struct file_handle) + MAX_HANDLE_SZ];
};

/* by_handle MOUNT FILE: opens FILE by its handle, anywhere in the file system of MOUNT. */
static long open_handle(char **w)
{
    union handle handle = {.head.handle_bytes = MAX_HANDLE_SZ};
    int mount = open(w[1], O_RDONLY | O_CLOEXEC), mount_id;

    if (mount < 0 || name_to_handle_at(AT_FDCWD, w[2], &handle.head, &mount_id, 0) < 0)
        return -1;
    return keep("14", open_by_handle_at(mount, &handle.head, O_RDONLY | O_CLOEXEC));
}

/* forged_handle MOUNT INODE: as ext4 and its like write them (FILEID_INO32_GEN). */
static long forge_handle(char **w)
{
    uint32_t inode[2] = {(uint32_t)number(w[2]), 0};
    union handle handle = {.head = {.handle_bytes = 8, .handle_type = 1}};
    int mount = open(w[1], O_RDONLY | O_CLOEXEC);

    memcpy(handle.head.f_handle, inode, sizeof inode);
    return mount < 0 ? -1
                     : keep("14", open_by_handle_at(mount, &handle.head, O_RDONLY | O_CLOEXEC));
}

/* signal PID N, trace PID, limit PID, poke PID ADDRESS, take_fd PID FD */
static long trace(pid_t pid)
{
    return ptrace(PTRACE_SEIZE, pid, NULL, NULL) < 0 ? -1 : 0;
}

static long set_limit(pid_t pid)
{
    struct rlimit limit = {1000, 1000};

    return prlimit(pid, RLIMIT_NOFILE, &limit, NULL);
}

static long poke(char **w)
{
    char byte = 'x';
    struct iovec from = {&byte, 1};
    struct iovec to = {(void *)number(w[2]), 1};

    return process_vm_writev((pid_t)number(w[1]), &from, 1, &to, 1, 0) == 1 ? 0 : -1;
}

static long take_fd(char **w)
{
    long pidfd = syscall(SYS_pidfd_open, number(w[1]), 0);

    return pidfd < 0 ? -1 : keep("14", syscall(SYS_pidfd_getfd, pidfd, number(w[2]), 0));
}

/* A filter that gives mount(2) `action`, and lets everything else through. */
static long filter(unsigned int action, unsigned int flags)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mount, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};

    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

/* lie ERRNO: mount(2) gets that answer (0: success) from a filter on top of all others. */
static long lie(unsigned long error)
{
    return filter(SECCOMP_RET_ERRNO | (unsigned int)error, 0);
}

/* agree: ... is let through by a filter on top of all others. */
static long agree(void)
{
    return filter(SECCOMP_RET_ALLOW, 0);
}

/* listen: mount(2) goes to a listener of our own. */
static long listener(void)
{
    long fd = filter(SECCOMP_RET_USER_NOTIF, SECCOMP_FILTER_FLAG_NEW_LISTENER);

    return fd < 0 ? -1 : close((int)fd);
}

/* fork: the commands that follow are a child's. */
static long go_on_in_child(void)
{
    int status;
    pid_t pid;

    fflush(stdout);
    pid = fork();
    if (pid <= 0)
        return pid;
    if (waitpid(pid, &status, 0) < 0)
        return -1;
    exit(WIFEXITED(status) ? WEXITSTATUS(status) : 3);
}

/* leave_one: a child that holds what has been unshared, and waits until it is killed. */
static pid_t left;

static void end_left(void)
{
    if (left > 0)
        kill(left, SIGKILL);
}

static long stay_behind(unsigned long flags)
{
    int ends[2];
    char done;

    if (pipe(ends) < 0)
        return -1;
    left = fork();
    if (left == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        done = unshare((int)flags) < 0;
        prctl(PR_SET_DUMPABLE, 1); /* or its entries of procfs are root's */
        if (write(ends[1], &done, 1) == 1)
            for (;;)
                pause();
        _exit(1);
    }
    atexit(end_left);
    if (left < 0 || read(ends[0], &done, 1) != 1 || done)
        return -1;
    return 0;
}

/* join_left KIND FLAGS: setns to a namespace of that child. */
static long join_left(char **w)
{
    char path[64];
    int fd;

    snprintf(path, sizeof path, "/proc/%d/ns/%s", left, w[1]);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -1 : syscall(SYS_setns, fd, number(w[2]));
}

static bool is_there(int ns, const char *path)
{
    return setns(ns, CLONE_NEWNS) == 0 && access(path, F_OK) == 0;
}

/* next_namespace PATH: NS_MNT_GET_NEXT and _PREV, until a mount namespace has PATH. */
static long walk_namespaces(const char *path)
{
    static const unsigned long requests[] = {0x8010b70b, 0x8010b70c};
    int found = ENOENT;

    for (int i = 0; i < 2; i++) {
        int ns = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);

        if (ns < 0)
            return -1;
        for (;;) {
            uint64_t info[2] = {16};
            int next = ioctl(ns, requests[i], info);

            if (next < 0 && errno != ENOENT)
                found = errno;
            close(ns);
            if (next < 0)
                break;
            ns = next;
            if (is_there(ns, path))
                return 0;
        }
    }
    errno = found;
    return -1;
}

struct ns_handle {
    unsigned int bytes;
    int type;
    uint64_t id;
    uint32_t kind, ino;
} __attribute__((packed, aligned(8)));

/* namespace_by_handle PATH: open_by_handle_at on nsfs, with ids near to our own. */
static long guess_namespaces(const char *path)
{
    int self = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
    struct ns_handle handle = {.bytes = 16};
    int mount_id, found = ENOENT;
    uint64_t own;

    if (name_to_handle_at(self, "", (struct file_handle *)&handle, &mount_id, AT_EMPTY_PATH) < 0)
        return -1;
    own = handle.id;
    handle.kind = handle.ino = 0;
    for (uint64_t id = own > 400 ? own - 400 : 1; id < own + 400; id++) {
        handle.id = id;
        int ns = open_by_handle_at(self, (struct file_handle *)&handle, O_RDONLY | O_CLOEXEC);

        if (ns < 0) {
            if (id == own)
                found = errno == ESTALE ? ENOENT : errno;
            continue;
        }
        if (id != own && is_there(ns, path))
            return 0;
        close(ns);
    }
    errno = found;
    return -1;
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

/* all_flags PATH: as a number, those of atime and of links among them. */
static int print_all_flags(const char *path)
{
    struct statvfs st;

    if (statvfs(path, &st) < 0)
        return -1;
    printf("%lx\n", st.f_flag);
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
    if (IS("open_at", 3))
        return open_at(w);
    if (IS("open_dir", 2))
        return keep(w[1], open(w[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (IS("open_tree", 4))
        return open_tree_call(w);
    if (IS("move_mount", 5))
        return move_mount_call(w);
    if (IS("setattr", 6))
        return setattr_call(w);
    if (IS("fsopen", 2))
        return keep(w[1], syscall(430, w[2], 0));
    if (IS("fspick", 2))
        return keep(w[1], syscall(433, AT_FDCWD, w[2], 0));
    if (IS("fsconfig", 4))
        return fsconfig_call(w);
    if (IS("fsmount_at", 3))
        return fsmount_call(w);
    if (IS("fchdir", 1))
        return fchdir(fd_of(w[1]));
    if (IS("close", 1))
        return close(fd_of(w[1]));
    if (IS("fork", 0))
        return go_on_in_child();
    if (IS("leave_one", 1))
        return stay_behind(number(w[1]));
    if (IS("next_namespace", 1))
        return walk_namespaces(w[1]);
    if (IS("namespace_by_handle", 1))
        return guess_namespaces(w[1]);
    if (IS("tree", 2))
        return open_the_tree(w);
    if (IS("attach", 2))
        return attach(w);
    if (IS("onto", 2))
        return attach_onto(w);
    if (IS("tree_setattr", 4))
        return setattr_tree(w);
    if (IS("enter", 0))
        return enter_tree();
    if (IS("context", 1))
        return make_context(w[1]);
    if (IS("made", 0))
        return make_tree();
    if (IS("descriptor", 2))
        return open_as(w[1], number(w[2]));
    if (IS("catch", 1))
        return catch_signal(number(w[1]));
    if (IS("wait", 0))
        return wait_for_word();
    if (IS("heir", 1))
        return leave_to_heir(w[1]);
    if (IS("mounts", 1))
        return print_mounts(w[1]) ? -1 : 1;
    if (IS("join_mounts", 1))
        return join_mounts_of(w[1]);
    if (IS("namespace", 1))
        return join_new_namespace(w[1]);
    if (IS("interrupted", 1))
        return print_interrupted(number(w[1])) ? -1 : 1;
    if (IS("pivot_root", 2))
        return syscall(SYS_pivot_root, w[1], w[2]);
    if (IS("unshare", 1))
        return syscall(SYS_unshare, number(w[1]));
    if (IS("thread_leaves", 1))
        return let_thread_leave(number(w[1]));
    if (IS("join_left", 2))
        return join_left(w);
    if (IS("thread_apart", 1))
        return make_thread_apart(number(w[1]));
    if (IS("exec_there", 1))
        exec_in_thread(w[1]);
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
    if (IS("keep_ns", 1))
        return keep(w[1], open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC));
    if (IS("enter_ns", 1))
        return setns(fd_of(w[1]), CLONE_NEWNS);
    if (IS("attr_here", 2))
        return attr_here(w);
    if (IS("umount_fd", 2))
        return umount_fd(w);
    if (IS("setns", 2))
        return join(w);
    if (IS("by_handle", 2))
        return open_handle(w);
    if (IS("forged_handle", 2))
        return forge_handle(w);
    if (IS("signal", 2))
        return kill((pid_t)number(w[1]), (int)number(w[2]));
    if (IS("trace", 1))
        return trace((pid_t)number(w[1]));
    if (IS("limit", 1))
        return set_limit((pid_t)number(w[1]));
    if (IS("poke", 2))
        return poke(w);
    if (IS("take_fd", 2))
        return take_fd(w);
    if (IS("lie", 1))
        return lie(number(w[1]));
    if (IS("agree", 0))
        return agree();
    if (IS("listen", 0))
        return listener();
    if (IS("unlink", 1))
        return unlink(w[1]);
    if (IS("rename_at", 4))
        return renameat(fd_of(w[1]), w[2], fd_of(w[3]), w[4]);
    if (IS("exchange", 2))
        return syscall(SYS_renameat2, AT_FDCWD, w[1], AT_FDCWD, w[2], RENAME_EXCHANGE);
    if (IS("mknod", 4))
        return mknod(w[1], (strcmp(w[2], "b") ? S_IFCHR : S_IFBLK) | 0666,
                     makedev(number(w[3]), number(w[4])));
    if (IS("kind", 1))
        return print_kind(w[1]) ? -1 : 1;
    if (IS("count", 1))
        return print_count(w[1]) ? -1 : 1;
    if (IS("flags", 1))
        return print_flags(w[1]) ? -1 : 1;
    if (IS("all_flags", 1))
        return print_all_flags(w[1]) ? -1 : 1;
    if (IS("x32", 4))
        return print_x32(w) ? -1 : 1;
    bad("no such command", w[0]);
    return -1;
}

static void run(int n, char **words)
{
    long result;

    errno = 0;
    result = command(n, words);
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
}

static int converse(void)
{
    static char line[4096];

    while (fgets(line, sizeof line, stdin)) {
        char *words[16] = {0}, *rest = line, *word;
        int n = 0;

        line[strcspn(line, "\n")] = 0;
        while ((word = strsep(&rest, "\t"))) {
            if (n == 16)
                bad("too many words", word);
            words[n++] = word;
        }
        run(n, words);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "-"))
        return converse();
    for (int i = 1; i < argc;) {
        int n = 0;

        while (i + n < argc && strcmp(argv[i + n], ","))
            n++;
        if (!n)
            bad("empty command", "");
        if (!strcmp(argv[i], "twice")) {
            run(n - 1, argv + i + 1);
            if (wait_for_word() < 0)
                return 2;
            run(n - 1, argv + i + 1);
        } else {
            run(n, argv + i);
        }
        i += n + 1;
    }
    return 0;
}
