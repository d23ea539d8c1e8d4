/* SPDX-License-Identifier: Apache-2.0 */
/* See sys_api.h for the contracts. */
#include "compat.h"
#include "sys_api.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/nsfs.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "filters.h"
#include "guard.h"
#include "privilege.h"

/* The kernel's answer in the form of this file: >= 0 or -errno. */
static int64_t answer(long rc)
{
    return rc < 0 ? -(int64_t)errno : rc;
}

int sys_open_tree(int dfd, const char *filename, unsigned int flags)
{
    return (int)answer(syscall(SYS_open_tree, dfd, filename, flags));
}

int sys_move_mount(int from_dfd, const char *from_path, int to_dfd, const char *to_path,
                   unsigned int flags)
{
    return (int)answer(syscall(SYS_move_mount, from_dfd, from_path, to_dfd, to_path, flags));
}

int sys_mount_setattr(int dfd, const char *path, unsigned int flags, uint64_t attr_set,
                      uint64_t attr_clr, uint64_t propagation, uint64_t userns_fd)
{
    struct mount_attr attr = {
        .attr_set = attr_set,
        .attr_clr = attr_clr,
        .propagation = propagation,
        .userns_fd = userns_fd,
    };

    return (int)answer(syscall(SYS_mount_setattr, dfd, path, flags, &attr, sizeof(attr)));
}

int sys_fsopen(const char *fsname, unsigned int flags)
{
    return (int)answer(syscall(SYS_fsopen, fsname, flags));
}

int sys_fsconfig(int fd, unsigned int cmd, const char *key, const char *value, int aux)
{
    return (int)answer(syscall(SYS_fsconfig, fd, cmd, key, value, aux));
}

int sys_fsmount(int fd, unsigned int flags, unsigned int attr_flags)
{
    return (int)answer(syscall(SYS_fsmount, fd, flags, attr_flags));
}

int sys_fspick(int dfd, const char *path, unsigned int flags)
{
    return (int)answer(syscall(SYS_fspick, dfd, path, flags));
}

int sys_mount(const char *dev_name, const char *dir_name, const char *type, unsigned long flags,
              const char *data)
{
    return (int)answer(syscall(SYS_mount, dev_name, dir_name, type, flags, data));
}

int sys_umount2(const char *name, int flags)
{
    return (int)answer(syscall(SYS_umount2, name, flags));
}

int sys_openat2(int dfd, const char *filename, uint64_t flags, uint64_t mode, uint64_t resolve)
{
    struct open_how how = {.flags = flags | O_CLOEXEC, .mode = mode, .resolve = resolve};

    return (int)answer(syscall(SYS_openat2, dfd, filename, &how, sizeof(how)));
}

int sys_setns(int fd, int nstype)
{
    return (int)answer(syscall(SYS_setns, fd, nstype));
}

int sys_unshare(unsigned long flags)
{
    return (int)answer(syscall(SYS_unshare, flags));
}

int sys_mknodat(int dfd, const char *filename, unsigned int mode, uint64_t dev)
{
    /* The kernel's own dev_t is 32 bits wide; glibc's mknodat checks and converts. */
    return (int)answer(mknodat(dfd, filename, mode, dev));
}

int sys_fchmodat(int dfd, const char *filename, unsigned int mode)
{
    return (int)answer(syscall(SYS_fchmodat, dfd, filename, mode));
}

int sys_fchownat(int dfd, const char *filename, unsigned int user, unsigned int group, int flag)
{
    return (int)answer(syscall(SYS_fchownat, dfd, filename, user, group, flag));
}

int sys_pidfd_open(int pid, unsigned int flags)
{
    return (int)answer(syscall(SYS_pidfd_open, pid, flags));
}

int sys_pidfd_send_signal(int pidfd, int sig)
{
    return (int)answer(syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0U));
}

int64_t sys_setfsuid(unsigned int uid)
{
    return (unsigned int)setfsuid(uid);
}

int64_t sys_setfsgid(unsigned int gid)
{
    return (unsigned int)setfsgid(gid);
}

int sys_ns_get_userns(int fd)
{
    return (int)answer(ioctl(fd, NS_GET_USERNS));
}

static int64_t mount_id(int dfd, const char *path, int flags, unsigned int mask)
{
    struct statx stx;

    memset(&stx, 0, sizeof(stx));
    if (syscall(SYS_statx, dfd, path, flags, mask, &stx) < 0)
        return -(int64_t)errno;
    /* An older kernel ignores bits that it does not know. */
    if ((stx.stx_mask & mask) == 0)
        return -ENOSYS;
    return (int64_t)stx.stx_mnt_id;
}

int64_t sys_statx_mnt_id(int dfd, const char *path, int flags)
{
    return mount_id(dfd, path, flags, STATX_MNT_ID);
}

int64_t sys_statx_mnt_id_unique(int dfd, const char *path, int flags)
{
    return mount_id(dfd, path, flags, STATX_MNT_ID_UNIQUE);
}

int64_t sys_fstatfs_flags(int fd)
{
    struct statfs sfs;

    if (fstatfs(fd, &sfs) < 0)
        return -(int64_t)errno;
    return (int64_t)sfs.f_flags;
}

int64_t sys_fstatfs_type(int fd)
{
    struct statfs sfs;

    if (fstatfs(fd, &sfs) < 0)
        return -(int64_t)errno;
    return (int64_t)sfs.f_type;
}

static int capabilities(unsigned long nr, struct __user_cap_data_struct data[2])
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};

    return (int)answer(syscall((long)nr, &header, data));
}

int64_t sys_capget(char set)
{
    struct __user_cap_data_struct data[2];
    int rc = capabilities(SYS_capget, data);

    if (rc < 0)
        return rc;
    if (set == 'e')
        return (int64_t)((uint64_t)data[1].effective << 32 | data[0].effective);
    if (set == 'p')
        return (int64_t)((uint64_t)data[1].permitted << 32 | data[0].permitted);
    return -EINVAL;
}

int eci_setfsids(unsigned int uid, unsigned int gid)
{
    struct __user_cap_data_struct data[2];
    int rc = capabilities(SYS_capget, data);

    if (rc < 0)
        return rc;
    setfsgid(gid);
    setfsuid(uid);
    /* setfsuid reports nothing: ask with an id that is never valid, which changes nothing. */
    if ((unsigned int)setfsuid((uid_t)-1) != uid || (unsigned int)setfsgid((gid_t)-1) != gid)
        return -EPERM;
    return capabilities(SYS_capset, data);
}

int eci_renounce(uint64_t kept)
{
    int rc = privilege_seal();

    return rc < 0 ? rc : privilege_keep(kept);
}

int eci_filter_keeper(void)
{
    return filter_keeper();
}

int eci_filter_proxy(void)
{
    return filter_proxy();
}

int eci_confine(const int *directories, const char *kinds, unsigned int n)
{
    return privilege_files(directories, kinds, n);
}

/* The carrier of a user namespace: it only waits to be killed.  It shares our memory. */
static int carrier(void *unused)
{
    (void)unused;
    /* If the parent dies first; the parent kills it in every other case. */
    syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    for (;;)
        syscall(SYS_pause);
    return 0;
}

/* Opens /proc/PID/NAME of our own child; the pid cannot be reused before we wait for it. */
static int open_proc(pid_t pid, const char *name, int flags)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
    return (int)answer(open(path, flags | O_CLOEXEC));
}

static int write_proc(pid_t pid, const char *name, const char *text)
{
    size_t size = strlen(text);
    int fd = open_proc(pid, name, O_WRONLY);
    int rc = 0;

    if (fd < 0)
        return fd;
    /* A map must be written with one write(2): user_namespaces(7). */
    ssize_t written = write(fd, text, size);
    if (written < 0)
        rc = -errno;
    else if ((size_t)written != size)
        rc = -EIO;
    close(fd);
    return rc;
}

int eci_userns_create(const char *uid_map, const char *gid_map)
{
    enum { STACK = 16384 };
    char *stack = aligned_alloc(16, STACK);
    int rc;

    if (stack == NULL)
        return -ENOMEM;
    /* CLONE_VM: the child runs nothing but carrier(), and a copy of our page tables is slow.
     * No CLONE_FILES: what we open meanwhile is not its business. */
    pid_t pid = clone(carrier, stack + STACK, CLONE_NEWUSER | CLONE_VM | SIGCHLD, NULL);
    if (pid < 0) {
        rc = -errno;
        free(stack);
        return rc;
    }
    rc = write_proc(pid, "uid_map", uid_map);
    if (rc == 0)
        rc = write_proc(pid, "gid_map", gid_map);
    if (rc == 0)
        rc = open_proc(pid, "ns/user", O_RDONLY);
    kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    free(stack);
    return rc;
}

int eci_install_guard(void)
{
    return guard_install();
}

/* Write to those pages of a mapping that are there; those that are not have no second owner. */
static int own_mapping(unsigned long start, unsigned long end, unsigned long page,
                       unsigned char *there, size_t room)
{
    for (unsigned long at = start; at < end; at += room * page) {
        size_t count = (end - at) / page < room ? (end - at) / page : room;
        size_t next;

        if (mincore((void *)at, count * page, there) < 0) // NOLINT: an address
            return -errno;
        for (size_t i = 0; i < count; i = next) {
            next = i + 1;
            if ((there[i] & 1) == 0)
                continue;
            while (next < count && (there[next] & 1) != 0)
                next++;
            if (madvise((void *)(at + i * page), (next - i) * page, // NOLINT: an address
                        MADV_POPULATE_WRITE) < 0)
                return -errno;
        }
    }
    return 0;
}

int eci_own_pages(void)
{
    /* What is larger is a sanitizer's shadow of all memory, which takes seconds to look through. */
    const unsigned long most = 64UL << 30;
    enum { ROOM = 65536 };
    unsigned long page = (unsigned long)sysconf(_SC_PAGESIZE);
    unsigned char *there = malloc(ROOM);
    FILE *maps = fopen("/proc/self/maps", "re");
    char *line = NULL;
    size_t room = 0;
    int rc = 0;

    if (there == NULL)
        rc = -ENOMEM;
    else if (maps == NULL)
        rc = -errno;
    while (rc == 0 && getline(&line, &room, maps) > 0) {
        unsigned long start;
        unsigned long end;
        char kind[5];

        /* What has gone since the line was written is no harm: the kernel says ENOMEM, too. */
        if (sscanf(line, "%lx-%lx %4s", &start, &end, kind) == 3 && strcmp(kind, "rw-p") == 0 &&
            end - start <= most)
            rc = own_mapping(start, end, page, there, ROOM);
    }
    free(line);
    free(there);
    if (maps != NULL)
        fclose(maps);
    return rc;
}
