/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the rival listeners share: they receive calls until their child, the program that makes
 * them, has ended.
 */
#ifndef ECI_LISTENER_H
#define ECI_LISTENER_H

#include <errno.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "compat.h"

static void program_ended(int number)
{
    (void)number;
    _exit(0);
}

/* Takes the first argument for the listener; ends this process with the program. */
static inline int listener_begin(const char *word)
{
    const struct sigaction action = {.sa_handler = program_ended};
    __u64 flags = SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP;
    int listener = atoi(word);

    if (sigaction(SIGCHLD, &action, NULL) < 0 ||
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, flags) < 0)
        return -errno;
    /* It may have ended before. */
    if (waitpid(-1, NULL, WNOHANG) != 0)
        return -ECHILD;
    return listener;
}

/* The next call; 0 or -errno. */
static inline int listener_receive(int listener, struct seccomp_notif *call)
{
    do {
        memset(call, 0, sizeof(*call));
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, call) == 0)
            return 0;
    } while (errno == EINTR || errno == ENOENT);
    return -errno;
}

#endif
