/*
 * sequence - the calls of a script, each script in a mount namespace of its own, for tests.
 *
 * Scripts come on stdin, answers go to stdout, both in lines; words are separated by one space.
 *
 *     S NAME BITS          begins a script; 1: ask before each call, 2: exec over /proc/self/root
 *     MODE CALL ARGUMENT...
 *     E                    ends it: it runs now, in a child that unshares its mount namespace
 *
 * MODE says who calls: `.` the child, `t` a thread of it, `T` one with a root and cwd of its own,
 * `f` a fork, `n` a fork with a new mount namespace, `u` one with a new user namespace as well.
 * An argument of a call that takes a string is `-` (null), `*HEX` (an address), or text with %XX
 * escapes: `=text`, `>text` with its end at an unmapped page, `!text` without its end.
 *
 * Answers: `M LINE` (mountinfo, after an `N`), `R NUMBER RESULT` for each call: 0 or
 * -errno; S: not made; U-errno: no namespace for it.  `D STATUS` at the end.  When asking: `F ...`,
 * what the call's paths stand for (after an `X LINE` for each mount of a detached tree), then one
 * byte is read: `g` makes the call, anything else does not.
 *
 * Each thread that calls is named NAME.NUMBER, so that a trace tells which call it saw.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SCRIPT = 60, PROC, MOUNTS, TOP, SLOTS = 100, N_SLOTS = 8 };
enum { PAGE = 4096, AREAS = 5, MAX_WORDS = 9, N_ATTR = 16, SCRIPT_SIZE = 1 << 20 };
enum { ASK = 1, EXEC = 2 };

static char script[SCRIPT_SIZE];
static size_t script_used;
static char out[1 << 16];
static size_t out_used;
static char seen[1 << 18]; /* the mount table that was shown last */
static char table[1 << 18];
static char *areas[AREAS]; /* two pages for a string, and one that nobody may read */
static const char *name;
static const char *self;
static unsigned int bits;
static bool chrooted; /* chroot has led elsewhere than to TOP, the root of the mount table */

static void flush(void)
{
    size_t done = 0;

    while (done < out_used) {
        ssize_t n = write(1, out + done, out_used - done);

        if (n <= 0)
            _exit(3);
        done += (size_t)n;
    }
    out_used = 0;
}

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
    va_list args;
    int n;

    if (out_used > sizeof(out) / 2)
        flush();
    va_start(args, format);
    n = vsnprintf(out + out_used, sizeof(out) - out_used, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof(out) - out_used)
        _exit(3);
    out_used += (size_t)n;
}

/* What the test itself needs failed: nothing was tested. */
static void give_up(const char *what)
{
    say("! %s: %s\n", what, strerrorname_np(errno));
    flush();
    _exit(2);
}

/* -- arguments -------------------------------------------------------------------------- */

static unsigned long long number(const char *word)
{
    return strtoull(word, NULL, 16);
}

static size_t decode(const char *word, char *to)
{
    size_t n = 0;

    for (; *word && n < 2 * PAGE - 1; word++) {
        if (*word == '%' && word[1] && word[2]) {
            const char hex[3] = {word[1], word[2], 0};

            to[n++] = (char)strtoul(hex, NULL, 16);
            word += 2;
        } else {
            to[n++] = *word;
        }
    }
    to[n] = 0;
    return n;
}

static const char *text(unsigned int area, const char *word)
{
    char plain[2 * PAGE];
    char *at = areas[area];
    size_t n;

    if (*word == '-')
        return NULL;
    if (*word == '*')
        return (const char *)(uintptr_t)number(word + 1);
    n = decode(word + 1, plain);
    memset(at, 0, 2 * PAGE);
    if (*word == '>')
        at += 2 * PAGE - n - 1;
    else if (*word == '!')
        at += 2 * PAGE - n;
    else if (n + 200 < 2 * PAGE)
        at += 100;
    memcpy(at, plain, *word == '!' ? n : n + 1);
    return at;
}

static int fd_of(const char *word)
{
    if (*word == 'c')
        return AT_FDCWD;
    return *word == 'b' ? 999 : SLOTS + (int)number(word);
}

/* -- the mount table, and what a path stands for ------------------------------------------ */

static void open_mounts(void)
{
    int fd = openat(PROC, "thread-self/mountinfo", O_RDONLY);
    int top = open("/", O_PATH);

    if (fd < 0 || dup2(fd, MOUNTS) < 0 || top < 0 || dup2(top, TOP) < 0)
        give_up("mountinfo");
    close(fd);
    close(top);
    chrooted = false;
}

static void show_table(bool always)
{
    size_t have = 0;
    ssize_t n;

    if (lseek(MOUNTS, 0, SEEK_SET) < 0)
        give_up("mountinfo");
    while ((n = read(MOUNTS, table + have, sizeof(table) - 1 - have)) > 0)
        have += (size_t)n;
    table[have] = 0;
    if (!always && strcmp(table, seen) == 0)
        return;
    strcpy(seen, table);
    say("N\n");
    for (char *rest = table, *line; (line = strsep(&rest, "\n")) && *line;)
        say("M %s\n", line);
}

/* What an *at() call is given: `how` is O_NOFOLLOW or 0, `may_be_empty` says AT_EMPTY_PATH. */
struct at {
    int dfd;
    const char *path;
    int how;
    bool may_be_empty;
};

static int open_at(const struct at *at)
{
    int fd = (int)syscall(SYS_openat, at->dfd, at->path, O_PATH | O_CLOEXEC | at->how);

    /* Where the kernel found nothing it has read the path, so we can. */
    if (fd >= 0 || !at->may_be_empty || (at->path && (errno != ENOENT || *at->path)))
        return fd;
    return at->dfd == AT_FDCWD ? open(".", O_PATH | O_CLOEXEC) : fcntl(at->dfd, F_DUPFD, 300);
}

static bool is_in_table(unsigned long long mount)
{
    char start[32];
    size_t n = (size_t)snprintf(start, sizeof(start), "%llu ", mount);

    for (const char *line = seen; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, start, n) == 0)
            return true;
    }
    return false;
}

static long caps(unsigned long long take);

/* Returns the id of the mount that was made for it, 0 if none was, or -1. */
static long long attach_somewhere(int copy)
{
    struct statx stx;
    int context, tree;

    if (syscall(SYS_move_mount, copy, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) == 0)
        return 0;
    /* A file. */
    context = (int)syscall(SYS_fsopen, "tmpfs", 0);
    if (syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return -1;
    tree = (int)syscall(SYS_fsmount, context, 0, 0);
    if (statx(tree, "", AT_EMPTY_PATH, STATX_MNT_ID, &stx) < 0 ||
        mknodat(tree, "file", S_IFREG | 0600, 0) < 0 ||
        syscall(SYS_move_mount, tree, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return -1;
    if (syscall(SYS_move_mount, copy, "", tree, "file", MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return -1;
    return (long long)stx.stx_mnt_id;
}

/* A copy of a detached tree, attached where nobody else is, tells its mounts. */
static void show_detached(int fd)
{
    pid_t pid;
    int status;

    flush();
    pid = fork();
    if (pid == 0) {
        int copy =
            (int)syscall(SYS_open_tree, fd, "", AT_EMPTY_PATH | AT_RECURSIVE | OPEN_TREE_CLONE);

        /* In a mount namespace of its own, and in its root, wherever chroot has led. */
        if (copy < 0 || caps(0) < 0 || unshare(CLONE_NEWNS) < 0 ||
            setns(openat(PROC, "thread-self/ns/mnt", O_RDONLY), CLONE_NEWNS) < 0 ||
            mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
            _exit(0);
        open_mounts();
        show_table(true);
        out_used = 0;
        long long made = attach_somewhere(copy);
        if (made < 0 || lseek(MOUNTS, 0, SEEK_SET) < 0)
            _exit(0);
        ssize_t n = read(MOUNTS, table, sizeof(table) - 1);
        table[n < 0 ? 0 : n] = 0;
        for (char *rest = table, *line; (line = strsep(&rest, "\n")) && *line;)
            if (!is_in_table(strtoull(line, NULL, 10)) && atoll(line) != made)
                say("X %s\n", line);
        flush();
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) < 0)
        give_up("fork");
}

struct name {
    int fd;
    bool from_top;
    char text[PAGE];
    ssize_t length;
};

static void *read_name(void *context)
{
    struct name *it = context;
    char link[64];

    if (it->from_top &&
        (unshare(CLONE_FS) < 0 || caps(0) < 0 || fchdir(TOP) < 0 || chroot(".") < 0))
        return NULL;
    snprintf(link, sizeof(link), "self/fd/%d", it->fd);
    it->length = readlinkat(PROC, link, it->text, sizeof(it->text));
    return NULL;
}

/*
 * What the mount table calls that which `fd` stands for.  The kernel tells a name from the root of
 * whoever asks, or of the mount namespace where it cannot be reached from there; so after chroot a
 * thread asks that has the root of the table.
 */
static void name_fd(struct name *name, int fd)
{
    pthread_t thread;

    name->fd = fd;
    name->from_top = chrooted;
    name->length = -1;
    if (!chrooted)
        read_name(name);
    else if (pthread_create(&thread, NULL, read_name, name) || pthread_join(thread, NULL))
        give_up("thread");
    if (name->length < 0)
        give_up("name");
}

static void say_place(const struct at *at)
{
    struct name name;
    struct statx stx;
    int fd = open_at(at);

    if (fd < 0) {
        say(" %d", errno);
        return;
    }
    if (statx(fd, "", AT_EMPTY_PATH, STATX_INO | STATX_MNT_ID, &stx) < 0)
        give_up("statx");
    name_fd(&name, fd);
    close(fd);
    say(" 0:%llu:%d:", (unsigned long long)stx.stx_mnt_id,
        (stx.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0);
    for (ssize_t i = 0; i < name.length; i++) {
        unsigned char c = (unsigned char)name.text[i];

        if (c <= ' ' || c == '%' || c >= 0x7f)
            say("%%%02X", c);
        else
            say("%c", c);
    }
}

static bool may_mount(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];

    if (syscall(SYS_capget, &head, data) < 0)
        give_up("capget");
    return data[0].effective & (1u << CAP_SYS_ADMIN);
}

/* May the call be made?  `to` and `from` are its paths. */
static bool ask(bool may, const struct at *to, const struct at *from, const char *word, bool other)
{
    char answer;

    if (!(bits & ASK))
        return true;
    show_table(other);
    may = may && may_mount();
    if (may && to && word && !strcmp(word, "detached")) {
        int fd = open_at(to);
        struct statx stx;

        if (fd >= 0 && statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &stx) == 0 &&
            !is_in_table(stx.stx_mnt_id))
            show_detached(fd);
        if (fd >= 0)
            close(fd);
    }
    say("F %d", may);
    if (to)
        say_place(to);
    if (from)
        say_place(from);
    if (word)
        say(" %s", word);
    say("\n");
    flush();
    if (read(0, &answer, 1) != 1)
        _exit(3);
    return answer == 'g';
}

/* -- calls --------------------------------------------------------------------------------- */

static long caps(unsigned long long take)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];

    if (syscall(SYS_capget, &head, data) < 0)
        return -1;
    data[0].effective = data[0].permitted & ~(uint32_t)take;
    data[1].effective = data[1].permitted & ~(uint32_t)(take >> 32);
    return syscall(SYS_capset, &head, data);
}

static long hold(int slot, long fd)
{
    if (fd < 0)
        return -1;
    if (dup3((int)fd, slot, O_CLOEXEC) < 0)
        give_up("dup3");
    close((int)fd);
    return 0;
}

#define SKIPPED 1L /* no call of this family returns it */

/* DFD PATH FLAGS ATTR SIZE; ATTR is an address or, after = or >, words with commas between. */
static long set_attr(char **w, bool other)
{
    struct at at = {.dfd = fd_of(w[1]), .path = text(0, w[2])};
    unsigned long flags = (unsigned long)number(w[3]), size = (unsigned long)number(w[5]);
    const void *attr;

    at.how = flags & AT_SYMLINK_NOFOLLOW ? O_NOFOLLOW : 0;
    at.may_be_empty = (flags & AT_EMPTY_PATH) && at.path;
    if (*w[4] == '*') {
        attr = text(1, w[4]);
    } else {
        uint64_t words[N_ATTR] = {0};
        char *rest = w[4] + 1, *word, *place = areas[1];

        for (int i = 0; i < N_ATTR && (word = strsep(&rest, ","));)
            words[i++] = number(word);
        memset(place, 0, 2 * PAGE);
        if (*w[4] == '>')
            place += 2 * PAGE - 4 * sizeof(*words);
        memcpy(place, words, *w[4] == '>' ? 4 * sizeof(*words) : sizeof(words));
        attr = place;
    }
    /* What is wrong with the attributes is told before the path is looked at. */
    bool may = (bits & ASK) && !(flags & ~0x9900ul) &&
               syscall(SYS_mount_setattr, -1, "", AT_EMPTY_PATH | (flags & AT_RECURSIVE), attr,
                       size) < 0 &&
               errno == EBADF;
    return ask(may, &at, NULL, "detached", other)
               ? syscall(SYS_mount_setattr, at.dfd, at.path, flags, attr, size)
               : SKIPPED;
}

static char types[N_SLOTS][16]; /* of the file system contexts */

static long hold_context(int slot, long fd, const char *type)
{
    long r = hold(slot, fd);

    if (r == 0)
        snprintf(types[slot - SLOTS], sizeof(types[0]), "%s", type);
    return r;
}

static long open_fs(char **w)
{
    const char *type = text(0, w[2]);

    return hold_context(fd_of(w[1]), syscall(SYS_fsopen, type, number(w[3])), type);
}

static long move(char **w, bool other)
{
    unsigned long flags = (unsigned long)number(w[5]);
    struct at from = {fd_of(w[1]), text(0, w[2]), flags & 1 ? 0 : O_NOFOLLOW, flags & 4};
    struct at to = {fd_of(w[3]), text(1, w[4]), flags & 0x10 ? 0 : O_NOFOLLOW, flags & 0x40};

    return ask(true, &to, &from, NULL, other)
               ? syscall(SYS_move_mount, from.dfd, from.path, to.dfd, to.path, flags)
               : SKIPPED;
}

static long config(char **w)
{
    unsigned int cmd = (unsigned int)number(w[2]);
    int aux = cmd == FSCONFIG_SET_FD || cmd == FSCONFIG_SET_PATH || cmd == FSCONFIG_SET_PATH_EMPTY
                  ? fd_of(w[5])
                  : (int)number(w[5]);

    return syscall(SYS_fsconfig, fd_of(w[1]), cmd, text(0, w[3]), text(1, w[4]), aux);
}

static long try_open(const char *path, int how)
{
    long fd = syscall(SYS_openat, AT_FDCWD, path, how | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

    return fd < 0 ? -1 : close((int)fd);
}

/* Keeps up whether the root is that of the mount table. */
static long change_root(const char *path)
{
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_PATH | O_CLOEXEC);
    struct name name = {.length = 0};
    int error;
    long r;

    if (fd >= 0) {
        name_fd(&name, fd);
        close(fd);
    }
    r = syscall(SYS_chroot, path);
    error = errno;
    if (r == 0)
        chrooted = name.length > 1;
    errno = error;
    return r;
}

static long pivot(const char *new, const char *old)
{
    long r = syscall(SYS_pivot_root, new, old);
    int error = errno;

    if (r == 0)
        open_mounts();
    errno = error;
    return r;
}

#define IS(NAME, WORDS) (n == (WORDS) + 1 && !strcmp(w[0], NAME))

static bool ask_umount(const char *to, unsigned long flags, bool other)
{
    struct at at = {AT_FDCWD, to, flags & UMOUNT_NOFOLLOW ? O_NOFOLLOW : 0, false};

    return ask(true, &at, NULL, NULL, other);
}

static long call(int n, char **w, unsigned int index, bool other)
{
    if (IS("mount", 5)) {
        unsigned long flags = (unsigned long)number(w[4]);
        const char *from = text(0, w[1]), *to = text(1, w[2]), *type = text(2, w[3]);
        const char *data = text(3, w[5]);

        return ask(true, &(struct at){AT_FDCWD, to, 0, false},
                   &(struct at){AT_FDCWD, from, 0, false}, NULL, other)
                   ? syscall(SYS_mount, from, to, type, flags, data)
                   : SKIPPED;
    }
    if (IS("umount2", 2)) {
        unsigned long flags = (unsigned long)number(w[2]);
        const char *to = text(0, w[1]);

        return ask_umount(to, flags, other) ? syscall(SYS_umount2, to, flags) : SKIPPED;
    }
    /* Twice, with nothing between: what asks before the second call would count as a use. */
    if (IS("expire", 2)) {
        unsigned long flags = (unsigned long)number(w[2]) | MNT_EXPIRE;
        const char *to = text(0, w[1]);

        if (!ask_umount(to, flags, other))
            return SKIPPED;
        /*
         * Any mount that comes or goes anywhere at this moment can make the kernel forget the mark
         * (legitimize_mnt() in fs/namei.c lets go of the mount, and that counts as use).
         */
        for (int tries = 1; syscall(SYS_umount2, to, flags) < 0; tries++) {
            if (tries > 1 && (errno != EAGAIN || tries == 100))
                return -1;
            say("R %u -%d\n", index, errno);
        }
        return 0;
    }
    if (IS("umount", 1)) {
#ifdef SYS_umount
        const char *to = text(0, w[1]);

        return ask_umount(to, 0, other) ? syscall(SYS_umount, to) : SKIPPED;
#else
        errno = ENOSYS;
        return -1;
#endif
    }
    if (IS("open_tree", 4))
        return hold(fd_of(w[1]), syscall(SYS_open_tree, fd_of(w[2]), text(0, w[3]), number(w[4])));
    if (IS("move_mount", 5))
        return move(w, other);
    if (IS("fsopen", 3))
        return open_fs(w);
    if (IS("fsconfig", 5))
        return config(w);
    if (IS("fsmount", 4)) {
        int slot = fd_of(w[2]) - SLOTS;
        const char *type = slot >= 0 && slot < N_SLOTS && *types[slot] ? types[slot] : "?";

        if (!ask(true, NULL, NULL, type, other))
            return SKIPPED;
        return hold(fd_of(w[1]), syscall(SYS_fsmount, fd_of(w[2]), number(w[3]), number(w[4])));
    }
    if (IS("fspick", 4)) {
        long r = syscall(SYS_fspick, fd_of(w[2]), text(0, w[3]), number(w[4]));

        return hold_context(fd_of(w[1]), r, "picked");
    }
    if (IS("mount_setattr", 5))
        return set_attr(w, other);
    if (IS("pivot_root", 2))
        return pivot(text(0, w[1]), text(1, w[2]));
    if (IS("chdir", 1))
        return syscall(SYS_chdir, text(0, w[1]));
    if (IS("chroot", 1))
        return change_root(text(0, w[1]));
    if (IS("fchdir", 1))
        return syscall(SYS_fchdir, fd_of(w[1]));
    if (IS("hold", 3))
        return hold(fd_of(w[1]),
                    syscall(SYS_openat, AT_FDCWD, text(0, w[2]), number(w[3]) | O_NONBLOCK));
    if (IS("drop", 1))
        return close(fd_of(w[1]));
    if (IS("open", 2))
        return try_open(text(0, w[1]), (int)number(w[2]));
    if (IS("caps", 1))
        return caps(number(w[1]));
    if (IS("fsuid", 1))
        return syscall(SYS_setfsuid, (unsigned int)number(w[1])) * 0;
    if (IS("fsgid", 1))
        return syscall(SYS_setfsgid, (unsigned int)number(w[1])) * 0;
    if (IS("unshare", 1)) {
        /* The mount table of a new namespace would be that of the new root alone. */
        if (chrooted)
            return 0;
        long r = syscall(SYS_unshare, (unsigned long)number(w[1]));
        int error = errno;

        open_mounts();
        errno = error;
        return r;
    }
    errno = 0;
    give_up(w[0]);
    return -1;
}

struct job {
    unsigned int index;
    int n;
    char **w;
    char mode;
};

static void make_call(const struct job *job)
{
    char comm[16];
    long r;
    bool other = job->mode != '.' && job->mode != 't';

    snprintf(comm, sizeof(comm), "%s.%u", name, job->index);
    prctl(PR_SET_NAME, comm);
    errno = 0;
    r = call(job->n, job->w, job->index, other);
    if (r == SKIPPED)
        say("R %u S\n", job->index);
    else
        say("R %u %d\n", job->index, r < 0 ? -errno : 0);
    prctl(PR_SET_NAME, "between");
    if (other)
        seen[0] = 0;
}

static void *make_call_in_thread(void *arg)
{
    const struct job *job = arg;

    if (job->mode == 'T' && unshare(CLONE_FS) < 0)
        give_up("CLONE_FS");
    make_call(job);
    return NULL;
}

static int map_root(void)
{
    static const char *const files[] = {"setgroups", "uid_map", "gid_map"};

    for (int i = 0; i < 3; i++) {
        char path[32];
        const char *line = i ? "0 0 1" : "deny";
        int fd;

        snprintf(path, sizeof(path), "self/%s", files[i]);
        fd = openat(PROC, path, O_WRONLY);
        if (fd < 0)
            return -1;
        if (write(fd, line, strlen(line)) < 0)
            return -1;
        close(fd);
    }
    return 0;
}

static void make_call_in_fork(const struct job *job)
{
    int status;
    pid_t pid;

    flush();
    pid = fork();
    if (pid < 0)
        give_up("fork");
    if (pid > 0) {
        if (waitpid(pid, &status, 0) < 0 || status != 0)
            _exit(2);
        seen[0] = 0;
        return;
    }
    errno = 0;
    /* A thread whose ids differ from root's may not have the right to: that is an answer, too. */
    if ((job->mode == 'u' && (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0 || map_root() < 0)) ||
        (job->mode == 'n' && (chrooted || unshare(CLONE_NEWNS) < 0))) {
        say("R %u U%d\n", job->index, -errno);
    } else {
        if (job->mode != 'f')
            open_mounts();
        make_call(job);
    }
    flush();
    _exit(0);
}

static void run_line(unsigned int index, char *line)
{
    char *w[MAX_WORDS], *part;
    struct job job = {.index = index, .w = w + 1, .n = -1};
    pthread_t thread;

    while ((part = strsep(&line, " ")) && job.n < MAX_WORDS - 1)
        w[++job.n] = part;
    job.mode = *w[0];
    if (job.mode == '.') {
        make_call(&job);
    } else if (job.mode == 't' || job.mode == 'T') {
        if (pthread_create(&thread, NULL, make_call_in_thread, &job) || pthread_join(thread, NULL))
            give_up("thread");
    } else {
        make_call_in_fork(&job);
    }
}

static void run_script(void)
{
    unsigned int index = 0;

    for (char *rest = script, *line; (line = strsep(&rest, "\n")) && *line;)
        run_line(index++, line);
    show_table(true);
    flush();
}

/* -- the place where a script runs --------------------------------------------------------- */

static void make(const char *what, long result)
{
    if (result < 0)
        give_up(what);
}

static void touch(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

    make(path, fd);
    close(fd);
}

static void make_scratch(void)
{
    static const char *const directories[] = {"a",    "b",  "c",  "d",  "a/x", "b/x",
                                              "d/in", "lo", "up", "wk", "mg",  "p"};

    make("unshare", unshare(CLONE_NEWNS));
    make("private", mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL));
    make("tmpfs", mount("scratch", "/mnt", "tmpfs", 0, "mode=755"));
    make("chdir", chdir("/mnt"));
    for (size_t i = 0; i < sizeof(directories) / sizeof(*directories); i++)
        make(directories[i], mkdir(directories[i], 0755));
    make("chmod", chmod("p", 0700));
    touch("f");
    touch("a/g");
    touch("lo/g");
    make("symlink", symlink("a", "la"));
    make("symlink", symlink("/mnt/b", "lb"));
    make("symlink", symlink("f", "lf"));
    make("symlink", symlink("loop", "loop"));
    make("symlink", symlink("../..", "up/up"));
    make("symlink", symlink("nothing", "gone"));
}

static void prepare(void)
{
    for (int i = 0; i < AREAS; i++) {
        areas[i] = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (areas[i] == MAP_FAILED || mprotect(areas[i] + 2 * PAGE, PAGE, PROT_NONE) < 0)
            give_up("mmap");
    }
}

/* The second half of a script that came over /proc/self/root: `sequence NAME BITS`. */
static int go_on(char **argv)
{
    name = argv[1];
    bits = (unsigned int)number(argv[2]);
    prepare();
    if (pread(SCRIPT, script, sizeof(script) - 1, 0) < 0)
        give_up("script");
    run_script();
    return 0;
}

static void run_child(void)
{
    char digits[8];

    prctl(PR_SET_NAME, "setup");
    alarm(60);
    make_scratch();
    open_mounts();
    show_table(true);
    if (bits & EXEC) {
        char path[128];
        int fd = memfd_create("script", 0);

        if (fd < 0 || write(fd, script, script_used) < 0 || dup2(fd, SCRIPT) < 0)
            give_up("memfd");
        close(fd);
        flush();
        snprintf(path, sizeof(path), "/proc/self/root%s", self);
        snprintf(digits, sizeof(digits), "%x", bits);
        execl(path, self, name, digits, NULL);
        give_up(path);
    }
    run_script();
    _exit(0);
}

static void run(void)
{
    int status;
    pid_t pid;

    flush();
    pid = fork();
    if (pid == 0)
        run_child();
    if (pid < 0 || waitpid(pid, &status, 0) < 0)
        give_up("fork");
    say("D %x\n", (unsigned int)status);
    flush();
}

int main(int argc, char **argv)
{
    static char line[SCRIPT_SIZE], title[16];
    int fd;

    if (argc == 3)
        return go_on(argv);
    self = argc == 2 ? argv[1] : argv[0];
    prepare();
    fd = open("/proc", O_PATH | O_DIRECTORY);
    if (fd < 0 || dup2(fd, PROC) < 0)
        give_up("/proc");
    close(fd);
    /* Nothing comes behind a script before it has been answered, so a buffer takes nothing away. */
    while (fgets(line, sizeof(line), stdin)) {
        size_t n = strlen(line);

        if (*line == 'S') {
            char *rest = line + 2, *word = strsep(&rest, " ");

            snprintf(title, sizeof(title), "%.10s", word);
            name = title;
            bits = (unsigned int)number(rest);
            script_used = 0;
        } else if (*line == 'E') {
            script[script_used] = 0;
            run();
        } else if (script_used + n < sizeof(script)) {
            memcpy(script + script_used, line, n);
            script_used += n;
        } else {
            errno = E2BIG;
            give_up("script");
        }
    }
    return 0;
}
