/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a notification says, and what is read from the caller's memory for it: the registers come
 * from the input, and so does the memory, which this process has itself.
 */
#include <linux/audit.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "../../../csrc/notify.c"
#include "fuzz.h"

enum { PAGE = 4096, PAGES = 3, STRINGS = 256 };

static uint8_t *memory; /* followed by a page that is not there */
static struct eci_policy policy;
static struct eci_watch *watch;
static struct worker worker = {.policy = &policy, .build = -1};

static void start(void)
{
    memory =
        mmap(NULL, (PAGES + 1) * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    NEED(memory != MAP_FAILED && munmap(memory + PAGES * PAGE, PAGE) == 0);
    watch = calloc(1, eci_watch_bytes(4));
    worker.ring = calloc(1, eci_ring_bytes(4));
    NEED(watch && worker.ring);
    eci_watch_init(watch, 4);
    eci_ring_init(worker.ring, 4);
    worker.watch = watch;
    worker.ring_event = -1;
}

static void take_data(struct input *in, struct seccomp_data *data)
{
    static const int numbers[] = {
        SYS_mount, SYS_umount2, SYS_move_mount, SYS_mount_setattr, SYS_fsmount, SYS_fsconfig, 21,
        22,        52,          SYS_openat,
    };
    uint8_t which = take_byte(in);

    data->nr = which & 0x40 ? (int)take_number(in)
                            : numbers[(which & 15) % (sizeof(numbers) / sizeof(numbers[0]))];
    data->arch = which & 0x10   ? AUDIT_ARCH_I386
                 : which & 0x20 ? (uint32_t)take_number(in)
                                : AUDIT_ARCH_X86_64;
    data->instruction_pointer = 1;
    for (unsigned int i = 0; i < 6; i++) {
        uint64_t value = take_number(in);

        /* An address in the memory, with its lowest bytes in bits 8 and up; or a number. */
        if ((value & 0xff) == 0xad)
            value = (uint64_t)memory + (value >> 8 & 0xffffffff) % (PAGES * PAGE);
        data->args[i] = value;
    }
}

/* Which calls there are: system calls by number, one table for each architecture. */
static bool is_known(const struct seccomp_data *data)
{
    bool new_one = data->nr == SYS_move_mount || data->nr == SYS_mount_setattr ||
                   data->nr == SYS_fsmount || data->nr == SYS_fsconfig;

    if (data->arch == AUDIT_ARCH_X86_64)
        return new_one || data->nr == SYS_mount || data->nr == SYS_umount2;
    return data->arch == AUDIT_ARCH_I386 &&
           (new_one || data->nr == 21 || data->nr == 22 || data->nr == 52);
}

static bool ends(const char text[PATH_MAX])
{
    return memchr(text, 0, PATH_MAX) != NULL;
}

/* A call that the kernel carries out unread is one about which no rule has anything to say. */
static void check_passing(const struct session *session, enum family family)
{
    uint64_t flags = session->notif->data.args[3];
    uint32_t reason = ECI_REASON_INTERNAL;

    if ((flags & 0xffff0000u) == 0xc0ed0000u)
        flags &= 0xffff;
    if (!call_passes_unread(session, family, &reason))
        return;
    CHECK(reason == ECI_REASON_NOTHING_COVERED || reason == ECI_REASON_AS_IT_IS);
    CHECK(!worker.exposed);
    if (family == FAMILY_FSMOUNT) {
        CHECK(worker.build < 0 && !policy.proc_masked && !policy.sysfs_masked);
        return;
    }
    CHECK(family == FAMILY_MOUNT && !worker.receives);
    CHECK(!(flags & (MS_REMOUNT | MS_BIND)));
    if (flags & (MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE))
        CHECK(!(flags & MS_UNBINDABLE));
    else
        CHECK(!(flags & MS_MOVE) && worker.build < 0 && !policy.proc_masked &&
              !policy.sysfs_masked);
}

static void check_texts(struct session *session, enum family family)
{
    struct text texts[ECI_EVENT_STRINGS];
    struct eci_event event = {0};
    unsigned int n = call_texts(session, family, texts);

    CHECK(n <= ECI_EVENT_STRINGS);
    for (unsigned int i = 0; i < n; i++) {
        CHECK(texts[i].length < PATH_MAX || session->args.data_size);
        put_text(&event, i, &texts[i]);
        CHECK(texts[i].given ? event.length[i] == texts[i].length
                             : event.length[i] == ECI_STRING_NULL);
        if (texts[i].given)
            CHECK(memcmp(event.text[i], texts[i].text,
                         texts[i].length < ECI_EVENT_STRING ? texts[i].length : ECI_EVENT_STRING) ==
                  0);
    }
}

/* The same call is the same, and one with another string or flag is another. */
static void check_again(const struct session *session, struct untold *untold)
{
    untold->data = session->notif->data;
    untold->args = session->args;
    CHECK(same_call(untold, session));
    untold->data.args[5] ^= 1; /* no call has a sixth */
    CHECK(same_call(untold, session));
    untold->data.args[0] ^= 1;
    CHECK(!same_call(untold, session));
    untold->data.args[0] ^= 1;
    if (session->args.has_path) {
        untold->args.path[0] ^= 1;
        CHECK(!same_call(untold, session));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct session *session; /* on the heap: whatever leaves a member is not seen, but all */
    static struct untold untold;
    static struct seccomp_notif notif;
    struct input in = {data, size};
    struct eci_verdict verdict = {0};
    enum family family;
    uint8_t world;
    uint32_t reason;
    int r;

    if (!memory)
        start();
    free(session);
    session = calloc(1, sizeof(*session));
    NEED(session);
    session->worker = &worker;
    session->notif = memset(&notif, 0, sizeof(notif));
    session->notif->pid = (uint32_t)getpid();
    world = take_byte(&in);
    policy.proc_masked = world & 1;
    policy.sysfs_masked = world >> 1 & 1;
    worker.exposed = world >> 2 & 1;
    worker.receives = world >> 3 & 1;
    worker.build = world & 0x10 ? 0 : -1;
    policy.id_base = 100000;
    policy.id_size = 65536;
    take_data(&in, &session->notif->data);
    memset(memory, 0, PAGES * PAGE);
    /* Strings one after the other, and at the end of the last page the rest of the input. */
    for (size_t at = 0; in.left && at < STRINGS; at += strlen((char *)memory + at) + 1)
        take_string(&in, (char *)memory + at, STRINGS / 2);
    if (in.left > PAGE)
        in.left = PAGE;
    memcpy(memory + PAGES * PAGE - in.left, in.at, in.left);
    memset(&session->args, 'x', sizeof(session->args)); /* of the call before */

    family = call_family(&session->notif->data);
    CHECK((family != FAMILY_NONE) == is_known(&session->notif->data));
    CHECK(call_arguments(family) <= 5);
    check_passing(session, family);
    if (family == FAMILY_NONE)
        return 0;
    r = call_read(session, family);
    CHECK(r <= 0 && r > -4096);
    CHECK(!session->args.has_source || ends(session->args.source));
    CHECK(!session->args.has_path || ends(session->args.path));
    CHECK(!session->args.has_type || ends(session->args.type));
    CHECK(!session->args.has_data || session->args.data_size || ends(session->args.data));
    CHECK(session->args.data_size <= sizeof(session->args.data));
    /* A call that is answered with an error is shown, too. */
    check_texts(session, family);
    if (r < 0)
        return 0;
    /* What was not read is looked at as an empty path. */
    if (family != FAMILY_FSMOUNT && family != FAMILY_FSCONFIG)
        CHECK(ends(session->args.path) && ends(session->args.source));
    (void)call_begins_at_cwd(session, family);
    (void)call_begins_at_root(session, family);
    if (call_passes(session, family, &reason))
        CHECK(family == FAMILY_FSCONFIG);
    check_again(session, &untold);
    session->shown = true;
    session->followed = true;
    verdict.reason = world & 0x20 ? ECI_REASON_LOOSEN : ECI_REASON_PERFORMED;
    record(session, family, &verdict, false, true, 0);
    return 0;
}
