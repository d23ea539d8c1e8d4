/* SPDX-License-Identifier: Apache-2.0 */
/* The records of what is to be covered: each is found once, by its letter, and none beyond. */
#include "../../../csrc/exchange.c"
#include "../../../csrc/kernfs.c"
#include "fuzz.h"

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const points[] = {"/proc/", "/sys/"};
    struct worker worker = {.build = -1};
    char *cover = malloc(size + 1);
    unsigned int found = 0;
    unsigned int records = 0;
    bool covers[2] = {false};
    bool sealed[2] = {false};

    NEED(cover);
    memcpy(cover, data, size);
    cover[size] = 0; /* set_up() takes nothing else */
    worker.cover = cover;
    worker.cover_size = size + 1;
    for (const char *at = cover; at <= cover + size; at += strlen(at) + 1) {
        if (!*at)
            continue;
        records++;
        for (int kind = 0; kind < 2; kind++) {
            if (*at == 'm' || *at == 'r')
                covers[kind] = covers[kind] || begins(at + 1, points[kind]);
            sealed[kind] =
                sealed[kind] || (*at == 'o' && strlen(at + 1) == strlen(points[kind]) - 1 &&
                                 begins(points[kind], at + 1));
        }
    }
    for (int letter = 1; letter < 256; letter++)
        for (const char *at = NULL; (at = next_record(&worker, at, (char)letter));) {
            CHECK(at > cover && at <= cover + size && at[-1] == (char)letter);
            CHECK(at - 1 == cover || !at[-2]);
            found++;
        }
    CHECK(found == records);
    for (int kind = 0; kind < 2; kind++) {
        CHECK(kernfs_covers(&worker, (enum kernfs)kind) == covers[kind]);
        CHECK(wanted_flags(&worker, (enum kernfs)kind) == (sealed[kind] ? MOUNT_ATTR_RDONLY : 0));
    }
    free(cover);
    return 0;
}
