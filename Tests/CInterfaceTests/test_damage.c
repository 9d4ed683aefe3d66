#define _GNU_SOURCE
#include "support.h"
#include "tests.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Writes a store in a process of its own, so that this one has none of it in memory. */
static void write_elsewhere(const char *path, const cache *written) {
    fflush(stdout);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        exit_on_failure();
        reelkv_store *store = make_store(written->shape, path);
        write_sequence(store, "session/s", written, 0, written->tokens, NULL);
        reelkv_store_close(store);
        _exit(0);
    }
    int status = 1;
    waitpid(child, &status, 0);
    CHECK_EQUAL(status, 0);
}

static void damaged_page(void) {
    const char *path = new_path();
    cache *written = make_cache(small_shape, 192, 1);
    write_elsewhere(path, written);
    /* the last page: exact pages hold the sign and mantissa bits as they are, the first of layer 0's among them */
    char volume[400];
    snprintf(volume, sizeof volume, "%s/volumes/00000001.mdb", path);
    size_t count;
    unsigned char *bytes = read_file(volume, &count);
    CHECK(bytes != NULL);
    for (size_t at = count * 3 / 4; at < count * 3 / 4 + 64; at++) bytes[at] ^= 0x55;
    write_file(volume, bytes, count);
    free(bytes);
    reelkv_store *store = NULL;
    OK(reelkv_store_open(path, 0, &store));
    reelkv_prefix *prefix = match(store, written);
    CHECK_EQUAL(describe(prefix).token_count, 192);
    cache *target = make_empty(small_shape, 192);
    reelkv_layer layers[LAYERS_MAX];
    fill_layers(target, 0, 192, layers);
    FAILS(REELKV_PAGE_UNAVAILABLE, reelkv_restore(store, prefix, NULL, layers, 4, NULL));
    reelkv_prefix_free(prefix);
    prefix = match(store, written); /* it counts as not stored now */
    reelkv_prefix_info info = describe(prefix);
    CHECK(info.token_count < 192 && info.token_count % 64 == 0);
    CHECK(info.stop == REELKV_STOP_QUARANTINED || info.stop == REELKV_STOP_NOT_STORED);
    fill_layers(target, 0, (uint32_t)info.token_count, layers);
    OK(reelkv_restore(store, prefix, NULL, layers, 4, NULL));
    for (uint32_t layer = 0; layer < 4; layer++) CHECK(equal_tokens(written, 0, target, 0, (uint32_t)info.token_count, layer));
    CHECK(json_has(verify_json(store), "\"quarantined\":1"));
    reelkv_prefix_free(prefix);
    reelkv_store_close(store);
    free_cache(written);
    free_cache(target);
}

static void verification_finds_damage(void) {
    const char *path = new_path();
    cache *written = make_cache(small_shape, 64, 2);
    write_elsewhere(path, written);
    char volume[400];
    snprintf(volume, sizeof volume, "%s/volumes/00000001.mdb", path);
    size_t count;
    unsigned char *bytes = read_file(volume, &count);
    for (size_t at = count / 2; at < count / 2 + 4096; at++) bytes[at] ^= 1;
    write_file(volume, bytes, count);
    free(bytes);
    reelkv_store *store = NULL;
    OK(reelkv_store_open(path, REELKV_OPEN_READ_ONLY, &store));
    CHECK(json_has(verify_json(store), "\"kind\":\"page\""));
    CHECK_EQUAL(matched(store, written), 64); /* read-only: only told */
    reelkv_store_close(store);
    OK(reelkv_store_open(path, 0, &store));
    CHECK(json_has(verify_json(store), "\"sound\":false"));
    CHECK_EQUAL(matched(store, written), 0);
    CHECK(json_has(verify_json(store), "\"sound\":true"));
    reelkv_store_close(store);
    free_cache(written);
}

static void damaged_index(void) {
    const char *path = new_path();
    cache *written = make_cache(small_shape, 64, 3);
    write_elsewhere(path, written);
    char index[400];
    snprintf(index, sizeof index, "%s/index.mdb", path);
    unsigned char fingerprint[32];
    memset(fingerprint, 7, sizeof fingerprint);
    patch_file(index, fingerprint, 32, 36, "\x63", 1); /* a model of an element type that there is not */
    reelkv_store *store = NULL;
    OK(reelkv_store_open(path, 0, &store));
    reelkv_prefix *prefix = NULL;
    reelkv_tokens tokens = tokens_of(written, 0, 64);
    FAILS(REELKV_DAMAGED, reelkv_longest_prefix(store, "m", NULL, &tokens, NULL, 0, &prefix));
    char *json = NULL;
    FAILS(REELKV_DAMAGED, reelkv_models_json(store, &json));
    CHECK(json_has(verify_json(store), "\"kind\":\"model\""));
    reelkv_store_close(store);
    free_cache(written);
}

static void newer_format(void) {
    const char *path = new_path();
    cache *written = make_cache(small_shape, 64, 4);
    write_elsewhere(path, written);
    char index[400];
    snprintf(index, sizeof index, "%s/index.mdb", path);
    const unsigned char magic[8] = {0x89, 0x52, 0x45, 0x45, 0x4C, 0x4B, 0x56, 0x0A};
    patch_file(index, magic, 8, 8, "\xff\x7f\xff\x7f", 4);
    reelkv_store *store = NULL;
    FAILS_SAYING(REELKV_NEWER_FORMAT, "upgrade", reelkv_store_open(path, 0, &store));
    FAILS(REELKV_NEWER_FORMAT, reelkv_store_open(path, REELKV_OPEN_CREATE, &store));
    memset(index + strlen(path), 0, 1);
    snprintf(index, sizeof index, "%s/index.mdb", path);
    write_file(index, "This is no index.", 17);
    FAILS(REELKV_NOT_A_STORE, reelkv_store_open(path, 0, &store));
    CHECK(store == NULL);
    free_cache(written);
}

void test_damage(void) {
    run_test("a damaged page is not restored, and counts as not stored", damaged_page);
    run_test("verification finds a damaged page", verification_finds_damage);
    run_test("a damaged index", damaged_index);
    run_test("a store of a newer format", newer_format);
}
