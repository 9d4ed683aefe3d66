#define _GNU_SOURCE
#include "support.h"
#include "tests.h"

#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A store with a session "s" of so many tokens, and a match of it. */
static reelkv_store *store_with(const cache *written, const char *profile, reelkv_prefix **prefix) {
    reelkv_store *store = make_store(written->shape, new_path());
    write_sequence(store, "session/s", written, 0, written->tokens, profile);
    *prefix = match(store, written);
    return store;
}

static void exact_types(void) {
    for (uint32_t dtype = REELKV_FLOAT16; dtype <= REELKV_FLOAT32; dtype++) {
        shape shape = small_shape;
        shape.dtype = dtype;
        cache *written = make_cache(shape, 333, dtype);
        reelkv_prefix *prefix;
        reelkv_store *store = store_with(written, NULL, &prefix);
        cache *restored = restore_all(store, prefix, shape);
        CHECK(equal_caches(written, restored));
        reelkv_prefix_free(prefix);
        reelkv_store_close(store);
        free_cache(written);
        free_cache(restored);
    }
}

static void parts(void) {
    cache *written = make_cache(small_shape, 300, 1);
    reelkv_prefix *prefix;
    reelkv_store *store = store_with(written, NULL, &prefix);
    cache *target = make_empty(small_shape, 300), *untouched = make_empty(small_shape, 300);
    reelkv_layer layers[LAYERS_MAX];
    reelkv_restore_options options = REELKV_INIT(reelkv_restore_options);
    options.first_layer = 1;
    options.layer_count = 2;
    options.first_token = 50;
    options.token_count = 130;
    options.threads = 3;
    fill_layers(target, 60, 130, layers);
    layers[2].value.data = NULL; /* not wanted */
    uint64_t first_tokens[2] = {9, 9};
    OK(reelkv_restore(store, prefix, &options, layers + 1, 2, first_tokens));
    CHECK(first_tokens[0] == 0 && first_tokens[1] == 0);
    CHECK(equal_tokens(target, 60, written, 50, 130, 1));
    CHECK(equal_tokens(target, 0, untouched, 0, 60, 1) && equal_tokens(target, 190, untouched, 190, 110, 1));
    CHECK(equal_tokens(target, 0, untouched, 0, 300, 0) && equal_tokens(target, 0, untouched, 0, 300, 3));
    memcpy(written->values[2], untouched->values[2], (size_t)2 * 300 * 32 * 2);
    CHECK(equal_tokens(target, 60, written, 50, 130, 2));
    /* from a layer and a token on, to the ends */
    options = REELKV_INIT(reelkv_restore_options);
    options.first_layer = 3;
    options.first_token = 299;
    fill_layers(target, 7, 1, layers);
    OK(reelkv_restore(store, prefix, &options, layers + 3, 1, NULL));
    CHECK(equal_tokens(target, 7, written, 299, 1, 3));
    /* nothing */
    options.first_token = 300;
    fill_layers(target, 0, 0, layers);
    OK(reelkv_restore(store, prefix, &options, layers + 3, 1, NULL));
    options.first_layer = 4;
    OK(reelkv_restore(store, prefix, &options, NULL, 0, NULL));
    reelkv_prefix_free(prefix);
    reelkv_store_close(store);
    free_cache(written);
    free_cache(target);
    free_cache(untouched);
}

/* [tokens, channels, heads] of float32, with room between the elements, at an odd address. */
static void strides_and_conversion(void) {
    cache *written = make_cache(small_shape, 100, 2);
    reelkv_prefix *prefix;
    reelkv_store *store = store_with(written, NULL, &prefix);
    enum { HEAD = 3, CHANNEL = 2 * HEAD + 1, TOKEN = 64 * CHANNEL + 5 };
    size_t elements = (size_t)100 * TOKEN;
    unsigned char *memory[4][2];
    reelkv_layer layers[4];
    for (int layer = 0; layer < 4; layer++) {
        for (int kind = 0; kind < 2; kind++) {
            memory[layer][kind] = malloc(4 * elements + 1);
            reelkv_tensor *tensor = kind == 0 ? &layers[layer].key : &layers[layer].value;
            *tensor = (reelkv_tensor){
                .data = memory[layer][kind] + 1, .head_stride = HEAD, .token_stride = TOKEN, .channel_stride = CHANNEL,
                .heads = 2, .tokens = 100, .dim = kind == 0 ? 64 : 32, .dtype = REELKV_FLOAT32};
        }
    }
    OK(reelkv_restore(store, prefix, NULL, layers, 4, NULL));
    for (int layer = 0; layer < 4; layer++) {
        for (uint32_t index = 0; index < 2 * 100 * 64; index++) {
            uint32_t head = index / 6400, token = index / 64 % 100, channel = index % 64;
            size_t place = head * HEAD + token * TOKEN + channel * CHANNEL;
            CHECK(value_at(memory[layer][0] + 1, place, REELKV_FLOAT32) ==
                  value_at(written->keys[layer], index, REELKV_BFLOAT16));
            if (channel >= 32) continue;
            CHECK(value_at(memory[layer][1] + 1, place, REELKV_FLOAT32) ==
                  value_at(written->values[layer], (head * 100 + token) * 32 + channel, REELKV_BFLOAT16));
        }
        free(memory[layer][0]);
        free(memory[layer][1]);
    }
    reelkv_prefix_free(prefix);
    reelkv_store_close(store);
    free_cache(written);
}

/* Strides along which nothing lies, as array libraries leave them. */
static void strides_of_one(void) {
    shape single = {.layers = 2, .heads = 1, .key_dim = 64, .value_dim = 1, .dtype = REELKV_FLOAT16};
    cache *written = make_cache(single, 1, 11), *target = make_empty(single, 1);
    reelkv_store *store = make_store(single, new_path());
    reelkv_layer layers[2];
    reelkv_tokens tokens = tokens_of(written, 0, 1);
    reelkv_writer *writer = NULL;
    reelkv_writer_options options = REELKV_INIT(reelkv_writer_options);
    options.profile = "exact";
    OK(reelkv_writer_open(store, "session/s", "m", &options, &writer));
    for (int round = 0; round < 2; round++) {
        fill_layers(round == 0 ? written : target, 0, 1, layers);
        for (int layer = 0; layer < 2; layer++) {
            layers[layer].key.head_stride = layers[layer].value.head_stride = UINT64_MAX;
            layers[layer].key.token_stride = layers[layer].value.token_stride = INT64_MAX;
            layers[layer].value.channel_stride = UINT64_MAX - 63;
        }
        if (round == 1) break;
        OK(reelkv_writer_append(writer, &tokens, layers, 2));
        OK(reelkv_writer_finish(writer, NULL));
    }
    reelkv_writer_close(writer);
    reelkv_prefix *prefix = match(store, written);
    OK(reelkv_restore(store, prefix, NULL, layers, 2, NULL));
    CHECK(equal_caches(written, target));
    reelkv_prefix_free(prefix);
    reelkv_store_close(store);
    free_cache(written);
    free_cache(target);
}

static double error_of(const cache *left, const cache *right, uint32_t layer) {
    double squares = 0, differences = 0;
    for (uint32_t index = 0; index < left->shape.heads * left->tokens * left->shape.key_dim; index++) {
        double a = value_at(left->keys[layer], index, left->shape.dtype);
        double b = value_at(right->keys[layer], index, right->shape.dtype);
        squares += a * a;
        differences += (a - b) * (a - b);
    }
    return differences / squares;
}

static void lossy(void) {
    const char *const profiles[] = {"int8", "int4", "kivi-2", "vidkv-2-2", "vidkv-1.5-1.58"};
    cache *written = make_cache(small_shape, 256, 3);
    double last = 0;
    for (int index = 0; index < 5; index++) {
        reelkv_prefix *prefix;
        reelkv_store *store = store_with(written, profiles[index], &prefix);
        shape half = small_shape;
        half.dtype = REELKV_FLOAT16;
        cache *restored = restore_all(store, prefix, half);
        double error = 0;
        for (uint32_t layer = 0; layer < 4; layer++) error += error_of(written, restored, layer) / 4;
        CHECK(error > last / 4 && error < 0.05);
        CHECK(fabs(error - describe(prefix).key_error) < 0.2 * error + 1e-5);
        if (index < 2) last = error;
        reelkv_prefix_free(prefix);
        reelkv_store_close(store);
        free_cache(restored);
    }
    free_cache(written);
}

static void background(void) {
    cache *written = make_cache(small_shape, 500, 4);
    reelkv_prefix *prefix;
    reelkv_store *store = store_with(written, NULL, &prefix);
    cache *target = make_empty(small_shape, 500);
    reelkv_layer layers[LAYERS_MAX];
    reelkv_restore_options options = REELKV_INIT(reelkv_restore_options);
    options.first_layer = 1;
    reelkv_restore_job *job = NULL;
    fill_layers(target, 0, 500, layers);
    OK(reelkv_restore_begin(store, prefix, &options, layers + 1, 3, &job));
    memset(layers, 0, sizeof layers); /* not needed any more */
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "layer", reelkv_restore_wait(job, 0, NULL));
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "layer", reelkv_restore_wait(job, 4, NULL));
    for (uint32_t layer = 1; layer < 4; layer++) {
        uint64_t first = 9;
        OK(reelkv_restore_wait(job, layer, &first));
        CHECK_EQUAL(first, 0);
        CHECK(equal_tokens(written, 0, target, 0, 500, layer));
    }
    OK(reelkv_restore_wait(job, 1, NULL)); /* again, and out of order */
    OK(reelkv_restore_end(job));
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "let go of", reelkv_restore_end(job));
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "let go of", reelkv_restore_wait(job, 1, NULL));
    OK(reelkv_restore_end(NULL));
    reelkv_prefix_free(prefix);
    reelkv_store_close(store);
    free_cache(written);
    free_cache(target);
}

static int thread_count(void) {
    DIR *folder = opendir("/proc/self/task");
    if (folder == NULL) return 0;
    int count = 0;
    while (readdir(folder) != NULL) count++;
    closedir(folder);
    return count;
}

static void cancelled(void) {
    shape many = small_shape;
    many.layers = 40;
    cache *written = make_cache(many, 1024, 5);
    reelkv_prefix *prefix;
    reelkv_store *store = store_with(written, NULL, &prefix);
    reelkv_layer layers[LAYERS_MAX];
    int threads = 0, cancelled = 0;
    for (int round = 0; round < 60; round++) {
        cache *target = make_empty(many, 1024);
        fill_layers(target, 0, 1024, layers);
        reelkv_restore_job *job = NULL;
        OK(reelkv_restore_begin(store, prefix, NULL, layers, 40, &job));
        if (round % 3 > 0) OK(reelkv_restore_wait(job, (uint32_t)round % 3, NULL));
        reelkv_status status = reelkv_restore_end(job);
        if (status != REELKV_OK) FAILS_SAYING(REELKV_CANCELLED, "ended before", status);
        cancelled += status == REELKV_CANCELLED;
        /* what was waited for is whole, and nothing is written any more */
        for (uint32_t layer = 0; round % 3 > 0 && layer <= (uint32_t)round % 3; layer++) {
            CHECK(equal_tokens(written, 0, target, 0, 1024, layer));
        }
        free_cache(target);
        if (round == 20) threads = thread_count();
    }
    CHECK(cancelled > 30);
    CHECK(thread_count() <= threads + 2);
    reelkv_prefix_free(prefix);
    reelkv_store_close(store);
    free_cache(written);
}

static void many_jobs(void) {
    enum { JOBS = 300 };
    cache *written = make_cache(small_shape, 128, 6), *targets[JOBS];
    reelkv_prefix *prefix;
    reelkv_store *store = store_with(written, NULL, &prefix);
    reelkv_restore_job *jobs[JOBS];
    reelkv_layer layers[LAYERS_MAX];
    for (int index = 0; index < JOBS; index++) {
        targets[index] = make_empty(small_shape, 128);
        fill_layers(targets[index], 0, 128, layers);
        OK(reelkv_restore_begin(store, prefix, NULL, layers, 4, &jobs[index]));
    }
    for (int index = 0; index < JOBS; index++) {
        OK(reelkv_restore_wait(jobs[index], 3, NULL));
        OK(reelkv_restore_end(jobs[index]));
        CHECK(equal_caches(written, targets[index]));
        free_cache(targets[index]);
    }
    reelkv_prefix_free(prefix);
    reelkv_store_close(store);
    free_cache(written);
}

static void pages_gone(void) {
    cache *written = make_cache(small_shape, 200, 7);
    reelkv_prefix *prefix;
    reelkv_store *store = store_with(written, NULL, &prefix);
    OK(reelkv_remove(store, "session/s", NULL));
    OK(reelkv_compact(store, NULL));
    cache *target = make_empty(small_shape, 200);
    reelkv_layer layers[LAYERS_MAX];
    fill_layers(target, 0, 200, layers);
    FAILS(REELKV_PAGE_UNAVAILABLE, reelkv_restore(store, prefix, NULL, layers, 4, NULL));
    reelkv_restore_job *job = NULL;
    OK(reelkv_restore_begin(store, prefix, NULL, layers, 4, &job));
    FAILS(REELKV_PAGE_UNAVAILABLE, reelkv_restore_wait(job, 2, NULL));
    FAILS(REELKV_PAGE_UNAVAILABLE, reelkv_restore_wait(job, 0, NULL));
    FAILS(REELKV_PAGE_UNAVAILABLE, reelkv_restore_end(job));
    reelkv_tokens *tokens = NULL;
    FAILS(REELKV_PAGE_UNAVAILABLE, reelkv_prefix_tokens(store, prefix, &tokens));
    CHECK(tokens == NULL);
    reelkv_prefix_free(prefix);
    reelkv_store_close(store);
    free_cache(written);
    free_cache(target);
}

/* A prefix of one store says nothing of another's. */
static void foreign_prefixes(void) {
    cache *ours = make_cache(small_shape, 200, 12), *theirs = make_cache(small_shape, 200, 13);
    reelkv_prefix *our_prefix, *their_prefix;
    reelkv_store *our_store = store_with(ours, NULL, &our_prefix), *their_store = store_with(theirs, NULL, &their_prefix);
    cache *target = make_empty(small_shape, 200);
    reelkv_layer layers[LAYERS_MAX];
    fill_layers(target, 0, 200, layers);
    FAILS(REELKV_PAGE_UNAVAILABLE, reelkv_restore(their_store, our_prefix, NULL, layers, 4, NULL));
    reelkv_tokens *tokens = NULL;
    FAILS(REELKV_PAGE_UNAVAILABLE, reelkv_prefix_tokens(their_store, our_prefix, &tokens));
    reelkv_lease *lease = NULL;
    FAILS(REELKV_PAGE_UNAVAILABLE, reelkv_lease_take(their_store, our_prefix, &lease));
    reelkv_writer_options options = REELKV_INIT(reelkv_writer_options);
    options.start = our_prefix;
    reelkv_writer *writer = NULL;
    FAILS(REELKV_MODEL_MISMATCH, reelkv_writer_open(their_store, "session/t", "m", &options, &writer));
    OK(reelkv_restore(their_store, their_prefix, NULL, layers, 4, NULL));
    CHECK(equal_caches(theirs, target));
    CHECK(json_has(verify_json(their_store), "\"quarantined\":0"));
    reelkv_prefix_free(our_prefix);
    reelkv_prefix_free(their_prefix);
    reelkv_store_close(our_store);
    reelkv_store_close(their_store);
    free_cache(ours);
    free_cache(theirs);
    free_cache(target);
}

static void misfits(void) {
    cache *written = make_cache(small_shape, 100, 8), *target = make_empty(small_shape, 100);
    reelkv_prefix *prefix;
    reelkv_store *store = store_with(written, NULL, &prefix);
    reelkv_layer layers[LAYERS_MAX];
    reelkv_restore_options options = REELKV_INIT(reelkv_restore_options);
    reelkv_restore_job *job = NULL;
    fill_layers(target, 0, 100, layers);
    const reelkv_layer good = layers[2];
#define REFUSED(status, text)                                                                         \
    do {                                                                                              \
        FAILS_SAYING(status, text, reelkv_restore(store, prefix, &options, layers, 4, NULL));         \
        FAILS_SAYING(status, text, reelkv_restore_begin(store, prefix, &options, layers, 4, &job));   \
        CHECK(job == NULL);                                                                           \
        layers[2] = good;                                                                             \
        options = REELKV_INIT(reelkv_restore_options);                                                \
    } while (0)
    layers[2].key.heads = 3; REFUSED(REELKV_MODEL_MISMATCH, "layer 2");
    layers[2].key.dim = 63; REFUSED(REELKV_MODEL_MISMATCH, "layer 2");
    layers[2].value.dim = 64; REFUSED(REELKV_MODEL_MISMATCH, "value");
    layers[2].value.tokens = 99; REFUSED(REELKV_MODEL_MISMATCH, "layer 2");
    layers[2].value.tokens = UINT32_MAX; REFUSED(REELKV_MODEL_MISMATCH, "layer 2");
    layers[2].value.dtype = 0; REFUSED(REELKV_INVALID_ARGUMENT, "layers[2].value.dtype");
    layers[2].value.dtype = 256 + 2; REFUSED(REELKV_INVALID_ARGUMENT, "layers[2].value.dtype");
    layers[2].key.head_stride = UINT64_MAX; REFUSED(REELKV_INVALID_ARGUMENT, "layers[2].key.head_stride");
    layers[2].key.token_stride = 1ull << 62; REFUSED(REELKV_INVALID_ARGUMENT, "layers[2].key");
    layers[2].key.channel_stride = 1ull << 56; REFUSED(REELKV_INVALID_ARGUMENT, "layers[2].key");
    layers[2].key.data = (void *)(UINTPTR_MAX - 100); REFUSED(REELKV_INVALID_ARGUMENT, "layers[2].key");
    options.first_layer = 5; REFUSED(REELKV_INVALID_ARGUMENT, "layer");
    options.first_layer = 1; REFUSED(REELKV_INVALID_ARGUMENT, "layers");
    options.layer_count = 5; REFUSED(REELKV_INVALID_ARGUMENT, "layer");
    options.first_layer = UINT32_MAX, options.layer_count = UINT32_MAX; REFUSED(REELKV_INVALID_ARGUMENT, "layer");
    options.first_token = 101; REFUSED(REELKV_INVALID_ARGUMENT, "token");
    options.first_token = UINT64_MAX, options.token_count = UINT64_MAX; REFUSED(REELKV_INVALID_ARGUMENT, "token");
    options.token_count = UINT64_MAX; REFUSED(REELKV_INVALID_ARGUMENT, "token");
    options.token_count = 50; REFUSED(REELKV_MODEL_MISMATCH, "layer 0");
#undef REFUSED
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "layers", reelkv_restore(store, prefix, NULL, layers, 3, NULL));
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "layers", reelkv_restore(store, prefix, NULL, layers, SIZE_MAX, NULL));
    options.threads = UINT32_MAX;
    OK(reelkv_restore(store, prefix, &options, layers, 4, NULL));
    CHECK(equal_caches(written, target));
    reelkv_prefix_free(prefix);
    reelkv_store_close(store);
    free_cache(written);
    free_cache(target);
}

void test_restoring(void) {
    run_test("exact pages come back bit for bit, in every element type", exact_types);
    run_test("some layers and tokens, and not every tensor", parts);
    run_test("strided memory of another element type", strides_and_conversion);
    run_test("strides of dimensions of one element do not matter", strides_of_one);
    run_test("lossy profiles keep to the error that a match tells", lossy);
    run_test("a restore in the background, layer by layer", background);
    run_test("a restore that is ended early stops writing", cancelled);
    run_test("300 restores in the background at once", many_jobs);
    run_test("a restore of pages that are gone", pages_gone);
    run_test("a prefix of another store", foreign_prefixes);
    run_test("memory that does not fit is refused before anything is read", misfits);
}
