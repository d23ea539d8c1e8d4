/* SPDX-License-Identifier: Apache-2.0 */
/* What kernfs.c and exchange.c share: the records, and the way of a tree to its locks. */
#ifndef ECI_KERNFS_H
#define ECI_KERNFS_H

#include <linux/magic.h>
#include <sys/vfs.h>

#include "worker.h"

/* In `build`. */
#define BUILD "/build"
#define SLOT  "/slot"

/* Where something is built, and where it goes to be locked: a directory, or a file. */
struct slot {
    const char *build;
    const char *tree;
};

struct kernfs_kind {
    const char *point;
    uint32_t magic;
};

extern const struct slot directory_slot;
extern const struct slot file_slot;
extern const struct kernfs_kind kernfs_kinds[];

static inline bool is_cgroup(uint64_t magic)
{
    return magic == CGROUP_SUPER_MAGIC || magic == CGROUP2_SUPER_MAGIC;
}

const char *next_record(const struct worker *worker, const char *at, char kind);
int kernfs_go(int ns);
int kernfs_place(int fs, const char *path);
int kernfs_cover(const struct worker *worker, enum kernfs kind);
int kernfs_lock(const struct worker *worker, const struct slot *slot);
int kernfs_clear(const struct worker *worker);
int attach_mount(int tree, int place, unsigned int flags);
int set_mount_flags(int tree, uint64_t set, uint64_t clear);
int clone_mount(int dir, const char *path, unsigned int flags);

#endif
