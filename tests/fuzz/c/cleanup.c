/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clearing up after a container, with anything in its files: nothing goes that is not its own, what
 * has been counted is never less, and another container's state is left as it is.
 *
 * It happens in a thread that has a root of its own, so no name leads to the host.
 */
#include <limits.h>
#include <pthread.h>
#include <semaphore.h>

#define main cleanup_main
#include "../../../csrc/cleanup.c"
#undef main
#include "fuzz.h"

#define KEY   "c-1"
#define STATE "/root/containers/" KEY

static sem_t wanted;
static sem_t done;
static struct input input;

static void make_directory(const char *path)
{
    NEED(mkdir(path, 0755) == 0 || errno == EEXIST);
}

static void write_part(struct input *in, const char *path, bool counted)
{
    static uint8_t part[8192];
    size_t size = take_byte(in);

    if (size == 0)
        return;
    size = size < 0x80 ? size : (size & 0x7f) * 64;
    size = size < in->left ? size : in->left;
    if (counted) { /* numbers that are the worker's own, but for some of them */
        struct eci_counts counts = {.magic = ECI_WATCH_MAGIC, .version = ECI_WATCH_VERSION};

        memcpy(part, &counts, sizeof(counts));
        take(in, part + 8, size);
        size = sizeof(counts);
    } else {
        take(in, part, size);
    }
    write_file(AT_FDCWD, path, part, size);
}

/* Whether somebody else has a share in the range. */
static bool make_tree(struct input *in)
{
    static const char *const directories[] = {
        "/root",
        "/root/containers",
        STATE,
        STATE "/socket",
        STATE "/bundle",
        STATE "/rootfs",
        STATE "/m",
        "/root/ranges",
        "/root/ranges/0",
        "/over",
        "/over/eci-work",
        "/over/eci-work/work",
        "/over/eci-work-1",
        "/keep",
        "/keep/eci-workx",
        "/keep/x",
    };
    static const char *const files[] = {
        "/over/eci-work/work/f", "/over/eci-work-1/f", "/over/f",
        "/keep/eci-workx/f",     "/keep/x/f",          "/root/ranges/0/" KEY,
        STATE "/keeper.log",     STATE "/socket/log",
    };
    uint8_t which = take_byte(in);

    for (unsigned int i = 0; i < sizeof(directories) / sizeof(directories[0]); i++)
        make_directory(directories[i]);
    for (unsigned int i = 0; i < sizeof(files) / sizeof(files[0]); i++)
        write_file(AT_FDCWD, files[i], "x", 1);
    if (which & 1)
        write_file(AT_FDCWD, "/root/ranges/0/other", "", 0);
    else
        (void)unlink("/root/ranges/0/other");
    (void)unlink("/root/counts");
    write_part(in, STATE "/" RECORD, false);
    write_part(in, STATE "/" WORKS, false);
    write_part(in, STATE "/" WATCH, which & 2);
    write_part(in, "/root/" COUNTS, which & 4);
    write_part(in, STATE "/view.pid", false);
    return which & 1;
}

static bool is_there(const char *path)
{
    return access(path, F_OK) == 0;
}

static void read_counts(const char *path, struct eci_counts *counts)
{
    int fd = open_counts(path, O_RDONLY, counts);

    if (fd < 0)
        memset(counts, 0, sizeof(*counts));
    else
        close(fd);
}

/* Of any two numbers that were valid, the sum is what is there afterwards. */
static void check_counts(const struct eci_counts *old, const struct eci_counts *own)
{
    struct eci_counts now;
    struct eci_counts want = *old;

    read_counts("/root/" COUNTS, &now);
    if (own->magic == ECI_WATCH_MAGIC && own->version == ECI_WATCH_VERSION) {
        if (old->magic != ECI_WATCH_MAGIC || old->version != ECI_WATCH_VERSION)
            want = (struct eci_counts){.magic = ECI_WATCH_MAGIC, .version = ECI_WATCH_VERSION};
        for (size_t at = 1; at < sizeof(want) / sizeof(uint64_t); at++)
            ((uint64_t *)&want)[at] += ((const uint64_t *)own)[at];
        CHECK(memcmp(&now, &want, sizeof(now)) == 0);
    }
}

static void clean_once(struct input *in)
{
    static struct eci_counts old;
    static struct eci_counts own;
    struct job job = {.state = STATE, .locked = true, .of = -1};
    char nonce[24];
    char work[256];
    uint8_t how = take_byte(in);
    bool shared;
    bool other;
    unsigned int before;
    int r;

    take_string(in, nonce, sizeof(nonce));
    take_string(in, work, sizeof(work));
    job.nonce = how & 1 ? nonce : NULL;
    job.work = how & 2 ? "/over/eci-work" : work;
    job.rootfs = how & 4 ? "/over" : "";
    shared = make_tree(in);
    before = open_fds();
    other = is_of_another(STATE, job.nonce);
    read_counts(STATE "/" WATCH, &own);
    read_counts("/root/" COUNTS, &old);
    r = clean(&job);
    CHECK(open_fds() == before);
    CHECK(is_there("/keep/eci-workx/f") && is_there("/keep/x/f") && is_there("/over/f"));
    CHECK(is_there("/root/ranges/0/other") == shared);
    if (other) {
        CHECK(r == 0 && is_there(STATE "/" RECORD) && is_there(STATE "/keeper.log"));
        CHECK(is_there("/root/ranges/0/" KEY) && is_there("/over/eci-work/work/f"));
        return;
    }
    if (r < 0)
        return;
    CHECK(!is_there(STATE) && !is_there("/root/ranges/0/" KEY));
    CHECK(!(how & 2) || !is_there("/over/eci-work"));
    check_counts(&old, &own);
}

/* As mountinfo writes it, and back. */
static void check_escape(struct input *in)
{
    char path[256];
    char out[4 * sizeof(path)];
    char back[sizeof(path)];
    size_t n = 0;

    take_string(in, path, sizeof(path));
    CHECK(escape(out, sizeof(out), path) == 0 || strlen(path) > 250);
    CHECK(!strpbrk(out, " \t\n#"));
    for (const char *at = out; *at;) {
        unsigned int code;

        if (*at == '\\') {
            CHECK(sscanf(at + 1, "%3o", &code) == 1);
            back[n++] = (char)code;
            at += 4;
        } else {
            back[n++] = *at++;
        }
    }
    back[n] = 0;
    CHECK(strcmp(path, back) == 0);
}

static void *work(void *context)
{
    (void)context;
    close(enter_scratch());
    NEED(chroot(".") == 0 && chdir("/") == 0);
    sem_post(&done);
    for (;;) {
        while (sem_wait(&wanted) < 0)
            continue;
        if (take_byte(&input) == 'e')
            check_escape(&input);
        else
            clean_once(&input);
        sem_post(&done);
    }
    return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool started;
    pthread_t thread;

    if (size > 8192)
        return -1;
    if (!started) {
        sem_init(&wanted, 0, 0);
        sem_init(&done, 0, 0);
        NEED(pthread_create(&thread, NULL, work, NULL) == 0);
        while (sem_wait(&done) < 0)
            continue;
        started = true;
    }
    input = (struct input){data, size};
    sem_post(&wanted);
    while (sem_wait(&done) < 0)
        continue;
    return 0;
}
