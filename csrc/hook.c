/* SPDX-License-Identifier: Apache-2.0 */
/*
 * eci-hook create SOCKET: the OCI createRuntime hook.
 *
 * Hands the container's state, which the runtime writes to our stdin, to the keeper that
 * listens on SOCKET, and waits for its word: "ok" lets the runtime go on, anything else is
 * said on stderr and stops the container before its first process runs.  So does a keeper
 * that is gone.
 */
#include <errno.h>
#include <linux/capability.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include "filters.h"
#include "privilege.h"

/* Bytes.  The state JSON holds the spec's annotations, which engines keep far below this. */
enum { STATE_LIMIT = 1024 * 1024, REPLY_LIMIT = 4096 };

/* Writes all SIZE bytes to a socket.  Returns 0 or -errno. */
static int send_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);

        if (sent < 0) {
            if (errno == EINTR)
                continue;
            return -errno;
        }
        data += sent;
        size -= (size_t)sent;
    }
    return 0;
}

/* Reads until the end, at most SIZE bytes.  Returns their number, -EMSGSIZE if more, -errno. */
static ssize_t read_all(int fd, char *data, size_t size)
{
    size_t have = 0;

    for (;;) {
        ssize_t got = read(fd, data + have, size - have);

        if (got < 0) {
            if (errno == EINTR)
                continue;
            return -errno;
        }
        if (got == 0)
            return (ssize_t)have;
        have += (size_t)got;
        if (have == size)
            return -EMSGSIZE;
    }
}

static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t size = strlen(path);

    if (size >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, size);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        int saved = errno;
        close(fd);
        return -saved;
    }
    return fd;
}

/*
 * Where the reason goes.  crun gives its hooks /dev/null and says no more than that one failed:
 * then its own standard error is the place.
 */
static FILE *complaints(void)
{
    struct stat st;
    int parent;
    int fd;

    if (fstat(STDERR_FILENO, &st) == 0 && (!S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3)))
        return stderr;
    /* The very same open file: with one of our own, crun would write over what we have written. */
    parent = (int)syscall(SYS_pidfd_open, getppid(), 0);
    fd = parent < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, parent, STDERR_FILENO, 0);
    if (parent >= 0)
        close(parent);
    FILE *out = fd < 0 ? NULL : fdopen(fd, "w");
    return out ? out : stderr;
}

/* Says why, and returns the exit code that stops the container. */
__attribute__((format(printf, 1, 2))) static int refuse(const char *format, ...)
{
    FILE *out = complaints();
    va_list args;

    va_start(args, format);
    fputs("eci-hook: ", out);
    vfprintf(out, format, args);
    fputc('\n', out);
    va_end(args);
    fclose(out);
    return 1;
}

int main(int argc, char **argv)
{
    static char state[STATE_LIMIT];
    static char reply[REPLY_LIMIT];

    if (argc != 3 || strcmp(argv[1], "create") != 0) {
        fprintf(stderr, "usage: eci-hook create SOCKET\n");
        return 2;
    }
    /* To reach the keeper's socket, and to take the runtime's standard error. */
    int rc = privilege_seal();
    if (rc == 0)
        rc = privilege_keep(CAPABILITY(DAC_OVERRIDE) | CAPABILITY(SYS_PTRACE));
    if (rc == 0)
        rc = filter_hook();
    if (rc < 0)
        return refuse("cannot give up privileges: %s", strerror(-rc));
    ssize_t size = read_all(STDIN_FILENO, state, sizeof(state));
    if (size < 0)
        return refuse("cannot read the container's state: %s", strerror((int)-size));
    int fd = connect_to(argv[2]);
    if (fd < 0)
        return refuse("the container's keeper cannot be reached at %s: %s", argv[2], strerror(-fd));
    rc = send_all(fd, state, (size_t)size);
    if (rc == 0 && shutdown(fd, SHUT_WR) < 0)
        rc = -errno;
    size = rc == 0 ? read_all(fd, reply, sizeof(reply) - 1) : rc;
    close(fd);
    if (size < 0)
        return refuse("the container's keeper does not answer: %s", strerror((int)-size));
    reply[size] = '\0';
    if (size == (ssize_t)strlen("ok\n") && strcmp(reply, "ok\n") == 0)
        return 0;
    reply[strcspn(reply, "\n")] = '\0';
    return refuse("%s",
                  reply[0] != '\0' ? reply : "the container's keeper ended without an answer");
}
