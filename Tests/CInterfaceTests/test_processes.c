#define _GNU_SOURCE
#include "support.h"
#include "tests.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Runs `body` in a forked child, which has a minute; gives its exit status. */
static int in_child(void (*body)(void)) {
    fflush(stdout);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(60);
        exit_on_failure();
        body();
        _exit(0);
    }
    int status = -1;
    waitpid(child, &status, 0);
    return status;
}

static const char *path;
static reelkv_store *store;
static reelkv_prefix *prefix;
static reelkv_writer *writer;
static reelkv_restore_job *job;
static reelkv_lease *lease;
static cache *written, *target;
static reelkv_layer layers[LAYERS_MAX];

#define FORKED(call) FAILS_SAYING(REELKV_FORKED, "open the store anew", call)

static void use_the_parents(void) {
    reelkv_tokens tokens = tokens_of(written, 0, 100);
    reelkv_prefix *new_prefix = NULL;
    reelkv_prefix_info info = REELKV_INIT(reelkv_prefix_info);
    reelkv_writer_info writer_info = REELKV_INIT(reelkv_writer_info);
    reelkv_lease *new_lease = NULL;
    reelkv_restore_job *new_job = NULL;
    reelkv_writer *new_writer = NULL;
    char *json = NULL;
    FORKED(reelkv_longest_prefix(store, "m", NULL, &tokens, NULL, 0, &new_prefix));
    FORKED(reelkv_sequence_prefix(store, "session/s", NULL, 0, &new_prefix));
    FORKED(reelkv_prefix_describe(prefix, &info));
    FORKED(reelkv_lease_take(store, prefix, &new_lease));
    FORKED(reelkv_restore(store, prefix, NULL, layers, 4, NULL));
    FORKED(reelkv_restore_begin(store, prefix, NULL, layers, 4, &new_job));
    FORKED(reelkv_restore_wait(job, 0, NULL));
    FORKED(reelkv_restore_end(job));
    FORKED(reelkv_writer_open(store, "session/t", "m", NULL, &new_writer));
    FORKED(reelkv_writer_append(writer, &tokens, layers, 4));
    FORKED(reelkv_writer_flush(writer));
    FORKED(reelkv_writer_describe(writer, &writer_info));
    FORKED(reelkv_writer_finish(writer, NULL));
    FORKED(reelkv_models_json(store, &json));
    FORKED(reelkv_sequences_json(store, NULL, NULL, 0, &json));
    FORKED(reelkv_statistics_json(store, &json));
    FORKED(reelkv_verify_json(store, 0, &json));
    FORKED(reelkv_evict(store, 0, NULL));
    FORKED(reelkv_remove(store, "session/s", NULL));
    /* letting go does nothing */
    reelkv_writer_cancel(writer);
    reelkv_writer_close(writer);
    reelkv_lease_release(lease);
    reelkv_prefix_free(prefix);
    reelkv_store_close(store);
}

static void open_anew(void) {
    reelkv_store *own = NULL;
    OK(reelkv_store_open(path, 0, &own));
    reelkv_prefix *found = match(own, written);
    cache *restored = restore_all(own, found, small_shape);
    CHECK(equal_caches(written, restored));
    memset(restored->keys[3], 0, 64);
    reelkv_restore_job *own_job = NULL;
    fill_layers(restored, 0, restored->tokens, layers);
    OK(reelkv_restore_begin(own, found, NULL, layers, 4, &own_job));
    OK(reelkv_restore_wait(own_job, 3, NULL));
    OK(reelkv_restore_end(own_job));
    CHECK(equal_caches(written, restored));
    cache *more = make_cache(small_shape, 300, 9);
    write_sequence(own, "session/child", more, 0, 300, NULL);
    reelkv_prefix_free(found);
    /* a child of the child */
    store = own;
    prefix = match(own, written);
    CHECK_EQUAL(in_child(use_the_parents), 0);
    CHECK_EQUAL(matched(own, more), 300);
    reelkv_store_close(own);
}

static void forks(void) {
    path = new_path();
    store = make_store(small_shape, path);
    written = make_cache(small_shape, 400, 1);
    target = make_empty(small_shape, 400);
    write_sequence(store, "session/s", written, 0, 400, NULL);
    prefix = match(store, written);
    OK(reelkv_lease_take(store, prefix, &lease));
    fill_layers(target, 0, 400, layers);
    OK(reelkv_restore_begin(store, prefix, NULL, layers, 4, &job));
    OK(reelkv_restore_wait(job, 3, NULL));
    OK(reelkv_writer_open(store, "session/w", "m", NULL, &writer));
    CHECK_EQUAL(in_child(use_the_parents), 0);
    CHECK_EQUAL(in_child(open_anew), 0);
    /* the parent goes on as if nothing had been */
    OK(reelkv_restore_end(job));
    CHECK(equal_caches(written, target));
    reelkv_tokens tokens = tokens_of(written, 0, 400);
    fill_layers(written, 0, 400, layers);
    OK(reelkv_writer_append(writer, &tokens, layers, 4));
    OK(reelkv_writer_finish(writer, NULL));
    reelkv_writer_close(writer);
    uint64_t evicted = 0;
    OK(reelkv_evict(store, 0, &evicted));
    CHECK_EQUAL(matched(store, written), 400); /* leased still */
    reelkv_lease_release(lease);
    reelkv_prefix_free(prefix);
    CHECK(json_has(verify_json(store), "\"sound\":true"));
    reelkv_store_close(store);
    free_cache(written);
    free_cache(target);
}

/* A process that writes shares what it writes with this one, and lets go of it when it dies. */
static void write_and_die(void) {
    reelkv_store *own = NULL;
    OK(reelkv_store_open(path, 0, &own));
    write_sequence(own, "session/theirs", written, 0, 200, NULL);
    reelkv_prefix *found = match(own, written);
    OK(reelkv_lease_take(own, found, &lease));
    reelkv_writer *own_writer = NULL;
    OK(reelkv_writer_open(own, "session/left", "m", NULL, &own_writer));
    fill_layers(written, 0, 400, layers);
    reelkv_tokens tokens = tokens_of(written, 0, 400);
    OK(reelkv_writer_append(own_writer, &tokens, layers, 4));
    OK(reelkv_writer_flush(own_writer));
    abort();
}

static void several_processes(void) {
    path = new_path();
    store = make_store(small_shape, path);
    written = make_cache(small_shape, 400, 2);
    CHECK_EQUAL(matched(store, written), 0);
    signal(SIGABRT, SIG_DFL);
    int status = in_child(write_and_die);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    CHECK_EQUAL(matched(store, written), 384); /* the full pages of the writer that died, too */
    CHECK(json_has(sequences_json(store, "session", 1), "\"building\":true"));
    write_sequence(store, "session/theirs", written, 200, 200, NULL);
    CHECK_EQUAL(matched(store, written), 400);
    reelkv_store_close(store);
    free_cache(written);
}

void test_processes(void) {
    run_test("a forked child is told, opens the store anew, and leaves the parent's alone", forks);
    run_test("several processes on one store", several_processes);
}
