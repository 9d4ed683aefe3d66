#include "support.h"
#include "tests.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char own_spec[] =
    "{\"layers\": 2, \"kv_heads\": 2, \"head_dim\": 64, \"dtype\": \"bfloat16\", \"rope\": {\"theta\": 10000},"
    " \"fingerprint\": \"0101010101010101010101010101010101010101010101010101010101010101\"}";

static const char qwen_config[] =
    "{\"model_type\": \"qwen2\", \"num_hidden_layers\": 3, \"num_attention_heads\": 4, \"num_key_value_heads\": 2,"
    " \"hidden_size\": 256, \"torch_dtype\": \"bfloat16\", \"rope_theta\": 1000000.0, \"max_position_embeddings\": 32768}";

static const char hex[] = "sha256:00000000000000000000000000000000000000000000000000000000000000ab";

static void typed_models(void) {
    reelkv_store *store = make_store(small_shape, new_path());
    add_model(store, "m", small_shape, 7);
    reelkv_layer_geometry layers[4];
    for (int layer = 0; layer < 4; layer++) {
        layers[layer] = REELKV_INIT(reelkv_layer_geometry);
        layers[layer].kv_heads = 3;
        layers[layer].key_dim = 64;
        layers[layer].value_dim = 64;
    }
    reelkv_model model = REELKV_INIT(reelkv_model);
    model.name = "m";
    model.fingerprint[31] = 1;
    model.dtype = REELKV_FLOAT16;
    model.layers = layers;
    model.layer_count = 4;
    FAILS(REELKV_ALREADY_EXISTS, reelkv_model_add(store, &model));
    model.name = "sliding";
    float frequencies[32];
    for (int pair = 0; pair < 32; pair++) frequencies[pair] = 1.0f / (float)(1 << (pair / 2));
    layers[1].sliding_window = 128;
    layers[2].rotary_inverse_frequencies = frequencies;
    layers[2].rotary_pair_count = 32;
    layers[3].rotary_inverse_frequencies = frequencies;
    layers[3].rotary_pair_count = 32;
    layers[3].rotary_pairing = REELKV_ROTARY_INTERLEAVED;
    layers[3].rotary_sections[0] = 16;
    layers[3].rotary_sections[1] = 8;
    layers[3].rotary_sections[2] = 8;
    OK(reelkv_model_add(store, &model));
    char *json = NULL;
    OK(reelkv_models_json(store, &json));
    CHECK(json_has(
        json,
        "{\"dtype\":\"float16\",\"fingerprint\":\"0000000000000000000000000000000000000000000000000000000000000001\",\"layers\":["
        "{\"key_dim\":64,\"kv_heads\":3,\"rotated\":false,\"sliding_window\":null,\"value_dim\":64},"
        "{\"key_dim\":64,\"kv_heads\":3,\"rotated\":false,\"sliding_window\":128,\"value_dim\":64},"
        "{\"key_dim\":64,\"kv_heads\":3,\"rotated\":true,\"sliding_window\":null,\"value_dim\":64},"
        "{\"key_dim\":64,\"kv_heads\":3,\"rotated\":true,\"sliding_window\":null,\"value_dim\":64}],\"name\":\"sliding\"}"));
    reelkv_store_close(store);
}

static void impossible_models(void) {
    reelkv_store *store = make_store(small_shape, new_path());
    float frequencies[64] = {1};
    reelkv_layer_geometry layer = REELKV_INIT(reelkv_layer_geometry);
    layer.kv_heads = 2;
    layer.key_dim = layer.value_dim = 64;
    const reelkv_layer_geometry good_layer = layer;
    reelkv_model model = REELKV_INIT(reelkv_model);
    model.name = "x";
    model.fingerprint[0] = 1;
    model.dtype = REELKV_BFLOAT16;
    model.layers = &layer;
    model.layer_count = 1;
    const reelkv_model good = model;
#define REFUSED(text)                                                              \
    do {                                                                           \
        FAILS_SAYING(REELKV_INVALID_ARGUMENT, text, reelkv_model_add(store, &model)); \
        model = good;                                                              \
        layer = good_layer;                                                        \
    } while (0)
    model.name = NULL; REFUSED("model->name");
    model.name = ""; REFUSED("name");
    model.name = "a\nb"; REFUSED("control");
    model.name = "\xc3("; REFUSED("UTF-8");
    model.fingerprint[0] = 0; REFUSED("fingerprint");
    model.dtype = 0; REFUSED("dtype");
    model.dtype = 4; REFUSED("dtype");
    model.dtype = UINT32_MAX; REFUSED("dtype");
    model.layers = NULL; REFUSED("model->layers");
    model.layer_count = 0; REFUSED("layers");
    model.layer_count = 1025; REFUSED("layers");
    model.layer_count = SIZE_MAX; REFUSED("layers");
    layer.kv_heads = 0; REFUSED("layer 0");
    layer.kv_heads = UINT32_MAX; REFUSED("layer 0");
    layer.key_dim = 1025; REFUSED("layer 0");
    layer.value_dim = 0; REFUSED("layer 0");
    layer.sliding_window = UINT64_MAX; REFUSED("sliding_window");
    layer.sliding_window = 1ull << 40; REFUSED("sliding window");
    layer.rotary_inverse_frequencies = frequencies; REFUSED("rotary");
    layer.rotary_inverse_frequencies = frequencies, layer.rotary_pair_count = 33; REFUSED("rotary");
    layer.rotary_inverse_frequencies = frequencies, layer.rotary_pair_count = SIZE_MAX; REFUSED("rotary_inverse_frequencies");
    layer.rotary_inverse_frequencies = frequencies, layer.rotary_pair_count = 32, layer.rotary_pairing = 2;
    REFUSED("rotary_pairing");
    layer.rotary_inverse_frequencies = frequencies, layer.rotary_pair_count = 32, layer.rotary_sections[0] = UINT32_MAX;
    REFUSED("M-RoPE");
#undef REFUSED
    OK(reelkv_model_add(store, &model));
    reelkv_store_close(store);
}

static void json_models(void) {
    reelkv_store *store = make_store(small_shape, new_path());
    char *warnings = NULL;
    OK(reelkv_model_add_json(store, "own", own_spec, strlen(own_spec), NULL, &warnings));
    CHECK(warnings != NULL && warnings[0] == 0);
    reelkv_free(warnings);
    OK(reelkv_model_add_json(store, "own", own_spec, strlen(own_spec), NULL, NULL));
    OK(reelkv_model_add_json(store, "qwen", qwen_config, strlen(qwen_config), hex, NULL));
    char *json = NULL;
    OK(reelkv_models_json(store, &json));
    CHECK(json_has(json, "00ab\",\"layers\":[{\"key_dim\":64,\"kv_heads\":2,\"rotated\":true"));
    char scaled[1024];
    snprintf(
        scaled, sizeof scaled,
        "%.*s, \"rope_scaling\": {\"rope_type\": \"longrope\", \"short_factor\": [1], \"long_factor\": [1]}}", (int)strlen(qwen_config) - 1, qwen_config);
    OK(reelkv_model_add_json(store, "scaled", scaled, strlen(scaled), hex, &warnings));
    CHECK(warnings != NULL && strlen(warnings) > 20);
    reelkv_free(warnings);
    warnings = scaled;
    FAILS_SAYING(
        REELKV_INVALID_ARGUMENT, "fingerprint",
        reelkv_model_add_json(store, "none", qwen_config, strlen(qwen_config), NULL, &warnings));
    CHECK(warnings == NULL);
    FAILS(REELKV_INVALID_ARGUMENT, reelkv_model_add_json(store, "none", qwen_config, strlen(qwen_config), "12", NULL));
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "JSON", reelkv_model_add_json(store, "none", own_spec, 10, NULL, NULL));
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "JSON", reelkv_model_add_json(store, "none", own_spec, 0, NULL, NULL));
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "json", reelkv_model_add_json(store, "none", own_spec, SIZE_MAX, NULL, NULL));
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "json", reelkv_model_add_json(store, "none", "[1]", 3, NULL, NULL));
    FAILS(REELKV_ALREADY_EXISTS, reelkv_model_add_json(store, "m", own_spec, strlen(own_spec), NULL, &warnings));
    CHECK(warnings == NULL);
    reelkv_store_close(store);
}

static void removed_models(void) {
    reelkv_store *store = make_store(small_shape, new_path());
    cache *written = make_cache(small_shape, 70, 1);
    write_sequence(store, "session/s", written, 0, 70, NULL);
    FAILS(REELKV_NOT_FOUND, reelkv_model_remove(store, "other", 0));
    FAILS(REELKV_IN_USE, reelkv_model_remove(store, "m", 0));
    CHECK_EQUAL(matched(store, written), 70);
    OK(reelkv_model_remove(store, "m", 1));
    FAILS(REELKV_NOT_FOUND, reelkv_model_remove(store, "m", 1));
    CHECK(json_has(sequences_json(store, NULL, 1), "[]"));
    reelkv_store_close(store);
    free_cache(written);
}

void test_models(void) {
    run_test("models of a struct", typed_models);
    run_test("impossible models are refused by the name of the member", impossible_models);
    run_test("models of JSON, with warnings", json_models);
    run_test("models are removed, with their sequences where asked to", removed_models);
}
