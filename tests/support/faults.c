/*
 * faults - makes system calls of other processes fail, for tests.
 *
 *     faults attach PID
 *     faults run PROGRAM NTH NR ERRNO LOG [PID ...] -- COMMAND...
 *
 * What is to fail is not made: at its entry it becomes close(-1), which every filter lets through,
 * and at its exit the process gets -ERRNO; 0: the call does nothing and returns 0.  Calls that
 * cannot fail, or that nobody asks whether they did, are neither counted nor made to fail.
 *
 * `attach`: a worker with all its threads.  A line "NTH NR ERRNO TIMES" on stdin arms it (NTH 0:
 * only to list): of the next call that the worker gets, until it waits for another one, the NTH
 * system call fails, or the first of number NR after it, and the next TIMES - 1 of that number.
 * Then each is told, "NR RESULT", with "!" behind it where it was made to fail, and an empty line;
 * "gone" when the worker has ended.
 *
 * `run`: COMMAND with all that it starts, and all that the processes PID start, or with "+PID" are;
 * counted are those that execute a file named PROGRAM.  LOG gets "TID NR RESULT", as above, when
 * the command has ended, whose exit status is ours.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_THREADS = 4096, MAX_CALLS = 65536 };
enum { STOPPED_BY_CALL = SIGTRAP | 0x80 };

static const long OPTIONS = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK |
                            PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC;

/* Never counted. */
static const int passed_over[] = {
    SYS_close,
    SYS_exit,
    SYS_exit_group,
    SYS_futex,
    SYS_rt_sigprocmask,
    SYS_rt_sigaction,
    SYS_rt_sigreturn,
    SYS_munmap,
    SYS_madvise,
    SYS_set_robust_list,
    SYS_rseq,
    SYS_set_tid_address,
    SYS_getpid,
    SYS_gettid,
    SYS_getppid,
    SYS_getuid,
    SYS_getgid,
    SYS_geteuid,
    SYS_getegid,
    SYS_sched_getaffinity,
    SYS_arch_prctl,
    SYS_clock_gettime,
    SYS_clock_nanosleep,
    SYS_nanosleep,
    SYS_restart_syscall,
    SYS_tgkill,
    SYS_kill,
    SYS_getrandom,
    SYS_sigaltstack,
    SYS_exit,
    SYS_sched_yield,
    SYS_lseek,
    SYS_uname,
    SYS_getpriority,
    SYS_getsockname,
    SYS_epoll_wait,
    SYS_pselect6,
    SYS_mremap,
    SYS_setsid,
    SYS_umask,
    SYS_sysinfo,
};

struct thread {
    pid_t tid;
    bool counted;
    bool fails;      /* the call that it is in was taken away */
    uint64_t rdi;    /* what that one had there */
    long nr;         /* the counted call that it is in, or -1 */
    uint64_t second; /* argument of the call that it is in */
};

struct call {
    pid_t tid;
    int nr;
    long result;
    bool failed;
};

static struct thread threads[MAX_THREADS];
static unsigned int n_threads;
static struct call calls[MAX_CALLS];
static unsigned int n_calls;

static bool attached; /* `attach`, not `run` */
static const char *program;
static unsigned int counted;
static unsigned int nth;
static int wanted; /* the number of what is to fail: which call is which may change */
static int error_number;
static unsigned int times;
static long failing = -1; /* the number of what has failed */
static bool armed;
static bool begun; /* the worker has got a call */

static void die(const char *what)
{
    fprintf(stderr, "faults: %s: %s\n", what, strerror(errno));
    exit(99);
}

static bool executes(pid_t tid)
{
    char path[64];
    char exe[PATH_MAX];
    const char *name;
    ssize_t n;

    if (!program)
        return true;
    snprintf(path, sizeof(path), "/proc/%d/exe", tid);
    n = readlink(path, exe, sizeof(exe) - 1);
    if (n < 0)
        return false;
    exe[n] = 0;
    name = strrchr(exe, '/');
    return name && strcmp(name + 1, program) == 0;
}

static struct thread *find(pid_t tid)
{
    for (unsigned int i = 0; i < n_threads; i++)
        if (threads[i].tid == tid)
            return &threads[i];
    if (n_threads == MAX_THREADS)
        die("too many threads");
    threads[n_threads] = (struct thread){.tid = tid, .counted = executes(tid), .nr = -1};
    return &threads[n_threads++];
}

static void forget(pid_t tid)
{
    for (unsigned int i = 0; i < n_threads; i++)
        if (threads[i].tid == tid)
            threads[i] = threads[--n_threads];
}

static bool is_passed_over(long nr)
{
    for (unsigned int i = 0; i < sizeof(passed_over) / sizeof(passed_over[0]); i++)
        if (passed_over[i] == nr)
            return true;
    return false;
}

/* Does a worker ask for the next call? */
static bool receives(long nr, uint64_t second)
{
    return nr == SYS_ioctl && second == SECCOMP_IOCTL_NOTIF_RECV;
}

/* The calls of an experiment are over: tells them. */
static void tell(void)
{
    for (unsigned int i = 0; i < n_calls; i++)
        printf("%d %ld%s\n", calls[i].nr, calls[i].result, calls[i].failed ? " !" : "");
    puts("");
    fflush(stdout);
    armed = begun = false;
    n_calls = 0;
}

static bool is_to_fail(long nr)
{
    if (failing < 0 && counted >= nth && nr == wanted)
        failing = nr;
    else if (failing != nr)
        return false;
    return times-- > 0;
}

static void enter(struct thread *thread)
{
    struct user_regs_struct regs;
    long nr;

    if (ptrace(PTRACE_GETREGS, thread->tid, NULL, &regs) < 0)
        return;
    nr = (long)regs.orig_rax;
    thread->nr = -1;
    thread->second = regs.rsi;
    if (is_passed_over(nr))
        return;
    if (!attached || (armed && begun)) {
        counted++;
        thread->nr = nr;
        if (nth && times && is_to_fail(nr)) {
            thread->fails = true;
            thread->rdi = regs.rdi;
            regs.orig_rax = SYS_close;
            regs.rdi = (uint64_t)-1;
            if (ptrace(PTRACE_SETREGS, thread->tid, NULL, &regs) < 0)
                die("SETREGS");
            return;
        }
    }
    if (attached && armed && begun && receives(nr, regs.rsi)) {
        thread->nr = -1;
        tell();
    }
}

static void leave(struct thread *thread)
{
    struct user_regs_struct regs;

    if (ptrace(PTRACE_GETREGS, thread->tid, NULL, &regs) < 0)
        return;
    if (thread->fails) {
        regs.rax = (uint64_t) - (long)error_number;
        regs.rdi = thread->rdi;
        if (ptrace(PTRACE_SETREGS, thread->tid, NULL, &regs) < 0)
            die("SETREGS");
    }
    if (thread->nr >= 0 && n_calls < MAX_CALLS)
        calls[n_calls++] =
            (struct call){thread->tid, (int)thread->nr, (long)regs.rax, thread->fails};
    if (attached && armed && !begun && receives(SYS_ioctl, thread->second) && regs.rax == 0)
        begun = true;
    thread->fails = false;
    thread->nr = -1;
}

static void at_call(struct thread *thread)
{
    struct __ptrace_syscall_info info;

    if (ptrace(PTRACE_GET_SYSCALL_INFO, thread->tid, sizeof(info), &info) < 0)
        return;
    if (info.op == PTRACE_SYSCALL_INFO_ENTRY)
        enter(thread);
    else
        leave(thread);
}

static void go_on(const struct thread *thread, int signal_number)
{
    (void)ptrace(thread->counted ? PTRACE_SYSCALL : PTRACE_CONT, thread->tid, NULL,
                 (void *)(long)signal_number);
}

/* One stop or end.  False: `leader` has ended. */
static bool handle(pid_t tid, int status, pid_t leader)
{
    struct thread *thread;
    int deliver = 0;

    if (WIFEXITED(status) || WIFSIGNALED(status)) {
        forget(tid);
        return tid != leader;
    }
    thread = find(tid);
    if (WSTOPSIG(status) == STOPPED_BY_CALL) {
        at_call(thread);
    } else if (status >> 16 == PTRACE_EVENT_EXEC) {
        if (thread->nr >= 0 && n_calls < MAX_CALLS)
            calls[n_calls++] = (struct call){tid, (int)thread->nr, 0, false};
        thread->counted = executes(tid);
        thread->nr = -1;
        thread->fails = false;
    } else if (status >> 16 == PTRACE_EVENT_STOP && WSTOPSIG(status) != SIGTRAP) {
        /* Stopped by a signal: as it would be without us. */
        (void)ptrace(PTRACE_LISTEN, tid, NULL, NULL);
        return true;
    } else if (status >> 16 == 0) {
        deliver = WSTOPSIG(status);
    }
    go_on(thread, deliver);
    return true;
}

static void seize(pid_t tid)
{
    if (ptrace(PTRACE_SEIZE, tid, NULL, (void *)OPTIONS) < 0)
        die("SEIZE");
}

static void seize_all(pid_t pid)
{
    char path[64];
    struct dirent *entry;
    DIR *dir;

    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    dir = opendir(path);
    if (!dir)
        die(path);
    while ((entry = readdir(dir)))
        if (entry->d_name[0] != '.')
            seize(atoi(entry->d_name));
    closedir(dir);
}

static void interrupt_all(pid_t pid)
{
    char path[64];
    struct dirent *entry;
    DIR *dir;

    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    dir = opendir(path);
    while (dir && (entry = readdir(dir)))
        if (entry->d_name[0] != '.')
            (void)ptrace(PTRACE_INTERRUPT, atoi(entry->d_name), NULL, NULL);
    if (dir)
        closedir(dir);
}

static int serve(pid_t pid)
{
    sigset_t set;
    int signals;

    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    attached = true;
    seize_all(pid);
    interrupt_all(pid);
    for (;;) {
        struct pollfd fds[] = {{.fd = 0, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
        struct signalfd_siginfo info;
        int status;
        pid_t tid;

        while ((tid = waitpid(-1, &status, __WALL | WNOHANG)) > 0)
            if (!handle(tid, status, pid)) {
                puts("gone");
                return 0;
            }
        if (poll(fds, 2, -1) < 0)
            continue;
        while (read(signals, &info, sizeof(info)) > 0)
            ;
        if (fds[0].revents) {
            char line[64] = "";
            ssize_t n = read(0, line, sizeof(line) - 1);

            if (n <= 0)
                return 0;
            if (sscanf(line, "%u %d %d %u", &nth, &wanted, &error_number, &times) != 4)
                die(line);
            counted = n_calls = 0;
            failing = -1;
            begun = false;
            armed = true;
            puts("armed");
            fflush(stdout);
        }
    }
}

static int run(char **argv)
{
    FILE *log;
    pid_t child;
    int status;
    int result = 99;

    program = argv[0];
    nth = (unsigned int)atoi(argv[1]);
    wanted = atoi(argv[2]);
    error_number = atoi(argv[3]);
    times = 1;
    log = fopen(argv[4], "we");
    if (!log)
        die(argv[4]);
    for (argv += 5; *argv && strcmp(*argv, "--") != 0; argv++) {
        bool itself = **argv == '+';
        pid_t pid = atoi(*argv + itself);

        seize(pid);
        threads[n_threads++] = (struct thread){.tid = pid, .counted = itself, .nr = -1};
        if (itself)
            interrupt_all(pid);
    }
    if (!*argv)
        die("no command");
    child = fork();
    if (child == 0) {
        raise(SIGSTOP);
        execvp(argv[1], argv + 1);
        _exit(98);
    }
    if (child < 0 || waitpid(child, &status, WUNTRACED) < 0)
        die("fork");
    seize(child);
    kill(child, SIGCONT);
    for (;;) {
        pid_t tid = waitpid(-1, &status, __WALL);

        if (tid < 0) {
            if (errno == EINTR)
                continue;
            break;
        }
        if (!handle(tid, status, child)) {
            result = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
            break;
        }
    }
    for (unsigned int i = 0; i < n_calls; i++)
        fprintf(log, "%d %d %ld%s\n", calls[i].tid, calls[i].nr, calls[i].result,
                calls[i].failed ? " !" : "");
    fclose(log);
    return result;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "attach") == 0)
        return serve(atoi(argv[2]));
    if (argc > 8 && strcmp(argv[1], "run") == 0)
        return run(argv + 2);
    fputs("usage: faults attach PID | run PROGRAM NTH NR ERRNO LOG [PID ...] -- COMMAND...\n",
          stderr);
    return 2;
}
