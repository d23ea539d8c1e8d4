/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The words that an engine calls the runtime with, and what the launcher reads of files: of any
 * words, those that are not ours come out as they went in.
 *
 * words.py calls `fuzz_subcommand` of the same file, to compare it with the Python half.
 */
#define main launcher_main
#include "../../../csrc/launcher.c"
#undef main
#include "fuzz.h"

enum { WORDS = 24 };

/* The index of the sub-command in `argv`, as the launcher finds it; 0 where there is none. */
int fuzz_subcommand(int argc, char **argv, int crun);
__attribute__((visibility("default"))) int fuzz_subcommand(int argc, char **argv, int crun)
{
    struct call call = {.crun = crun};

    read_words(&call, argc, argv);
    return call.subcommand ? call.at : 0;
}

static void check_words(struct input *in)
{
    char *argv[WORDS + 2] = {0};
    char *before[WORDS + 2] = {0};
    struct call call = {.crun = take_byte(in) & 1};
    char text[4096];
    int argc = 0;
    int at;

    argv[argc++] = strdup("runc");
    while (in->left && argc <= WORDS) {
        take_string(in, text, sizeof(text));
        argv[argc++] = strdup(text);
    }
    memcpy(before, argv, sizeof(before));
    read_words(&call, argc, argv);
    CHECK(call.at >= 0 && call.at <= argc);
    CHECK(call.subcommand == (call.at ? argv[call.at] : NULL));
    for (int i = 1; i < call.at; i++) /* what is before it begins like a flag, or is its value */
        CHECK(argv[i][0] == '-' || (argv[i - 1][0] == '-' && !strchr(argv[i - 1], '=')));
    if (call.subcommand) {
        at = exec_operand(&call, argc, argv);
        CHECK(at == 0 || (at > call.at && at < argc));
        (void)exec_container(&call, argc, argv);
    }
    (void)creates(&call);
    drop_settings(&call, argc, argv);
    at = 0;
    for (int i = 0; i <= argc; i++)
        if (!call.settings || i < call.settings || i >= call.settings + call.settings_words)
            CHECK(argv[at++] == before[i]);
    for (int i = 0; i < argc; i++)
        free(before[i]);
}

/* What is written into a log of JSON is one string, and the same text. */
static void check_json(struct input *in)
{
    char text[512];
    char *out = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&out, &size);
    const char *at;

    NEED(file);
    take_string(in, text, sizeof(text));
    put_json(file, text);
    fclose(file);
    at = out;
    for (const char *c = text; *c; c++) {
        unsigned int code = (unsigned char)*at;

        CHECK(code >= 0x20 && code != '"');
        if (code != '\\') {
            at++;
        } else if (at[1] == 'u') {
            CHECK(sscanf(at + 2, "%4x", &code) == 1);
            at += 6;
        } else {
            code = (unsigned char)at[1];
            at += 2;
        }
        CHECK(code == (unsigned char)*c);
    }
    CHECK(*at == 0);
    free(out);
}

/* A name of a command can look like anything, and the start time is found behind it. */
static void check_stat(struct input *in)
{
    unsigned long long start = take_number(in);
    char comm[64];
    char line[1024];
    const char *found;

    take_string(in, comm, sizeof(comm));
    snprintf(line, sizeof(line),
             "77 (%s) S 1 1 1 0 -1 4194560 1 1 1 1 1 1 1 1 20 0 1 0 %llu 5000 100 18446744073709",
             comm, start);
    found = start_in(line);
    CHECK(found && strtoull(found, NULL, 10) == start);
    take_string(in, line, sizeof(line));
    found = start_in(line);
    CHECK(!found || (found > line && found <= line + strlen(line)));
}

static void check_record(struct input *in)
{
    char text[1024];
    unsigned long long start = 0;
    long pid = 0;

    take_string(in, text, sizeof(text));
    if (first_process(text, &pid, &start))
        CHECK(pid > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};

    if (size > 4096)
        return -1;
    switch (take_byte(&in) % 4) {
    case 0:
        check_words(&in);
        break;
    case 1:
        check_json(&in);
        break;
    case 2:
        check_stat(&in);
        break;
    default:
        check_record(&in);
        break;
    }
    return 0;
}
