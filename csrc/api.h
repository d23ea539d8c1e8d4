/*
 * What Python and C agree on: the policy table, the facts that a decision rests on, the
 * verdict, and the event ring.  Read by the compiler and, between the marks, by cffi.
 */
#ifndef ECI_API_H
#define ECI_API_H

#include <stdbool.h>
#include <stdint.h>

/* cffi: begin */
#define ECI_POLICY_MAGIC   0x31494345
#define ECI_POLICY_VERSION 3

/* Flags that a mount can hold; the values are those of MS_* and MOUNT_ATTR_*. */
#define ECI_RDONLY     1
#define ECI_NOSUID     2
#define ECI_NODEV      4
#define ECI_NOEXEC     8
#define ECI_HELD_FLAGS 15

/* What a grant is. */
#define ECI_KIND_ROOTFS        1
#define ECI_KIND_MOUNT         2
#define ECI_KIND_MASK          3
#define ECI_KIND_READONLY_PATH 4
#define ECI_KIND_PROC          5
#define ECI_KIND_SYSFS         6

/* What an inode means to the policy; a bit set. */
#define ECI_INODE_PROTECTED 1 /* a host-protected path */
#define ECI_INODE_ABOVE     2 /* an ancestor of one */
#define ECI_INODE_RECURSE   4 /* lies above a mask: may be bound only with MS_REC */
#define ECI_INODE_SHARED    8 /* in a host-protected path, and not protected */

/*
 * One initial mount.  Storage is named by super block and root inside it, so that a copy in
 * another mount namespace, a bind or a move is still recognised.  Offsets are into the blob.
 */
struct eci_grant {
    /* Filled by the worker, as statx reports: */
    uint64_t mnt_id;  /* unique */
    uint64_t own_ino; /* inode and device of the root of the mount */
    uint32_t own_major;
    uint32_t own_minor;
    uint64_t cov_ino; /* inode and device of what it hides */
    uint32_t cov_major;
    uint32_t cov_minor;
    uint64_t dir_ino; /* of the directory that it lies in */
    uint32_t dir_major;
    uint32_t dir_minor;
    uint64_t ent_ino; /* of its name in that directory, as getdents64 has it; 0: not known */
    /* From the mount table: */
    uint32_t sb_major;
    uint32_t sb_minor;
    uint32_t root_off;  /* root inside the super block */
    uint32_t point_off; /* mount point, from the container's root */
    uint32_t flags;     /* ECI_RDONLY ...: what may not be cleared */
    uint32_t kind;      /* ECI_KIND_* */
    uint32_t hides;     /* not 0: unmounting or moving it away would uncover something */
    uint32_t by_name;   /* not 0: cov_* could not be found out, dir_* and the name stand for it */
};

struct eci_inode_rule {
    uint64_t ino;
    uint32_t major;
    uint32_t minor;
    uint32_t what; /* ECI_INODE_*; 0 marks a free slot of the hash table */
    uint32_t pad;
};

/* The head of the blob.  Everything in it comes from us, nothing from the container. */
struct eci_policy {
    uint32_t magic;
    uint32_t version;
    uint32_t size; /* bytes of the whole blob */
    uint32_t n_grants;
    uint32_t grants_off;
    uint32_t n_slots; /* inode table: open addressing, a power of two */
    uint32_t slots_off;
    uint32_t proc_masked;  /* not 0: the container's procfs has masks or read-only paths */
    uint32_t sysfs_masked; /* the same for sysfs */
    uint32_t trace;        /* not 0: every call becomes an event, not refusals alone */
    uint32_t id_base;      /* host id of the container's id 0 */
    uint32_t id_size;
    uint32_t waits_killable;   /* not 0: nothing but a fatal signal interrupts a caller */
    uint32_t spared;           /* not 0: the filters let pass what no rule asks about (spare.py) */
    uint32_t tells_of_parting; /* not 0: setns(2) and unshare(2) are trapped: caller_parts() */
    uint32_t pad;
};

#define ECI_OP_NEW          1
#define ECI_OP_BIND         2
#define ECI_OP_REMOUNT      3
#define ECI_OP_REMOUNT_BIND 4
#define ECI_OP_PROPAGATION  5
#define ECI_OP_MOVE         6
#define ECI_OP_UMOUNT       7
#define ECI_OP_ATTACH       8 /* of a detached tree */
#define ECI_OP_SETATTR      9

#define ECI_FS_OTHER 0
#define ECI_FS_PROC  1
#define ECI_FS_SYSFS 2

struct eci_call {
    uint64_t flags;      /* MS_* without MS_MGC_VAL, or MNT_* for an umount */
    uint32_t op;         /* ECI_OP_* */
    uint32_t fs;         /* ECI_FS_*, for ECI_OP_NEW */
    uint32_t recursive;  /* for ECI_OP_SETATTR, whose `flags` are the ECI_RDONLY ... it clears */
    uint32_t unbindable; /* for ECI_OP_SETATTR */
    uint32_t beneath;    /* for ECI_OP_MOVE and ECI_OP_ATTACH: to under the target */
    uint32_t joins;      /* for ECI_OP_ATTACH: the target joins the source's peer group instead */
    uint32_t full;       /* it may add mounts, and there is no room for more: memory.c */
};

/* What a path of the call turned out to be. */
struct eci_place {
    uint64_t mnt_id; /* unique */
    uint64_t ino;
    uint64_t cov_ino; /* inode under the mount, where the policy asked for it */
    uint32_t major;   /* of the inode, as statx reports */
    uint32_t minor;
    uint32_t cov_major;
    uint32_t cov_minor;
    uint32_t sb_major; /* of the mount's super block; for a remount only */
    uint32_t sb_minor;
    uint32_t is_root;   /* the object is the root of its mount */
    uint32_t self_hits; /* ECI_INODE_* of the object */
    uint32_t up_hits;   /* ECI_INODE_* of its ancestors inside the mount */
    uint32_t cov_known; /* not 0: cov_* are valid */
    uint32_t elsewhere; /* not 0: its path is not that of the kernel file system that it shows */
    uint32_t held;      /* ECI_RDONLY ... that have to stay; for ECI_OP_SETATTR only */
    uint32_t detached;  /* in no mount namespace; for ECI_OP_SETATTR only */
    uint32_t dir_major; /* of the directory that a mount lies in, with cov_* */
    uint32_t dir_minor;
    uint64_t dir_ino; /* 0 where it is not known */
    uint64_t ent_ino; /* of the name in that directory; likewise */
    char name[256];   /* of the mount point in that directory */
    char root[4096];  /* root of the mount inside its super block; for a remount only */
};

#define ECI_REASON_PERFORMED       0
#define ECI_REASON_NO_CAPABILITY   1
#define ECI_REASON_OTHER_USERNS    2
#define ECI_REASON_KERNEL          3
#define ECI_REASON_ARGUMENT        4
#define ECI_REASON_GONE            5
#define ECI_REASON_NOTHING_COVERED 6
#define ECI_REASON_AS_IT_IS        7
#define ECI_REASON_LOOSEN          16
#define ECI_REASON_UNCOVER         17
#define ECI_REASON_KERNEL_FS_BUSY  18
#define ECI_REASON_PROTECTED       19
#define ECI_REASON_NEW_KERNEL_FS   20
#define ECI_REASON_UNKNOWN_CALL    21
#define ECI_REASON_INTERNAL        22
#define ECI_REASON_MEMORY          23

struct eci_verdict {
    int32_t error; /* 0, or a positive errno that the caller shall see */
    uint32_t reason;
};

/*
 * Decides one call.  Pure: no I/O, no clock, no state.  `src` may be NULL where the call has no
 * source.  The verdict is a refusal until a rule allowed the call.
 */
void eci_decide(const struct eci_policy *policy, const struct eci_call *call,
                const struct eci_place *src, const struct eci_place *dst,
                struct eci_verdict *verdict);

/* Decodes the flags of mount(2) in the kernel's order (fs/namespace.c, path_mount). */
void eci_decode_mount(uint64_t flags, struct eci_call *call);

/* 0 when the blob of `size` bytes is well formed, else -EINVAL. */
int eci_policy_check(const struct eci_policy *policy, uint32_t size);
const struct eci_grant *eci_policy_grants(const struct eci_policy *policy);
/* Adds `what` to an inode; -ENOSPC when the table is full. */
int eci_policy_add_inode(struct eci_policy *policy, uint32_t major, uint32_t minor, uint64_t ino,
                         uint32_t what);
/* ECI_INODE_* of an inode, 0 when the policy does not know it. */
uint32_t eci_policy_inode(const struct eci_policy *policy, uint32_t major, uint32_t minor,
                          uint64_t ino);
/* Not 0 when the policy knows an inode on that device. */
uint32_t eci_policy_knows_device(const struct eci_policy *policy, uint32_t major, uint32_t minor);
/* Flags that a mount of this storage has to keep: those of the nearest grant that covers it. */
uint32_t eci_policy_held(const struct eci_policy *policy, uint32_t major, uint32_t minor,
                         const char *root);
bool eci_grant_is_kernel_fs(const struct eci_grant *grant);
/* Not 0 when a rule cares where a mount with this root inode lies. */
uint32_t eci_policy_hides(const struct eci_policy *policy, uint32_t major, uint32_t minor,
                          uint64_t ino);

#define ECI_EVENT_STRINGS 4
#define ECI_EVENT_STRING  256
#define ECI_STRING_NULL   0xffffffff
#define ECI_STRING_FAULT  0xfffffffe

#define ECI_EVENT_OBJECTS 2
#define ECI_ARCH_NONE     0xffffffff /* of an event that was given up: no call's */

/* What a path of a call turned out to be: as statx reports it in the worker's place. */
struct eci_object {
    uint64_t mnt_id; /* unique */
    uint64_t ino;
    uint32_t major;
    uint32_t minor;
    uint32_t known;  /* 0: the call has none, or it was not looked up */
    uint32_t length; /* of its path, as the caller sees it; cut at ECI_EVENT_STRING */
};

struct eci_event {
    uint64_t turn;    /* ring's own: whose turn the slot is */
    uint64_t time_ns; /* CLOCK_REALTIME at receipt */
    uint64_t spent_ns;
    uint64_t args[6];
    uint32_t nr;
    uint32_t arch; /* AUDIT_ARCH_* */
    int32_t tid;   /* in the host's PID namespace */
    int32_t error; /* 0 or a positive errno */
    uint32_t reason;
    uint32_t passed;                    /* not 0: the kernel carried it out itself */
    uint32_t length[ECI_EVENT_STRINGS]; /* whole length, or ECI_STRING_NULL / _FAULT */
    char comm[16];
    struct eci_object object[ECI_EVENT_OBJECTS];    /* of a refused call: its source, its target */
    char text[ECI_EVENT_STRINGS][ECI_EVENT_STRING]; /* cut, not terminated when cut */
    char path[ECI_EVENT_OBJECTS][ECI_EVENT_STRING]; /* of the objects; likewise */
};

/* A ring in shared memory: many writers, one reader; a full ring drops and counts. */
struct eci_ring {
    uint64_t head;    /* next turn to write */
    uint64_t tail;    /* next turn to read */
    uint64_t dropped; /* events lost to a full ring */
    uint32_t slots;   /* a power of two */
    uint32_t waiting; /* the reader sleeps on the eventfd */
};

uint64_t eci_ring_bytes(uint32_t slots);
void eci_ring_init(struct eci_ring *ring, uint32_t slots);
/* Copies the event in; 1 when the reader wants to be woken, 0 when not, -EAGAIN when dropped. */
int eci_ring_put(struct eci_ring *ring, const struct eci_event *event);
/* The reader's: `slots` is what it made the ring with, whatever the writers do to the memory. */
/* Copies the oldest event out; 1, or 0 when there is none. */
int eci_ring_get(struct eci_ring *ring, uint32_t slots, struct eci_event *event);
/* Says that the reader is about to sleep; 0 when an event came meanwhile, else 1. */
int eci_ring_sleep(struct eci_ring *ring, uint32_t slots);
/* For a writer's successor, while nobody writes: gives up what a writer was about to write. */
void eci_ring_mend(struct eci_ring *ring);

#define ECI_WATCH_MAGIC   0x31574345
#define ECI_WATCH_VERSION 1
#define ECI_WATCH_HEAD    4096 /* where the slots begin */
#define ECI_KINDS         8    /* of calls: enum family of worker.h */
#define ECI_REASONS       32
#define ECI_TIMES         16

/* What a container's worker has done so far.  Numbers only grow. */
struct eci_counts {
    uint32_t magic;
    uint32_t version;
    uint64_t calls[ECI_KINDS][ECI_REASONS]; /* by ECI_REASON_* */
    uint64_t times[ECI_TIMES];              /* answered in less than 1, 2, 4 ... us; last: longer */
    uint64_t times_ns;                      /* the sum of these */
    uint64_t dropped;                       /* refusals lost to a full ring */
};

/*
 * A file in the state directory that the worker has mapped, so that whoever may read it can see
 * what goes on without asking or waking anybody.  Behind ECI_WATCH_HEAD bytes come the slots: the
 * last events, of which the oldest is overwritten.  Nobody is waited for, neither a writer nor
 * a reader.
 */
struct eci_watch {
    struct eci_counts counts;
    uint64_t follow_until; /* CLOCK_MONOTONIC ns: until then every call becomes an event here */
    uint64_t head;         /* next turn to write */
    uint64_t missed;       /* events that found their slot being written */
    uint32_t slots;        /* a power of two */
    uint32_t timed;        /* not 0: somebody wants `times` */
};

uint64_t eci_watch_bytes(uint32_t slots);
void eci_watch_init(struct eci_watch *watch, uint32_t slots);
/* 0 when `size` bytes of it are well formed, else -EINVAL. */
int eci_watch_check(const struct eci_watch *watch, uint64_t size);
void eci_count(uint64_t *number);
void eci_watch_count(struct eci_watch *watch, uint32_t kind, uint32_t reason);
void eci_watch_time(struct eci_watch *watch, uint64_t spent_ns);
void eci_watch_put(struct eci_watch *watch, const struct eci_event *event);
/*
 * Copies the event of `turn` out: 1; 0 when it is not there yet, -ESTALE when it has been
 * overwritten.  `slots` is what was found in order when the file was mapped.
 */
int eci_watch_get(const struct eci_watch *watch, uint32_t slots, uint64_t turn,
                  struct eci_event *event);
/* As eci_ring_mend(); those events count as overwritten. */
void eci_watch_mend(struct eci_watch *watch);
/* Until then at least every call becomes an event. */
void eci_watch_follow(struct eci_watch *watch, uint64_t until_ns);
/* Adds counts up; those of another version are left out. */
void eci_counts_add(struct eci_counts *sum, const struct eci_counts *more);
/* cffi: end */

#endif
