/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A seccomp filter in front of the runtime's own, for what libseccomp cannot name.
 *
 * libseccomp 2.5 does not know open_tree_attr(2) (6.15), and both runtimes silently skip a
 * name that it does not know, so a profile that allows by default would let it through:
 * without OPEN_TREE_CLONE it changes the attributes of an existing mount, as mount_setattr
 * does.  What comes after it is unknown to us, and may be one more way to mount.  Therefore
 * every number from open_tree_attr up gets ENOSYS: programs then fall back, as they do on
 * the kernel that lacks it.  file_getattr and file_setattr (468, 469; 6.17) are known and
 * harmless.  x32 numbers (bit 30) are above the limit too, which denies x32.
 *
 * The ioctls that lead from one mount namespace to the next (6.12) get ENOTTY, as before they
 * existed: they hand out every namespace over which the caller has CAP_SYS_ADMIN, the worker's
 * among them (kernfs.c), where nothing is masked.  Later kernels, and 6.18.44, keep them to those
 * who see all processes of the host.
 *
 * But for ioctl, the filter looks at nothing but nr and arch, so the kernel's action cache answers
 * for it and it costs nothing per call.  It is inherited by the container's first process from the
 * runtime, and by each `exec` from the launcher.
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

#define GUARD_LAST_KNOWN   (__NR_open_tree_attr + 2)
#define I386_IOCTL         54     /* arch/x86/entry/syscalls/syscall_32.tbl */
#define NS_MNT_GET_NEXT_NR 0xb70b /* include/uapi/linux/nsfs.h; type and number */
#define NS_MNT_GET_PREV_NR 0xb70c

/* Returns 0 or -errno.  Needs CAP_SYS_ADMIN, because no_new_privs stays as it is. */
static inline int guard_install(void)
{
    static const struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 4, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_I386, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, I386_IOCTL, 6, 2),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 4, 0),
        BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, GUARD_LAST_KNOWN, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_open_tree_attr, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        /* The upper half of the request is direction and size, which grows. */
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xffff),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NS_MNT_GET_NEXT_NR, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NS_MNT_GET_PREV_NR, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOTTY),
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
