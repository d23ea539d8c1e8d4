/*
 * sock ask PATH...     connects to each; prints `engine` where an Engine API answers `/_ping`,
 *                      `other` where something else listens, else the name of the errno
 * sock listen PATH     listens there, says so, and answers nobody; until it is killed
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int opened(const char *path, struct sockaddr_un *address)
{
    memset(address, 0, sizeof(*address));
    address->sun_family = AF_UNIX;
    snprintf(address->sun_path, sizeof(address->sun_path), "%s", path);
    return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static const char *ask(const char *path)
{
    static const char ping[] = "GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n";
    struct sockaddr_un address;
    char answer[4096] = "";
    size_t have = 0;
    ssize_t got = 0;
    int fd = opened(path, &address);

    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return strerrorname_np(errno);
    if (write(fd, ping, sizeof(ping) - 1) < 0)
        return strerrorname_np(errno);
    while (have < sizeof(answer) - 1 &&
           (got = read(fd, answer + have, sizeof(answer) - 1 - have)) > 0)
        have += (size_t)got;
    close(fd);
    return strstr(answer, "Api-Version:") ? "engine" : "other";
}

int main(int argc, char **argv)
{
    struct sockaddr_un address;
    int fd;

    if (argc >= 3 && !strcmp(argv[1], "ask")) {
        for (int i = 2; i < argc; i++)
            puts(ask(argv[i]));
        return 0;
    }
    if (argc != 3 || strcmp(argv[1], "listen"))
        return 2;
    fd = opened(argv[2], &address);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 8) < 0) {
        perror(argv[2]);
        return 1;
    }
    puts("listening");
    fflush(stdout);
    for (;;)
        pause();
}
