/* ReelKV: a persistent store of KV-cache pages for video language models. The C interface, version 1.
 *
 * Rules that hold for all of it
 * -----------------------------
 * Handles      Opaque: they look like pointers and are none. A function that makes one gives it through its last argument, and
 *              leaves NULL there on failure. Each has one function that lets go of it; that function takes NULL too. Afterwards
 *              the handle is invalid: where it is used again all the same, calls fail with REELKV_INVALID_ARGUMENT. A handle
 *              keeps what it needs of others alive: a store may be closed while its prefixes, restores and writers are open.
 * Results      Functions that can fail return a `reelkv_status`: 0 (REELKV_OK) or a reason. `reelkv_last_error()` then has a
 *              sentence that says what to do, for the calling thread, until its next failure. Nothing that was stored before is
 *              lost by a failure. Where a function fails, what it was to give is untouched or NULL.
 * Arguments    No pointer may be NULL unless its description says so. Flags that this version does not know are refused.
 * Structs      The first member of the structs that may grow is `struct_size`, which the caller sets to `sizeof` of the struct
 *              it was compiled with (`REELKV_INIT(type)` does); an array of them is as far apart as the first one says. Members
 *              behind that size take their defaults, and zero always means the default: so later versions add members at the
 *              end and keep old programs working. A program that is newer than the library is told where it sets a member that
 *              the library does not know. Structs without the member stay as they are.
 * Text         UTF-8, ended by NUL. Text and memory given through `char **` or `void **` belongs to the caller: `reelkv_free`.
 * Threads      A store, a prefix and a lease may be used from any number of threads at once. A writer or a restore is used from
 *              one thread at a time. No function calls back into the caller.
 * Processes    Any number may open one store. After fork() every handle is unusable in the child, where calls fail with
 *              REELKV_FORKED and letting go does nothing: open the store anew there. A child that is to do so must not be
 *              forked while another thread is within this library.
 * Memory       Tensors are read and written where they are; nothing is kept of a caller's memory after a function has returned,
 *              but for a restore, which writes to its tensors until `reelkv_restore_end`.
 */
#ifndef REELKV_H
#define REELKV_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define REELKV_API __attribute__((visibility("default")))
#else
#define REELKV_API
#endif

#ifdef __cplusplus
template <typename Struct> inline Struct reelkv_init() {
    Struct value = Struct();
    value.struct_size = sizeof(Struct);
    return value;
}

extern "C" {
#endif

/* ---- The library ---- */

/* The version of this interface that a program is compiled against. It rises when something is added; a library is usable when
 * its `reelkv_abi_version()` is not lower. */
#define REELKV_ABI_VERSION 1u

/* Zeroes a struct but for its size:  reelkv_tokens tokens = REELKV_INIT(reelkv_tokens);  */
#ifdef __cplusplus
#define REELKV_INIT(type) (reelkv_init<type>())
#else
#define REELKV_INIT(type) ((type){.struct_size = sizeof(type)})
#endif

typedef int32_t reelkv_status;

enum {
    REELKV_OK = 0,
    REELKV_INVALID_ARGUMENT = 1,  /* an argument that cannot be meant */
    REELKV_NOT_A_STORE = 2,       /* the folder holds no store, or a file in it is not what it should be */
    REELKV_STORE_EXISTS = 3,      /* a store is already there */
    REELKV_NEWER_FORMAT = 4,      /* written by a newer version */
    REELKV_DAMAGED = 5,           /* a record or page contradicts itself or its checksum */
    REELKV_NOT_FOUND = 6,         /* no model, tenant, video or session of that name */
    REELKV_ALREADY_EXISTS = 7,    /* the name is taken */
    REELKV_CONFLICT = 8,          /* another writer changed the same sequence meanwhile */
    REELKV_MODEL_MISMATCH = 9,    /* tensors or tokens that do not fit the model */
    REELKV_READ_ONLY = 10,        /* the store was opened read-only, or the medium is */
    REELKV_NO_SPACE = 11,         /* the disk is full, or the store reached a limit */
    REELKV_QUOTA_EXCEEDED = 12,   /* the quota is reached, and nothing may be evicted */
    REELKV_PAGE_UNAVAILABLE = 13, /* stored once, gone or damaged now: a miss; match again */
    REELKV_IN_USE = 14,           /* still in use: a model with sequences, say, or a file that a stopped process is opening */
    REELKV_IO_ERROR = 15,         /* the operating system refused */
    REELKV_FORKED = 16,           /* used in a child process after fork() */
    REELKV_CANCELLED = 17,        /* a restore that was ended before it was complete */
    REELKV_INTERNAL = 18,         /* a mistake in the library: please report it */
    REELKV_KEY_REQUIRED = 19,     /* the tenant is encrypted and its key was not given, or it has another one by now */
    REELKV_WRONG_KEY = 20         /* not the tenant's key */
};

/* The version of the interface that the library implements. */
REELKV_API uint32_t reelkv_abi_version(void);
/* The library's version, such as "0.1.0". Static. */
REELKV_API const char *reelkv_version(void);
/* The name of a status, such as "not-found"; "unknown" for a number that is none. Static. */
REELKV_API const char *reelkv_status_name(reelkv_status status);
/* What the calling thread's last failure was, a sentence; "" when there was none. Valid until the thread's next failure. */
REELKV_API const char *reelkv_last_error(void);
/* Lets go of text or memory that a function gave. NULL is fine. */
REELKV_API void reelkv_free(void *memory);

/* ---- Stores ---- */

typedef struct reelkv_store reelkv_store;

typedef struct reelkv_store_options {
    size_t struct_size;
    uint32_t page_tokens;      /* tokens of a full page, a multiple of 32 up to 4096; 0: 256 */
    uint64_t volume_bytes_max; /* bytes at which a volume is sealed, 1 MiB to 1 TiB; 0: 256 MiB */
} reelkv_store_options;

#define REELKV_OPEN_READ_ONLY 1u /* nothing in the folder is changed */
#define REELKV_OPEN_CREATE 2u    /* make a store, with default options, where the folder does not exist or is empty */
#define REELKV_OPEN_RELAXED 4u   /* writes do not wait for the last flush: a crash of the machine, not of a process, may lose the newest pages */

/* Makes a store in a folder that does not exist or is empty, and opens it. options: NULL for the defaults. */
REELKV_API reelkv_status reelkv_store_create(const char *path, const reelkv_store_options *options, reelkv_store **store);
/* Opens a store. flags: REELKV_OPEN_... joined by |, or 0 for reading and writing durably. A store that this process has open read-only is
 * REELKV_IN_USE for writing, and so is one that it has open with another durability. */
REELKV_API reelkv_status reelkv_store_open(const char *path, uint32_t flags, reelkv_store **store);
REELKV_API void reelkv_store_close(reelkv_store *store);
/* Waits until everything that this process has written is on the disk: without REELKV_OPEN_RELAXED it is already. */
REELKV_API reelkv_status reelkv_store_sync(reelkv_store *store);
/* Tokens of the store's full pages. */
REELKV_API reelkv_status reelkv_store_page_tokens(reelkv_store *store, uint32_t *tokens);

/* ---- Models ---- */

enum { REELKV_FLOAT16 = 1, REELKV_BFLOAT16 = 2, REELKV_FLOAT32 = 3 };

enum {
    REELKV_ROTARY_HALVES = 0,     /* channels i and i + n make a pair (transformers' rotate_half) */
    REELKV_ROTARY_INTERLEAVED = 1 /* channels 2i and 2i + 1 */
};

/* One attention layer's cache: keys [kv_heads, tokens, key_dim], values [kv_heads, tokens, value_dim]. */
typedef struct reelkv_layer_geometry {
    size_t struct_size;
    uint32_t kv_heads;
    uint32_t key_dim;
    uint32_t value_dim;
    uint32_t rotary_pairing;     /* REELKV_ROTARY_... */
    uint64_t sliding_window;     /* tokens that the layer attends to; 0: all */
    const float *rotary_inverse_frequencies; /* radians per position, one per pair; NULL: not rotated, or in a way not known */
    size_t rotary_pair_count;
    uint32_t rotary_sections[3]; /* M-RoPE: consecutive pairs that follow each position stream; all 0: one stream */
} reelkv_layer_geometry;

typedef struct reelkv_model {
    size_t struct_size;
    const char *name;        /* what the store calls it */
    uint8_t fingerprint[32]; /* identifies the weights and whatever else changes the cache; not all zero */
    uint32_t dtype;          /* REELKV_FLOAT16, ... */
    const reelkv_layer_geometry *layers;
    size_t layer_count;
} reelkv_model;

/* Registers a model. The same one under the same name again is a no-op; another one under it is REELKV_ALREADY_EXISTS. */
REELKV_API reelkv_status reelkv_model_add(reelkv_store *store, const reelkv_model *model);
/* The same, from the text of a Hugging Face config.json or of a ReelKV model spec (README), at most 16 MiB.
 * fingerprint: 64 hexadecimal digits, "sha256:" before them or not; NULL where the spec has one.
 * warnings: what a person should know (a rotation that cannot be undone, say), a sentence a line; "" when nothing. NULL: not
 * wanted. */
REELKV_API reelkv_status reelkv_model_add_json(
    reelkv_store *store, const char *name, const char *json, size_t json_bytes, const char *fingerprint, char **warnings);
/* All models: a JSON array of {"name", "fingerprint", "dtype", "layers": [{"kv_heads", "key_dim", "value_dim", "sliding_window",
 * "rotated"}]}. dtype: "float16", "bfloat16" or "float32". sliding_window: null for none. rotated: whether the rotary
 * parameters of its keys are known. */
REELKV_API reelkv_status reelkv_models_json(reelkv_store *store, char **json);
/* Removes a model. deleting_sequences: whether its videos and sessions go with it; otherwise they make it REELKV_IN_USE. */
REELKV_API reelkv_status reelkv_model_remove(reelkv_store *store, const char *name, int deleting_sequences);

/* ---- Tokens and tensors ---- */

/* A run of placeholder tokens that stand for media. Two placeholders are the same token where digest and offset agree, whatever
 * their ids. */
typedef struct reelkv_media_span {
    uint8_t digest[32];    /* of the decoded frames *and* their sampling */
    uint64_t first_token;  /* index among the tokens given */
    uint64_t count;
    uint64_t media_offset; /* index within the media of the span's first token */
} reelkv_media_span;

/* What a cache was computed from. */
typedef struct reelkv_tokens {
    size_t struct_size;
    const int32_t *ids; /* one per token, not negative outside media spans, where they do not matter; NULL for no tokens */
    size_t count;       /* up to 2^30 */
    const reelkv_media_span *media; /* in ascending order, apart from each other; NULL for none */
    size_t media_count;
    const int32_t *positions;  /* position ids, [position_streams, count]; NULL where a token's position is its index */
    uint32_t position_streams; /* 1, or 3 for M-RoPE */
} reelkv_tokens;

/* A tensor [heads, tokens, dim] in the caller's memory, of any order and alignment. Strides count elements; that of a dimension of
 * one element does not matter. */
typedef struct reelkv_tensor {
    void *data; /* element [0, 0, 0]; NULL: this tensor is not wanted (restores only), or holds no element */
    uint64_t head_stride;
    uint64_t token_stride;
    uint64_t channel_stride;
    uint32_t heads;
    uint32_t tokens;
    uint32_t dim;
    uint32_t dtype; /* REELKV_FLOAT16, ... A restore converts; a writer takes the model's own only. */
} reelkv_tensor;

typedef struct reelkv_layer {
    reelkv_tensor key;
    reelkv_tensor value;
} reelkv_layer;

/* ---- Matching ---- */

/* A sequence's stored beginning: what a match found. A value: it holds no lock. */
typedef struct reelkv_prefix reelkv_prefix;

/* How lossy a page may be: the greatest NMSE of its keys and of its values. Zeroes: exact only. */
typedef struct reelkv_acceptance {
    size_t struct_size;
    float key_error_max;
    float value_error_max;
} reelkv_acceptance;

enum { /* why a match ends where it ends */
    REELKV_STOP_COMPLETE = 0,
    REELKV_STOP_NOT_STORED = 1,
    REELKV_STOP_TOO_LOSSY = 2, /* the next page is stored, but more lossy than accepted */
    REELKV_STOP_QUARANTINED = 3,
    REELKV_STOP_SLIDING_WINDOW = 4 /* the sliding-window layers' last tokens are not stored at any later point */
};

typedef struct reelkv_prefix_info {
    size_t struct_size;
    uint64_t token_count;
    uint64_t stored_bytes; /* of the page images that hold these tokens */
    uint64_t engine_state_bytes;
    float key_error; /* NMSE (squared error over squared value), mean over layers and tokens; 0 when every page is exact */
    float value_error;
    float refused_key_error; /* of the next page, where `stop` is REELKV_STOP_TOO_LOSSY */
    float refused_value_error;
    uint32_t stop;
    uint32_t is_exact;
    uint32_t has_engine_state;
    uint32_t dtype; /* the model's */
    uint32_t layer_count;
} reelkv_prefix_info;

#define REELKV_MATCH_UNCOUNTED 1u /* does not count as a use of the pages, for the order of eviction and the statistics */

/* Finds the longest stored beginning of `tokens`, exact to the token. flags: REELKV_MATCH_..., or 0.
 * tenant: NULL for the default one. accepting: NULL for anything stored. A miss is a prefix of 0 tokens, not an error. */
REELKV_API reelkv_status reelkv_longest_prefix(
    reelkv_store *store, const char *model, const char *tenant, const reelkv_tokens *tokens, const reelkv_acceptance *accepting,
    uint32_t flags, reelkv_prefix **prefix);
/* What a video or session consists of: all of it, or its beginning where a page is damaged. sequence: "video/NAME" or
 * "session/NAME". */
REELKV_API reelkv_status reelkv_sequence_prefix(
    reelkv_store *store, const char *sequence, const char *tenant, uint32_t flags, reelkv_prefix **prefix);
REELKV_API reelkv_status reelkv_prefix_describe(const reelkv_prefix *prefix, reelkv_prefix_info *info);
/* The shape of one layer's cache, for sizing memory. The rotary members are left 0. */
REELKV_API reelkv_status reelkv_prefix_layer(const reelkv_prefix *prefix, uint32_t layer, reelkv_layer_geometry *geometry);
/* Copies the engine state into `buffer` of `capacity` bytes: at least `engine_state_bytes`. REELKV_NOT_FOUND: there is none. */
REELKV_API reelkv_status reelkv_prefix_engine_state(const reelkv_prefix *prefix, void *buffer, size_t capacity);
/* The prefix's tokens, in one block of memory (`reelkv_free(tokens)` lets go of all of it). Ids of placeholders read as -1. */
REELKV_API reelkv_status reelkv_prefix_tokens(reelkv_store *store, const reelkv_prefix *prefix, reelkv_tokens **tokens);
REELKV_API void reelkv_prefix_free(reelkv_prefix *prefix);

/* Keeps a prefix from being evicted by any process, until it is released or the process ends. It does not keep it from being
 * removed by name. */
typedef struct reelkv_lease reelkv_lease;
REELKV_API reelkv_status reelkv_lease_take(reelkv_store *store, const reelkv_prefix *prefix, reelkv_lease **lease);
REELKV_API void reelkv_lease_release(reelkv_lease *lease);

/* ---- Restoring ---- */

typedef struct reelkv_restore_options {
    size_t struct_size;
    uint32_t first_layer;
    uint32_t layer_count; /* 0: all from first_layer on */
    uint64_t first_token;
    uint64_t token_count; /* 0: all from first_token on */
    uint32_t threads;     /* 0: one per core */
} reelkv_restore_options;

/* Reads tensors into the caller's memory and returns when they are complete. A dtype that is not the model's is converted to.
 * options: NULL for all of the prefix. layers: one per layer asked for, each tensor with as many tokens as are asked for.
 * first_tokens: NULL, or where to put, for each layer asked for, the first token (counted from first_token) that it holds: 0, but
 * for sliding-window layers that have dropped the tokens before. Memory before it is left as it was.
 * REELKV_PAGE_UNAVAILABLE: a page was evicted or fails its checksum; match again, or compute. */
REELKV_API reelkv_status reelkv_restore(
    reelkv_store *store, const reelkv_prefix *prefix, const reelkv_restore_options *options, const reelkv_layer *layers,
    size_t layer_count, uint64_t *first_tokens);

/* The same in the background, on threads of the library, so that an engine can start on layer 0 while layer 1 is decoded. What
 * is wrong with the arguments is told at once. The array `layers` is not needed any more then, the memory it names is. */
typedef struct reelkv_restore_job reelkv_restore_job;
REELKV_API reelkv_status reelkv_restore_begin(
    reelkv_store *store, const reelkv_prefix *prefix, const reelkv_restore_options *options, const reelkv_layer *layers,
    size_t layer_count, reelkv_restore_job **job);
/* Waits until a layer (its index in the model) is complete. first_token: NULL, or where to put what `first_tokens` has above.
 * Once a restore has failed, every wait for a layer that was not complete gives the reason. */
REELKV_API reelkv_status reelkv_restore_wait(reelkv_restore_job *job, uint32_t layer, uint64_t *first_token);
/* Ends a restore: waits until nothing writes to the caller's memory any more, and lets go of it. One that is not complete is
 * cancelled, which is soon done. REELKV_OK where it was complete, REELKV_CANCELLED where it was not, the reason where it has
 * failed before. The job is gone in any case. */
REELKV_API reelkv_status reelkv_restore_end(reelkv_restore_job *job);

/* ---- Writing ---- */

typedef struct reelkv_writer reelkv_writer;

typedef struct reelkv_writer_options {
    size_t struct_size;
    const char *tenant;         /* NULL: the default one */
    const char *profile;        /* "exact", "vidkv-1.5-1.58", ...; NULL: "vidkv-1.5-1.58" */
    const reelkv_prefix *start; /* what a new session starts with; NULL: nothing */
    const uint64_t *protected_tokens; /* indices in the sequence of tokens to store more precisely, ascending */
    size_t protected_count;
    uint32_t checks_token_count; /* whether `token_count` is checked */
    uint32_t replaces;           /* whether a video of the name with other content is replaced on finish */
    uint64_t token_count;        /* tokens that the caller's cache holds before those it will append: else REELKV_CONFLICT */
} reelkv_writer_options;

/* Opens a writer. sequence: "video/NAME", written from its first token, or "session/NAME", which goes on from its last. options:
 * NULL for the defaults. */
REELKV_API reelkv_status reelkv_writer_open(
    reelkv_store *store, const char *sequence, const char *model, const reelkv_writer_options *options, reelkv_writer **writer);
/* Appends tokens with the keys and values of every layer of the model. Media spans count from the first of these tokens; a
 * token's default position is its index in the whole sequence. A sliding-window layer may hold fewer tokens: the last ones.
 * After REELKV_INVALID_ARGUMENT and REELKV_MODEL_MISMATCH nothing was taken and the writer can go on; after any other failure it
 * is done, and a new writer of the same name goes on from what it has stored. */
REELKV_API reelkv_status reelkv_writer_append(
    reelkv_writer *writer, const reelkv_tokens *tokens, const reelkv_layer *layers, size_t layer_count);
/* Makes what was appended durable as far as it fills pages. */
REELKV_API reelkv_status reelkv_writer_flush(reelkv_writer *writer);

typedef struct reelkv_writer_info {
    size_t struct_size;
    uint64_t token_count;        /* of the sequence so far */
    uint64_t reused_token_count; /* of the appended ones: in pages that were stored already */
    uint64_t stored_bytes;       /* of the page images stored for the appended ones */
} reelkv_writer_info;
REELKV_API reelkv_status reelkv_writer_describe(const reelkv_writer *writer, reelkv_writer_info *info);

/* One frame of a video and the tokens that it became. */
typedef struct reelkv_frame {
    uint64_t first_token;
    uint64_t token_count;
    double seconds;
} reelkv_frame;

enum { REELKV_PIN_DEFAULT = 0, REELKV_PIN_YES = 1, REELKV_PIN_NO = 2 };

typedef struct reelkv_finish_options {
    size_t struct_size;
    const void *engine_state; /* opaque bytes that the engine needs beside K and V to go on, at most 64 MiB; NULL: none */
    size_t engine_state_bytes;
    const reelkv_frame *frames; /* a video's */
    size_t frame_count;
    const char *const *provenance; /* where it came from: key, value, key, value, ... */
    size_t provenance_count;       /* of pairs */
    uint32_t pin;                  /* REELKV_PIN_...; the default pins a new video and leaves the rest as it is */
} reelkv_finish_options;

/* Stores the rest and publishes the sequence under its name, whole. The writer can then only be described and closed. options:
 * NULL for the defaults. REELKV_CONFLICT: another writer has changed the sequence meanwhile. */
REELKV_API reelkv_status reelkv_writer_finish(reelkv_writer *writer, const reelkv_finish_options *options);
/* Lets go of a writer. One that has not finished leaves its full pages for a later writer of the same name. */
REELKV_API void reelkv_writer_close(reelkv_writer *writer);
/* Lets go of a writer and deletes what it has stored, unless others share it. */
REELKV_API void reelkv_writer_cancel(reelkv_writer *writer);

/* ---- Sequences ---- */

/* Videos and sessions, by tenant and name: a JSON array of {"sequence", "tenant", "model", "profile", "tokens", "frames":
 * [[first_token, tokens, seconds]], "turns": [[first_token, appended_unix]], "provenance": {}, "created_unix", "updated_unix",
 * "building", "pinned", "locked"}. Frames are a video's, turns a session's; both and provenance are empty where "locked" says that
 * the tenant's key was not given.
 * kind: "video", "session" or NULL for both. tenant: NULL for all. building: whether unfinished ones are listed too. */
REELKV_API reelkv_status reelkv_sequences_json(
    reelkv_store *store, const char *kind, const char *tenant, int building, char **json);
/* One of them: a JSON object of the same members. */
REELKV_API reelkv_status reelkv_sequence_json(reelkv_store *store, const char *sequence, const char *tenant, char **json);
/* Makes a session that starts as the first `count` tokens of a sequence; UINT64_MAX: all of them. tenant: NULL for the default
 * one, here and below. */
REELKV_API reelkv_status reelkv_fork(
    reelkv_store *store, const char *sequence, const char *tenant, const char *new_session_name, uint64_t count);
/* Drops a session's tokens from `count` on. */
REELKV_API reelkv_status reelkv_truncate(reelkv_store *store, const char *session_name, const char *tenant, uint64_t count);
REELKV_API reelkv_status reelkv_remove(reelkv_store *store, const char *sequence, const char *tenant);
REELKV_API reelkv_status reelkv_set_pinned(reelkv_store *store, const char *sequence, const char *tenant, int pinned);

/* ---- Administration ---- */

/* What is stored and how it was used: a JSON object, as `reelkv stats --json` prints it. */
REELKV_API reelkv_status reelkv_statistics_json(reelkv_store *store, char **json);

typedef struct reelkv_settings {
    size_t struct_size;
    uint64_t quota_bytes;        /* of all files together, at least 1 MiB; 0: no bound */
    uint64_t free_bytes_min;     /* that the file system must keep free; 0: no bound */
    uint64_t unused_seconds_max; /* after which an unused page is dropped; 0: never */
    const char *policy;          /* "adaptive", "lru", "lfu", "cost", "fifo"; NULL when set: unchanged */
} reelkv_settings;
/* How much the store may hold, and what goes when it holds too much. The policy is static text. */
REELKV_API reelkv_status reelkv_settings_get(reelkv_store *store, reelkv_settings *settings);
/* Changes all of that, for every process. What a new bound leaves no room for goes with the next write, or by `reelkv_evict`. */
REELKV_API reelkv_status reelkv_settings_set(reelkv_store *store, const reelkv_settings *settings);

/* Evicts until the store takes at most `bytes` on disk, or nothing more may go: what is pinned, leased, being written or restored
 * stays. evicted_bytes: NULL, or where to put the bytes of the page images that went. */
REELKV_API reelkv_status reelkv_evict(reelkv_store *store, uint64_t bytes, uint64_t *evicted_bytes);
/* Gives the space of dead pages back. freed_bytes: NULL, or where to put by how much the folder is smaller. REELKV_IN_USE:
 * another compaction runs. */
REELKV_API reelkv_status reelkv_compact(reelkv_store *store, uint64_t *freed_bytes);
/* How `reelkv_verify_json` goes about it; any of them together, 0 for none. */
typedef enum reelkv_verify_flags {
    REELKV_VERIFY_SKIP_PAGES = 1, /* checks the index, and reads no page */
    REELKV_VERIFY_QUICK = 2,      /* compares the pages' checksums, and decodes nothing */
    REELKV_VERIFY_REPAIR = 4,     /* mends what is wrong; REELKV_IN_USE: another repair or a compaction runs */
    REELKV_VERIFY_DRY_RUN = 8     /* changes nothing, and says what a repair would do */
} reelkv_verify_flags;
/* Checks everything: a JSON object {"sound", "pages", "problems": [{"kind", "subject", "message"}], ...}, as `reelkv verify
 * --json` prints it. Damage is no failure of the call. Damaged pages count as not stored from then on, unless the store was
 * opened read-only. */
REELKV_API reelkv_status reelkv_verify_json(reelkv_store *store, uint32_t flags, char **json);
/* Reads every page at a limited rate (0: none), from where the last scrub stood to the end of the round, and quarantines those that fail a
 * checksum: a JSON object {"pages", "bytes", "damaged", "finished"}. REELKV_IN_USE: another process scrubs. */
REELKV_API reelkv_status reelkv_scrub_json(reelkv_store *store, uint64_t bytes_per_second_max, char **json);
/* A piece of a scrub of at most `bytes_max` bytes, or one page, to be called in the background. The answer is that of
 * `reelkv_scrub_json`; "finished" when the round's end is reached. */
REELKV_API reelkv_status reelkv_scrub_step_json(reelkv_store *store, uint64_t bytes_max, char **json);

/* ---- Tenants ---- */

/* The bytes of a key. The library keeps keys in memory, and never in the store. */
#define REELKV_KEY_BYTES 32

/* Makes a tenant that holds nothing yet. key: REELKV_KEY_BYTES bytes to have all that tells of its tokens and tensors encrypted, or NULL.
 * Whether a tenant is encrypted never changes. REELKV_ALREADY_EXISTS: the name is taken. */
REELKV_API reelkv_status reelkv_tenant_create(reelkv_store *store, const char *tenant, const uint8_t *key);
/* All tenants, by name: a JSON array of {"name", "encrypted", "unlocked", "key_generation", "earlier_keys", "live_pages", "live_bytes",
 * "created"}, as `reelkv tenant ls --json` prints it. unlocked: whether it can be read, because it is not encrypted or this process was
 * given its key. key_generation: which of its keys is in effect, counted from 1; missing where it is not encrypted. earlier_keys: whether
 * pages are still sealed with an earlier one; missing while it is locked. live_pages, live_bytes: page images stored for it. */
REELKV_API reelkv_status reelkv_tenants_json(reelkv_store *store, char **json);
/* Gives this process the key of an encrypted tenant, for every handle of the store. A tenant that is not there yet is made encrypted with it when
 * something is first stored. REELKV_WRONG_KEY: it is not the tenant's; REELKV_INVALID_ARGUMENT: the tenant is not encrypted. */
REELKV_API reelkv_status reelkv_tenant_unlock(reelkv_store *store, const char *tenant, const uint8_t *key);
/* Gives an encrypted tenant, which is unlocked, another key, which is in effect at once. Page images are encrypted anew as compaction moves
 * them: `reelkv_reseal`. */
REELKV_API reelkv_status reelkv_tenant_rekey(reelkv_store *store, const char *tenant, const uint8_t *key);
/* Compacts, and moves all pages that are sealed with an earlier key of the tenants that are unlocked. */
REELKV_API reelkv_status reelkv_reseal(reelkv_store *store);

/* A tenant and its key. */
typedef struct reelkv_tenant_key {
    const char *tenant; /* NULL for the default tenant */
    uint8_t key[REELKV_KEY_BYTES];
} reelkv_tenant_key;
/* Makes the index of a store that cannot be opened any more anew, from its volumes and the file `identity` in its folder. keys: those of
 * all encrypted tenants; NULL where key_count is 0. The answer is that of `reelkv_verify_json` after a repair.
 * REELKV_INVALID_ARGUMENT: the index can be read; repair it. REELKV_KEY_REQUIRED: an encrypted tenant's is missing. */
REELKV_API reelkv_status reelkv_rebuild_json(const char *path, const reelkv_tenant_key *keys, size_t key_count, char **json);

#ifdef __cplusplus
}
#endif

#endif
