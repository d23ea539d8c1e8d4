/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Paths: where a path of another process leads is what the kernel tells that process itself; and
 * what lies in a protected directory is found to, wherever one comes from.
 *
 * A path is made of names from a small tree, so that most of them lead somewhere, through links of
 * every kind.  The caller is a real process, in the same mount namespace.
 */
#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "../../../csrc/compat.h"
#include "../../../csrc/worker.h"
#include "fuzz.h"

enum { SLOTS = 64 };

/* What the caller is asked, and what it answers. */
struct question {
    char path[PATH_MAX];
    int follow;
};
struct answer {
    int error;
    uint64_t ino;
    uint64_t mnt_id;
};

static int ask = -1;
static char caller_number[16];
static struct worker worker = {.build = -1, .locked = -1, .exposed = true};
static struct session session = {.worker = &worker};
static struct {
    struct eci_policy head;
    struct eci_inode_rule slots[SLOTS];
} table;
static struct statx scratch;

static void make_tree(void)
{
    static const char *const links[][2] = {
        {"l", "d"},         {"la", "/mnt/d/p"}, {"loop", "loop"},       {"up", ".."},
        {"gone", "nobody"}, {"lf", "d/f"},      {"lp", "proc/self"},    {"ls", "proc/thread-self"},
        {"d/r", "../l/p"},  {"d/c", "/proc"},   {"d/s", "//mnt//./l/"}, {"lfd", "/proc/self/fd"},
    };
    static const char *const directories[] = {"d",          "d/p", "d/p/q", "d/p/open",
                                              "d/p/open/q", "b",   "proc"};

    for (unsigned int i = 0; i < sizeof(directories) / sizeof(directories[0]); i++)
        NEED(mkdir(directories[i], 0755) == 0);
    for (unsigned int i = 0; i < sizeof(links) / sizeof(links[0]); i++)
        NEED(symlink(links[i][1], links[i][0]) == 0);
    write_file(AT_FDCWD, "d/f", "", 0);
    write_file(AT_FDCWD, "d/p/f", "", 0);
    write_file(AT_FDCWD, "d/p/open/f", "", 0);
    NEED(mkfifo("d/fifo", 0600) == 0);
    NEED(mount("d/p", "b", NULL, MS_BIND, NULL) == 0);
    NEED(mount("/proc", "proc", NULL, MS_BIND, NULL) == 0);
}

static void serve(int questions)
{
    static struct question question;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    NEED(chdir("d") == 0 && dup2(open("p", O_PATH | O_DIRECTORY), 60) == 60);
    while (recv(questions, &question, sizeof(question), 0) == sizeof(question)) {
        struct answer answer = {0};
        struct statx stx;
        int fd = open(question.path, O_PATH | O_CLOEXEC | (question.follow ? 0 : O_NOFOLLOW));

        if (fd < 0) {
            answer.error = errno;
        } else {
            NEED(stat_at(fd, "", &stx) == 0);
            answer = (struct answer){0, stx.stx_ino, stx.stx_mnt_id};
            close(fd);
        }
        NEED(send(questions, &answer, sizeof(answer), 0) == sizeof(answer));
    }
    _exit(0);
}

static void add_rule(const char *path, uint32_t what)
{
    struct statx stx;

    NEED(stat_at(AT_FDCWD, path, &stx) == 0);
    NEED(eci_policy_add_inode(&table.head, stx.stx_dev_major, stx.stx_dev_minor, stx.stx_ino,
                              what) == 0);
}

static void start(void)
{
    int pair[2];
    pid_t child;

    close(enter_scratch());
    make_tree();
    NEED(stat_at(AT_FDCWD, "d", &scratch) == 0);
    NEED(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    child = fork();
    NEED(child >= 0);
    if (child == 0)
        serve(pair[1]);
    close(pair[1]);
    ask = pair[0];
    table.head = (struct eci_policy){
        .magic = ECI_POLICY_MAGIC,
        .version = ECI_POLICY_VERSION,
        .size = sizeof(table),
        .grants_off = sizeof(table.head),
        .n_slots = SLOTS,
        .slots_off = sizeof(table.head),
    };
    add_rule("d/p", ECI_INODE_PROTECTED);
    add_rule("d/p/open", ECI_INODE_SHARED);
    add_rule("d", ECI_INODE_ABOVE);
    worker.policy = &table.head;
    worker.proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    worker.self_fds = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
    caller_init(&session.caller);
    snprintf(caller_number, sizeof(caller_number), "%d", child);
    session.caller.tid = child;
    session.caller.dir = openat(worker.proc, caller_number, O_PATH | O_DIRECTORY | O_CLOEXEC);
    NEED(worker.proc >= 0 && worker.self_fds >= 0 && session.caller.dir >= 0);
}

/* Each byte is a name, and says how many slashes come after it. */
static void take_path(struct input *in, char *path, size_t size)
{
    static const char *const names[] = {
        "d",    "p",    "q",    "open", "f",   "l",      "la",  "loop", "up",
        "gone", "lf",   "lp",   "r",    "c",   "s",      "b",   "..",   ".",
        "fifo", "proc", "self", "fd",   "ls",  "task",   "cwd", "root", "thread-self",
        "exe",  "60",   "ns",   "mnt",  "lfd", "status", NULL,
    };
    const unsigned int n = sizeof(names) / sizeof(names[0]);
    uint8_t how = take_byte(in);
    size_t at = 0;

    path[0] = 0;
    if (how & 1)
        at = (size_t)snprintf(path, size, how & 2 ? "/mnt/" : "/");
    while (in->left && at + NAME_MAX < size) {
        uint8_t byte = take_byte(in);
        const char *name = names[byte % n];
        const char *slashes = byte >= 2 * n ? "//" : in->left || how & 4 ? "/" : "";

        at += (size_t)snprintf(path + at, size - at, "%s%s", name ? name : caller_number, slashes);
    }
}

/* Protected by its path, which the kernel says: in d/p, and not in d/p/open; or above it. */
static void check_place(const struct target *target)
{
    static struct eci_place place;
    char link[64];
    char path[2 * PATH_MAX];
    char *at = path;
    ssize_t n;
    bool in;
    bool open;

    if (target->stx.stx_dev_minor != scratch.stx_dev_minor ||
        target->stx.stx_dev_major != scratch.stx_dev_major)
        return;
    CHECK(facts_place(&worker, target, &place) == 0);
    snprintf(link, sizeof(link), "/proc/self/fd/%d", target->fd >= 0 ? target->fd : target->parent);
    n = readlink(link, path, PATH_MAX);
    NEED(n > 0);
    path[n] = 0;
    if (target->fd < 0)
        snprintf(path + n, sizeof(path) - (size_t)n, "/%s", target->name);
    if (strncmp(path, "/mnt", 4) != 0)
        return;
    at = path + 4;
    if (strncmp(at, "/b", 2) == 0 && (!at[2] || at[2] == '/'))
        at += 2; /* as it lies in d/p */
    else if (strncmp(at, "/d/p", 4) == 0 && (!at[4] || at[4] == '/'))
        at += 4;
    else
        at = NULL;
    in = at != NULL;
    open = in && strncmp(at, "/open", 5) == 0 && (!at[5] || at[5] == '/');
    CHECK(!!(place.self_hits & ECI_INODE_ABOVE) == (strcmp(path, "/mnt/d") == 0));
    CHECK((((place.self_hits | place.up_hits) & ECI_INODE_PROTECTED) != 0) == (in && !open));
}

static void check_path(struct question *question, unsigned int want)
{
    struct target target = TARGET_INIT;
    struct answer answer;
    unsigned int before = open_fds();
    ssize_t got;
    int r;

    NEED(send(ask, question, sizeof(*question), 0) == sizeof(*question));
    /* The fuzzer's own alarm interrupts it. */
    while ((got = recv(ask, &answer, sizeof(answer), 0)) < 0 && errno == EINTR)
        ;
    NEED(got == sizeof(answer));
    session.caller.rooted = false;
    int base = openat(session.caller.dir, "cwd", O_PATH | O_DIRECTORY | O_CLOEXEC);
    NEED(base >= 0);
    r = resolve(&session, &session.caller, base, question->path, question->follow, want, &target);
    close(base);
    if (getenv("FUZZ_SHOW"))
        fprintf(stderr, "%s: %d, by the kernel %d\n", question->path, -r, answer.error);
    CHECK(r <= 0);
    CHECK((r == 0) == (answer.error == 0));
    CHECK(-r == answer.error || (answer.error && r != -EPERM));
    if (r == 0) {
        CHECK(target.stx.stx_ino == answer.ino && target.stx.stx_mnt_id == answer.mnt_id);
        CHECK(target.fd >= 0 || target.parent >= 0);
        if (target.parent >= 0) {
            struct statx again;

            CHECK(*target.name && !strchr(target.name, '/'));
            CHECK(stat_at(target.parent, target.name, &again) == 0);
            CHECK(again.stx_ino == answer.ino && again.stx_mnt_id == answer.mnt_id);
        }
        check_place(&target);
    }
    target_close(&target);
    CHECK(open_fds() == before);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct question question;
    struct input in = {data, size};
    uint8_t how;

    if (ask < 0)
        start();
    if (size > 60)
        return -1;
    how = take_byte(&in);
    question.follow = how & 1;
    if (how & 2)
        take_string(&in, question.path, sizeof(question.path));
    else
        take_path(&in, question.path, sizeof(question.path));
    if (!*question.path)
        return 0;
    check_path(&question, how & 4 ? WANT_NAME : how & 8 ? WANT_OBJECT | WANT_NAME : WANT_OBJECT);
    return 0;
}
