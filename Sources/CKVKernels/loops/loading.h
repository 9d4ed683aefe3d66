// Tokens of a head as quantizers take them: float rows, keys turned back, and what must be known of all values before. All in one pass,
// because the memory is what this waits for.

#include "vectors.h"

// Two vectors of channels and the two that they are turned with.
enum { TURNED = 2, TURNED_PAIRS = 16 * TURNED };

// Halves without their signs, the greatest in each place: whether one is unsafe shows at the end.
typedef struct {
    kv_h16 greatest;
} kv_halves;

ALWAYS kv_f16 load_bfloat16(const kv_u16 *from, kv_halves *restrict seen) {
    kv_h16 bits;
    memcpy(&bits, from, sizeof bits);
    seen->greatest = __builtin_elementwise_max(seen->greatest, bits & 0x7FFF);
    return (kv_f16)(__builtin_convertvector(bits, kv_i16) << 16);
}

ALWAYS uint32_t greatest_of(const kv_halves *seen) {
    uint32_t greatest = 0;
    for (int i = 0; i < 16; i++) greatest = seen->greatest[i] > greatest ? seen->greatest[i] : greatest;
    return greatest;
}

// Rows that are asked for before they are read: those of a head may lie far apart.
enum { AHEAD = 8 };

ALWAYS void fetch_row(kv_head head, const uint32_t *tokens, size_t i, size_t count) {
    if (i >= count) return;
    for (size_t byte = 0; byte < 2 * head.dim; byte += 64) __builtin_prefetch(token_base(head, tokens[i]) + byte);
}

typedef struct {
    kv_f16 low[2 * TURNED], high[2 * TURNED];
} kv_ranges;

// Turns `pairs` channels back with those half a head further on, and widens their ranges.
ALWAYS void load_pairs(const kv_u16 *first, size_t half, const float *cosines, const float *sines, float *restrict row,
                       kv_ranges *restrict ranges, kv_halves *restrict seen) {
    for (int v = 0; v < TURNED; v++) {
        kv_f16 a = load_bfloat16(first + 16 * v, seen), b = load_bfloat16(first + half + 16 * v, seen), cosine, sine;
        memcpy(&cosine, cosines + 16 * v, sizeof cosine);
        memcpy(&sine, sines + 16 * v, sizeof sine);
        kv_f16 turned[2] = {a * cosine + b * sine, b * cosine - a * sine};
        for (int i = 0; i < 2; i++) {
            kv_f16 *low = ranges->low + 2 * v + i, *high = ranges->high + 2 * v + i;
            *low = least16(turned[i], *low);
            *high = greatest16(turned[i], *high);
            memcpy(row + 16 * v + (i ? half : 0), &turned[i], sizeof turned[i]);
        }
    }
}

// bfloat16 rows whose halves are turned with each other, in whole vectors.
static int load_turned(kv_head head, const uint32_t *tokens, size_t count, const float *cosines, const float *sines, float *rows,
                       float *range) {
    size_t half = head.dim / 2;
    kv_halves seen = {0};
    for (size_t p = 0; p < half; p += TURNED_PAIRS) {
        kv_ranges ranges;
        for (int i = 0; i < 2 * TURNED; i++) {
            ranges.low[i] = (kv_f16){0} + INFINITY;
            ranges.high[i] = (kv_f16){0} - INFINITY;
        }
        for (size_t i = 0; i < count; i++) {
            const kv_u16 *from = (const kv_u16 *)token_base(head, tokens[i]) + p;
            size_t angle = tokens[i] * half + p;
            if (p == 0) fetch_row(head, tokens, i + AHEAD, count);
            load_pairs(from, half, cosines + angle, sines + angle, rows + i * head.dim + p, &ranges, &seen);
        }
        for (int i = 0; i < 2 * TURNED; i++) {
            kv_f16 extent = ranges.high[i] - ranges.low[i];
            memcpy(range + p + 16 * (i / 2) + (i % 2 ? half : 0), &extent, sizeof extent);
        }
    }
    return greatest_of(&seen) <= UNSAFE_BITS >> 16;
}

static int are_safe(kv_head head, const uint32_t *tokens, size_t count) {
    int safe = 1;
    for (size_t i = 0; i < count; i++) safe &= greatest_bits(head, tokens[i]) <= UNSAFE_BITS;
    return safe;
}

// bfloat16 rows that are whole vectors.
static int load_bfloat16_rows(kv_head head, const uint32_t *tokens, size_t count, float *rows) {
    kv_halves seen = {0};
    for (size_t i = 0; i < count; i++) {
        const kv_u16 *from = (const kv_u16 *)token_base(head, tokens[i]);
        float *row = rows + i * head.dim;
        fetch_row(head, tokens, i + AHEAD, count);
        for (size_t c = 0; c < head.dim; c += 16) {
            kv_f16 values = load_bfloat16(from + c, &seen);
            memcpy(row + c, &values, sizeof values);
        }
    }
    return greatest_of(&seen) <= UNSAFE_BITS >> 16;
}

static int load_safe(kv_head head, const uint32_t *tokens, size_t count, float *rows) {
    if (head.element_type == KV_BFLOAT16 && head.channel_stride == 1 && head.dim % 16 == 0) {
        return load_bfloat16_rows(head, tokens, count, rows);
    }
    load_rows(head, tokens, count, rows);
    return are_safe(head, tokens, count);
}

static int load_keys(kv_head head, const uint32_t *tokens, size_t count, const float *cosines, const float *sines, size_t pairs,
                     int interleaved, float *rows, float *range) {
    if (head.element_type == KV_BFLOAT16 && head.channel_stride == 1 && !interleaved && 2 * pairs == head.dim
        && pairs % TURNED_PAIRS == 0) {
        return load_turned(head, tokens, count, cosines, sines, rows, range);
    }
    int safe = load_safe(head, tokens, count, rows);
    if (pairs > 0) rotate(rows, count, head.dim, tokens, cosines, sines, pairs, interleaved, -1);
    column_ranges(rows, count, head.dim, range);
    return safe;
}
