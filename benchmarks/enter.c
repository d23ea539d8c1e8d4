/* SPDX-License-Identifier: Apache-2.0 */
/*
 * enter PID FILTER PROGRAM ARG [-- LISTENER [ARG...]] - runs PROGRAM, a path in the container whose
 * first process is PID, in it but past its filter, with all capabilities.
 *
 * FILTER is `none`; `other`: a filter as long as the next, of calls that are not made; `mounts`:
 * the mount family waits for a listener.  Then this process becomes LISTENER, a program of the
 * host, which gets two more arguments: the listener's descriptor, and PID.  Its child ends with
 * PROGRAM.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "../tests/support/namespaces.h"

#define MOST_WORDS 32

/* Installs a filter that traps these calls; its listener. */
static int install(const int calls[], unsigned int n)
{
    struct sock_filter code[16];
    struct sock_fprog program = {.filter = code};
    unsigned short used = 0;

    code[used++] =
        (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    code[used++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
    code[used++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[used++] =
        (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (unsigned int i = 0; i < n; i++)
        code[used++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (__u32)calls[i],
                                                    (unsigned char)(n - i), 0);
    code[used++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[used++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
    program.len = used;
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER,
                        &program);
}

/* One byte, and with it one descriptor. */
struct parcel {
    char byte;
    struct iovec data;
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr message;
};

static void wrap(struct parcel *parcel)
{
    memset(parcel, 0, sizeof(*parcel));
    parcel->data = (struct iovec){.iov_base = &parcel->byte, .iov_len = 1};
    parcel->message = (struct msghdr){
        .msg_iov = &parcel->data,
        .msg_iovlen = 1,
        .msg_control = parcel->control.space,
        .msg_controllen = sizeof(parcel->control.space),
    };
}

static void send_fd(int socket, int fd)
{
    struct parcel parcel;

    wrap(&parcel);
    parcel.control.header.cmsg_level = SOL_SOCKET;
    parcel.control.header.cmsg_type = SCM_RIGHTS;
    parcel.control.header.cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(&parcel.control.header), &fd, sizeof(fd));
    make("sendmsg", (int)sendmsg(socket, &parcel.message, 0));
}

static int receive_fd(int socket)
{
    struct parcel parcel;
    int fd = -1;

    wrap(&parcel);
    if (recvmsg(socket, &parcel.message, 0) <= 0 || parcel.control.header.cmsg_type != SCM_RIGHTS)
        return -1;
    memcpy(&fd, CMSG_DATA(&parcel.control.header), sizeof(fd));
    return fd;
}

/* In the container: the program, with its filter. */
static void run(const char *filter, char *const words[], int socket)
{
    static const int family[] = {SYS_mount, SYS_umount2, SYS_move_mount, SYS_mount_setattr};
    static const int others[] = {SYS_swapon, SYS_swapoff, SYS_acct, SYS_quotactl};
    enum { N = sizeof(family) / sizeof(family[0]) };

    make("chdir", chdir("/"));
    if (strcmp(filter, "none") != 0) {
        int fd = install(!strcmp(filter, "mounts") ? family : others, N);

        make("seccomp", fd);
        if (!strcmp(filter, "mounts"))
            send_fd(socket, fd);
        close(fd);
    }
    close(socket);
    execv(words[0], words);
    make(words[0], -1);
}

/* Goes into the namespaces, and waits for the program. */
static int enter(const char *pid, const char *filter, char *const words[], int socket)
{
    int status;
    pid_t child;

    enter_namespaces(pid);
    child = fork();
    make("fork", child);
    if (child == 0)
        run(filter, words, socket);
    close(socket);
    make("waitpid", waitpid(child, &status, 0));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/* Becomes the listener.  Standard output is the program's alone, so that its end is to be seen. */
static void listen_for(int socket, char *words[], int n, char *pid)
{
    char number[16];
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int fd = receive_fd(socket);

    make("no listener", fd);
    make("/dev/null", null);
    make("dup2", dup2(null, STDIN_FILENO));
    make("dup2", dup2(null, STDOUT_FILENO));
    close(socket);
    snprintf(number, sizeof(number), "%d", fd);
    words[n] = number;
    words[n + 1] = pid;
    words[n + 2] = NULL;
    execvp(words[0], words);
    make(words[0], -1);
}

int main(int argc, char **argv)
{
    char *words[MOST_WORDS + 3];
    int listener = argc > 6 && !strcmp(argv[5], "--") ? argc - 6 : 0;
    int sockets[2];
    int status;
    pid_t child;

    if ((argc != 5 && !listener) || listener > MOST_WORDS ||
        (listener > 0) != !strcmp(argv[2], "mounts")) {
        fprintf(stderr, "usage: enter PID FILTER PROGRAM ARG [-- LISTENER [ARG...]]\n");
        return 2;
    }
    make("socketpair", socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets));
    child = fork();
    make("fork", child);
    if (child == 0) {
        char *const program[] = {argv[3], argv[4], NULL};

        close(sockets[0]);
        return enter(argv[1], argv[2], program, sockets[1]);
    }
    close(sockets[1]);
    if (listener) {
        memcpy(words, argv + 6, (size_t)listener * sizeof(words[0]));
        listen_for(sockets[0], words, listener, argv[1]);
    }
    close(STDOUT_FILENO);
    make("waitpid", waitpid(child, &status, 0));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
