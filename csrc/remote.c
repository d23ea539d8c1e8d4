/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the caller's memory.  What was read counts only after the notification was found
 * alive once more, before the call is performed (session_is_awaited): the thread id could have been
 * given to another thread meanwhile.
 */
#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include "worker.h"

#define PAGE  4096u
#define SHORT 256u
#define NEAR  1024u

/* Reads up to `size` bytes; stops before the first page that cannot be read. */
static ssize_t read_some(pid_t tid, uint64_t address, void *out, size_t size)
{
    size_t first = PAGE - (address & (PAGE - 1));
    struct iovec local = {.iov_base = out, .iov_len = size};
    struct iovec remote[2];
    unsigned long n = 1;
    ssize_t got;

    /* A partial transfer stops between two elements (process_vm_readv(2)): one per page. */
    remote[0].iov_base = (void *)(uintptr_t)address;
    remote[0].iov_len = size < first ? size : first;
    if (size > first) {
        if (address + first < address)
            return -EFAULT;
        remote[1].iov_base = (void *)(uintptr_t)(address + first);
        remote[1].iov_len = size - first;
        n = 2;
    }
    got = process_vm_readv(tid, &local, 1, remote, n, 0);
    if (got < 0)
        return errno == ESRCH ? -ENOENT : -EFAULT;
    return got;
}

/* A terminated string into `out`; its length, -EFAULT, or `too_long` without a terminator. */
static int read_string(pid_t tid, uint64_t address, char out[PATH_MAX], int too_long)
{
    size_t have = 0;

    while (have < PATH_MAX) {
        /* Nearly all strings are short, and pinning one page is cheaper than two. */
        size_t want = have ? PATH_MAX - have : SHORT;
        size_t left = PAGE - ((address + have) & (PAGE - 1));
        const char *end;
        ssize_t got;

        if (!have && want > left)
            want = left;
        got = read_some(tid, address + have, out + have, want);
        if (got <= 0)
            return got < 0 ? (int)got : -EFAULT;
        end = memchr(out + have, 0, (size_t)got);
        if (end)
            return (int)(end - out);
        have += (size_t)got;
    }
    return -too_long;
}

/* Several pieces in one system call.  False where one is not there as a whole. */
static bool read_pieces(pid_t tid, const struct iovec *local, const struct iovec *remote,
                        unsigned long n)
{
    size_t sum = 0;

    for (unsigned long i = 0; i < n; i++)
        sum += local[i].iov_len;
    return process_vm_readv(tid, local, n, remote, n, 0) == (ssize_t)sum;
}

/* Where a string may be that is short and not across the end of a page. */
static void set_piece(struct iovec *local, struct iovec *remote, uint64_t address, char *out)
{
    size_t left = PAGE - (address & (PAGE - 1));

    local->iov_base = out;
    remote->iov_base = (void *)(uintptr_t)address;
    local->iov_len = remote->iov_len = left < SHORT ? left : SHORT;
}

/* Strings that lie close together in one page, as literals do, in one piece: `low` to `high`. */
static bool read_near(pid_t tid, uint64_t low, uint64_t high, const uint64_t address[3],
                      char *const out[3])
{
    char near[NEAR + SHORT];
    size_t left = PAGE - (low & (PAGE - 1));
    size_t size = high - low + SHORT < left ? high - low + SHORT : left;
    const struct iovec local = {.iov_base = near, .iov_len = size};
    const struct iovec remote = {.iov_base = (void *)(uintptr_t)low, .iov_len = size};

    if (!read_pieces(tid, &local, &remote, 1))
        return false;
    for (unsigned int i = 0; i < 3; i++) {
        const char *from;
        const char *end;

        if (!address[i])
            continue;
        from = near + (address[i] - low);
        end = memchr(from, 0, (size_t)(near + size - from));
        if (!end)
            return false;
        memcpy(out[i], from, (size_t)(end - from) + 1);
    }
    return true;
}

/*
 * Three strings in one system call, as nearly every call has them: short, and none of them
 * across the end of a page.  False: read them one by one.  An address 0 is left out.
 */
bool remote_strings(pid_t tid, const uint64_t address[3], char *const out[3])
{
    struct iovec local[3];
    struct iovec remote[3];
    uint64_t low = UINT64_MAX;
    uint64_t high = 0;
    unsigned long n = 0;

    for (unsigned int i = 0; i < 3; i++) {
        out[i][0] = 0;
        if (!address[i])
            continue;
        set_piece(&local[n], &remote[n], address[i], out[i]);
        low = address[i] < low ? address[i] : low;
        high = address[i] > high ? address[i] : high;
        n++;
    }
    if (n == 0)
        return false;
    if (n > 1 && low / PAGE == high / PAGE && high - low <= NEAR)
        return read_near(tid, low, high, address, out);
    if (!read_pieces(tid, local, remote, n))
        return false;
    while (n--)
        if (!memchr(local[n].iov_base, 0, local[n].iov_len))
            return false;
    return true;
}

/* The same of a struct of `size` bytes and one string. */
bool remote_struct(pid_t tid, uint64_t address, void *out, size_t size, uint64_t string,
                   char text[PATH_MAX])
{
    struct iovec local[2] = {{.iov_base = out, .iov_len = size}};
    struct iovec remote[2] = {{.iov_base = (void *)(uintptr_t)address, .iov_len = size}};

    set_piece(&local[1], &remote[1], string, text);
    return read_pieces(tid, local, remote, 2) && memchr(text, 0, local[1].iov_len);
}

/* A path as getname() in fs/namei.c takes it: ENAMETOOLONG, ENOENT when empty, EFAULT. */
int remote_path(pid_t tid, uint64_t address, char out[PATH_MAX])
{
    int r = read_string(tid, address, out, ENAMETOOLONG);

    return r == 0 ? -ENOENT : r;
}

/*
 * A string as strndup_user() takes it for mount(2): NULL is allowed, EINVAL when too long.  What
 * could not be read is not given.
 */
int remote_string(pid_t tid, uint64_t address, char out[PATH_MAX], bool *given)
{
    int r = address ? read_string(tid, address, out, EINVAL) : 0;

    *given = address && r >= 0;
    if (!*given)
        out[0] = 0;
    return r;
}

/* Exactly `size` bytes, at most a page; 0 or -EFAULT. */
int remote_bytes(pid_t tid, uint64_t address, void *out, size_t size)
{
    ssize_t got = read_some(tid, address, out, size);

    if (got < 0)
        return (int)got;
    return (size_t)got == size ? 0 : -EFAULT;
}

/* A page of options as copy_mount_options() takes it: what can be read, zeros behind. */
int remote_page(pid_t tid, uint64_t address, char out[PATH_MAX], bool *given)
{
    ssize_t got;

    *given = false;
    if (!address)
        return 0;
    got = read_some(tid, address, out, PATH_MAX);
    if (got <= 0)
        return got < 0 ? (int)got : -EFAULT;
    *given = true;
    memset(out + got, 0, PATH_MAX - (size_t)got);
    out[PATH_MAX - 1] = 0;
    return 0;
}
