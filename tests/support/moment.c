/*
 * moment - stops a process at a chosen moment of its work, for tests on the host.
 *
 *     moment PID N kill
 *     moment PID N hold
 *
 * PID answers seccomp notifications.  Once a thread of it has received one, each system call that
 * this thread makes is two moments: its beginning and its end.  At the N-th of them, counted from 0
 * (the end of the receiving itself), PID gets SIGKILL, and "killed" is said; or "held" is said, and
 * this thread alone stays there until there is something to read.  "whole" is said when the thread
 * is to wait for the next call, or ends, since another one has its listener (csrc/hangs.c).
 *
 * "ready" is said before all that, once each thread has been seen to begin to wait.  A thread that
 * was taken hold of while it waited may get a call in that very instant, and nobody would see it.
 */
#define _GNU_SOURCE
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "seize.h"

enum { MOST = 64 };

static struct thread {
    pid_t tid; /* 0: a free place */
    bool waits;
    bool receives; /* is in SECCOMP_IOCTL_NOTIF_RECV */
} threads[MOST];

static struct thread *place_of(pid_t tid)
{
    for (int i = 0; i < MOST; i++)
        if (threads[i].tid == tid)
            return &threads[i];
    return NULL;
}

/* One that is not known yet is new. */
static struct thread *thread_of(pid_t tid)
{
    struct thread *thread = place_of(tid);

    if (!thread && (thread = place_of(0)))
        *thread = (struct thread){.tid = tid};
    if (!thread)
        exit(4);
    return thread;
}

static bool all_wait(void)
{
    for (int i = 0; i < MOST; i++)
        if (threads[i].tid && !threads[i].waits)
            return false;
    return true;
}

static bool receives(const struct __ptrace_syscall_info *info)
{
    return info->op == PTRACE_SYSCALL_INFO_ENTRY && info->entry.nr == SYS_ioctl &&
           info->entry.args[1] == SECCOMP_IOCTL_NOTIF_RECV;
}

/* The main thread, which looks after the others; or goes on with that, after it was stopped. */
static bool polls(const struct __ptrace_syscall_info *info)
{
    return info->op == PTRACE_SYSCALL_INFO_ENTRY &&
           (info->entry.nr == SYS_restart_syscall ||
            (info->entry.nr == SYS_poll && info->entry.args[2] != 0));
}

/* Waits for a millisecond at most. */
static bool is_told_to_go_on(void)
{
    struct pollfd fd = {.fd = STDIN_FILENO, .events = POLLIN};
    char byte;

    return poll(&fd, 1, 1) == 1 && read(STDIN_FILENO, &byte, 1) >= 0;
}

int main(int argc, char **argv)
{
    bool kills = argc == 4 && !strcmp(argv[3], "kill");
    bool is_ready = false;
    pid_t found[MOST];
    pid_t served = 0;
    pid_t held = 0;
    long moment = -1;
    long wanted;
    int status;
    pid_t tid;
    int n;

    if (argc != 4 || (!kills && strcmp(argv[3], "hold") != 0))
        return 2;
    wanted = strtol(argv[2], NULL, 10);
    setbuf(stdout, NULL);
    n = seize(argv[1], found, MOST);
    for (int i = 0; i < n && i < MOST; i++)
        thread_of(found[i]);
    while ((tid = waitpid(-1, &status, __WALL | (held ? WNOHANG : 0))) >= 0) {
        struct __ptrace_syscall_info info;
        struct thread *thread;
        int signal = 0;

        if (tid == 0) {
            if (is_told_to_go_on()) {
                ptrace(PTRACE_SYSCALL, held, 0, 0);
                held = 0;
            }
            continue;
        }
        thread = thread_of(tid);
        if (!WIFSTOPPED(status)) {
            thread->tid = 0;
        } else if (WSTOPSIG(status) == (SIGTRAP | 0x80) &&
                   ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof info, &info) > 0) {
            if (tid == served)
                moment++;
            else if (!served && is_ready && thread->receives &&
                     info.op == PTRACE_SYSCALL_INFO_EXIT && info.exit.rval == 0) {
                served = tid;
                moment = 0;
            }
            thread->receives = receives(&info);
            thread->waits = thread->receives || polls(&info);
        } else if (status >> 16 == 0) {
            signal = WSTOPSIG(status);
        }
        if (!is_ready && all_wait()) {
            is_ready = true;
            puts("ready");
        }
        if (tid == served && (!thread->tid || thread->receives)) {
            puts("whole");
            return 0;
        }
        if (tid == served && moment == wanted) {
            wanted = -1;
            if (kills) {
                kill((pid_t)strtol(argv[1], NULL, 10), SIGKILL);
                puts("killed");
                return 0;
            }
            held = tid;
            puts("held");
            continue;
        }
        /* The others' system calls matter only as long as it is not known who has the call. */
        if (WIFSTOPPED(status))
            ptrace(served && tid != served ? PTRACE_CONT : PTRACE_SYSCALL, tid, 0, signal);
    }
    return 1;
}
