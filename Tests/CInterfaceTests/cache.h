/* Caches as an engine has them, made up from a seed: what two of one seed have in common is equal. */
#ifndef CACHE_H
#define CACHE_H

#include <reelkv.h>

typedef struct shape {
    uint32_t layers, heads, key_dim, value_dim;
    uint32_t dtype;
} shape;

/* Contiguous [heads, tokens, dim] for each layer. */
typedef struct cache {
    shape shape;
    uint32_t tokens;
    unsigned char **keys, **values;
    int32_t *ids;
} cache;

/* 4 layers of 2 heads, 64 and 32 channels, bf16. */
extern const shape small_shape;

cache *make_cache(shape shape, uint32_t tokens, uint32_t seed);
/* The same memory, all bytes 0xA5. */
cache *make_empty(shape shape, uint32_t tokens);
void free_cache(cache *cache);

size_t element_bytes(uint32_t dtype);

/* The tensors of `count` tokens from `first` on, one entry per layer. */
void fill_layers(const cache *cache, uint32_t first, uint32_t count, reelkv_layer *layers);
/* Their ids. */
reelkv_tokens tokens_of(const cache *cache, uint32_t first, uint32_t count);

/* Whether `count` tokens of a layer are equal to the last bit. */
int equal_tokens(
    const cache *left, uint32_t left_first, const cache *right, uint32_t right_first, uint32_t count, uint32_t layer);
/* The same for all layers and tokens. */
int equal_caches(const cache *left, const cache *right);

/* An element as a number. */
float value_at(const unsigned char *memory, size_t index, uint32_t dtype);

#endif
