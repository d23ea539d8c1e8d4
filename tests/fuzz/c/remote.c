/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strings and structs in the memory of another process, a real one: what is read is what a walk
 * byte by byte finds, pages that are missing included.
 *
 *     page    0      1      2      3       4      5        6
 *          nothing  here   here  nothing  here  nothing  nothing
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "../../../csrc/worker.h"
#include "fuzz.h"

enum { PAGE = 4096, PAGES = 7 };

static uint8_t *memory;
static pid_t child;

static void start(void)
{
    memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    NEED(memory != MAP_FAILED);
    child = fork();
    NEED(child >= 0);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (int page = 0; page < PAGES; page++)
            if (!strchr("124", '0' + page))
                munmap(memory + page * PAGE, PAGE);
        for (;;)
            pause();
    }
    /* Until it has done so. */
    for (char byte; remote_bytes(child, (uint64_t)(memory + 6 * PAGE), &byte, 1) != -EFAULT;)
        sched_yield();
}

static bool is_there(uint64_t address)
{
    uint64_t page = (address - (uint64_t)memory) / PAGE;

    return address >= (uint64_t)memory && (page == 1 || page == 2 || page == 4);
}

/* What strncpy_from_user() makes of it: the length, -EFAULT, or `too_long`. */
static int model_string(uint64_t address, char out[PATH_MAX], int too_long)
{
    for (int n = 0; n < PATH_MAX; n++) {
        if (!is_there(address + (uint64_t)n))
            return -EFAULT;
        out[n] = *(const char *)(address + (uint64_t)n);
        if (!out[n])
            return n;
    }
    return -too_long;
}

static void check_string(uint64_t address)
{
    char *got = malloc(PATH_MAX);
    char want[PATH_MAX];
    bool given;
    int expected = address ? model_string(address, want, EINVAL) : 0;

    CHECK(remote_string(child, address, got, &given) == expected);
    CHECK(given == (address && expected >= 0));
    if (given)
        CHECK(strcmp(got, want) == 0);
    expected = model_string(address, want, ENAMETOOLONG);
    CHECK(remote_path(child, address, got) == (expected == 0 ? -ENOENT : expected));
    free(got);
}

static void check_strings(const uint64_t address[3])
{
    char *out[3];
    char want[PATH_MAX];

    for (int i = 0; i < 3; i++)
        NEED(out[i] = malloc(PATH_MAX));
    if (remote_strings(child, address, out))
        for (int i = 0; i < 3; i++) {
            if (!address[i])
                want[0] = 0;
            else
                CHECK(model_string(address[i], want, EINVAL) >= 0);
            CHECK(strcmp(out[i], want) == 0);
        }
    for (int i = 0; i < 3; i++)
        free(out[i]);
}

static void check_struct(uint64_t address, size_t size, uint64_t string)
{
    uint8_t *out = malloc(size ? size : 1);
    char *text = malloc(PATH_MAX);
    char want[PATH_MAX];
    bool whole = true;

    for (size_t i = 0; i < size; i++)
        whole = whole && is_there(address + i);
    if (size)
        CHECK(remote_bytes(child, address, out, size) == (whole ? 0 : -EFAULT));
    if (whole && size)
        CHECK(memcmp(out, (const void *)address, size) == 0);
    if (size && string && remote_struct(child, address, out, size, string, text)) {
        CHECK(whole && memcmp(out, (const void *)address, size) == 0);
        CHECK(model_string(string, want, EINVAL) >= 0 && strcmp(text, want) == 0);
    }
    free(text);
    free(out);
}

static void check_page(uint64_t address)
{
    char *out = malloc(PATH_MAX);
    bool given;
    int r = remote_page(child, address, out, &given);
    bool known = true;

    CHECK(given == (address && is_there(address)));
    CHECK(r == (!address || is_there(address) ? 0 : -EFAULT));
    for (size_t i = 0; address && r == 0 && i < PATH_MAX - 1; i++) {
        known = known && is_there(address + i);
        CHECK(out[i] == (known ? *(const char *)(address + i) : 0));
    }
    if (address && r == 0)
        CHECK(out[PATH_MAX - 1] == 0);
    free(out);
}

/* An address near the end of a page, or somewhere else: two bytes of the input. */
static uint64_t take_address(struct input *in)
{
    uint8_t where = take_byte(in);
    uint8_t by = take_byte(in);

    if (where == 0)
        return by & 1 ? UINT64_MAX - by : 0;
    if (where & 0x80)
        return (uint64_t)memory + (where & 7) % (PAGES - 1) * PAGE + PAGE - by;
    return (uint64_t)memory + (where & 7) % (PAGES - 1) * PAGE + (uint64_t)(where >> 3) * 256 + by;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int pages[] = {1, 2, 4};
    struct input in = {data, size};
    uint64_t address[3];

    if (!child)
        start();
    for (int i = 0; i < 3; i++)
        address[i] = take_address(&in);
    uint16_t length = (uint16_t)take_number(&in);
    /* Written by us, seen by the child, in which the holes are. */
    for (unsigned int i = 0; i < sizeof(pages) / sizeof(pages[0]); i++)
        memset(memory + pages[i] * PAGE, 'a' + (int)i, PAGE);
    for (int i = 0; i < 8 && in.left; i++) {
        uint64_t at = take_address(&in);

        if (is_there(at))
            *(uint8_t *)at = i < 4 ? 0 : take_byte(&in);
    }
    check_string(address[0]);
    check_strings(address);
    check_struct(address[0], length % (PATH_MAX + 1), address[1]);
    check_page(address[2]);
    return 0;
}
