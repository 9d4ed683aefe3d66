// Sixteen values at once, and what is done to some of them.

#ifndef LOOPS_VECTORS_H
#define LOOPS_VECTORS_H

#define ALWAYS __attribute__((always_inline)) static inline

// Sixteen floats, or as many words, half words or bytes.
typedef float kv_f16 __attribute__((vector_size(64)));
typedef int32_t kv_i16 __attribute__((vector_size(64)));
typedef uint16_t kv_h16 __attribute__((vector_size(32)));
typedef uint8_t kv_b16 __attribute__((vector_size(16)));

ALWAYS kv_f16 magnitude16(kv_f16 x) { return (kv_f16)((kv_i16)x & 0x7FFFFFFF); }

// Which of sixteen: bits where the processor has registers for them, else all ones in a word. Compilers move bits to words first.
#ifdef KV_HAS_AVX512
typedef __mmask16 kv_which;

ALWAYS kv_which is_above(kv_f16 x, kv_f16 bound) { return _mm512_cmp_ps_mask((__m512)x, (__m512)bound, _CMP_GT_OQ); }
ALWAYS kv_which is_below(kv_f16 x, kv_f16 bound) { return _mm512_cmp_ps_mask((__m512)x, (__m512)bound, _CMP_LT_OQ); }
ALWAYS kv_which is_from(kv_f16 x, kv_f16 bound) { return _mm512_cmp_ps_mask((__m512)x, (__m512)bound, _CMP_GE_OQ); }
ALWAYS kv_i16 add_where(kv_which which, kv_i16 to, kv_i16 x) {
    return (kv_i16)_mm512_mask_add_epi32((__m512i)to, which, (__m512i)to, (__m512i)x);
}
ALWAYS kv_i16 or_where(kv_which which, kv_i16 to, kv_i16 x) {
    return (kv_i16)_mm512_mask_or_epi32((__m512i)to, which, (__m512i)to, (__m512i)x);
}
ALWAYS kv_f16 sum_where(kv_which which, kv_f16 to, kv_f16 x) {
    return (kv_f16)_mm512_mask_add_ps((__m512)to, which, (__m512)to, (__m512)x);
}
ALWAYS kv_f16 less_where(kv_which which, kv_f16 from, kv_f16 x) {
    return (kv_f16)_mm512_mask_sub_ps((__m512)from, which, (__m512)from, (__m512)x);
}
ALWAYS kv_f16 only_where(kv_which which, kv_f16 x) { return (kv_f16)_mm512_maskz_mov_ps(which, (__m512)x); }
ALWAYS kv_f16 pick(kv_which which, kv_f16 x, kv_f16 other) { return (kv_f16)_mm512_mask_mov_ps((__m512)other, which, (__m512)x); }
ALWAYS kv_f16 least16(kv_f16 x, kv_f16 y) { return (kv_f16)_mm512_min_ps((__m512)x, (__m512)y); }
ALWAYS kv_f16 greatest16(kv_f16 x, kv_f16 y) { return (kv_f16)_mm512_max_ps((__m512)x, (__m512)y); }
#else
typedef kv_i16 kv_which;

ALWAYS kv_which is_above(kv_f16 x, kv_f16 bound) { return x > bound; }
ALWAYS kv_which is_below(kv_f16 x, kv_f16 bound) { return x < bound; }
ALWAYS kv_which is_from(kv_f16 x, kv_f16 bound) { return x >= bound; }
ALWAYS kv_i16 add_where(kv_which which, kv_i16 to, kv_i16 x) { return to + (x & which); }
ALWAYS kv_i16 or_where(kv_which which, kv_i16 to, kv_i16 x) { return to | (x & which); }
ALWAYS kv_f16 only_where(kv_which which, kv_f16 x) { return (kv_f16)((kv_i16)x & which); }
// A sum that is not -0 stays as it is when 0 is added.
ALWAYS kv_f16 sum_where(kv_which which, kv_f16 to, kv_f16 x) { return to + only_where(which, x); }
ALWAYS kv_f16 less_where(kv_which which, kv_f16 from, kv_f16 x) { return from - only_where(which, x); }
ALWAYS kv_f16 pick(kv_which which, kv_f16 x, kv_f16 other) {
    return (kv_f16)(((kv_i16)x & which) | ((kv_i16)other & ~which));
}
ALWAYS kv_f16 least16(kv_f16 x, kv_f16 y) { return pick(x < y, x, y); }
ALWAYS kv_f16 greatest16(kv_f16 x, kv_f16 y) { return pick(x > y, x, y); }
#endif

#endif
