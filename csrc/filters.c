/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which process of ours may make which system calls, once it has got ready.
 *
 * C programs have a list of what they do.  The worker, which alone stands in a container's
 * namespaces with power over its mounts, is killed by any other call: what makes one is no longer
 * our program.  All others get EPERM, since libraries that are not ours (libfuse, the interpreter)
 * may try something new in their next version.  What is on each list besides its program's own
 * calls is what glibc makes of them: memory, threads, locks, and the clock where the vDSO has none.
 *
 * The keeper starts all sorts of things, so it has a list of what none of them does.
 *
 * ECI_SANITIZED, at compile time: a build whose runtime (sanitizers, coverage) makes calls of its
 * own.  Then the worker's filter reports in the kernel's log what it would have killed for.
 */
#include "filters.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "compat.h"
#include "privilege.h"

#ifdef ECI_SANITIZED
#define KILL SECCOMP_RET_LOG
#else
#define KILL SECCOMP_RET_KILL_PROCESS
#endif
#define REFUSE (SECCOMP_RET_ERRNO | (uint32_t)EPERM)

#define LET(name)                                                                                  \
    {                                                                                              \
        .nr = SYS_##name                                                                           \
    }
#define LET_IF(name, number, bits, wanted)                                                         \
    {                                                                                              \
        .nr = SYS_##name, .arg = (number), .mask = (uint32_t)(bits), .value = (uint32_t)(wanted)   \
    }
#define NOT(name)                                                                                  \
    {                                                                                              \
        .nr = SYS_##name, .action = REFUSE                                                         \
    }

#define COUNT(rules) (sizeof(rules) / sizeof((rules)[0]))

/* What is mapped is data, and stays that. */
#define MEMORY                                                                                     \
    LET(brk), LET(munmap), LET(mremap), LET(madvise), LET_IF(mmap, 2, PROT_EXEC, 0),               \
        LET_IF(mprotect, 2, PROT_EXEC, 0)
/* To hold, to wait, to tell the time, to come back from a signal, and to end. */
#define RUNNING                                                                                    \
    LET(futex), LET(clock_gettime), LET(clock_nanosleep), LET(nanosleep), LET(getrandom),          \
        LET(getpid), LET(gettid), LET(rt_sigprocmask), LET(rt_sigaction), LET(rt_sigreturn),       \
        LET(restart_syscall), LET(exit), LET(exit_group)
/* Of clone3 the flags are in memory; without it glibc takes clone. */
#define THREADS                                                                                    \
    {.nr = SYS_clone3, .action = SECCOMP_RET_ERRNO | (uint32_t)ENOSYS}, LET(set_robust_list),      \
        LET(rseq), LET(sched_getaffinity)
/* For whoever asks from outside: of a process that may trace others nothing else tells. */
#define IS_DUMPABLE LET_IF(prctl, 0, UINT32_MAX, PR_GET_DUMPABLE)
#define THREAD_FLAGS                                                                               \
    (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |            \
     CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID)

#ifdef ECI_SANITIZED
/* Where others are refused: in the end a sanitizer takes its stack for signals back. */
#define OF_RUNTIME LET(sigaltstack),
#else
#define OF_RUNTIME
#endif

/* clang-format off */

int filter_worker(void)
{
    const struct call_rule rules[] = {
        /* who calls, and where: caller.c, remote.c */
        LET(capget), LET(capset), LET(chroot), LET(fchdir), LET(ioctl), LET(pidfd_getfd),
        LET(pidfd_open), LET(process_vm_readv), LET(setfsgid), LET(setfsuid), LET(setgroups),
        LET(setns), LET_IF(unshare, 0, ~(uint32_t)(CLONE_FS | CLONE_NEWNS), 0),
        /* what is meant: resolve.c, facts.c */
        LET(close), LET(dup), LET(fcntl), LET(fstat), LET(fstatfs), LET(getdents64), LET(lseek),
        LET(newfstatat), LET(openat), LET(openat2), LET(pread64), LET(read), LET(readlinkat),
        LET(statx), {.nr = __NR_listmount}, {.nr = __NR_statmount},
        /* what is done: perform.c, kernfs.c, tree.c */
        LET(fsconfig), LET(fsmount), LET(fsopen), LET(fspick), LET(mount), LET(mount_setattr),
        LET(move_mount), LET(open_tree), LET(umount2),
        /* the keeper's words, the ring's eventfd, the log: worker.c, notify.c */
        LET(poll), LET(recvmsg), LET(sendto), LET(write), LET(writev),
        /* sessions, and the next process that serves, in no namespace of its own: worker.c */
        LET_IF(clone, 0, ~(uint32_t)(THREAD_FLAGS | SIGCHLD), 0), LET(wait4), LET(tgkill),
        LET_IF(prctl, 0, UINT32_MAX, PR_SET_NAME),
        /* and memory; qsort(3) asks how much of it there is */
        LET(sysinfo), THREADS, MEMORY, RUNNING,
    };

    return privilege_filter(rules, COUNT(rules), KILL);
}

/* The server of the engine's view: view_*.c, libfuse. */
int filter_view(void)
{
    const struct call_rule rules[] = {
        /* requests and their answers */
        LET(read), LET(readv), LET(write), LET(writev), LET(sendto), LET(poll), LET(splice),
        LET(vmsplice), LET(pipe2), LET(ioctl), LET(gettimeofday),
        /* names */
        LET(openat), LET(openat2), LET(close), LET(fcntl), LET(linkat), LET(mkdirat), LET(mknodat),
        LET(readlinkat), LET(rename), LET(renameat), LET(renameat2), LET(symlinkat), LET(unlinkat),
        LET(unlink), LET(rmdir), LET(setfsgid), LET(setfsuid),
        /* attributes */
        LET(fstat), LET(newfstatat), LET(statx), LET(fstatfs), LET(statfs), LET(chmod),
        LET(fchmodat), LET(fchown), LET(fchownat), LET(utimensat), LET(truncate), LET(ftruncate),
        LET(getxattr), LET(setxattr), LET(listxattr), LET(removexattr),
        /* files and directories */
        LET(pread64), LET(pwrite64), LET(lseek), LET(fallocate), LET(fsync), LET(fdatasync),
        LET(getdents64), OF_RUNTIME MEMORY, RUNNING,
    };

    return privilege_filter(rules, COUNT(rules), REFUSE);
}

/* The one that holds its mount, which waits, remounts and unmounts: view.c. */
int filter_view_keeper(void)
{
    const struct call_rule rules[] = {
        LET(poll), LET(read), LET(recvfrom), LET(statx), LET(mount), LET(umount2), LET(kill),
        LET(pidfd_open), LET(signalfd4), LET(wait4), LET(waitid), LET(close), LET(write),
        LET(writev), LET(fstat), LET(newfstatat),
        OF_RUNTIME MEMORY, RUNNING,
    };

    return privilege_filter(rules, COUNT(rules), REFUSE);
}

/* The keeper and all that it starts: what changes the machine, or looks into other processes'
 * memory, or is much code of the kernel's and of no use here. */
int filter_keeper(void)
{
    const struct call_rule rules[] = {
        /* the machine */
        NOT(acct), NOT(adjtimex), NOT(clock_adjtime), NOT(clock_settime), NOT(delete_module),
        NOT(finit_module), NOT(init_module), NOT(ioperm), NOT(iopl), NOT(kexec_file_load),
        NOT(kexec_load), NOT(quotactl), NOT(quotactl_fd), NOT(reboot), NOT(setdomainname),
        NOT(sethostname), NOT(settimeofday), NOT(swapoff), NOT(swapon), NOT(syslog), NOT(vhangup),
        /* other processes */
        NOT(kcmp), NOT(perf_event_open), NOT(process_vm_writev), NOT(ptrace), NOT(move_pages),
        NOT(migrate_pages), NOT(process_madvise),
        /* the rest */
        NOT(add_key), NOT(bpf), NOT(io_uring_enter), NOT(io_uring_register), NOT(io_uring_setup),
        NOT(keyctl), NOT(lookup_dcookie), NOT(modify_ldt), NOT(name_to_handle_at), NOT(nfsservctl),
        NOT(open_by_handle_at), NOT(personality), NOT(request_key), NOT(userfaultfd), NOT(uselib),
        NOT(ustat), NOT(_sysctl), NOT(sysfs),
    };

    return privilege_filter(rules, COUNT(rules), SECCOMP_RET_ALLOW);
}

/* The proxy of a restricted socket: an interpreter that has imported what it needs, and talks to
 * Unix sockets; eci_supervisor/socket. */
int filter_proxy(void)
{
    const struct call_rule rules[] = {
        /* clients, the engine, and the log's socket */
        LET_IF(socket, 0, UINT32_MAX, AF_UNIX), LET_IF(socketpair, 0, UINT32_MAX, AF_UNIX),
        LET(accept), LET(accept4), LET(connect), LET(getpeername), LET(getsockname),
        LET(getsockopt), LET(setsockopt), LET(listen), LET(recvfrom), LET(recvmsg), LET(sendmsg),
        LET(sendto), LET(shutdown), LET(ioctl),
        /* the loop */
        LET(epoll_create1), LET(epoll_ctl), LET(epoll_pwait), LET(epoll_pwait2), LET(epoll_wait),
        LET(eventfd2), LET(pipe2), LET(poll), LET(select), LET(pselect6), LET(timerfd_create),
        LET(timerfd_settime),
        /* logs, counts, and modules that are imported late */
        LET(open), LET(openat), LET(close), LET(read), LET(readv), LET(pread64), LET(write),
        LET(writev), LET(pwrite64), LET(lseek), LET(fcntl), LET(dup), LET(dup2), LET(dup3),
        LET(fstat), LET(stat), LET(lstat), LET(newfstatat), LET(statx), LET(fstatfs), LET(access),
        LET(faccessat), LET(faccessat2), LET(readlink), LET(readlinkat), LET(getdents64),
        LET(getcwd), LET(flock), LET(ftruncate), LET(fallocate), LET(mkdir), LET(mkdirat),
        LET(rename), LET(renameat), LET(renameat2), LET(unlink), LET(unlinkat), LET(chmod),
        LET(fchmod), LET(umask),
        /* the interpreter */
        LET(brk), LET(mmap), LET(munmap), LET(mremap), LET(mprotect), LET(madvise), RUNNING,
        LET(sigaltstack), LET(getuid), LET(geteuid), LET(getgid), LET(getegid), LET(getppid),
        LET(gettimeofday), LET(times), LET(clock_getres), LET(sysinfo), LET(uname),
        LET(sched_yield), LET(getrusage), LET_IF(tgkill, 0, UINT32_MAX, getpid()),
        LET_IF(clone, 0, CLONE_THREAD, CLONE_THREAD), THREADS,
    };

    return privilege_filter(rules, COUNT(rules), REFUSE);
}

#ifdef ECI_SANITIZED /* valgrind, under which the next two run as well, knows no seccomp(2) */
#define OF_SHORT_LIVED(rules) ((void)(rules), 0)
#else
#define OF_SHORT_LIVED(rules) privilege_filter(rules, COUNT(rules), REFUSE)
#endif

/* The createRuntime hook, which passes on what it is told: hook.c. */
int filter_hook(void)
{
    const struct call_rule rules[] = {
        LET(read), LET_IF(socket, 0, UINT32_MAX, AF_UNIX), LET(connect), LET(sendto),
        LET(shutdown), LET(close),
        /* the runtime's standard error */
        LET(fstat), LET(newfstatat), LET(getppid), LET(pidfd_open), LET(pidfd_getfd), LET(fcntl),
        LET(write), LET(writev), LET(lseek), IS_DUMPABLE, MEMORY, RUNNING,
    };

    return OF_SHORT_LIVED(rules);
}

/* Clearing up: cleanup.c. */
int filter_cleanup(void)
{
    const struct call_rule rules[] = {
        /* where, and whose */
        LET(openat), LET(close), LET(read), LET(pread64), LET(pwrite64), LET(lseek), LET(fcntl),
        LET(flock), LET(access), LET(faccessat), LET(faccessat2), LET(fstat), LET(newfstatat),
        LET(stat), LET(lstat), LET(open), LET(readlink), LET(readlinkat), LET(getdents64),
        LET_IF(setns, 1, UINT32_MAX, CLONE_NEWNS),
        /* what goes */
        LET(unlink), LET(unlinkat), LET(rmdir), LET(umount2), LET(mount_setattr),
        /* words */
        LET(write), LET(writev), IS_DUMPABLE, MEMORY, RUNNING,
    };

    return OF_SHORT_LIVED(rules);
}
