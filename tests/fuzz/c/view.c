/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names in the view: one is looked up directly beneath its directory and nowhere else, whatever it
 * looks like and whatever it has become meanwhile; and what the kernel has forgotten is gone.
 */
#define main view_main
#include "../../../csrc/view.c"
#undef main
#include <ftw.h>

#include "fuzz.h"

enum { HELD = 6 };

static struct {
    fuse_ino_t ino;
    uint64_t lookups;
} held[HELD];

static void start(void)
{
    view.root.fd = enter_scratch();
    view.root.type = S_IFDIR;
    view.keeper = -1;
    view.shared =
        mmap(NULL, sizeof(*view.shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    NEED(view.shared != MAP_FAILED);
}

static void path_of(int fd, char path[PATH_MAX])
{
    char link[64];
    ssize_t n;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    n = readlink(link, path, PATH_MAX - 1);
    NEED(n > 0);
    path[n] = 0;
}

static bool is_name(const char *name)
{
    return *name && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

/* Looks a name up as the kernel asks for it, and keeps what is found in one of the places. */
static void look_up(unsigned int place, fuse_ino_t parent, const char *name)
{
    struct fuse_entry_param entry;
    char above[PATH_MAX];
    char path[PATH_MAX];
    struct stat st;
    int fd = open_child(fd_of(parent), name);

    if (!is_name(name)) {
        CHECK(fd == -EINVAL);
        return;
    }
    if (fstatat(fd_of(parent), name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        CHECK(fd < 0);
        return;
    }
    CHECK(fd >= 0);
    path_of(fd_of(parent), above);
    path_of(fd, path);
    CHECK(strncmp(path, above, strlen(above)) == 0 && path[strlen(above)] == '/');
    CHECK(strcmp(path + strlen(above) + 1, name) == 0);
    CHECK(enter(fd, parent, name, &entry) == 0);
    CHECK(node_of(entry.ino)->ino == st.st_ino &&
          node_of(entry.ino)->type == (st.st_mode & S_IFMT));
    if (held[place].ino && held[place].ino != entry.ino) {
        forget(held[place].ino, held[place].lookups);
        held[place].lookups = 0;
    }
    held[place].ino = entry.ino;
    held[place].lookups++;
}

static void check_numbers(struct input *in)
{
    char text[32];
    unsigned long value;
    size_t n = take_string(in, text, sizeof(text));
    bool digits = n && strspn(text, "0123456789") == n;
    bool good = parse(text, INT_MAX, &value);

    CHECK(!good || (digits && value <= INT_MAX));
    CHECK(good || !digits || n > 9);
}

/* All files of the tree, the inner ones first. */
static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    (void)st;
    (void)kind;
    if (where->level)
        NEED(remove(path) == 0);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    unsigned int before;

    if (size > 1024)
        return -1;
    if (!view.shared)
        start();
    before = open_fds();
    check_numbers(&in);
    while (in.left) {
        uint8_t what = take_byte(&in);
        unsigned int place = (what >> 3) % HELD;
        fuse_ino_t parent = what >> 6 ? FUSE_ROOT_ID : held[(what >> 5) % HELD].ino;
        char name[64];
        char other[16];

        take_string(&in, name, sizeof(name));
        if (!parent || node_of(parent)->type != S_IFDIR)
            parent = FUSE_ROOT_ID;
        switch (what % 8) {
        case 0:
            if (is_name(name))
                (void)mkdirat(fd_of(parent), name, 0700);
            break;
        case 1:
            if (is_name(name))
                (void)mknodat(fd_of(parent), name, S_IFREG | 0600, 0);
            break;
        case 2:
            take_string(&in, other, sizeof(other));
            if (is_name(name) && is_name(other))
                (void)renameat(fd_of(parent), name, view.root.fd, other);
            break;
        case 3:
            if (is_name(name))
                (void)symlinkat("..", fd_of(parent), name);
            break;
        case 4:
            if (held[place].ino) {
                forget(held[place].ino, held[place].lookups);
                held[place].ino = held[place].lookups = 0;
            }
            break;
        default:
            look_up(place, parent, name);
            break;
        }
    }
    for (unsigned int i = 0; i < HELD; i++) {
        /* More than was looked up is as good as all of it; once for each place that has it. */
        for (unsigned int j = i + 1; held[i].ino && j < HELD; j++)
            if (held[j].ino == held[i].ino) {
                held[i].lookups += held[j].lookups;
                held[j].ino = held[j].lookups = 0;
            }
        if (held[i].ino)
            forget(held[i].ino, held[i].lookups);
        held[i].ino = held[i].lookups = 0;
    }
    for (unsigned int i = 0; i < BUCKETS; i++)
        CHECK(!view.table[i]);
    CHECK(atomic_load(&view.shared->nodes) == 0);
    NEED(nftw("/mnt", remove_one, 8, FTW_DEPTH | FTW_PHYS) == 0);
    CHECK(open_fds() == before);
    return 0;
}
