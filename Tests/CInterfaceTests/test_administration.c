#define _GNU_SOURCE
#include "support.h"
#include "tests.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void settings(void) {
    reelkv_store *store = make_store(small_shape, new_path());
    reelkv_settings settings = REELKV_INIT(reelkv_settings);
    OK(reelkv_settings_get(store, &settings));
    CHECK(settings.quota_bytes == 0 && settings.free_bytes_min == 0 && settings.unused_seconds_max == 0);
    CHECK(strcmp(settings.policy, "adaptive") == 0);
    const char *first_policy = settings.policy;
    const char *const policies[] = {"lru", "lfu", "cost", "fifo", "adaptive"};
    for (int index = 0; index < 5; index++) {
        settings = (reelkv_settings){.struct_size = sizeof settings, .quota_bytes = 9 << 20, .policy = policies[index]};
        OK(reelkv_settings_set(store, &settings));
        OK(reelkv_settings_get(store, &settings));
        CHECK(settings.quota_bytes == 9 << 20 && strcmp(settings.policy, policies[index]) == 0);
    }
    CHECK(settings.policy == first_policy); /* static text */
    settings.policy = "fifo";
    OK(reelkv_settings_set(store, &settings));
    settings.policy = NULL;
    settings.free_bytes_min = 1000;
    settings.unused_seconds_max = 3600;
    settings.quota_bytes = 0;
    OK(reelkv_settings_set(store, &settings));
    OK(reelkv_settings_get(store, &settings));
    CHECK(settings.free_bytes_min == 1000 && settings.unused_seconds_max == 3600 && settings.quota_bytes == 0);
    CHECK(strcmp(settings.policy, "fifo") == 0);
    settings.policy = "random";
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "adaptive, lru", reelkv_settings_set(store, &settings));
    settings.policy = NULL;
    settings.quota_bytes = 1;
    FAILS(REELKV_INVALID_ARGUMENT, reelkv_settings_set(store, &settings));
    settings.quota_bytes = UINT64_MAX;
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "settings->quota_bytes", reelkv_settings_set(store, &settings));
    settings.quota_bytes = 0;
    settings.free_bytes_min = 1ull << 63;
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "settings->free_bytes_min", reelkv_settings_set(store, &settings));
    settings.free_bytes_min = 0;
    settings.unused_seconds_max = UINT64_MAX;
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "settings->unused_seconds_max", reelkv_settings_set(store, &settings));
    reelkv_store_close(store);
}

static void quota(void) {
    reelkv_store *store = make_store(small_shape, new_path());
    cache *pinned = make_cache(small_shape, 1200, 1), *other = make_cache(small_shape, 1200, 2);
    write_sequence(store, "video/v", pinned, 0, 1200, NULL); /* pinned */
    reelkv_settings settings = REELKV_INIT(reelkv_settings);
    settings.quota_bytes = 1 << 20;
    OK(reelkv_settings_set(store, &settings));
    reelkv_writer *writer = NULL;
    reelkv_writer_options options = REELKV_INIT(reelkv_writer_options);
    options.profile = "exact";
    OK(reelkv_writer_open(store, "session/s", "m", &options, &writer));
    reelkv_layer layers[LAYERS_MAX];
    fill_layers(other, 0, 1200, layers);
    reelkv_tokens tokens = tokens_of(other, 0, 1200);
    reelkv_status status = reelkv_writer_append(writer, &tokens, layers, 4);
    if (status == REELKV_OK) status = reelkv_writer_finish(writer, NULL);
    FAILS_SAYING(REELKV_QUOTA_EXCEEDED, "quota", status);
    reelkv_writer_close(writer);
    CHECK_EQUAL(matched(store, pinned), 1200); /* nothing is lost */
    settings.quota_bytes = 8 << 20;
    OK(reelkv_settings_set(store, &settings));
    write_sequence(store, "session/s", other, 0, 1200, NULL);
    CHECK_EQUAL(matched(store, other), 1200);
    OK(reelkv_set_pinned(store, "video/v", NULL, 0));
    uint64_t evicted = 0, freed = 0;
    OK(reelkv_evict(store, UINT64_MAX, &evicted));
    CHECK_EQUAL(evicted, 0);
    OK(reelkv_evict(store, 0, &evicted));
    CHECK(evicted > 500000);
    CHECK_EQUAL(matched(store, pinned), 0);
    OK(reelkv_compact(store, &freed));
    OK(reelkv_compact(store, NULL));
    CHECK(json_has(sequences_json(store, NULL, 1), "[]"));
    CHECK(json_has(verify_json(store), "\"sound\":true"));
    reelkv_store_close(store);
    free_cache(pinned);
    free_cache(other);
}

static void space_comes_back(void) {
    reelkv_store *store = make_store(small_shape, new_path());
    cache *written = make_cache(small_shape, 2000, 3), *kept = make_cache(small_shape, 100, 4);
    write_sequence(store, "session/kept", kept, 0, 100, NULL);
    write_sequence(store, "session/s", written, 0, 2000, NULL);
    OK(reelkv_remove(store, "session/s", NULL));
    uint64_t freed = 0;
    OK(reelkv_compact(store, &freed));
    CHECK(freed > 1000000);
    reelkv_prefix *prefix = match(store, kept);
    cache *restored = restore_all(store, prefix, small_shape);
    CHECK(equal_caches(kept, restored));
    reelkv_prefix_free(prefix);
    reelkv_store_close(store);
    free_cache(written);
    free_cache(kept);
    free_cache(restored);
}

/* What `reelkv` prints with these arguments; NULL where the environment does not say where it is. */
static char *command_output(const char *arguments, const char *path) {
    const char *program = getenv("REELKV");
    if (program == NULL) skip_test("REELKV does not name the command line");
    char command[1024];
    snprintf(command, sizeof command, "'%s' %s --json --store '%s'", program, arguments, path);
    FILE *pipe = popen(command, "r");
    CHECK(pipe != NULL);
    static char output[65536];
    size_t count = fread(output, 1, sizeof output - 1, pipe);
    output[count] = 0;
    CHECK_EQUAL(pclose(pipe), 0);
    CHECK(count > 0 && output[count - 1] == '\n');
    output[count - 1] = 0;
    return output;
}

static void same_as_the_command_line(void) {
    const char *path = new_path();
    reelkv_store *store = make_store(small_shape, path);
    cache *written = make_cache(small_shape, 400, 5);
    write_sequence(store, "video/v", written, 0, 400, "int4");
    char *json = NULL;
    OK(reelkv_statistics_json(store, &json));
    CHECK(strcmp(json, command_output("stats", path)) == 0);
    reelkv_free(json);
    json = verify_json(store);
    CHECK(strcmp(json, command_output("verify", path)) == 0);
    CHECK(json_has(json, "\"pages\":7,\"problems\":[],\"quarantined\":0,\"sequences\":1,\"sound\":true"));
    reelkv_store_close(store);
    free_cache(written);
}

static char *tenants_json(reelkv_store *store) {
    char *json = NULL;
    OK(reelkv_tenants_json(store, &json));
    return json;
}

static void tenants(void) {
    const char *path = new_path();
    uint8_t key[REELKV_KEY_BYTES] = {1, 2, 3}, other[REELKV_KEY_BYTES] = {4, 0, 6};
    reelkv_store *store = make_store(small_shape, path);
    char *json = tenants_json(store);
    CHECK(strcmp(json, "[]") == 0);
    reelkv_free(json);
    cache *written = make_cache(small_shape, 200, 5);
    write_sequence(store, "video/v", written, 0, 200, "exact");
    OK(reelkv_tenant_create(store, "acme", key));
    write_tenants(store, "acme", "video/v", written, 0, 100, "exact");
    CHECK(json_has(tenants_json(store), "\"earlier_keys\":false,\"encrypted\":true,\"key_generation\":1,"));
    CHECK(json_has(tenants_json(store), "\"live_pages\":2,\"name\":\"acme\",\"unlocked\":true}"));
    CHECK(json_has(tenants_json(store), "\"earlier_keys\":false,\"encrypted\":false,\"live_bytes\""));
    CHECK(json_has(tenants_json(store), "\"live_pages\":4,\"name\":\"default\",\"unlocked\":true}"));
    OK(reelkv_tenant_rekey(store, "acme", other));
    CHECK(json_has(tenants_json(store), "\"earlier_keys\":true,\"encrypted\":true,\"key_generation\":2,"));
    reelkv_store_close(store);
    OK(reelkv_store_open(path, REELKV_OPEN_READ_ONLY, &store));
    CHECK(json_has(tenants_json(store), "\"encrypted\":true,\"key_generation\":2,\"live_bytes\""));
    CHECK(json_has(tenants_json(store), "\"name\":\"acme\",\"unlocked\":false}"));
    char *listed = tenants_json(store);
    reelkv_store_close(store);
    json = listed;
    FAILS(REELKV_INVALID_ARGUMENT, reelkv_tenants_json(store, &json));
    CHECK(json == NULL);
    free_cache(written);
    CHECK(strcmp(listed, command_output("tenant ls", path)) == 0);
    reelkv_free(listed);
}

static void encrypted_tenant(void) {
    const char *path = new_path();
    uint8_t key[REELKV_KEY_BYTES] = {1, 2, 3}, other[REELKV_KEY_BYTES] = {4, 0, 6};
    reelkv_store *store = make_store(small_shape, path);
    OK(reelkv_tenant_create(store, NULL, key));
    FAILS(REELKV_ALREADY_EXISTS, reelkv_tenant_create(store, NULL, NULL));
    OK(reelkv_tenant_create(store, "open", NULL));
    FAILS(REELKV_INVALID_ARGUMENT, reelkv_tenant_unlock(store, "open", key));
    cache *written = make_cache(small_shape, 400, 5);
    write_sequence(store, "video/v", written, 0, 400, "exact");
    CHECK_EQUAL(matched(store, written), 400);
    reelkv_store_close(store);

    OK(reelkv_store_open(path, 0, &store));
    FAILS_SAYING(REELKV_WRONG_KEY, "default", reelkv_tenant_unlock(store, NULL, other));
    FAILS_SAYING(REELKV_KEY_REQUIRED, "give its key", reelkv_fork(store, "video/v", NULL, "s", UINT64_MAX));
    CHECK(json_has(verify_json(store), "\"locked_nodes\":7"));
    CHECK(json_has(sequences_json(store, "video", 0), "\"locked\":true"));
    OK(reelkv_tenant_unlock(store, NULL, key));
    CHECK(json_has(sequences_json(store, "video", 0), "\"locked\":false"));
    CHECK_EQUAL(matched(store, written), 400);
    OK(reelkv_tenant_rekey(store, NULL, other));
    OK(reelkv_reseal(store));
    CHECK_EQUAL(matched(store, written), 400);
    CHECK(json_has(verify_json(store), "\"sound\":true"));
    reelkv_store_close(store);

    char index[512];
    snprintf(index, sizeof index, "%s/index.mdb", path);
    CHECK(remove(index) == 0);
    char *json = NULL;
    reelkv_tenant_key keys[1] = {{NULL, {4, 0, 6}}};
    FAILS(REELKV_KEY_REQUIRED, reelkv_rebuild_json(path, NULL, 0, &json));
    OK(reelkv_rebuild_json(path, keys, 1, &json));
    CHECK(json_has(json, "\"rebuilt\":true"));
    free_cache(written);
}

static void lost_index(void) {
    const char *path = new_path();
    reelkv_store *store = make_store(small_shape, path);
    cache *written = make_cache(small_shape, 400, 5);
    write_sequence(store, "video/v", written, 0, 400, "exact");
    char *json = NULL;
    OK(reelkv_verify_json(store, REELKV_VERIFY_REPAIR | REELKV_VERIFY_QUICK, &json));
    CHECK(json_has(json, "\"changes\":[],\"dry_run\":false,\"left\":[],\"nodes_recovered\":0,\"rebuilt\":false"));
    OK(reelkv_verify_json(store, REELKV_VERIFY_DRY_RUN | REELKV_VERIFY_SKIP_PAGES, &json));
    CHECK(json_has(json, "\"dry_run\":true"));
    OK(reelkv_scrub_json(store, 0, &json));
    CHECK(json_has(json, "\"damaged\":0,\"finished\":true,\"pages\":7"));
    OK(reelkv_scrub_step_json(store, 1, &json));
    CHECK(json_has(json, "\"finished\":false,\"pages\":1"));
    FAILS(REELKV_INVALID_ARGUMENT, reelkv_rebuild_json(path, NULL, 0, &json));
    reelkv_store_close(store);

    char index[512];
    snprintf(index, sizeof index, "%s/index.mdb", path);
    CHECK(remove(index) == 0);
    FAILS(REELKV_DAMAGED, reelkv_store_open(path, 0, &store));
    OK(reelkv_rebuild_json(path, NULL, 0, &json));
    CHECK(json_has(json, "\"nodes_recovered\":7,\"rebuilt\":true"));
    OK(reelkv_store_open(path, 0, &store));
    CHECK_EQUAL(matched(store, written), 400);
    CHECK(json_has(verify_json(store), "\"sound\":true"));
    reelkv_store_close(store);
    free_cache(written);
}

void test_administration(void) {
    run_test("settings", settings);
    run_test("a quota refuses what it cannot make room for", quota);
    run_test("compaction gives space back", space_comes_back);
    run_test("statistics and verification as the command line prints them", same_as_the_command_line);
    run_test("tenants as the command line lists them", tenants);
    run_test("an encrypted tenant", encrypted_tenant);
    run_test("repairs, scrubs, and an index that is lost", lost_index);
}
