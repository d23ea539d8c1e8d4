/* The policy table: checking it, and looking things up in it in constant time. */
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "api.h"

static const struct eci_inode_rule *slots_of(const struct eci_policy *policy)
{
    return (const void *)((const char *)policy + policy->slots_off);
}

const struct eci_grant *eci_policy_grants(const struct eci_policy *policy)
{
    return (const void *)((const char *)policy + policy->grants_off);
}

/* Is there a string at `off`, behind all that can still be written? */
static bool string_inside(const struct eci_policy *policy, uint32_t off, uint64_t first,
                          uint32_t size)
{
    return off >= first && off < size && memchr((const char *)policy + off, 0, size - off);
}

int eci_policy_check(const struct eci_policy *policy, uint32_t size)
{
    const struct eci_grant *grants;
    uint64_t strings;

    if (size < sizeof(*policy) || policy->magic != ECI_POLICY_MAGIC ||
        policy->version != ECI_POLICY_VERSION || policy->size != size)
        return -EINVAL;
    if (policy->grants_off % 8 || policy->slots_off % 8 || policy->grants_off > size ||
        policy->slots_off > size)
        return -EINVAL;
    if (policy->n_grants > (size - policy->grants_off) / sizeof(struct eci_grant) ||
        policy->n_slots > (size - policy->slots_off) / sizeof(struct eci_inode_rule))
        return -EINVAL;
    if (policy->n_slots == 0 || (policy->n_slots & (policy->n_slots - 1)))
        return -EINVAL;
    /* Head, grants, inode table, strings: what is written later changes nothing that was checked.
     */
    strings = policy->slots_off + (uint64_t)policy->n_slots * sizeof(struct eci_inode_rule);
    if (policy->grants_off < sizeof(*policy) ||
        policy->slots_off < policy->grants_off + (uint64_t)policy->n_grants * sizeof(*grants))
        return -EINVAL;
    grants = eci_policy_grants(policy);
    for (uint32_t i = 0; i < policy->n_grants; i++)
        if (!string_inside(policy, grants[i].root_off, strings, size) ||
            !string_inside(policy, grants[i].point_off, strings, size))
            return -EINVAL;
    return 0;
}

/* The first slot of a key.  Inode 0 is the mark for "this device is known" (no file has it). */
static uint32_t first_slot(const struct eci_policy *policy, uint32_t major, uint32_t minor,
                           uint64_t ino)
{
    uint64_t h = ino * 0x9e3779b97f4a7c15ULL;

    h ^= ((uint64_t)major << 32 | minor) * 0xc2b2ae3d27d4eb4fULL;
    h ^= h >> 29;
    return (uint32_t)h & (policy->n_slots - 1);
}

static const struct eci_inode_rule *find(const struct eci_policy *policy, uint32_t major,
                                         uint32_t minor, uint64_t ino)
{
    const struct eci_inode_rule *slots = slots_of(policy);
    uint32_t at = first_slot(policy, major, minor, ino);

    for (uint32_t n = 0; n < policy->n_slots; n++, at = (at + 1) & (policy->n_slots - 1)) {
        const struct eci_inode_rule *slot = &slots[at];

        if (!slot->what || (slot->ino == ino && slot->major == major && slot->minor == minor))
            return slot;
    }
    return NULL;
}

static int add(struct eci_policy *policy, uint32_t major, uint32_t minor, uint64_t ino,
               uint32_t what)
{
    struct eci_inode_rule *slot = (struct eci_inode_rule *)find(policy, major, minor, ino);

    if (!slot)
        return -ENOSPC;
    slot->ino = ino;
    slot->major = major;
    slot->minor = minor;
    slot->what |= what;
    return 0;
}

int eci_policy_add_inode(struct eci_policy *policy, uint32_t major, uint32_t minor, uint64_t ino,
                         uint32_t what)
{
    int r = add(policy, major, minor, ino, what);

    return r < 0 ? r : add(policy, major, minor, 0, what);
}

uint32_t eci_policy_inode(const struct eci_policy *policy, uint32_t major, uint32_t minor,
                          uint64_t ino)
{
    const struct eci_inode_rule *slot = find(policy, major, minor, ino);

    return slot ? slot->what : 0;
}

uint32_t eci_policy_knows_device(const struct eci_policy *policy, uint32_t major, uint32_t minor)
{
    return eci_policy_inode(policy, major, minor, 0);
}

/* Is `path` at or below `root`?  Both are absolute and clean, as the kernel prints them. */
static bool is_within(const char *path, const char *root)
{
    size_t n = strlen(root);

    if (n == 1)
        return true;
    return strncmp(path, root, n) == 0 && (path[n] == 0 || path[n] == '/');
}

uint32_t eci_policy_held(const struct eci_policy *policy, uint32_t major, uint32_t minor,
                         const char *root)
{
    const struct eci_grant *grants = eci_policy_grants(policy);
    uint32_t held = 0;
    size_t deepest = 0;

    /*
     * The nearest grant counts: /proc/sys is read-only though /proc is not.  Of several for the
     * very same directory, what one leaves open is open.
     */
    for (uint32_t i = 0; i < policy->n_grants; i++) {
        const struct eci_grant *grant = &grants[i];
        const char *granted = (const char *)policy + grant->root_off;
        size_t depth = strlen(granted);

        if (grant->sb_major != major || grant->sb_minor != minor || depth < deepest ||
            !is_within(root, granted))
            continue;
        held = depth > deepest ? grant->flags : held & grant->flags;
        deepest = depth;
    }
    return held;
}

bool eci_grant_is_kernel_fs(const struct eci_grant *grant)
{
    return grant->kind == ECI_KIND_PROC || grant->kind == ECI_KIND_SYSFS;
}

uint32_t eci_policy_hides(const struct eci_policy *policy, uint32_t major, uint32_t minor,
                          uint64_t ino)
{
    const struct eci_grant *grants = eci_policy_grants(policy);

    for (uint32_t i = 0; i < policy->n_grants; i++)
        if ((grants[i].hides || eci_grant_is_kernel_fs(&grants[i])) && grants[i].own_ino == ino &&
            grants[i].own_major == major && grants[i].own_minor == minor)
            return 1;
    return 0;
}
