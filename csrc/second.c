/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper's second: a process that sleeps until the keeper is gone, and then is the keeper, with
 * a second of its own.  It has all descriptors of the keeper's: sockets, lock, and what it knows.
 *
 * Whichever of the two is killed, the other one sees it by a pidfd: the second goes on, or the
 * keeper makes itself another.  A keeper that ends by itself dismisses its second first.
 */
#include "second.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/*
 * A keeper that was a second, and lived no longer, may have met what ends it: that is tried again
 * at once, then not so soon, and not for ever, since who joins the container waits for an answer as
 * long as somebody has its sockets.
 */
#define SHORT_MS   10000
#define PAUSE_MS   1000
#define MOST_SHORT 3

/* Returns once the process is gone, and how many milliseconds that took. */
static long wait_for_end(int pidfd)
{
    struct pollfd one = {.fd = pidfd, .events = POLLIN};
    struct timespec began;
    struct timespec ended;

    clock_gettime(CLOCK_MONOTONIC, &began);
    while (poll(&one, 1, -1) <= 0)
        ;
    close(pidfd);
    clock_gettime(CLOCK_MONOTONIC, &ended);
    return (ended.tv_sec - began.tv_sec) * 1000 + (ended.tv_nsec - began.tv_nsec) / 1000000;
}

static void tell(const char *log)
{
    int fd = open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0)
        return;
    dprintf(fd, "eci-keeper: the keeper was killed: process %d goes on\n", getpid());
    close(fd);
}

/*
 * Returns in the process that is the keeper: at once in this one, and in its second when this one
 * is gone, which the file `log` is told.  A pidfd of the second, or -errno where there can be none.
 * Single-threaded.
 */
int second_start(const char *log)
{
    for (unsigned int briefly = 0;;) {
        int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
        pid_t pid = self < 0 ? -1 : fork();

        if (pid != 0) {
            int r = pid < 0 ? -errno : (int)syscall(SYS_pidfd_open, pid, 0);

            if (self >= 0)
                close(self);
            return r < 0 && pid > 0 ? -errno : r;
        }
        if (wait_for_end(self) >= SHORT_MS) {
            briefly = 0;
        } else {
            if (++briefly > MOST_SHORT)
                _exit(1);
            (void)poll(NULL, 0, briefly > 1 ? PAUSE_MS : 0);
        }
        tell(log);
    }
}

/* Begins as the second of `keeper`, a pidfd, which is closed; then as second_start(). */
int second_begin(int keeper, const char *log)
{
    (void)wait_for_end(keeper);
    tell(log);
    return second_start(log);
}

/* Ends it, or sees it off where it has ended; closes the pidfd. */
void second_dismiss(int second)
{
    siginfo_t ended;

    if (second < 0)
        return;
    (void)syscall(SYS_pidfd_send_signal, second, SIGKILL, NULL, 0);
    while (waitid((idtype_t)P_PIDFD, (id_t)second, &ended, WEXITED) < 0 && errno == EINTR)
        ;
    close(second);
}
