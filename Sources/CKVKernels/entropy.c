// How far an entropy coder gets with some bytes.

#include "kvkernels.h"

// Enough to tell within a hundredth how the bytes of a stream are distributed, spread over all of it.
enum { SAMPLE_RUNS = 16, RUN_BYTES = 256, SAMPLE_BYTES = SAMPLE_RUNS * RUN_BYTES };

// The logarithm to base 2 in units of 2^-16, in error by less than 2^-6 of one: a parabola between powers of two. In integers, for the
// same result everywhere.
static uint64_t logarithm(uint32_t x) {
    uint32_t exponent = 31 - (uint32_t)__builtin_clz(x);
    uint64_t fraction = ((uint64_t)x << 16 >> exponent) & 0xFFFF;
    return ((uint64_t)exponent << 16) + fraction + ((fraction * (0x10000 - fraction) >> 16) * 22486 >> 16);
}

// Tables of their own for neighbours: one that is counted up twice in a row waits for itself.
static void count_bytes(const uint8_t *bytes, size_t count, uint32_t tables[4][256]) {
    size_t i = 0;
    for (; i + 4 <= count; i += 4) {
        for (size_t k = 0; k < 4; k++) tables[k][bytes[i + k]]++;
    }
    for (; i < count; i++) tables[0][bytes[i]]++;
}

size_t kv_entropy_bytes(const uint8_t *bytes, size_t count) {
    uint32_t tables[4][256] = {0};
    size_t sample = count < SAMPLE_BYTES ? count : SAMPLE_BYTES;
    if (count <= SAMPLE_BYTES) {
        count_bytes(bytes, count, tables);
    } else {
        for (size_t run = 0; run < SAMPLE_RUNS; run++) {
            count_bytes(bytes + (count - RUN_BYTES) / (SAMPLE_RUNS - 1) * run, RUN_BYTES, tables);
        }
    }
    if (sample == 0) return 0;
    uint64_t bits = sample * logarithm((uint32_t)sample);
    for (size_t byte = 0; byte < 256; byte++) {
        uint32_t times = tables[0][byte] + tables[1][byte] + tables[2][byte] + tables[3][byte];
        if (times > 0) bits -= times * logarithm(times);
    }
    return (size_t)((bits >> 19) * count / sample);
}
