/*
 * enter PID CAPS PROGRAM - runs a program of a container in it, as the runtime's exec does, but
 * without any seccomp filter: what it calls is answered by the kernel alone.
 *
 * PID is the container's first process, CAPS the bounding set (hex), PROGRAM a path in the
 * container.  Ends as the program ends.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void make(const char *what, int result)
{
    if (result < 0) {
        perror(what);
        exit(125);
    }
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"user", "cgroup", "ipc", "uts", "net", "pid", "mnt"};
    enum { N = sizeof(names) / sizeof(names[0]) };
    unsigned long long caps;
    int fds[N];
    int status;
    pid_t child;

    if (argc != 4)
        return 2;
    caps = strtoull(argv[2], NULL, 16);
    for (int i = 0; i < N; i++) {
        char path[64];

        snprintf(path, sizeof(path), "/proc/%s/ns/%s", argv[1], names[i]);
        fds[i] = open(path, O_RDONLY | O_CLOEXEC);
        make(path, fds[i]);
    }
    for (int i = 0; i < N; i++)
        make(names[i], setns(fds[i], 0));
    make("setgroups", setgroups(0, NULL));
    make("setresgid", setresgid(0, 0, 0));
    make("setresuid", setresuid(0, 0, 0));
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
