#define _GNU_SOURCE
#include "support.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[256];

const char *new_path(void) {
    static char paths[128][320];
    static int count;
    if (root[0] == 0) {
        const char *parent = getenv("TMPDIR");
        snprintf(root, sizeof root, "%s/reelkv-c-XXXXXX", parent ? parent : "/tmp");
        if (mkdtemp(root) == NULL) {
            perror(root);
            exit(2);
        }
    }
    CHECK(count < 128);
    char *path = paths[count];
    snprintf(path, sizeof paths[0], "%s/store-%d", root, count++);
    return path;
}

static int delete_entry(const char *path, const struct stat *status, int type, struct FTW *walk) {
    (void)status, (void)type, (void)walk;
    return remove(path);
}

void delete_paths(void) {
    if (root[0] != 0) nftw(root, delete_entry, 16, FTW_DEPTH | FTW_PHYS);
}

reelkv_store *make_store(shape shape, const char *path) {
    reelkv_store *store = NULL;
    reelkv_store_options options = REELKV_INIT(reelkv_store_options);
    options.page_tokens = 64;
    OK(reelkv_store_create(path, &options, &store));
    add_model(store, "m", shape, 7);
    return store;
}

void add_model(reelkv_store *store, const char *name, shape shape, unsigned char fingerprint) {
    reelkv_layer_geometry layers[LAYERS_MAX];
    for (uint32_t layer = 0; layer < shape.layers; layer++) {
        layers[layer] = REELKV_INIT(reelkv_layer_geometry);
        layers[layer].kv_heads = shape.heads;
        layers[layer].key_dim = shape.key_dim;
        layers[layer].value_dim = shape.value_dim;
    }
    reelkv_model model = REELKV_INIT(reelkv_model);
    model.name = name;
    memset(model.fingerprint, fingerprint, sizeof model.fingerprint);
    model.dtype = shape.dtype;
    model.layers = layers;
    model.layer_count = shape.layers;
    OK(reelkv_model_add(store, &model));
}

void write_sequence(
    reelkv_store *store, const char *sequence, const cache *cache, uint32_t first, uint32_t count, const char *profile
) {
    write_tenants(store, NULL, sequence, cache, first, count, profile);
}

void write_tenants(
    reelkv_store *store, const char *tenant, const char *sequence, const cache *cache, uint32_t first, uint32_t count,
    const char *profile
) {
    reelkv_writer_options options = REELKV_INIT(reelkv_writer_options);
    options.tenant = tenant;
    options.profile = profile ? profile : "exact";
    options.checks_token_count = 1;
    options.token_count = first;
    reelkv_writer *writer = NULL;
    OK(reelkv_writer_open(store, sequence, "m", &options, &writer));
    reelkv_layer layers[LAYERS_MAX];
    fill_layers(cache, first, count, layers);
    reelkv_tokens tokens = tokens_of(cache, first, count);
    OK(reelkv_writer_append(writer, &tokens, layers, cache->shape.layers));
    OK(reelkv_writer_finish(writer, NULL));
    reelkv_writer_close(writer);
}

reelkv_prefix *match(reelkv_store *store, const cache *cache) {
    reelkv_prefix *prefix = NULL;
    reelkv_tokens tokens = tokens_of(cache, 0, cache->tokens);
    OK(reelkv_longest_prefix(store, "m", NULL, &tokens, NULL, 0, &prefix));
    return prefix;
}

reelkv_prefix_info describe(const reelkv_prefix *prefix) {
    reelkv_prefix_info info = REELKV_INIT(reelkv_prefix_info);
    OK(reelkv_prefix_describe(prefix, &info));
    return info;
}

uint64_t matched(reelkv_store *store, const cache *cache) {
    reelkv_prefix *prefix = match(store, cache);
    uint64_t count = describe(prefix).token_count;
    reelkv_prefix_free(prefix);
    return count;
}

cache *restore_all(reelkv_store *store, const reelkv_prefix *prefix, shape shape) {
    cache *restored = make_empty(shape, (uint32_t)describe(prefix).token_count);
    reelkv_layer layers[LAYERS_MAX];
    fill_layers(restored, 0, restored->tokens, layers);
    OK(reelkv_restore(store, prefix, NULL, layers, shape.layers, NULL));
    return restored;
}

int json_has(char *json, const char *text) {
    int has = json != NULL && strstr(json, text) != NULL;
    if (!has) printf("        %s\n        has no %s\n", json ? json : "(null)", text);
    reelkv_free(json);
    return has;
}

char *sequences_json(reelkv_store *store, const char *kind, int building) {
    char *json = NULL;
    OK(reelkv_sequences_json(store, kind, NULL, building, &json));
    return json;
}

char *sequence_json(reelkv_store *store, const char *sequence) {
    char *json = NULL;
    OK(reelkv_sequence_json(store, sequence, NULL, &json));
    return json;
}

char *verify_json(reelkv_store *store) {
    char *json = NULL;
    OK(reelkv_verify_json(store, 0, &json));
    return json;
}

unsigned char *read_file(const char *path, size_t *count) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) return NULL;
    fseek(file, 0, SEEK_END);
    *count = (size_t)ftell(file);
    rewind(file);
    unsigned char *bytes = malloc(*count + 1);
    size_t read = fread(bytes, 1, *count, file);
    fclose(file);
    CHECK_EQUAL(read, *count);
    return bytes;
}

void write_file(const char *path, const void *bytes, size_t count) {
    FILE *file = fopen(path, "wb");
    CHECK(file != NULL);
    CHECK_EQUAL(fwrite(bytes, 1, count, file), count);
    fclose(file);
}

void patch_file(const char *path, const void *needle, size_t needle_bytes, size_t offset, const void *bytes, size_t count) {
    size_t file_bytes;
    unsigned char *contents = read_file(path, &file_bytes);
    CHECK(contents != NULL);
    int found = 0;
    for (size_t at = 0; at + needle_bytes + offset + count <= file_bytes; at++) {
        if (memcmp(contents + at, needle, needle_bytes) != 0) continue;
        memcpy(contents + at + offset, bytes, count);
        found = 1;
    }
    write_file(path, contents, file_bytes);
    free(contents);
    CHECK(found);
}
