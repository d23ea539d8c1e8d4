/* SPDX-License-Identifier: Apache-2.0 */
/* A call of somebody else's, made again: what it points at is read, and the call repeated. */
#ifndef ECI_AGAIN_H
#define ECI_AGAIN_H

#include <errno.h>
#include <limits.h>
#include <linux/seccomp.h>
#include <stdint.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { STRINGS = 4 };

/* What a call points at, read once. */
struct strings {
    char text[STRINGS][PATH_MAX];
};

/* A terminated string, or bytes; up to the end of the page. */
static inline void read_text(pid_t tid, uint64_t address, char text[PATH_MAX])
{
    struct iovec local = {.iov_base = text, .iov_len = PATH_MAX - (address & (PATH_MAX - 1))};
    struct iovec remote = {.iov_base = (void *)(uintptr_t)address, .iov_len = local.iov_len};

    text[0] = 0;
    if (address && process_vm_readv(tid, &local, 1, &remote, 1, 0) <= 0)
        text[0] = 0;
}

static inline void read_strings(const struct seccomp_notif *call, struct strings *strings)
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

static inline long perform(const struct seccomp_notif *call, const struct strings *strings)
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

#endif
