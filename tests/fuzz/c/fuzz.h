/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the targets share.  A target is one function that libFuzzer calls with some bytes; it takes
 * them apart, has the code under test do its work, and checks what has to hold for any bytes.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* A property of the code under test does not hold. */
#define CHECK(what)                                                                                \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #what);              \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* The target itself cannot go on. */
#define NEED(what)                                                                                 \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            fprintf(stderr, "%s:%d: ", __FILE__, __LINE__);                                        \
            perror(#what);                                                                         \
            _exit(2);                                                                              \
        }                                                                                          \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is left of the bytes; once there are none, everything is 0. */
struct input {
    const uint8_t *at;
    size_t left;
};

static inline void take(struct input *in, void *out, size_t size)
{
    size_t n = size < in->left ? size : in->left;

    memset(out, 0, size);
    if (n)
        memcpy(out, in->at, n);
    in->at += n;
    in->left -= n;
}

static inline uint8_t take_byte(struct input *in)
{
    uint8_t value;

    take(in, &value, sizeof(value));
    return value;
}

static inline uint64_t take_number(struct input *in)
{
    uint64_t value;

    take(in, &value, sizeof(value));
    return value;
}

/* Up to the next NUL, at most `size` - 1 bytes: a string in `out`. */
static inline size_t take_string(struct input *in, char *out, size_t size)
{
    size_t n = 0;

    while (n + 1 < size && in->left && *in->at) {
        out[n++] = (char)*in->at++;
        in->left--;
    }
    if (in->left && !*in->at) {
        in->at++;
        in->left--;
    }
    out[n] = 0;
    return n;
}

/* How many descriptors are open: as many before as after what leaves none behind. */
static inline unsigned int open_fds(void)
{
    unsigned int n = 0;

    for (int fd = 0; fd < 64; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

/*
 * This thread goes into a mount namespace of its own and stands in an empty file system, which is
 * returned as a descriptor.  Nothing of the host's changes, and all of it goes with the process.
 */
static inline int enter_scratch(void)
{
    int fd;

    NEED(unshare(CLONE_NEWNS) == 0);
    NEED(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    NEED(mount("fuzz", "/mnt", "tmpfs", 0, "mode=0755,size=16m") == 0);
    NEED(chdir("/mnt") == 0);
    fd = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    NEED(fd >= 0);
    return fd;
}

/* Replaces the file `name` in `dir`. */
static inline void write_file(int dir, const char *name, const void *data, size_t size)
{
    int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    NEED(fd >= 0);
    NEED(write(fd, data, size) == (ssize_t)size);
    close(fd);
}

/* Sends these bytes, and at most MOST_SENT descriptors with them. */
enum { MOST_SENT = 8 };
static inline void send_fds(int to, const uint8_t *data, size_t size, const int *fds, size_t n)
{
    union {
        char bytes[CMSG_SPACE(MOST_SENT * sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct iovec part = {(void *)data, size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

    if (n) {
        struct cmsghdr *rights;

        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(n * sizeof(int));
        rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(n * sizeof(int));
        memcpy(CMSG_DATA(rights), fds, n * sizeof(int));
    }
    NEED(sendmsg(to, &message, MSG_NOSIGNAL) == (ssize_t)size);
}

#endif
