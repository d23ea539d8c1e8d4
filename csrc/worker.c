/* SPDX-License-Identifier: Apache-2.0 */
/*
 * eci-worker CONTROL RING EVENT WATCH USAGE RECLAIM MOST
 *
 * The worker of one container.  Its words are inherited fds: a SEQPACKET socket to the supervisor,
 * the event ring (a memfd), the ring's eventfd, the file of watch.c, whose lock stays with its
 * description as long as this process lives, and two files of the worker's memory cgroup, or -1;
 * then the bytes that it may be charged there, or 0 (memory.c).
 *
 * It is started before there is a container.  At the createRuntime hook a message comes that begins
 * with E, the pid of the container's first process follows, in our PID namespace, and with it comes
 * what to cover (a memfd, see kernfs.c).  The worker enters the container's namespaces, covers
 * /proc and /sys and writes "ready" to CONTROL, or what went wrong.  A message that begins with P
 * then carries the policy (a memfd, see struct eci_policy), and is answered in the same way, as is
 * one that begins with Q: whether there is a policy.  Each that begins with L carries a listener.
 * It ends when CONTROL is closed and no listener is left, so it outlives a supervisor that died.
 *
 * Once it has the policy it is two processes, which share all descriptors and struct worker.  One
 * serves; the other, the holder, sleeps, and where the one that serves is killed, it starts the
 * next, which finds the calls that wait (recover.c).  Where the holder is killed, the one that
 * serves takes its place, and says "held" to CONTROL.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "filters.h"
#include "privilege.h"
#include "worker.h"

#define NUDGE_MS   20
#define LOOK_MS    100 /* for calls that hang, while calls come */
#define STACK_SIZE ((size_t)256 * 1024)
#define MESSAGE    32
#define SETTLE_S   1  /* for a call that waits since before a process was killed */
#define SHORT_MS   50 /* a process that lives no longer has no successor at once */
#define MOST_SAID  64 /* of such ends, in the supervisor's log */

/* Atomic; of this process: its threads are to end, and leave their listeners as they are. */
static bool leaving;

/* Each session has about eight descriptors, and there are those that are kept: worker.h. */
#define MOST_FILES 16384
#define MOST_MEMORY                                                                                \
    ((rlim_t)1 << 30)        /* of address space; a session's stack is a quarter of a MiB */
#define MOST_BYTES (4 << 20) /* of a file that is written: keeper.log */

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
    session_serve(session, &leaving);
    __atomic_store_n(&session->done, true, __ATOMIC_RELEASE);
    hangs_wake(session->worker);
    return NULL;
}

/*
 * One message from the supervisor, terminated, with an fd in an SCM_RIGHTS, which the caller owns;
 * -EPIPE at the end, -EMFILE where there was no room for the fd.
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
        .msg_controllen = CMSG_LEN(sizeof(int)), /* in the room there is, a second would fit */
    };
    struct cmsghdr *head;
    ssize_t n = recvmsg(control, &msg, MSG_CMSG_CLOEXEC);
    cleanup_fd int fd = -1;

    if (n <= 0)
        message[0] = 0;
    if (n < 0)
        return -errno;
    message[n] = 0;
    head = CMSG_FIRSTHDR(&msg);
    if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS &&
        head->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(&fd, CMSG_DATA(head), sizeof(fd));
    if (n == 0)
        return -EPIPE;
    if (msg.msg_flags & MSG_CTRUNC)
        return fd < 0 ? -EMFILE : -EBADMSG;
    return fd < 0 ? -EBADMSG : take_fd(&fd);
}

/* Starts a thread for a listener, and puts it into the list `all`; false when there is no room. */
bool session_start(struct worker *worker, struct flight *flight, struct session **all)
{
    struct session *session;
    unsigned int tried = 0;
    pthread_attr_t attr;
    int r;

    while (!(session = calloc(1, sizeof(*session))) && try_again(&tried))
        ;
    if (!session) {
        flight_leave(flight);
        return false;
    }
    session->worker = worker;
    session->at = session->seen = SESSION_RESTS;
    session->flight = flight;
    session->listener = flight->listener;
    session->notif = &flight->call.notif;
    sem_init(&session->settled, 0, 0);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_SIZE);
    while ((r = pthread_create(&session->thread, &attr, serve, session)) != 0 && try_again(&tried))
        ;
    pthread_attr_destroy(&attr);
    if (r != 0) {
        flight_leave(flight);
        free(session);
        return false;
    }
    session->next = *all;
    *all = session;
    return true;
}

static void start_new(struct worker *worker, int listener, struct session **all)
{
    struct flight *flight = listener < 0 ? NULL : flight_take(worker, listener);

    if (!flight)
        close_fd(&listener);
    /* Without a holder of the listener these threads' calls fail with ENOSYS. */
    if (!flight || !session_start(worker, flight, all))
        fputs("eci-worker: no room for one more listener\n", stderr);
}

/*
 * One for each listener that there is already.  First comes the one whose call may have been
 * performed, so that nothing happens between that and a look whether it was.
 */
static void start_old(struct worker *worker, struct session **all)
{
    bool started[MAX_SESSIONS] = {false};

    for (unsigned int pass = 0; pass < 2; pass++) {
        for (unsigned int i = 0; i < worker->n_flights; i++) {
            struct flight *flight = &worker->flights[i];
            bool in_doubt = flight->call.stage != STAGE_RECEIVED;
            struct timespec until;

            if (!flight->taken || started[i] || (pass == 0 && !in_doubt))
                continue;
            started[i] = session_start(worker, flight, all);
            if (!in_doubt || !started[i])
                continue;
            clock_gettime(CLOCK_REALTIME, &until);
            until.tv_sec += SETTLE_S;
            /* One that hangs may go on later, when others have changed what it is asked for. */
            while (sem_timedwait(&(*all)->settled, &until) < 0 && errno == EINTR)
                ;
        }
    }
}

static bool is_over(struct session *session)
{
    bool leaves = __atomic_load_n(&leaving, __ATOMIC_RELAXED);

    if (!session->hung_up && !leaves && !session->succeeded)
        return false;
    if (__atomic_load_n(&session->done, __ATOMIC_ACQUIRE))
        return true;
    /*
     * It may wait for a call that never comes (where it has hung up, before kernel 6.11).  One that
     * has a call is left alone: what it does for that could be interrupted.
     */
    if (session->hung_up || (leaves && !__atomic_load_n(&session->notif->pid, __ATOMIC_RELAXED)))
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
        worker->n_left -= session->left;
        pthread_join(session->thread, NULL);
        if (session->hung_up || session->succeeded)
            flight_leave(session->flight);
        free(session);
        untold_sweep(worker);
    }
}

/* Says "ready", or in words what could not be done. */
static void answer(int control, int r, const char *about)
{
    unsigned int tried = 0;
    char text[512];
    int n = r < 0 ? snprintf(text, sizeof(text), "%s: %s", about, strerror(-r))
                  : snprintf(text, sizeof(text), "ready");

    if ((size_t)n >= sizeof(text))
        n = sizeof(text) - 1;
    /* Who does not hear it is gone, which the next poll(2) tells. */
    while (send(control, text, (size_t)n, MSG_NOSIGNAL) < 0 && errno != EPIPE && try_again(&tried))
        ;
}

/* The policy, of which `fd` is a memfd; completes it with what only the container can tell. */
static int take_policy(struct worker *worker, int fd)
{
    struct session self = {.worker = worker};
    size_t size = 0;
    int r;

    worker->policy = map_fd(fd, MAP_PRIVATE, &size);
    close(fd);
    if (!worker->policy || eci_policy_check(worker->policy, (uint32_t)size) < 0)
        return -EINVAL;
    r = session_enter(&self);
    return r < 0 ? r : facts_prepare(worker);
}

/*
 * From the first instruction on.  RLIMIT_NPROC stays: it would count the processes of the
 * container's root, and so let these keep a session from its thread.
 */
static int give_up_early(void)
{
    int r = privilege_seal();

    /* A log that is full is no reason to end. */
    signal(SIGXFSZ, SIG_IGN);
    if (r == 0)
        r = privilege_limit(RLIMIT_NOFILE, MOST_FILES);
    if (r == 0)
        r = privilege_limit(RLIMIT_FSIZE, MOST_BYTES);
    if (r == 0)
        r = privilege_limit(RLIMIT_AS, MOST_MEMORY);
    /* Each further one is 64 MiB of that, and hardly anything is allocated. */
    mallopt(M_ARENA_MAX, 1);
    return r;
}

/* The supervisor's next message; false at the end. */
static bool hear(struct worker *worker, struct session **all)
{
    char message[MESSAGE];
    int fd = receive(worker->given[GIVEN_CONTROL], message);

    if (fd == -EPIPE)
        return false;
    if (message[0] == 'L') {
        start_new(worker, fd, all);
    } else if (message[0]) {
        close_fd(&fd);
        answer(worker->given[GIVEN_CONTROL], 0, ""); /* Q */
    }
    return true;
}

/*
 * Hands listeners to threads and sees threads off.  Returns 0 when nothing is left to do, 1 when
 * the holder is gone and this process has no more threads, or -errno.
 */
static int serve_all(struct worker *worker)
{
    static struct pollfd fds[MAX_SESSIONS + 3];
    struct session *all = NULL;
    unsigned int tried = 0;
    bool listens = true;

    start_old(worker, &all);
    while (listens || all) {
        unsigned int n = 0;
        bool wait = true;
        uint64_t woken;

        /* poll(2) skips a negative fd: a listener that hung up would keep it awake. */
        fds[n++] = (struct pollfd){.fd = leaving || !listens ? -1 : worker->given[GIVEN_CONTROL],
                                   .events = POLLIN};
        fds[n++] = (struct pollfd){.fd = leaving ? -1 : worker->holder, .events = POLLIN};
        fds[n++] = (struct pollfd){.fd = worker->wake, .events = POLLIN};
        for (struct session *session = all; session; session = session->next) {
            session->slot = n;
            fds[n++] = (struct pollfd){.fd = session->hung_up ? -1 : session->listener};
            wait = wait && !session->hung_up;
        }
        wait = wait && !leaving;
        if (poll(fds, n, !wait ? NUDGE_MS : worker->watching ? LOOK_MS : -1) >= 0)
            tried = 0;
        else if (errno != EINTR && !try_again(&tried))
            return -ENOMEM;
        if (fds[2].revents)
            (void)!read(worker->wake, &woken, sizeof(woken));

        see_off(worker, &all, fds);
        if (!leaving)
            hangs_look(worker, &all);
        if (leaving && !all)
            return 1;
        if (fds[0].revents)
            listens = hear(worker, &all);
        if (!fds[1].revents)
            continue;
        /* Nobody is left who could want this: the supervisor has given the worker up. */
        if (!listens)
            return -EOWNERDEAD;
        __atomic_store_n(&leaving, true, __ATOMIC_RELAXED);
    }
    return 0;
}

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/*
 * Becomes the holder.  Returns true in each new process, which is to serve, and false with its exit
 * code in the holder.  Single-threaded: the new process begins with this one's memory.
 */
static bool hold(struct worker *worker, int *code)
{
    unsigned int tried = 0;

    *code = 1;
    while ((worker->holder = (int)syscall(SYS_pidfd_open, getpid(), 0)) < 0)
        if (!try_again(&tried))
            return false;
    for (unsigned int said = 0;;) {
        uint64_t began = now_ms();
        pid_t child;
        int status;

        tried = 0;
        memory_expose(worker, true);
        while ((child = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0UL, 0UL, 0UL, 0UL)) < 0)
            if (!try_again(&tried))
                return false;
        if (child == 0)
            return prctl(PR_SET_NAME, "eci-worker") == 0;
        memory_expose(worker, false);
        prctl(PR_SET_NAME, "eci-holder");
        while (waitpid(child, &status, 0) < 0)
            if (errno != EINTR)
                return false;
        if (WIFEXITED(status)) {
            *code = WEXITSTATUS(status);
            return false;
        }
        if (said < MOST_SAID && ++said)
            fprintf(stderr, "eci-worker: killed by signal %d: the next one goes on\n",
                    WTERMSIG(status));
        if (now_ms() - began < SHORT_MS)
            (void)poll(NULL, 0, SHORT_MS);
    }
}

/* Two processes: see above.  Returns the exit code of either. */
static int serve_and_hold(struct worker *worker)
{
    int code;

    while (hold(worker, &code)) {
        unsigned int tried = 0;
        int r;

        while ((r = worker_recover(worker)) < 0 && try_again(&tried))
            ;
        if (r == 0)
            r = serve_all(worker);
        if (r <= 0)
            return r < 0;
        leaving = false;
        (void)!send(worker->given[GIVEN_CONTROL], "held", 4, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    return code;
}

/* Waits for the policy.  0, or -errno when there is none, which has been said. */
static int await_policy(struct worker *worker)
{
    char message[MESSAGE];
    int r;

    for (;;) {
        int fd = receive(worker->given[GIVEN_CONTROL], message);

        if (fd == -EPIPE)
            return fd;
        if (message[0] == 'P') {
            r = fd < 0 ? fd : take_policy(worker, fd);
            answer(worker->given[GIVEN_CONTROL], r,
                   r == -EACCES ? "its mounts, with these filters" : "its policy");
            return r;
        }
        if (fd < 0)
            continue;
        close(fd);
        answer(worker->given[GIVEN_CONTROL], -ENODATA, "its policy"); /* Q */
    }
}

static void on_nudge(int signal_number)
{
    (void)signal_number;
}

static int set_up(struct worker *worker, char *about, size_t about_size)
{
    int control = worker->given[GIVEN_CONTROL];
    char message[MESSAGE];
    struct sigaction nudge = {.sa_handler = on_nudge};
    struct session self = {.worker = worker};
    size_t size = 0;
    int cover;
    int r;

    snprintf(about, about_size, "the container cannot be entered");

    sigaction(SIGUSR1, &nudge, NULL);
    signal(SIGPIPE, SIG_IGN);
    worker->ring = map_fd(worker->given[GIVEN_RING], MAP_SHARED, &size);
    if (!worker->ring || size != eci_ring_bytes(worker->ring->slots))
        return -EINVAL;
    worker->ring_event = worker->given[GIVEN_EVENT];
    worker->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (worker->wake < 0)
        return -errno;
    worker->watch = map_fd(worker->given[GIVEN_WATCH], MAP_SHARED, &size);
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
    static char about[PATH_MAX];
    struct worker *worker;
    int r;

    if (argc != 2 + GIVEN) {
        fputs("usage: eci-worker CONTROL RING EVENT WATCH USAGE RECLAIM MOST "
              "(the supervisor starts it)\n",
              stderr);
        return 2;
    }
    if (give_up_early() < 0)
        return 1;
    worker = mmap(NULL, sizeof(*worker), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (worker == MAP_FAILED)
        return 1;
    for (int i = 0; i < GIVEN; i++)
        worker->given[i] = atoi(argv[1 + i]);
    worker->memory_most = strtoull(argv[1 + GIVEN], NULL, 10);
    if (memory_set_up(worker) < 0)
        return 1;
    r = set_up(worker, about, sizeof(about));
    if (r == -EPIPE)
        return 0; /* the container has come to nothing */
    answer(worker->given[GIVEN_CONTROL], r, about);
    /* The container is being made meanwhile; nothing of it has been met yet. */
    if (r == 0 && (worker_settle(worker) < 0 || filter_worker() < 0))
        return 1;
    if (r == 0)
        r = await_policy(worker);
    return r < 0 ? r != -EPIPE : serve_and_hold(worker);
}
