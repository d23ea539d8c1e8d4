/*
 * late - holds back the answers that a process gives to seccomp notifications, for tests on the
 * host.
 *
 *     late PID
 *
 * Stops each thread of PID where it is about to answer (SECCOMP_IOCTL_NOTIF_SEND or _ADDFD): what
 * was asked for has been done, and the caller does not know.  Says "ready", then "held" for each
 * answer, which goes out when a line is read; at the end of input all go out.  It stays until it is
 * killed: to be let go of interrupts a thread, and SECCOMP_IOCTL_NOTIF_ADDFD is not to be.
 */
#define _GNU_SOURCE
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "seize.h"

static int answers(pid_t tid)
{
    struct __ptrace_syscall_info info;

    if (ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof info, &info) <= 0 ||
        info.op != PTRACE_SYSCALL_INFO_ENTRY || info.entry.nr != SYS_ioctl)
        return 0;
    return info.entry.args[1] == SECCOMP_IOCTL_NOTIF_SEND ||
           info.entry.args[1] == SECCOMP_IOCTL_NOTIF_ADDFD;
}

int main(int argc, char **argv)
{
    char line[16];
    int holds = 1;
    int status;
    pid_t tid;

    if (argc != 2)
        return 2;
    setbuf(stdout, NULL);
    seize(argv[1], NULL, 0);
    puts("ready");
    while ((tid = waitpid(-1, &status, __WALL)) > 0) {
        int signal = 0;

        if (!WIFSTOPPED(status))
            continue;
        if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
            if (holds && answers(tid)) {
                puts("held");
                holds = fgets(line, sizeof line, stdin) != NULL;
            }
        } else if (status >> 16 == 0) {
            signal = WSTOPSIG(status);
        }
        ptrace(PTRACE_SYSCALL, tid, 0, signal);
    }
    return 0;
}
