/* SPDX-License-Identifier: Apache-2.0 */
/* The names that the kernel knows, and what each stands for: view.c says why they are as they are.
 */
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "view.h"

struct view view;

/* The name of `fd` in the working directory of the server, /proc/self/fd; valid until the next
 * call. */
const char *fd_name(int fd)
{
    static char name[16];

    (void)snprintf(name, sizeof(name), "%d", fd);
    return name;
}

struct node *node_of(fuse_ino_t ino)
{
    return ino == FUSE_ROOT_ID ? &view.root : (struct node *)(uintptr_t)ino;
}

int fd_of(fuse_ino_t ino)
{
    return node_of(ino)->fd;
}

static uint32_t bucket_of(fuse_ino_t parent, const char *name, ino_t ino)
{
    uint64_t hash = 0xcbf29ce484222325u ^ parent ^ (ino << 17);

    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 0x100000001b3u;
    return (uint32_t)(hash >> 32) % BUCKETS;
}

/* One component below `parent`, O_PATH: no symlink is followed, no mount crossed (EXDEV). */
int open_child(int parent, const char *name)
{
    struct open_how how = {
        .flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
        .resolve = RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH,
    };

    if (!*name || strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, ".."))
        return -EINVAL;
    /* NO_SYMLINKS refuses a trailing symlink only if it would be followed: O_PATH|O_NOFOLLOW is
     * not. */
    return sys(syscall(SYS_openat2, parent, name, &how, sizeof(how)));
}

/*
 * Count one lookup of `name` in `parent`, which leads to `fd` (consumed), and fill `entry`.
 * Returns 0 or -errno; on error nothing is counted.
 */
int enter(int fd_owned, fuse_ino_t parent, const char *name, struct fuse_entry_param *entry)
{
    cleanup_fd int fd = fd_owned;
    struct node *node;
    uint32_t bucket;
    unsigned long made;

    *entry = (struct fuse_entry_param){0}; /* both timeouts are zero */
    if (fstat(fd, &entry->attr) < 0)
        return -errno;
    bucket = bucket_of(parent, name, entry->attr.st_ino);
    for (node = view.table[bucket]; node; node = node->next) {
        if (node->parent == parent && node->ino == entry->attr.st_ino &&
            node->dev == entry->attr.st_dev && node->type == (entry->attr.st_mode & S_IFMT) &&
            !strcmp(node->name, name)) {
            /* The fresh fd is what the name means now; the old one may be an unlinked twin. */
            int old = node->fd;

            node->fd = take_fd(&fd);
            (void)close(old);
            node->lookups++;
            entry->ino = (uintptr_t)node;
            return 0;
        }
    }
    node = malloc(sizeof(*node) + strlen(name) + 1);
    if (!node)
        return -ENOMEM;
    *node = (struct node){
        .next = view.table[bucket],
        .parent = parent,
        .dev = entry->attr.st_dev,
        .ino = entry->attr.st_ino,
        .lookups = 1,
        .bucket = bucket,
        .type = entry->attr.st_mode & S_IFMT,
        .fd = take_fd(&fd),
    };
    memcpy(node->name, name, strlen(name) + 1);
    view.table[bucket] = node;
    entry->ino = (uintptr_t)node;

    made = atomic_fetch_add(&view.shared->made, 1) + 1;
    if (atomic_fetch_add(&view.shared->nodes, 1) == 0 ||
        (atomic_load(&view.shared->nodes) >= NODES_HIGH &&
         made - view.waked_at >= NODES_HIGH / 2)) {
        view.waked_at = made;
        /* A full socket means that it is awake. */
        (void)send(view.keeper, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    return 0;
}

void forget(fuse_ino_t ino, uint64_t count)
{
    struct node *node = node_of(ino);
    struct node **link;

    if (node == &view.root)
        return;
    node->lookups -= count < node->lookups ? count : node->lookups;
    if (node->lookups)
        return;
    for (link = &view.table[node->bucket]; *link != node; link = &(*link)->next)
        continue;
    *link = node->next;
    (void)close(node->fd);
    free(node);
    atomic_fetch_sub(&view.shared->nodes, 1);
}
