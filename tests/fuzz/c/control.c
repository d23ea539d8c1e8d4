/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the supervisor tells its worker: messages with descriptors over a real socket, and a policy
 * in a memfd.  Nothing but one descriptor is taken, and nothing is kept of what is not in order.
 */
#define main worker_main
#include "../../../csrc/worker.c"
#undef main
#include "fuzz.h"

enum { FDS = 4 };

static const int STANDARD_INPUT[FDS];

static void check_message(struct input *in)
{
    unsigned int count = take_byte(in) % (FDS + 1);
    char message[MESSAGE];
    int pair[2];
    int fd;

    NEED(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    memset(message, 'x', sizeof(message));
    send_fds(pair[0], in->at, in->left, STANDARD_INPUT, count);
    fd = receive(pair[1], message);
    if (in->left == 0)
        CHECK(fd == -EPIPE || fd == -EBADMSG);
    else
        CHECK(count == 1 ? fd >= 0 : fd == -EBADMSG);
    if (in->left)
        CHECK(memchr(message, 0, sizeof(message)));
    if (fd >= 0)
        CHECK(close(fd) == 0);
    close(pair[0]);
    close(pair[1]);
}

/* A policy that the worker takes is one that is in order; it goes no further in this process. */
static void check_policy(struct input *in)
{
    static struct worker worker = {.build = -1, .mntns = -1};
    size_t size = in->left;
    int fd = memfd_create("policy", MFD_CLOEXEC);
    int r;

    NEED(fd >= 0 && write(fd, in->at, size) == (ssize_t)size);
    r = take_policy(&worker, fd);
    CHECK(r == -EINVAL || r == -EBADF);
    CHECK(r != -EBADF || eci_policy_check(worker.policy, (uint32_t)size) == 0);
    if (worker.policy)
        munmap(worker.policy, size);
    worker.policy = NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    unsigned int before = open_fds();

    if (size > 4096)
        return -1;
    if (take_byte(&in) & 1)
        check_message(&in);
    else
        check_policy(&in);
    CHECK(open_fds() == before);
    return 0;
}
