/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a process finds that serves a container after one that was killed: descriptors, the memory
 * of struct worker, and perhaps a call that nobody has answered.
 *
 * A call may have been killed between being performed and being recorded as performed.  Nothing
 * tells so directly, so before it is performed it is written down what it will change, by unique
 * mount ids, and whoever comes later looks whether that is so.  What says how a mount is to be
 * (a remount, propagation, mount_setattr, fsconfig) is the same done twice.  A context serves
 * fsmount once: what it gave is written down as soon as it is kept, and until then the kernel says
 * EBUSY or EINVAL to the second, and the caller has lost a mount.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "compat.h"
#include "kernfs.h"

/* Of a call in doubt: was it an unmount that is done?  In the caller's mount namespace. */
bool flight_umounted(const struct session *session)
{
    uint64_t parent;

    return facts_parent(session->flight->call.mnt_id, &parent) == -ENOENT;
}

/*
 * Has a mount been added?  `target` is what the path leads to now: on what it led to then lies
 * something.  (On the caller's root nothing of it is to be seen, and it is mounted once more.)
 */
bool flight_added(const struct session *session)
{
    uint64_t under;

    return session->target.mnt_id != session->flight->call.mnt_id &&
           facts_parent(session->target.mnt_id, &under) == 0 &&
           under == session->flight->call.mnt_id;
}

/* Has a mount been moved, or a detached one found its place?  `target` leads to the mount `top`. */
bool flight_moved(const struct session *session, uint64_t top)
{
    uint64_t under;

    return top == session->flight->call.mnt_id ||
           (facts_parent(session->flight->call.mnt_id, &under) == 0 &&
            under != session->flight->call.parent);
}

/* -- descriptors -------------------------------------------------------------------------- */

static bool is_owned(const struct worker *worker, int fd)
{
    const int own[] = {worker->proc,   worker->self_fds, worker->home,  worker->holder,
                       worker->userns, worker->mntns,    worker->build, worker->locked,
                       worker->wake,   worker->score};

    if (fd <= STDERR_FILENO)
        return true;
    for (unsigned int i = 0; i < sizeof(own) / sizeof(own[0]); i++)
        if (fd == own[i])
            return true;
    for (unsigned int i = 0; i < GIVEN; i++)
        if (fd == worker->given[i])
            return true;
    for (unsigned int i = 0; i < worker->n_busy; i++)
        if (fd == worker->busy[i])
            return true;
    for (unsigned int i = 0; i < KEPT; i++)
        if (worker->kept[i].mnt_id && (fd == worker->kept[i].fd || fd == worker->kept[i].stand_in))
            return true;
    for (unsigned int i = 0; i < UNTOLD; i++)
        if (worker->untold[i].tid && fd == worker->untold[i].dir)
            return true;
    for (unsigned int i = 0; i < worker->n_flights; i++)
        if (worker->flights[i].taken && fd == worker->flights[i].listener)
            return true;
    return false;
}

/* A listener may have been received, and not been written down yet. */
static bool is_listener(const struct worker *worker, const char *name)
{
    static const char kind[] = "anon_inode:seccomp notify";
    char text[64];

    return readlinkat(worker->self_fds, name, text, sizeof(text)) == sizeof(kind) - 1 &&
           memcmp(text, kind, sizeof(kind) - 1) == 0;
}

/* Takes the listener, or says that there is no room. */
struct flight *flight_take(struct worker *worker, int listener)
{
    for (unsigned int i = 0; i < MAX_SESSIONS; i++) {
        struct flight *flight = &worker->flights[i];

        if (flight->taken)
            continue;
        memset(&flight->call, 0, sizeof(flight->call));
        flight->listener = listener;
        if (worker->n_flights <= i)
            __atomic_store_n(&worker->n_flights, i + 1, __ATOMIC_RELEASE);
        __atomic_store_n(&flight->taken, true, __ATOMIC_RELEASE);
        return flight;
    }
    return NULL;
}

void flight_leave(struct flight *flight)
{
    __atomic_store_n(&flight->taken, false, __ATOMIC_RELEASE);
    close(flight->listener);
}

/* What a thread had open while it was killed: on a mount it would keep that busy for good. */
static int close_what_nobody_owns(struct worker *worker)
{
    cleanup_fd int dir = openat(worker->self_fds, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    _Alignas(struct directory_entry) char buffer[4096];
    long n;

    if (dir < 0)
        return -errno;
    while ((n = syscall(SYS_getdents64, dir, buffer, sizeof(buffer))) > 0) {
        for (long at = 0; at < n;) {
            const struct directory_entry *entry = (const struct directory_entry *)(buffer + at);
            int fd = atoi(entry->name);

            at += entry->size;
            if (entry->name[0] == '.' || fd == dir || is_owned(worker, fd))
                continue;
            if (!is_listener(worker, entry->name) || !flight_take(worker, fd))
                close(fd);
        }
    }
    return n < 0 ? -errno : 0;
}

/* -- the rest ----------------------------------------------------------------------------- */

/*
 * First thing of each process that serves, before it has threads.  The first one finds nothing to
 * mend.  0 or -errno.
 */
int worker_recover(struct worker *worker)
{
    struct session self = {.worker = worker};
    int r = worker_find_self(worker);

    worker->turn = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    worker->watching = false;
    worker->n_left = worker->looks = 0;
    worker->n_stand_ins = worker->n_untold = 0;
    for (unsigned int i = 0; i < KEPT; i++)
        worker->n_stand_ins += worker->kept[i].mnt_id && worker->kept[i].stand_in >= 0;
    for (unsigned int i = 0; i < UNTOLD; i++)
        worker->n_untold += worker->untold[i].tid != 0;
    eci_ring_mend(worker->ring);
    eci_watch_mend(worker->watch);
    if (r == 0 && worker->build >= 0)
        r = kernfs_clear(worker); /* what a new file system was being built of */
    if (r == 0)
        r = close_what_nobody_owns(worker);
    return r < 0 ? r : session_enter(&self);
}
