// The loops for x86-64-v4 (Skylake-X, Zen 4 and later).

#if defined(__x86_64__)

#include "kernels.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512cd,avx512dq,avx512vl,bmi,bmi2,lzcnt,popcnt"))), apply_to = function)
#define KV_HAS_AVX 1
#define KV_HAS_AVX512 1
#define KV_BUILD kv_loops_avx512
#include "loops/table.h"
#pragma clang attribute pop

#endif
