/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Takes listeners in where no interpreter can: for keeper.c.
 *
 * What comes on a connection is what eci_supervisor/supervisor/intake.py takes in else: a
 * ContainerProcessState as JSON, without a frame, and descriptors with the first message.  Which of
 * these is the listener, its kind says and not the text, so that of the JSON nothing has to be
 * understood here but where it ends.  The peer is root of the host, or is not heard.
 */
#include "keeper.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_FDS = 4, MAX_BYTES = 1 << 20, CHUNK = 65536, HAND_ON_MS = 10000 };

/* Takes the next connection.  0; -EACCES where the peer is not root; -errno. */
int intake_accept(int notify, struct connection *connection)
{
    struct ucred peer = {.uid = (uid_t)-1};
    socklen_t size = sizeof(peer);
    int fd = accept4(notify, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0)
        return -errno;
    /* As it was when it connected, in ids as the host sees them: socket(7). */
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 || peer.uid != 0) {
        close(fd);
        return -EACCES;
    }
    *connection = (struct connection){.fd = fd, .listener = -1};
    return 0;
}

static bool is_listener(int fd)
{
    static const char kind[] = "anon_inode:seccomp notify";
    char path[32];
    char text[sizeof(kind)];
    ssize_t n;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    n = readlink(path, text, sizeof(text));
    return n == (ssize_t)sizeof(kind) - 1 && memcmp(text, kind, sizeof(kind) - 1) == 0;
}

/* Keeps the listener of these descriptors, closes the others.  -EBADMSG for a second one. */
static int keep_listener(struct connection *connection, const int *fds, size_t n)
{
    int r = 0;

    for (size_t i = 0; i < n; i++) {
        bool wanted = is_listener(fds[i]);

        if (wanted && connection->listener < 0)
            connection->listener = fds[i];
        else
            close(fds[i]);
        if (wanted && connection->listener != fds[i])
            r = -EBADMSG;
    }
    return r;
}

/* Whether the object that the text begins with ends in these bytes. */
static bool ends(struct connection *connection, const char *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        char c = data[i];

        if (connection->escaped)
            connection->escaped = false;
        else if (connection->in_string && c == '\\')
            connection->escaped = true;
        else if (c == '"')
            connection->in_string = !connection->in_string;
        else if (connection->in_string)
            continue;
        else if (c == '{' || c == '[')
            connection->depth++;
        else if ((c == '}' || c == ']') && (connection->depth == 0 || --connection->depth == 0))
            return true;
    }
    return false;
}

/*
 * Reads what is there.  1 once the message is whole, and its listener is there; 0 if more is to
 * come; -EBADMSG where it is not what it must be, -EPIPE where it was cut short, -errno.
 */
int intake_feed(struct connection *connection)
{
    static char data[CHUNK];
    union {
        char space[CMSG_SPACE(MAX_FDS * sizeof(int))];
        struct cmsghdr align;
    } ancillary;
    struct iovec iov = {.iov_base = data, .iov_len = sizeof(data)};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = ancillary.space,
        .msg_controllen = sizeof(ancillary.space),
    };
    ssize_t n = recvmsg(connection->fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    int r = 0;

    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    for (struct cmsghdr *head = CMSG_FIRSTHDR(&msg); head; head = CMSG_NXTHDR(&msg, head)) {
        int fds[MAX_FDS];
        size_t count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS || count > MAX_FDS)
            continue;
        memcpy(fds, CMSG_DATA(head), count * sizeof(int));
        if (keep_listener(connection, fds, count) < 0)
            r = -EBADMSG;
    }
    if (n == 0)
        return -EPIPE;
    connection->size += (size_t)n;
    if (r < 0 || (msg.msg_flags & MSG_CTRUNC) || connection->size > MAX_BYTES)
        return -EBADMSG;
    if (!ends(connection, data, (size_t)n))
        return 0;
    return connection->listener < 0 ? -EBADMSG : 1;
}

/* Gives the listener to the worker (worker.c has the message).  0 or -errno. */
int intake_hand_on(struct connection *connection, int control)
{
    struct pollfd ready = {.fd = control, .events = POLLOUT};
    char message = 'L';
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } ancillary = {0};
    struct iovec iov = {.iov_base = &message, .iov_len = 1};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = ancillary.space,
        .msg_controllen = sizeof(ancillary.space),
    };
    struct cmsghdr *head = CMSG_FIRSTHDR(&msg);

    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(head), &connection->listener, sizeof(int));
    if (poll(&ready, 1, HAND_ON_MS) <= 0)
        return -ETIMEDOUT;
    return sendmsg(control, &msg, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* Without a holder of the listener the calls of its process are denied. */
void intake_close(struct connection *connection)
{
    close(connection->fd);
    if (connection->listener >= 0)
        close(connection->listener);
}
