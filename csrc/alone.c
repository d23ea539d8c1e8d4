/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps a container while there is no Python that could: for keeper.c.
 *
 * Another version of the package is installed that does not read what is known here, or none, or
 * one that does not work.  The container goes on as it is, processes that join it included; only
 * what the worker tells its ring is left there.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "keeper.h"
#include "second.h"

/* Seconds.  An installation that does not work may be one that is just being made. */
#define TRY_AGAIN   60
/* How many connections may be open at once on which a listener is still to come. */
#define CONNECTIONS 64

static time_t not_before; /* CLOCK_MONOTONIC; until then Python is not tried */

/* One line into the container's log: log_errors() has made that standard error. */
void say(const char *format, ...)
{
    char text[1024];
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    dprintf(STDERR_FILENO, "eci-keeper: %s\n", text);
}

static time_t now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

/* Python was tried, in vain. */
void alone_for_a_while(void)
{
    not_before = now_s() + TRY_AGAIN;
}

/* Whether the package that is installed now can go on with what is known here. */
bool alone_is_over(char **argv)
{
    char text[256];
    char *rest = NULL;
    ssize_t n;
    int fd;

    if (now_s() < not_before)
        return false;
    fd = open(argv[FORMATS], O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    n = read(fd, text, sizeof(text) - 1);
    close(fd);
    text[n < 0 ? 0 : n] = '\0';
    for (char *one = strtok_r(text, " \n", &rest); one; one = strtok_r(NULL, " \n", &rest))
        if (strcmp(one, argv[FORMAT]) == 0)
            return access(argv[START], R_OK) == 0 && access(ECI_PYTHON, X_OK) == 0;
    return false;
}

static void accept_listener(int notify, struct connection *all, unsigned int *n)
{
    int r = intake_accept(notify, &all[*n]);

    if (r == -EACCES)
        say("listener refused: its sender is not root");
    if (r == 0)
        (*n)++;
}

/* Reads from one connection; true when there is nothing more to be had from it. */
static bool feed(struct connection *connection, int worker)
{
    int r = intake_feed(connection);

    if (r == 1)
        r = intake_hand_on(connection, worker);
    else if (r == 0)
        return false;
    if (r < 0)
        say("listener refused: %s", strerror(-r));
    intake_close(connection);
    return true;
}

/* It says that the process that was started has been killed, and that another serves; or it ends.
 */
static void hear_worker(struct pollfd *worker, int process)
{
    char said[64];
    siginfo_t ended;
    ssize_t n = recv(worker->fd, said, sizeof(said), MSG_DONTWAIT);

    (void)waitid((idtype_t)P_PIDFD, (id_t)process, &ended, WEXITED | WNOHANG);
    if (n > 0 || (n < 0 && errno == EAGAIN))
        return;
    say("the worker ended before the container: mount calls are denied from here on");
    worker->fd = -1;
}

/* Sees to what has happened, but for the container's end, without Python. */
static void see_to(struct pollfd *fds, const struct pollfd *happened, char **argv,
                   struct connection *all, unsigned int *n)
{
    unsigned int left = 0;

    for (unsigned int i = 0; i < *n; i++)
        if (!happened[POLLED + i].revents || !feed(&all[i], fds[WORKER].fd))
            all[left++] = all[i];
    *n = left;
    if (happened[WORKER].revents)
        hear_worker(&fds[WORKER], atoi(argv[PROCESS]));
    if (happened[RUNTIME].revents)
        fds[RUNTIME].fd = -1;
    if (happened[HOOK].revents) {
        int fd = accept(fds[HOOK].fd, NULL, NULL);

        if (fd >= 0)
            close(fd); /* which refuses whatever was asked */
    }
    if (happened[SECOND].revents) {
        second_dismiss(fds[SECOND].fd);
        fds[SECOND].fd = second_start(argv[LOG]);
    }
    if (happened[NOTIFY].revents)
        accept_listener(fds[NOTIFY].fd, all, n);
}

/*
 * Keeps the container without Python.  Returns 0 when that may take over again, 1 when the
 * container has ended, or -errno.
 */
int alone_keep(struct pollfd *fds, char **argv)
{
    static struct connection all[CONNECTIONS];
    struct pollfd happened[POLLED + CONNECTIONS];
    unsigned int n = 0;

    say("no installed eci-supervisor goes on with format %s: this container keeps the programs "
        "that it was made with; what they refuse is counted, and not logged",
        argv[FORMAT]);
    for (;;) {
        memcpy(happened, fds, POLLED * sizeof(*fds));
        happened[RING].fd = -1;
        if (n == CONNECTIONS)
            happened[NOTIFY].fd = -1;
        /* A new one would hold what is open then, so that who sends sees no end of it. */
        if (n > 0)
            happened[SECOND].fd = -1;
        for (unsigned int i = 0; i < n; i++)
            happened[POLLED + i] = (struct pollfd){.fd = all[i].fd, .events = POLLIN};
        if (poll(happened, POLLED + n, -1) < 0) {
            if (errno != EINTR)
                return -errno;
            continue;
        }
        if (happened[INIT].revents) {
            for (unsigned int i = 0; i < n; i++)
                intake_close(&all[i]);
            return 1;
        }
        /* A listener that is on its way is taken in by whoever has begun to. */
        if (n == 0 && alone_is_over(argv))
            return 0;
        see_to(fds, happened, argv, all, &n);
    }
}
