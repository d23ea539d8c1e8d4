/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of /proc/TID: what is read of them is what a second, slower reading finds, and whatever a
 * file holds, nothing is read or written beyond it.
 *
 * The first byte says whether the rest is a file as it is, or what a container chooses in a file
 * that the kernel writes.
 */
#include "../../../csrc/caller.c"
#include "../../../csrc/resolve.c"
#include "fuzz.h"

enum { LIMIT = 8192 };

static int scratch = -1;

static struct caller open_caller(const void *status, size_t status_size, const void *stat,
                                 size_t stat_size)
{
    struct caller caller;

    if (scratch < 0)
        scratch = enter_scratch();
    write_file(scratch, "status", status, status_size);
    write_file(scratch, "stat", stat, stat_size);
    caller_init(&caller);
    caller.dir = scratch;
    return caller;
}

/* Any bytes are a file of numbers, or none. */
static void check_any(const uint8_t *data, size_t size)
{
    struct caller caller = open_caller(data, size, data, size);
    gid_t *groups = malloc(256 * sizeof(*groups));
    char *text = malloc(LIMIT);
    char path[NAME_MAX + 64];
    int n = 0;
    int r = read_status(&caller, true, groups, &n);

    CHECK(r == 0 || r == -EINVAL);
    CHECK(n >= 0 && n <= 256);
    (void)caller_is_awake(&caller);
    if (status_line(scratch, "", "\nNSpid:", text, LIMIT))
        CHECK(!strchr(text, '\n') || strlen(text) < LIMIT);
    /* It is its own entry: it is either recognised as such, or there is no such line in it. */
    r = own_thread(&caller, scratch, path, sizeof(path));
    CHECK(r >= 0 || r == -EACCES);
    if (r >= 0)
        CHECK((size_t)r == strlen(path) && (size_t)r < sizeof(path));
    free(text);
    free(groups);
}

static size_t put_name(char *out, const char *comm)
{
    size_t n = 0;

    /* fs/proc/array.c, proc_task_name(): a line feed and a backslash are escaped. */
    for (; *comm; comm++) {
        if (*comm == '\n' || *comm == '\\')
            out[n++] = '\\';
        out[n++] = (char)(*comm == '\n' ? 'n' : *comm);
    }
    out[n] = 0;
    return n;
}

/* A status and a stat as the kernel writes them, of a thread that has chosen its name and ids. */
static void check_written(struct input *in)
{
    static const char states[] = "SRDTtXZI";
    char comm[16];
    char name[64];
    char *status = malloc(LIMIT);
    char stat[256];
    uint32_t uid = (uint32_t)take_number(in);
    uint32_t gid = (uint32_t)take_number(in);
    char state = states[take_byte(in) % (sizeof(states) - 1)];
    unsigned int count = take_byte(in);
    gid_t groups[256];
    gid_t first = (gid_t)take_number(in);
    struct caller caller;
    int n = 0;
    int at;

    NEED(status);
    take_string(in, comm, sizeof(comm));
    put_name(name, comm);
    at = snprintf(status, LIMIT,
                  "Name:\t%s\nUmask:\t0022\nState:\t%c\nTgid:\t7\nUid:\t1\t2\t3\t%u\n"
                  "Gid:\t4\t5\t6\t%u\nFDSize:\t64\nGroups:\t",
                  name, state, uid, gid);
    for (unsigned int i = 0; i < count; i++)
        at += snprintf(status + at, LIMIT - (size_t)at, "%u ", first + i);
    at += snprintf(status + at, LIMIT - (size_t)at, "\nNStgid:\t7\t1\nNSpid:\t7\t1\n");
    snprintf(stat, sizeof(stat), "%u (%s) %c 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15\n",
             first % 4194304, comm, state);
    caller = open_caller(status, (size_t)at, stat, strlen(stat));
    CHECK(read_status(&caller, true, groups, &n) == 0);
    CHECK(caller.fsuid == uid && caller.fsgid == gid && n == (int)count);
    for (unsigned int i = 0; i < count; i++)
        CHECK(groups[i] == first + i);
    CHECK(caller_is_awake(&caller) == (state != 'S'));
    close_fd(&caller.stat);
    free(status);
}

/* An inner procfs shows the tail of our numbers, and no other list is one. */
static void check_tails(struct input *in)
{
    unsigned int ours[4];
    unsigned int theirs[4];
    unsigned int n = 1 + take_byte(in) % 4;
    unsigned int m = 1 + take_byte(in) % 4;
    char a[64] = "";
    char b[64] = "";
    bool tail = m <= n;

    for (unsigned int i = 0; i < n; i++) {
        ours[i] = take_byte(in) & 31;
        snprintf(a + strlen(a), sizeof(a) - strlen(a), "\t%u", ours[i]);
    }
    for (unsigned int i = 0; i < m; i++) {
        theirs[i] = take_byte(in) & 31;
        snprintf(b + strlen(b), sizeof(b) - strlen(b), "\t%u", theirs[i]);
    }
    for (unsigned int i = 0; tail && i < m; i++)
        tail = theirs[i] == ours[n - m + i];
    CHECK(is_tail(a, b) == tail);
}

/* What a path comes apart into is the path. */
static void check_names(struct input *in)
{
    char path[PATH_MAX];
    size_t before;
    size_t len;
    const char *name;

    take_string(in, path, sizeof(path));
    name = last_name(path, &before, &len);
    if (name) {
        CHECK(name == path + before && len > 0 && len <= NAME_MAX && !memchr(name, '/', len));
        CHECK(before == 0 || path[before - 1] == '/');
        CHECK(strspn(name + len, "/") == strlen(name + len));
    }
}

static void check_down(struct input *in)
{
    char path[PATH_MAX];
    char copy[PATH_MAX];
    bool down;

    take_string(in, path, sizeof(path));
    memcpy(copy, path, sizeof(copy));
    down = *path != '/';
    for (char *rest = copy, *step; (step = strsep(&rest, "/"));)
        down = down && strcmp(step, "..") != 0;
    CHECK(resolve_leads_down(path) == down);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};

    if (size > LIMIT)
        return -1;
    switch (take_byte(&in) % 5) {
    case 0:
        check_any(in.at, in.left);
        break;
    case 1:
        check_written(&in);
        break;
    case 2:
        check_tails(&in);
        break;
    case 3:
        check_names(&in);
        break;
    default:
        check_down(&in);
        break;
    }
    return 0;
}
