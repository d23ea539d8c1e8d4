/* SPDX-License-Identifier: Apache-2.0 */
/*
 * eci-keeper STATE LOG START RING FD...: the keeper of a container while there is nothing to do.
 *
 * The keeper proper is Python (eci_supervisor/supervisor/keeper.py) and executes this program, in
 * the same process, once its container is at rest.  STATE, RING and FD are inherited descriptors:
 * what the keeper knows (a memfd, which is not looked into here), the event ring's eventfd, and
 * all else that it waits for.  As soon as one of them is readable, it is executed again, by way of
 * START (start.py).
 *
 * Where that cannot be done this process ends, as a keeper that was killed: its sockets go with it,
 * so that no new listener is taken in, and the worker goes on with those that it has.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifndef ECI_PYTHON
#error "ECI_PYTHON: the interpreter that has the package eci_supervisor"
#endif

enum { MOST = 16 };

/*
 * A container makes events as it likes, and each start of the interpreter costs processor time
 * of the host's: refusals alone bring one about at most so often.  The ring keeps them meanwhile.
 */
#define EVENT_PAUSE_MS 5000

static int milliseconds_since(const struct timespec *began)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    if (now.tv_sec - began->tv_sec > EVENT_PAUSE_MS / 1000)
        return EVENT_PAUSE_MS;
    return (int)((now.tv_sec - began->tv_sec) * 1000 + (now.tv_nsec - began->tv_nsec) / 1000000);
}

/* Waits until there is something to do.  fds[0] is the ring's.  Returns 0 or -errno. */
static int wait_for(struct pollfd *fds, nfds_t count)
{
    struct timespec began;

    clock_gettime(CLOCK_MONOTONIC, &began);
    for (;;) {
        int ready = poll(fds, count, -1);

        if (ready < 0 && errno != EINTR)
            return -errno;
        if (ready <= 0)
            continue;
        int left = EVENT_PAUSE_MS - milliseconds_since(&began);
        if (ready > 1 || !fds[0].revents || left <= 0)
            return 0;
        ready = poll(fds + 1, count - 1, left);
        if (ready > 0)
            return 0;
        if (ready < 0 && errno != EINTR)
            return -errno;
    }
}

/* Standard error becomes the container's log: what the interpreter says on its way is kept. */
static void log_errors(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

    if (fd < 0)
        return;
    (void)dup2(fd, STDERR_FILENO);
    (void)close(fd);
}

int main(int argc, char **argv)
{
    struct pollfd fds[MOST];
    nfds_t count = 0;
    int error;

    if (argc < 6 || argc - 4 > MOST) {
        fputs("usage: eci-keeper STATE LOG START RING FD... (the keeper starts it)\n", stderr);
        return 2;
    }
    for (int i = 4; i < argc; i++)
        fds[count++] = (struct pollfd){.fd = atoi(argv[i]), .events = POLLIN};
    error = wait_for(fds, count);
    log_errors(argv[2]);
    if (error == 0) {
        execl(ECI_PYTHON, ECI_PYTHON, "-I", "-S", argv[3], "resume", argv[1], (char *)NULL);
        error = -errno;
    }
    dprintf(STDERR_FILENO,
            "eci-keeper: cannot execute %s: %s: no process that joins the container later can "
            "mount\n",
            ECI_PYTHON, strerror(-error));
    return 1;
}
