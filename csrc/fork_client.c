/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asks the fork server to prepare a container (eci_supervisor/runtime/fork_server.py): a process
 * that has the Python half in memory already.
 *
 * All that it is told is who asks, which the kernel does, and which runtime was found; words and
 * environment it reads in this process's entry of procfs.  It answers "A" when it has taken the
 * request, and then "E", having said what is wrong; or "G" and the words of the runtime.  With that
 * come descriptors: first the mount namespace; then a lock that is held until execve(2) closes it;
 * and with "N" in the place of "G", a network namespace.  Where nobody serves, or nothing is
 * answered, the Python half is to be started as ever.
 */
#include "fork_client.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum { MOST_FDS = 3, STEP = 65536 };

#ifndef ECI_VERSION
#error "ECI_VERSION: of the package that this program belongs to"
#endif

/* The same path as in fork_server.py: of the mount namespace that both live in, and our version. */
static int name_socket(struct sockaddr_un *address)
{
    const char *root = getenv("ECI_STATE_DIR");
    struct stat ns;
    int n;

    if (root == NULL || *root == '\0')
        root = "/run/eci";
    if (stat("/proc/self/ns/mnt", &ns) < 0)
        return -errno;
    address->sun_family = AF_UNIX;
    n = snprintf(address->sun_path, sizeof(address->sun_path), "%s/fork/%lu-%s", root,
                 (unsigned long)ns.st_ino, ECI_VERSION);
    return n < 0 || (size_t)n >= sizeof(address->sun_path) ? -ENAMETOOLONG : 0;
}

/* Sends the two texts, each with its NUL, and this process's stderr. */
static int send_request(int server, const char *runtime, const char *binary)
{
    struct iovec parts[] = {
        {(void *)runtime, strlen(runtime) + 1},
        {(void *)binary, strlen(binary) + 1},
    };
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    int error = STDERR_FILENO;

    if (fcntl(error, F_GETFD) >= 0) {
        struct cmsghdr *rights;

        message.msg_control = control.bytes;
        message.msg_controllen = sizeof(control.bytes);
        rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof(error));
        memcpy(CMSG_DATA(rights), &error, sizeof(error));
    }
    return sendmsg(server, &message, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* The next byte of the answer, or 0 where there is none; with what descriptors come with it. */
static char receive(int server, int fds[MOST_FDS], unsigned int *n)
{
    char byte = 0;
    struct iovec part = {&byte, 1};
    union {
        char bytes[CMSG_SPACE(MOST_FDS * sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct msghdr message = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        /* Not the room there is: in what aligns it, one more would fit. */
        .msg_controllen = CMSG_LEN(MOST_FDS * sizeof(int)),
    };
    struct cmsghdr *rights;
    ssize_t got;

    *n = 0;
    do {
        got = recvmsg(server, &message, MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    if (got != 1)
        return 0;
    rights = CMSG_FIRSTHDR(&message);
    if (rights != NULL && rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS) {
        *n = (unsigned int)((rights->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(fds, CMSG_DATA(rights), *n * sizeof(int));
    }
    if (!(message.msg_flags & MSG_CTRUNC))
        return byte;
    while (*n > 0)
        close(fds[--*n]);
    return 0;
}

/* The rest of the answer, allocated; NULL where there is none or no memory. */
static char *receive_rest(int server, size_t *size)
{
    char *text = NULL;

    *size = 0;
    for (;;) {
        char *longer = realloc(text, *size + STEP);
        ssize_t got;

        if (longer == NULL)
            break;
        text = longer;
        do {
            got = read(server, text + *size, STEP);
        } while (got < 0 && errno == EINTR);
        if (got < 0)
            break;
        if (got == 0)
            return text;
        *size += (size_t)got;
    }
    free(text);
    return NULL;
}

/* Makes words of it, each of which has its NUL.  Returns false where it is cut short. */
static bool receive_words(int server, struct prepared *prepared)
{
    size_t size;
    size_t n = 0;

    prepared->words = NULL;
    prepared->text = receive_rest(server, &size);
    if (prepared->text == NULL || size == 0 || prepared->text[size - 1] != '\0')
        return false;
    for (size_t at = 0; at < size; at += strlen(prepared->text + at) + 1)
        n++;
    prepared->words = calloc(n + 1, sizeof(*prepared->words));
    if (prepared->words == NULL)
        return false;
    n = 0;
    for (size_t at = 0; at < size; at += strlen(prepared->text + at) + 1)
        prepared->words[n++] = prepared->text + at;
    return true;
}

/*
 * FORK_CLIENT_DECLINED: nothing was done.  FORK_CLIENT_FAILED: what went wrong has been said.
 * FORK_CLIENT_PREPARED: `prepared` says what to become.
 */
int fork_client_ask(const char *runtime, const char *binary, struct prepared *prepared)
{
    const struct timeval patience = {.tv_sec = 5};
    const struct timeval forever = {0};
    struct sockaddr_un address = {0};
    int fds[MOST_FDS];
    unsigned int n;
    bool is_prepared;
    int server;
    char byte;

    if (name_socket(&address) < 0)
        return FORK_CLIENT_DECLINED;
    server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (server < 0)
        return FORK_CLIENT_DECLINED;
    /* A server that is stopped finds the connection closed later, and does nothing. */
    (void)setsockopt(server, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    (void)setsockopt(server, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    if (connect(server, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
        send_request(server, runtime, binary) < 0 || receive(server, fds, &n) != 'A') {
        close(server);
        return FORK_CLIENT_DECLINED;
    }
    /* Now it is at work, for as long as that takes. */
    (void)setsockopt(server, SOL_SOCKET, SO_RCVTIMEO, &forever, sizeof(forever));
    byte = receive(server, fds, &n);
    is_prepared = (byte == 'G' || byte == 'N') && n > 0 && receive_words(server, prepared);
    close(server);
    if (byte == 'E')
        return FORK_CLIENT_FAILED;
    if (is_prepared) {
        prepared->mntns = fds[0];
        prepared->netns = byte == 'N' ? fds[n - 1] : -1;
        return FORK_CLIENT_PREPARED;
    }
    fprintf(stderr, "eci-runtime: the process that prepared the container has ended: try again\n");
    return FORK_CLIENT_FAILED;
}
