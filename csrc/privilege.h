/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a process gives up for good, before it meets anything that comes from a container.
 *
 * Which process keeps what stands in ARCHITECTURE.md, "Privileges"; the lists of system calls are
 * those of filters.c.  Functions return 0 or -errno.
 */
#ifndef ECI_PRIVILEGE_H
#define ECI_PRIVILEGE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>

#define CAPABILITY(name) ((uint64_t)1 << CAP_##name)

/* One system call in a filter: let through, unless something else is said. */
struct call_rule {
    unsigned int nr;
    unsigned int arg; /* number of the argument that is looked at, if `mask` is not 0 */
    uint32_t mask;    /* of its lower half ... */
    uint32_t value;   /* ... and what has to be there */
    uint32_t action;  /* SECCOMP_RET_*, if not 0, whatever the arguments are */
};

/* No program that is executed gains anything, nobody without CAP_SYS_PTRACE over the host may look
 * at this process (ptrace(2), PTRACE_MODE_READ), and it leaves no core file.  The second of these
 * execve(2) takes back, and so does another user id. */
int privilege_seal(void);

/* Keeps of all capabilities those in `kept` that it has.  The bounding set shrinks too, where the
 * process has CAP_SETPCAP; what it holds beyond that is of no use after privilege_seal(). */
int privilege_keep(uint64_t kept);

/* Has of the permitted capabilities only those in `used` in effect.  A program that is executed has
 * all of them again. */
int privilege_use(uint64_t used);

/* Nothing may take more of `resource` than `most`; what was less stays. */
int privilege_limit(int resource, rlim_t most);

/* From here on this thread, and what it will start, opens files only beneath `directories` (fds),
 * to read or, where `kinds` has a w, to make, write and remove them as well; and has no way to
 * abstract sockets and processes outside (6.12).  Names are looked up, sockets of the file system
 * connected to as before.  -ENOSYS or -EOPNOTSUPP where the kernel has no Landlock.  After
 * privilege_seal(). */
int privilege_files(const int *directories, const char *kinds, size_t n);

/* Installs a filter for this thread and what it will start: `other` (SECCOMP_RET_*) is the answer
 * to calls without a rule, and to those of other ABIs than x86-64, which are never let through.  At
 * most 192 rules, one for each call.  After privilege_seal(). */
int privilege_filter(const struct call_rule *rules, size_t n, uint32_t other);

#endif
