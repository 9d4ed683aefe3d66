// Times the loops of a restore, each on a tile of 32 tokens that stays in the first caches; or runs one of them so many times, for
// callgrind to count its instructions.
//
//   loops BUILD             name, elements of a tile, least, median and greatest nanoseconds an element, tab-separated
//   loops BUILD LOOP RUNS   nothing

#include "kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { DIM = 128, HALF = DIM / 2, TOKENS = KV_LANES, TILE = TOKENS * DIM, GROUP = 32, SAMPLES = 31, RUNS = 1000 };

static uint8_t packed[TILE];
static float scales[TILE], means[TILE], cosines[TILE], sines[TILE], values[TILE], lanes[2 * TILE], work[TILE / 2], *tables;
static uint16_t out[TILE];
static const float *channels[DIM];
static kv_rows16 rows;
static const kv_loops *loops;

static void values_of_channels(void) { loops->dequantize_group16(KV_FLOAT16, KV_TERNARY, 2, packed, TOKENS, DIM, scales, means, &rows); }
static void along_channels(void) {
    loops->dequantize_along16(KV_FLOAT16, KV_UNIFORM, 2, packed, TOKENS, TOKENS, DIM, GROUP, scales, means, &rows);
}
static void turned(int32_t type) {
    loops->dequantize_rotated16(type, KV_UNIFORM, 2, packed, TOKENS, DIM, scales, means, cosines, sines, &rows);
}
static void turned_f16(void) { turned(KV_FLOAT16); }
static void turned_bf16(void) { turned(KV_BFLOAT16); }
static void lanes_1(void) { loops->dequantize_lanes(KV_SIGN, 1, packed, TOKENS, HALF, scales, means, NULL, lanes); }
static void lanes_2(void) { loops->dequantize_lanes(KV_UNIFORM, 2, packed, TOKENS, HALF, scales, means, NULL, lanes); }
static void inverse(void) {
    // It destroys its input.
    memcpy(work, values, sizeof work);
    loops->fourier_inverse(HALF, tables, work, lanes);
}
static void transpose(void) { loops->transpose_table(channels, DIM, TOKENS, lanes, DIM); }
static void store_f16(void) { loops->store_rotated16(KV_FLOAT16, lanes, TOKENS, DIM, cosines, sines, &rows); }
static void store_bf16(void) { loops->store_rotated16(KV_BFLOAT16, lanes, TOKENS, DIM, cosines, sines, &rows); }

static const struct {
    const char *name;
    void (*run)(void);
    int elements;
} all[] = {
    {"2-bit groups along tokens, to f16", values_of_channels, TILE},
    {"2-bit groups along channels, to f16", along_channels, TILE},
    {"2-bit keys, turned, to f16", turned_f16, TILE},
    {"2-bit keys, turned, to bf16", turned_bf16, TILE},
    {"1-bit codes of a spectrum", lanes_1, TILE / 2},
    {"2-bit codes of channels", lanes_2, TILE / 2},
    {"inverse Fourier transform of 64 channels", inverse, TILE / 2},
    {"channels to rows", transpose, TILE},
    {"rows of keys, turned, to f16", store_f16, TILE},
    {"rows of keys, turned, to bf16", store_bf16, TILE},
};

static double nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e9 * (double)now.tv_sec + (double)now.tv_nsec;
}

static int by_value(const void *a, const void *b) { return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b); }

static void prepare(void) {
    uint32_t state = 1;
    for (int i = 0; i < TILE; i++) {
        state = state * 1664525 + 1013904223;
        packed[i] = (uint8_t)(state >> 24);
        scales[i] = 0.1f + 0.01f * (float)(i % 7);
        means[i] = 0.1f * (float)(i % 5) - 0.3f;
        cosines[i] = 0.3f + 0.1f * (float)(i % 3);
        sines[i] = 0.9f - 0.1f * (float)(i % 4);
        values[i] = lanes[i] = 0.3f * (float)(i % 13) - 2;
    }
    for (int c = 0; c < DIM; c++) channels[c] = values + c * TOKENS;
    for (uint32_t t = 0; t < TOKENS; t++) {
        rows.row[t] = out + t * DIM;
        rows.token[t] = t;
    }
    tables = malloc(sizeof(float) * kv_fourier_table_count(HALF));
    if (!tables) abort();
    kv_fourier_fill_tables(HALF, tables);
}

int main(int count, char **words) {
    if (count != 2 && count != 4) return 2;
    if (!kv_use_instructions(atoi(words[1]))) {
        fprintf(stderr, "this processor does not have these instructions\n");
        return 1;
    }
    loops = kv_loops_active();
    prepare();
    if (count == 4) {
        for (int i = 0; i < atoi(words[3]); i++) all[atoi(words[2])].run();
        return 0;
    }
    for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
        double samples[SAMPLES];
        for (int s = 0; s < SAMPLES; s++) {
            double start = nanoseconds();
            for (int i = 0; i < RUNS; i++) all[k].run();
            samples[s] = (nanoseconds() - start) / RUNS / all[k].elements;
        }
        qsort(samples, SAMPLES, sizeof *samples, by_value);
        printf("%s\t%d\t%g\t%g\t%g\n", all[k].name, all[k].elements, samples[0], samples[SAMPLES / 2], samples[SAMPLES - 1]);
    }
    return 0;
}
