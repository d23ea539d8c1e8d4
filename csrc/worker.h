/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the worker: one process per container, one thread per listener.
 *
 * Functions return >= 0 or -errno; where they hand out an fd, the caller of the function owns
 * it.  "Caller" without more words is the container's thread that waits in the kernel.
 */
#ifndef ECI_WORKER_H
#define ECI_WORKER_H

#include <limits.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include "api.h"

static inline void close_fd(const int *fd)
{
    if (*fd >= 0)
        close(*fd);
}
/* Ownership in the declaration: closed when the scope ends, unless taken. */
#define cleanup_fd __attribute__((cleanup(close_fd)))

static inline int take_fd(int *fd)
{
    int taken = *fd;

    *fd = -1;
    return taken;
}

enum { MARKED = 64, KEPT = 64, UNTOLD = 16, MAX_SESSIONS = 1024 };
/* The words of worker.c that are fds. */
enum { GIVEN_CONTROL, GIVEN_RING, GIVEN_EVENT, GIVEN_WATCH, GIVEN_USAGE, GIVEN_RECLAIM, GIVEN };

/*
 * What a session is at.  From the beginning of a call on it is the time of that, made even; then
 * the same number made odd: so whoever looks twice sees whether a call came in between.
 */
#define SESSION_RESTS   UINT64_C(1)
#define SESSION_IS_LEFT UINT64_C(2) /* its call has held it up: another thread has its listener */

struct caps {
    struct __user_cap_data_struct data[2];
};

/* File systems that show the kernel itself. */
enum kernfs { KERNFS_PROC, KERNFS_SYS, KERNFS_NONE };

/* A detached mount that was made for a caller. */
struct kept {
    uint64_t mnt_id; /* unique, of what the caller has an fd of; 0: a free place */
    int fd;          /* owned; the mount goes when it is closed */
    int stand_in;    /* owned; what the caller has an fd of, where that is not the mount; or -1 */
};

/* What getdents64(2) fills in. */
struct directory_entry {
    uint64_t ino;
    int64_t offset;
    uint16_t size;
    uint8_t type;
    char name[];
};

/* Strings of a call, as read from the caller's memory. */
struct mount_args {
    char source[PATH_MAX];
    char path[PATH_MAX];
    char type[PATH_MAX];
    char data[PATH_MAX];
    bool has_source;
    bool has_path;
    bool has_type;
    bool has_data;
    size_t data_size; /* of what stands in `data`, where that is no string */
    int path_error;   /* a path that could not be read, when that is told later */
};

/* A call that was performed, and whose caller was interrupted before it could be told. */
struct untold {
    struct seccomp_data data;
    struct mount_args args;
    uint32_t tid;  /* 0: a free place */
    int dir;       /* owned; O_PATH, /proc/TID: stands for that very thread */
    int answer;    /* 0 or -errno */
    uint64_t made; /* the kept mount that the answer is an fd of, or 0 */
};

/* How far a call has come that the kernel does not carry out itself. */
enum stage {
    STAGE_RECEIVED,   /* or there is none, where `notif.pid` is 0 as well */
    STAGE_PERFORMING, /* decided; whether it has been performed is to be found out: recover.c */
    STAGE_PERFORMED,  /* the answer is known */
};

/*
 * A listener, and the call that was received on it last.  It outlives the process that serves it.
 * A process can be killed after each instruction, so what makes something valid is written last,
 * and what makes it void first.
 */
struct flight {
    bool taken;   /* false: a free place */
    int listener; /* owned */
    struct {
        enum stage stage;
        unsigned int attempts; /* how many processes have taken it up that came later */
        int answer;            /* 0 or -errno */
        uint64_t made;         /* the kept mount that the answer is an fd of, or 0 */
        uint64_t mnt_id;       /* unique: what goes, what is moved, or where a new mount lies on */
        uint64_t parent;       /* of what is moved, the mount that it lay on; 0: it was detached */
        struct seccomp_notif notif; /* the kernel writes it */
    } call; /* `stage`, `attempts`, `made` and `notif` are 0 before the next one is received */
};

/*
 * What all threads share, in memory that the holder and each process that serves have in common.
 * Written before the first thread starts, read only afterwards, but where it says something else.
 */
struct worker {
    struct eci_policy *policy;
    struct eci_ring *ring;
    int ring_event; /* eventfd, wakes the reader of the ring */
    struct eci_watch *watch;
    int proc;     /* O_PATH, the host's /proc: pids are the host's */
    int self_fds; /* /proc/self/fd of the host's procfs: names any of our fds as "N" */
    int home;     /* a mount namespace that has the host's procfs: worker_find_self() */
    int holder;   /* a pidfd of the process that starts the next one where this one is killed */
    int userns;   /* the container's user namespace */
    int mntns;    /* mount namespace of the container's first process */
    uint64_t userns_ino;
    uint64_t mntns_ino;
    struct caps caps;  /* full set of the worker */
    const char *cover; /* records of NUL-terminated text, see kernfs.c */
    size_t cover_size;
    uint32_t masks_major; /* super block of the masks */
    uint32_t masks_minor;
    bool exposed; /* an initial mount shows a host-protected path, or what lies above one */
    int busy[8];  /* what facts_prepare() keeps open, see there */
    unsigned int n_busy;
    bool receives; /* what the host mounts later comes into the container */
    int build;     /* mount namespaces of kernfs.c; -1 where nothing is covered */
    int locked;
    uint64_t kernfs_flags[2]; /* MOUNT_ATTR_* that a new procfs or sysfs has to have */
    /*
     * From deciding to replying, one call at a time: what was decided about a name must still be
     * what the name means when the kernel looks it up again.  Looking up may wait for ever, for a
     * file system that does not answer, so it comes before: session_take_turn(), `changes`.  Calls
     * that the kernel carries out itself (call_passes_unread) take no turn: they take no mount
     * away, and what they add may be there at any time.  New file systems are made without one, for
     * the same reason.  Unmounts and binds that are not trapped (runtime/spare.py) take none
     * either: then nothing is decided that goes by a name, or by what a tree consists of.
     */
    pthread_mutex_t turn;
    uint64_t changes; /* atomic; how many calls were performed with a turn */
    uint64_t parted;  /* atomic; how often somebody's namespaces may have changed: caller_parts() */
    /* Written by whoever makes the first call after a while: the main thread is to keep watch. */
    int wake;                /* eventfd */
    bool watching;           /* atomic; it does */
    bool full;               /* atomic; memory.c: nothing is added */
    unsigned int n_left;     /* the main thread's: sessions that are SESSION_IS_LEFT */
    unsigned int looks;      /* likewise: how often in a row there was nothing to be seen */
    uint64_t memory_most;    /* memory.c: bytes; 0: no bound */
    uint64_t reclaimed;      /* atomic, as `at` of a session: when it was last to drop something */
    unsigned int added;      /* atomic; calls that added mounts */
    int base_score;          /* of the first holder, and ... */
    int score;               /* ... its /proc/PID/oom_score_adj */
    uint64_t marked[MARKED]; /* unique ids of mounts that MNT_EXPIRE has marked; likewise */
    struct kept kept[KEPT];  /* under `turn` */
    unsigned int next_kept;
    unsigned int n_stand_ins;     /* how many of them have one: nearly always none */
    struct untold untold[UNTOLD]; /* likewise */
    unsigned int next_untold;
    unsigned int n_untold; /* how many places are taken: nearly always none */
    int given[GIVEN];      /* fds that the supervisor gave, in the order of the words of worker.c */
    unsigned int n_flights; /* places in the following that were ever taken */
    struct flight flights[MAX_SESSIONS];
};

/* Who is calling. */
struct caller {
    pid_t tid; /* 0: nobody yet */
    int dir;   /* O_PATH, /proc/TID */
    int pidfd; /* of the thread; -1 where the kernel has none of that */
    int cwd;   /* O_PATH; opened by caller_stand_in() where a path needs it, else -1 */
    int stat;  /* /proc/TID/stat and syscall; opened by caller_is_awake(), else -1 */
    int syscall;
    uint64_t parted;    /* the worker's, when the following was found out */
    uint64_t in_userns; /* inode number; 0: not asked yet */
    uint64_t in_mntns;  /* likewise */
    bool asked;         /* in this call its mount namespace was asked for, ... */
    bool told;          /* ... and its ids */
    /* Of a caller that calls often, else -1: fds of its own entries of procfs. */
    int userns; /* O_PATH, the link ns/user */
    int mntns;  /* the same of ns/mnt */
    int comm;
    unsigned int calls; /* one after the other */
    struct caps caps;
    struct caps taken; /* while `assumed`: what the worker's thread has of them */
    uint32_t fsuid;
    uint32_t fsgid;
    bool assumed;
    bool rooted; /* the thread has the caller's root: caller_take_root() */
};

/* The calls of the mount family; counts have them in this order, too: kernel/watch.py. */
enum family {
    FAMILY_NONE,
    FAMILY_MOUNT,
    FAMILY_UMOUNT,
    FAMILY_OLDUMOUNT, /* umount(2) of i386 */
    FAMILY_MOVE_MOUNT,
    FAMILY_MOUNT_SETATTR,
    FAMILY_FSMOUNT,
    FAMILY_FSCONFIG, /* FSCONFIG_SET_STRING only */
    FAMILY_SETNS,    /* never decided, nor counted: caller_parts() */
    FAMILY_UNSHARE,  /* likewise */
};

/* A string or struct of the call, for an event. */
struct text {
    bool given;
    const char *text;
    size_t length;
};

/* One thread: serves one listener. */
struct session {
    struct worker *worker;
    struct flight *flight;
    int listener;         /* the flight's */
    bool away;            /* root or namespace is not the container's own: go home after the call */
    bool on_fds;          /* the working directory is `self_fds` */
    struct caller caller; /* the last one: mostly the next as well */
    struct seccomp_notif *notif; /* the flight's */
    struct seccomp_notif_resp resp;
    struct mount_args args;
    struct eci_place source;
    struct eci_place target;
    pthread_t thread;
    uint64_t at; /* atomic: SESSION_* */
    bool has_turn;
    uint64_t changes; /* the worker's, before anything was looked up */
    char comm[16];    /* the caller's command name, where an event will want it */
    int result;       /* an fd that the caller gets, or -1 */
    uint32_t result_flags;
    uint64_t made; /* the kept mount that it is an fd of, or 0 */
    int added_on;  /* O_PATH, where a mount was added that can be taken back; or -1 */
    bool followed; /* somebody follows the container, and wants to see this call */
    bool shown;    /* this call becomes an event, whatever comes of it */
    bool noted;    /* `noted_as` holds what a refused call was about */
    struct {
        struct eci_object object;
        char path[ECI_EVENT_STRING]; /* cut, not terminated when cut */
    } noted_as[ECI_EVENT_OBJECTS];
    bool done;     /* atomic: the thread has ended */
    sem_t settled; /* posted once nothing of a former process's is left to do */
    /* The main thread's: */
    struct session *next;
    unsigned int slot; /* in what it polls */
    bool hung_up;      /* nobody has the filter any more */
    bool left;         /* SESSION_IS_LEFT */
    bool succeeded;    /* that other thread has been started */
    uint64_t seen;     /* `at`, when it last looked */
};

/* caller.c */
bool try_again(unsigned int *tried);
int worker_enter(struct worker *worker, pid_t pid);
int worker_settle(struct worker *worker);
int worker_find_self(struct worker *worker);
int session_enter(struct session *session);
int session_to_fds(struct session *session);
int session_to(struct session *session, int dir);
void session_strays(struct session *session);
void caller_parts(struct session *session, enum family family);
bool caller_was_elsewhere(struct session *session, struct caller *caller);
int caller_settle(struct session *session, struct caller *caller, uint32_t *reason);
int caller_stand_in(struct session *session, struct caller *caller, bool with_root, bool with_cwd);
int caller_take_root(struct session *session, struct caller *caller);
int caller_assume(struct session *session, struct caller *caller);
void caller_resume(struct session *session, struct caller *caller);
void caller_leave(struct session *session, struct caller *caller);
int caller_comm(struct caller *caller, char *text, size_t size);
int read_text(int dir, const char *path, char *text, size_t size);
int caller_enter_namespaces(struct caller *caller, const char *const names[]);
int caller_open_at(const struct caller *caller, int dir, const char *path, int flags);
int caller_open_own(const struct caller *caller, const char *path, int flags);
int caller_fd(const struct caller *caller, int fd);
int caller_file(const struct caller *caller, int fd);
bool caller_is_awake(struct caller *caller);
void caller_init(struct caller *caller);
void caller_close(struct caller *caller);

/* remote.c: the caller's memory. */
bool remote_strings(pid_t tid, const uint64_t address[3], char *const out[3]);
bool remote_struct(pid_t tid, uint64_t address, void *out, size_t size, uint64_t string,
                   char text[PATH_MAX]);
int remote_path(pid_t tid, uint64_t address, char out[PATH_MAX]);
int remote_string(pid_t tid, uint64_t address, char out[PATH_MAX], bool *given);
int remote_bytes(pid_t tid, uint64_t address, void *out, size_t size);
int remote_page(pid_t tid, uint64_t address, char out[PATH_MAX], bool *given);

/* resolve.c: paths as the caller sees them. */
enum want {
    WANT_OBJECT = 1, /* target.fd */
    WANT_NAME = 2,   /* target.parent and target.name, where there is such a pair */
};
struct target {
    int fd;     /* O_PATH, what the path names; -1 where only the name was wanted */
    int parent; /* O_PATH directory that holds `name`; -1 where there is none */
    int lent; /* the caller's working directory, or -1: not the target's, but it may be `parent` */
    char name[NAME_MAX + 1];
    struct statx stx; /* of the object, as stat_object() has it */
};
#define TARGET_INIT                                                                                \
    {                                                                                              \
        .fd = -1, .parent = -1, .lent = -1                                                         \
    }
int resolve(struct session *session, struct caller *caller, int base, const char *path, bool follow,
            unsigned int want, struct target *target);
bool resolve_leads_down(const char *path);
int resolve_down(const struct worker *worker, struct target *target);
int stat_at(int fd, const char *name, struct statx *stx);
int stat_object(int fd, const char *name, struct statx *stx);
#define NO_MOUNT UINT64_MAX /* an id that no mount has, in what that finds out */
void target_close(struct target *target);

/* facts.c: what an fd stands for. */
struct beneath {
    uint64_t mnt_id; /* unique; beneath which mount */
    uint64_t ids[256];
    unsigned int n;
    unsigned int at;
};
int facts_next(struct beneath *beneath, uint64_t *mnt_id);
int facts_place(const struct worker *worker, const struct target *target, struct eci_place *place);
int facts_storage(struct eci_place *place);
void facts_covered(const struct worker *worker, const struct target *target,
                   struct eci_place *place);
int facts_parent(uint64_t mnt_id, uint64_t *parent);
int facts_mount_point(uint64_t mnt_id, char out[PATH_MAX]);
int facts_on_top(const struct worker *worker, const struct target *target, struct eci_place *place);
int facts_magic(uint64_t mnt_id, uint64_t *magic);
int facts_attributes(uint64_t mnt_id, uint64_t *attributes);
int facts_held_by(const struct worker *worker, uint64_t mnt_id, uint32_t *held);
int facts_held(struct session *session, const struct target *target, uint64_t cleared,
               bool recursive, uint32_t *held);
int facts_prepare(struct worker *worker);

/* kernfs.c: procfs and sysfs with masks. */
bool kernfs_covers(const struct worker *worker, enum kernfs kind);
int kernfs_open(struct worker *worker);
int kernfs_enter(struct worker *worker);
int kernfs_mount(struct session *session, const struct caller *caller, enum kernfs kind,
                 const struct mount_args *args, uint64_t flags, const char *data, int target);
bool kernfs_has_masks_only(const struct worker *worker, struct eci_place *place);
int kernfs_fsmount(struct session *session, struct caller *caller, int context, unsigned int flags,
                   unsigned int attributes, struct eci_verdict *verdict, int *stand_in);

/* exchange.c: the container's first ones. */
int exchange_all(struct worker *worker, char *failed, size_t size);

/* perform.c: carrying out what was decided. */
int perform_new(struct session *session, struct caller *caller, const struct mount_args *args,
                uint64_t flags, uint32_t fs, int target, struct eci_verdict *verdict);
int perform_on(struct session *session, int source, int target, uint64_t flags, const char *data,
               bool has_data);
int perform_remount_bind(int target, uint64_t flags);
int perform_remount(struct session *session, int target, uint64_t flags,
                    const struct mount_args *args);
int perform_umount(struct session *session, struct target *target, uint64_t mnt_id, uint64_t flags);
int perform_undo(struct session *session, int added_on);
bool perform_translates(const struct eci_policy *policy, const char *key, const char *value,
                        char number[16]);
int perform_find_name(uint64_t mnt_id, struct target *target);
int perform_move(int source, int target, uint64_t flags);
int perform_setattr(int target, unsigned int flags, const void *attr, size_t size);

/* tree.c: mount_setattr(2) of a tree, mount by mount. */
int tree_setattr(struct session *session, const struct target *target, const void *attr,
                 size_t size, uint64_t cleared);

/* calls.c: what the calls are, and how each is settled. */
enum family call_family(const struct seccomp_data *data);
unsigned int call_arguments(enum family family);
int call_read(struct session *session, enum family family);
bool call_begins_at_cwd(const struct session *session, enum family family);
bool call_begins_at_root(const struct session *session, enum family family);
unsigned int call_texts(const struct session *session, enum family family,
                        struct text texts[ECI_EVENT_STRINGS]);
int call_perform(struct session *session, struct caller *caller, enum family family,
                 struct eci_verdict *verdict);
bool call_passes_unread(const struct session *session, enum family family, uint32_t *reason);
bool call_passes(struct session *session, enum family family, uint32_t *reason);
int call_hand_out(struct session *session, uint64_t made);
void call_let_go(struct worker *worker, uint64_t made);

/* worker.c */
bool session_start(struct worker *worker, struct flight *flight, struct session **all);

/* memory.c: what mounts take of it. */
bool memory_is_full(struct session *session, bool recursive);
int memory_set_up(struct worker *worker);
void memory_expose(const struct worker *worker, bool exposed);

/* hangs.c: calls that take for ever. */
void hangs_wake(const struct worker *worker);
void hangs_look(struct worker *worker, struct session **all);

/* notify.c: the protocol. */
void session_serve(struct session *session, const bool *leave);
int session_take_turn(struct session *session);
bool session_is_awaited(const struct session *session);
void untold_sweep(struct worker *worker);

/* recover.c: what a process finds that comes after one that was killed. */
static inline bool flight_is_in_doubt(const struct session *session)
{
    return session->flight->call.stage == STAGE_PERFORMING;
}

/* From here on the call may have been performed; `mnt_id` and `parent` as in struct flight. */
static inline void flight_performs(struct session *session, uint64_t mnt_id, uint64_t parent)
{
    struct flight *flight = session->flight;

    flight->call.mnt_id = mnt_id;
    flight->call.parent = parent;
    __atomic_store_n(&flight->call.stage, STAGE_PERFORMING, __ATOMIC_RELEASE);
}
bool flight_umounted(const struct session *session);
bool flight_added(const struct session *session);
bool flight_moved(const struct session *session, uint64_t top);
struct flight *flight_take(struct worker *worker, int listener);
void flight_leave(struct flight *flight);
int worker_recover(struct worker *worker);

#endif
