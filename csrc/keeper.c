/* SPDX-License-Identifier: Apache-2.0 */
/*
 * eci-keeper: the keeper of a container while there is nothing to do, and at its end.
 *
 * The keeper proper is Python (eci_supervisor/supervisor/keeper.py) and executes this program, in
 * the same process, once its container is at rest; `enum` below has its words.  All descriptors are
 * inherited.  As soon as one that it waits for is readable, Python is executed again, by way of
 * start.py, and takes over.  The end of a container that left nothing to be said needs no
 * Python, however: a `delete` would have to wait for it.
 *
 * Where Python cannot be executed this process ends, as a keeper that was killed: its sockets go
 * with it, so that no new listener is taken in, and the worker goes on with those that it has.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef ECI_PYTHON
#error "ECI_PYTHON: the interpreter that has the package eci_supervisor"
#endif

enum word {
    MEMORY = 1, /* a memfd: what the keeper knows, which is not looked into here */
    LOG,        /* the file that gets what has to be said */
    START,      /* start.py */
    CLEANUP,    /* eci-cleanup, and its next three words: */
    STATE,      /* the state directory */
    WORK,
    ROOTFS,
    CONTAINER, /* the runtime's directory of the container: there as long as it is */
    CONTROL,   /* the worker's socket: hung up, it ends when nobody has a listener any more */
    LOCK,      /* held while this process may touch the state directory */
    FIRST,     /* of what is polled, -1 for what there is not: */
    WORDS = FIRST + 6,
};

enum polled {
    RING, /* events of the worker's */
    INIT, /* the container's first process, a pidfd, as the next two */
    WORKER,
    RUNTIME, /* `run`, which deletes the container */
    HOOK,
    NOTIFY,
    POLLED,
};

/*
 * A container makes events as it likes, and each start of the interpreter costs processor time
 * of the host's: refusals alone bring one about at most so often.  The ring keeps them meanwhile.
 */
#define EVENT_PAUSE_MS 5000
/* As keeper.py has them: for the worker's last calls, and for whoever deletes the container. */
#define LAST_CALLS_MS  5000
#define LINGER_MS      2000
#define HOOK_MS        500
#define LOOK_MS        20

static int milliseconds_since(const struct timespec *began)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    if (now.tv_sec - began->tv_sec > EVENT_PAUSE_MS / 1000)
        return EVENT_PAUSE_MS;
    return (int)((now.tv_sec - began->tv_sec) * 1000 + (now.tv_nsec - began->tv_nsec) / 1000000);
}

/* Waits until there is something to do.  Returns 0 or -errno. */
static int wait_for(struct pollfd *fds)
{
    struct timespec began;

    clock_gettime(CLOCK_MONOTONIC, &began);
    for (;;) {
        int ready = poll(fds, POLLED, -1);

        if (ready < 0 && errno != EINTR)
            return -errno;
        if (ready <= 0)
            continue;
        int left = EVENT_PAUSE_MS - milliseconds_since(&began);
        if (ready > 1 || !fds[RING].revents || left <= 0)
            return 0;
        ready = poll(fds + RING + 1, POLLED - 1, left);
        if (ready > 0)
            return 0;
        if (ready < 0 && errno != EINTR)
            return -errno;
    }
}

static bool is_readable(int fd, int milliseconds)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};

    return poll(&one, 1, milliseconds) > 0;
}

/* Whether the container has ended, and its worker with it, and nothing is to be said or answered.
 */
static bool is_quiet_end(const struct pollfd *fds, char **argv)
{
    siginfo_t ended;

    if (!fds[INIT].revents || fds[HOOK].revents || fds[NOTIFY].revents)
        return false;
    /* Not closed: Python would, where it is to take over. */
    (void)shutdown(atoi(argv[CONTROL]), SHUT_RDWR);
    if (!is_readable(fds[WORKER].fd, LAST_CALLS_MS))
        return false;
    (void)waitid((idtype_t)P_PIDFD, (id_t)fds[WORKER].fd, &ended, WEXITED);
    return !is_readable(fds[RING].fd, 0);
}

static bool exists(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0 || errno != ENOENT;
}

/* Whether the state directory is still this container's: its lock file has a name. */
static bool holds_state(int lock)
{
    struct stat st;

    return fstat(lock, &st) == 0 && st.st_nlink > 0;
}

/*
 * Lets whoever deletes the container go ahead.  A delete by force can run no hooks; then what it
 * leaves is ours.
 */
static int let_go(const struct pollfd *fds, char **argv)
{
    int lock = atoi(argv[LOCK]);
    int gone = 0;

    (void)flock(lock, LOCK_UN);
    while (fds[RUNTIME].fd >= 0 && holds_state(lock) && !is_readable(fds[RUNTIME].fd, LOOK_MS))
        ;
    /* The poststop hook comes after the runtime's directory has gone. */
    for (int left = LINGER_MS; left > 0 && gone < HOOK_MS && holds_state(lock); left -= LOOK_MS) {
        gone = exists(argv[CONTAINER]) ? 0 : gone + LOOK_MS;
        (void)poll(NULL, 0, LOOK_MS);
    }
    if (gone == 0 || !holds_state(lock))
        return 0;
    (void)fcntl(lock, F_SETFD, 0);
    execl(argv[CLEANUP], argv[CLEANUP], "--of", argv[LOCK], argv[STATE], argv[WORK], argv[ROOTFS],
          (char *)NULL);
    dprintf(STDERR_FILENO, "eci-keeper: cannot execute %s: %s\n", argv[CLEANUP], strerror(errno));
    return 1;
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
    struct pollfd fds[POLLED];
    int error;

    if (argc != WORDS) {
        fputs("eci-keeper: the keeper starts it\n", stderr);
        return 2;
    }
    for (int i = 0; i < POLLED; i++)
        fds[i] = (struct pollfd){.fd = atoi(argv[FIRST + i]), .events = POLLIN};
    error = wait_for(fds);
    if (error == 0 && is_quiet_end(fds, argv))
        return let_go(fds, argv);
    log_errors(argv[LOG]);
    if (error == 0) {
        execl(ECI_PYTHON, ECI_PYTHON, "-I", "-S", argv[START], "resume", argv[MEMORY],
              (char *)NULL);
        error = -errno;
    }
    dprintf(STDERR_FILENO,
            "eci-keeper: cannot execute %s: %s: no process that joins the container later can "
            "mount\n",
            ECI_PYTHON, strerror(-error));
    return 1;
}
