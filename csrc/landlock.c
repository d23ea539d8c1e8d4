/* SPDX-License-Identifier: Apache-2.0 */
/* Which files a process may still open: landlock(7).  The contract is in privilege.h. */
#include <errno.h>
#include <linux/landlock.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "compat.h"
#include "privilege.h"

#define READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define WRITE                                                                                      \
    (READ | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_TRUNCATE |                          \
     LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_REMOVE_FILE)

/* struct landlock_ruleset_attr of 6.12; what an older kernel does not know has to be 0. */
struct ruleset {
    uint64_t files;
    uint64_t ports;
    uint64_t scoped;
};

/* All rights over files that this version of the interface knows, by their numbers. */
static uint64_t rights_of(long abi)
{
    unsigned int known = abi >= 5 ? 16 : abi >= 3 ? 15 : abi == 2 ? 14 : 13;

    return (UINT64_C(1) << known) - 1;
}

int privilege_files(const int *directories, const char *kinds, size_t n)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    struct ruleset ruleset = {.files = rights_of(abi)};
    int fd;
    int r = 0;

    if (abi < 0)
        return -errno;
    if (abi >= 6)
        ruleset.scoped = LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | LANDLOCK_SCOPE_SIGNAL;
    fd = (int)syscall(SYS_landlock_create_ruleset, &ruleset, sizeof(ruleset), 0);
    if (fd < 0)
        return -errno;
    for (size_t i = 0; i < n && r == 0; i++) {
        struct landlock_path_beneath_attr rule = {
            .allowed_access = ruleset.files & (kinds[i] == 'w' ? WRITE : READ),
            .parent_fd = directories[i],
        };

        if (syscall(SYS_landlock_add_rule, fd, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0)
            r = -errno;
    }
    if (r == 0 && syscall(SYS_landlock_restrict_self, fd, 0) < 0)
        r = -errno;
    (void)close(fd);
    return r;
}
