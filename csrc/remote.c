/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the caller's memory.  What was read counts only after the notification was found
 * alive once more (notify.c does that, once, after all reads): the thread id could have been
 * given to another thread meanwhile.
 */
#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include "worker.h"

#define PAGE  4096u
#define SHORT 256u

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

/*
 * Three strings in one system call, as nearly every call has them: short, and none of them
 * across the end of a page.  False: read them one by one.  An address 0 is left out.
 */
bool remote_strings(pid_t tid, const uint64_t address[3], char *const out[3])
{
    struct iovec local[3];
    struct iovec remote[3];
    unsigned long n = 0;
    size_t sum = 0;

    for (unsigned int i = 0; i < 3; i++) {
        size_t left = PAGE - (address[i] & (PAGE - 1));

        out[i][0] = 0;
        if (!address[i])
            continue;
        local[n].iov_base = out[i];
        remote[n].iov_base = (void *)(uintptr_t)address[i];
        local[n].iov_len = remote[n].iov_len = left < SHORT ? left : SHORT;
        sum += local[n].iov_len;
        n++;
    }
    if (n == 0 || process_vm_readv(tid, local, n, remote, n, 0) != (ssize_t)sum)
        return false;
    while (n--)
        if (!memchr(local[n].iov_base, 0, local[n].iov_len))
            return false;
    return true;
}

/* A path as getname() in fs/namei.c takes it: ENAMETOOLONG, ENOENT when empty, EFAULT. */
int remote_path(pid_t tid, uint64_t address, char out[PATH_MAX])
{
    int r = read_string(tid, address, out, ENAMETOOLONG);

    return r == 0 ? -ENOENT : r;
}

/* A string as strndup_user() takes it for mount(2): NULL is allowed, EINVAL when too long. */
int remote_string(pid_t tid, uint64_t address, char out[PATH_MAX], bool *given)
{
    *given = address != 0;
    out[0] = 0;
    return address ? read_string(tid, address, out, EINVAL) : 0;
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

    *given = address != 0;
    if (!address)
        return 0;
    got = read_some(tid, address, out, PATH_MAX);
    if (got <= 0)
        return got < 0 ? (int)got : -EFAULT;
    memset(out + got, 0, PATH_MAX - (size_t)got);
    out[PATH_MAX - 1] = 0;
    return 0;
}
