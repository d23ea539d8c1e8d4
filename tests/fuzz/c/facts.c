/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel tells of mounts and directories, with names of any bytes: the storage of a mount
 * and its place come back as they were made, so rule 1 holds whatever a directory is called.
 */
#include <errno.h>

#include "../../../csrc/facts.c"
#include "fuzz.h"

enum { NAMES = 3, TEXTS = 2 * (NAME_MAX + 2) };

static int scratch = -1;
static struct {
    struct eci_policy head;
    struct eci_grant grant;
    struct eci_inode_rule slot[1];
    char text[TEXTS];
} table;
static struct worker worker = {.policy = &table.head, .build = -1};

static bool is_name(const char *name)
{
    return *name && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static void hold(const struct statx *stx, const char *root)
{
    table.head = (struct eci_policy){
        .magic = ECI_POLICY_MAGIC,
        .version = ECI_POLICY_VERSION,
        .size = sizeof(table),
        .n_grants = 1,
        .grants_off = offsetof(typeof(table), grant),
        .n_slots = 1,
        .slots_off = offsetof(typeof(table), slot),
    };
    table.grant = (struct eci_grant){
        .sb_major = stx->stx_dev_major,
        .sb_minor = stx->stx_dev_minor,
        .root_off = offsetof(typeof(table), text),
        .point_off = offsetof(typeof(table), text),
        .flags = ECI_RDONLY,
    };
    snprintf(table.text, sizeof(table.text), "%s", root);
    CHECK(eci_policy_check(&table.head, sizeof(table)) == 0);
}

/* A bind of a/NAME/b is held by a grant on a/NAME, and by none on a/OTHER. */
static void check_storage(const char *name, const char *other)
{
    char path[2 * NAME_MAX + 8];
    char point[PATH_MAX];
    char want[PATH_MAX];
    struct eci_place place = {0};
    struct statx stx;
    uint32_t held = 0;

    snprintf(path, sizeof(path), "a/%s", name);
    if (mkdir(path, 0755) < 0)
        return; /* a name that is too long */
    snprintf(path, sizeof(path), "a/%s/b", name);
    NEED(mkdir(path, 0755) == 0);
    NEED(mount(path, path, NULL, MS_BIND, NULL) == 0);
    NEED(stat_at(AT_FDCWD, path, &stx) == 0);
    place.mnt_id = stx.stx_mnt_id;
    CHECK(facts_storage(&place) == 0);
    snprintf(want, sizeof(want), "/%s", path);
    CHECK(strcmp(place.root, want) == 0);
    CHECK(facts_mount_point(stx.stx_mnt_id, point) == 0);
    snprintf(want, sizeof(want), "/mnt/%s", path);
    CHECK(strcmp(point, want) == 0);

    snprintf(path, sizeof(path), "/a/%s", name);
    hold(&stx, path);
    CHECK(facts_held_by(&worker, stx.stx_mnt_id, &held) == 0 && held == ECI_RDONLY);
    snprintf(path, sizeof(path), "/a/%s", other);
    hold(&stx, path);
    held = 0;
    CHECK(facts_held_by(&worker, stx.stx_mnt_id, &held) == 0);
    CHECK(held == (strcmp(name, other) == 0 ? ECI_RDONLY : 0));
    snprintf(path, sizeof(path), "a/%s/b", name);
    NEED(umount2(path, MNT_DETACH) == 0 && rmdir(path) == 0);
    snprintf(path, sizeof(path), "a/%s", name);
    NEED(rmdir(path) == 0);
}

/* The directory's own number for each name in it. */
static void check_entries(char names[NAMES][NAME_MAX + 1])
{
    int dir = open("a", O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct stat st;
    uint64_t ino;

    NEED(dir >= 0);
    for (int i = 0; i < NAMES; i++)
        NEED(!is_name(names[i]) || mknodat(dir, names[i], S_IFREG | 0600, 0) == 0 ||
             errno == EEXIST);
    for (int i = 0; i < NAMES; i++)
        if (is_name(names[i])) {
            NEED(fstatat(dir, names[i], &st, AT_SYMLINK_NOFOLLOW) == 0);
            CHECK(entry_ino(dir, names[i], &ino) == 0 && ino == st.st_ino);
        }
    for (int i = 0; i < NAMES; i++)
        if (is_name(names[i])) {
            (void)unlinkat(dir, names[i], 0);
            CHECK(entry_ino(dir, names[i], &ino) == 0 && ino == 0);
        }
    close(dir);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    char names[NAMES][NAME_MAX + 1];
    unsigned int before;

    if (scratch < 0) {
        scratch = enter_scratch();
        NEED(mkdir("a", 0755) == 0);
    }
    if (size > (NAMES * NAME_MAX))
        return -1;
    before = open_fds();
    for (int i = 0; i < NAMES; i++)
        take_string(&in, names[i], sizeof(names[i]));
    if (is_name(names[0]) && is_name(names[1]))
        check_storage(names[0], names[1]);
    check_entries(names);
    CHECK(open_fds() == before);
    return 0;
}
