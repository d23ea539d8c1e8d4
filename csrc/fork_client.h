/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ECI_FORK_CLIENT_H
#define ECI_FORK_CLIENT_H

enum { FORK_CLIENT_DECLINED, FORK_CLIENT_FAILED, FORK_CLIENT_PREPARED };

/* What this process shall become. */
struct prepared {
    char **words; /* argv of the runtime; allocated, as is what they lie in */
    char *text;
    int mntns; /* owned: the mount namespace with the stage */
    int netns; /* owned: a network namespace to go to before; or -1 */
};

int fork_client_ask(const char *runtime, const char *binary, struct prepared *prepared);

#endif
