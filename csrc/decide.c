/*
 * The rules.  Facts in, verdict out; whoever calls has looked the facts up on file descriptors
 * and will act on the very same ones.
 */
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mount.h>

#include "api.h"

void eci_decode_mount(uint64_t flags, struct eci_call *call)
{
    /* The upper half may carry the magic of Linux 0.99 (mount(2), "MS_MGC_VAL"). */
    if ((flags & MS_MGC_MSK) == MS_MGC_VAL)
        flags &= 0xffff; /* the mask has 32 bits: what is above goes, too */
    *call = (struct eci_call){.flags = flags, .fs = ECI_FS_OTHER};

    /* The order is the kernel's: of several forms the first one counts. */
    if ((flags & (MS_REMOUNT | MS_BIND)) == (MS_REMOUNT | MS_BIND))
        call->op = ECI_OP_REMOUNT_BIND;
    else if (flags & MS_REMOUNT)
        call->op = ECI_OP_REMOUNT;
    else if (flags & MS_BIND)
        call->op = ECI_OP_BIND;
    else if (flags & (MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE))
        call->op = ECI_OP_PROPAGATION;
    else if (flags & MS_MOVE)
        call->op = ECI_OP_MOVE;
    else
        call->op = ECI_OP_NEW;
}

/* Rule 3: in a host-protected path, or above one. */
static bool is_protected(const struct eci_place *place)
{
    return (place->self_hits & (ECI_INODE_PROTECTED | ECI_INODE_ABOVE)) ||
           (place->up_hits & ECI_INODE_PROTECTED);
}

static uint32_t wanted_flags(uint64_t flags)
{
    static const struct {
        uint64_t ms;
        uint32_t held;
    } table[] = {
        {MS_RDONLY, ECI_RDONLY},
        {MS_NOSUID, ECI_NOSUID},
        {MS_NODEV, ECI_NODEV},
        {MS_NOEXEC, ECI_NOEXEC},
    };
    uint32_t held = 0;

    for (unsigned int i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        if (flags & table[i].ms)
            held |= table[i].held;
    return held;
}

/* The root of the place's mount is that of the initial one: the same mount, a copy or a bind. */
static bool same_root(const struct eci_grant *grant, const struct eci_place *place)
{
    return grant->own_ino == place->ino && grant->own_major == place->major &&
           grant->own_minor == place->minor;
}

/* The same name in the same directory. */
static bool same_name(const struct eci_policy *policy, const struct eci_grant *grant,
                      const struct eci_place *place)
{
    const char *name = strrchr((const char *)policy + grant->point_off, '/');

    return grant->dir_ino == place->dir_ino && grant->dir_major == place->dir_major &&
           grant->dir_minor == place->dir_minor && name && strcmp(name + 1, place->name) == 0;
}

/*
 * The same entry of the same file system under another name: in a mount namespace that does not
 * have the mount, rename(2) lets its mount point go.
 */
static bool same_entry(const struct eci_grant *grant, const struct eci_place *place)
{
    return grant->ent_ino && grant->dir_major == place->dir_major &&
           grant->dir_minor == place->dir_minor &&
           (!place->ent_ino || grant->ent_ino == place->ent_ino);
}

/*
 * Does the mount lie where the initial one lies?  Its root and the inode under it must both be the
 * initial mount's: a bind of the same storage elsewhere is the container's own.  Where the kernel
 * has locked mounts, nobody is shown what is beneath (facts.c), and directory and name stand for
 * it.  Where these could not be found out either, the worst is believed.
 */
static bool in_its_place(const struct eci_policy *policy, const struct eci_grant *grant,
                         const struct eci_place *place)
{
    /* The very mount: what else was found out went by names, which can change meanwhile. */
    if (grant->mnt_id && grant->mnt_id == place->mnt_id)
        return true;
    if (!same_root(grant, place))
        return false;
    if (!grant->by_name && place->cov_known)
        return grant->cov_ino == place->cov_ino && grant->cov_major == place->cov_major &&
               grant->cov_minor == place->cov_minor;
    return !place->dir_ino || same_name(policy, grant, place) || same_entry(grant, place);
}

/* Rule 2 of a mount that is to go: 0, or the errno of the refusal. */
static int must_stay(const struct eci_policy *policy, const struct eci_place *place)
{
    const struct eci_grant *grants = eci_policy_grants(policy);
    int error = 0;

    for (uint32_t i = 0; i < policy->n_grants; i++) {
        const struct eci_grant *grant = &grants[i];

        /* /proc and /sys themselves; a copy elsewhere goes with the masks on it. */
        if (eci_grant_is_kernel_fs(grant) && !place->elsewhere &&
            in_its_place(policy, grant, place))
            return EBUSY;
        if (grant->hides && in_its_place(policy, grant, place))
            error = EPERM;
    }
    return error;
}

/* Is the mount one that hides something or, recursively, can one be below it? */
static bool hides_something(const struct eci_policy *policy, bool recursive,
                            const struct eci_place *place)
{
    const struct eci_grant *grants = eci_policy_grants(policy);

    for (uint32_t i = 0; i < policy->n_grants; i++)
        if (grants[i].hides && (recursive || same_root(&grants[i], place)))
            return true;
    return false;
}

static void refuse(struct eci_verdict *verdict, int error, uint32_t reason)
{
    verdict->error = error;
    verdict->reason = reason;
}

static void allow(struct eci_verdict *verdict)
{
    verdict->error = 0;
    verdict->reason = ECI_REASON_PERFORMED;
}

static void decide_removal(const struct eci_policy *policy, const struct eci_place *place,
                           struct eci_verdict *verdict)
{
    /* Not the root of a mount: nothing can go; the kernel says EINVAL. */
    int error = place->is_root ? must_stay(policy, place) : 0;

    if (error)
        refuse(verdict, error, error == EBUSY ? ECI_REASON_KERNEL_FS_BUSY : ECI_REASON_UNCOVER);
    else
        allow(verdict);
}

void eci_decide(const struct eci_policy *policy, const struct eci_call *call,
                const struct eci_place *src, const struct eci_place *dst,
                struct eci_verdict *verdict)
{
    refuse(verdict, EPERM, ECI_REASON_INTERNAL);

    if ((src && is_protected(src)) || is_protected(dst)) {
        refuse(verdict, EPERM, ECI_REASON_PROTECTED);
        return;
    }

    /* As the kernel answers where there is no memory for a mount. */
    if (call->full) {
        refuse(verdict, ENOMEM, ECI_REASON_MEMORY);
        return;
    }

    /* What comes to lie under a mount could be moved away with it. */
    if (call->beneath) {
        decide_removal(policy, dst, verdict);
        if (verdict->error)
            return;
        refuse(verdict, EPERM, ECI_REASON_INTERNAL);
    }

    switch (call->op) {
    case ECI_OP_NEW:
        if ((call->fs == ECI_FS_PROC && policy->proc_masked) ||
            (call->fs == ECI_FS_SYSFS && policy->sysfs_masked))
            refuse(verdict, EPERM, ECI_REASON_NEW_KERNEL_FS);
        else
            allow(verdict);
        return;
    case ECI_OP_BIND:
        if (!src)
            return;
        /* A bind without MS_REC leaves the mounts behind that mask what is below. */
        if (!(call->flags & MS_REC) && (src->self_hits & ECI_INODE_RECURSE))
            refuse(verdict, EPERM, ECI_REASON_UNCOVER);
        else
            allow(verdict);
        return;
    case ECI_OP_REMOUNT:
    case ECI_OP_REMOUNT_BIND:
        /* Rule 1: what a grant holds stays on, whichever mount shows the storage. */
        if (eci_policy_held(policy, dst->sb_major, dst->sb_minor, dst->root) &
            ~wanted_flags(call->flags))
            refuse(verdict, EPERM, ECI_REASON_LOOSEN);
        else
            allow(verdict);
        return;
    case ECI_OP_PROPAGATION:
        /* A recursive bind leaves unbindable mounts behind, and shows what is under them. */
        if ((call->flags & MS_UNBINDABLE) && hides_something(policy, call->flags & MS_REC, dst))
            refuse(verdict, EPERM, ECI_REASON_UNCOVER);
        else
            allow(verdict);
        return;
    case ECI_OP_MOVE:
        if (src)
            decide_removal(policy, src, verdict);
        return;
    case ECI_OP_ATTACH:
        if (!src)
            return;
        /* An unmount on one peer takes away what lies in the same place on the other. */
        if (call->joins && (dst->self_hits & ECI_INODE_RECURSE))
            refuse(verdict, EPERM, ECI_REASON_UNCOVER);
        else
            allow(verdict);
        return;
    case ECI_OP_SETATTR:
        if (dst->held & call->flags)
            refuse(verdict, EPERM, ECI_REASON_LOOSEN);
        /* A copy of a detached tree, which tells what is in it, would lack the unbindable. */
        else if (call->unbindable &&
                 (dst->detached || hides_something(policy, call->recursive, dst)))
            refuse(verdict, EPERM, ECI_REASON_UNCOVER);
        else
            allow(verdict);
        return;
    case ECI_OP_UMOUNT:
        decide_removal(policy, dst, verdict);
        return;
    default:
        return;
    }
}
