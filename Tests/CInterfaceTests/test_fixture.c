/* The cache of a trained model over a real clip goes through the interface. */
#include "support.h"
#include "tests.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const shape fixture_shape = {.layers = 3, .heads = 3, .key_dim = 64, .value_dim = 64, .dtype = REELKV_BFLOAT16};

/* Where a tensor's bytes lie in a safetensors file. */
static const unsigned char *tensor_bytes(const unsigned char *file, const char *name, size_t count) {
    uint64_t header_bytes;
    memcpy(&header_bytes, file, 8);
    char key[64];
    snprintf(key, sizeof key, "\"%s\":{", name);
    char *header = calloc(1, header_bytes + 1);
    memcpy(header, file + 8, header_bytes);
    const char *entry = strstr(header, key);
    CHECK(entry != NULL);
    entry = strstr(entry, "data_offsets\":[");
    unsigned long long first = 0, end = 0;
    CHECK_EQUAL(sscanf(entry, "data_offsets\":[%llu,%llu]", &first, &end), 2);
    CHECK_EQUAL(end - first, count);
    free(header);
    return file + 8 + header_bytes + first;
}

static cache *read_fixture(const char *path, uint32_t tokens) {
    size_t count;
    unsigned char *file = read_file(path, &count);
    CHECK(file != NULL);
    cache *fixture = make_empty(fixture_shape, tokens);
    size_t bytes = (size_t)3 * tokens * 64 * 2;
    for (uint32_t layer = 0; layer < 3; layer++) {
        char name[32];
        snprintf(name, sizeof name, "layers.%u.key", layer);
        memcpy(fixture->keys[layer], tensor_bytes(file, name, bytes), bytes);
        snprintf(name, sizeof name, "layers.%u.value", layer);
        memcpy(fixture->values[layer], tensor_bytes(file, name, bytes), bytes);
    }
    memcpy(fixture->ids, tensor_bytes(file, "input_ids", 4 * (size_t)tokens), 4 * (size_t)tokens);
    free(file);
    return fixture;
}

static reelkv_store *fixture_store(const char *folder) {
    char path[400];
    snprintf(path, sizeof path, "%s/smollm2.json", folder);
    size_t count;
    unsigned char *json = read_file(path, &count);
    CHECK(json != NULL);
    reelkv_store *store = NULL;
    OK(reelkv_store_create(new_path(), NULL, &store));
    OK(reelkv_model_add_json(store, "m", (char *)json, count, NULL, NULL));
    free(json);
    return store;
}

static void video(void) {
    const char *folder = getenv("REELKV_FIXTURES");
    if (folder == NULL) skip_test("REELKV_FIXTURES does not name the folder of the fixtures");
    char path[400];
    snprintf(path, sizeof path, "%s/video.safetensors", folder);
    enum { TOKENS = 2051, FRAMES = 32 };
    cache *fixture = read_fixture(path, TOKENS);
    reelkv_media_span span = {.first_token = 3, .count = 64 * FRAMES};
    memset(span.digest, 0x45, sizeof span.digest);
    const char *const profiles[] = {"exact", "vidkv-2-2", "vidkv-1.5-1.58"};
    uint64_t bytes[3];
    for (int index = 0; index < 3; index++) {
        reelkv_store *store = fixture_store(folder);
        reelkv_writer_options options = REELKV_INIT(reelkv_writer_options);
        options.profile = profiles[index];
        reelkv_writer *writer = NULL;
        OK(reelkv_writer_open(store, "video/clip", "m", &options, &writer));
        reelkv_tokens tokens = tokens_of(fixture, 0, TOKENS);
        tokens.media = &span;
        tokens.media_count = 1;
        reelkv_layer layers[3];
        fill_layers(fixture, 0, TOKENS, layers);
        OK(reelkv_writer_append(writer, &tokens, layers, 3));
        OK(reelkv_writer_finish(writer, NULL));
        reelkv_writer_close(writer);
        reelkv_prefix *prefix = NULL;
        OK(reelkv_longest_prefix(store, "m", NULL, &tokens, NULL, 0, &prefix));
        reelkv_prefix_info info = describe(prefix);
        CHECK_EQUAL(info.token_count, TOKENS);
        bytes[index] = info.stored_bytes;
        cache *restored = restore_all(store, prefix, fixture_shape);
        CHECK_EQUAL(equal_caches(fixture, restored), index == 0);
        for (uint32_t layer = 0; layer < 3; layer++) CHECK(equal_tokens(fixture, 0, restored, 0, 4, layer)); /* sinks are exact */
        CHECK(index == 0 ? info.key_error == 0 : info.key_error > 0.001 && info.key_error < 0.06);
        reelkv_prefix_free(prefix);
        reelkv_store_close(store);
        free_cache(restored);
    }
    uint64_t raw = (uint64_t)3 * 2 * 3 * TOKENS * 64 * 2;
    CHECK(bytes[0] < raw && bytes[1] * 6 < raw && bytes[2] * 8 < raw);
    free_cache(fixture);
}

void test_fixture(void) { run_test("a real clip's cache, exact and quantized", video); }
