/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Carrying out what was decided, on file descriptors.
 *
 * mount(2) takes names only.  The working directory of the thread is the host's
 * /proc/self/fd, in which "7" names fd 7 and nothing else, whatever the container does to its
 * paths; the link is followed by the kernel to the very mount and inode that were looked at.
 * So the kernel's own mount(2) does the work and its errno is the answer.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#include "compat.h"
#include "worker.h"

struct fd_name {
    char text[16];
};

/* `fd`, which is not negative, in decimal.  By hand: every call needs one or two. */
static const char *name_fd(struct fd_name *name, int fd)
{
    char *at = name->text + sizeof(name->text) - 1;

    *at = 0;
    do {
        *--at = (char)('0' + fd % 10);
        fd /= 10;
    } while (fd);
    return at;
}

/* Every form but the new mount: source and target are fds, data goes through. */
int perform_on(struct session *session, int source, int target, uint64_t flags, const char *data,
               bool has_data)
{
    struct fd_name from;
    struct fd_name to;
    int r = session_to_fds(session);

    if (r < 0)
        return r;
    if (mount(source >= 0 ? name_fd(&from, source) : NULL, name_fd(&to, target), NULL, flags,
              has_data ? data : NULL) < 0)
        return -errno;
    return 0;
}

/*
 * Calls `each` for every option of a comma-separated list.  Only overlayfs lets a backslash protect
 * a comma (`escapes`); to be wrong here would be to overlook an option that the kernel sees.
 */
static int for_each_option(char *data, bool escapes,
                           int (*each)(void *context, char *key, char *value), void *context)
{
    char *at = data;

    while (*at) {
        char *end = at;
        char *value;
        bool last;
        int r;

        while (*end && *end != ',')
            end += escapes && *end == '\\' && end[1] ? 2 : 1;
        last = !*end;
        *end = 0;
        value = strchr(at, '=');
        if (value)
            *value++ = 0;
        if (*at) {
            r = each(context, at, value);
            if (r < 0)
                return r;
        }
        if (last)
            break;
        at = end + 1;
    }
    return 0;
}

static int fsconfig_string(int fs, const char *key, const char *value)
{
    long r = value ? syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, key, value, 0)
                   : syscall(SYS_fsconfig, fs, FSCONFIG_SET_FLAG, key, NULL, 0);

    return r < 0 ? -errno : 0;
}

/* An overlay in the making. */
struct overlay {
    int fs;
    struct session *session;
    struct caller *caller;
    struct eci_verdict *verdict;
};

/* A path that can mean something else to us than to the caller. */
static bool is_through_proc(const char *path)
{
    return strstr(path, "/proc/") != NULL;
}

/*
 * Rule 3 for a layer: it is a source of the mount.  Where a host-protected path can be seen at all,
 * the layer is looked up once, judged, and named by its descriptor.  So is one that leads through
 * the caller's own /proc/self.
 */
static int overlay_layer(struct overlay *overlay, const char *key, const char *path)
{
    const struct eci_call call = {.op = ECI_OP_BIND, .flags = MS_BIND | MS_REC};
    struct session *session = overlay->session;
    struct target target = TARGET_INIT;
    struct fd_name name;
    int r;

    if (!session->worker->exposed && !is_through_proc(path)) {
        r = session_to(session, overlay->caller->cwd);
        if (r == 0 || (r == -EACCES && !*path))
            return fsconfig_string(overlay->fs, key, path);
        if (r != -EACCES)
            return r;
        /* It can be the caller's own /proc/self/fd, or the path does not begin there. */
    }
    r = resolve(session, overlay->caller, overlay->caller->cwd, path, true, WANT_OBJECT, &target);
    if (r == 0)
        r = facts_place(session->worker, &target, &session->source);
    if (r == 0) {
        eci_decide(session->worker->policy, &call, &session->source, &session->target,
                   overlay->verdict);
        r = -overlay->verdict->error;
    }
    if (r == 0)
        r = session_to_fds(session);
    if (r == 0)
        r = fsconfig_string(overlay->fs, key, name_fd(&name, target.fd));
    target_close(&target);
    return r;
}

static bool is_layer(const char *key)
{
    static const char *const keys[] = {"lowerdir", "lowerdir+", "datadir+", "upperdir", "workdir"};

    for (unsigned int i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        if (strcmp(key, keys[i]) == 0)
            return true;
    return false;
}

/* A list of lower layers, "A:B::C". */
struct layers {
    char *at;       /* the next one, NULL after the last */
    bool data_only; /* the next one has "::" before it */
};

/*
 * Takes the next layer out, decoded where it stands; NULL after the last.  As overlayfs reads it: a
 * backslash protects what follows, and is nothing at the end.
 */
static char *next_layer(struct layers *list, bool *data_only)
{
    char *layer = list->at;
    char *in = layer;
    char *out = layer;

    if (!layer)
        return NULL;
    *data_only = list->data_only;
    for (; *in && *in != ':'; *out++ = *in++)
        if (*in == '\\' && !*++in)
            break;
    list->data_only = *in && in[1] == ':';
    list->at = *in ? in + 1 + list->data_only : NULL;
    *out = 0;
    return layer;
}

/* One overlay option; lower layers one by one, since a value may have 255 bytes only. */
static int overlay_option(void *context, char *key, char *value)
{
    struct overlay *overlay = context;
    struct layers list = {.at = value};
    bool data_only;
    char *layer;
    int r = 0;

    if (value && is_layer(key) && strcmp(key, "lowerdir") != 0)
        return overlay_layer(overlay, key, value);
    if (!value || strcmp(key, "lowerdir") != 0)
        return fsconfig_string(overlay->fs, key, value);
    while (r == 0 && (layer = next_layer(&list, &data_only)))
        r = overlay_layer(overlay, data_only ? "datadir+" : "lowerdir+", layer);
    return r;
}

/* The attributes that flags of mount(2) stand for, as path_mount() has it. */
static unsigned int attributes(uint64_t flags)
{
    static const struct {
        uint64_t ms;
        unsigned int attr;
    } table[] = {
        {MS_RDONLY, MOUNT_ATTR_RDONLY},         {MS_NOSUID, MOUNT_ATTR_NOSUID},
        {MS_NODEV, MOUNT_ATTR_NODEV},           {MS_NOEXEC, MOUNT_ATTR_NOEXEC},
        {MS_NODIRATIME, MOUNT_ATTR_NODIRATIME}, {MS_NOSYMFOLLOW, MOUNT_ATTR_NOSYMFOLLOW},
    };
    unsigned int attr = MOUNT_ATTR_RELATIME;

    for (unsigned int i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        if (flags & table[i].ms)
            attr |= table[i].attr;
    if (flags & MS_STRICTATIME)
        attr |= MOUNT_ATTR_STRICTATIME;
    else if (flags & MS_NOATIME)
        attr |= MOUNT_ATTR_NOATIME;
    return attr;
}

/*
 * An overlay whose layers are named from the working directory (Docker does so when the list
 * is long): the directory has to be the caller's, so the target cannot be named by "N".  Or one
 * whose layers have to be judged.
 */
static int overlay_in_steps(struct session *session, struct caller *caller,
                            const struct mount_args *args, uint64_t flags, int target,
                            struct eci_verdict *verdict)
{
    struct overlay overlay = {.session = session, .caller = caller, .verdict = verdict};
    cleanup_fd int fs = -1;
    cleanup_fd int made = -1;
    char data[PATH_MAX];
    int r;

    fs = (int)syscall(SYS_fsopen, "overlay", FSOPEN_CLOEXEC);
    if (fs < 0)
        return -errno;
    if (args->has_source && *args->source) {
        r = fsconfig_string(fs, "source", args->source);
        if (r < 0)
            return r;
    }
    memcpy(data, args->data, sizeof(data));
    overlay.fs = fs;
    r = for_each_option(data, true, overlay_option, &overlay);
    if (r < 0)
        return r;
    if (flags & MS_RDONLY) {
        r = fsconfig_string(fs, "ro", NULL);
        if (r < 0)
            return r;
    }
    if (syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return -errno;
    made = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, attributes(flags));
    if (made < 0)
        return -errno;
    if (syscall(SYS_move_mount, made, "", target, "",
                MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
        return -errno;
    return 0;
}

static int note_layer(void *context, char *key, char *value)
{
    bool *special = context;

    if (!value || !is_layer(key))
        return 0;
    if (*value != '/' || is_through_proc(value))
        *special = true;
    /* Only lowerdir is a list, but a colon elsewhere merely takes the longer way. */
    for (; *value; value += *value == '\\' && value[1] ? 2 : 1)
        if (*value == ':' && value[1] != '/' && value[1] != ':')
            *special = true;
    return 0;
}

static bool layers_are_special(const struct mount_args *args)
{
    char data[PATH_MAX];
    bool special = false;

    if (!args->has_data)
        return false;
    memcpy(data, args->data, sizeof(data));
    for_each_option(data, true, note_layer, &special);
    return special;
}

/*
 * Options that are written anew, because a number or a path in them means something else to us
 * than to the caller.  Owns the fds that they name.
 */
struct options {
    struct session *session;
    struct caller *caller;
    int fds[2];
    unsigned int n_fds;
    char out[PATH_MAX];
    size_t used;
};

static int append_option(struct options *options, const char *key, const char *value)
{
    size_t left = sizeof(options->out) - options->used;
    int n = snprintf(options->out + options->used, left, "%s%s%s%s", options->used ? "," : "", key,
                     value ? "=" : "", value ? value : "");

    if (n < 0 || (size_t)n >= left)
        return -EINVAL;
    options->used += (size_t)n;
    return 0;
}

/* Takes the fd, and appends its number. */
static int append_fd(struct options *options, const char *key, int fd)
{
    struct fd_name name;

    if (options->n_fds == sizeof(options->fds) / sizeof(options->fds[0])) {
        close(fd);
        return -EINVAL;
    }
    options->fds[options->n_fds++] = fd;
    return append_option(options, key, name_fd(&name, fd));
}

static void close_options(struct options *options)
{
    while (options->n_fds)
        close(options->fds[--options->n_fds]);
}

/* FUSE: "fd=N" is the caller's N. */
static int fuse_option(void *context, char *key, char *value)
{
    struct options *options = context;
    unsigned long number;
    char *end;
    int fd;

    if (!value || strcmp(key, "fd") != 0)
        return append_option(options, key, value);
    number = strtoul(value, &end, 0);
    if (!*value || *end || number > INT_MAX)
        return -EINVAL;
    fd = caller_file(options->caller, (int)number);
    return fd < 0 ? -EINVAL : append_fd(options, key, fd);
}

/* procfs: "pidns=PATH" is a path of the caller's. */
static int proc_option(void *context, char *key, char *value)
{
    struct options *options = context;
    struct target target = TARGET_INIT;
    struct statfs fs;
    int r;

    if (!value || strcmp(key, "pidns") != 0)
        return append_option(options, key, value);
    r = resolve(options->session, options->caller, options->caller->cwd, value, true, WANT_OBJECT,
                &target);
    /* The kernel would open it: a fifo of the container's would hold us for ever. */
    if (r == 0 && (fstatfs(target.fd, &fs) < 0 || fs.f_type != NSFS_MAGIC))
        r = -EINVAL;
    if (r == 0)
        r = append_fd(options, key, take_fd(&target.fd));
    target_close(&target);
    return r;
}

/*
 * tmpfs: /proc/mounts shows uid= and gid= as host ids, and mount(8) hands back what it has read
 * there.  A number in the container's range cannot be meant otherwise: as an id of the container
 * it does not exist.
 */
bool perform_translates(const struct eci_policy *policy, const char *key, const char *value,
                        char number[16])
{
    unsigned long id;
    char *end;

    if (!*value || (strcmp(key, "uid") != 0 && strcmp(key, "gid") != 0))
        return false;
    id = strtoul(value, &end, 10);
    if (*end || id < policy->id_size || id < policy->id_base ||
        id - policy->id_base >= policy->id_size)
        return false;
    snprintf(number, 16, "%lu", id - policy->id_base);
    return true;
}

static int tmpfs_option(void *context, char *key, char *value)
{
    struct options *options = context;
    char number[16];

    if (value && perform_translates(options->session->worker->policy, key, value, number))
        value = number;
    return append_option(options, key, value);
}

static int rewrite(struct options *options, const struct mount_args *args,
                   int (*each)(void *context, char *key, char *value))
{
    char copy[PATH_MAX];

    memcpy(copy, args->data, sizeof(copy));
    return for_each_option(copy, false, each, options);
}

/* A procfs shows the PID namespace of whoever makes it, unless told otherwise (pidns=, 6.17). */
static int rewrite_proc(struct options *options, const struct mount_args *args)
{
    int pidns = caller_open_own(options->caller, "ns/pid", O_RDONLY);
    int r;

    if (pidns < 0)
        return pidns;
    r = append_fd(options, "pidns", pidns);
    return r < 0 || !args->has_data ? r : rewrite(options, args, proc_option);
}

/* MS_REMOUNT without MS_BIND: the options are the file system's own. */
int perform_remount(struct session *session, int target, uint64_t flags,
                    const struct mount_args *args)
{
    struct options options = {.session = session};
    struct statfs fs;
    int r;

    if (!args->has_data || fstatfs(target, &fs) < 0 || fs.f_type != TMPFS_MAGIC)
        return perform_on(session, -1, target, flags, args->data, args->has_data);
    r = rewrite(&options, args, tmpfs_option);
    return r < 0 ? r : perform_on(session, -1, target, flags, options.out, true);
}

static enum kernfs kernfs_of(uint32_t fs)
{
    return fs == ECI_FS_PROC ? KERNFS_PROC : fs == ECI_FS_SYSFS ? KERNFS_SYS : KERNFS_NONE;
}

/* What a new file system is made of. */
struct making {
    struct session *session;
    struct caller *caller;
    const struct mount_args *args;
    uint64_t flags;
    uint32_t fs;
    int target;
    struct eci_verdict *verdict;
    int result;
};

/* Which namespaces of the caller's a new file system of this type shows; NULL: none. */
static const char *const *shown_namespaces(const struct mount_args *args)
{
    static const struct {
        const char *type;
        const char *const names[2];
    } shown[] = {
        {"sysfs", {"ns/net", NULL}},
        {"mqueue", {"ns/ipc", NULL}},
        {"cgroup", {"ns/cgroup", NULL}},
        {"cgroup2", {"ns/cgroup", NULL}},
    };

    for (unsigned int i = 0; args->has_type && i < sizeof(shown) / sizeof(shown[0]); i++)
        if (strcmp(args->type, shown[i].type) == 0)
            return shown[i].names;
    return NULL;
}

static int make_new(const struct making *making, bool is_shown)
{
    struct session *session = making->session;
    struct caller *caller = making->caller;
    const struct mount_args *args = making->args;
    struct options options = {.session = session, .caller = caller};
    const char *data = args->has_data ? args->data : NULL;
    struct fd_name to;
    int r;

    if (args->has_type && strcmp(args->type, "overlay") == 0 && args->has_data &&
        (session->worker->exposed || layers_are_special(args)))
        return overlay_in_steps(session, caller, args, making->flags, making->target,
                                making->verdict);
    if (making->fs == ECI_FS_PROC) {
        r = rewrite_proc(&options, args);
        data = options.out;
    } else if (args->has_type && args->has_data && strncmp(args->type, "fuse", 4) == 0) {
        r = rewrite(&options, args, fuse_option);
        data = options.out;
    } else {
        r = 0;
    }
    if (r == 0 && session->worker->build >= 0 && args->has_type && is_shown) {
        (void)session_take_turn(session);
        caller_resume(session, caller);
        r = kernfs_mount(session, caller, kernfs_of(making->fs), args, making->flags, data,
                         making->target);
    } else if (r == 0 &&
               (session_to_fds(session) < 0 ||
                mount(args->has_source ? args->source : NULL, name_fd(&to, making->target),
                      args->has_type ? args->type : NULL, making->flags, data) < 0)) {
        r = -errno;
    }
    close_options(&options);
    return r;
}

/* Body of a thread that is in the caller's namespaces for one mount. */
static void *make_in_namespaces(void *context)
{
    struct making *making = context;
    struct caller caller = *making->caller; /* whose ids and capabilities this thread has as well */

    making->caller = &caller;
    making->result = unshare(CLONE_FS) < 0
                         ? -errno
                         : caller_enter_namespaces(&caller, shown_namespaces(making->args));
    if (making->result == 0)
        making->result = make_new(making, true);
    return NULL;
}

/*
 * A new file system.  Its super block belongs to the user namespace that we share with the
 * caller; what procfs, sysfs, mqueue and cgroup show is that of the caller's other namespaces.
 * Into these goes a thread that ends with the call: one that stayed would keep them alive, and
 * see where a cgroup mount begins from a place of the container's choice.
 */
int perform_new(struct session *session, struct caller *caller, const struct mount_args *args,
                uint64_t flags, uint32_t fs, int target, struct eci_verdict *verdict)
{
    struct making making = {session, caller, args, flags, fs, target, verdict, 0};
    pthread_t thread;
    int r;

    if (!shown_namespaces(args))
        return make_new(&making, fs == ECI_FS_PROC);
    (void)session_take_turn(session); /* not by the other thread, which could not give it back */
    r = pthread_create(&thread, NULL, make_in_namespaces, &making);
    if (r != 0)
        return -r;
    pthread_join(thread, NULL);
    session->on_fds = false; /* it spoke of itself */
    return making.result;
}

/* Finds directory and name of a mount that the path did not tell ("..", a magic link). */
int perform_find_name(uint64_t mnt_id, struct target *target)
{
    char point[PATH_MAX];
    char *slash;
    struct statx stx;
    int r = facts_mount_point(mnt_id, point);

    if (r < 0)
        return r;
    slash = strrchr(point, '/');
    if (!slash || !slash[1] || strlen(slash + 1) > NAME_MAX)
        return -ENOENT;
    *slash = 0;
    target->parent = open(*point ? point : "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (target->parent < 0)
        return -errno;
    memcpy(target->name, slash + 1, strlen(slash + 1) + 1);
    if (stat_object(target->parent, target->name, &stx) < 0 || stx.stx_mnt_id != mnt_id) {
        close_fd(&target->parent);
        target->parent = -1;
        return -ENOENT;
    }
    return 0;
}

/*
 * MNT_EXPIRE marks a mount, and a second call removes it if nobody used it meanwhile.  Our look at
 * it counts as use, so the second call has to mark it anew; whether anyone else used it between
 * the two is lost.  The worker remembers which mounts a caller has marked.
 */
static int unmount_expired(struct worker *worker, const struct target *target, uint64_t mnt_id,
                           int flags)
{
    uint64_t *marked = &worker->marked[mnt_id % MARKED];

    if (umount2(target->name, flags) == 0)
        return 0;
    if (errno != EAGAIN)
        return -errno;
    if (*marked == mnt_id)
        return umount2(target->name, flags) < 0 ? -errno : 0;
    *marked = mnt_id;
    return -EAGAIN;
}

/* Without a name, from an fd on the mount or in it, which keeps it busy. */
static int unmount_by_fd(struct session *session, int fd, uint64_t flags)
{
    struct fd_name name;
    int r = session_to_fds(session);

    if (r < 0)
        return r;
    return umount2(name_fd(&name, fd), (int)(flags & ~(uint64_t)UMOUNT_NOFOLLOW)) < 0 ? -errno : 0;
}

/* MNT_DETACH, to which no fd is in the way: the very mount that was judged. */
static int detach(struct session *session, struct target *target, uint64_t mnt_id, uint64_t flags)
{
    struct statx stx;
    int r;

    if (target->fd < 0)
        target->fd = openat(target->parent, target->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (target->fd < 0)
        return -errno;
    r = stat_object(target->fd, "", &stx);
    if (r < 0)
        return r;
    if (target->parent >= 0 && stx.stx_mnt_id != mnt_id)
        return -EBUSY; /* renamed just now */
    return unmount_by_fd(session, target->fd, flags);
}

/*
 * umount2 by directory and name, because an fd on the mount itself would keep it busy.  Every mount
 * call of the container waits for its turn, and a mount point cannot be renamed where its mount is
 * to be seen, but for a mount namespace that does not have it: see SECURITY.md.
 */
int perform_umount(struct session *session, struct target *target, uint64_t mnt_id, uint64_t flags)
{
    int r;

    /* Never the mount that the object is in: it was decided that nothing goes. */
    if (target->parent < 0 && !session->target.is_root)
        return -EINVAL;
    /* With MNT_EXPIRE as well: the kernel says EINVAL, by either name. */
    if (flags & MNT_DETACH)
        return detach(session, target, mnt_id, flags);
    /* The root of a namespace or of the caller, and what has no name there: busy anyway. */
    if (target->parent < 0)
        return unmount_by_fd(session, target->fd, flags);
    close_fd(&target->fd);
    target->fd = -1;
    r = session_to(session, target->parent);
    if (r < 0)
        return r;
    if (flags & MNT_EXPIRE)
        return unmount_expired(session->worker, target, mnt_id, (int)(flags | UMOUNT_NOFOLLOW));
    return umount2(target->name, (int)(flags | UMOUNT_NOFOLLOW)) < 0 ? -errno : 0;
}

/* move_mount(2) between what two fds stand for. */
int perform_move(int source, int target, uint64_t flags)
{
    unsigned int kept = (unsigned int)flags & (MOVE_MOUNT_SET_GROUP | MOVE_MOUNT_BENEATH);

    return syscall(SYS_move_mount, source, "", target, "",
                   kept | MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0
               ? -errno
               : 0;
}

/*
 * MS_REMOUNT|MS_BIND, by mount_setattr(2), which takes the fd itself: no name has to be looked up.
 * Either sets all flags of the mount, and neither anything but these (path_mount(),
 * do_reconfigure_mnt()); where no atime flag is given, atime stays.
 */
int perform_remount_bind(int target, uint64_t flags)
{
    const uint64_t atime = MS_NOATIME | MS_NODIRATIME | MS_RELATIME | MS_STRICTATIME;
    struct mount_attr attr = {
        .attr_set = attributes(flags),
        .attr_clr = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC |
                    MOUNT_ATTR_NOSYMFOLLOW,
    };

    if (flags & atime)
        attr.attr_clr |= MOUNT_ATTR__ATIME | MOUNT_ATTR_NODIRATIME;
    return perform_setattr(target, AT_EMPTY_PATH, &attr, sizeof(attr));
}

int perform_setattr(int target, unsigned int flags, const void *attr, size_t size)
{
    return syscall(SYS_mount_setattr, target, "", flags, attr, size) < 0 ? -errno : 0;
}

/*
 * Takes back a mount whose caller was interrupted before it got the answer.  Like mount(2) before,
 * umount2(2) goes down from the place to what lies on top there (fs/namei.c, handle_lookup_down);
 * that is the new mount, since nobody else had a turn.  (Only a file system that was mounted there
 * in this very moment without a turn would go in its place.)  0 or -errno:
 * then it has stayed.
 */
int perform_undo(struct session *session, int added_on)
{
    return unmount_by_fd(session, added_on, MNT_DETACH);
}
