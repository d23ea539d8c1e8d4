/* SPDX-License-Identifier: Apache-2.0 */
/*
 * calls DIRECTORY - makes mount calls on demand and times each, so that several places can be
 * measured in turns.
 *
 * DIRECTORY is made where it is missing.  Says "ready", reads lines from standard input, and
 * answers each with one line of numbers; ends with its input.  A call that ends otherwise than it
 * must ends the program with a line on standard error and status 1.
 *
 *   CASE COUNT        COUNT times the nanoseconds of the first and of the second call of the case
 *                     (0 where it has one only), without what reading the clock takes
 *   fill COUNT        mounts until the namespace has COUNT mounts; answers with that number
 *   storm N AT MS     N processes mount and unmount a tmpfs each, from AT (nanoseconds of
 *                     CLOCK_MONOTONIC) for MS milliseconds; answers, for each, how many pairs it
 *                     made and the nanoseconds of the longest
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 100000, CROWD = 256, READINGS = 1001, SECOND = 1000000000 };

static uint64_t clock_cost;

static uint64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * SECOND + (uint64_t)time.tv_nsec;
}

/* From `start` until now, without what reading the clock takes. */
static uint64_t since(uint64_t start)
{
    uint64_t took = now() - start;

    return took > clock_cost ? took - clock_cost : 0;
}

static int ascending(const void *one, const void *other)
{
    uint64_t a = *(const uint64_t *)one;
    uint64_t b = *(const uint64_t *)other;

    return (a > b) - (a < b);
}

/* The median distance of two readings. */
static void learn_clock_cost(void)
{
    uint64_t readings[READINGS];

    for (int i = 0; i < READINGS; i++) {
        uint64_t start = now();

        readings[i] = now() - start;
    }
    qsort(readings, READINGS, sizeof(readings[0]), ascending);
    clock_cost = readings[READINGS / 2];
}

static int make_directory(const char *path)
{
    return mkdir(path, 0755) < 0 && errno != EEXIST ? -errno : 0;
}

/* -- the cases -------------------------------------------------------------------------------
 *
 * Each function returns 0, or -errno of what did not do what it should.  `times` are of the two
 * calls of a case; `round` counts from 0, so that a call can do and undo in turns.
 */

static int bind_once(void)
{
    return mount("from", "to", NULL, MS_BIND, NULL) < 0 ? -errno : 0;
}

static int unbind(int rounds)
{
    (void)rounds;
    return umount2("to", 0) < 0 ? -errno : 0;
}

/* One mount and one unmount. */
static int pair(const char *source, const char *type, unsigned long flags, const char *data,
                int umount_flags, uint64_t times[2])
{
    uint64_t start = now();

    if (mount(source, "to", type, flags, data) < 0)
        return -errno;
    times[0] = since(start);
    start = now();
    if (umount2("to", umount_flags) < 0)
        return -errno;
    times[1] = since(start);
    return 0;
}

static int do_tmpfs(int round, uint64_t times[2])
{
    (void)round;
    return pair("bench", "tmpfs", 0, NULL, 0, times);
}

static int do_detach(int round, uint64_t times[2])
{
    (void)round;
    return pair("bench", "tmpfs", 0, NULL, MNT_DETACH, times);
}

static int do_bind(int round, uint64_t times[2])
{
    (void)round;
    return pair("from", NULL, MS_BIND, NULL, 0, times);
}

static int do_procfs(int round, uint64_t times[2])
{
    (void)round;
    return pair("proc", "proc", 0, NULL, 0, times);
}

/* An overlay cannot lie on another one: its upper directory is on a tmpfs. */
static int begin_overlay(void)
{
    if (mount("bench", "scratch", "tmpfs", 0, NULL) < 0)
        return -errno;
    if (mkdir("scratch/upper", 0755) < 0 || mkdir("scratch/work", 0755) < 0)
        return -errno;
    return 0;
}

static int do_overlay(int round, uint64_t times[2])
{
    (void)round;
    return pair("overlay", "overlay", 0,
                "lowerdir=from,upperdir=scratch/upper,workdir=scratch/work", 0, times);
}

static int end_overlay(int rounds)
{
    (void)rounds;
    return umount2("scratch", 0) < 0 ? -errno : 0;
}

static int do_remount(int round, uint64_t times[2])
{
    unsigned long flags = MS_REMOUNT | MS_BIND | (round % 2 ? 0 : MS_RDONLY);
    uint64_t start = now();

    if (mount(NULL, "to", NULL, flags, NULL) < 0)
        return -errno;
    times[0] = since(start);
    return 0;
}

static int do_setattr(int round, uint64_t times[2])
{
    struct mount_attr attr = {0};
    uint64_t start = now();

    if (round % 2)
        attr.attr_clr = MOUNT_ATTR_RDONLY;
    else
        attr.attr_set = MOUNT_ATTR_RDONLY;
    if (syscall(SYS_mount_setattr, AT_FDCWD, "to", 0, &attr, sizeof(attr)) < 0)
        return -errno;
    times[0] = since(start);
    return 0;
}

static int do_move(int round, uint64_t times[2])
{
    const char *from = round % 2 ? "other" : "to";
    const char *to = round % 2 ? "to" : "other";
    uint64_t start = now();

    if (syscall(SYS_move_mount, AT_FDCWD, from, AT_FDCWD, to, 0) < 0)
        return -errno;
    times[0] = since(start);
    return 0;
}

static int end_move(int rounds)
{
    return umount2(rounds % 2 ? "other" : "to", 0) < 0 ? -errno : 0;
}

/* Returns 0 where a call failed with `wanted`. */
static int failed(int r, int wanted)
{
    if (r == 0)
        return -ENOTUNIQ; /* an errno that says what it cannot be otherwise */
    return errno == wanted ? 0 : -errno;
}

static int do_missing(int round, uint64_t times[2])
{
    uint64_t start = now();
    int r = mount("from", "missing", NULL, MS_BIND, NULL);

    (void)round;
    times[0] = since(start);
    return failed(r, ENOENT);
}

/* The kernel refuses it as well: the volume was read-only before the user namespace was there. */
static int do_refused(int round, uint64_t times[2])
{
    uint64_t start = now();
    int r = mount(NULL, "/locked", NULL, MS_REMOUNT | MS_BIND, NULL);

    (void)round;
    times[0] = since(start);
    return failed(r, EPERM);
}

static const struct work {
    const char *name;
    int (*begin)(void);
    int (*once)(int round, uint64_t times[2]);
    int (*end)(int rounds);
} works[] = {
    {"tmpfs", NULL, do_tmpfs, NULL},
    {"detach", NULL, do_detach, NULL},
    {"bind", NULL, do_bind, NULL},
    {"procfs", NULL, do_procfs, NULL},
    {"overlay", begin_overlay, do_overlay, end_overlay},
    {"remount", bind_once, do_remount, unbind},
    {"setattr", bind_once, do_setattr, unbind},
    {"move", bind_once, do_move, end_move},
    {"missing", NULL, do_missing, NULL},
    {"refused", NULL, do_refused, NULL},
};

static int do_work(const struct work *work, int count)
{
    static uint64_t times[MOST][2];
    int r = work->begin ? work->begin() : 0;

    if (r < 0)
        return r;
    memset(times, 0, sizeof(times[0]) * (size_t)count);
    for (int i = 0; i < count; i++) {
        r = work->once(i, times[i]);
        if (r < 0)
            return r;
    }
    r = work->end ? work->end(count) : 0;
    if (r < 0)
        return r;
    for (int i = 0; i < count; i++)
        printf("%llu %llu ", (unsigned long long)times[i][0], (unsigned long long)times[i][1]);
    printf("\n");
    return 0;
}

/* -- many mounts ---------------------------------------------------------------------------- */

static int count_mounts(void)
{
    FILE *stream = fopen("/proc/self/mountinfo", "re");
    int lines = 0;
    int c;

    if (!stream)
        return -errno;
    while ((c = getc(stream)) != EOF)
        lines += c == '\n';
    fclose(stream);
    return lines;
}

static int do_fill(int count)
{
    static int made;
    int have = count_mounts();

    for (; have >= 0 && have < count; have++) {
        char path[32];
        int r;

        snprintf(path, sizeof(path), "fill/%d", made++);
        r = make_directory(path);
        if (r < 0)
            return r;
        if (mount("from", path, NULL, MS_BIND, NULL) < 0)
            return -errno;
    }
    if (have < 0)
        return have;
    printf("%d\n", have);
    return 0;
}

/* -- many processes ------------------------------------------------------------------------- */

struct share {
    uint64_t pairs;
    uint64_t longest;
    int error;
};

static int take_part(int number, uint64_t at, uint64_t length, struct share *share)
{
    const struct timespec begin = {.tv_sec = (time_t)(at / SECOND), .tv_nsec = (long)(at % SECOND)};
    char path[32];
    uint64_t last = at;

    snprintf(path, sizeof(path), "storm/%d", number);
    if (chdir(path) < 0)
        return -errno;
    if (now() > at)
        return -ETIME; /* came too late */
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &begin, NULL) == EINTR)
        continue;
    while (last < at + length) {
        uint64_t end;

        if (mount("bench", "to", "tmpfs", 0, NULL) < 0 || umount2("to", 0) < 0)
            return -errno;
        end = now();
        if (end - last > share->longest)
            share->longest = end - last;
        share->pairs++;
        last = end;
    }
    return 0;
}

static int do_storm(int count, uint64_t at, uint64_t milliseconds)
{
    static struct share *shares;
    int failed_one = 0;

    if (!shares) {
        shares = mmap(NULL, CROWD * sizeof(*shares), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (shares == MAP_FAILED)
            return -errno;
    }
    memset(shares, 0, CROWD * sizeof(*shares));
    for (int i = 0; i < count; i++) {
        char path[32];
        pid_t child;

        snprintf(path, sizeof(path), "storm/%d", i);
        if (make_directory(path) < 0)
            return -errno;
        snprintf(path, sizeof(path), "storm/%d/to", i);
        if (make_directory(path) < 0)
            return -errno;
        child = fork();
        if (child < 0)
            return -errno;
        if (child == 0) {
            shares[i].error = take_part(i, at, milliseconds * (SECOND / 1000), &shares[i]);
            _exit(0);
        }
    }
    for (int i = 0; i < count; i++)
        if (wait(NULL) < 0)
            return -errno;
    for (int i = 0; i < count; i++) {
        if (shares[i].error)
            failed_one = shares[i].error;
        printf("%llu %llu ", (unsigned long long)shares[i].pairs,
               (unsigned long long)shares[i].longest);
    }
    printf("\n");
    return failed_one;
}

/* -- */

static int answer(const char *line)
{
    unsigned long long at;
    unsigned int milliseconds;
    char word[16];
    int count;

    if (sscanf(line, "storm %d %llu %u", &count, &at, &milliseconds) == 3)
        return count < 1 || count > CROWD ? -EINVAL : do_storm(count, at, milliseconds);
    if (sscanf(line, "%15s %d", word, &count) != 2 || count < 1 || count > MOST)
        return -EINVAL;
    if (!strcmp(word, "fill"))
        return do_fill(count);
    for (size_t i = 0; i < sizeof(works) / sizeof(works[0]); i++)
        if (!strcmp(word, works[i].name))
            return do_work(&works[i], count);
    return -EINVAL;
}

int main(int argc, char **argv)
{
    static const char *const directories[] = {"from", "to", "other", "scratch", "fill", "storm"};
    char line[128];

    if (argc != 2 || make_directory(argv[1]) < 0 || chdir(argv[1]) < 0) {
        fprintf(stderr, "calls: needs a directory that it can make or use\n");
        return 1;
    }
    for (size_t i = 0; i < sizeof(directories) / sizeof(directories[0]); i++) {
        if (make_directory(directories[i]) < 0) {
            perror(directories[i]);
            return 1;
        }
    }
    learn_clock_cost();
    printf("ready\n");
    fflush(stdout);
    while (fgets(line, sizeof(line), stdin)) {
        int r = answer(line);

        if (r < 0) {
            line[strcspn(line, "\n")] = 0;
            fprintf(stderr, "calls: %s: %s\n", line, strerror(-r));
            return 1;
        }
        fflush(stdout);
    }
    return 0;
}
