// Rows to columns, in registers. Words, not floats: what is moved may be the bits of a NaN.

#ifndef LOOPS_TRANSPOSE_H
#define LOOPS_TRANSPOSE_H

typedef uint32_t kv_word __attribute__((may_alias));
typedef uint32_t kv_w8 __attribute__((vector_size(32), aligned(4), may_alias));

// Writes the columns of a block of eight rows, which it does away with.
static inline void transpose8(kv_w8 a[8], kv_word *out, size_t out_stride) {
    kv_w8 b[8];
    for (int i = 0; i < 8; i += 2) {
        b[i] = __builtin_shufflevector(a[i], a[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        b[i + 1] = __builtin_shufflevector(a[i], a[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int i = 0; i < 8; i += 4) {
        a[i] = __builtin_shufflevector(b[i], b[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
        a[i + 1] = __builtin_shufflevector(b[i], b[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        a[i + 2] = __builtin_shufflevector(b[i + 1], b[i + 3], 0, 1, 8, 9, 4, 5, 12, 13);
        a[i + 3] = __builtin_shufflevector(b[i + 1], b[i + 3], 2, 3, 10, 11, 6, 7, 14, 15);
    }
    for (int i = 0; i < 4; i++) {
        *(kv_w8 *)(out + (size_t)i * out_stride) = __builtin_shufflevector(a[i], a[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        *(kv_w8 *)(out + (size_t)(i + 4) * out_stride) = __builtin_shufflevector(a[i], a[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

static void transpose_words(const kv_word *in, size_t rows, size_t columns, size_t in_stride, kv_word *out, size_t out_stride) {
    size_t whole_rows = rows & ~(size_t)7, whole_columns = columns & ~(size_t)7;
    for (size_t column = 0; column < whole_columns; column += 8) {
        for (size_t row = 0; row < whole_rows; row += 8) {
            kv_w8 a[8];
            for (size_t i = 0; i < 8; i++) a[i] = *(const kv_w8 *)(in + (row + i) * in_stride + column);
            transpose8(a, out + column * out_stride + row, out_stride);
        }
    }
    for (size_t row = 0; row < rows; row++) {
        for (size_t column = row < whole_rows ? whole_columns : 0; column < columns; column++) {
            out[column * out_stride + row] = in[row * in_stride + column];
        }
    }
}

static void transpose_table(const float *const *in, size_t rows, size_t columns, float *out, size_t out_stride) {
    size_t whole_rows = rows & ~(size_t)7, whole_columns = columns & ~(size_t)7;
    for (size_t row = 0; row < whole_rows; row += 8) {
        for (size_t column = 0; column < whole_columns; column += 8) {
            kv_w8 a[8];
            for (int i = 0; i < 8; i++) a[i] = *(const kv_w8 *)(in[row + (size_t)i] + column);
            transpose8(a, (kv_word *)out + column * out_stride + row, out_stride);
        }
    }
    for (size_t row = 0; row < rows; row++) {
        const kv_word *from = (const kv_word *)in[row];
        for (size_t column = row < whole_rows ? whole_columns : 0; column < columns; column++) {
            ((kv_word *)out)[column * out_stride + row] = from[column];
        }
    }
}

static void transpose(const float *in, size_t rows, size_t columns, size_t in_stride, float *out, size_t out_stride) {
    transpose_words((const kv_word *)in, rows, columns, in_stride, (kv_word *)out, out_stride);
}

#endif
