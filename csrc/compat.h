/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernel constants newer than the headers of Debian 12 (6.1).  Each stands behind its own
 * #ifndef, so that a newer header wins.  Append; keep the value's source beside it.
 */
#ifndef ECI_COMPAT_H
#define ECI_COMPAT_H

#include <fcntl.h>
#include <linux/stat.h>
#include <linux/types.h>
#include <sys/ioctl.h>
#include <sys/mount.h>

#ifndef LANDLOCK_ACCESS_FS_TRUNCATE /* 6.2, include/uapi/linux/landlock.h */
#define LANDLOCK_ACCESS_FS_TRUNCATE (1ULL << 14)
#endif

#ifndef LANDLOCK_SCOPE_SIGNAL /* 6.12, likewise */
#define LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET (1ULL << 0)
#define LANDLOCK_SCOPE_SIGNAL               (1ULL << 1)
#endif

#ifndef STATX_MNT_ID_UNIQUE /* 6.8, include/uapi/linux/stat.h */
#define STATX_MNT_ID_UNIQUE 0x00004000U
#endif

#ifndef ST_NOSYMFOLLOW /* 5.10, include/linux/statfs.h */
#define ST_NOSYMFOLLOW 0x2000
#endif

#ifndef __NR_open_tree_attr /* 6.15, arch/x86/entry/syscalls/syscall_64.tbl; the same on i386 */
#define __NR_open_tree_attr 467
#endif

#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS /* 6.6, include/uapi/linux/seccomp.h */
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (1UL << 0)
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS      _IOW('!', 4, __u64)
#endif

#ifndef PIDFD_THREAD /* 6.9, include/uapi/linux/pidfd.h */
#define PIDFD_THREAD O_EXCL
#endif

#ifndef PIDFD_GET_INFO /* 6.13, include/uapi/linux/pidfd.h; the struct as first published */
#define PIDFD_INFO_CREDS (1UL << 1)
struct pidfd_info {
    __u64 mask;
    __u64 cgroupid;
    __u32 pid;
    __u32 tgid;
    __u32 ppid;
    __u32 ruid;
    __u32 rgid;
    __u32 euid;
    __u32 egid;
    __u32 suid;
    __u32 sgid;
    __u32 fsuid;
    __u32 fsgid;
    __s32 exit_code;
};
#define PIDFD_GET_INFO _IOWR(0xFF, 11, struct pidfd_info)
#endif

#ifndef MOVE_MOUNT_BENEATH /* 6.5, include/uapi/linux/mount.h */
#define MOVE_MOUNT_BENEATH 0x00000200
#endif

#ifndef __NR_statmount /* 6.8 */
#define __NR_statmount 457
#define __NR_listmount 458
#endif

#ifndef MNT_ID_REQ_SIZE_VER0 /* 6.8, include/uapi/linux/mount.h */
#define MNT_ID_REQ_SIZE_VER0 24
#define STATMOUNT_SB_BASIC   0x00000001U
#define STATMOUNT_MNT_BASIC  0x00000002U
#define STATMOUNT_MNT_ROOT   0x00000008U
#define STATMOUNT_MNT_POINT  0x00000010U
struct mnt_id_req {
    __u32 size;
    __u32 spare;
    __u64 mnt_id;
    __u64 param;
};
struct statmount {
    __u32 size;
    __u32 mnt_opts;
    __u64 mask;
    __u32 sb_dev_major;
    __u32 sb_dev_minor;
    __u64 sb_magic;
    __u32 sb_flags;
    __u32 fs_type; /* offset into str */
    __u64 mnt_id;
    __u64 mnt_parent_id;
    __u32 mnt_id_old;
    __u32 mnt_parent_id_old;
    __u64 mnt_attr; /* MOUNT_ATTR_* */
    __u64 mnt_propagation;
    __u64 mnt_peer_group;
    __u64 mnt_master;
    __u64 propagate_from;
    __u32 mnt_root;  /* offset into str */
    __u32 mnt_point; /* offset into str */
    __u64 spare2[50];
    char str[];
};
#endif

#ifndef LSMT_ROOT /* 6.8, include/uapi/linux/mount.h */
#define LSMT_ROOT 0xffffffffffffffffULL
#endif

#endif
