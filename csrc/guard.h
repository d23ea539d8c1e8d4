/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A seccomp filter in front of the runtime's own, for what libseccomp cannot name, and for what
 * no profile thinks of.
 *
 * libseccomp 2.5 does not know open_tree_attr(2) (6.15), and both runtimes silently skip a
 * name that it does not know, so a profile that allows by default would let it through:
 * without OPEN_TREE_CLONE it changes the attributes of an existing mount, as mount_setattr
 * does.  What comes after it is unknown to us, and may be one more way to mount.  Therefore
 * every number from open_tree_attr up gets ENOSYS: programs then fall back, as they do on
 * the kernel that lacks it.  file_getattr and file_setattr (468, 469; 6.17) are known and
 * harmless.  x32 numbers (bit 30) are above the limit too, which denies x32.
 *
 * The worker has mount namespaces that the container's user namespace owns (kernfs.c), with a
 * procfs and a sysfs without masks in them.  From 6.12 on two ioctls of a namespace go through all
 * mount namespaces that the caller's capabilities reach, and open them; from 6.18 on file handles
 * of namespaces do the same.  Newer kernels, and stable ones with "nsfs: tighten permission
 * checks", answer both with EPERM outside of the first PID namespace, and so does the filter.
 * Which file system a handle is of it cannot see, but before 6.13 open_by_handle_at(2) was EPERM
 * in every user namespace, so nothing rests on it.
 *
 * For all calls but ioctl the filter looks at nothing but nr and arch, so the kernel's action
 * cache answers for it and it costs nothing per call.  It is inherited by the container's first
 * process from the runtime, and by each `exec` from the launcher.
 */
#ifndef ECI_GUARD_H
#define ECI_GUARD_H

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "compat.h"

#define GUARD_LAST_KNOWN (__NR_open_tree_attr + 2)

/* linux/arch/x86/entry/syscalls/syscall_32.tbl */
#define I386_IOCTL             54
#define I386_OPEN_BY_HANDLE_AT 342

/* linux/nsfs.h: type and number of the ioctls, whatever the size of their struct. */
#define GUARD_MNT_GET_NEXT 0xb70b
#define GUARD_MNT_GET_PREV 0xb70c

/* Returns 0 or -errno.  Needs CAP_SYS_ADMIN, because no_new_privs stays as it is. */
static inline int guard_install(void)
{
    static const struct sock_filter program[] = {
        /*  0 */ BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        /*  1 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 2, 0),
        /*  2 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_I386, 4, 0),
        /*  3 */ BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        /*  4 */ BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        /*  5 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 6, 0),
        /*  6 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_open_by_handle_at, 9, 3),
        /*  7 */ BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        /*  8 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, I386_IOCTL, 3, 0),
        /*  9 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, I386_OPEN_BY_HANDLE_AT, 6, 0),
        /* 10 */ BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, GUARD_LAST_KNOWN, 6, 0),
        /* 11 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_open_tree_attr, 5, 6),
        /* 12 */ BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        /* 13 */ BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xffff),
        /* 14 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, GUARD_MNT_GET_NEXT, 1, 0),
        /* 15 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, GUARD_MNT_GET_PREV, 0, 2),
        /* 16 */ BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        /* 17 */ BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        /* 18 */ BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog prog = {
        .len = sizeof(program) / sizeof(program[0]),
        .filter = (struct sock_filter *)program,
    };

    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0UL, &prog) < 0)
        return -errno;
    return 0;
}

#endif
