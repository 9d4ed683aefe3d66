#include "support.h"
#include "tests.h"

#include <string.h>

/* Every pointer that may not be NULL is refused by its name. */
static void nulls(void) {
    reelkv_store *store = make_store(small_shape, new_path()), *new_store = NULL;
    cache *written = make_cache(small_shape, 70, 1);
    write_sequence(store, "session/s", written, 0, 70, NULL);
    reelkv_prefix *prefix = match(store, written), *new_prefix = NULL;
    reelkv_writer *writer = NULL, *new_writer = NULL;
    OK(reelkv_writer_open(store, "session/t", "m", NULL, &writer));
    reelkv_layer layers[LAYERS_MAX];
    fill_layers(written, 0, 70, layers);
    reelkv_restore_job *job = NULL, *new_job = NULL;
    OK(reelkv_restore_begin(store, prefix, NULL, layers, 4, &job));
    reelkv_tokens tokens = tokens_of(written, 0, 70);
    reelkv_layer_geometry geometry = REELKV_INIT(reelkv_layer_geometry);
    reelkv_prefix_info info = REELKV_INIT(reelkv_prefix_info);
    reelkv_writer_info writer_info = REELKV_INIT(reelkv_writer_info);
    reelkv_settings settings = REELKV_INIT(reelkv_settings);
    reelkv_model model = REELKV_INIT(reelkv_model);
    reelkv_lease *lease = NULL;
    char *json = NULL;
    uint32_t count = 0;
#define NEEDS(name, call) FAILS_SAYING(REELKV_INVALID_ARGUMENT, "'" name "'", call)
    NEEDS("path", reelkv_store_create(NULL, NULL, &new_store));
    NEEDS("store", reelkv_store_create(new_path(), NULL, NULL));
    NEEDS("path", reelkv_store_open(NULL, 0, &new_store));
    NEEDS("store", reelkv_store_open("x", 0, NULL));
    NEEDS("store", reelkv_store_page_tokens(NULL, &count));
    NEEDS("tokens", reelkv_store_page_tokens(store, NULL));
    NEEDS("store", reelkv_model_add(NULL, &model));
    NEEDS("model", reelkv_model_add(store, NULL));
    NEEDS("store", reelkv_model_add_json(NULL, "m", "{}", 2, NULL, NULL));
    NEEDS("name", reelkv_model_add_json(store, NULL, "{}", 2, NULL, NULL));
    NEEDS("json", reelkv_model_add_json(store, "m", NULL, 0, NULL, NULL));
    NEEDS("store", reelkv_models_json(NULL, &json));
    NEEDS("json", reelkv_models_json(store, NULL));
    NEEDS("store", reelkv_model_remove(NULL, "m", 0));
    NEEDS("name", reelkv_model_remove(store, NULL, 0));
    NEEDS("store", reelkv_longest_prefix(NULL, "m", NULL, &tokens, NULL, 0, &new_prefix));
    NEEDS("model", reelkv_longest_prefix(store, NULL, NULL, &tokens, NULL, 0, &new_prefix));
    NEEDS("tokens", reelkv_longest_prefix(store, "m", NULL, NULL, NULL, 0, &new_prefix));
    NEEDS("prefix", reelkv_longest_prefix(store, "m", NULL, &tokens, NULL, 0, NULL));
    NEEDS("store", reelkv_sequence_prefix(NULL, "session/s", NULL, 0, &new_prefix));
    NEEDS("sequence", reelkv_sequence_prefix(store, NULL, NULL, 0, &new_prefix));
    NEEDS("prefix", reelkv_sequence_prefix(store, "session/s", NULL, 0, NULL));
    NEEDS("prefix", reelkv_prefix_describe(NULL, &info));
    NEEDS("info", reelkv_prefix_describe(prefix, NULL));
    NEEDS("prefix", reelkv_prefix_layer(NULL, 0, &geometry));
    NEEDS("geometry", reelkv_prefix_layer(prefix, 0, NULL));
    NEEDS("prefix", reelkv_prefix_engine_state(NULL, &info, 1));
    reelkv_tokens *stored = NULL;
    NEEDS("store", reelkv_prefix_tokens(NULL, prefix, &stored));
    NEEDS("prefix", reelkv_prefix_tokens(store, NULL, &stored));
    NEEDS("tokens", reelkv_prefix_tokens(store, prefix, NULL));
    NEEDS("store", reelkv_lease_take(NULL, prefix, &lease));
    NEEDS("prefix", reelkv_lease_take(store, NULL, &lease));
    NEEDS("lease", reelkv_lease_take(store, prefix, NULL));
    NEEDS("store", reelkv_restore(NULL, prefix, NULL, layers, 4, NULL));
    NEEDS("prefix", reelkv_restore(store, NULL, NULL, layers, 4, NULL));
    NEEDS("layers", reelkv_restore(store, prefix, NULL, NULL, 4, NULL));
    NEEDS("store", reelkv_restore_begin(NULL, prefix, NULL, layers, 4, &new_job));
    NEEDS("prefix", reelkv_restore_begin(store, NULL, NULL, layers, 4, &new_job));
    NEEDS("layers", reelkv_restore_begin(store, prefix, NULL, NULL, 4, &new_job));
    NEEDS("job", reelkv_restore_begin(store, prefix, NULL, layers, 4, NULL));
    NEEDS("job", reelkv_restore_wait(NULL, 0, NULL));
    NEEDS("store", reelkv_writer_open(NULL, "session/u", "m", NULL, &new_writer));
    NEEDS("sequence", reelkv_writer_open(store, NULL, "m", NULL, &new_writer));
    NEEDS("model", reelkv_writer_open(store, "session/u", NULL, NULL, &new_writer));
    NEEDS("writer", reelkv_writer_open(store, "session/u", "m", NULL, NULL));
    NEEDS("writer", reelkv_writer_append(NULL, &tokens, layers, 4));
    NEEDS("tokens", reelkv_writer_append(writer, NULL, layers, 4));
    NEEDS("layers", reelkv_writer_append(writer, &tokens, NULL, 4));
    NEEDS("writer", reelkv_writer_flush(NULL));
    NEEDS("writer", reelkv_writer_describe(NULL, &writer_info));
    NEEDS("info", reelkv_writer_describe(writer, NULL));
    NEEDS("writer", reelkv_writer_finish(NULL, NULL));
    NEEDS("store", reelkv_sequences_json(NULL, NULL, NULL, 0, &json));
    NEEDS("json", reelkv_sequences_json(store, NULL, NULL, 0, NULL));
    NEEDS("store", reelkv_sequence_json(NULL, "session/s", NULL, &json));
    NEEDS("sequence", reelkv_sequence_json(store, NULL, NULL, &json));
    NEEDS("json", reelkv_sequence_json(store, "session/s", NULL, NULL));
    NEEDS("store", reelkv_fork(NULL, "session/s", NULL, "u", 0));
    NEEDS("sequence", reelkv_fork(store, NULL, NULL, "u", 0));
    NEEDS("new_session_name", reelkv_fork(store, "session/s", NULL, NULL, 0));
    NEEDS("store", reelkv_truncate(NULL, "s", NULL, 0));
    NEEDS("session_name", reelkv_truncate(store, NULL, NULL, 0));
    NEEDS("store", reelkv_remove(NULL, "session/s", NULL));
    NEEDS("sequence", reelkv_remove(store, NULL, NULL));
    NEEDS("store", reelkv_set_pinned(NULL, "session/s", NULL, 0));
    NEEDS("sequence", reelkv_set_pinned(store, NULL, NULL, 0));
    NEEDS("store", reelkv_statistics_json(NULL, &json));
    NEEDS("json", reelkv_statistics_json(store, NULL));
    NEEDS("store", reelkv_settings_get(NULL, &settings));
    NEEDS("settings", reelkv_settings_get(store, NULL));
    NEEDS("store", reelkv_settings_set(NULL, &settings));
    NEEDS("settings", reelkv_settings_set(store, NULL));
    NEEDS("store", reelkv_evict(NULL, 0, NULL));
    NEEDS("store", reelkv_compact(NULL, NULL));
    NEEDS("store", reelkv_verify_json(NULL, 0, &json));
    NEEDS("json", reelkv_verify_json(store, 0, NULL));
    NEEDS("flags", reelkv_verify_json(store, 16, &json));
    NEEDS("store", reelkv_scrub_json(NULL, 0, &json));
    NEEDS("json", reelkv_scrub_json(store, 0, NULL));
    NEEDS("store", reelkv_scrub_step_json(NULL, 1, &json));
    NEEDS("json", reelkv_scrub_step_json(store, 1, NULL));
    NEEDS("keys", reelkv_rebuild_json("store", NULL, 1, &json));
    NEEDS("store", reelkv_tenant_create(NULL, "t", NULL));
    NEEDS("key", reelkv_tenant_unlock(store, "t", NULL));
    NEEDS("key", reelkv_tenant_rekey(store, "t", NULL));
    NEEDS("store", reelkv_reseal(NULL));
    NEEDS("path", reelkv_rebuild_json(NULL, NULL, 0, &json));
    NEEDS("json", reelkv_rebuild_json("store", NULL, 0, NULL));
#undef NEEDS
    CHECK_EQUAL(matched(store, written), 70);
    OK(reelkv_restore_wait(job, 3, NULL));
    OK(reelkv_restore_end(job));
    reelkv_prefix_free(prefix);
    reelkv_prefix_free(NULL);
    reelkv_writer_close(writer);
    reelkv_store_close(store);
    free_cache(written);
}

/* Handles of another kind, made up, or let go of. */
static void wrong_handles(void) {
    reelkv_store *store = make_store(small_shape, new_path());
    cache *written = make_cache(small_shape, 70, 1);
    write_sequence(store, "session/s", written, 0, 70, NULL);
    reelkv_prefix *prefix = match(store, written);
    uint32_t tokens = 0;
    char *json = NULL;
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "it is a prefix", reelkv_store_page_tokens((reelkv_store *)prefix, &tokens));
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "must be a writer", reelkv_writer_flush((reelkv_writer *)store));
    FAILS(REELKV_INVALID_ARGUMENT, reelkv_restore_end((reelkv_restore_job *)prefix));
    reelkv_store_close((reelkv_store *)prefix); /* none of its business */
    reelkv_prefix_free((reelkv_prefix *)store);
    reelkv_writer_cancel((reelkv_writer *)store);
    reelkv_lease_release((reelkv_lease *)store);
    uintptr_t made_up[] = {1ull << 39, UINTPTR_MAX, (uintptr_t)&tokens, (uintptr_t)1 << 63, (uintptr_t)1 << 40};
    for (size_t index = 0; index < sizeof made_up / sizeof *made_up; index++) {
        FAILS_SAYING(REELKV_INVALID_ARGUMENT, "no handle", reelkv_models_json((reelkv_store *)made_up[index], &json));
        reelkv_store_close((reelkv_store *)made_up[index]);
    }
    CHECK_EQUAL(describe(prefix).token_count, 70);
    reelkv_prefix_free(prefix);
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "let go of", reelkv_prefix_tokens(store, prefix, (reelkv_tokens **)&json));
    OK(reelkv_models_json(store, &json));
    reelkv_free(json);
    reelkv_store_close(store);
    free_cache(written);
}

static void texts(void) {
    reelkv_store *store = make_store(small_shape, new_path());
    cache *written = make_cache(small_shape, 70, 1);
    reelkv_tokens tokens = tokens_of(written, 0, 70);
    reelkv_prefix *prefix = NULL;
    char *json = NULL, long_name[300];
    memset(long_name, 'n', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = 0;
    memcpy(long_name, "session/", 8);
    const char *bad = "\xf0\x28\x8c\x28";
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "'tenant'", reelkv_longest_prefix(store, "m", bad, &tokens, NULL, 0, &prefix));
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "'model'", reelkv_longest_prefix(store, bad, NULL, &tokens, NULL, 0, &prefix));
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "'sequence'", reelkv_sequence_json(store, bad, NULL, &json));
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "'tenant'", reelkv_sequence_json(store, "session/s", bad, &json));
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "'kind'", reelkv_sequences_json(store, bad, NULL, 0, &json));
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "'session_name'", reelkv_truncate(store, bad, NULL, 0));
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "'name'", reelkv_model_remove(store, bad, 0));
    reelkv_writer *writer = NULL;
    FAILS(REELKV_INVALID_ARGUMENT, reelkv_writer_open(store, long_name, "m", NULL, &writer));
    FAILS(REELKV_NOT_FOUND, reelkv_sequence_json(store, long_name, NULL, &json));
    reelkv_writer_options options = REELKV_INIT(reelkv_writer_options);
    options.tenant = "";
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "tenant", reelkv_writer_open(store, "session/s", "m", &options, &writer));
    options.tenant = "B\xc3\xbcro \xe2\x82\xac";
    OK(reelkv_writer_open(store, "session/\xf0\x9f\x8e\x9e/a", "m", &options, &writer));
    OK(reelkv_writer_finish(writer, NULL));
    reelkv_writer_close(writer);
    CHECK(json_has(
        sequences_json(store, NULL, 0), "\"sequence\":\"session/\xf0\x9f\x8e\x9e/a\",\"tenant\":\"B\xc3\xbcro \xe2\x82\xac\""));
    reelkv_store_close(store);
    free_cache(written);
}

void test_arguments(void) {
    run_test("NULL is refused by the name of the argument", nulls);
    run_test("a handle that is none is told, and never followed", wrong_handles);
    run_test("text is UTF-8, and names have limits", texts);
}
