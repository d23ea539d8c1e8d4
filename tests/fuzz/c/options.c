/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The options of a mount: none is overlooked that the kernel would see, and none is changed but
 * those that mean something else to us.
 */
#include "../../../csrc/perform.c"
#include "fuzz.h"

enum { ID_BASE = 100000, ID_SIZE = 65536, END = 1 };

static struct eci_policy policy = {.id_base = ID_BASE, .id_size = ID_SIZE};
static struct worker worker = {.policy = &policy, .build = -1};
static struct session session = {.worker = &worker};

/* What was seen, joined again. */
struct seen {
    char out[2 * PATH_MAX];
    size_t used;
};

static int note_option(void *context, char *key, char *value)
{
    struct seen *seen = context;

    CHECK(*key && !strchr(key, '='));
    seen->used += (size_t)snprintf(seen->out + seen->used, sizeof(seen->out) - seen->used,
                                   "%s%s%s%c", key, value ? "=" : "", value ? value : "", END);
    return 0;
}

/*
 * fs/fs_context.c, vfs_parse_monolithic_sep(), with the separators of generic_parse_monolithic() or
 * of fs/overlayfs/params.c, ovl_next_opt().
 */
static void model_options(const char *data, bool escapes, struct seen *seen)
{
    while (*data) {
        const char *end = data;
        size_t length;

        for (; *end && *end != ','; end++)
            if (escapes && *end == '\\' && end[1])
                end++;
        length = (size_t)(end - data);
        if (length && *data != '=') {
            memcpy(seen->out + seen->used, data, length);
            seen->used += length;
            seen->out[seen->used++] = END;
        }
        data = *end ? end + 1 : end;
    }
    seen->out[seen->used] = 0;
}

static void check_list(const char *data, bool escapes)
{
    struct seen *got = calloc(1, sizeof(*got));
    struct seen *want = calloc(1, sizeof(*want));
    char *copy = strdup(data);

    NEED(got && want && copy);
    CHECK(for_each_option(copy, escapes, note_option, got) == 0);
    model_options(data, escapes, want);
    CHECK(strcmp(got->out, want->out) == 0);
    free(copy);
    free(want);
    free(got);
}

/* An id of the container as the kernel shows it outside; and nothing else is one. */
static void check_translation(const char *key, const char *value)
{
    char number[16] = "";
    bool is_id = strcmp(key, "uid") == 0 || strcmp(key, "gid") == 0;
    unsigned long id = strtoul(value, NULL, 10);
    size_t digits = strspn(value, "0123456789");

    if (perform_translates(&policy, key, value, number)) {
        CHECK(is_id && id >= ID_BASE && id < ID_BASE + ID_SIZE);
        CHECK(strtoul(number, NULL, 10) == id - ID_BASE);
    } else if (is_id && digits && digits < 10 && !value[digits]) {
        CHECK(id < ID_BASE || id >= ID_BASE + ID_SIZE);
    }
    /* What has been translated is not translated once more. */
    if (*number)
        CHECK(!perform_translates(&policy, key, number, (char[16]){0}));
}

static void check_tmpfs(const struct mount_args *args)
{
    struct options *options = calloc(1, sizeof(*options));
    struct options *again = calloc(1, sizeof(*again));
    struct mount_args *second = malloc(sizeof(*second));
    int r;

    NEED(options && again && second);
    options->session = again->session = &session;
    r = rewrite(options, args, tmpfs_option);
    CHECK(r == 0 || r == -EINVAL);
    if (r == 0) {
        CHECK(strlen(options->out) == options->used);
        memcpy(second->data, options->out, sizeof(second->data));
        CHECK(rewrite(again, second, tmpfs_option) == 0);
        CHECK(strcmp(again->out, options->out) == 0);
    }
    free(second);
    free(again);
    free(options);
}

/* What a list of layers was made of comes out of it. */
static void check_layers(struct input *in)
{
    enum { LAYERS = 6 };
    char *list = calloc(1, 2 * PATH_MAX);
    char names[LAYERS][40];
    bool data_only[LAYERS];
    struct layers layers = {.at = list};
    char *end = list;
    unsigned int n = 0;

    NEED(list);
    while (in->left && n < LAYERS) {
        uint8_t what = take_byte(in);
        char name[40];

        if (take_string(in, name, sizeof(name)) == 0)
            continue;
        data_only[n] = n && (what & 1);
        if (n)
            *end++ = ':';
        if (data_only[n])
            *end++ = ':';
        strcpy(names[n++], name);
        for (const char *c = name; *c; c++) {
            if (*c == ':' || *c == '\\' || what & 2)
                *end++ = '\\';
            *end++ = *c;
        }
    }
    *end = 0;
    for (unsigned int i = 0; i < n; i++) {
        bool for_data;
        const char *layer = next_layer(&layers, &for_data);

        CHECK(layer && strcmp(layer, names[i]) == 0);
        CHECK(for_data == data_only[i]);
    }
    CHECK(n == 0 || !layers.at);
    free(list);
}

/* A layer that begins at the working directory is never taken for one that does not. */
static void check_special(const struct mount_args *args, bool special)
{
    const char *data = args->data;

    if (special || strpbrk(data, "\\:"))
        return;
    for (const char *at = data; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        static const char *const keys[] = {"lowerdir=", "upperdir=", "workdir="};

        for (unsigned int i = 0; i < 3; i++)
            if (strncmp(at, keys[i], strlen(keys[i])) == 0)
                CHECK(at[strlen(keys[i])] == '/');
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    struct mount_args *args;
    char key[16];
    char value[40];

    if (size > PATH_MAX)
        return -1;
    take_string(&in, key, sizeof(key));
    take_string(&in, value, sizeof(value));
    check_translation(key, value);
    check_translation("uid", value);
    args = calloc(1, sizeof(*args));
    NEED(args);
    args->has_data = true;
    take_string(&in, args->data, sizeof(args->data));
    check_list(args->data, true);
    check_list(args->data, false);
    check_tmpfs(args);
    check_special(args, layers_are_special(args));
    free(args);
    check_layers(&in);
    return 0;
}
