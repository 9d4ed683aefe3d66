// What an encoder wants to know of values, and moving them: sums run along tokens in order.

static void flag_unsafe(kv_head head, size_t tokens, uint8_t *flags) {
    // The bits of 2^60 as a float; a half is unsafe only when it is not finite.
    const uint32_t limit = 0x5D800000;
    for (size_t token = 0; token < tokens; token++) {
        const char *from = token_base(head, token);
        uint32_t largest = 0;
        ptrdiff_t stride = head.channel_stride;
        if (head.element_type == KV_FLOAT32) {
            for (size_t c = 0; c < head.dim; c++) {
                uint32_t bits;
                memcpy(&bits, from + 4 * (ptrdiff_t)c * stride, 4);
                bits &= 0x7FFFFFFF;
                largest = bits > largest ? bits : largest;
            }
        } else {
            uint16_t largest16 = 0;
            if (stride == 1) {
                for (size_t c = 0; c < head.dim; c++) {
                    uint16_t bits = ((const kv_u16 *)from)[c] & 0x7FFF;
                    largest16 = bits > largest16 ? bits : largest16;
                }
            } else {
                for (size_t c = 0; c < head.dim; c++) {
                    uint16_t bits = ((const kv_u16 *)from)[(ptrdiff_t)c * stride] & 0x7FFF;
                    largest16 = bits > largest16 ? bits : largest16;
                }
            }
            if (head.element_type == KV_BFLOAT16) largest = (uint32_t)largest16 << 16;
            else largest = largest16 >= 0x7C00 ? limit + 1 : 0;
        }
        if (largest > limit) flags[token] = 1;
    }
}

#ifdef KV_HAS_AVX512
// The rows whose vectors can be compressed to the channels that are wanted, where these rise; returns how many rows that was. A store
// reaches up to a vector past what is wanted, into the next row: the last row is none of them.
static size_t compress_rows(const float *rows, size_t count, size_t dim, const uint16_t *channels, size_t channel_count,
                            float *out) {
    enum { VECTORS_MAX = 32 };
    __mmask16 wanted[VECTORS_MAX] = {0};
    if (dim % 16 != 0 || dim > 16 * VECTORS_MAX) return 0;
    for (size_t c = 0; c < channel_count; c++) {
        if (c > 0 && channels[c] <= channels[c - 1]) return 0;
        wanted[channels[c] / 16] |= (__mmask16)(1u << channels[c] % 16);
    }
    size_t safe = channel_count >= 16 && count > 0 ? count - 1 : 0;
    for (size_t i = 0; i < safe; i++) {
        float *to = out + i * channel_count;
        for (size_t v = 0; v < dim / 16; v++) {
            _mm512_storeu_ps(to, _mm512_maskz_compress_ps(wanted[v], _mm512_loadu_ps(rows + i * dim + 16 * v)));
            to += __builtin_popcount(wanted[v]);
        }
    }
    return safe;
}
#endif

static void gather_channels(const float *rows, size_t count, size_t dim, const uint16_t *channels, size_t channel_count,
                            float *out) {
    size_t done = 0;
#ifdef KV_HAS_AVX512
    done = compress_rows(rows, count, dim, channels, channel_count, out);
#endif
    for (size_t i = done; i < count; i++) {
        for (size_t c = 0; c < channel_count; c++) out[i * channel_count + c] = rows[i * dim + channels[c]];
    }
}

// Maximum minus minimum of every column.
static void column_ranges(const float *rows, size_t count, size_t dim, float *restrict range) {
    for (size_t first = 0; first < dim; first += BLOCK) {
        size_t width = dim - first < BLOCK ? dim - first : BLOCK;
        float low[BLOCK], high[BLOCK];
        for (size_t c = 0; c < width; c++) low[c] = high[c] = rows[first + c];
        for (size_t i = 0; i < count; i++) {
            const float *restrict row = rows + i * dim + first;
            for (size_t c = 0; c < width; c++) {
                low[c] = row[c] < low[c] ? row[c] : low[c];
                high[c] = row[c] > high[c] ? row[c] : high[c];
            }
        }
        for (size_t c = 0; c < width; c++) range[first + c] = high[c] - low[c];
    }
}

static void column_variances(const float *rows, size_t count, size_t dim, double *restrict variance) {
    for (size_t first = 0; first < dim; first += BLOCK) {
        size_t width = dim - first < BLOCK ? dim - first : BLOCK;
        double sum[BLOCK] = {0}, squares[BLOCK] = {0};
        for (size_t i = 0; i < count; i++) {
            const float *restrict row = rows + i * dim + first;
            for (size_t c = 0; c < width; c++) {
                sum[c] += row[c];
                squares[c] += (double)row[c] * row[c];
            }
        }
        for (size_t c = 0; c < width; c++) {
            double mean = sum[c] / (double)count;
            variance[first + c] = squares[c] / (double)count - mean * mean;
        }
    }
}

static void count_outliers(const float *rows, size_t count, size_t dim, float limit, uint32_t *outliers) {
    for (size_t c = 0; c < dim; c++) {
        double sum = 0;
        for (size_t i = 0; i < count; i++) sum += rows[i * dim + c];
        float mean = (float)(sum / (double)count);
        uint32_t found = 0;
        for (size_t i = 0; i < count; i++) found += fabsf(rows[i * dim + c] - mean) > limit;
        outliers[c] = found;
    }
}

static void add_errors(const float *original, const float *decoded, size_t count, size_t dim, double *restrict error,
                   double *restrict energy) {
    for (size_t i = 0; i < count; i++) {
        const float *x = original + i * dim, *y = decoded + i * dim;
        for (size_t c = 0; c < dim; c++) {
            double value = x[c], difference = value - (double)y[c];
            int finite = isfinite(x[c]);
            energy[c] += finite ? value * value : 0;
            error[c] += finite ? difference * difference : 0;
        }
    }
}
