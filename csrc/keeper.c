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
 * With KEEPER it is the keeper's second to begin with (second.c).
 *
 * Another version may have been installed meanwhile, or none.  Python is executed only where the
 * installed one says that it reads what is known here, and comes back to this very program, open as
 * a descriptor, where it turns out that it cannot take over.  Else this program keeps the container
 * alone: it hands on the listeners of processes that join, and sees to the end.  What the worker
 * has refused is then counted, but told nobody.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "keeper.h"
#include "privilege.h"
#include "second.h"

#ifndef ECI_PYTHON
#error "ECI_PYTHON: the interpreter that has the package eci_supervisor"
#endif

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

/* Waits until there is something to do, or no longer can: Python goes on with it then. */
static void wait_for(struct pollfd *fds, const char *log)
{
    struct timespec began;

    clock_gettime(CLOCK_MONOTONIC, &began);
    for (;;) {
        int ready = poll(fds, POLLED, -1);

        if (ready < 0 && errno != EINTR)
            return;
        if (ready > 0 && fds[SECOND].revents) {
            second_dismiss(fds[SECOND].fd);
            fds[SECOND].fd = second_start(log);
            continue;
        }
        if (ready <= 0)
            continue;
        int left = EVENT_PAUSE_MS - milliseconds_since(&began);
        if (ready > 1 || !fds[RING].revents || left <= 0)
            return;
        ready = poll(fds + RING + 1, POLLED - 1, left);
        if (ready > 0 || (ready < 0 && errno != EINTR))
            return;
    }
}

static bool is_readable(int fd, int milliseconds)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};

    return poll(&one, 1, milliseconds) > 0;
}

/* Lets the worker end, whose container has; whether it has. */
static bool worker_ends(const struct pollfd *fds, char **argv)
{
    siginfo_t ended;
    char said;

    /* Not closed: Python would, where it is to take over. */
    (void)shutdown(fds[WORKER].fd, SHUT_WR);
    /* Its end, and not that it says something. */
    if (!is_readable(fds[WORKER].fd, LAST_CALLS_MS) ||
        recv(fds[WORKER].fd, &said, 1, MSG_PEEK | MSG_DONTWAIT) != 0)
        return false;
    (void)waitid((idtype_t)P_PIDFD, (id_t)atoi(argv[PROCESS]), &ended, WEXITED);
    return true;
}

/* Whether the container has ended, and its worker with it, and nothing is to be said or answered.
 */
static bool is_quiet_end(const struct pollfd *fds, char **argv)
{
    return fds[INIT].revents && !fds[HOOK].revents && !fds[NOTIFY].revents &&
           worker_ends(fds, argv) && !is_readable(fds[RING].fd, 0);
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

    second_dismiss(fds[SECOND].fd);
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
    char *words[] = {"eci-cleanup", "--of",       argv[LOCK], argv[STATE],
                     argv[WORK],    argv[ROOTFS], NULL};

    (void)fcntl(lock, F_SETFD, 0);
    (void)syscall(SYS_execveat, atoi(argv[CLEANUP]), "", words, environ, AT_EMPTY_PATH);
    say("cannot execute eci-cleanup: %s", strerror(errno));
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

/*
 * Becomes Python, which gets all our words, and before them this program to come back to.
 * Returns only where it cannot.
 */
static void resume(const struct pollfd *fds, char **argv)
{
    char *words[WORDS + 6] = {ECI_PYTHON, "-I", "-S", argv[START], "resume"};
    char program[16];
    char second[16];
    int self = open("/proc/self/exe", O_PATH | O_CLOEXEC);

    snprintf(program, sizeof(program), "%d", self);
    snprintf(second, sizeof(second), "%d", fds[SECOND].fd);
    (void)fcntl(self, F_SETFD, 0);
    (void)fcntl(fds[SECOND].fd, F_SETFD, 0);
    memcpy(words + 6, argv + 1, (WORDS - 1) * sizeof(*words));
    words[5] = program;
    words[5 + KEEPER] = "-1";
    words[5 + FIRST + SECOND] = second;
    if (self >= 0)
        execv(ECI_PYTHON, words);
    say("cannot execute %s: %s", ECI_PYTHON, strerror(errno));
    if (self >= 0)
        close(self);
    alone_for_a_while();
}

/* The end of a container that is kept without Python: what its worker had to say is lost. */
static int end_alone(const struct pollfd *fds, char **argv)
{
    if (fds[WORKER].fd >= 0 && !worker_ends(fds, argv)) {
        /* Its other process ends where it finds both the socket shut and this one gone. */
        (void)shutdown(fds[WORKER].fd, SHUT_RDWR);
        (void)syscall(SYS_pidfd_send_signal, atoi(argv[PROCESS]), SIGKILL, NULL, 0);
    }
    return let_go(fds, argv);
}

int main(int argc, char **argv)
{
    struct pollfd fds[POLLED];
    int r;

    if (argc != WORDS) {
        fputs("eci-keeper: the keeper starts it\n", stderr);
        return 2;
    }
    (void)prctl(PR_SET_NAME, "eci-keeper"); /* executed by a descriptor, it has no name */
    /* To look whether the container is there, and to end its worker.  What is executed has all of
     * the keeper's. */
    r = privilege_seal();
    if (r == 0)
        r = privilege_use(CAPABILITY(DAC_READ_SEARCH) | CAPABILITY(KILL));
    if (r < 0)
        say("it keeps its privileges: %s", strerror(-r));
    r = 0;
    for (int i = 0; i < POLLED; i++)
        fds[i] = (struct pollfd){.fd = atoi(argv[FIRST + i]), .events = POLLIN};
    if (atoi(argv[KEEPER]) >= 0)
        fds[SECOND].fd = second_begin(atoi(argv[KEEPER]), argv[LOG]);
    if (strcmp(argv[TRIED], "0") != 0)
        alone_for_a_while();
    else
        wait_for(fds, argv[LOG]);
    if (is_quiet_end(fds, argv))
        return let_go(fds, argv);
    log_errors(argv[LOG]);
    while (r == 0) {
        if (alone_is_over(argv))
            resume(fds, argv);
        r = alone_keep(fds, argv);
    }
    if (r > 0)
        return end_alone(fds, argv);
    say("cannot wait: %s: no process that joins the container later can mount", strerror(-r));
    return 1;
}
