/*
 * storm - mounts, moves and unmounts over and over while a timer sends signals, and looks after
 * each call whether the mount table is as the answer says.
 *
 *     storm restart|eintr ROUNDS MICROSECONDS DIR
 *
 * In DIR, a mount of its own, private, are the directories a and b.  A call that is interrupted
 * without SA_RESTART is made again until it gives another answer.  After EINTR a new mount or bind
 * must not be there; what was taken away or moved may be done already, and the second call says so.
 * Output: "calls=N eintr=N signals=N", or what was wrong and exit status 1.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

static volatile sig_atomic_t signals;
static unsigned long calls, interrupted;
static const char *top;

static void on_signal(int unused)
{
    (void)unused;
    signals = signals + 1;
}

/* How many mounts lie on top/NAME. */
static int depth(const char *name)
{
    char line[8192], point[4096], path[4096];
    FILE *file = fopen("/proc/self/mountinfo", "re");
    int count = 0;

    snprintf(path, sizeof path, "%s/%s", top, name);
    if (!file)
        exit(2);
    while (fgets(line, sizeof line, file))
        count += sscanf(line, "%*d %*d %*s %*s %4095s", point) == 1 && !strcmp(point, path);
    fclose(file);
    return count;
}

static void must(const char *what, int a, int b)
{
    int has_a = depth("a"), has_b = depth("b");

    if (has_a == a && has_b == b)
        return;
    printf("%s: %d and %d mounts, expected %d and %d (call %lu)\n", what, has_a, has_b, a, b,
           calls);
    exit(1);
}

/* Makes a call until it is not interrupted; `clean`: nothing may be left of one that was. */
static void make(const char *what, int clean, int a, int b, const char *source, const char *target,
                 unsigned long flags)
{
    int had_a = depth("a"), had_b = depth("b");

    for (;;) {
        long result = strcmp(what, "umount")
                          ? syscall(SYS_mount, source, target, "tmpfs", flags, NULL)
                          : syscall(SYS_umount2, target, 0);

        calls++;
        if (result == 0)
            break;
        if (errno != EINTR) {
            printf("%s: %s (call %lu)\n", what, strerrorname_np(errno), calls);
            exit(1);
        }
        interrupted++;
        if (!clean)
            continue;
        /* It is taken back before the next call has its turn, whatever that is. */
        while (syscall(SYS_umount2, "/nothing", 0) < 0 && errno == EINTR)
            ;
        must(what, had_a, had_b);
    }
    must(what, a, b);
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = on_signal};
    struct itimerval timer = {{0, 0}, {0, 0}};

    if (argc != 5)
        return 2;
    action.sa_flags = strcmp(argv[1], "restart") ? 0 : SA_RESTART;
    sigaction(SIGALRM, &action, NULL);
    timer.it_value.tv_usec = timer.it_interval.tv_usec = strtol(argv[3], NULL, 10);
    top = argv[4];
    if (chdir(top) < 0 || setitimer(ITIMER_REAL, &timer, NULL) < 0)
        return 2;
    for (long round = strtol(argv[2], NULL, 10); round > 0; round--) {
        make("new", 1, 1, 0, "none", "a", 0);
        make("bind", 1, 2, 0, "b", "a", MS_BIND);
        make("umount", 0, 1, 0, NULL, "a", 0);
        make("move", 0, 0, 1, "a", "b", MS_MOVE);
        make("remount", 0, 0, 1, NULL, "b", MS_REMOUNT | MS_BIND | MS_RDONLY);
        make("umount", 0, 0, 0, NULL, "b", 0);
    }
    printf("calls=%lu eintr=%lu signals=%d\n", calls, interrupted, (int)signals);
    return 0;
}
