#include "cache.h"

#include <stdlib.h>
#include <string.h>

const shape small_shape = {.layers = 4, .heads = 2, .key_dim = 64, .value_dim = 32, .dtype = REELKV_BFLOAT16};

size_t element_bytes(uint32_t dtype) { return dtype == REELKV_FLOAT32 ? 4 : 2; }

/* A hash of what names an element, as a number from -1 to 1. */
static float noise(uint64_t a, uint64_t b, uint64_t c) {
    uint64_t x = a * 0x9E3779B97F4A7C15u ^ b * 0xC2B2AE3D27D4EB4Fu ^ c * 0x165667B19E3779F9u;
    x ^= x >> 29;
    x *= 0xBF58476D1CE4E5B9u;
    x ^= x >> 32;
    return (float)(x >> 40) / (float)(1 << 23) - 1;
}

static void put(unsigned char *memory, size_t index, float value, uint32_t dtype) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    uint16_t half = (uint16_t)(bits >> 16);
    if (dtype == REELKV_FLOAT16) {
        /* only normal numbers are made here: 5 bits of exponent, 10 of mantissa */
        int exponent = (int)(bits >> 23 & 255) - 127 + 15;
        half = exponent <= 0 ? 0 : (uint16_t)((bits >> 16 & 0x8000) | (uint32_t)exponent << 10 | (bits >> 13 & 0x3FF));
    }
    if (dtype == REELKV_FLOAT32) memcpy(memory + 4 * index, &value, 4);
    else memcpy(memory + 2 * index, &half, 2);
}

float value_at(const unsigned char *memory, size_t index, uint32_t dtype) {
    uint32_t bits = 0;
    uint16_t half;
    float value;
    if (dtype == REELKV_FLOAT32) {
        memcpy(&value, memory + 4 * index, 4);
        return value;
    }
    memcpy(&half, memory + 2 * index, 2);
    bits = (uint32_t)half << 16;
    if (dtype == REELKV_FLOAT16) {
        uint32_t exponent = half >> 10 & 31;
        bits = exponent == 0 ? 0 : (uint32_t)(half & 0x8000) << 16 | (exponent - 15 + 127) << 23 | (uint32_t)(half & 0x3FF) << 13;
    }
    memcpy(&value, &bits, 4);
    return value;
}

static cache *allocate(shape shape, uint32_t tokens) {
    cache *made = calloc(1, sizeof(cache));
    made->shape = shape;
    made->tokens = tokens;
    made->keys = calloc(shape.layers, sizeof(unsigned char *));
    made->values = calloc(shape.layers, sizeof(unsigned char *));
    made->ids = calloc(tokens + 1, sizeof(int32_t));
    size_t unit = (size_t)shape.heads * tokens * element_bytes(shape.dtype);
    for (uint32_t layer = 0; layer < shape.layers; layer++) {
        made->keys[layer] = malloc(unit * shape.key_dim + 1);
        made->values[layer] = malloc(unit * shape.value_dim + 1);
        memset(made->keys[layer], 0xA5, unit * shape.key_dim);
        memset(made->values[layer], 0xA5, unit * shape.value_dim);
    }
    return made;
}

/* Channels of different means and scales, tokens like the one before. */
static void fill(unsigned char *memory, uint32_t seed, uint32_t heads, uint32_t tokens, uint32_t dim, uint32_t dtype) {
    for (uint32_t head = 0; head < heads; head++) {
        for (uint32_t channel = 0; channel < dim; channel++) {
            float mean = 4 * noise(seed, head, channel), scale = 1 + noise(seed + 1, head, channel);
            float value = 0;
            for (uint32_t token = 0; token < tokens; token++) {
                value = 0.8f * value + scale * noise(seed + 2, (uint64_t)head << 32 | channel, token);
                put(memory, ((size_t)head * tokens + token) * dim + channel, mean + value, dtype);
            }
        }
    }
}

cache *make_cache(shape shape, uint32_t tokens, uint32_t seed) {
    cache *made = allocate(shape, tokens);
    for (uint32_t token = 0; token < tokens; token++) made->ids[token] = (int32_t)((noise(seed, 77, token) + 1) * 20000);
    for (uint32_t layer = 0; layer < shape.layers; layer++) {
        fill(made->keys[layer], seed * 1000 + 10 * layer, shape.heads, tokens, shape.key_dim, shape.dtype);
        fill(made->values[layer], seed * 1000 + 10 * layer + 5, shape.heads, tokens, shape.value_dim, shape.dtype);
    }
    return made;
}

cache *make_empty(shape shape, uint32_t tokens) { return allocate(shape, tokens); }

void free_cache(cache *cache) {
    if (cache == NULL) return;
    for (uint32_t layer = 0; layer < cache->shape.layers; layer++) {
        free(cache->keys[layer]);
        free(cache->values[layer]);
    }
    free(cache->keys);
    free(cache->values);
    free(cache->ids);
    free(cache);
}

static reelkv_tensor tensor(const cache *cache, unsigned char *memory, uint32_t dim, uint32_t first, uint32_t count) {
    return (reelkv_tensor){
        .data = memory + (size_t)first * dim * element_bytes(cache->shape.dtype),
        .head_stride = (uint64_t)cache->tokens * dim,
        .token_stride = dim,
        .channel_stride = 1,
        .heads = cache->shape.heads,
        .tokens = count,
        .dim = dim,
        .dtype = cache->shape.dtype,
    };
}

void fill_layers(const cache *cache, uint32_t first, uint32_t count, reelkv_layer *layers) {
    for (uint32_t layer = 0; layer < cache->shape.layers; layer++) {
        layers[layer].key = tensor(cache, cache->keys[layer], cache->shape.key_dim, first, count);
        layers[layer].value = tensor(cache, cache->values[layer], cache->shape.value_dim, first, count);
    }
}

reelkv_tokens tokens_of(const cache *cache, uint32_t first, uint32_t count) {
    reelkv_tokens tokens = REELKV_INIT(reelkv_tokens);
    tokens.ids = cache->ids + first;
    tokens.count = count;
    return tokens;
}

static int equal_part(
    const cache *left, const unsigned char *left_memory, uint32_t left_first, const cache *right,
    const unsigned char *right_memory, uint32_t right_first, uint32_t count, uint32_t dim
) {
    size_t token_bytes = dim * element_bytes(left->shape.dtype);
    for (uint32_t head = 0; head < left->shape.heads; head++) {
        const unsigned char *a = left_memory + ((size_t)head * left->tokens + left_first) * token_bytes;
        const unsigned char *b = right_memory + ((size_t)head * right->tokens + right_first) * token_bytes;
        if (memcmp(a, b, count * token_bytes) != 0) return 0;
    }
    return 1;
}

int equal_tokens(
    const cache *left, uint32_t left_first, const cache *right, uint32_t right_first, uint32_t count, uint32_t layer
) {
    return equal_part(
               left, left->keys[layer], left_first, right, right->keys[layer], right_first, count, left->shape.key_dim) &&
           equal_part(
               left, left->values[layer], left_first, right, right->values[layer], right_first, count, left->shape.value_dim);
}

int equal_caches(const cache *left, const cache *right) {
    if (left->tokens != right->tokens) return 0;
    for (uint32_t layer = 0; layer < left->shape.layers; layer++) {
        if (!equal_tokens(left, 0, right, 0, left->tokens, layer)) return 0;
    }
    return 1;
}
