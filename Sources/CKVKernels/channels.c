// Which channels have the highest scores.

#include "kvkernels.h"

#include <string.h>

enum { DIM_MAX = 1024 };

// Words that are ordered as the floats are.
static uint32_t ordered(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits >> 31 ? ~bits : bits | 0x80000000;
}

static size_t count_from(const uint32_t *ranks, size_t dim, uint32_t bound) {
    uint32_t count = 0;
    for (size_t c = 0; c < dim; c++) count += ranks[c] >= bound;
    return count;
}

// The greatest word that `count` of the ranks reach, found bit by bit; or a lesser one that no more reach either.
static uint32_t find_bound(const uint32_t *ranks, size_t dim, size_t count) {
    uint32_t bound = 0;
    for (uint32_t bit = 1u << 31; bit > 0; bit >>= 1) {
        size_t reached = count_from(ranks, dim, bound | bit);
        if (reached >= count) bound |= bit;
        if (reached == count) break;
    }
    return bound;
}

void kv_choose_channels(const float *scores, size_t dim, size_t count, uint16_t *chosen, uint16_t *rest) {
    uint32_t ranks[DIM_MAX];
    for (size_t c = 0; c < dim; c++) ranks[c] = ordered(scores[c]);
    uint32_t bound = find_bound(ranks, dim, count);
    size_t above = bound == UINT32_MAX ? 0 : count_from(ranks, dim, bound + 1), equal = count - above;
    for (size_t c = 0; c < dim; c++) {
        int is_chosen = ranks[c] > bound || (ranks[c] == bound && equal > 0);
        if (is_chosen && ranks[c] == bound) equal--;
        if (is_chosen) *chosen++ = (uint16_t)c;
        else *rest++ = (uint16_t)c;
    }
}
