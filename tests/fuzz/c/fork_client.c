/* SPDX-License-Identifier: Apache-2.0 */
/* What comes back from the fork server: bytes and descriptors, over a real socket. */
#include "../../../csrc/fork_client.c"
#include "fuzz.h"

enum { FDS = 6 };

static const int STANDARD_INPUT[FDS];

/* Each word is what stands before a NUL. */
static void check_words(const struct prepared *prepared, const uint8_t *data, size_t size)
{
    size_t n = 0;

    for (const uint8_t *at = data; at < data + size; at += strlen((const char *)at) + 1)
        CHECK(prepared->words[n] && strcmp(prepared->words[n++], (const char *)at) == 0);
    CHECK(prepared->words[n] == NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    struct prepared prepared = {0};
    unsigned int before = open_fds();
    unsigned int count = take_byte(&in) % (FDS + 1);
    unsigned int n;
    int pair[2];
    int fds[MOST_FDS];
    char byte;

    if (in.left == 0 || size > 4096)
        return -1;
    NEED(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    send_fds(pair[0], in.at, 1, STANDARD_INPUT, count);
    if (in.left > 1)
        send_fds(pair[0], in.at + 1, in.left - 1, NULL, 0);
    shutdown(pair[0], SHUT_WR);

    byte = receive(pair[1], fds, &n);
    CHECK(n <= MOST_FDS && (count > MOST_FDS ? byte == 0 && n == 0 : n == count));
    CHECK(byte == 0 || byte == (char)*in.at);
    for (unsigned int i = 0; i < n; i++)
        CHECK(close(fds[i]) == 0);
    if (receive_words(pair[1], &prepared)) {
        CHECK(in.left > 1 && !in.at[in.left - 1]);
        check_words(&prepared, in.at + 1, in.left - 1);
    } else {
        CHECK(in.left == 1 || in.at[in.left - 1]);
    }
    free(prepared.words);
    free(prepared.text);
    close(pair[0]);
    close(pair[1]);
    CHECK(open_fds() == before);
    return 0;
}
