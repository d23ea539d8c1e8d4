/* SPDX-License-Identifier: Apache-2.0 */
/*
 * round DIRECTORY - says "ready", makes one call of the mount family for each word on standard
 * input and prints its errno, or 0.
 *
 * Words: see the table.  Works in DIRECTORY, where it makes `from`, `to` and `other`; `refused`
 * asks for the read-only volume /locked to become writable.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <linux/mount.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* <sys/mount.h> cannot be had together with <linux/mount.h>. */
int mount(const char *source, const char *target, const char *type, unsigned long flags,
          const void *data);
int umount2(const char *target, int flags);

static int mount_tmpfs(void)
{
    return mount("bench", "to", "tmpfs", 0, NULL);
}

static int mount_bind(void)
{
    return mount("from", "to", NULL, MS_BIND, NULL);
}

static int remount(void)
{
    return mount(NULL, "to", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL);
}

static int move_mount(void)
{
    return (int)syscall(SYS_move_mount, AT_FDCWD, "to", AT_FDCWD, "other", 0);
}

static int move_back(void)
{
    return (int)syscall(SYS_move_mount, AT_FDCWD, "other", AT_FDCWD, "to", 0);
}

static int mount_setattr(void)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_NOSUID};

    return (int)syscall(SYS_mount_setattr, AT_FDCWD, "to", 0, &attr, sizeof(attr));
}

static int umount(void)
{
    return umount2("to", 0);
}

static int failing(void)
{
    return mount("from", "missing", NULL, MS_BIND, NULL);
}

static int refused(void)
{
    return mount(NULL, "/locked", NULL, MS_REMOUNT | MS_BIND, NULL);
}

/* Goes on in a mount namespace of its own. */
static int own_mounts(void)
{
    return unshare(CLONE_NEWNS);
}

static const struct {
    const char *word;
    int (*call)(void);
} table[] = {
    {"tmpfs", mount_tmpfs}, {"bind", mount_bind},       {"remount", remount}, {"move", move_mount},
    {"back", move_back},    {"setattr", mount_setattr}, {"umount", umount},   {"failing", failing},
    {"refused", refused},   {"unshare", own_mounts},
};

int main(int argc, char **argv)
{
    char word[16];

    if (argc != 2 || chdir(argv[1]) < 0 || mkdir("from", 0755) < 0 || mkdir("to", 0755) < 0 ||
        mkdir("other", 0755) < 0) {
        perror("round");
        return 1;
    }
    printf("ready\n");
    fflush(stdout);
    while (scanf("%15s", word) == 1) {
        for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
            if (!strcmp(table[i].word, word))
                printf("%d\n", table[i].call() < 0 ? errno : 0);
        fflush(stdout);
    }
    return 0;
}
