/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fork LISTENER PID - performs every call in a process of its own, which enters the namespaces of
 * the caller and its working directory.  No program is executed for it, and nothing is decided:
 * real systems that work like this take longer.
 */
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>

#include "again.h"
#include "listener.h"

static int open_of(pid_t tid, const char *name, int flags)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/%s", (int)tid, name);
    return open(path, flags | O_CLOEXEC);
}

/* The process: errno of the call, or of what kept it from being made. */
static int help(const struct seccomp_notif *call, const struct strings *strings)
{
    pid_t tid = (pid_t)call->pid;
    int user = open_of(tid, "ns/user", O_RDONLY);
    int mnt = open_of(tid, "ns/mnt", O_RDONLY);
    int cwd = open_of(tid, "cwd", O_PATH);

    if (user < 0 || mnt < 0 || cwd < 0 || setns(user, 0) < 0 || setns(mnt, 0) < 0 ||
        fchdir(cwd) < 0 || perform(call, strings) < 0)
        return errno;
    return 0;
}

int main(int argc, char **argv)
{
    static struct strings strings;
    int listener = argc == 3 ? listener_begin(argv[1]) : -EINVAL;
    struct seccomp_notif call;

    while (listener >= 0 && listener_receive(listener, &call) == 0) {
        struct seccomp_notif_resp answer = {.id = call.id, .error = -EPERM};
        int status;
        pid_t helper;

        read_strings(&call, &strings);
        /* fork(2), but that the end of this child sends no signal: it is not the program. */
        helper = (pid_t)syscall(SYS_clone, 0UL, NULL, NULL, NULL, 0UL);
        if (helper == 0)
            _exit(help(&call, &strings));
        if (helper > 0 && waitpid(helper, &status, __WCLONE) == helper && WIFEXITED(status))
            answer.error = -WEXITSTATUS(status);
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer) < 0 && errno != ENOENT)
            break;
    }
    perror("fork");
    return 1;
}
