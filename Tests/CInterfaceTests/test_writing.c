#include "support.h"
#include "tests.h"

#include <stdlib.h>
#include <string.h>

static reelkv_writer_info info_of(const reelkv_writer *writer) {
    reelkv_writer_info info = REELKV_INIT(reelkv_writer_info);
    OK(reelkv_writer_describe(writer, &info));
    return info;
}

static void append(reelkv_writer *writer, const cache *cache, uint32_t first, uint32_t count) {
    reelkv_layer layers[LAYERS_MAX];
    fill_layers(cache, first, count, layers);
    reelkv_tokens tokens = tokens_of(cache, first, count);
    OK(reelkv_writer_append(writer, &tokens, layers, cache->shape.layers));
}

static void chunks(void) {
    reelkv_store *store = make_store(small_shape, new_path());
    cache *written = make_cache(small_shape, 500, 1);
    reelkv_writer_options options = REELKV_INIT(reelkv_writer_options);
    options.profile = "exact";
    reelkv_writer *writer = NULL;
    OK(reelkv_writer_open(store, "video/v", "m", &options, &writer));
    CHECK_EQUAL(info_of(writer).token_count, 0);
    const uint32_t counts[] = {1, 63, 0, 64, 200, 7, 165};
    uint32_t done = 0;
    for (int index = 0; index < 7; index++) {
        append(writer, written, done, counts[index]);
        done += counts[index];
        CHECK_EQUAL(info_of(writer).token_count, done);
    }
    OK(reelkv_writer_flush(writer));
    CHECK(json_has(sequences_json(store, "video", 1), "\"building\":true"));
    CHECK(json_has(sequences_json(store, "video", 0), "[]"));
    OK(reelkv_writer_finish(writer, NULL));
    CHECK(info_of(writer).token_count == 500 && info_of(writer).reused_token_count == 0 && info_of(writer).stored_bytes > 0);
    reelkv_layer layers[LAYERS_MAX];
    reelkv_tokens tokens = tokens_of(written, 0, 1);
    fill_layers(written, 0, 1, layers);
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "finished", reelkv_writer_append(writer, &tokens, layers, 4));
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "finished", reelkv_writer_finish(writer, NULL));
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "finished", reelkv_writer_flush(writer));
    reelkv_writer_close(writer);
    reelkv_writer_close(writer);
    reelkv_writer_close(NULL);
    FAILS(REELKV_INVALID_ARGUMENT, reelkv_writer_flush(writer));
    reelkv_prefix *prefix = match(store, written);
    cache *restored = restore_all(store, prefix, small_shape);
    CHECK(equal_caches(written, restored));
    /* the same again stores nothing */
    OK(reelkv_writer_open(store, "session/s", "m", &options, &writer));
    append(writer, written, 0, 500);
    OK(reelkv_writer_finish(writer, NULL));
    CHECK(info_of(writer).reused_token_count == 500 && info_of(writer).stored_bytes == 0);
    reelkv_writer_close(writer);
    reelkv_prefix_free(prefix);
    reelkv_store_close(store);
    free_cache(written);
    free_cache(restored);
}

static void session_of_a_match(void) {
    reelkv_store *store = make_store(small_shape, new_path());
    cache *first = make_cache(small_shape, 150, 2), *other = make_cache(small_shape, 150, 3);
    write_sequence(store, "video/v", first, 0, 150, NULL);
    reelkv_prefix *prefix = match(store, first);
    reelkv_writer_options options = REELKV_INIT(reelkv_writer_options);
    options.profile = "exact";
    options.start = prefix;
    options.checks_token_count = 1;
    options.token_count = 149;
    reelkv_writer *writer = NULL;
    FAILS(REELKV_CONFLICT, reelkv_writer_open(store, "session/s", "m", &options, &writer));
    CHECK(writer == NULL);
    options.token_count = 150;
    OK(reelkv_writer_open(store, "session/s", "m", &options, &writer));
    CHECK_EQUAL(info_of(writer).token_count, 150);
    append(writer, other, 0, 100);
    OK(reelkv_writer_finish(writer, NULL));
    reelkv_writer_close(writer);
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "exists", reelkv_writer_open(store, "session/s", "m", &options, &writer));
    reelkv_prefix_free(prefix);
    OK(reelkv_sequence_prefix(store, "session/s", NULL, 0, &prefix));
    cache *restored = restore_all(store, prefix, small_shape);
    for (uint32_t layer = 0; layer < 4; layer++) {
        CHECK(equal_tokens(restored, 0, first, 0, 150, layer) && equal_tokens(restored, 150, other, 0, 100, layer));
    }
    /* a start of another tenant's, or of another model */
    options.start = prefix;
    options.checks_token_count = 0;
    options.tenant = "acme";
    FAILS(REELKV_MODEL_MISMATCH, reelkv_writer_open(store, "session/t", "m", &options, &writer));
    options.tenant = NULL;
    add_model(store, "n", small_shape, 8);
    FAILS(REELKV_MODEL_MISMATCH, reelkv_writer_open(store, "session/t", "n", &options, &writer));
    reelkv_prefix_free(prefix);
    FAILS(REELKV_INVALID_ARGUMENT, reelkv_writer_open(store, "session/t", "m", &options, &writer));
    reelkv_store_close(store);
    free_cache(first);
    free_cache(other);
    free_cache(restored);
}

static void conflicts(void) {
    reelkv_store *store = make_store(small_shape, new_path());
    cache *one = make_cache(small_shape, 90, 4), *two = make_cache(small_shape, 90, 5);
    reelkv_writer *first = NULL, *second = NULL;
    OK(reelkv_writer_open(store, "session/s", "m", NULL, &first));
    OK(reelkv_writer_open(store, "session/s", "m", NULL, &second));
    append(first, one, 0, 90);
    append(second, two, 0, 90);
    OK(reelkv_writer_finish(first, NULL));
    FAILS(REELKV_CONFLICT, reelkv_writer_finish(second, NULL));
    FAILS(REELKV_INVALID_ARGUMENT, reelkv_writer_flush(second));
    reelkv_writer_close(first);
    reelkv_writer_close(second);
    CHECK_EQUAL(matched(store, one), 90);
    /* a video of other content: refused, or replaced */
    reelkv_writer_options options = REELKV_INIT(reelkv_writer_options);
    write_sequence(store, "video/v", one, 0, 90, NULL);
    OK(reelkv_writer_open(store, "video/v", "m", &options, &first));
    append(first, two, 0, 90);
    FAILS(REELKV_ALREADY_EXISTS, reelkv_writer_finish(first, NULL));
    reelkv_writer_close(first);
    options.replaces = 1;
    OK(reelkv_writer_open(store, "video/v", "m", &options, &first));
    append(first, two, 0, 90);
    OK(reelkv_writer_finish(first, NULL));
    reelkv_writer_close(first);
    CHECK_EQUAL(matched(store, two), 90);
    reelkv_store_close(store);
    free_cache(one);
    free_cache(two);
}

static void left_and_cancelled(void) {
    reelkv_store *store = make_store(small_shape, new_path());
    cache *written = make_cache(small_shape, 200, 6);
    reelkv_writer *writer = NULL;
    OK(reelkv_writer_open(store, "video/v", "m", NULL, &writer));
    append(writer, written, 0, 200);
    OK(reelkv_writer_flush(writer));
    reelkv_writer_close(writer);
    CHECK_EQUAL(matched(store, written), 192); /* the full pages stay */
    OK(reelkv_writer_open(store, "video/v", "m", NULL, &writer));
    append(writer, written, 0, 200);
    CHECK_EQUAL(info_of(writer).reused_token_count, 192);
    OK(reelkv_writer_flush(writer));
    reelkv_writer_cancel(writer);
    reelkv_writer_cancel(writer);
    reelkv_writer_cancel(NULL);
    CHECK(json_has(sequences_json(store, NULL, 0), "[]"));
    reelkv_store_close(store);
    free_cache(written);
}

static void misfits(void) {
    reelkv_store *store = make_store(small_shape, new_path());
    cache *written = make_cache(small_shape, 70, 7);
    reelkv_writer_options options = REELKV_INIT(reelkv_writer_options);
    reelkv_writer *writer = NULL;
    options.profile = "vidkv-9-9";
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "vidkv-1.5-1.58", reelkv_writer_open(store, "session/s", "m", &options, &writer));
    options.profile = "exact";
    FAILS(REELKV_NOT_FOUND, reelkv_writer_open(store, "session/s", "x", &options, &writer));
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "video/NAME", reelkv_writer_open(store, "s", "m", &options, &writer));
    FAILS(REELKV_INVALID_ARGUMENT, reelkv_writer_open(store, "session/", "m", &options, &writer));
    uint64_t marked[] = {3, UINT64_MAX};
    options.protected_tokens = marked;
    options.protected_count = 2;
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "protected_tokens", reelkv_writer_open(store, "session/s", "m", &options, &writer));
    options.protected_count = SIZE_MAX;
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "protected_tokens", reelkv_writer_open(store, "session/s", "m", &options, &writer));
    options.protected_count = 1;
    options.checks_token_count = 1;
    options.token_count = UINT64_MAX;
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "token_count", reelkv_writer_open(store, "session/s", "m", &options, &writer));
    options.token_count = 0;
    OK(reelkv_writer_open(store, "session/s", "m", &options, &writer));
    reelkv_layer layers[LAYERS_MAX];
    fill_layers(written, 0, 70, layers);
    reelkv_tokens tokens = tokens_of(written, 0, 70);
    const reelkv_layer good = layers[1];
    const reelkv_tokens good_tokens = tokens;
#define REFUSED(status, text)                                                             \
    do {                                                                                  \
        FAILS_SAYING(status, text, reelkv_writer_append(writer, &tokens, layers, 4));     \
        layers[1] = good;                                                                 \
        tokens = good_tokens;                                                             \
    } while (0)
    layers[1].key.heads = 1; REFUSED(REELKV_MODEL_MISMATCH, "layer 1");
    layers[1].value.dim = 31; REFUSED(REELKV_MODEL_MISMATCH, "layer 1");
    layers[1].value.tokens = 69; REFUSED(REELKV_MODEL_MISMATCH, "layer 1");
    layers[1].value.dtype = REELKV_FLOAT16; REFUSED(REELKV_MODEL_MISMATCH, "F16");
    layers[1].value.dtype = 9; REFUSED(REELKV_INVALID_ARGUMENT, "layers[1].value.dtype");
    layers[1].value.data = NULL; REFUSED(REELKV_INVALID_ARGUMENT, "layers[1].value.data");
    layers[1].key.token_stride = UINT64_MAX; REFUSED(REELKV_INVALID_ARGUMENT, "layers[1].key.token_stride");
    layers[1].key.token_stride = 1ull << 60; REFUSED(REELKV_INVALID_ARGUMENT, "layers[1].key");
    tokens.ids = NULL; REFUSED(REELKV_INVALID_ARGUMENT, "tokens->ids");
    tokens.count = SIZE_MAX; REFUSED(REELKV_INVALID_ARGUMENT, "tokens->ids");
    tokens.count = 69; REFUSED(REELKV_MODEL_MISMATCH, "layer 0");
    tokens.media_count = 1; REFUSED(REELKV_INVALID_ARGUMENT, "tokens->media");
    tokens.positions = written->ids; REFUSED(REELKV_INVALID_ARGUMENT, "position_streams");
    tokens.positions = written->ids, tokens.position_streams = 2; REFUSED(REELKV_INVALID_ARGUMENT, "position_streams");
    reelkv_media_span span = {.first_token = 60, .count = 20};
    tokens.media = &span, tokens.media_count = 1; REFUSED(REELKV_INVALID_ARGUMENT, "media span");
    span.count = UINT64_MAX;
    tokens.media = &span, tokens.media_count = 1; REFUSED(REELKV_INVALID_ARGUMENT, "tokens->media[0].count");
    span = (reelkv_media_span){.first_token = 60, .count = 5, .media_offset = 1ull << 62};
    tokens.media = &span, tokens.media_count = 1; REFUSED(REELKV_INVALID_ARGUMENT, "media offset");
    written->ids[5] = -1;
    REFUSED(REELKV_INVALID_ARGUMENT, "negative id");
    written->ids[5] = 1;
#undef REFUSED
    FAILS(REELKV_MODEL_MISMATCH, reelkv_writer_append(writer, &tokens, layers, 3));
    FAILS(REELKV_INVALID_ARGUMENT, reelkv_writer_append(writer, &tokens, layers, SIZE_MAX));
    /* nothing of all that was taken */
    append(writer, written, 0, 70);
    OK(reelkv_writer_finish(writer, NULL));
    reelkv_writer_close(writer);
    reelkv_prefix *prefix = match(store, written);
    cache *restored = restore_all(store, prefix, small_shape);
    CHECK(equal_caches(written, restored));
    reelkv_prefix_free(prefix);
    reelkv_store_close(store);
    free_cache(written);
    free_cache(restored);
}

static void sliding_windows(void) {
    reelkv_store *store = make_store(small_shape, new_path());
    reelkv_layer_geometry geometry[2];
    for (int layer = 0; layer < 2; layer++) {
        geometry[layer] = REELKV_INIT(reelkv_layer_geometry);
        geometry[layer].kv_heads = 2;
        geometry[layer].key_dim = geometry[layer].value_dim = 64;
        geometry[layer].sliding_window = layer == 1 ? 50 : 0;
    }
    reelkv_model model = REELKV_INIT(reelkv_model);
    model.name = "sliding";
    model.fingerprint[5] = 1;
    model.dtype = REELKV_BFLOAT16;
    model.layers = geometry;
    model.layer_count = 2;
    OK(reelkv_model_add(store, &model));
    shape shape = {.layers = 2, .heads = 2, .key_dim = 64, .value_dim = 64, .dtype = REELKV_BFLOAT16};
    cache *written = make_cache(shape, 190, 8), *target = make_empty(shape, 190), *empty = make_empty(shape, 190);
    reelkv_layer layers[2];
    fill_layers(written, 0, 190, layers);
    reelkv_layer last[2];
    fill_layers(written, 130, 60, last);
    layers[1] = last[1]; /* the engine holds only the last tokens of that layer */
    reelkv_writer_options options = REELKV_INIT(reelkv_writer_options);
    options.profile = "exact";
    reelkv_writer *writer = NULL;
    OK(reelkv_writer_open(store, "session/s", "sliding", &options, &writer));
    reelkv_tokens tokens = tokens_of(written, 0, 190);
    OK(reelkv_writer_append(writer, &tokens, layers, 2));
    OK(reelkv_writer_finish(writer, NULL));
    reelkv_writer_close(writer);
    reelkv_prefix *prefix = NULL;
    OK(reelkv_longest_prefix(store, "sliding", NULL, &tokens, NULL, 0, &prefix));
    CHECK_EQUAL(describe(prefix).token_count, 190);
    uint64_t first_tokens[2] = {9, 9};
    fill_layers(target, 0, 190, layers);
    OK(reelkv_restore(store, prefix, NULL, layers, 2, first_tokens));
    CHECK(first_tokens[0] == 0 && first_tokens[1] == 130);
    CHECK(equal_tokens(target, 0, written, 0, 190, 0));
    CHECK(equal_tokens(target, 130, written, 130, 60, 1) && equal_tokens(target, 0, empty, 0, 130, 1));
    reelkv_restore_job *job = NULL;
    OK(reelkv_restore_begin(store, prefix, NULL, layers, 2, &job));
    OK(reelkv_restore_wait(job, 1, &first_tokens[0]));
    CHECK_EQUAL(first_tokens[0], 130);
    OK(reelkv_restore_end(job));
    reelkv_prefix_free(prefix);
    tokens.count = 150; /* of the window before its end, some tokens are not stored */
    OK(reelkv_longest_prefix(store, "sliding", NULL, &tokens, NULL, 0, &prefix));
    CHECK_EQUAL(describe(prefix).token_count, 0);
    CHECK_EQUAL(describe(prefix).stop, REELKV_STOP_SLIDING_WINDOW);
    reelkv_prefix_free(prefix);
    reelkv_store_close(store);
    free_cache(written);
    free_cache(target);
    free_cache(empty);
}

void test_writing(void) {
    run_test("a video in chunks, and the same again", chunks);
    run_test("a session goes on from a match", session_of_a_match);
    run_test("two writers of one name", conflicts);
    run_test("writers that are let go, and cancelled", left_and_cancelled);
    run_test("after what does not fit the writer goes on", misfits);
    run_test("sliding-window layers hold their last tokens", sliding_windows);
}
