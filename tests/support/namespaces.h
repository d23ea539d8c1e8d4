/* SPDX-License-Identifier: Apache-2.0 */
/* The way into a container from the host, past its seccomp filter: for tests and measurements. */
#ifndef ECI_NAMESPACES_H
#define ECI_NAMESPACES_H

#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Ends the program where `what` has failed. */
static inline void make(const char *what, int result)
{
    if (result < 0) {
        perror(what);
        exit(125);
    }
}

/*
 * Joins the namespaces of PID, as root of its user namespace and with all capabilities there; a
 * child is in its PID namespace, this process is not.
 */
static inline void enter_namespaces(const char *pid)
{
    static const char *const names[] = {"user", "cgroup", "ipc", "uts", "net", "pid", "mnt"};
    enum { N = sizeof(names) / sizeof(names[0]) };
    int fds[N];

    /* All of them first: in the new mount namespace there is another /proc. */
    for (int i = 0; i < N; i++) {
        char path[64];

        snprintf(path, sizeof(path), "/proc/%s/ns/%s", pid, names[i]);
        fds[i] = open(path, O_RDONLY | O_CLOEXEC);
        make(path, fds[i]);
    }
    for (int i = 0; i < N; i++)
        make(names[i], setns(fds[i], 0));
    make("setgroups", setgroups(0, NULL));
    make("setresgid", setresgid(0, 0, 0));
    make("setresuid", setresuid(0, 0, 0));
}

#endif
