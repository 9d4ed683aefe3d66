#include "support.h"
#include "tests.h"

#include <stdlib.h>
#include <string.h>

static void finish_options(void) {
    reelkv_store *store = make_store(small_shape, new_path());
    cache *written = make_cache(small_shape, 100, 1);
    reelkv_writer *writer = NULL;
    OK(reelkv_writer_open(store, "video/lobby", "m", NULL, &writer));
    reelkv_layer layers[LAYERS_MAX];
    fill_layers(written, 0, 100, layers);
    reelkv_tokens tokens = tokens_of(written, 0, 100);
    OK(reelkv_writer_append(writer, &tokens, layers, 4));
    reelkv_finish_options options = REELKV_INIT(reelkv_finish_options);
    reelkv_frame frames[] = {{3, 40, 0}, {43, 50, 0.5}, {101, 1, 1}};
    const char *provenance[] = {"source", "lobby.mp4", "note", "K\xc3\xa4se \"1\"", "source", "lobby2.mp4", NULL, "x"};
    options.frames = frames;
    options.frame_count = 3;
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "frame", reelkv_writer_finish(writer, &options));
    frames[2] = (reelkv_frame){UINT64_MAX, 1, 1};
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "options->frames[2].first_token", reelkv_writer_finish(writer, &options));
    frames[2] = (reelkv_frame){1, UINT64_MAX, 1};
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "options->frames[2].token_count", reelkv_writer_finish(writer, &options));
    options.frame_count = SIZE_MAX;
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "options->frames", reelkv_writer_finish(writer, &options));
    options.frame_count = 2;
    options.provenance = provenance;
    options.provenance_count = SIZE_MAX / 2 + 1;
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "provenance", reelkv_writer_finish(writer, &options));
    options.provenance_count = 4;
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "options->provenance[6]", reelkv_writer_finish(writer, &options));
    options.provenance_count = 3;
    options.pin = 3;
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "options->pin", reelkv_writer_finish(writer, &options));
    options.pin = REELKV_PIN_NO;
    options.engine_state_bytes = 5;
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "options->engine_state", reelkv_writer_finish(writer, &options));
    options.engine_state = "state";
    options.engine_state_bytes = SIZE_MAX;
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "options->engine_state", reelkv_writer_finish(writer, &options));
    options.engine_state_bytes = 5;
    OK(reelkv_writer_finish(writer, &options)); /* after all that, it still can */
    reelkv_writer_close(writer);
    CHECK(json_has(sequence_json(store, "video/lobby"), "\"frames\":[[3,40,0],[43,50,0.5]]"));
    CHECK(json_has(sequence_json(store, "video/lobby"), "{\"note\":\"K\xc3\xa4se \\\"1\\\"\",\"source\":\"lobby2.mp4\"}"));
    CHECK(json_has(
        sequence_json(store, "video/lobby"),
        "\"pinned\":false,\"profile\":\"vidkv-1.5-1.58\",\"provenance\""));
    CHECK(json_has(
        sequence_json(store, "video/lobby"), "\"sequence\":\"video/lobby\",\"tenant\":\"default\",\"tokens\":100,\"turns\":[]"));
    reelkv_prefix *prefix = match(store, written);
    char state[8] = "1234567";
    CHECK(describe(prefix).has_engine_state == 1 && describe(prefix).engine_state_bytes == 5);
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "buffer", reelkv_prefix_engine_state(prefix, state, 4));
    OK(reelkv_prefix_engine_state(prefix, state, 5));
    CHECK(strcmp(state, "state67") == 0);
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "buffer", reelkv_prefix_engine_state(prefix, NULL, 5));
    reelkv_prefix_free(prefix);
    tokens.count = 99;
    OK(reelkv_longest_prefix(store, "m", NULL, &tokens, NULL, 0, &prefix));
    CHECK(describe(prefix).token_count == 99 && describe(prefix).has_engine_state == 0); /* it is of 100 tokens */
    reelkv_prefix_free(prefix);
    reelkv_store_close(store);
    free_cache(written);
}

static void forks_and_cuts(void) {
    reelkv_store *store = make_store(small_shape, new_path());
    cache *written = make_cache(small_shape, 200, 2);
    write_sequence(store, "session/a", written, 0, 200, NULL);
    OK(reelkv_fork(store, "session/a", NULL, "b", UINT64_MAX));
    OK(reelkv_fork(store, "session/a", NULL, "c", 130));
    OK(reelkv_fork(store, "session/a", NULL, "d", 0));
    FAILS(REELKV_ALREADY_EXISTS, reelkv_fork(store, "session/a", NULL, "b", UINT64_MAX));
    FAILS(REELKV_NOT_FOUND, reelkv_fork(store, "video/a", NULL, "e", UINT64_MAX));
    FAILS(REELKV_NOT_FOUND, reelkv_fork(store, "session/a", "acme", "e", UINT64_MAX));
    FAILS(REELKV_INVALID_ARGUMENT, reelkv_fork(store, "session/a", NULL, "e", 201));
    FAILS(REELKV_INVALID_ARGUMENT, reelkv_fork(store, "session/a", NULL, "e", UINT64_MAX - 1));
    FAILS(REELKV_INVALID_ARGUMENT, reelkv_fork(store, "session/a", NULL, "", 1));
    CHECK(json_has(sequence_json(store, "session/c"), "\"tokens\":130"));
    CHECK(json_has(sequence_json(store, "session/d"), "\"tokens\":0"));
    OK(reelkv_truncate(store, "b", NULL, 70));
    FAILS(REELKV_INVALID_ARGUMENT, reelkv_truncate(store, "b", NULL, 71));
    FAILS(REELKV_INVALID_ARGUMENT, reelkv_truncate(store, "b", NULL, UINT64_MAX));
    FAILS(REELKV_NOT_FOUND, reelkv_truncate(store, "x", NULL, 0));
    OK(reelkv_remove(store, "session/a", NULL));
    FAILS(REELKV_NOT_FOUND, reelkv_remove(store, "session/a", NULL));
    CHECK_EQUAL(matched(store, written), 192); /* the pages that the others end in stay whole */
    OK(reelkv_remove(store, "session/c", NULL));
    CHECK_EQUAL(matched(store, written), 128);
    reelkv_prefix *prefix = NULL;
    OK(reelkv_sequence_prefix(store, "session/b", NULL, REELKV_MATCH_UNCOUNTED, &prefix));
    CHECK_EQUAL(describe(prefix).token_count, 70);
    reelkv_prefix_free(prefix);
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "flags", reelkv_sequence_prefix(store, "session/b", NULL, 2, &prefix));
    FAILS(REELKV_NOT_FOUND, reelkv_sequence_prefix(store, "session/x", NULL, 0, &prefix));
    reelkv_store_close(store);
    free_cache(written);
}

static void listings(void) {
    reelkv_store *store = make_store(small_shape, new_path());
    cache *written = make_cache(small_shape, 80, 3);
    write_sequence(store, "video/v", written, 0, 80, NULL);
    write_sequence(store, "session/s", written, 0, 40, NULL);
    write_sequence(store, "session/s", written, 40, 40, NULL);
    reelkv_writer_options options = REELKV_INIT(reelkv_writer_options);
    options.tenant = "acme";
    reelkv_writer *writer = NULL;
    OK(reelkv_writer_open(store, "session/theirs", "m", &options, &writer));
    OK(reelkv_writer_finish(writer, NULL));
    reelkv_writer_close(writer);
    char *json = sequences_json(store, NULL, 0);
    const char *theirs = strstr(json, "session/theirs");
    CHECK(strstr(json, "video/v") < theirs && theirs < strstr(json, "session/s\""));
    CHECK(json_has(json, "\"turns\":[[0,"));
    CHECK(json_has(sequences_json(store, "session", 0), "],[40,"));
    CHECK(json_has(sequences_json(store, "video", 0), "\"pinned\":true"));
    OK(reelkv_sequences_json(store, "session", "acme", 0, &json));
    CHECK(strstr(json, "session/s\"") == NULL);
    CHECK(json_has(json, "\"tenant\":\"acme\",\"tokens\":0"));
    OK(reelkv_sequences_json(store, NULL, "nobody", 1, &json));
    CHECK(json_has(json, "[]"));
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "kind", reelkv_sequences_json(store, "videos", NULL, 0, &json));
    CHECK(json == NULL);
    OK(reelkv_sequence_json(store, "session/theirs", "acme", &json));
    reelkv_free(json);
    FAILS(REELKV_NOT_FOUND, reelkv_sequence_json(store, "session/theirs", NULL, &json));
    OK(reelkv_set_pinned(store, "session/s", NULL, 1));
    CHECK(json_has(sequence_json(store, "session/s"), "\"pinned\":true"));
    OK(reelkv_set_pinned(store, "session/s", NULL, 0));
    CHECK(json_has(sequence_json(store, "session/s"), "\"pinned\":false"));
    FAILS(REELKV_NOT_FOUND, reelkv_set_pinned(store, "session/x", NULL, 0));
    OK(reelkv_remove(store, "session/theirs", "acme"));
    reelkv_store_close(store);
    free_cache(written);
}

void test_sequences(void) {
    run_test("frames, provenance, engine state and pin of a finished video", finish_options);
    run_test("forks, cuts and removals share pages", forks_and_cuts);
    run_test("listings", listings);
}
