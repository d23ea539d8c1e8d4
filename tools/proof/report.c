/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a sanitizer's report goes: ECI_REPORTS, a directory.  It is linked into each instrumented
 * program, because these get no environment, and because their standard error is a log that goes
 * with its container.
 *
 * A worker cannot open the file once it has something to report, as it is in the container's mount
 * namespace: so the file is opened first of all.  An interpreter (ECI_BY_NAME) becomes a daemon and
 * closes what it does not know, and stays where it can open files: there the sanitizer opens one.
 *
 * Not looked for are leaks: a leak checker traces its own process, and ours may not be traced.
 * Addresses become lines afterwards: within a container there is no symbolizer.
 */
#include <fcntl.h>
#include <sanitizer/common_interface_defs.h>
#include <stdint.h>
#include <unistd.h>

enum { HIGH = 900 }; /* an fd that is in nobody's way */

#ifdef ECI_BY_NAME
#define WHERE ":log_path=" ECI_REPORTS "/python"
#else
#define WHERE ""
#endif
/* Blocks that were freed are kept back for a while; what is kept makes each fork slower. */
#define COMMON "symbolize=0:detect_leaks=0:alloc_dealloc_mismatch=0:quarantine_size_mb=16" WHERE

const char *__asan_default_options(void);
const char *__ubsan_default_options(void);
const char *__tsan_default_options(void);
const char *__tsan_default_suppressions(void);

__attribute__((used, visibility("default"))) const char *__asan_default_options(void)
{
    return COMMON;
}

__attribute__((used, visibility("default"))) const char *__ubsan_default_options(void)
{
    return "print_stacktrace=1:" COMMON;
}

__attribute__((used, visibility("default"))) const char *__tsan_default_options(void)
{
    return "symbolize=0:report_thread_leaks=0" WHERE;
}

/*
 * A follower copies an event while a writer may take its slot, and then looks whether one has
 * (watch.c): what it would have torn it throws away.
 */
__attribute__((used, visibility("default"))) const char *__tsan_default_suppressions(void)
{
    return "race:eci_watch_get\n";
}

__attribute__((constructor)) static void open_reports(void)
{
#ifndef ECI_BY_NAME
    int fd = open(ECI_REPORTS "/programs", O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    int high = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, HIGH);

    if (high >= 0)
        close(fd);
    if (fd >= 0)
        __sanitizer_set_report_fd((void *)(intptr_t)(high < 0 ? fd : high)); /* its own type */
#endif
}
