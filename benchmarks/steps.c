/* Counts what a worker executes for each call, one instruction at a time.
 *
 * Every thread of the process but the first is single-stepped (PTRACE_SINGLESTEP), which is exact,
 * slow, and needs neither a performance counter, which virtual machines often lack, nor an
 * emulator, which would have to know every system call of the newest kernel.
 *
 * The first thread, which serves nobody, stands still until another one ends: a call that is
 * stepped takes so long that it would have another thread take the listener over (csrc/hangs.c). So
 * each call also wakes it up, as otherwise the first one after a rest does.
 *
 * Prints "ready", and then one line for each call that a thread has received and dealt with, which
 * is everything from one SECCOMP_IOCTL_NOTIF_RECV to the next:
 *
 *     PROGRAM LIBRARIES ENTRIES SYSCALLS
 *
 * PROGRAM and LIBRARIES are instructions in the program's own text and elsewhere, ENTRIES how often
 * the program called into a library, SYSCALLS system calls, the last SECCOMP_IOCTL_NOTIF_RECV
 * included.  The vDSO is left out: its clock loops as the time of day has it.  A string instruction
 * counts once, however often it repeats.
 *
 * Usage: steps PID   (until it is killed; the process then goes on by itself)
 */
#include <dirent.h>
#include <errno.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST_THREADS = 64, LINE = 4096 };

struct range {
    uint64_t from;
    uint64_t to;
};

struct counts {
    uint64_t program;
    uint64_t libraries;
    uint64_t entries;
    uint64_t syscalls;
};

struct thread {
    struct counts counts;
    uint64_t last; /* where the last instruction was */
    pid_t tid;
    bool inside;   /* the last instruction was the program's own */
    bool receives; /* it asks for a call */
    bool serves;   /* it has got one */
};

static struct range program_text;
static struct range vdso;
static struct thread threads[MOST_THREADS];
static unsigned int count;

static bool holds(const struct range *range, uint64_t address)
{
    return address >= range->from && address < range->to;
}

/* Learns where the program's text and the vDSO are; 0 or -errno. */
static int read_map(pid_t pid)
{
    char path[64];
    char name[LINE];
    char line[LINE];
    ssize_t n;
    FILE *maps;

    snprintf(path, sizeof(path), "/proc/%d/exe", pid);
    n = readlink(path, name, sizeof(name) - 1);
    if (n < 0)
        return -errno;
    name[n] = 0;
    snprintf(path, sizeof(path), "/proc/%d/maps", pid);
    maps = fopen(path, "re");
    if (!maps)
        return -errno;
    while (fgets(line, sizeof(line), maps)) {
        char *end;
        struct range range = {.from = strtoull(line, &end, 16)};

        range.to = strtoull(end + 1, &end, 16);
        if (strncmp(end, " r-x", 4) != 0)
            continue;
        if (strstr(line, name))
            program_text = range;
        else if (strstr(line, "[vdso]"))
            vdso = range;
    }
    fclose(maps);
    return program_text.to && vdso.to ? 0 : -ENOENT;
}

/* Attaches to every thread; 0 or -errno. */
static int seize(pid_t pid)
{
    char path[64];
    struct dirent *entry;
    DIR *tasks;
    int r = 0;

    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    tasks = opendir(path);
    if (!tasks)
        return -errno;
    while (r == 0 && (entry = readdir(tasks))) {
        pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10);

        if (tid <= 0)
            continue;
        if (count == MOST_THREADS)
            r = -E2BIG;
        else if (ptrace(PTRACE_SEIZE, tid, 0, 0) < 0 || ptrace(PTRACE_INTERRUPT, tid, 0, 0) < 0)
            r = -errno;
        else
            threads[count++].tid = tid;
    }
    closedir(tasks);
    return r;
}

static struct thread *find(pid_t tid)
{
    for (unsigned int i = 0; i < count; i++)
        if (threads[i].tid == tid)
            return &threads[i];
    return NULL;
}

static void add(struct thread *thread, uint64_t at)
{
    bool inside = holds(&program_text, at);

    if (inside)
        thread->counts.program++;
    else if (!holds(&vdso, at))
        thread->counts.libraries++;
    if (thread->inside && !inside)
        thread->counts.entries++;
    thread->inside = inside;
}

static bool asks(const struct user_regs_struct *regs, uint64_t nr)
{
    return nr == SYS_ioctl && regs->rsi == SECCOMP_IOCTL_NOTIF_RECV;
}

/* A thread was interrupted, mostly where it waits for a call, which the kernel may have it go on
 * doing. */
static void begin(struct thread *thread)
{
    struct user_regs_struct regs;

    if (ptrace(PTRACE_GETREGS, thread->tid, 0, &regs) == 0)
        thread->receives = asks(&regs, regs.orig_rax);
}

/* A thread stands before its next instruction; 0 or -errno. */
static int look(struct thread *thread)
{
    struct user_regs_struct regs;
    long code;

    if (ptrace(PTRACE_GETREGS, thread->tid, 0, &regs) < 0)
        return -errno;
    if (thread->receives) {
        thread->receives = false;
        thread->serves = regs.rax == 0;
        memset(&thread->counts, 0, sizeof(thread->counts));
    }
    if (regs.rip == thread->last)
        return 0; /* a string instruction goes on */
    thread->last = regs.rip;
    add(thread, regs.rip);
    errno = 0;
    code = ptrace(PTRACE_PEEKTEXT, thread->tid, regs.rip, 0);
    if (errno)
        return -errno;
    if ((code & 0xffff) != 0x050f)
        return 0;
    thread->counts.syscalls++;
    thread->last = 0; /* the kernel may have it made again */
    thread->receives = asks(&regs, regs.rax);
    if (thread->receives && thread->serves) {
        printf("%lu %lu %lu %lu\n", thread->counts.program, thread->counts.libraries,
               thread->counts.entries, thread->counts.syscalls);
        fflush(stdout);
    }
    return 0;
}

int main(int argc, char **argv)
{
    pid_t pid = argc == 2 ? (pid_t)strtol(argv[1], NULL, 10) : 0;
    int r = pid > 0 ? read_map(pid) : -EINVAL;
    bool stands = false; /* the first thread */
    bool ends = false;   /* another one has ended: the first one has to see it off */

    if (r == 0)
        r = seize(pid);
    if (r < 0) {
        fprintf(stderr, "steps: %s\n", strerror(-r));
        return 1;
    }
    puts("ready");
    fflush(stdout);
    for (;;) {
        int status = 0;
        pid_t tid = waitpid(-1, &status, __WALL);
        struct thread *thread = find(tid);
        int passed = 0;

        if (tid < 0)
            return 1;
        if (tid == pid && WIFSTOPPED(status)) {
            if (ends)
                ptrace(PTRACE_CONT, pid, 0, 0);
            stands = true;
            continue;
        }
        if (tid != pid && !WIFSTOPPED(status)) {
            ends = true;
            if (stands)
                ptrace(PTRACE_CONT, pid, 0, 0);
        }
        if (!thread || !WIFSTOPPED(status))
            continue;
        if (WSTOPSIG(status) != SIGTRAP)
            passed = WSTOPSIG(status);
        else if (status >> 16 == 0)
            look(thread);
        else
            begin(thread);
        ptrace(PTRACE_SINGLESTEP, tid, 0, passed);
    }
}
