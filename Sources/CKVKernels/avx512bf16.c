// The loops for x86-64-v4 with AVX512_BF16 (Cooper Lake, Sapphire Rapids, Zen 4 and later).

#if defined(__x86_64__)

#include "kernels.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512bf16,bmi,bmi2,lzcnt,popcnt"))), apply_to = function)
#define KV_HAS_AVX 1
#define KV_HAS_AVX512 1
#define KV_HAS_AVX512_BF16 1
#define KV_BUILD kv_loops_avx512bf16
#include "loops/table.h"
#pragma clang attribute pop

#endif
