/* What the tests have in common: a folder of their own, stores in it, and the usual calls. */
#ifndef SUPPORT_H
#define SUPPORT_H

#include "cache.h"
#include "check.h"

enum { LAYERS_MAX = 64 };

/* A path in a folder that is deleted when the tests end; new for each call. */
const char *new_path(void);
void delete_paths(void);

/* A store with the model "m" of this shape. */
reelkv_store *make_store(shape shape, const char *path);
void add_model(reelkv_store *store, const char *name, shape shape, unsigned char fingerprint);

/* Writes tokens of a cache behind those that the sequence has, and finishes. profile: NULL for "exact". */
void write_sequence(
    reelkv_store *store, const char *sequence, const cache *cache, uint32_t first, uint32_t count, const char *profile);
/* The same for a tenant; NULL for the default one. */
void write_tenants(
    reelkv_store *store, const char *tenant, const char *sequence, const cache *cache, uint32_t first, uint32_t count,
    const char *profile);

reelkv_prefix *match(reelkv_store *store, const cache *cache);
reelkv_prefix_info describe(const reelkv_prefix *prefix);
uint64_t matched(reelkv_store *store, const cache *cache);

/* All of a prefix, in memory of the shape's own. */
cache *restore_all(reelkv_store *store, const reelkv_prefix *prefix, shape shape);

/* Whether JSON that a call gave has this text in it; lets go of it. */
int json_has(char *json, const char *text);
/* The call's JSON; for json_has. */
char *sequences_json(reelkv_store *store, const char *kind, int building);
char *sequence_json(reelkv_store *store, const char *sequence);
char *verify_json(reelkv_store *store);

/* Bytes of a file; NULL where there is none. */
unsigned char *read_file(const char *path, size_t *count);
void write_file(const char *path, const void *bytes, size_t count);
/* Overwrites bytes of the file in which `needle` is found, `offset` bytes behind each place where it begins. */
void patch_file(const char *path, const void *needle, size_t needle_bytes, size_t offset, const void *bytes, size_t count);

#endif
