/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of eci-keeper share: keeper.c, alone.c, intake.c. */
#ifndef ECI_KEEPER_H
#define ECI_KEEPER_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>

enum word {
    MEMORY = 1, /* a memfd: what the keeper knows, which is not looked into here */
    FORMAT,     /* its number */
    TRIED,      /* 1: Python was executed just now, and could not take over */
    LOG,        /* the file that gets what has to be said */
    START,      /* start.py */
    FORMATS,    /* the file that has the numbers of those formats that the package reads */
    CLEANUP,    /* a descriptor of eci-cleanup, and its next three words: */
    STATE,      /* the state directory */
    WORK,
    ROOTFS,
    CONTAINER, /* the runtime's directory of the container: there as long as it is */
    PROCESS,   /* a pidfd of the worker's first process */
    LOCK,      /* held while this process may touch the state directory */
    KEEPER,    /* a pidfd of the keeper that this process is the second of, or -1 */
    FIRST,     /* of what is polled, -1 for what there is not: */
    WORDS = FIRST + 7,
};

enum polled {
    RING,    /* events of the worker's */
    INIT,    /* the container's first process, a pidfd */
    WORKER,  /* its socket: closed, it ends when nobody has a listener any more */
    RUNTIME, /* `run`, which deletes the container: a pidfd */
    HOOK,
    NOTIFY,
    SECOND, /* a pidfd */
    POLLED,
};

/* alone.c */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
bool alone_is_over(char **argv);
void alone_for_a_while(void);
int alone_keep(struct pollfd *fds, char **argv);

/* intake.c: one connection of a runtime's that is being read. */
struct connection {
    int fd;             /* owned */
    int listener;       /* owned; -1: none has come yet */
    size_t size;        /* bytes read so far */
    unsigned int depth; /* of the JSON text: how many objects and arrays are open */
    bool in_string;
    bool escaped; /* the next byte belongs to the string, whatever it is */
};

int intake_accept(int notify, struct connection *connection);
int intake_feed(struct connection *connection);
int intake_hand_on(struct connection *connection, int control);
void intake_close(struct connection *connection);

#endif
