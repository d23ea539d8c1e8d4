/* SPDX-License-Identifier: Apache-2.0 */
/*
 * work - does on demand what programs do all day, and times it, so that several places can be
 * measured in turns.
 *
 * Says "ready", reads lines from standard input, and answers each with nanoseconds; ends with its
 * input.  What fails ends it, and has its last lines on standard error.
 *
 *   CASE COUNT    what COUNT times one of the cases below took, in the fastest of a few batches:
 *                 whatever else the machine does only adds.  By a new process for each line, since
 *                 where in memory one happens to lie can make some per cent of a short call
 *   sh SCRIPT     what it took a shell to run that file
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BATCHES = 5 };

static const char FILE_NAME[] = "/etc/passwd";
static const char PROGRAM[] = "/bin/true";
static const char LOG[] = "/run/work.log";

static uint64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* Ends the process where a call has failed. */
static void need(const char *what, int result)
{
    if (result < 0) {
        perror(what);
        exit(1);
    }
}

static void ask_parent(void)
{
    /* Not the library's function, which some keep the answer of. */
    need("getppid", (int)syscall(SYS_getppid));
}

static void open_file(void)
{
    int fd = open(FILE_NAME, O_RDONLY | O_CLOEXEC);

    need(FILE_NAME, fd);
    close(fd);
}

static void stat_file(void)
{
    struct stat st;

    need(FILE_NAME, stat(FILE_NAME, &st));
}

/*
 * Runs a program to its end, with what it prints in the file LOG if that is not NULL.  Waits for
 * whoever else ends meanwhile, too: so the first process of a container is rid of them.
 */
static void run(const char *const words[], const char *log)
{
    int status;
    pid_t ended;
    pid_t child = fork();

    need("fork", child);
    if (child == 0) {
        if (log) {
            int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
            int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

            need("/dev/null", null);
            need(log, fd);
            need("dup2", dup2(null, STDIN_FILENO));
            need("dup2", dup2(fd, STDOUT_FILENO));
            need("dup2", dup2(fd, STDERR_FILENO));
        }
        execv(words[0], (char *const *)words);
        perror(words[0]);
        _exit(126);
    }
    do {
        ended = wait(&status);
        need("wait", ended);
    } while (ended != child);
    if (status == 0)
        return;
    fprintf(stderr, "work: %s: status %#x\n", words[2], (unsigned int)status);
    if (log) {
        need("dup2", dup2(STDERR_FILENO, STDOUT_FILENO));
        execl("/usr/bin/tail", "tail", "-n", "20", log, NULL);
    }
    exit(1);
}

static void run_program(void)
{
    static const char *const words[] = {PROGRAM, NULL, NULL};

    run(words, NULL);
}

static const struct {
    const char *name;
    void (*once)(void);
} cases[] = {
    {"getppid", ask_parent},
    {"open", open_file},
    {"stat", stat_file},
    {"fork+exec", run_program},
};

/* In the new process: says how long the fastest batch took. */
static int batches(const char *name, const char *count)
{
    unsigned long times = strtoul(count, NULL, 10);

    for (unsigned int i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (strcmp(cases[i].name, name) != 0)
            continue;
        uint64_t fastest = UINT64_MAX;

        for (int batch = 0; batch < BATCHES; batch++) {
            uint64_t start = now();
            uint64_t took;

            for (unsigned long j = 0; j < times; j++)
                cases[i].once();
            took = now() - start;
            fastest = took < fastest ? took : fastest;
        }
        printf("%llu\n", (unsigned long long)fastest);
        return 0;
    }
    fprintf(stderr, "work: no case %s\n", name);
    return 1;
}

int main(int argc, char **argv)
{
    char line[256];

    if (argc == 3)
        return batches(argv[1], argv[2]);
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("ready\n");
    while (fgets(line, sizeof(line), stdin)) {
        char *rest = NULL;
        const char *name = strtok_r(line, " \n", &rest);
        const char *argument = strtok_r(NULL, " \n", &rest);

        if (!name || !argument) {
            fprintf(stderr, "work: CASE COUNT or sh SCRIPT\n");
            return 2;
        }
        if (!strcmp(name, "sh")) {
            const char *const words[] = {"/bin/sh", "-e", argument, NULL};
            uint64_t start = now();

            run(words, LOG);
            printf("%llu\n", (unsigned long long)(now() - start));
        } else {
            const char *const words[] = {"/proc/self/exe", name, argument, NULL};

            run(words, NULL);
        }
    }
    return 0;
}
