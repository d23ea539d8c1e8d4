/*
 * race - one thread makes a mount call over and over, another rewrites the path under it.
 * ROUNDS is the least number of calls.
 *
 *     race remount ROUNDS OWN FOREIGN     mount(NULL, path, NULL, MS_REMOUNT|MS_BIND, NULL)
 *     race umount  ROUNDS OWN FOREIGN     mount("none", OWN, "tmpfs"), then umount2(path,
 * MNT_DETACH); 3 where OWN could not be mounted or unmounted
 *
 * OWN and FOREIGN have the same length.  The rewriting thread changes all bytes that differ, so
 * that a reader sees OWN, FOREIGN or a torn mix.  Output: one line "NAME=COUNT ..." with a count
 * per outcome, and flips=N, the number of times the path changed.  The caller then looks at what
 * FOREIGN has become.  Exit status 2: not understood.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ENOUGH 200 /* rounds that begin with either path in memory */

static volatile char path[4096];
static char own[4096], foreign[4096];
static atomic_bool stop;
static atomic_ulong flips;

static void put(const char *from)
{
    for (size_t i = 0; from[i]; i++)
        if (path[i] != from[i])
            path[i] = from[i];
}

static void *rewrite(void *unused)
{
    (void)unused;
    while (!atomic_load(&stop)) {
        unsigned long now = atomic_fetch_add(&flips, 1);

        put(now & 1 ? own : foreign);
        /* Periods of many lengths, so that a change falls into each step of a call. */
        for (volatile unsigned long spin = 0; spin < (now * 7919) % 20000; spin++)
            ;
    }
    return NULL;
}

int main(int argc, char **argv)
{
    static unsigned long counts[4096], begun[2];
    size_t differs = 0;
    pthread_t thread;

    if (argc != 5 || strlen(argv[3]) != strlen(argv[4]) || strlen(argv[3]) >= sizeof own)
        return 2;
    strcpy(own, argv[3]);
    strcpy(foreign, argv[4]);
    strcpy((char *)path, own);
    while (own[differs] && own[differs] == foreign[differs])
        differs++;
    if (pthread_create(&thread, NULL, rewrite, NULL))
        return 2;
    /* As many rounds as told, and more until both paths have had their share: on one busy
     * processor all the changes can fall between two rounds. */
    for (long round = strtol(argv[2], NULL, 10);
         round > 0 || begun[0] < ENOUGH || begun[1] < ENOUGH; round--) {
        long result;

        begun[path[differs] == foreign[differs]]++;

        if (!strcmp(argv[1], "remount")) {
            result = syscall(SYS_mount, NULL, path, NULL, MS_REMOUNT | MS_BIND, NULL);
        } else if (!strcmp(argv[1], "umount")) {
            if (syscall(SYS_mount, "none", own, "tmpfs", 0, NULL) < 0)
                return 3;
            result = syscall(SYS_umount2, path, MNT_DETACH);
            if (result < 0) {
                int refused = errno;

                if (syscall(SYS_umount2, own, MNT_DETACH) < 0)
                    return 3;
                errno = refused;
            }
        } else {
            return 2;
        }
        counts[result < 0 ? errno : 0]++;
    }
    atomic_store(&stop, 1);
    pthread_join(thread, NULL);
    for (int i = 0; i < 4096; i++)
        if (counts[i])
            printf("%s=%lu ", strerrorname_np(i), counts[i]);
    printf("flips=%lu\n", atomic_load(&flips));
    return 0;
}
