/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hook between a runtime and a keeper, over a real socket: the keeper gets the state as it is,
 * and only its "ok" lets the container go on.
 */
#include "../../../csrc/filters.h"
#include "../../../csrc/privilege.h"

/* It goes on in this process, which has to take the next input, too. */
#define privilege_seal()     0
#define privilege_keep(kept) ((void)(kept), 0)
#define filter_hook()        0
#define main                 hook_main
#include "../../../csrc/hook.c"
#undef main
#include <pthread.h>
#include <sys/mman.h>

#include "fuzz.h"

static struct sockaddr_un address = {.sun_family = AF_UNIX};
static int listener = -1;

struct talk {
    const uint8_t *state;
    size_t state_size;
    const uint8_t *reply;
    size_t reply_size;
    bool same;
};

/* The keeper: takes the state to its end, and answers. */
static void *keep(void *context)
{
    struct talk *talk = context;
    uint8_t *got = malloc(talk->state_size + 1);
    size_t have = 0;
    ssize_t n;
    int fd = accept(listener, NULL, NULL);

    NEED(fd >= 0 && got);
    while ((n = read(fd, got + have, talk->state_size + 1 - have)) > 0)
        have += (size_t)n;
    talk->same = have == talk->state_size && memcmp(got, talk->state, have) == 0;
    (void)!write(fd, talk->reply, talk->reply_size);
    close(fd);
    free(got);
    return NULL;
}

static void start(void)
{
    const char *directory = getenv("TMPDIR");

    snprintf(address.sun_path, sizeof(address.sun_path), "%s/hook.%d",
             directory ? directory : "/tmp", getpid());
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    NEED(bind(listener, (struct sockaddr *)&address, sizeof(address)) == 0);
    NEED(listen(listener, 1) == 0);
}

/* What the hook says goes to a buffer. */
static int run(char **text, size_t *length)
{
    char *argv[] = {(char *)"eci-hook", (char *)"create", address.sun_path, NULL};
    FILE *real = stderr;
    int r;

    stderr = open_memstream(text, length);
    NEED(stderr);
    r = hook_main(3, argv);
    if (r == 0)
        fclose(stderr); /* else the hook has, which ends with it */
    stderr = real;
    return r;
}

static void stop(void)
{
    unlink(address.sun_path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    struct talk talk = {0};
    pthread_t keeper;
    char *text = NULL;
    size_t length = 0;
    size_t lines = 0;
    int stdin_fd;
    int r;

    if (size > 8192)
        return -1;
    if (listener < 0) {
        start();
        atexit(stop);
    }
    talk.reply_size = take_byte(&in);
    if (talk.reply_size == 255)
        talk.reply_size = 5000; /* more than the hook takes */
    if (talk.reply_size > in.left)
        talk.reply_size = in.left;
    talk.reply = in.at;
    talk.state = in.at + talk.reply_size;
    talk.state_size = in.left - talk.reply_size;
    stdin_fd = memfd_create("state", 0);
    NEED(stdin_fd >= 0 && write(stdin_fd, talk.state, talk.state_size) >= 0);
    NEED(lseek(stdin_fd, 0, SEEK_SET) == 0 && dup2(stdin_fd, STDIN_FILENO) == STDIN_FILENO);
    close(stdin_fd);
    NEED(pthread_create(&keeper, NULL, keep, &talk) == 0);
    r = run(&text, &length);
    pthread_join(keeper, NULL);

    CHECK(talk.same);
    CHECK((r == 0) == (talk.reply_size == 3 && memcmp(talk.reply, "ok\n", 3) == 0));
    CHECK((r == 0) == (length == 0));
    for (size_t i = 0; i < length; i++)
        lines += text[i] == '\n';
    CHECK(lines == (r != 0));
    free(text);
    return 0;
}
