/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interpreter of an instrumented build.  A sanitizer's runtime has to be in the program and not
 * in the module that it loads, and preloading it would load it into runc and the engines as well.
 *
 * Each object is a block from malloc(3), so that what the C half does behind its end is seen.
 */
#include <Python.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* In place of libc's.  Of memory there is no limit: the runtime takes terabytes of addresses. */
__attribute__((visibility("default"))) int setrlimit(__rlimit_resource_t resource,
                                                     const struct rlimit *limit)
{
    if (resource == RLIMIT_AS || resource == RLIMIT_DATA)
        return 0;
    return (int)syscall(SYS_prlimit64, 0, resource, limit, NULL);
}

int main(int argc, char **argv)
{
    PyPreConfig config;
    PyStatus status;

    PyPreConfig_InitPythonConfig(&config);
    config.allocator = PYMEM_ALLOCATOR_MALLOC;
    status = Py_PreInitializeFromBytesArgs(&config, argc, argv);
    if (PyStatus_Exception(status))
        Py_ExitStatusException(status);
    return Py_BytesMain(argc, argv);
}
