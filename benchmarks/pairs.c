/* Times pairs of mount and umount on demand, so that two places can be measured in turns.
 *
 * Reads lines `KIND COUNT` from standard input and answers each with one line: COUNT times the
 * nanoseconds of the mount and of the umount, all in one row.  KIND is tmpfs, bind or missing (a
 * mount that fails with ENOENT; its umount is not called and counts as 0).  Ends with the input.  A
 * call that ends otherwise than it must ends the program with a line on standard error and
 * status 1.
 *
 * Usage: pairs DIRECTORY   (empty, writable; `from` and `to` are made in it)
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 100000 };

static uint64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000U + (uint64_t)time.tv_nsec;
}

/* One pair; returns 0, or -errno of the call that did not do what it should. */
static int pair(const char *kind, uint64_t *mounted, uint64_t *unmounted)
{
    uint64_t start = now();
    uint64_t middle;
    int r;

    if (!strcmp(kind, "tmpfs"))
        r = mount("bench", "to", "tmpfs", 0, NULL);
    else if (!strcmp(kind, "bind"))
        r = mount("from", "to", NULL, MS_BIND, NULL);
    else
        r = mount("from", "missing", NULL, MS_BIND, NULL);
    middle = now();
    *mounted = middle - start;
    *unmounted = 0;
    if (!strcmp(kind, "missing"))
        return r < 0 && errno == ENOENT ? 0 : -EINVAL;
    if (r < 0)
        return -errno;
    middle = now();
    if (umount2("to", 0) < 0)
        return -errno;
    *unmounted = now() - middle;
    return 0;
}

int main(int argc, char **argv)
{
    static uint64_t times[MOST][2];
    char kind[16];
    int count;

    if (argc != 2 || chdir(argv[1]) < 0 || (mkdir("from", 0755) < 0 && errno != EEXIST) ||
        (mkdir("to", 0755) < 0 && errno != EEXIST)) {
        fprintf(stderr, "pairs: needs a directory that it may write to\n");
        return 1;
    }
    while (scanf("%15s %d", kind, &count) == 2) {
        if (count < 1 || count > MOST)
            return 1;
        for (int i = 0; i < count; i++) {
            int r = pair(kind, &times[i][0], &times[i][1]);

            if (r < 0) {
                fprintf(stderr, "pairs: %s: %s\n", kind, strerror(-r));
                return 1;
            }
        }
        for (int i = 0; i < count; i++)
            printf("%llu %llu ", (unsigned long long)times[i][0], (unsigned long long)times[i][1]);
        printf("\n");
        fflush(stdout);
    }
    return 0;
}
