/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fork LISTENER PID - performs every call in a process of its own, which enters the namespaces of
 * the caller and its working directory.  No program is executed for it, and nothing is decided:
 * real systems that work like this take longer.
 */
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "listener.h"

enum { STRINGS = 4 };

/* What a call points at, read before the process starts. */
struct strings {
    char text[STRINGS][PATH_MAX];
};

/* A terminated string, or bytes; up to the end of the page. */
static void read_text(pid_t tid, uint64_t address, char text[PATH_MAX])
{
    struct iovec local = {.iov_base = text, .iov_len = PATH_MAX - (address & (PATH_MAX - 1))};
    struct iovec remote = {.iov_base = (void *)(uintptr_t)address, .iov_len = local.iov_len};

    text[0] = 0;
    if (address && process_vm_readv(tid, &local, 1, &remote, 1, 0) <= 0)
        text[0] = 0;
}

static void read_strings(const struct seccomp_notif *call, struct strings *strings)
{
    static const struct {
        int nr;
        int arguments[STRINGS]; /* which are pointers; -1: no more */
    } calls[] = {
        {SYS_mount, {0, 1, 2, 4}},
        {SYS_umount2, {0, -1}},
        {SYS_move_mount, {1, 3, -1}},
        {SYS_mount_setattr, {1, 3, -1}},
    };

    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
        for (int k = 0; calls[i].nr == call->data.nr && k < STRINGS; k++) {
            if (calls[i].arguments[k] < 0)
                break;
            read_text((pid_t)call->pid, call->data.args[calls[i].arguments[k]], strings->text[k]);
        }
}

static long perform(const struct seccomp_notif *call, const struct strings *strings)
{
    const __u64 *args = call->data.args;
    const char(*text)[PATH_MAX] = strings->text;

    switch (call->data.nr) {
    case SYS_mount:
        return mount(args[0] ? text[0] : NULL, text[1], args[2] ? text[2] : NULL, args[3],
                     args[4] ? text[3] : NULL);
    case SYS_umount2:
        return umount2(text[0], (int)args[1]);
    case SYS_move_mount:
        return syscall(SYS_move_mount, (int)args[0], text[0], (int)args[2], text[1],
                       (unsigned int)args[4]);
    default:
        return syscall(SYS_mount_setattr, (int)args[0], text[0], (unsigned int)args[2], text[1],
                       args[4]);
    }
}

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
