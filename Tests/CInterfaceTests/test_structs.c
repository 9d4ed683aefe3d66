#include "support.h"
#include "tests.h"

#include <stdlib.h>
#include <string.h>

/* A caller that was compiled against an earlier or a later header. */
static void sizes_refused(void) {
    reelkv_store *store = make_store(small_shape, new_path());
    const size_t sizes[] = {0, 1, 7, 4097, SIZE_MAX};
    for (size_t index = 0; index < sizeof sizes / sizeof *sizes; index++) {
        reelkv_settings settings = REELKV_INIT(reelkv_settings);
        settings.struct_size = sizes[index];
        FAILS_SAYING(REELKV_INVALID_ARGUMENT, "struct_size", reelkv_settings_set(store, &settings));
        FAILS_SAYING(REELKV_INVALID_ARGUMENT, "struct_size", reelkv_settings_get(store, &settings));
        reelkv_tokens tokens = REELKV_INIT(reelkv_tokens);
        tokens.struct_size = sizes[index];
        reelkv_prefix *prefix = NULL;
        FAILS_SAYING(REELKV_INVALID_ARGUMENT, "tokens", reelkv_longest_prefix(store, "m", NULL, &tokens, NULL, 0, &prefix));
        reelkv_layer_geometry layer = REELKV_INIT(reelkv_layer_geometry);
        layer.struct_size = sizes[index];
        reelkv_model model = REELKV_INIT(reelkv_model);
        model.name = "x";
        model.fingerprint[0] = 1;
        model.dtype = REELKV_FLOAT16;
        model.layers = &layer;
        model.layer_count = 1;
        FAILS_SAYING(REELKV_INVALID_ARGUMENT, "model->layers[0]", reelkv_model_add(store, &model));
    }
    reelkv_store_close(store);
}

static void older_callers(void) {
    const char *path = new_path();
    reelkv_store *store = NULL;
    reelkv_store_options options = {.struct_size = 16, .page_tokens = 64, .volume_bytes_max = 3}; /* not known to it */
    OK(reelkv_store_create(path, &options, &store));
    add_model(store, "m", small_shape, 7);
    cache *written = make_cache(small_shape, 100, 1);
    write_sequence(store, "session/s", written, 0, 100, NULL);
    /* exactly as much memory as it has, so that a step too far is seen */
    const size_t sizes[] = {8, 12, 16, 40, 68, 72};
    for (size_t index = 0; index < sizeof sizes / sizeof *sizes; index++) {
        unsigned char *memory = malloc(sizes[index]);
        memset(memory, 0xEE, sizes[index]);
        memcpy(memory, &sizes[index], sizeof(size_t));
        reelkv_prefix *prefix = match(store, written);
        OK(reelkv_prefix_describe(prefix, (reelkv_prefix_info *)memory));
        size_t kept;
        memcpy(&kept, memory, sizeof kept);
        CHECK_EQUAL(kept, sizes[index]);
        reelkv_prefix_info whole = describe(prefix);
        size_t members = sizes[index] < 68 ? sizes[index] : 68; /* what follows is padding */
        CHECK(memcmp(memory + 8, (unsigned char *)&whole + 8, members - 8) == 0);
        reelkv_prefix_free(prefix);
        free(memory);
    }
    /* tokens of a version that had ids and count alone */
    struct {
        size_t struct_size;
        const int32_t *ids;
        size_t count;
    } *tokens = malloc(sizeof *tokens);
    tokens->struct_size = sizeof *tokens;
    tokens->ids = written->ids;
    tokens->count = 100;
    reelkv_prefix *prefix = NULL;
    OK(reelkv_longest_prefix(store, "m", NULL, (reelkv_tokens *)tokens, NULL, 0, &prefix));
    CHECK_EQUAL(describe(prefix).token_count, 100);
    reelkv_prefix_free(prefix);
    free(tokens);
    reelkv_store_close(store);
    free_cache(written);
}

typedef struct newer_geometry {
    reelkv_layer_geometry known;
    uint64_t unknown[3];
} newer_geometry;

static void newer_callers(void) {
    reelkv_store *store = make_store(small_shape, new_path());
    /* arrays are as far apart as the caller's structs are large */
    newer_geometry layers[3];
    memset(layers, 0, sizeof layers);
    for (int layer = 0; layer < 3; layer++) {
        layers[layer].known.struct_size = sizeof(newer_geometry);
        layers[layer].known.kv_heads = 1;
        layers[layer].known.key_dim = 32 + (uint32_t)layer;
        layers[layer].known.value_dim = 16;
    }
    struct {
        reelkv_model known;
        uint64_t unknown;
    } model = {.known = REELKV_INIT(reelkv_model)};
    model.known.struct_size = sizeof model;
    model.known.name = "newer";
    model.known.fingerprint[0] = 1;
    model.known.dtype = REELKV_FLOAT32;
    model.known.layers = &layers[0].known;
    model.known.layer_count = 3;
    model.unknown = 1;
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "newer", reelkv_model_add(store, &model.known));
    model.unknown = 0;
    layers[2].unknown[2] = 1;
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "layers[2]", reelkv_model_add(store, &model.known));
    layers[2].unknown[2] = 0;
    OK(reelkv_model_add(store, &model.known));
    char *json = NULL;
    OK(reelkv_models_json(store, &json));
    CHECK(json_has(json, "{\"key_dim\":34,\"kv_heads\":1"));
    /* what it knows and this library does not is zero */
    struct {
        reelkv_settings known;
        unsigned char unknown[24];
    } settings;
    memset(&settings, 0xEE, sizeof settings);
    settings.known.struct_size = sizeof settings;
    OK(reelkv_settings_get(store, &settings.known));
    CHECK_EQUAL(settings.known.struct_size, sizeof settings);
    CHECK(strcmp(settings.known.policy, "adaptive") == 0);
    for (int index = 0; index < 24; index++) CHECK_EQUAL(settings.unknown[index], 0);
    OK(reelkv_settings_set(store, &settings.known));
    reelkv_store_close(store);
}

void test_structs(void) {
    run_test("a struct_size that cannot be is refused", sizes_refused);
    run_test("callers of an older header", older_callers);
    run_test("callers of a newer header", newer_callers);
}
