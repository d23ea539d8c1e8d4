/*
 * hostile - keeps the supervisor of its container busy, or has it wait, in every way that a
 * container can.
 *
 *     hostile pairs ROUNDS            mounts and unmounts a tmpfs so often: the measure of all else
 *     hostile hang WHAT COUNT ROUNDS  COUNT calls that do not end, and then as `pairs`; without
 *                                     rounds, until it is killed
 *     hostile flood PROCESSES         calls of every kind, until it is killed
 *     hostile threads COUNT           that many threads that make calls, until it is killed
 *     hostile die ROUNDS              callers that are killed in the midst of a call
 *     hostile stop WHICH ROUNDS       callers that are stopped (signal) or traced (trace) in one
 *     hostile paths                   links that lead to links, and paths as long as they may be
 *     hostile many COUNT              so many mounts, which stay
 *     hostile double                  twice as many mounts with each call, until it fails
 *     hostile spread NAMESPACES       1,024 mounts at once, in so many mount namespaces
 *     hostile miss                    a call with a page that userfaultfd(2) would report
 *     hostile forks                   processes until there can be no more
 *     hostile memory                  memory until there is no more
 *
 * The calls of `hang` lead into a FUSE file system that stops answering.  It is the container's
 * own: a process of this program serves it.  Exit status 0 and what was done, in words; 1 and what
 * went wrong.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <linux/mount.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TOP     "/tmp/silent"
#define PLACE   "/mnt"
#define FLOODED "/tmp/flooded"

enum { DIRECTORY = 2, FILE_IN_IT = 3 };

static void fail(const char *format, ...)
{
    va_list list;

    va_start(list, format);
    vprintf(format, list);
    va_end(list);
    printf(": %s\n", strerrorname_np(errno) ? strerrorname_np(errno) : "?");
    exit(1);
}

static void must(long result, const char *what)
{
    if (result < 0)
        fail("%s", what);
}

static void pause_ms(long ms)
{
    struct timespec pause = {ms / 1000, ms % 1000 * 1000000};

    nanosleep(&pause, NULL);
}

/* -- the measure -------------------------------------------------------------------------- */

static void pairs(long rounds)
{
    for (long i = 0; i < rounds; i++) {
        must(mount("none", PLACE, "tmpfs", 0, NULL), "mount");
        must(umount2(PLACE, 0), "umount2");
    }
    printf("pairs %ld\n", rounds);
}

/* -- a file system that does not answer --------------------------------------------------- */

struct reply {
    struct fuse_out_header head;
    union {
        struct fuse_init_out init;
        struct fuse_attr_out attr;
        struct fuse_entry_out entry;
        struct fuse_open_out open;
        struct fuse_statfs_out statfs;
        char bytes[4096];
    };
};

static void attributes(struct fuse_attr *attr, uint64_t node)
{
    *attr = (struct fuse_attr){
        .ino = node,
        .mode = node == FILE_IN_IT ? S_IFREG | 0644 : S_IFDIR | 0755,
        .nlink = 2,
        .size = node == FILE_IN_IT ? 4096 : 0,
        .blksize = 4096,
    };
}

/* Nothing is valid for any time, so that everything is asked anew. */
static size_t answer(const struct fuse_in_header *head, struct reply *reply)
{
    const char *name = (const char *)(head + 1);

    switch (head->opcode) {
    case FUSE_INIT:
        reply->init = (struct fuse_init_out){.major = 7, .minor = 31, .max_write = 4096};
        return sizeof(reply->init);
    case FUSE_GETATTR:
        attributes(&reply->attr.attr, head->nodeid);
        return sizeof(reply->attr);
    case FUSE_LOOKUP:
        reply->entry.nodeid = !strcmp(name, "d") ? DIRECTORY : !strcmp(name, "f") ? FILE_IN_IT : 0;
        if (!reply->entry.nodeid)
            reply->head.error = -ENOENT;
        attributes(&reply->entry.attr, reply->entry.nodeid);
        return reply->head.error ? 0 : sizeof(reply->entry);
    case FUSE_OPEN:
    case FUSE_OPENDIR:
        return sizeof(reply->open);
    case FUSE_READ:
        return sizeof(reply->bytes);
    case FUSE_STATFS:
        reply->statfs.st.namelen = 255;
        return sizeof(reply->statfs);
    case FUSE_FLUSH:
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
        return 0;
    default:
        reply->head.error = -ENOSYS;
        return 0;
    }
}

/* Answers as long as `*silent` is false; then reads on, and says nothing. */
static void serve(int device, const volatile bool *silent)
{
    static union {
        struct fuse_in_header head;
        char bytes[1 << 18];
    } request;
    static struct reply reply;

    while (read(device, &request, sizeof(request)) > 0) {
        if (*silent || request.head.opcode == FUSE_FORGET ||
            request.head.opcode == FUSE_BATCH_FORGET || request.head.opcode == FUSE_INTERRUPT)
            continue;
        memset(&reply, 0, sizeof(reply));
        reply.head.len = (uint32_t)(sizeof(reply.head) + answer(&request.head, &reply));
        reply.head.unique = request.head.unique;
        if (write(device, &reply, reply.head.len) < 0 && errno != ENOENT)
            fail("reply to %u", request.head.opcode);
    }
    _exit(0);
}

/* Mounts it on TOP; the pid of who serves it. */
static pid_t begin_to_serve(const volatile bool *silent)
{
    int device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    char options[128];
    pid_t server;

    must(device, "/dev/fuse");
    mkdir(TOP, 0755);
    snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", device);
    must(mount("silent", TOP, "fuse", 0, options), "mount fuse");
    server = fork();
    must(server, "fork");
    if (!server)
        serve(device, silent);
    close(device);
    return server;
}

/* -- calls that do not end ---------------------------------------------------------------- */

/* What has to be in order before the file system falls silent, and the call itself. */
struct hang {
    const char *name;
    void (*prepare)(void);
    void (*call)(void);
};

static char *memory;

static void map_memory(void)
{
    int fd = open(TOP "/f", O_RDONLY | O_CLOEXEC);

    must(fd, TOP "/f");
    memory = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
    if (memory == MAP_FAILED)
        fail("mmap");
    close(fd); /* at its end the caller would wait for this */
}

/* A page that userfaultfd(2) reports as missing, and nobody delivers. */
static void miss_page(int faults)
{
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register page = {.range.len = 4096, .mode = UFFDIO_REGISTER_MODE_MISSING};

    must(faults, "userfaultfd");
    must(ioctl(faults, UFFDIO_API, &api), "UFFDIO_API");
    memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        fail("mmap");
    page.range.start = (uintptr_t)memory;
    must(ioctl(faults, UFFDIO_REGISTER, &page), "UFFDIO_REGISTER");
}

/* Of the kernel's faults as well: who may open this, or has CAP_SYS_PTRACE of the host. */
static void miss_for_all(void)
{
    int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);

    must(device, "/dev/userfaultfd");
    miss_page(ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC));
}

/* Of the process's own faults alone: anybody. */
static void miss(void)
{
    miss_page((int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY));
    printf("%s\n", mount("none", memory, "tmpfs", 0, NULL) < 0 ? strerrorname_np(errno) : "0");
}

static void by_memory(void)
{
    mount("none", memory, "tmpfs", 0, NULL);
}

static void by_path(void)
{
    mount("none", TOP "/d", "tmpfs", 0, NULL);
}

static void by_source(void)
{
    mount(TOP "/d", PLACE, NULL, MS_BIND, NULL);
}

static void mount_in_it(void)
{
    must(mount("none", TOP "/d", "tmpfs", 0, NULL), "mount " TOP "/d");
}

static void by_umount(void)
{
    umount2(TOP "/d", 0);
}

static void by_move(void)
{
    syscall(SYS_move_mount, AT_FDCWD, TOP "/d", AT_FDCWD, PLACE, 0);
}

static void by_setattr(void)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};

    syscall(SYS_mount_setattr, AT_FDCWD, TOP "/d", 0, &attr, sizeof(attr));
}

static void by_layer(void)
{
    mount("none", PLACE, "overlay", 0, "lowerdir=" TOP "/d:" TOP);
}

static void root_in_it(void)
{
    must(chroot(TOP "/d"), "chroot");
    must(chdir("/"), "chdir");
}

static void by_root(void)
{
    mount("none", "/d", "tmpfs", 0, NULL);
}

static int context;

/* A context that is being used: fsmount(2) waits for whoever uses it, untrapped. */
static void make_context(void)
{
    context = (int)syscall(SYS_fsopen, "overlay", FSOPEN_CLOEXEC);
    must(context, "fsopen");
    must(syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "lowerdir", TOP "/d:" TOP, 0),
         "fsconfig");
}

/* By another process, since the caller is to be killed. */
static void by_context(void)
{
    pid_t user = fork();

    must(user, "fork");
    if (!user) {
        syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
        _exit(0);
    }
    pause_ms(100);
    syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, 0);
}

static const struct hang hangs[] = {
    {"memory", map_memory, by_memory},
    {"fault", miss_for_all, by_memory},
    {"path", NULL, by_path},
    {"source", NULL, by_source},
    {"umount", mount_in_it, by_umount},
    {"move", mount_in_it, by_move},
    {"setattr", mount_in_it, by_setattr},
    {"layer", NULL, by_layer},
    {"root", root_in_it, by_root},
    {"context", make_context, by_context},
};

/* Is the process in one of the calls that are trapped? */
static bool is_calling(pid_t pid)
{
    char path[64];
    char text[64] = "";
    long nr;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/syscall", pid);
    file = fopen(path, "re");
    if (!file)
        return false;
    if (!fgets(text, sizeof(text), file))
        text[0] = 0;
    fclose(file);
    nr = strtol(text, NULL, 10);
    return nr == SYS_mount || nr == SYS_umount2 || nr == SYS_move_mount ||
           nr == SYS_mount_setattr || nr == SYS_fsmount;
}

static void await_call(pid_t pid)
{
    for (int i = 0; i < 1000; i++) {
        if (is_calling(pid))
            return;
        pause_ms(10);
    }
    errno = ETIMEDOUT;
    fail("no call of %d", pid);
}

/* A caller, which waits for `*silent` before its call. */
static pid_t hang_up(const struct hang *hang, const volatile bool *silent)
{
    pid_t caller;
    char byte;
    int ready[2];

    must(pipe2(ready, O_CLOEXEC), "pipe");
    caller = fork();
    must(caller, "fork");
    if (caller) {
        close(ready[1]);
        if (read(ready[0], &byte, 1) != 1)
            exit(1); /* it has said why */
        close(ready[0]);
        return caller;
    }
    if (hang->prepare)
        hang->prepare();
    must(write(ready[1], "", 1), "write");
    while (!*silent)
        pause_ms(1);
    hang->call();
    _exit(0);
}

static void end(pid_t pid)
{
    int status;

    must(kill(pid, SIGKILL), "kill");
    must(waitpid(pid, &status, 0), "waitpid");
}

/*
 * The other calls go on; each caller can be killed; and nothing is left once the file system's
 * server has gone.
 */
static void hang(const char *name, long count, long rounds)
{
    volatile bool *silent =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    const struct hang *which = NULL;
    pid_t callers[256];
    pid_t server;
    int status;

    for (size_t i = 0; i < sizeof(hangs) / sizeof(hangs[0]); i++)
        if (!strcmp(hangs[i].name, name))
            which = &hangs[i];
    if (!which || count > 256)
        exit(2);
    server = begin_to_serve(silent);
    for (long i = 0; i < count; i++)
        callers[i] = hang_up(which, silent);
    *silent = true;
    for (long i = 0; i < count; i++)
        await_call(callers[i]);
    pause_ms(100);
    for (long i = 0; i < count; i++)
        if (waitpid(callers[i], &status, WNOHANG) != 0)
            fail("caller %ld does not hang", i);
    printf("hanging %ld\n", count);
    fflush(stdout);
    if (!rounds)
        pause();
    pairs(rounds);
    for (long i = 0; i < count; i++)
        end(callers[i]);
    printf("callers killed\n");
    fflush(stdout);
    end(server);
    /* What hung has ended: its mounts can be taken away, and the calls of others go on. */
    while (umount2(TOP "/d", MNT_DETACH) == 0)
        ;
    must(umount2(TOP, MNT_DETACH), "umount2 " TOP);
    pairs(10);
}

/* -- many calls --------------------------------------------------------------------------- */

static void call_anything(unsigned int i)
{
    struct mount_attr attr = {.attr_clr = MOUNT_ATTR_RDONLY};

    switch (i % 5) {
    case 0:
        mount("none", "/nowhere", "tmpfs", 0, NULL);
        break;
    case 1:
        mount(NULL, "/vol", NULL, MS_REMOUNT | MS_BIND, NULL);
        break;
    case 2:
        umount2("/proc", MNT_DETACH);
        break;
    case 3:
        syscall(SYS_mount_setattr, AT_FDCWD, "/vol", AT_RECURSIVE, &attr, sizeof(attr));
        break;
    default:
        mount("/vol", FLOODED, NULL, MS_BIND, NULL);
        umount2(FLOODED, MNT_DETACH);
    }
}

static void *call_forever(void *unused)
{
    mkdir(FLOODED, 0755);
    for (unsigned int i = (unsigned int)gettid();; i++)
        call_anything(i);
    return unused;
}

static void flood(long processes)
{
    for (long i = 1; i < processes; i++) {
        pid_t pid = fork();

        must(pid, "fork");
        if (!pid)
            call_forever(NULL);
    }
    printf("flood\n");
    fflush(stdout);
    call_forever(NULL);
}

static void threads(long count)
{
    pthread_attr_t attr;

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 16384);
    for (long i = 0; i < count; i++) {
        pthread_t thread;

        errno = pthread_create(&thread, &attr, call_forever, NULL);
        if (errno)
            fail("thread %ld", i);
    }
    printf("threads %ld\n", count);
    fflush(stdout);
    pause();
}

/* -- callers that do not wait for the answer ---------------------------------------------- */

static pid_t call_on(void)
{
    pid_t pid = fork();

    must(pid, "fork");
    if (pid)
        return pid;
    for (;;) {
        mount("none", PLACE, "tmpfs", 0, NULL);
        umount2(PLACE, MNT_DETACH);
    }
}

static void die(long rounds)
{
    for (long i = 0; i < rounds; i++) {
        pid_t pid = call_on();

        pause_ms(i % 3);
        end(pid);
    }
    while (umount2(PLACE, MNT_DETACH) == 0)
        ;
    printf("died %ld\n", rounds);
}

static void stop(const char *which, long rounds)
{
    for (long i = 0; i < rounds; i++) {
        pid_t pid = call_on();
        int status;

        pause_ms(1 + i % 3);
        if (!strcmp(which, "trace")) {
            must(ptrace(PTRACE_SEIZE, pid, 0, 0), "seize");
            must(ptrace(PTRACE_INTERRUPT, pid, 0, 0), "interrupt");
        } else {
            must(kill(pid, SIGSTOP), "stop");
        }
        /* With killable waits it stops after its call. */
        must(waitpid(pid, &status, __WALL | WUNTRACED), "waitpid");
        /* Others have their turn while it is as it is. */
        for (int pair = 0; pair < 5; pair++) {
            must(mount("none", "/tmp", "tmpfs", 0, NULL), "mount");
            must(umount2("/tmp", 0), "umount2");
        }
        end(pid);
    }
    while (umount2(PLACE, MNT_DETACH) == 0)
        ;
    printf("stopped %ld\n", rounds);
}

/* -- long ways ---------------------------------------------------------------------------- */

static const char *said(long result)
{
    return result < 0 ? strerrorname_np(errno) : "0";
}

/* Each is a call that the worker performs, so the way is one that it goes. */
static void paths(void)
{
    static char longest[4096 + 1];
    char from[64] = "/tmp/at";
    size_t used = 0;

    mkdir(from, 0755);
    for (int i = 1; i <= 41; i++) {
        char to[64];

        snprintf(to, sizeof(to), "/tmp/link%d", i);
        unlink(to);
        must(symlink(from, to), "symlink");
        strcpy(from, to);
    }
    unlink("/tmp/loop");
    must(symlink("loop", "/tmp/loop"), "symlink");
    used = (size_t)sprintf(longest, "/tmp");
    for (; used + 1 < sizeof(longest); used++)
        longest[used] = used % 2 ? '.' : '/';
    for (int i = 0; i < 100; i++) {
        mount("none", "/tmp/loop/x", "tmpfs", 0, NULL);
        mount("none", "/tmp/link41", "tmpfs", 0, NULL);
        umount2(longest, 0);
    }
    printf("%s", said(mount("/tmp", "/tmp/link40", NULL, MS_BIND, NULL)));
    printf(" %s", said(umount2("/tmp/link40", 0)));
    printf(" %s", said(mount("/tmp", "/tmp/link41", NULL, MS_BIND, NULL)));
    printf(" %s", said(mount("/tmp", "/tmp/loop/x", NULL, MS_BIND, NULL)));
    printf(" %s", said(mount(longest, "/tmp/at", NULL, MS_BIND, NULL)));
    printf(" %s", said(umount2(longest, 0)));
    longest[4096 - 1] = 0;
    printf(" %s", said(mount(longest, "/tmp/at", NULL, MS_BIND, NULL)));
    printf(" %s\n", said(umount2("/tmp/at", 0)));
}

static void many(long count)
{
    must(mount("none", PLACE, "tmpfs", 0, NULL), "mount");
    for (long i = 0; i < count; i++) {
        char path[64];

        if (i % 1000 == 0) {
            snprintf(path, sizeof(path), PLACE "/%ld", i / 1000);
            must(mkdir(path, 0755), "mkdir");
        }
        snprintf(path, sizeof(path), PLACE "/%ld/%ld", i / 1000, i % 1000);
        must(mkdir(path, 0755), "mkdir");
        must(mount(path, path, NULL, MS_BIND, NULL), "bind");
    }
    printf("mounts %ld\n", count);
}

/* Each bind has a copy of all mounts so far in it. */
static void doubles(int most)
{
    char path[64];

    must(mount("none", PLACE, "tmpfs", 0, NULL), "mount");
    for (int i = 0; i < most; i++) {
        snprintf(path, sizeof(path), PLACE "/%d", i);
        must(mkdir(path, 0755), "mkdir");
    }
    must(mount(NULL, PLACE, NULL, MS_PRIVATE, NULL), "private");
    for (int i = 0; i < most; i++) {
        snprintf(path, sizeof(path), PLACE "/%d", i);
        if (mount(PLACE, path, NULL, MS_BIND | MS_REC, NULL) < 0) {
            printf("%s\n", strerrorname_np(errno));
            return;
        }
    }
    printf("0\n");
}

/* A mount under a shared one is made in each namespace that has a copy of that. */
static void spread(long namespaces)
{
    int ready[2];
    char byte;

    doubles(10);
    must(mount("none", "/tmp", "tmpfs", 0, NULL), "mount");
    must(mount(NULL, "/tmp", NULL, MS_SHARED, NULL), "shared");
    must(mkdir("/tmp/all", 0755), "mkdir");
    must(pipe(ready), "pipe");
    for (long i = 0; i < namespaces; i++) {
        pid_t pid = fork();

        must(pid, "fork");
        if (!pid) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            must(unshare(CLONE_NEWNS), "unshare");
            /* Its own copies of these it has no use for. */
            must(umount2(PLACE, MNT_DETACH), "umount");
            must(write(ready[1], "", 1), "write");
            pause();
        }
        must(read(ready[0], &byte, 1), "read");
    }
    printf("%s\n", mount(PLACE, "/tmp/all", NULL, MS_BIND | MS_REC, NULL) < 0
                       ? strerrorname_np(errno)
                       : "0");
}

/* -- everything that is limited ----------------------------------------------------------- */

static void forks(void)
{
    long count = 0;

    for (pid_t pid; (pid = fork()) >= 0; count++)
        if (!pid)
            pause();
    printf("forks %s\n", count ? strerrorname_np(errno) : "none");
    fflush(stdout);
    pause();
}

static void eat(void)
{
    printf("memory\n");
    fflush(stdout);
    for (;;) {
        pid_t pid = fork();

        if (!pid)
            for (;;) {
                void *memory =
                    mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

                if (memory == MAP_FAILED)
                    _exit(1);
                memset(memory, 1, 1 << 20);
            }
        if (pid > 0)
            waitpid(pid, NULL, 0);
    }
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    long last = argc > 2 ? strtol(argv[argc - 1], NULL, 10) : 0;

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!strcmp(what, "pairs"))
        pairs(last);
    else if (!strcmp(what, "hang") && argc == 5)
        hang(argv[2], strtol(argv[3], NULL, 10), last);
    else if (!strcmp(what, "flood"))
        flood(last);
    else if (!strcmp(what, "threads"))
        threads(last);
    else if (!strcmp(what, "die"))
        die(last);
    else if (!strcmp(what, "stop") && argc == 4)
        stop(argv[2], last);
    else if (!strcmp(what, "paths"))
        paths();
    else if (!strcmp(what, "many"))
        many(last);
    else if (!strcmp(what, "miss"))
        miss();
    else if (!strcmp(what, "double"))
        doubles(20);
    else if (!strcmp(what, "spread"))
        spread(last);
    else if (!strcmp(what, "forks"))
        forks();
    else if (!strcmp(what, "memory"))
        eat();
    else
        return 2;
    return 0;
}
