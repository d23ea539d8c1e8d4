/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a runtime sends on the listener socket, in parts and with descriptors: in however many parts
 * a text comes, it ends in the same place; only a listener is kept, and nothing else stays open.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "../../../csrc/intake.c"
#include "fuzz.h"

enum { FDS = 6 };

static int listener = -1;

/* A real one, of a filter of this process that lets everything pass. */
static void start(void)
{
    struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {1, &allow};

    NEED(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER,
                            &program);
    NEED(listener >= 0);
}

/* Feeds it `step` bytes at a time: the last answer, and how many bytes there were until then. */
static int feed(const uint8_t *data, size_t size, size_t step, const int *fds, size_t n,
                size_t *taken, bool *has)
{
    struct connection connection = {.listener = -1};
    int pair[2];
    int r = 0;

    NEED(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    connection.fd = pair[1];
    *taken = 0;
    while (r == 0 && *taken < size) {
        size_t part = step < size - *taken ? step : size - *taken;

        send_fds(pair[0], data + *taken, part, fds, *taken ? 0 : n);
        r = intake_feed(&connection);
        *taken += part;
    }
    if (r == 0) {
        shutdown(pair[0], SHUT_WR);
        r = intake_feed(&connection);
        CHECK(r == -EPIPE);
    }
    *has = connection.listener >= 0;
    CHECK(!*has || is_listener(connection.listener));
    intake_close(&connection);
    close(pair[0]);
    return r;
}

/* Where the first object or array ends, by a look at the whole; 0: nowhere. */
static size_t model_end(const uint8_t *data, size_t size)
{
    unsigned int depth = 0;

    for (size_t i = 0; i < size; i++) {
        if (data[i] == '"') {
            for (i++; i < size && data[i] != '"'; i++)
                i += data[i] == '\\';
        } else if (strchr("{[", data[i]) && data[i]) {
            depth++;
        } else if (strchr("}]", data[i]) && data[i]) {
            if (depth <= 1)
                return i + 1;
            depth--;
        }
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    unsigned int before;
    int fds[FDS];
    size_t wanted = 0;
    size_t taken;
    size_t end;
    bool has;
    uint8_t kinds;
    size_t n;
    int r;

    if (listener < 0)
        start();
    if (size > 4096)
        return -1;
    before = open_fds();
    n = take_byte(&in) % (FDS + 1);
    kinds = take_byte(&in);
    for (size_t i = 0; i < n; i++) {
        fds[i] = kinds >> i & 1 ? listener : STDIN_FILENO;
        wanted += kinds >> i & 1;
    }
    end = model_end(in.at, in.left);
    r = feed(in.at, in.left, in.left ? in.left : 1, fds, n, &taken, &has);
    if (in.left && (n > MAX_FDS || wanted > 1))
        CHECK(r == -EBADMSG);
    else if (end)
        CHECK(r == (wanted == 1 ? 1 : -EBADMSG));
    else
        CHECK(r == -EPIPE);
    if (in.left && n <= MAX_FDS && wanted <= 1) {
        int again = feed(in.at, in.left, 1, fds, n, &taken, &has);

        CHECK(again == r);
        CHECK(!end || taken == end);
        CHECK(has == (wanted == 1));
    }
    CHECK(open_fds() == before);
    return 0;
}
