/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Paths as the caller sees them.
 *
 * The thread stands in the caller's mount namespace with the caller's root, so the kernel
 * resolves symlinks, ".." and permissions as it would for the caller.  Two things differ: the
 * working directory, which is opened through /proc/TID/cwd, and the links "self" and
 * "thread-self" of a procfs, which would mean us.  The fast way is one openat2 that refuses
 * links, or a second one that refuses magic links only; where one is met, or nothing is found
 * behind a link (to us /proc/self leads nowhere), the path is walked again step by step.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#include "compat.h"
#include "worker.h"

#define MAX_LINKS 40 /* MAXSYMLINKS, include/linux/namei.h */

static int open_path(int dir, const char *path, uint64_t flags, uint64_t how_resolve)
{
    struct open_how how = {.flags = O_PATH | O_CLOEXEC | flags, .resolve = how_resolve};
    long fd = syscall(SYS_openat2, dir, path, &how, sizeof(how));

    return fd < 0 ? -errno : (int)fd;
}

/* Where a path begins: at the root, or at `base`. */
static int begin(int base, const char *path)
{
    return *path == '/' ? AT_FDCWD : base;
}

/* What is asked for never changes, so no file system has to be asked anew. */
static int stat_flags(const char *name)
{
    return AT_STATX_DONT_SYNC | (*name ? AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT : AT_EMPTY_PATH);
}

/* Type, inode and unique mount id of `name` in `fd`, or of `fd` itself for "". */
int stat_at(int fd, const char *name, struct statx *stx)
{
    const unsigned int wanted = STATX_TYPE | STATX_INO | STATX_MNT_ID_UNIQUE;

    if (statx(fd, name, stat_flags(name), wanted, stx) < 0)
        return -errno;
    return (stx->stx_mask & STATX_MNT_ID_UNIQUE) ? 0 : -ENOSYS;
}

/* The unique id of the mount that has the id `old`, which may be given to another one later. */
static int unique_id(uint64_t old, uint64_t *unique)
{
    struct mnt_id_req list = {.size = MNT_ID_REQ_SIZE_VER0, .mnt_id = LSMT_ROOT};
    uint64_t ids[256];
    long n;

    /* In the order of the ids; `param` is where to go on. */
    while ((n = syscall(__NR_listmount, &list, ids, sizeof(ids) / sizeof(ids[0]), 0)) > 0) {
        for (long i = 0; i < n; i++) {
            struct mnt_id_req req = {
                .size = MNT_ID_REQ_SIZE_VER0,
                .mnt_id = ids[i],
                .param = STATMOUNT_MNT_BASIC,
            };
            struct statmount mount;

            if (syscall(__NR_statmount, &req, &mount, sizeof(mount), 0) == 0 &&
                mount.mnt_id_old == old) {
                *unique = ids[i];
                return 0;
            }
        }
        list.param = ids[n - 1];
    }
    return n < 0 ? -errno : -ENOENT;
}

/*
 * The same of what a call names.  A FUSE file system tells nobody but the user who mounted it what
 * it has; its root can be unmounted, mounted upon or bound by others all the same.  Of that, device
 * and mount are known, and type and inode are not: STATX_INO is missing in the mask.  Of a detached
 * one not even the mount is; the id is then one that no mount has.
 */
int stat_object(int fd, const char *name, struct statx *stx)
{
    uint64_t unique;
    int r = stat_at(fd, name, stx);

    if (r != -EACCES)
        return r;
    if (statx(fd, name, stat_flags(name), 0, stx) < 0)
        return -errno;
    r = unique_id(stx->stx_mnt_id, &unique);
    if (r == -ENOENT)
        unique = NO_MOUNT;
    else if (r < 0)
        return r;
    stx->stx_mnt_id = unique;
    stx->stx_mask = STATX_MNT_ID_UNIQUE;
    return 0;
}

void target_close(struct target *target)
{
    close_fd(&target->fd);
    if (target->parent != target->lent)
        close_fd(&target->parent);
    target->fd = -1;
    target->parent = -1;
}

/* The values of a line like "NSpid:\t7\t1" in /proc/TID/status. */
static const char *status_line(int dir, const char *name, const char *key, char *text, size_t size)
{
    char path[64];
    char *line;
    char *end;

    snprintf(path, sizeof(path), "%s%sstatus", name, *name ? "/" : "");
    if (read_text(dir, path, text, size) < 0)
        return NULL;
    line = strstr(text, key);
    if (!line)
        return NULL;
    line += strlen(key);
    end = strchr(line, '\n');
    if (!end)
        return NULL;
    *end = 0;
    return line;
}

/*
 * The caller's number in the PID namespace that a procfs shows.  The host's procfs lists the
 * numbers from the host's namespace inwards; a procfs of an inner one prints the tail of the
 * same list, and its first number is the name to look for.
 */
static int number_in(struct caller *caller, int procfs, const char *key, int *number)
{
    char ours_text[8192];
    char theirs_text[8192];
    const char *ours = status_line(caller->dir, "", key, ours_text, sizeof(ours_text));

    for (; ours; ours = strchr(ours, '\t')) {
        const char *theirs;
        char name[16];

        ours++;
        *number = atoi(ours);
        snprintf(name, sizeof(name), "%d", *number);
        theirs = status_line(procfs, name, key, theirs_text, sizeof(theirs_text));
        if (theirs && *theirs && strcmp(theirs + 1, ours) == 0)
            return 0;
    }
    return -ENOENT;
}

static bool is_proc(int fd)
{
    struct statfs fs;

    return fstatfs(fd, &fs) == 0 && fs.f_type == PROC_SUPER_MAGIC;
}

/* Is `dir` of a procfs the directory of this process, or one in that, as "task/7" or "fd"? */
static bool is_ours(const struct worker *worker, int dir)
{
    static const char *const above[] = {"", "../"};
    struct eci_place place = {0};
    struct statx stx;
    char text[8192];
    char theirs[64];
    char ours[64];
    ssize_t n = readlinkat(worker->proc, "self/ns/pid", ours, sizeof(ours));

    if (n <= 0 || stat_at(dir, "", &stx) < 0)
        return true;
    /* Of a mount that begins in such a directory, the way up leads elsewhere. */
    place.mnt_id = stx.stx_mnt_id;
    if (facts_storage(&place) == 0 && strcmp(place.root, "/") != 0)
        return atoi(place.root + 1) == getpid();
    for (unsigned int i = 0; i < sizeof(above) / sizeof(above[0]); i++) {
        char path[16];
        const char *tgid = status_line(dir, i ? ".." : "", "\nTgid:", text, sizeof(text));

        if (!tgid)
            continue;
        snprintf(path, sizeof(path), "%sns/pid", above[i]);
        return atoi(tgid) == getpid() && readlinkat(dir, path, theirs, sizeof(theirs)) == n &&
               memcmp(ours, theirs, (size_t)n) == 0;
    }
    /* "/proc/self" and what else is above all processes. */
    return !!(stx.stx_attributes & STATX_ATTR_MOUNT_ROOT) && place.root[0] != '/';
}

/* What "self" or "thread-self" stands for; `text` gets a relative path. */
static int read_self(struct caller *caller, int procfs, const char *name, char *text, size_t size)
{
    int tgid;
    int tid;

    if (number_in(caller, procfs, "\nNStgid:", &tgid) < 0)
        return -ENOENT;
    if (strcmp(name, "self") == 0)
        return snprintf(text, size, "%d", tgid);
    if (number_in(caller, procfs, "\nNSpid:", &tid) < 0)
        return -ENOENT;
    return snprintf(text, size, "%d/task/%d", tgid, tid);
}

/*
 * The text of the link `name` in `dir`, or 0 when it is a magic link that only the kernel can
 * follow.
 */
static ssize_t read_link(struct caller *caller, int dir, int link, const char *name, char *text,
                         size_t size)
{
    struct statfs st;
    ssize_t n;

    if (fstatfs(link, &st) < 0)
        return -errno;
    if (st.f_flags & ST_NOSYMFOLLOW)
        return -ELOOP; /* pick_link(), fs/namei.c */
    if (st.f_type == PROC_SUPER_MAGIC) {
        if (strcmp(name, "self") == 0 || strcmp(name, "thread-self") == 0)
            return read_self(caller, dir, name, text, size);
        cleanup_fd int probe = open_path(dir, name, 0, RESOLVE_NO_MAGICLINKS);
        /* Whether we may follow it is asked before it is found to be magic. */
        if (probe == -ELOOP || probe == -EACCES)
            return 0;
        if (probe < 0 && probe != -ENOENT)
            return probe; /* not known: no text of a magic link is a path */
    }
    n = readlinkat(link, "", text, size);
    if (n < 0)
        return -errno;
    return (size_t)n >= size ? -ENAMETOOLONG : n;
}

/* Do two lists of numbers ("\t1200\t7") end alike?  An inner procfs prints the tail of ours. */
static bool is_tail(const char *ours, const char *theirs)
{
    size_t n = strlen(theirs);
    size_t m = strlen(ours);

    return n && n <= m && strcmp(ours + m - n, theirs) == 0;
}

/* Which of the caller's threads has the directory `entry` of a procfs: its path from /proc/TID. */
static int own_thread(const struct caller *caller, int entry, char *path, size_t size)
{
    char ours_text[8192];
    char theirs_text[8192];
    const char *ours = status_line(caller->dir, "", "\nNStgid:", ours_text, sizeof(ours_text));
    const char *theirs = status_line(entry, "", "\nNStgid:", theirs_text, sizeof(theirs_text));
    char group[64];
    int leader;

    if (!ours || !theirs || !is_tail(ours, theirs))
        return -EACCES;
    leader = atoi(ours + 1);
    snprintf(group, sizeof(group), "%s", theirs);
    ours = status_line(caller->dir, "", "\nNSpid:", ours_text, sizeof(ours_text));
    theirs = status_line(entry, "", "\nNSpid:", theirs_text, sizeof(theirs_text));
    if (!ours || !theirs)
        return -EACCES;
    if (is_tail(ours, theirs))
        return snprintf(path, size, "%s", "");
    if (strcmp(theirs, group) == 0)
        return snprintf(path, size, "task/%d/", leader);
    return -EACCES;
}

/*
 * Which directory of the caller's own, or of its thread group's leader, `dir` of a procfs is: the
 * path from /proc/TID ("", "fd/", "task/7/ns/"), or -EACCES where it is none of them.  `above` is
 * the directory that it was found in, or -1.
 */
static int own_directory(const struct caller *caller, int dir, int above, char *path, size_t size)
{
    static const char *const inner[] = {"fd", "ns"};
    cleanup_fd int entry = -1;
    struct statx here;
    struct statx there;
    int r;

    if (!is_proc(dir) || stat_at(dir, "", &here) < 0)
        return -EACCES;
    r = own_thread(caller, dir, path, size);
    if (r >= 0)
        return r;
    entry = above >= 0 ? fcntl(above, F_DUPFD_CLOEXEC, 0)
                       : caller_open_at(caller, dir, "..", O_PATH | O_DIRECTORY);
    r = entry < 0 ? -EACCES : own_thread(caller, entry, path, size);
    for (unsigned int i = 0; r >= 0 && i < sizeof(inner) / sizeof(inner[0]); i++)
        if (stat_at(entry, inner[i], &there) == 0 && there.stx_ino == here.stx_ino &&
            there.stx_mnt_id == here.stx_mnt_id)
            return r + snprintf(path + r, size - (size_t)r, "%s/", inner[i]);
    return -EACCES;
}

/*
 * What the magic link `name` in `dir` stands for, where the worker was denied a look at it: a
 * thread may follow its own links and those of its thread group's leader whatever its ids and
 * capabilities are.  The link is followed in the caller's own directory of the host's procfs; so a
 * `dir` that is taken for the caller's and is not leads to nothing but what is the caller's.
 */
static int follow_own(const struct caller *caller, int dir, int above, const char *name)
{
    char path[NAME_MAX + 64];
    int r = own_directory(caller, dir, above, path, sizeof(path));

    if (r < 0)
        return r;
    snprintf(path + r, sizeof(path) - (size_t)r, "%s", name);
    return caller_open_own(caller, path, O_PATH);
}

/* The entry `name` of a `dir` that the worker may not search, and its owner always may. */
static int search_own(const struct caller *caller, int dir, int above, const char *name)
{
    char path[64];
    int r = own_directory(caller, dir, above, path, sizeof(path));

    return r < 0 ? r : caller_open_at(caller, dir, name, O_PATH | O_NOFOLLOW);
}

/* Goes on at `jump`, which it owns: a magic link leads to an object, not to a name. */
static int jump_to(int *at, int jump, struct target *target, bool may_be_file)
{
    struct stat st;

    close(*at);
    *at = jump;
    close_fd(&target->parent);
    target->parent = -1;
    return !may_be_file && (fstat(jump, &st) < 0 || !S_ISDIR(st.st_mode)) ? -ENOTDIR : 0;
}

/* Step by step.  Leaves the directory and the name of the last step where there is one. */
static int walk(const struct worker *worker, struct caller *caller, int base, const char *path,
                bool follow, struct target *target)
{
    char rest[2 * PATH_MAX];
    char link_text[PATH_MAX];
    cleanup_fd int at = -1;
    int links = 0;
    int r;
    size_t n = strlen(path);

    if (n >= PATH_MAX)
        return -ENAMETOOLONG;
    memcpy(rest, path, n + 1);
    at = open_path(begin(base, path), *path == '/' ? "/" : ".", O_DIRECTORY, 0);
    if (at == -EACCES && *path != '/')
        at = fcntl(base, F_DUPFD_CLOEXEC, 0);
    if (at < 0)
        return at;

    for (;;) {
        cleanup_fd int next = -1;
        bool searched;
        struct stat st;
        char name[NAME_MAX + 1];
        size_t skip = strspn(rest, "/");
        size_t len;
        bool last;
        bool slash;

        memmove(rest, rest + skip, strlen(rest + skip) + 1);
        if (!*rest)
            break;
        len = strcspn(rest, "/");
        if (len > NAME_MAX)
            return -ENAMETOOLONG;
        memcpy(name, rest, len);
        name[len] = 0;
        slash = rest[len] == '/';
        last = rest[len + strspn(rest + len, "/")] == 0;
        memmove(rest, rest + len, strlen(rest + len) + 1);

        next = open_path(at, name, O_NOFOLLOW, 0);
        searched = next != -EACCES;
        if (!searched)
            next = search_own(caller, at, target->parent, name);
        if (next < 0)
            return next;
        /* Where nothing is told there is no link; whether it is a directory the kernel will see. */
        if (fstat(next, &st) < 0) {
            if (errno != EACCES)
                return -errno;
            st.st_mode = S_IFDIR;
        }
        if (S_ISLNK(st.st_mode) && (!last || follow || slash)) {
            ssize_t got;

            if (++links > MAX_LINKS)
                return -ELOOP;
            got = read_link(caller, at, next, name, link_text, sizeof(link_text));
            if (got < 0)
                return (int)got;
            if (got == 0) {
                /*
                 * A magic link: it leads to an object, not to a name.  Ours we may follow, and the
                 * caller may not.
                 */
                int jump = is_proc(at) && is_ours(worker, at) ? -EACCES : open_path(at, name, 0, 0);

                if (jump == -EACCES)
                    jump = follow_own(caller, at, target->parent, name);
                if (jump < 0)
                    return jump;
                r = jump_to(&at, jump, target, last && !slash);
                if (r < 0)
                    return r;
                continue;
            }
            if ((size_t)got + strlen(rest) + 1 >= sizeof(rest))
                return -ENAMETOOLONG;
            memmove(rest + got, rest, strlen(rest) + 1);
            memcpy(rest, link_text, (size_t)got);
            if (*rest == '/') {
                close(at);
                at = open_path(AT_FDCWD, "/", O_DIRECTORY, 0);
                if (at < 0)
                    return at;
            }
            continue;
        }
        if ((slash || !last) && !S_ISDIR(st.st_mode))
            return -ENOTDIR;
        close_fd(&target->parent);
        target->parent = -1;
        if (searched && strcmp(name, ".") != 0 && strcmp(name, "..") != 0) {
            target->parent = take_fd(&at);
            memcpy(target->name, name, len + 1);
        } else {
            close(at);
        }
        at = take_fd(&next);
    }
    target->fd = take_fd(&at);
    return stat_object(target->fd, "", &target->stx);
}

/* The last name of a path, and the length of what stands before it; NULL for "/", "." and "..". */
static const char *last_name(const char *path, size_t *before, size_t *len)
{
    size_t end = strlen(path);
    size_t start;

    while (end && path[end - 1] == '/')
        end--;
    start = end;
    while (start && path[start - 1] != '/')
        start--;
    *before = start;
    *len = end - start;
    if (*len == 0 || *len > NAME_MAX || strncmp(path + start, ".", *len) == 0 ||
        strncmp(path + start, "..", *len) == 0)
        return NULL;
    return path + start;
}

/*
 * The directory and the name, without a look at what the name stands for: -ELOOP where a path
 * does not end in a plain name.
 */
static int resolve_name(int base, const char *path, uint64_t how, struct target *target)
{
    char head[PATH_MAX];
    size_t before;
    size_t len;
    const char *name = last_name(path, &before, &len);

    if (!name || path[before + len])
        return -ELOOP;
    memcpy(target->name, name, len);
    target->name[len] = 0;
    if (before == 0 && base == target->lent) {
        target->parent = base;
        return 0;
    }
    memcpy(head, path, before);
    memcpy(head + before, ".", 2);
    target->parent = open_path(begin(base, path), head, O_DIRECTORY, how);
    return target->parent < 0 ? target->parent : 0;
}

/* One openat2 for the object; for a name, one for its directory and a look at it from there. */
static int resolve_fast(int base, const char *path, bool follow, unsigned int want, uint64_t how,
                        struct target *target)
{
    int r;

    if (!(want & WANT_NAME)) {
        target->fd = open_path(begin(base, path), path, follow ? 0 : O_NOFOLLOW, how);
        return target->fd < 0 ? target->fd : stat_object(target->fd, "", &target->stx);
    }
    r = resolve_name(base, path, how, target);
    if (r < 0)
        return r;
    if (want & WANT_OBJECT) {
        target->fd = open_path(target->parent, target->name, O_NOFOLLOW, 0);
        if (target->fd < 0)
            return target->fd;
        r = stat_object(target->fd, "", &target->stx);
    } else {
        r = stat_object(target->parent, target->name, &target->stx);
    }
    if (r < 0)
        return r;
    return follow && S_ISLNK(target->stx.stx_mode) ? -ELOOP : 0;
}

/*
 * Does the path go nowhere but down, as long as no link is met?  Then it does not matter where the
 * root is.
 */
bool resolve_leads_down(const char *path)
{
    if (*path == '/')
        return false;
    for (const char *at = path; at; at = strchr(at, '/')) {
        at += *at == '/';
        if (at[0] == '.' && at[1] == '.' && (!at[2] || at[2] == '/'))
            return false;
    }
    return true;
}

/*
 * Resolves `path`, which begins at `base` (O_PATH) unless it is absolute.  Where the thread does
 * not have the caller's root it must be one that leads down.  With WANT_NAME the directory and the
 * name that lead to the object are kept, where there is such a pair ("/", ".." and magic links have
 * none); the object itself is opened only if it is wanted too, or if there is no name.
 */
int resolve(struct session *session, struct caller *caller, int base, const char *path, bool follow,
            unsigned int want, struct target *target)
{
    int r;

    target->lent = caller->cwd;
    /* Most paths have no link in them; and what is missing then is missing for everybody. */
    r = resolve_fast(base, path, follow, want, RESOLVE_NO_SYMLINKS, target);
    if (r == -ELOOP) {
        target_close(target);
        r = caller_take_root(session, caller);
        if (r < 0)
            return r;
        r = resolve_fast(base, path, follow, want, RESOLVE_NO_MAGICLINKS, target);
        /*
         * What a link leads to may be there for the caller, behind a /proc/self; and that of a
         * procfs that shows us as well is our own.
         */
        if (r == -ENOENT || (r == 0 && is_proc(target->parent >= 0 ? target->parent : target->fd)))
            r = -ELOOP;
    }
    /* -EACCES: it may be the caller's own in a procfs. */
    if (r != -ELOOP && r != -EACCES)
        return r;
    target_close(target);
    r = caller_take_root(session, caller);
    if (r < 0)
        return r;
    return walk(session->worker, caller, base, path, follow, target);
}

/*
 * Does `mnt_id` lie on `under`, or on others that do, and all at the very path `point`?  Wherever
 * they are where that is NULL.
 */
static bool is_stacked_on(uint64_t mnt_id, uint64_t under, const char *point)
{
    char seen[PATH_MAX];

    while (mnt_id != under) {
        uint64_t parent;

        if (point && (facts_mount_point(mnt_id, seen) < 0 || strcmp(seen, point) != 0))
            return false;
        if (facts_parent(mnt_id, &parent) < 0 || parent == mnt_id)
            return false;
        mnt_id = parent;
    }
    return true;
}

/*
 * Is the target the caller's root, or the root of a mount that lies there?  The kernel calls these
 * "/", and so what it cannot reach from there, the root of the mount namespace.
 */
static bool is_at_root(const struct target *target)
{
    struct statx root;

    if (stat_at(AT_FDCWD, "/", &root) < 0)
        return false;
    return target->stx.stx_mnt_id == root.stx_mnt_id
               ? target->stx.stx_ino == root.stx_ino
               : is_stacked_on(target->stx.stx_mnt_id, root.stx_mnt_id, "/");
}

/*
 * What lies on the caller's root: pivot_root(".", ".") leaves the old one there.  It has no name,
 * but ".." of the root leads to it.
 */
static bool take_top_of_root(struct target *target)
{
    cleanup_fd int top = open_path(AT_FDCWD, "/..", O_DIRECTORY, 0);
    struct statx stx;

    if (top < 0 || !is_at_root(target) || stat_at(top, "", &stx) < 0 ||
        !is_stacked_on(stx.stx_mnt_id, target->stx.stx_mnt_id, "/"))
        return false;
    close_fd(&target->fd);
    target->fd = take_fd(&top);
    target->stx = stx;
    return true;
}

/* Makes `name` in `dir` (taken) the target, where that is the target or what lies on it. */
static bool take_name(int *dir, const char *name, const char *point, struct target *target)
{
    struct statx top;

    if (*dir < 0 || stat_at(*dir, name, &top) < 0)
        return false;
    if (top.stx_mnt_id == target->stx.stx_mnt_id
            ? top.stx_ino != target->stx.stx_ino
            : !is_stacked_on(top.stx_mnt_id, target->stx.stx_mnt_id, point))
        return false;
    close_fd(&target->fd);
    target->fd = -1;
    target->parent = take_fd(dir);
    snprintf(target->name, sizeof(target->name), "%s", name);
    target->stx = top;
    return true;
}

/* Gives the target the name that the kernel has for it, and what the name means now. */
static bool give_name(const struct worker *worker, struct target *target)
{
    char number[16];
    char point[PATH_MAX];
    char head[PATH_MAX];
    cleanup_fd int above = -1;
    cleanup_fd int dir = -1;
    const char *name;
    size_t before;
    size_t len;
    ssize_t n;

    snprintf(number, sizeof(number), "%d", target->fd);
    n = readlinkat(worker->self_fds, number, point, sizeof(point));
    if (n <= 0 || (size_t)n >= sizeof(point) || *point != '/')
        return false;
    point[n] = 0;
    name = last_name(point, &before, &len);
    if (!name)
        return strcmp(point, "/") == 0 && take_top_of_root(target);
    /* What lies on a directory lies on its mount; and on the root of a mount, on that one. */
    above = open_path(target->fd, "..", O_DIRECTORY, 0);
    if (take_name(&above, name, NULL, target))
        return true;
    /* Of a file, and of what may not be searched: unless something above is covered. */
    memcpy(head, point, before);
    head[before] = 0;
    dir = open_path(AT_FDCWD, head, O_DIRECTORY, RESOLVE_NO_SYMLINKS);
    return take_name(&dir, name, point, target);
}

/* Is there a mount on this one of which nobody can tell where it lies?  1, 0, or -errno. */
static int has_unplaced(const struct target *target)
{
    struct beneath beneath = {.mnt_id = target->stx.stx_mnt_id};
    char point[PATH_MAX];
    uint64_t parent;
    uint64_t id;
    int r;

    while ((r = facts_next(&beneath, &id)) > 0) {
        r = facts_parent(id, &parent);
        if (r < 0 && r != -ENOENT)
            return r;
        /* Out of reach of the caller's root. */
        if (r == 0 && parent == target->stx.stx_mnt_id && facts_mount_point(id, point) < 0)
            return 1;
    }
    return r == -ENOENT ? 0 : r; /* detached, or in another namespace */
}

/*
 * umount2 does not mean what a path without a name at its end leads to (".", "..", a magic link),
 * but what has been mounted on that since (LOOKUP_MOUNTPOINT, fs/namei.c).  The target gets its
 * name, and becomes what the name means now.  -EBUSY where it has none, and something may lie on it
 * that has none either; 0 else.
 */
int resolve_down(const struct worker *worker, struct target *target)
{
    int r = give_name(worker, target) ? 0 : has_unplaced(target);

    return r == 1 ? -EBUSY : r;
}
