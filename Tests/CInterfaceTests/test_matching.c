#include "support.h"
#include "tests.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void matches(void) {
    reelkv_store *store = make_store(small_shape, new_path());
    cache *written = make_cache(small_shape, 300, 1), *longer = make_cache(small_shape, 400, 1);
    cache *other = make_cache(small_shape, 90, 2);
    CHECK_EQUAL(matched(store, written), 0);
    write_sequence(store, "session/s", written, 0, 300, NULL);
    reelkv_prefix *prefix = match(store, longer);
    reelkv_prefix_info info = describe(prefix);
    CHECK_EQUAL(info.token_count, 300);
    CHECK_EQUAL(info.stop, REELKV_STOP_NOT_STORED);
    CHECK_EQUAL(info.is_exact, 1);
    CHECK_EQUAL(info.has_engine_state, 0);
    CHECK_EQUAL(info.dtype, REELKV_BFLOAT16);
    CHECK_EQUAL(info.layer_count, 4);
    CHECK(info.stored_bytes > 0 && info.key_error == 0 && info.value_error == 0);
    reelkv_prefix_free(prefix);
    prefix = match(store, written);
    CHECK_EQUAL(describe(prefix).stop, REELKV_STOP_COMPLETE);
    reelkv_layer_geometry geometry = REELKV_INIT(reelkv_layer_geometry);
    OK(reelkv_prefix_layer(prefix, 3, &geometry));
    CHECK(geometry.kv_heads == 2 && geometry.key_dim == 64 && geometry.value_dim == 32 && geometry.sliding_window == 0);
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "layer", reelkv_prefix_layer(prefix, 4, &geometry));
    FAILS(REELKV_NOT_FOUND, reelkv_prefix_engine_state(prefix, &geometry, sizeof geometry));
    reelkv_prefix_free(prefix);
    CHECK_EQUAL(matched(store, other), 0);
    /* inside a page, to the token */
    longer->ids[77]++;
    CHECK_EQUAL(matched(store, longer), 77);
    reelkv_tokens tokens = tokens_of(written, 0, 300);
    FAILS(REELKV_NOT_FOUND, reelkv_longest_prefix(store, "x", NULL, &tokens, NULL, 0, &prefix));
    CHECK(prefix == NULL);
    OK(reelkv_longest_prefix(store, "m", "another tenant", &tokens, NULL, 0, &prefix));
    CHECK_EQUAL(describe(prefix).token_count, 0);
    reelkv_prefix_free(prefix);
    tokens.count = 0;
    OK(reelkv_longest_prefix(store, "m", NULL, &tokens, NULL, REELKV_MATCH_UNCOUNTED, &prefix));
    CHECK_EQUAL(describe(prefix).stop, REELKV_STOP_COMPLETE);
    reelkv_prefix_free(prefix);
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "flags", reelkv_longest_prefix(store, "m", NULL, &tokens, NULL, 2, &prefix));
    reelkv_store_close(store);
    free_cache(written);
    free_cache(longer);
    free_cache(other);
}

static void acceptance(void) {
    reelkv_store *store = make_store(small_shape, new_path());
    cache *written = make_cache(small_shape, 256, 3);
    write_sequence(store, "video/v", written, 0, 256, "vidkv-1.5-1.58");
    reelkv_tokens tokens = tokens_of(written, 0, 256);
    reelkv_prefix *prefix = match(store, written);
    reelkv_prefix_info any = describe(prefix);
    reelkv_prefix_free(prefix);
    CHECK_EQUAL(any.token_count, 256);
    CHECK(any.is_exact == 0 && any.key_error > 0 && any.key_error < 0.2 && any.value_error > 0 && any.value_error < 0.5);
    reelkv_acceptance exact = REELKV_INIT(reelkv_acceptance);
    OK(reelkv_longest_prefix(store, "m", NULL, &tokens, &exact, 0, &prefix));
    reelkv_prefix_info info = describe(prefix);
    reelkv_prefix_free(prefix);
    CHECK_EQUAL(info.token_count, 0);
    CHECK_EQUAL(info.stop, REELKV_STOP_TOO_LOSSY);
    CHECK(info.refused_key_error > 0 && info.refused_value_error > 0);
    reelkv_acceptance bound = REELKV_INIT(reelkv_acceptance);
    bound.key_error_max = bound.value_error_max = 1;
    OK(reelkv_longest_prefix(store, "m", NULL, &tokens, &bound, 0, &prefix));
    CHECK_EQUAL(describe(prefix).token_count, 256);
    reelkv_prefix_free(prefix);
    bound.key_error_max = NAN;
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "accepting", reelkv_longest_prefix(store, "m", NULL, &tokens, &bound, 0, &prefix));
    bound.key_error_max = -1;
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "accepting", reelkv_longest_prefix(store, "m", NULL, &tokens, &bound, 0, &prefix));
    reelkv_store_close(store);
    free_cache(written);
}

/* 3 tokens of text, 4 frames of 30 placeholders, 27 of text. */
static reelkv_tokens video_tokens(cache *cache, reelkv_media_span *spans) {
    reelkv_tokens tokens = tokens_of(cache, 0, 150);
    for (uint32_t frame = 0; frame < 4; frame++) {
        spans[frame] = (reelkv_media_span){.first_token = 3 + 30 * frame, .count = 30, .media_offset = 30 * frame};
        memset(spans[frame].digest, 0x11, sizeof spans[frame].digest);
        for (uint32_t token = 0; token < 30; token++) cache->ids[3 + 30 * frame + token] = -7;
    }
    tokens.media = spans;
    tokens.media_count = 4;
    return tokens;
}

static void media(void) {
    reelkv_store *store = make_store(small_shape, new_path());
    cache *written = make_cache(small_shape, 150, 4);
    reelkv_media_span spans[4];
    reelkv_tokens tokens = video_tokens(written, spans);
    int32_t positions[3 * 150];
    for (int index = 0; index < 3 * 150; index++) positions[index] = index * 7 % 1000;
    tokens.positions = positions;
    tokens.position_streams = 3;
    reelkv_writer *writer = NULL;
    OK(reelkv_writer_open(store, "video/v", "m", NULL, &writer));
    reelkv_layer layers[LAYERS_MAX];
    fill_layers(written, 0, 150, layers);
    OK(reelkv_writer_append(writer, &tokens, layers, small_shape.layers));
    OK(reelkv_writer_finish(writer, NULL));
    reelkv_writer_close(writer);

    reelkv_prefix *prefix = NULL;
    for (int index = 3; index < 123; index++) written->ids[index] = 12345; /* whatever a tokenizer calls them */
    OK(reelkv_longest_prefix(store, "m", NULL, &tokens, NULL, 0, &prefix));
    CHECK_EQUAL(describe(prefix).token_count, 150);
    reelkv_tokens *stored = NULL;
    OK(reelkv_prefix_tokens(store, prefix, &stored));
    CHECK_EQUAL(stored->struct_size, sizeof(reelkv_tokens));
    CHECK_EQUAL(stored->count, 150);
    CHECK_EQUAL(stored->media_count, 1); /* spans that continue each other are one */
    CHECK(stored->media[0].first_token == 3 && stored->media[0].count == 120 && stored->media[0].media_offset == 0);
    CHECK(memcmp(stored->media[0].digest, spans[0].digest, 32) == 0);
    CHECK_EQUAL(stored->position_streams, 3);
    CHECK(memcmp(stored->positions, positions, sizeof positions) == 0);
    for (int index = 0; index < 150; index++) {
        CHECK_EQUAL(stored->ids[index], index < 3 || index >= 123 ? written->ids[index] : -1);
    }
    reelkv_prefix_free(prefix);
    OK(reelkv_longest_prefix(store, "m", NULL, stored, NULL, 0, &prefix)); /* as it was given */
    CHECK_EQUAL(describe(prefix).token_count, 150);
    reelkv_free(stored);
    reelkv_prefix_free(prefix);

    spans[2].digest[31] ^= 1; /* another video from the third frame on */
    OK(reelkv_longest_prefix(store, "m", NULL, &tokens, NULL, 0, &prefix));
    CHECK_EQUAL(describe(prefix).token_count, 63);
    OK(reelkv_prefix_tokens(store, prefix, &stored));
    CHECK(stored->count == 63 && stored->media[0].count == 60);
    CHECK(memcmp(stored->positions + 63, positions + 150, 63 * sizeof(int32_t)) == 0);
    reelkv_free(stored);
    reelkv_prefix_free(prefix);
    tokens.positions = NULL;
    OK(reelkv_longest_prefix(store, "m", NULL, &tokens, NULL, 0, &prefix));
    CHECK_EQUAL(describe(prefix).token_count, 0);
    reelkv_prefix_free(prefix);
    reelkv_store_close(store);
    free_cache(written);
}

static void leases(void) {
    reelkv_store *store = make_store(small_shape, new_path());
    cache *kept = make_cache(small_shape, 200, 5), *lost = make_cache(small_shape, 200, 6);
    write_sequence(store, "session/kept", kept, 0, 200, NULL);
    write_sequence(store, "session/lost", lost, 0, 200, NULL);
    reelkv_prefix *prefix = match(store, kept);
    reelkv_lease *lease = NULL;
    OK(reelkv_lease_take(store, prefix, &lease));
    uint64_t evicted = 0;
    OK(reelkv_evict(store, 0, &evicted));
    CHECK(evicted > 0);
    CHECK_EQUAL(matched(store, lost), 0);
    CHECK_EQUAL(matched(store, kept), 200);
    reelkv_lease_release(lease);
    reelkv_lease_release(lease); /* an old handle does nothing */
    reelkv_lease_release(NULL);
    OK(reelkv_evict(store, 0, NULL));
    CHECK_EQUAL(matched(store, kept), 0);
    FAILS(REELKV_PAGE_UNAVAILABLE, reelkv_lease_take(store, prefix, &lease));
    CHECK(lease == NULL);
    reelkv_prefix_free(prefix);
    reelkv_store_close(store);
    free_cache(kept);
    free_cache(lost);
}

void test_matching(void) {
    run_test("the longest prefix, to the token", matches);
    run_test("a match stops where pages are more lossy than accepted", acceptance);
    run_test("media spans and positions are tokens", media);
    run_test("a lease keeps a prefix from being evicted", leases);
}
