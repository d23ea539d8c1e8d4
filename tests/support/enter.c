/*
 * enter PID CAPS PROGRAM - runs a program of a container in it, as the runtime's exec does, but
 * without any seccomp filter: what it calls is answered by the kernel alone.
 *
 * PID is the container's first process, CAPS the bounding set (hex), PROGRAM a path in the
 * container.  Ends as the program ends.
 */
#define _GNU_SOURCE
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "namespaces.h"

int main(int argc, char **argv)
{
    unsigned long long caps;
    int status;
    pid_t child;

    if (argc != 4)
        return 2;
    caps = strtoull(argv[2], NULL, 16);
    enter_namespaces(argv[1]);
    child = fork();
    make("fork", child);
    if (child == 0) {
        for (unsigned int cap = 0; prctl(PR_CAPBSET_READ, cap) >= 0; cap++)
            if (!(caps & (1ull << cap)))
                make("bounding set", prctl(PR_CAPBSET_DROP, cap));
        make("chdir", chdir("/"));
        execl(argv[3], argv[3], (char *)NULL);
        make(argv[3], -1);
    }
    make("waitpid", waitpid(child, &status, 0));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}
