/* SPDX-License-Identifier: Apache-2.0 */
/*
 * eci-runtime: the OCI runtime that engines call.
 *
 * An engine calls its runtime about four times per container, and only create, run and
 * restore need the bundle rewritten.  That the Python half does: a child of the fork server, or
 * where there is none an interpreter that this process becomes.  In the end this process is runc or
 * crun, so that stdio, signals, and the exit code are the runtime's own; every other sub-command
 * goes there with the words that the engine gave.
 *
 * Called as eci-runtime-crun (a link whose name contains "crun"), or with ECI_RUNTIME=crun in
 * the environment, it stands before crun, else before runc.
 *
 * The runtime is the first of that name on PATH that is not this program: a directory first in an
 * engine's PATH may hold the name linked to us.  Where a link `NAME.real` lies beside the path
 * that we were called by, it is what that names, and nothing else.
 *
 * Called as containerd-shim-ANYTHING it refuses: the name stands before a shim that starts
 * containers without runc or crun.  An engine that an ordinary user runs in a user namespace of his
 * own gets the bare runtime: there is nothing of the host's that root in it could do more than he.
 */
#include "compat.h"
#include "fork_client.h"
#include "guard.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#ifndef ECI_PYTHON
#error "ECI_PYTHON: the interpreter that has the package eci_supervisor"
#endif

static const char FALLBACK_PATH[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
static const char UNIFIED[] = "/sys/fs/cgroup/unified";

static const char SHIM[] = "containerd-shim";

enum { MAX_PRESERVED = 1 << 16 }; /* descriptors that a caller may pass on */

/* Set while this process becomes the runtime: its pid and start time. */
static const char LAUNCHED[] = "ECI_LAUNCHED";

/*
 * An ELF note, by which a copy of this program, or another version of it, knows it for what it
 * is.  The linker puts notes beside the headers, into the first page.
 */
struct note {
    uint32_t name_size;
    uint32_t size;
    uint32_t type;
    char name[4];
    char text[20];
};
#define NOTE_TEXT "eci-runtime launcher"
__attribute__((used, aligned(4), section(".note.eci"))) static const struct note NOTE = {
    .name_size = 4,
    .size = sizeof(NOTE_TEXT) - 1,
    .type = 1,
    .name = "eci",
    .text = {'e', 'c', 'i', '-', 'r', 'u', 'n', 't', 'i', 'm',
             'e', ' ', 'l', 'a', 'u', 'n', 'c', 'h', 'e', 'r'},
};

/* What the command line says, as far as this program must know. */
struct call {
    bool crun;
    const char *subcommand; /* NULL: there is none */
    int at;                 /* its argv index */
    const char *root;       /* the runtime's state directory */
    const char *log;        /* NULL: stderr alone */
    bool json;
    int settings; /* argv index of our own --settings, 0 if absent */
    int settings_words;
};

/* Writes TEXT as the inside of a JSON string. */
static void put_json(FILE *out, const char *text)
{
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;

        if (c == '"' || c == '\\')
            fprintf(out, "\\%c", c);
        else if (c < 0x20)
            fprintf(out, "\\u%04x", c);
        else
            fputc(c, out);
    }
}

/* Says what went wrong as the runtime would: on stderr, and in its --log.  Returns 1. */
static int fail(const struct call *call, const char *what, const char *which, int error)
{
    char message[PATH_MAX + 256];
    char stamp[32] = "";
    time_t now = time(NULL);
    struct tm tm;

    snprintf(message, sizeof(message), "eci-runtime: %s%s%s%s", what, which, error != 0 ? ": " : "",
             error != 0 ? strerror(error) : "");
    fprintf(stderr, "%s\n", message);
    if (call->log == NULL || strcmp(call->log, "/dev/stderr") == 0)
        return 1;
    FILE *log = fopen(call->log, "ae");
    if (log == NULL)
        return 1;
    if (gmtime_r(&now, &tm) != NULL)
        strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%SZ", &tm);
    if (call->json)
        fputs("{\"level\":\"error\",\"msg\":\"", log);
    else if (call->crun)
        fprintf(log, "%s: ", stamp);
    else
        fprintf(log, "time=\"%s\" level=error msg=\"", stamp);
    put_json(log, message);
    if (call->json)
        fprintf(log, "\",\"time\":\"%s\"}\n", stamp);
    else
        fputs(call->crun ? "\n" : "\"\n", log);
    fclose(log);
    return 1;
}

/* The name of a global flag that takes a value, or NULL.  crun takes unique beginnings. */
static const char *valued_flag(const char *name, size_t size, bool crun)
{
    static const char *const names[] = {
        "log", "log-format", "root", "rootless", "criu", "cgroup-manager", "log-level", "settings",
    };
    const char *found = NULL;
    size_t i;

    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strncmp(names[i], name, size) != 0)
            continue;
        if (names[i][size] == '\0')
            return names[i];
        if (crun && found == NULL)
            found = names[i];
    }
    return found;
}

/* Reads the global flags and finds the sub-command. */
static void read_words(struct call *call, int argc, char **argv)
{
    int i;

    for (i = 1; i < argc; i++) {
        const char *word = argv[i];

        /* A lone "-" is no flag: neither runtime takes it for one. */
        if (word[0] != '-' || word[1] == '\0' || strcmp(word, "--") == 0) {
            call->at = strcmp(word, "--") != 0 ? i : i + 1;
            call->subcommand = argv[call->at];
            return;
        }
        const char *name = word + strspn(word, "-");
        size_t size = strcspn(name, "=");
        const char *flag = valued_flag(name, size, call->crun && word[1] == '-');
        if (flag == NULL)
            continue;
        int words = name[size] == '=' ? 1 : 2;
        const char *value = words == 1 ? name + size + 1 : i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(flag, "log") == 0)
            call->log = value;
        else if (strcmp(flag, "root") == 0)
            call->root = value;
        else if (strcmp(flag, "log-format") == 0)
            call->json = strcmp(value, "json") == 0;
        else if (strcmp(flag, "settings") == 0 && call->settings == 0) {
            call->settings = i;
            call->settings_words = words;
        }
        i += words - 1;
    }
}

/* Whether FD, a program, is this one, by identity or by its note. */
static bool is_this_program(int fd, const struct stat *st)
{
    char head[4096];
    struct stat self;

    if (stat("/proc/self/exe", &self) == 0 && st->st_dev == self.st_dev &&
        st->st_ino == self.st_ino)
        return true;
    ssize_t size = pread(fd, head, sizeof(head), 0);
    return size > 0 && memmem(head, (size_t)size, &NOTE, sizeof(NOTE)) != NULL;
}

/* Whether PATH is a program that can be executed and is not this one.  Returns 0 or -errno. */
static int check_program(const char *path)
{
    struct stat st;
    int rc = 0;

    if (access(path, X_OK) < 0)
        return -errno;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) < 0)
        rc = -errno;
    else if (!S_ISREG(st.st_mode))
        rc = -EACCES;
    else if (is_this_program(fd, &st))
        rc = -ELOOP;
    close(fd);
    return rc;
}

/*
 * Finds the program NAME on PATH, then in the usual places, but never this program itself.
 * Returns 0 or -ENOENT.
 */
static int find_on_path(const char *name, char *out, size_t size)
{
    const char *lists[] = {getenv("PATH"), FALLBACK_PATH};
    size_t i;

    for (i = 0; i < 2; i++) {
        const char *at = lists[i];

        while (at != NULL && *at != '\0') {
            size_t length = strcspn(at, ":");

            /* Relative entries would be looked up in a directory that we did not choose. */
            if (at[0] == '/' &&
                (size_t)snprintf(out, size, "%.*s/%s", (int)length, at, name) < size &&
                check_program(out) == 0)
                return 0;
            at += length;
            at += *at == ':';
        }
    }
    return -ENOENT;
}

/*
 * Finds what a link `NAME.real` beside CALLED, the path that we were called by, stands for.
 * Returns 1, 0 if there is no such link, or -errno if what it names cannot be the runtime: then
 * no other is taken in its place.
 */
static int find_real(const char *called, char *out, size_t size)
{
    struct stat st;
    int rc;

    if (called[0] != '/')
        return 0;
    if ((size_t)snprintf(out, size, "%s.real", called) >= size)
        return -ENAMETOOLONG;
    if (lstat(out, &st) < 0)
        return errno == ENOENT ? 0 : -errno;
    rc = check_program(out);
    return rc < 0 ? rc : 1;
}

/*
 * Where the start time stands in what /proc/PID/stat holds (proc_pid_stat(5), field 22), or NULL.
 * The name of the command, in brackets, may hold anything, brackets too.
 */
static const char *start_in(const char *line)
{
    const char *at = strrchr(line, ')');

    for (int field = 0; at != NULL && field < 20; field++)
        at = strchr(at + 1, ' ');
    return at == NULL ? NULL : at + 1;
}

/*
 * Notes in the environment that this process becomes the runtime.  -ELOOP if it did before: then
 * what we take for the runtime, a script say, has called us.  Returns 0 or -errno.
 */
static int enter_once(void)
{
    char line[1024];
    char mark[64];
    const char *seen = getenv(LAUNCHED);
    int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    ssize_t size = read(fd, line, sizeof(line) - 1);
    close(fd);
    if (size < 0)
        return -errno;
    line[size] = '\0';
    const char *start = start_in(line);
    if (start == NULL)
        return -EBADMSG;
    snprintf(mark, sizeof(mark), "%d:%.*s", getpid(), (int)strcspn(start, " "), start);
    if (seen != NULL && strcmp(seen, mark) == 0)
        return -ELOOP;
    return setenv(LAUNCHED, mark, 1) < 0 ? -errno : 0;
}

/*
 * Whether root here is an ordinary user, in a user namespace that he made himself: id 0 is his, and
 * not 0 outside.  Not so in a namespace that somebody else made for a whole system (LXC), where
 * the engine's root is more than its user, nor in one that the host's root made for himself.
 */
static bool is_rootless(void)
{
    unsigned int inside = 1;
    unsigned int outside = 0;
    uid_t owner = (uid_t)-1;
    int fd = open("/proc/self/ns/user", O_RDONLY | O_CLOEXEC);
    FILE *map = fopen("/proc/self/uid_map", "re");
    bool rootless = fd >= 0 && map != NULL && fscanf(map, "%u %u", &inside, &outside) == 2 &&
                    inside == 0 && outside != 0 && ioctl(fd, NS_GET_OWNER_UID, &owner) == 0 &&
                    owner == 0;

    if (map != NULL)
        fclose(map);
    if (fd >= 0)
        close(fd);
    return rootless;
}

/*
 * crun 1.8 refuses to work on a hybrid hierarchy (v1 with the v2 one beside it): it goes by
 * what is mounted at UNIFIED.  In a mount namespace of our own that can be detached.  Returns
 * 0 or -errno; 0 without doing anything on every other layout.
 */
static int hide_unified(void)
{
    struct statfs sfs;

    if (statfs("/sys/fs/cgroup", &sfs) < 0 || sfs.f_type == CGROUP2_SUPER_MAGIC)
        return 0;
    if (statfs(UNIFIED, &sfs) < 0 || sfs.f_type != CGROUP2_SUPER_MAGIC)
        return 0;
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0 ||
        umount2(UNIFIED, MNT_DETACH | UMOUNT_NOFOLLOW) < 0)
        return -errno;
    return 0;
}

/* A new /dev/null, on a file system of its own.  Returns an fd or -errno. */
static int new_null(int flags)
{
    int fd = -1;
    int context = (int)syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC);
    int tree = -1;
    int saved;

    if (context >= 0 && syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
        tree = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, 0);
    if (tree >= 0 && mknodat(tree, "null", S_IFCHR | 0600, makedev(1, 3)) == 0 &&
        fchmodat(tree, "null", 0666, 0) == 0)
        fd = openat(tree, "null", flags | O_CLOEXEC);
    saved = errno;
    if (tree >= 0)
        close(tree);
    if (context >= 0)
        close(context);
    return fd >= 0 ? fd : -saved;
}

/*
 * crun gives its stdio to the container's user with fchown.  Where that is the host's
 * /dev/null, the host's node changes hands; so each is replaced by a node that nobody else
 * has.  Returns 0 or -errno.
 */
static int replace_null(void)
{
    int stdio;

    for (stdio = 0; stdio <= 2; stdio++) {
        struct stat st;

        if (fstat(stdio, &st) < 0 || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3))
            continue;
        int flags = fcntl(stdio, F_GETFL);
        int fd = new_null(flags < 0 ? O_RDWR : flags & O_ACCMODE);
        if (fd < 0)
            return fd;
        if (dup2(fd, stdio) < 0) {
            int saved = errno;
            close(fd);
            return -saved;
        }
        close(fd);
    }
    return 0;
}

/* The way into the Python half, which lies beside the directory of this program. */
static int find_start(char *out, size_t size)
{
    static const char name[] = "/start.py";
    ssize_t length = readlink("/proc/self/exe", out, size);
    int up;

    if (length < 0)
        return -errno;
    if ((size_t)length >= size)
        return -ENAMETOOLONG;
    out[length] = '\0';
    for (up = 0; up < 2; up++) {
        char *slash = strrchr(out, '/');

        if (slash == NULL)
            return -ENOENT;
        *slash = '\0';
    }
    length = (ssize_t)strlen(out);
    if ((size_t)length + sizeof(name) > size)
        return -ENAMETOOLONG;
    memcpy(out + length, name, sizeof(name));
    return access(out, R_OK) < 0 ? -errno : 0;
}

/* Where runc keeps the record of a container.  Returns 0, or -EINVAL for what cannot be an id. */
static int record_path(const struct call *call, const char *container, char path[PATH_MAX])
{
    const char *root = call->root != NULL ? call->root : "/run/runc";

    if (*container == '\0' || strchr(container, '/') != NULL)
        return -EINVAL;
    return snprintf(path, PATH_MAX, "%s/%s/state.json", root, container) < PATH_MAX ? 0 : -EINVAL;
}

/* The argv index of the container that `runc exec` is told of, or 0. */
static int exec_operand(const struct call *call, int argc, char **argv)
{
    static const char *const valued[] = {
        "additional-gids",
        "apparmor",
        "c",
        "cap",
        "cgroup",
        "console-socket",
        "cwd",
        "e",
        "env",
        "g",
        "p",
        "pid-file",
        "pidfd-socket",
        "process",
        "preserve-fds",
        "process-label",
        "u",
        "user",
    };
    int i;

    for (i = call->at + 1; i < argc; i++) {
        size_t at;

        if (argv[i][0] != '-')
            return i;
        if (strcmp(argv[i], "--") == 0)
            return i + 1 < argc ? i + 1 : 0;
        for (at = 0; at < sizeof(valued) / sizeof(valued[0]); at++) {
            /* One with a "=" in it holds its value. */
            if (strcmp(argv[i] + strspn(argv[i], "-"), valued[at]) == 0) {
                i++;
                break;
            }
        }
    }
    return 0;
}

/*
 * The container that `runc exec` is told of, or NULL.
 *
 * A later runc may have an option that is not known here, and its value be taken for the container.
 * So it is the first word from there on that runc has a record of.
 */
static const char *exec_container(const struct call *call, int argc, char **argv)
{
    char path[PATH_MAX];
    int i = exec_operand(call, argc, argv);

    for (; i > 0 && i < argc; i++)
        if (record_path(call, argv[i], path) == 0 && access(path, F_OK) == 0)
            return argv[i];
    return NULL;
}

/* Reads the beginning of a file as text.  Returns 0 or -errno. */
static int read_head(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0)
        return -errno;
    n = read(fd, text, size - 1);
    if (n < 0)
        n = -errno;
    close(fd);
    text[n < 0 ? 0 : n] = '\0';
    return n < 0 ? (int)n : 0;
}

/* Whether process PID has begun at START, in clock ticks since boot. */
static bool has_begun(long pid, unsigned long long start)
{
    char path[64];
    char text[1024];
    const char *found;

    snprintf(path, sizeof(path), "/proc/%ld/stat", pid);
    if (read_head(path, text, sizeof(text)) < 0)
        return false;
    found = start_in(text);
    return found != NULL && strtoull(found, NULL, 10) == start;
}

/* Pid and start time of a container's first process, as runc's record of it has them. */
static bool first_process(const char *record, long *pid, unsigned long long *start)
{
    static const char pid_key[] = "\"init_process_pid\":";
    static const char start_key[] = "\"init_process_start\":";
    const char *pid_at = strstr(record, pid_key);
    const char *start_at = strstr(record, start_key);

    if (pid_at == NULL || start_at == NULL)
        return false;
    *pid = strtol(pid_at + strlen(pid_key), NULL, 10);
    *start = strtoull(start_at + strlen(start_key), NULL, 10);
    return *pid > 0;
}

/*
 * Goes to the network namespace of the container that a process is to be added to.
 *
 * Of a container in a network namespace of the host's user namespace (podman, pods) runc has not
 * been told which one that is, since it may not enter it from inside of the container's user
 * namespace (prepare.py, _network): so it leaves the new process in ours.  Where the namespace
 * is the container's own, runc enters it once more.
 *
 * Who the container's first process is, runc itself has written down.  Returns 0, also where
 * there is no such container or it has ended, which is runc's to say; or -errno.
 */
static int join_network(const struct call *call, const char *container)
{
    char path[PATH_MAX];
    char text[4096];
    unsigned long long start;
    long pid;
    int rc;

    if (container == NULL)
        return 0;
    rc = record_path(call, container, path);
    if (rc < 0)
        return rc;
    rc = read_head(path, text, sizeof(text));
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    if (!first_process(text, &pid, &start))
        return -EBADMSG;
    snprintf(path, sizeof(path), "/proc/%ld/ns/net", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT || errno == ESRCH ? 0 : -errno;
    /* Asked afterwards: what has been opened is that process's. */
    rc = has_begun(pid, start) && setns(fd, CLONE_NEWNET) < 0 ? -errno : 0;
    close(fd);
    return rc;
}

/* Whether CALL's sub-command is one of those that make a container. */
static bool creates(const struct call *call)
{
    static const char *const names[] = {"create", "run", "restore"};
    size_t i;

    for (i = 0; call->subcommand != NULL && i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(call->subcommand, names[i]) == 0)
            return true;
    }
    return false;
}

/* Becomes the runtime where the fork server has prepared it.  Returns only an exit code. */
static int become(const struct call *call, const char *runtime, const struct prepared *prepared,
                  const char *cwd)
{
    int rc;

    if (setns(prepared->mntns, CLONE_NEWNS) < 0 || chdir(cwd) < 0)
        return fail(call, "cannot go to the mounts of the container", "", errno);
    if (prepared->netns >= 0 && setns(prepared->netns, CLONE_NEWNET) < 0)
        return fail(call, "cannot go to the network namespace of the container", "", errno);
    rc = guard_install();
    if (rc < 0)
        return fail(call, "cannot install the seccomp guard", "", -rc);
    execv(runtime, prepared->words);
    return fail(call, "cannot execute ", runtime, errno);
}

/*
 * Becomes the interpreter, and that the runtime.  Nothing is hidden here: the keeper, which the
 * Python half forks, has to live in the engine's mount namespace.  Returns only an exit code.
 */
static int start_python(const struct call *call, const char *name, const char *runtime, int argc,
                        char **argv)
{
    char **words = calloc((size_t)argc + 7, sizeof(*words));
    char start[PATH_MAX];
    int at = 0;
    int rc;

    if (words == NULL)
        return fail(call, "cannot start ", name, ENOMEM);
    rc = find_start(start, sizeof(start));
    if (rc < 0) {
        free(words);
        return fail(call, "cannot find start.py above the directory of this program", "", -rc);
    }
    words[at++] = (char *)ECI_PYTHON;
    words[at++] = (char *)"-I";
    words[at++] = (char *)"-S";
    words[at++] = start;
    words[at++] = (char *)"runtime";
    words[at++] = (char *)name;
    words[at++] = (char *)runtime;
    memcpy(words + at, argv + 1, (size_t)(argc - 1) * sizeof(*words));
    execv(ECI_PYTHON, words);
    rc = errno;
    free(words);
    return fail(call, "cannot execute ", ECI_PYTHON, rc);
}

/* Takes the value of `--preserve-fds`, unless ARGV[I] is another word; crun takes beginnings. */
static void take_preserved(const struct call *call, int i, int argc, char **argv,
                           const char **value)
{
    static const char name[] = "preserve-fds";
    static const size_t unique = sizeof("pre") - 1;
    const char *word = argv[i] + strspn(argv[i], "-");
    size_t size = strcspn(word, "=");

    if (word == argv[i] || strncmp(word, name, size) != 0 ||
        size < (call->crun ? unique : sizeof(name) - 1))
        return;
    *value = word[size] == '=' ? word + size + 1 : i + 1 < argc ? argv[i + 1] : "";
}

/* How many descriptors TEXT names; none where it is no number. */
static unsigned int count_of(const char *text)
{
    unsigned long count = text != NULL ? strtoul(text, NULL, 10) : 0;

    return count < MAX_PRESERVED ? (unsigned int)count : MAX_PRESERVED;
}

/*
 * Has nobody inherit what the caller has left open by mistake, the runtime least of all: of crun
 * 1.8 a bundle gets a directory of the host for its working directory by /proc/self/fd/N.  What the
 * caller means to pass on stays: from 3 on as many as LISTEN_FDS (sd_listen_fds(3)) and
 * --preserve-fds say.  Returns 0 or -errno.
 */
static int keep_to_oneself(const struct call *call, int argc, char **argv)
{
    bool exec = call->subcommand != NULL && strcmp(call->subcommand, "exec") == 0;
    int operand = exec ? exec_operand(call, argc, argv) : 0;
    unsigned int kept = count_of(getenv("LISTEN_FDS"));
    const char *value = NULL;
    int i;

    /* After its operand, exec has the words of somebody else's program. */
    for (i = call->at + 1; i < (operand > 0 ? operand : argc); i++)
        take_preserved(call, i, argc, argv, &value);
    kept += count_of(value);
    return close_range(STDERR_FILENO + 1 + kept, ~0U, CLOSE_RANGE_CLOEXEC) < 0 ? -errno : 0;
}

/* Takes our own flag out of ARGV. */
static void drop_settings(const struct call *call, int argc, char **argv)
{
    int next = call->settings + call->settings_words;

    if (call->settings == 0)
        return;
    if (next > argc)
        next = argc;
    memmove(argv + call->settings, argv + next, (size_t)(argc - next + 1) * sizeof(*argv));
}

int main(int argc, char **argv)
{
    struct call call = {0};
    char runtime[PATH_MAX];
    int rc;

    if (argc < 1)
        return 1;
    const char *base = strrchr(argv[0], '/');
    const char *chosen = getenv("ECI_RUNTIME");
    if (strncmp(base != NULL ? base + 1 : argv[0], SHIM, sizeof(SHIM) - 1) == 0)
        return fail(&call, "what this shim starts would not be protected; take runc or crun: ",
                    base != NULL ? base + 1 : argv[0], 0);
    call.crun = strstr(base != NULL ? base + 1 : argv[0], "crun") != NULL ||
                (chosen != NULL && strcmp(chosen, "crun") == 0);
    read_words(&call, argc, argv);
    if (chosen != NULL && strcmp(chosen, "crun") != 0 && strcmp(chosen, "runc") != 0)
        return fail(&call, "ECI_RUNTIME must be runc or crun, not ", chosen, 0);
    const char *name = call.crun ? "crun" : "runc";
    rc = enter_once();
    if (rc == -ELOOP)
        return fail(&call,
                    "what PATH names is no runtime but calls eci-runtime again; remove it, or put "
                    "the real one before it: ",
                    name, 0);
    if (rc < 0)
        return fail(&call, "cannot read ", "/proc/self/stat", -rc);
    rc = find_real(argv[0], runtime, sizeof(runtime));
    if (rc == -ELOOP)
        return fail(&call, "cannot be the runtime, as it is eci-runtime itself: ", runtime, 0);
    if (rc < 0)
        return fail(&call, "cannot be the runtime: ", runtime, -rc);
    if (rc == 0 && find_on_path(name, runtime, sizeof(runtime)) < 0)
        return fail(&call, "no such program on PATH or in /usr/sbin, /usr/bin: install ", name, 0);
    if (is_rootless()) {
        drop_settings(&call, argc, argv);
        argv[0] = (char *)name;
        execv(runtime, argv);
        return fail(&call, "cannot execute ", runtime, errno);
    }
    rc = keep_to_oneself(&call, argc, argv);
    if (rc < 0)
        return fail(&call, "cannot keep descriptors from being inherited", "", -rc);
    if (creates(&call)) {
        struct prepared prepared;
        char cwd[PATH_MAX];

        rc = call.crun ? replace_null() : 0;
        if (rc < 0)
            return fail(&call, "cannot replace /dev/null for ", name, -rc);
        /* It has to be found again by its name. */
        rc = getcwd(cwd, sizeof(cwd)) != NULL && *cwd == '/'
                 ? fork_client_ask(name, runtime, &prepared)
                 : FORK_CLIENT_DECLINED;
        if (rc == FORK_CLIENT_PREPARED)
            return become(&call, runtime, &prepared, cwd);
        return rc == FORK_CLIENT_FAILED ? 1 : start_python(&call, name, runtime, argc, argv);
    }

    if (call.crun) {
        rc = hide_unified();
        if (rc < 0)
            return fail(&call, "cannot hide the unified hierarchy from ", name, -rc);
    }
    if (call.subcommand != NULL && strcmp(call.subcommand, "exec") == 0) {
        rc = call.crun ? replace_null() : 0;
        if (rc < 0)
            return fail(&call, "cannot replace /dev/null for ", name, -rc);
        if (!call.crun) {
            rc = join_network(&call, exec_container(&call, argc, argv));
            if (rc < 0)
                return fail(&call, "cannot find the network namespace of the container for exec",
                            "", -rc);
        }
        /* The new process must not have a call that the container's first one has not. */
        rc = guard_install();
        if (rc < 0)
            return fail(&call, "cannot install the seccomp guard for exec", "", -rc);
    }
    drop_settings(&call, argc, argv);
    argv[0] = (char *)name;
    execv(runtime, argv);
    return fail(&call, "cannot execute ", runtime, errno);
}
