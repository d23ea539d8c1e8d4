/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The policy table and the rules.  A table that is found to be in order leads nowhere out of its
 * memory, and still is in order when inodes have been added; and rules 1 to 3 say what a second,
 * slower reading of ARCHITECTURE.md says.
 */
#include <errno.h>

#include "../../../csrc/api.h"
#include "fuzz.h"

enum { GRANTS = 4, RULES = 8, SLOTS = 16, STRINGS = 64 };

#define ALL_MAGIC 0xffff0000u /* MS_MGC_MSK */

/* A head from the input, with its size right half of the time; in memory that ends with it. */
static void check_any_table(struct input *in)
{
    size_t size = sizeof(struct eci_policy) + in->left;
    struct eci_policy *policy = malloc(size);
    bool whole = take_byte(in) & 1;
    struct eci_call call;
    struct eci_verdict verdict;
    struct eci_place place = {0};

    NEED(policy);
    memset(policy, 0, size);
    take(in, policy, size);
    if (whole) {
        policy->magic = ECI_POLICY_MAGIC;
        policy->version = ECI_POLICY_VERSION;
        policy->size = (uint32_t)size;
    }
    if (eci_policy_check(policy, (uint32_t)size) == 0) {
        (void)eci_policy_inode(policy, 1, 2, 3);
        (void)eci_policy_hides(policy, 1, 2, 3);
        (void)eci_policy_held(policy, 0, 0, "/a/b");
        for (unsigned int op = 0; op <= ECI_OP_SETATTR + 1; op++) {
            call = (struct eci_call){.op = op, .recursive = op & 1, .unbindable = 1};
            place.is_root = 1;
            eci_decide(policy, &call, &place, &place, &verdict);
            CHECK(verdict.error || verdict.reason == ECI_REASON_PERFORMED);
        }
        for (uint32_t i = 0; i < 8; i++) {
            int r = eci_policy_add_inode(policy, i, i, i + 1, ECI_INODE_RECURSE);

            CHECK(r == 0 || r == -ENOSPC);
            CHECK(eci_policy_check(policy, (uint32_t)size) == 0);
            if (r == 0)
                CHECK(eci_policy_inode(policy, i, i, i + 1) & ECI_INODE_RECURSE);
        }
    }
    free(policy);
}

/* A table as table.py builds it, of small numbers, so that they often meet. */
struct table {
    struct eci_policy head;
    struct eci_grant grants[GRANTS];
    struct eci_inode_rule slots[SLOTS];
    char strings[STRINGS];
};

static const char *const roots[] = {"/", "/a", "/a/b", "/ab", "/a/b/c"};
static const uint32_t root_at[] = {0, 2, 5, 10, 14};

static void take_table(struct input *in, struct table *table)
{
    memset(table, 0, sizeof(*table));
    table->head = (struct eci_policy){
        .magic = ECI_POLICY_MAGIC,
        .version = ECI_POLICY_VERSION,
        .size = sizeof(*table),
        .n_grants = take_byte(in) % (GRANTS + 1),
        .grants_off = offsetof(struct table, grants),
        .n_slots = SLOTS,
        .slots_off = offsetof(struct table, slots),
        .proc_masked = take_byte(in) & 1,
        .sysfs_masked = take_byte(in) & 1,
    };
    for (unsigned int i = 0; i < sizeof(roots) / sizeof(roots[0]); i++)
        memcpy(table->strings + root_at[i], roots[i], strlen(roots[i]) + 1);
    for (uint32_t i = 0; i < table->head.n_grants; i++) {
        uint8_t shape = take_byte(in);
        uint8_t where = take_byte(in);

        table->grants[i] = (struct eci_grant){
            .mnt_id = where & 1 ? where >> 6 : 0,
            .own_ino = where >> 1 & 1,
            .own_minor = where >> 2 & 1,
            .cov_ino = where >> 3 & 1,
            .dir_ino = where >> 4 & 1,
            .ent_ino = where >> 5 & 1,
            .sb_minor = shape >> 4 & 1,
            .root_off = (uint32_t)offsetof(struct table, strings) + root_at[shape % 5],
            .point_off = (uint32_t)offsetof(struct table, strings) + root_at[where % 5],
            .flags = shape & 15,
            .kind = shape >> 5 & 7,
            .hides = shape >> 7,
            .by_name = where >> 7,
        };
    }
}

static void take_place(struct input *in, struct eci_place *place)
{
    uint64_t bits = take_number(in);

    *place = (struct eci_place){
        .mnt_id = bits & 3,
        .ino = bits >> 2 & 1,
        .minor = bits >> 3 & 1,
        .cov_ino = bits >> 4 & 1,
        .cov_known = bits >> 5 & 1,
        .is_root = bits >> 6 & 1,
        .self_hits = bits >> 8 & 15,
        .up_hits = bits >> 12 & 15,
        .elsewhere = bits >> 16 & 1,
        .held = bits >> 20 & 15,
        .detached = bits >> 24 & 1,
        .dir_ino = bits >> 25 & 1,
        .ent_ino = bits >> 26 & 1,
        .sb_minor = bits >> 27 & 1,
    };
    strcpy(place->root, roots[(bits >> 32) % 5]);
    strcpy(place->name, bits >> 40 & 1 ? "a" : "b");
}

/* Rule 3. */
static bool is_protected(const struct eci_place *place)
{
    return (place->self_hits & (ECI_INODE_PROTECTED | ECI_INODE_ABOVE)) ||
           (place->up_hits & ECI_INODE_PROTECTED);
}

/* Rule 1: of the deepest grants that hold the place's storage, what all of them hold. */
static uint32_t model_held(const struct table *table, const struct eci_place *place)
{
    uint32_t held = 0;

    for (size_t depth = strlen(place->root); depth > 0; depth--) {
        bool found = false;

        for (uint32_t i = 0; i < table->head.n_grants; i++) {
            const struct eci_grant *grant = &table->grants[i];
            const char *root = (const char *)table + grant->root_off;

            if (grant->sb_minor != place->sb_minor || strlen(root) != depth ||
                strncmp(root, place->root, depth) != 0 ||
                (depth > 1 && place->root[depth] && place->root[depth] != '/'))
                continue;
            held = found ? held & grant->flags : grant->flags;
            found = true;
        }
        if (found)
            return held;
    }
    return 0;
}

/* Rule 2: is this very mount one that has to stay? */
static bool is_the_one(const struct table *table, const struct eci_place *place)
{
    for (uint32_t i = 0; i < table->head.n_grants; i++)
        if (table->grants[i].hides && table->grants[i].mnt_id &&
            table->grants[i].mnt_id == place->mnt_id)
            return true;
    return false;
}

static void check_rules(struct input *in)
{
    struct table *table = malloc(sizeof(*table));
    struct eci_place src;
    struct eci_place dst;
    struct eci_call call;
    struct eci_verdict verdict;

    NEED(table);
    take_table(in, table);
    take_place(in, &src);
    take_place(in, &dst);
    CHECK(eci_policy_check(&table->head, sizeof(*table)) == 0);
    eci_decode_mount(take_number(in), &call);
    if (take_byte(in) & 1)
        call.op = take_byte(in) % (ECI_OP_SETATTR + 2);
    call.fs = take_byte(in) % 3;
    uint8_t more = take_byte(in);
    call.recursive = more & 1;
    call.unbindable = more >> 1 & 1;
    call.beneath = more >> 2 & 1;
    call.joins = more >> 3 & 1;
    bool has_source = more >> 4 & 1;
    eci_decide(&table->head, &call, has_source ? &src : NULL, &dst, &verdict);

    CHECK(verdict.error == 0 || verdict.error == EPERM || verdict.error == EBUSY);
    CHECK((verdict.error == 0) == (verdict.reason == ECI_REASON_PERFORMED));
    if (is_protected(&dst) || (has_source && is_protected(&src)))
        CHECK(verdict.reason == ECI_REASON_PROTECTED);
    else if (call.op == ECI_OP_REMOUNT || call.op == ECI_OP_REMOUNT_BIND) {
        uint32_t asked = call.flags & 15; /* MS_RDONLY and so on are ECI_RDONLY and so on */
        bool loosens = (model_held(table, &dst) & ~asked) != 0;

        if (!call.beneath)
            CHECK((verdict.reason == ECI_REASON_LOOSEN) == loosens);
    } else if (verdict.error == 0) {
        CHECK(call.op >= ECI_OP_NEW && call.op <= ECI_OP_SETATTR);
        CHECK(call.op != ECI_OP_UMOUNT || !dst.is_root || !is_the_one(table, &dst));
        CHECK(call.op != ECI_OP_MOVE || !src.is_root || !is_the_one(table, &src));
        CHECK(!call.beneath || !dst.is_root || !is_the_one(table, &dst));
        CHECK(call.op != ECI_OP_SETATTR || !(dst.held & call.flags));
        CHECK(call.op != ECI_OP_NEW || call.fs != ECI_FS_PROC || !table->head.proc_masked);
        CHECK(call.op != ECI_OP_NEW || call.fs != ECI_FS_SYSFS || !table->head.sysfs_masked);
    }
    free(table);
}

/* The kernel's order in path_mount() and do_mount(), one step after the other. */
static void check_decoding(uint64_t flags)
{
    struct eci_call call;
    uint64_t seen = (flags & ALL_MAGIC) == 0xc0ed0000u ? flags & 0xffff : flags;
    uint32_t op = ECI_OP_NEW;

    if (seen & 8192)
        op = ECI_OP_MOVE;
    if (seen & (1 << 17 | 1 << 18 | 1 << 19 | 1 << 20))
        op = ECI_OP_PROPAGATION;
    if (seen & 4096)
        op = ECI_OP_BIND;
    if (seen & 32)
        op = seen & 4096 ? ECI_OP_REMOUNT_BIND : ECI_OP_REMOUNT;
    eci_decode_mount(flags, &call);
    CHECK(call.op == op && call.flags == seen && call.fs == ECI_FS_OTHER);
}

/* The inode table is a small dictionary. */
static void check_inodes(struct input *in)
{
    struct table *table = malloc(sizeof(*table));
    struct eci_inode_rule known[RULES] = {0};
    unsigned int n = 0;

    NEED(table);
    take_table(in, table);
    while (in->left && n < RULES / 2) {
        uint8_t key = take_byte(in);
        uint32_t what = 1u << (key >> 6);
        struct eci_inode_rule rule = {.ino = 1 + (key & 7), .minor = key >> 3 & 7, .what = what};

        CHECK(eci_policy_add_inode(&table->head, 0, rule.minor, rule.ino, what) == 0);
        known[n++] = rule;
    }
    for (uint32_t minor = 0; minor < 8; minor++)
        for (uint64_t ino = 0; ino < 10; ino++) {
            uint32_t want = 0;

            for (unsigned int i = 0; i < n; i++)
                if (known[i].minor == minor && (known[i].ino == ino || ino == 0))
                    want |= known[i].what;
            CHECK(eci_policy_inode(&table->head, 0, minor, ino) == want);
        }
    free(table);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};

    switch (take_byte(&in) % 4) {
    case 0:
        check_any_table(&in);
        break;
    case 1:
        check_rules(&in);
        break;
    case 2:
        check_decoding(take_number(&in));
        break;
    default:
        check_inodes(&in);
        break;
    }
    return 0;
}
