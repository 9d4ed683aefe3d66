#include "support.h"
#include "tests.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { READERS = 8, ROUNDS = 25, TURNS = 20, TURN_TOKENS = 50 };

static reelkv_store *store;
static cache *conversation;
static atomic_int is_written;

/* What has been published so far is matched and restored whole, alone and in the background. */
static void *read_turns(void *number) {
    reelkv_layer layers[LAYERS_MAX];
    for (int round = 0; round < ROUNDS || !atomic_load(&is_written); round++) {
        reelkv_prefix *prefix = match(store, conversation);
        uint32_t count = (uint32_t)describe(prefix).token_count;
        CHECK(count % TURN_TOKENS == 0 || count % 64 == 0);
        cache *target = make_empty(small_shape, count);
        fill_layers(target, 0, count, layers);
        if ((round + *(int *)number) % 2 == 0) {
            OK(reelkv_restore(store, prefix, NULL, layers, small_shape.layers, NULL));
        } else {
            reelkv_restore_job *job = NULL;
            OK(reelkv_restore_begin(store, prefix, NULL, layers, small_shape.layers, &job));
            for (uint32_t layer = 0; layer < small_shape.layers; layer++) {
                OK(reelkv_restore_wait(job, layer, NULL));
                CHECK(equal_tokens(target, 0, conversation, 0, count, layer));
            }
            OK(reelkv_restore_end(job));
        }
        for (uint32_t layer = 0; layer < small_shape.layers; layer++) {
            CHECK(equal_tokens(target, 0, conversation, 0, count, layer));
        }
        free_cache(target);
        reelkv_prefix_free(prefix);
        if (round % 5 == 0) {
            char *json = NULL;
            OK(reelkv_statistics_json(store, &json));
            reelkv_free(json);
        }
    }
    return NULL;
}

static void *write_turns(void *unused) {
    (void)unused;
    for (uint32_t turn = 0; turn < TURNS; turn++) {
        write_sequence(store, "session/s", conversation, turn * TURN_TOKENS, TURN_TOKENS, NULL);
    }
    atomic_store(&is_written, 1);
    return NULL;
}

static void readers_and_a_writer(void) {
    store = make_store(small_shape, new_path());
    conversation = make_cache(small_shape, TURNS * TURN_TOKENS, 1);
    atomic_store(&is_written, 0);
    pthread_t threads[READERS + 1];
    int numbers[READERS];
    for (int index = 0; index < READERS; index++) {
        numbers[index] = index;
        CHECK_EQUAL(pthread_create(&threads[index], NULL, read_turns, &numbers[index]), 0);
    }
    CHECK_EQUAL(pthread_create(&threads[READERS], NULL, write_turns, NULL), 0);
    for (int index = 0; index <= READERS; index++) pthread_join(threads[index], NULL);
    CHECK_EQUAL(matched(store, conversation), TURNS * TURN_TOKENS);
    CHECK(json_has(verify_json(store), "\"sound\":true"));
    reelkv_store_close(store);
    free_cache(conversation);
}

/* Every thread has a last error of its own, and loses it with itself. */
static void *fail_alone(void *name) {
    char expected[64];
    snprintf(expected, sizeof expected, "'%s'", (const char *)name);
    CHECK(reelkv_last_error()[0] == 0);
    for (int round = 0; round < 2000; round++) {
        FAILS_SAYING(REELKV_NOT_FOUND, expected, reelkv_model_remove(store, name, 0));
        const char *message = reelkv_last_error();
        reelkv_abi_version();
        CHECK(message == reelkv_last_error() && strstr(message, expected) != NULL);
    }
    return NULL;
}

static void errors_of_threads(void) {
    store = make_store(small_shape, new_path());
    static char names[READERS][8];
    pthread_t threads[READERS];
    FAILS_SAYING(REELKV_NOT_FOUND, "'mine'", reelkv_model_remove(store, "mine", 0));
    for (int index = 0; index < READERS; index++) {
        snprintf(names[index], sizeof names[0], "x%d", index);
        CHECK_EQUAL(pthread_create(&threads[index], NULL, fail_alone, names[index]), 0);
    }
    for (int index = 0; index < READERS; index++) pthread_join(threads[index], NULL);
    CHECK(strstr(reelkv_last_error(), "'mine'") != NULL);
    OK(reelkv_store_page_tokens(store, &(uint32_t){0}));
    CHECK(strstr(reelkv_last_error(), "'mine'") != NULL); /* until the next failure */
    reelkv_store_close(store);
}

/* Closing is seen by threads that use the store: they are told, or had it in time. */
static void *use_until_closed(void *unused) {
    (void)unused;
    uint32_t tokens = 0;
    char *json = NULL;
    reelkv_status status = REELKV_OK;
    while (status == REELKV_OK) {
        OK(reelkv_abi_version() == 1 ? REELKV_OK : REELKV_INTERNAL);
        status = reelkv_models_json(store, &json);
        reelkv_free(json);
        if (status == REELKV_OK) status = reelkv_store_page_tokens(store, &tokens);
    }
    FAILS_SAYING(REELKV_INVALID_ARGUMENT, "let go of", status);
    return NULL;
}

static void closed_meanwhile(void) {
    for (int round = 0; round < 10; round++) {
        store = make_store(small_shape, new_path());
        pthread_t threads[4];
        for (int index = 0; index < 4; index++) CHECK_EQUAL(pthread_create(&threads[index], NULL, use_until_closed, NULL), 0);
        char *json = NULL;
        for (int call = 0; call < 20 * round; call++) {
            OK(reelkv_models_json(store, &json));
            reelkv_free(json);
        }
        reelkv_store_close(store);
        for (int index = 0; index < 4; index++) pthread_join(threads[index], NULL);
    }
}

void test_threads(void) {
    run_test("8 threads match and restore while one writes", readers_and_a_writer);
    run_test("a thread's last error is its own", errors_of_threads);
    run_test("a store is closed while threads use it", closed_meanwhile);
}
