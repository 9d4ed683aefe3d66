#define _GNU_SOURCE
#include "support.h"
#include "tests.h"

#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

static void versions(void) {
    CHECK_EQUAL(reelkv_abi_version(), REELKV_ABI_VERSION);
    CHECK(strspn(reelkv_version(), "0123456789.") == strlen(reelkv_version()) && strlen(reelkv_version()) >= 5);
    CHECK(strcmp(reelkv_status_name(REELKV_OK), "ok") == 0);
    CHECK(strcmp(reelkv_status_name(REELKV_NOT_FOUND), "not-found") == 0);
    CHECK(strcmp(reelkv_status_name(REELKV_INTERNAL), "internal") == 0);
    CHECK(strcmp(reelkv_status_name(-1), "unknown") == 0);
    CHECK(strcmp(reelkv_status_name(REELKV_INTERNAL + 1), "unknown") == 0);
    for (reelkv_status one = 0; one <= REELKV_INTERNAL; one++) {
        for (reelkv_status other = 0; other < one; other++) {
            CHECK(strcmp(reelkv_status_name(one), reelkv_status_name(other)) != 0);
        }
    }
    reelkv_free(NULL);
}

static void create_and_open(void) {
    const char *path = new_path();
    reelkv_store *store = NULL, *second = NULL;
    FAILS(REELKV_NOT_A_STORE, reelkv_store_open(path, 0, &store));
    CHECK(store == NULL);
    OK(reelkv_store_create(path, NULL, &store));
    uint32_t tokens = 0;
    OK(reelkv_store_page_tokens(store, &tokens));
    CHECK_EQUAL(tokens, 256);
    second = store;
    FAILS(REELKV_STORE_EXISTS, reelkv_store_create(path, NULL, &second));
    CHECK(second == NULL);
    OK(reelkv_store_open(path, 0, &second));
    CHECK(second != store);
    reelkv_store_close(store);
    OK(reelkv_store_page_tokens(second, &tokens));
    reelkv_store_close(second);
    reelkv_store_close(NULL);
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "let go of", reelkv_store_page_tokens(store, &tokens));
    reelkv_store_close(store);
}

static void create_options(void) {
    reelkv_store *store = NULL;
    reelkv_store_options options = REELKV_INIT(reelkv_store_options);
    const uint32_t impossible[] = {1, 31, 33, 4097, 4128, UINT32_MAX};
    for (size_t index = 0; index < sizeof impossible / sizeof *impossible; index++) {
        options.page_tokens = impossible[index];
        FAILS(REELKV_INVALID_ARGUMENT, reelkv_store_create(new_path(), &options, &store));
    }
    options.page_tokens = 96;
    const uint64_t sizes[] = {1, (1ull << 40) + 1, UINT64_MAX, 1ull << 63};
    for (size_t index = 0; index < sizeof sizes / sizeof *sizes; index++) {
        options.volume_bytes_max = sizes[index];
        FAILS(REELKV_INVALID_ARGUMENT, reelkv_store_create(new_path(), &options, &store));
    }
    options.volume_bytes_max = 1 << 20;
    OK(reelkv_store_create(new_path(), &options, &store));
    uint32_t tokens = 0;
    OK(reelkv_store_page_tokens(store, &tokens));
    CHECK_EQUAL(tokens, 96);
    reelkv_store_close(store);
}

static void open_or_create(void) {
    const char *path = new_path();
    reelkv_store *store = NULL;
    OK(reelkv_store_open(path, REELKV_OPEN_CREATE, &store));
    add_model(store, "m", small_shape, 7);
    reelkv_store_close(store);
    OK(reelkv_store_open(path, REELKV_OPEN_CREATE, &store));
    char *json = NULL;
    OK(reelkv_models_json(store, &json));
    CHECK(json_has(json, "\"name\":\"m\""));
    reelkv_store_close(store);
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "flags", reelkv_store_open(path, 8, &store));
    CHECK(store == NULL);
    FAILS_SAYING(
        REELKV_INVALID_ARGUMENT, "flags", reelkv_store_open(path, REELKV_OPEN_CREATE | REELKV_OPEN_READ_ONLY, &store));
    const char *other = new_path();
    char file[400];
    snprintf(file, sizeof file, "%s/notes.txt", other);
    CHECK_EQUAL(mkdir(other, 0700), 0);
    write_file(file, "x", 1);
    FAILS_SAYING(REELKV_STORE_EXISTS, "not empty", reelkv_store_open(other, REELKV_OPEN_CREATE, &store));
    FAILS(REELKV_NOT_A_STORE, reelkv_store_open(other, 0, &store));
    FAILS(REELKV_NOT_A_STORE, reelkv_store_open(file, 0, &store));
    FAILS(REELKV_IO_ERROR, reelkv_store_create("/dev/null/store", NULL, &store));
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "UTF-8", reelkv_store_open("/tmp/\xff\xfe", 0, &store));
}

static void relaxed(void) {
    const char *path = new_path();
    reelkv_store *store = NULL;
    OK(reelkv_store_open(path, REELKV_OPEN_CREATE | REELKV_OPEN_RELAXED, &store));
    add_model(store, "m", small_shape, 7);
    cache *written = make_cache(small_shape, 100, 1);
    write_sequence(store, "session/s", written, 0, 100, NULL);
    OK(reelkv_store_sync(store));
    reelkv_prefix *prefix = match(store, written);
    cache *restored = restore_all(store, prefix, small_shape);
    CHECK(equal_caches(written, restored));
    reelkv_prefix_free(prefix);
    reelkv_store *other = NULL;
    OK(reelkv_store_open(path, 0, &other)); /* as it is open already */
    reelkv_store_close(other);
    reelkv_store_close(store);
    FAILS_SAYING(
        REELKV_INVALID_ARGUMENT, "flags", reelkv_store_open(path, REELKV_OPEN_RELAXED | REELKV_OPEN_READ_ONLY, &store));
    FAILS(REELKV_INVALID_ARGUMENT, reelkv_store_sync(NULL));
    free_cache(written);
    free_cache(restored);
}

static void read_only(void) {
    const char *path = new_path();
    reelkv_store *store = make_store(small_shape, path);
    cache *written = make_cache(small_shape, 100, 1);
    write_sequence(store, "session/s", written, 0, 100, NULL);
    reelkv_store_close(store);
    reelkv_store *reader = NULL;
    OK(reelkv_store_open(path, REELKV_OPEN_READ_ONLY, &reader));
    FAILS(REELKV_IN_USE, reelkv_store_open(path, 0, &store));
    reelkv_prefix *prefix = match(reader, written);
    cache *restored = restore_all(reader, prefix, small_shape);
    CHECK(equal_caches(written, restored));
    reelkv_lease *lease = NULL;
    FAILS(REELKV_READ_ONLY, reelkv_lease_take(reader, prefix, &lease));
    CHECK(lease == NULL);
    reelkv_writer *writer = NULL;
    FAILS(REELKV_READ_ONLY, reelkv_writer_open(reader, "session/t", "m", NULL, &writer));
    FAILS(REELKV_READ_ONLY, reelkv_fork(reader, "session/s", NULL, "t", UINT64_MAX));
    FAILS(REELKV_READ_ONLY, reelkv_truncate(reader, "s", NULL, 1));
    FAILS(REELKV_READ_ONLY, reelkv_remove(reader, "session/s", NULL));
    FAILS(REELKV_READ_ONLY, reelkv_set_pinned(reader, "session/s", NULL, 1));
    FAILS(REELKV_READ_ONLY, reelkv_model_remove(reader, "m", 1));
    FAILS(REELKV_READ_ONLY, reelkv_evict(reader, 0, NULL));
    FAILS(REELKV_READ_ONLY, reelkv_compact(reader, NULL));
    reelkv_settings settings = REELKV_INIT(reelkv_settings);
    OK(reelkv_settings_get(reader, &settings));
    FAILS(REELKV_READ_ONLY, reelkv_settings_set(reader, &settings));
    CHECK(json_has(verify_json(reader), "\"sound\":true"));
    reelkv_prefix_free(prefix);
    reelkv_store_close(reader);
    free_cache(written);
    free_cache(restored);
}

/* What a handle needs lives on. */
static void closed_early(void) {
    reelkv_store *store = make_store(small_shape, new_path());
    cache *written = make_cache(small_shape, 200, 2);
    write_sequence(store, "session/s", written, 0, 128, NULL);
    reelkv_writer *writer = NULL;
    OK(reelkv_writer_open(store, "session/s", "m", NULL, &writer));
    reelkv_prefix *prefix = match(store, written);
    reelkv_lease *lease = NULL;
    OK(reelkv_lease_take(store, prefix, &lease));
    cache *restored = make_empty(small_shape, 128);
    reelkv_layer layers[LAYERS_MAX];
    fill_layers(restored, 0, 128, layers);
    reelkv_restore_job *job = NULL;
    OK(reelkv_restore_begin(store, prefix, NULL, layers, small_shape.layers, &job));
    reelkv_store_close(store);
    reelkv_prefix_free(prefix);
    for (uint32_t layer = 0; layer < small_shape.layers; layer++) OK(reelkv_restore_wait(job, layer, NULL));
    OK(reelkv_restore_end(job));
    for (uint32_t layer = 0; layer < small_shape.layers; layer++) CHECK(equal_tokens(written, 0, restored, 0, 128, layer));
    fill_layers(written, 128, 72, layers);
    reelkv_tokens tokens = tokens_of(written, 128, 72);
    OK(reelkv_writer_append(writer, &tokens, layers, small_shape.layers));
    OK(reelkv_writer_finish(writer, NULL));
    reelkv_writer_close(writer);
    reelkv_lease_release(lease);
    free_cache(written);
    free_cache(restored);
}

static void full_disk(void) {
    const char *path = new_path();
    CHECK_EQUAL(mkdir(path, 0700), 0);
    if (mount("tmpfs", path, "tmpfs", 0, "size=2m") != 0) skip_test("mounting a small file system takes root's rights");
    char folder[400];
    snprintf(folder, sizeof folder, "%s/kv", path);
    reelkv_store *store = make_store(small_shape, folder);
    cache *written = make_cache(small_shape, 6000, 3);
    write_sequence(store, "session/s", written, 0, 64, NULL);
    reelkv_writer *writer = NULL;
    OK(reelkv_writer_open(store, "session/t", "m", NULL, &writer));
    reelkv_layer layers[LAYERS_MAX];
    reelkv_tokens tokens = tokens_of(written, 64, 5936);
    reelkv_writer_options options = REELKV_INIT(reelkv_writer_options);
    options.profile = "exact";
    reelkv_writer_close(writer);
    OK(reelkv_writer_open(store, "session/s", "m", &options, &writer));
    fill_layers(written, 64, 5936, layers);
    reelkv_status status = reelkv_writer_append(writer, &tokens, layers, small_shape.layers);
    if (status == REELKV_OK) status = reelkv_writer_finish(writer, NULL);
    FAILS(REELKV_NO_SPACE, status);
    reelkv_writer_close(writer);
    cache *first = make_cache(small_shape, 64, 3);
    reelkv_prefix *prefix = NULL;
    OK(reelkv_sequence_prefix(store, "session/s", NULL, 0, &prefix));
    CHECK_EQUAL(describe(prefix).token_count, 64);
    cache *restored = restore_all(store, prefix, small_shape);
    CHECK(equal_caches(first, restored));
    reelkv_prefix_free(prefix);
    reelkv_store_close(store);
    umount2(path, MNT_DETACH);
    free_cache(written);
    free_cache(first);
    free_cache(restored);
}

void test_stores(void) {
    run_test("versions and names of statuses", versions);
    run_test("stores are made, opened and closed", create_and_open);
    run_test("options of a new store", create_options);
    run_test("a store is opened, or made where nothing is", open_or_create);
    run_test("a store written with relaxed durability is read as any other", relaxed);
    run_test("a read-only store is read and not changed", read_only);
    run_test("a store may be closed before what came from it", closed_early);
    run_test("a full disk refuses a write and loses nothing", full_disk);
}
