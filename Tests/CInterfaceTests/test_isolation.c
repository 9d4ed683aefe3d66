#define _GNU_SOURCE
#include "support.h"
#include "tests.h"

#include <ftw.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- Tenants ---- */

enum { CALLS = 6, MESSAGE_BYTES = 512 };

/* Calls everything that takes a sequence's name, in the name of tenant "b". */
static void call_with(reelkv_store *store, const char *kind, const char *name, char messages[CALLS][MESSAGE_BYTES]) {
    char sequence[64];
    snprintf(sequence, sizeof sequence, "%s/%s", kind, name);
    for (int call = 0; call < CALLS; call++) {
        reelkv_prefix *prefix = NULL;
        char *json = NULL;
        reelkv_status status = REELKV_OK;
        switch (call) {
        case 0: status = reelkv_sequence_prefix(store, sequence, "b", 0, &prefix); break;
        case 1: status = reelkv_sequence_json(store, sequence, "b", &json); break;
        case 2: status = reelkv_fork(store, sequence, "b", "forked", UINT64_MAX); break;
        case 3: status = reelkv_truncate(store, name, "b", 1); break;
        case 4: status = reelkv_remove(store, sequence, "b"); break;
        case 5: status = reelkv_set_pinned(store, sequence, "b", 1); break;
        }
        CHECK_EQUAL(status, REELKV_NOT_FOUND);
        CHECK(prefix == NULL && json == NULL);
        /* the name is what the caller has said itself: put a fixed word in its place */
        const char *message = reelkv_last_error(), *found = strstr(message, name);
        CHECK(found != NULL);
        snprintf(messages[call], MESSAGE_BYTES, "%.*sNAME%s", (int)(found - message), message, found + strlen(name));
    }
}

static void other_tenants(void) {
    reelkv_store *store = make_store(small_shape, new_path());
    cache *secret = make_cache(small_shape, 300, 1), *own = make_cache(small_shape, 70, 2);
    write_tenants(store, "a", "session/taken", secret, 0, 300, NULL);
    write_tenants(store, "a", "video/taken", secret, 0, 300, NULL);
    write_tenants(store, "b", "session/own", own, 0, 70, NULL);

    reelkv_prefix *prefix = NULL, *theirs = NULL;
    reelkv_tokens tokens = tokens_of(secret, 0, 300);
    OK(reelkv_longest_prefix(store, "m", "b", &tokens, NULL, 0, &prefix));
    CHECK_EQUAL(describe(prefix).token_count, 0);
    CHECK_EQUAL(describe(prefix).stop, REELKV_STOP_NOT_STORED);
    reelkv_prefix_free(prefix);
    char *json = NULL;
    OK(reelkv_sequences_json(store, NULL, "b", 1, &json));
    CHECK(strstr(json, "taken") == NULL && strstr(json, "\"a\"") == NULL);
    CHECK(json_has(json, "session/own"));

    const char *kinds[] = {"session", "video"};
    for (int kind = 0; kind < 2; kind++) {
        char taken[CALLS][MESSAGE_BYTES], nobodys[CALLS][MESSAGE_BYTES];
        call_with(store, kinds[kind], "taken", taken);
        call_with(store, kinds[kind], "free", nobodys);
        for (int call = 0; call < CALLS; call++) CHECK(strcmp(taken[call], nobodys[call]) == 0);
    }

    /* a prefix of one tenant's is not where another's session can start */
    OK(reelkv_sequence_prefix(store, "session/taken", "a", 0, &theirs));
    reelkv_writer_options options = REELKV_INIT(reelkv_writer_options);
    options.tenant = "b";
    options.start = theirs;
    reelkv_writer *writer = NULL;
    FAILS(REELKV_MODEL_MISMATCH, reelkv_writer_open(store, "session/new", "m", &options, &writer));

    cache *restored = restore_all(store, theirs, small_shape);
    CHECK(equal_caches(secret, restored));
    CHECK(json_has(verify_json(store), "\"sound\":true"));
    reelkv_prefix_free(theirs);
    reelkv_store_close(store);
    free_cache(secret);
    free_cache(own);
    free_cache(restored);
}

/* ---- Files ---- */

static int entries, new_entries, checked_entries;
static char store_path[512];
static char known[4096][512];

static int note(const char *path, const struct stat *status, int type, struct FTW *walk) {
    (void)status, (void)type, (void)walk;
    CHECK(entries < 4096);
    snprintf(known[entries++], sizeof known[0], "%s", path);
    return 0;
}

static int compare(const char *path, const struct stat *status, int type, struct FTW *walk) {
    (void)status, (void)type, (void)walk;
    for (int index = 0; index < entries; index++) {
        if (strcmp(known[index], path) == 0) return 0;
    }
    new_entries++;
    char volumes[600], leases[600];
    snprintf(volumes, sizeof volumes, "%s/volumes/0", store_path);
    snprintf(leases, sizeof leases, "%s/leases", store_path);
    const char *end = path + strlen(path) - strlen(".lock");
    CHECK(strncmp(path, volumes, strlen(volumes)) == 0 || strncmp(path, leases, strlen(leases)) == 0 || strcmp(end, ".lock") == 0);
    return 0;
}

static void names(void) {
    const char *path = new_path();
    snprintf(store_path, sizeof store_path, "%s", path);
    reelkv_store *store = make_store(small_shape, path);
    cache *written = make_cache(small_shape, 50, 1);
    char parent[512], too_long[202];
    snprintf(parent, sizeof parent, "%s", path);
    dirname(parent);
    entries = new_entries = 0;
    nftw(parent, note, 16, FTW_PHYS);
    /* names, and no paths */
    const char *like_paths[] = {"/etc/passwd", "../../x", "..", ".", "a/../b"};
    for (size_t index = 0; index < sizeof like_paths / sizeof *like_paths; index++) {
        char sequence[64];
        snprintf(sequence, sizeof sequence, "session/%s", like_paths[index]);
        write_tenants(store, like_paths[index], sequence, written, 0, 50, NULL);
        char *json = NULL;
        OK(reelkv_sequence_json(store, sequence, like_paths[index], &json));
        CHECK(json_has(json, sequence));
    }
    nftw(parent, compare, 16, FTW_PHYS);
    CHECK(new_entries > 0);

    memset(too_long, 'x', sizeof too_long - 1);
    too_long[201] = 0;
    const char *refused[] = {"", "a\nb", "\x1b[2J", "\x7f", "\xc2\x9b", "\xff", too_long};
    for (size_t index = 0; index < sizeof refused / sizeof *refused; index++) {
        char sequence[256];
        snprintf(sequence, sizeof sequence, "session/%s", refused[index]);
        reelkv_writer *writer = NULL;
        FAILS(REELKV_INVALID_ARGUMENT, reelkv_writer_open(store, sequence, "m", NULL, &writer));
        CHECK(writer == NULL);
        FAILS(REELKV_INVALID_ARGUMENT, reelkv_fork(store, "session/..", "..", refused[index], UINT64_MAX));
        FAILS(REELKV_INVALID_ARGUMENT, reelkv_tenant_create(store, refused[index], NULL));
    }
    reelkv_store_close(store);
    free_cache(written);
}

static void links(void) {
    const char *path = new_path(), *outside = new_path();
    reelkv_store *store = make_store(small_shape, path);
    cache *written = make_cache(small_shape, 200, 1);
    write_sequence(store, "video/v", written, 0, 200, NULL);
    reelkv_store_close(store);
    const char *replaced[] = {"volumes", "index.mdb", "index.mdb-lock", "volumes/00000001.mdb"};
    /* a volume is only in the way of its pages, all else in that of the store */
    const reelkv_status refusals[] = {REELKV_IO_ERROR, REELKV_IO_ERROR, REELKV_IO_ERROR, REELKV_OK};
    for (size_t index = 0; index < sizeof replaced / sizeof *replaced; index++) {
        char place[512];
        snprintf(place, sizeof place, "%s/%s", path, replaced[index]);
        CHECK(rename(place, outside) == 0 && symlink(outside, place) == 0);
        struct stat before, after;
        CHECK(stat(outside, &before) == 0);
        reelkv_status status = reelkv_store_open(path, REELKV_OPEN_READ_ONLY, &store);
        check_status(status, refusals[index], "is a symbolic link", replaced[index], __FILE__, __LINE__);
        if (status == REELKV_OK) {
            CHECK(json_has(verify_json(store), "is a symbolic link"));
            reelkv_prefix *prefix = match(store, written);
            CHECK_EQUAL(describe(prefix).token_count, 200);
            cache *restored = make_empty(small_shape, 200);
            reelkv_layer layers[LAYERS_MAX];
            fill_layers(restored, 0, 200, layers);
            FAILS_SAYING(
                REELKV_IO_ERROR, "is a symbolic link",
                reelkv_restore(store, prefix, NULL, layers, small_shape.layers, NULL));
            reelkv_prefix_free(prefix);
            reelkv_store_close(store);
            free_cache(restored);
        }
        CHECK(stat(outside, &after) == 0);
        CHECK_EQUAL(after.st_size, before.st_size);
        CHECK_EQUAL(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
        CHECK(unlink(place) == 0 && rename(outside, place) == 0);
    }
    OK(reelkv_store_open(path, 0, &store));
    CHECK_EQUAL(matched(store, written), 200);
    reelkv_store_close(store);
    free_cache(written);
}

static int check_mode(const char *path, const struct stat *status, int type, struct FTW *walk) {
    (void)path, (void)walk;
    checked_entries++;
    CHECK_EQUAL(status->st_mode & 0777, type == FTW_D ? 0700 : 0600);
    return 0;
}

static void modes(void) {
    const char *path = new_path();
    mode_t mask = umask(0);
    reelkv_store *store = make_store(small_shape, path);
    cache *written = make_cache(small_shape, 400, 1);
    uint8_t key[REELKV_KEY_BYTES] = {1, 2, 3};
    char *json = NULL;
    write_sequence(store, "session/s", written, 0, 400, NULL);
    OK(reelkv_tenant_create(store, "acme", key));
    write_tenants(store, "acme", "session/s", written, 0, 400, NULL);
    reelkv_prefix *prefix = match(store, written);
    reelkv_lease *lease = NULL;
    OK(reelkv_lease_take(store, prefix, &lease));
    OK(reelkv_compact(store, NULL));
    OK(reelkv_scrub_json(store, 0, &json));
    reelkv_free(json);
    OK(reelkv_verify_json(store, REELKV_VERIFY_REPAIR, &json));
    reelkv_free(json);
    umask(mask);
    checked_entries = 0;
    nftw(path, check_mode, 16, FTW_PHYS);
    CHECK(checked_entries > 8);
    reelkv_lease_release(lease);
    reelkv_prefix_free(prefix);
    reelkv_store_close(store);
    free_cache(written);
}

/* A number that depends on every file below a folder: its name, size, time of change and bytes. But for lock files, in which LMDB keeps
 * a table of readers. */
static uint64_t fingerprint;

static void mix(const void *bytes, size_t count) {
    for (size_t at = 0; at < count; at++) fingerprint = (fingerprint ^ ((const unsigned char *)bytes)[at]) * 1099511628211u;
}

static int add_to_fingerprint(const char *path, const struct stat *status, int type, struct FTW *walk) {
    (void)walk;
    if (strcmp(path + strlen(path) - strlen("-lock"), "-lock") == 0) return 0;
    uint64_t file = fingerprint;
    fingerprint = 14695981039346656037u;
    mix(path, strlen(path));
    mix(&status->st_mtim, sizeof status->st_mtim);
    if (type == FTW_F) {
        size_t count;
        unsigned char *bytes = read_file(path, &count);
        mix(bytes, count);
        free(bytes);
    }
    /* in whatever order they come */
    fingerprint += file;
    return 0;
}

static uint64_t fingerprint_of(const char *path) {
    fingerprint = 0;
    nftw(path, add_to_fingerprint, 16, FTW_PHYS);
    return fingerprint;
}

static void reading(void) {
    const char *path = new_path();
    reelkv_store *store = make_store(small_shape, path);
    cache *written = make_cache(small_shape, 400, 1);
    write_sequence(store, "video/v", written, 0, 400, NULL);
    reelkv_store_close(store);
    uint64_t before = fingerprint_of(path);
    OK(reelkv_store_open(path, REELKV_OPEN_READ_ONLY, &store));
    reelkv_prefix *prefix = match(store, written);
    cache *restored = restore_all(store, prefix, small_shape);
    CHECK(equal_caches(written, restored));
    reelkv_tokens *tokens = NULL;
    OK(reelkv_prefix_tokens(store, prefix, &tokens));
    reelkv_free(tokens);
    CHECK(json_has(verify_json(store), "\"sound\":true"));
    char *json = NULL;
    OK(reelkv_statistics_json(store, &json));
    reelkv_free(json);
    OK(reelkv_tenants_json(store, &json));
    reelkv_free(json);
    FAILS(REELKV_READ_ONLY, reelkv_tenant_create(store, "acme", NULL));
    FAILS(REELKV_READ_ONLY, reelkv_verify_json(store, REELKV_VERIFY_REPAIR, &json));
    FAILS(REELKV_READ_ONLY, reelkv_scrub_json(store, 0, &json));
    CHECK(fingerprint_of(path) == before);
    reelkv_prefix_free(prefix);
    reelkv_store_close(store);
    CHECK(fingerprint_of(path) == before);
    /* the same walk finds what is written */
    OK(reelkv_store_open(path, 0, &store));
    OK(reelkv_tenant_create(store, "acme", NULL));
    reelkv_store_close(store);
    CHECK(fingerprint_of(path) != before);
    free_cache(written);
    free_cache(restored);
}

/* ---- The salt ---- */

static void encode_base64(const unsigned char *bytes, char out[17]) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (int at = 0; at < 12; at += 3) {
        uint32_t word = (uint32_t)bytes[at] << 16 | (uint32_t)bytes[at + 1] << 8 | bytes[at + 2];
        for (int letter = 0; letter < 4; letter++) *out++ = letters[word >> (18 - 6 * letter) & 63];
    }
    *out = 0;
}

/* Whether a text has twelve bytes of a salt in it, in hexadecimal or base64. */
static int tells(const char *text, const unsigned char *salt) {
    for (int start = 0; start + 12 <= 32; start++) {
        char hex[25], base64[17];
        for (int at = 0; at < 12; at++) sprintf(hex + 2 * at, "%02x", salt[start + at]);
        encode_base64(salt + start, base64);
        if (strcasestr(text, hex) != NULL || strstr(text, base64) != NULL) return 1;
    }
    return 0;
}

static void salt(void) {
    const char *path = new_path();
    reelkv_store *store = make_store(small_shape, path);
    cache *written = make_cache(small_shape, 200, 1);
    write_sequence(store, "video/v", written, 0, 200, NULL);
    char file[600];
    snprintf(file, sizeof file, "%s/identity", path);
    size_t count;
    unsigned char *identity = read_file(file, &count);
    /* schema/FORMAT.md, "Identity": header, StoreRecord, SettingsRecord, then the tenant's name and record, of which the salt is the first */
    const size_t tenant = 64 + 80 + 64;
    CHECK(count > tenant + 4 + 7 + 32 && memcmp(identity + tenant, "\7\0\0\0default", 11) == 0);
    const unsigned char *salt = identity + tenant + 11;
    char *json[7] = {NULL};
    OK(reelkv_statistics_json(store, &json[0]));
    OK(reelkv_verify_json(store, 0, &json[1]));
    OK(reelkv_verify_json(store, REELKV_VERIFY_DRY_RUN, &json[2]));
    OK(reelkv_sequences_json(store, NULL, NULL, 1, &json[3]));
    OK(reelkv_models_json(store, &json[4]));
    OK(reelkv_tenants_json(store, &json[5]));
    OK(reelkv_scrub_json(store, 0, &json[6]));
    for (int index = 0; index < 7; index++) {
        CHECK(strlen(json[index]) > 10 && !tells(json[index], salt));
        reelkv_free(json[index]);
    }
    uint8_t key[REELKV_KEY_BYTES] = {1};
    FAILS(REELKV_ALREADY_EXISTS, reelkv_tenant_create(store, NULL, key));
    CHECK(!tells(reelkv_last_error(), salt));
    FAILS(REELKV_INVALID_ARGUMENT, reelkv_tenant_unlock(store, NULL, key));
    CHECK(!tells(reelkv_last_error(), salt));
    /* the search finds what it is for */
    char text[80] = "salt ";
    for (int at = 0; at < 32; at++) sprintf(text + 5 + 2 * at, "%02X", salt[at]);
    CHECK(tells(text, salt));
    encode_base64(salt + 7, text + 5);
    CHECK(tells(text, salt));
    free(identity);
    reelkv_store_close(store);
    free_cache(written);
}

void test_isolation(void) {
    run_test("nothing of one tenant's is reached, listed or told of through another's name", other_tenants);
    run_test("names are never paths, and some are refused", names);
    run_test("symbolic links in a store's folder are refused", links);
    run_test("files are for their owner alone, whatever the umask", modes);
    run_test("reading leaves a store as it was", reading);
    run_test("the salt is in no answer", salt);
}
