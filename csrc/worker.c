/* SPDX-License-Identifier: Apache-2.0 */
/*
 * eci-worker CONTROL RING EVENT WATCH
 *
 * The worker of one container.  Its words are inherited fds: a SEQPACKET socket to the supervisor,
 * the event ring (a memfd), the ring's eventfd, and the file of watch.c, whose lock stays with its
 * description as long as this process lives.
 *
 * It is started before there is a container.  At the createRuntime hook a message comes that begins
 * with E, the pid of the container's first process follows, in our PID namespace, and with it comes
 * what to cover (a memfd, see kernfs.c).  The worker enters the container's namespaces, covers
 * /proc and /sys and writes "ready" to CONTROL, or what went wrong.  A message that begins with P
 * then carries the policy (a memfd, see struct eci_policy), and is answered in the same way; each
 * that begins with L carries a listener.  It ends when CONTROL is closed and no listener is left,
 * so it outlives a supervisor that died.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "worker.h"

#define NUDGE_MS     20
#define MAX_SESSIONS 1024
#define STACK_SIZE   ((size_t)256 * 1024)
#define MESSAGE      32

static void *map_fd(int fd, int flags, size_t *size)
{
    struct stat st;
    void *at;

    if (fstat(fd, &st) < 0 || st.st_size <= 0)
        return NULL;
    at = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, flags, fd, 0);
    *size = (size_t)st.st_size;
    return at == MAP_FAILED ? NULL : at;
}

static void *serve(void *context)
{
    struct session *session = context;

    /* Cannot go where the container is: without a worker every call of it is denied. */
    if (session_enter(session) < 0)
        _exit(1);
    session_serve(session);
    __atomic_store_n(&session->done, true, __ATOMIC_RELEASE);
    return NULL;
}

/*
 * One message from the supervisor, terminated, with an fd in an SCM_RIGHTS, which the caller owns;
 * -EPIPE at the end.
 */
static int receive(int control, char message[MESSAGE])
{
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } ancillary;
    struct iovec iov = {.iov_base = message, .iov_len = MESSAGE - 1};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = ancillary.space,
        .msg_controllen = sizeof(ancillary.space),
    };
    struct cmsghdr *head;
    ssize_t n = recvmsg(control, &msg, MSG_CMSG_CLOEXEC);
    int fd;

    if (n < 0)
        return -errno;
    if (n == 0)
        return -EPIPE;
    message[n] = 0;
    head = CMSG_FIRSTHDR(&msg);
    if (!head || head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS ||
        head->cmsg_len != CMSG_LEN(sizeof(int)))
        return -EBADMSG;
    memcpy(&fd, CMSG_DATA(head), sizeof(fd));
    return fd;
}

/* Starts a thread for a listener, which it owns; NULL when there is no room. */
static struct session *start(struct worker *worker, int listener)
{
    struct session *session = calloc(1, sizeof(*session));
    pthread_attr_t attr;
    int r;

    if (!session) {
        close(listener);
        return NULL;
    }
    session->worker = worker;
    session->listener = listener;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_SIZE);
    r = pthread_create(&session->thread, &attr, serve, session);
    pthread_attr_destroy(&attr);
    if (r != 0) {
        close(listener);
        free(session);
        return NULL;
    }
    return session;
}

static bool is_over(struct session *session)
{
    if (!session->hung_up)
        return false;
    if (__atomic_load_n(&session->done, __ATOMIC_ACQUIRE))
        return true;
    /* It may wait for a call that never comes (before kernel 6.11). */
    pthread_kill(session->thread, SIGUSR1);
    return false;
}

/* Takes the sessions that are over out of the list. */
static void see_off(struct worker *worker, struct session **at, const struct pollfd *fds)
{
    while (*at) {
        struct session *session = *at;

        session->hung_up = session->hung_up || fds[session->slot].revents;
        if (!is_over(session)) {
            at = &session->next;
            continue;
        }
        *at = session->next;
        pthread_join(session->thread, NULL);
        close(session->listener);
        free(session);
        untold_sweep(worker);
    }
}

/* Says "ready", or in words what could not be done. */
static void answer(int control, int r, const char *about)
{
    char text[512];
    int n = r < 0 ? snprintf(text, sizeof(text), "%s: %s", about, strerror(-r))
                  : snprintf(text, sizeof(text), "ready");

    /* Who does not hear it is gone, which the next poll(2) tells. */
    (void)!send(control, text, (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1,
                MSG_NOSIGNAL);
}

/* The policy, of which `fd` is a memfd; completes it with what only the container can tell. */
static int take_policy(struct worker *worker, int fd)
{
    struct session self = {.worker = worker};
    size_t size = 0;
    int r;

    if (worker->policy) {
        close(fd);
        return -EALREADY;
    }
    worker->policy = map_fd(fd, MAP_PRIVATE, &size);
    close(fd);
    if (!worker->policy || eci_policy_check(worker->policy, (uint32_t)size) < 0)
        return -EINVAL;
    r = session_enter(&self);
    return r < 0 ? r : facts_prepare(worker);
}

/* Hands listeners to threads and sees threads off, until nothing is left to do. */
static int run(struct worker *worker, int control)
{
    static struct pollfd fds[MAX_SESSIONS + 1];
    struct session *all = NULL;

    while (control >= 0 || all) {
        unsigned int n = 0;
        bool leaving = false;

        fds[n++] = (struct pollfd){.fd = control, .events = POLLIN};
        for (struct session *session = all; session; session = session->next) {
            session->slot = n;
            /* poll(2) skips a negative fd: a listener that hung up would keep it awake. */
            fds[n++] = (struct pollfd){.fd = session->hung_up ? -1 : session->listener};
            leaving = leaving || session->hung_up;
        }
        if (poll(fds, n, leaving ? NUDGE_MS : -1) < 0 && errno != EINTR)
            return -errno;

        see_off(worker, &all, fds);
        if (control >= 0 && fds[0].revents) {
            char message[MESSAGE];
            int fd = receive(control, message);

            if (fd == -EPIPE) {
                close(control);
                control = -1;
            } else if (fd >= 0 && message[0] == 'P') {
                int r = take_policy(worker, fd);

                answer(control, r, r == -EACCES ? "its mounts, with these filters" : "its policy");
            } else if (fd >= 0) {
                struct session *session =
                    worker->policy && n <= MAX_SESSIONS ? start(worker, fd) : NULL;

                if (session) {
                    session->next = all;
                    all = session;
                } else {
                    /* Without a holder of the listener these threads' calls fail with ENOSYS. */
                    fputs("eci-worker: no room for one more listener\n", stderr);
                }
            }
        }
    }
    return 0;
}

static void on_nudge(int signal_number)
{
    (void)signal_number;
}

static int set_up(struct worker *worker, char **argv, char *about, size_t about_size)
{
    int control = atoi(argv[1]);
    char message[MESSAGE];
    struct sigaction nudge = {.sa_handler = on_nudge};
    struct session self = {.worker = worker};
    size_t size = 0;
    int cover;
    int r;

    snprintf(about, about_size, "the container cannot be entered");

    sigaction(SIGUSR1, &nudge, NULL);
    signal(SIGPIPE, SIG_IGN);
    worker->ring = map_fd(atoi(argv[2]), MAP_SHARED, &size);
    if (!worker->ring || size != eci_ring_bytes(worker->ring->slots))
        return -EINVAL;
    worker->ring_event = atoi(argv[3]);
    worker->watch = map_fd(atoi(argv[4]), MAP_SHARED, &size);
    if (!worker->watch || eci_watch_check(worker->watch, size) < 0)
        return -EINVAL;

    cover = receive(control, message);
    if (cover < 0)
        return cover;
    worker->cover = map_fd(cover, MAP_PRIVATE, &worker->cover_size);
    close(cover);
    if (message[0] != 'E' || !worker->cover || worker->cover[worker->cover_size - 1])
        return -EINVAL;
    r = worker_enter(worker, atoi(message + 1));
    if (r == 0)
        r = exchange_all(worker, about, about_size);
    /* The supervisor reads our mount table, which no chroot(2) in the container changes. */
    return r < 0 ? r : session_enter(&self);
}

int main(int argc, char **argv)
{
    static struct worker worker = {.turn = PTHREAD_MUTEX_INITIALIZER};
    static char about[PATH_MAX];
    int r;

    if (argc != 5) {
        fputs("usage: eci-worker CONTROL RING EVENT WATCH (the supervisor starts it)\n", stderr);
        return 2;
    }
    r = set_up(&worker, argv, about, sizeof(about));
    if (r == -EPIPE)
        return 0; /* the container has come to nothing */
    answer(atoi(argv[1]), r, about);
    return r < 0 || run(&worker, atoi(argv[1])) < 0;
}
