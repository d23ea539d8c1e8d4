/* How a tracer takes hold of another process: for tests on the host. */
#ifndef SEIZE_H
#define SEIZE_H

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/types.h>

/*
 * Stops each thread of PID, and will stop it at its system calls; those that it makes later as
 * well.  The first MOST of them are put into TIDS.  Returns how many there are; exits where that
 * cannot be.
 */
static inline int seize(const char *pid, pid_t *tids, int most)
{
    char path[64];
    struct dirent *entry;
    int found = 0;
    DIR *dir;

    snprintf(path, sizeof path, "/proc/%s/task", pid);
    dir = opendir(path);
    if (!dir)
        exit(2);
    while ((entry = readdir(dir))) {
        long tid = strtol(entry->d_name, NULL, 10);

        if (!tid)
            continue;
        if (ptrace(PTRACE_SEIZE, tid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE)) {
            if (errno == ESRCH)
                continue; /* it has ended since it was listed */
            exit(3);
        }
        if (ptrace(PTRACE_INTERRUPT, tid, 0, 0) && errno != ESRCH)
            exit(3);
        if (found < most)
            tids[found] = (pid_t)tid;
        found++;
    }
    closedir(dir);
    return found;
}

#endif
