/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See privilege.h for the contracts.
 *
 * A filter is a binary search for the number of the call.  It costs next to nothing: of a number
 * that is let through whatever its arguments are the kernel keeps a bit (5.11,
 * kernel/seccomp.c, seccomp_cache_prepare) and does not run the filter at all.  To find these out
 * it runs through the filter once for each number there is, so a list would be slow to install.
 */
#include "privilege.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    MOST_RULES = 192,
    STEPS = 9 * MOST_RULES + 16, /* of a filter, at most */
    NO_CALL = -1,                /* what a tracer leaves of a call that it takes away */
    X32 = 0x40000000,            /* numbers from here on are of that ABI */
};

int privilege_seal(void)
{
    const struct rlimit none = {0, 0};

    if (syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        syscall(SYS_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || setrlimit(RLIMIT_CORE, &none) < 0)
        return -errno;
    return 0;
}

int privilege_keep(uint64_t kept)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];

    if (syscall(SYS_capget, &head, data) < 0)
        return -errno;
    if (data[CAP_SETPCAP / 32].effective & (1u << CAP_SETPCAP % 32)) {
        /* Up to the first that this kernel does not know. */
        for (unsigned int cap = 0; syscall(SYS_prctl, PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
            if (!(kept >> cap & 1) && syscall(SYS_prctl, PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
                return -errno;
    }
    for (unsigned int i = 0; i < 2; i++) {
        data[i].permitted &= (uint32_t)(kept >> 32 * i);
        data[i].effective = data[i].permitted;
        data[i].inheritable = 0; /* and with it what is ambient: capabilities(7) */
    }
    return syscall(SYS_capset, &head, data) < 0 ? -errno : 0;
}

int privilege_use(uint64_t used)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];

    if (syscall(SYS_capget, &head, data) < 0)
        return -errno;
    for (unsigned int i = 0; i < 2; i++)
        data[i].effective = data[i].permitted & (uint32_t)(used >> 32 * i);
    return syscall(SYS_capset, &head, data) < 0 ? -errno : 0;
}

int privilege_limit(int resource, rlim_t most)
{
    struct rlimit limit;

#ifdef ECI_SANITIZED /* whose shadow memory is terabytes of addresses */
    if (resource == RLIMIT_AS)
        return 0;
#endif
    if (getrlimit((__rlimit_resource_t)resource, &limit) < 0)
        return -errno;
    if (limit.rlim_max > most)
        limit.rlim_max = most;
    limit.rlim_cur = limit.rlim_max;
    return setrlimit((__rlimit_resource_t)resource, &limit) < 0 ? -errno : 0;
}

/* A filter in the making. */
struct filter {
    struct sock_filter steps[STEPS];
    unsigned short n;
    uint32_t other;
};

static void add(struct filter *filter, struct sock_filter step)
{
    filter->steps[filter->n++] = step;
}

static void load(struct filter *filter, size_t offset)
{
    add(filter, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset));
}

static void answer(struct filter *filter, uint32_t action)
{
    add(filter, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action));
}

/* Answers `action` where the comparison holds, and else goes on. */
static void answer_if(struct filter *filter, uint16_t comparison, uint32_t value, uint32_t action)
{
    add(filter, (struct sock_filter)BPF_JUMP(BPF_JMP | comparison | BPF_K, value, 0, 1));
    answer(filter, action);
}

/* What becomes of the call that a search has come to; the number is loaded. */
static void add_rule(struct filter *filter, const struct call_rule *rule)
{
    if (rule->action || !rule->mask) {
        answer_if(filter, BPF_JEQ, rule->nr, rule->action ? rule->action : SECCOMP_RET_ALLOW);
        answer(filter, filter->other);
        return;
    }
    add(filter, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, rule->nr, 1, 0));
    answer(filter, filter->other);
    load(filter, offsetof(struct seccomp_data, args) + rule->arg * sizeof(uint64_t));
    add(filter, (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, rule->mask));
    answer_if(filter, BPF_JEQ, rule->value, SECCOMP_RET_ALLOW);
    answer(filter, filter->other);
}

/* Searches `n` rules, at least one, in the order of their numbers.  Eight calls deep at most. */
/* NOLINTNEXTLINE(misc-no-recursion) */
static void add_search(struct filter *filter, const struct call_rule *const *rules, size_t n)
{
    size_t half = n / 2;
    unsigned short at;

    if (n == 1) {
        add_rule(filter, rules[0]);
        return;
    }
    /* A conditional jump goes no farther than 255 steps. */
    add(filter, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, rules[half]->nr, 0, 1));
    at = filter->n;
    add(filter, (struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA, 0));
    add_search(filter, rules, half);
    filter->steps[at].k = (uint32_t)(filter->n - at - 1);
    add_search(filter, rules + half, n - half);
}

int privilege_filter(const struct call_rule *rules, size_t n, uint32_t other)
{
    const struct call_rule *sorted[MOST_RULES] = {NULL};
    /* A list of what is refused says nothing of other ABIs, by which all of it could be had. */
    uint32_t foreign = other == SECCOMP_RET_ALLOW ? SECCOMP_RET_ERRNO | (uint32_t)ENOSYS : other;
    struct filter filter = {.other = other};
    struct sock_fprog program;

    if (n == 0 || n > MOST_RULES)
        return -EINVAL;
    for (size_t i = 0; i < n; i++) {
        size_t at = i;

        for (; at > 0 && sorted[at - 1]->nr > rules[i].nr; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = &rules[i];
    }
    load(&filter, offsetof(struct seccomp_data, arch));
    add(&filter, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0));
    answer(&filter, foreign);
    load(&filter, offsetof(struct seccomp_data, nr));
    answer_if(&filter, BPF_JEQ, (uint32_t)NO_CALL, SECCOMP_RET_ALLOW);
    answer_if(&filter, BPF_JGE, X32, foreign);
    add_search(&filter, sorted, n);
    program = (struct sock_fprog){.len = filter.n, .filter = filter.steps};
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0UL, &program) < 0 ? -errno : 0;
}
