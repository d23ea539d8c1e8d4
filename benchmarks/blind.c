/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blind LISTENER PID - a listener that stays in the namespaces of PID and makes the calls itself.
 *
 * It does what nobody can leave out who judges a call by its objects: it reads the strings once,
 * sees that the caller still waits, opens what the call names, and asks which mount that is and, of
 * one whose flags change, which storage it shows.  It does not ask who is calling, with which
 * capabilities, from which namespaces and root; it decides nothing, and then makes the call by the
 * strings once more.  So this is a bound from below for what a worker can cost.
 */
#include <linux/openat2.h>
#include <stdbool.h>
#include <sys/stat.h>

#include "../tests/support/namespaces.h"
#include "again.h"
#include "listener.h"

enum { BUFFER = 8192 };

/* Opens a path and asks for its mount; the unique id of that, or 0 and errno. */
static uint64_t look_at(const char *path)
{
    struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS};
    struct statx stx = {0};
    int fd = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));

    if (fd < 0)
        return 0;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_TYPE | STATX_INO | STATX_MNT_ID_UNIQUE, &stx) < 0)
        stx.stx_mnt_id = 0;
    close(fd);
    return stx.stx_mnt_id;
}

/* Which storage the mount shows; 0 or -errno. */
static int storage_of(uint64_t mnt_id)
{
    static char buffer[BUFFER];
    struct mnt_id_req req = {
        .size = MNT_ID_REQ_SIZE_VER0,
        .mnt_id = mnt_id,
        .param = STATMOUNT_SB_BASIC | STATMOUNT_MNT_ROOT,
    };

    return syscall(__NR_statmount, &req, buffer, sizeof(buffer), 0) < 0 ? -errno : 0;
}

/* The objects of a call; 0 or -errno. */
static int look(const struct seccomp_notif *call, const struct strings *strings)
{
    const __u64 *args = call->data.args;
    const char(*text)[PATH_MAX] = strings->text;
    bool flags_change = call->data.nr == SYS_mount_setattr;
    uint64_t mnt_id;

    if (call->data.nr == SYS_umount2) {
        struct statx stx;

        /* One that is open could not be unmounted. */
        return statx(AT_FDCWD, text[0], 0, STATX_MNT_ID_UNIQUE, &stx) < 0 ? -errno : 0;
    }
    if (call->data.nr == SYS_mount) {
        flags_change = (args[3] & MS_REMOUNT) != 0;
        if ((args[3] & MS_BIND) && !flags_change && !look_at(text[0]))
            return -errno;
    } else if (call->data.nr == SYS_move_mount && !look_at(text[0])) {
        return -errno;
    }
    mnt_id = look_at(flags_change && call->data.nr != SYS_mount ? text[0] : text[1]);
    if (!mnt_id)
        return -errno;
    return flags_change ? storage_of(mnt_id) : 0;
}

/* To where the relative paths of the program begin; it stays there. */
static void follow(int proc, pid_t tid)
{
    char path[32];
    int cwd;

    snprintf(path, sizeof(path), "%d/cwd", (int)tid);
    cwd = openat(proc, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    make(path, cwd);
    make("fchdir", fchdir(cwd));
    close(cwd);
}

int main(int argc, char **argv)
{
    static struct strings strings;
    int listener = argc == 3 ? listener_begin(argv[1]) : -EINVAL;
    int proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct seccomp_notif call;
    pid_t followed = 0;

    if (listener >= 0)
        enter_namespaces(argv[2]);
    while (listener >= 0 && listener_receive(listener, &call) == 0) {
        struct seccomp_notif_resp answer = {.id = call.id, .error = -EPERM};

        read_strings(&call, &strings);
        if ((pid_t)call.pid != followed)
            follow(proc, (pid_t)call.pid);
        followed = (pid_t)call.pid;
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &call.id) < 0)
            continue;
        answer.error = look(&call, &strings);
        if (answer.error == 0 && perform(&call, &strings) < 0)
            answer.error = -errno;
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer) < 0 && errno != ENOENT)
            break;
    }
    perror("blind");
    return 1;
}
