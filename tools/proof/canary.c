/* SPDX-License-Identifier: Apache-2.0 */
/*
 * canary DIRECTORY heap | shift | race: does what an instrument has to report, from where a worker
 * would: with DIRECTORY for its root.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int shared;

static void *add(void *unused)
{
    (void)unused;
    for (int i = 0; i < 1000; i++)
        shared++;
    return NULL;
}

int main(int argc, char **argv)
{
    volatile int size = argc;

    if (argc != 3 || chroot(argv[1]) < 0 || chdir("/") < 0)
        return 2;
    if (strcmp(argv[2], "heap") == 0) {
        char *block = malloc((size_t)size);

        memset(block, 0, (size_t)size + 1);
        printf("%d\n", block[size]);
        free(block);
    } else if (strcmp(argv[2], "shift") == 0) {
        printf("%d\n", size << (size + 29));
    } else {
        pthread_t threads[2];

        for (int i = 0; i < 2; i++)
            pthread_create(&threads[i], NULL, add, NULL);
        for (int i = 0; i < 2; i++)
            pthread_join(threads[i], NULL);
    }
    return 0;
}
