// What an encoder wants to know of values, and moving them: sums run along tokens in order.

// The bits of 2^60 as a float: values above it in magnitude are unsafe.
enum { UNSAFE_BITS = 0x5D800000 };

static uint32_t greatest_half(const kv_u16 *from, size_t dim, ptrdiff_t stride) {
    uint16_t greatest = 0;
    for (size_t c = 0; c < dim; c++) {
        uint16_t bits = from[(ptrdiff_t)c * stride] & 0x7FFF;
        greatest = bits > greatest ? bits : greatest;
    }
    return greatest;
}

// The bits of a token's greatest magnitude as a float; of halves, which are unsafe only when they are not finite, more or less than
// UNSAFE_BITS.
static uint32_t greatest_bits(kv_head head, size_t token) {
    const char *from = token_base(head, token);
    ptrdiff_t stride = head.channel_stride;
    if (head.element_type != KV_FLOAT32) {
        uint32_t half = stride == 1 ? greatest_half((const kv_u16 *)from, head.dim, 1) : greatest_half((const kv_u16 *)from, head.dim, stride);
        if (head.element_type == KV_BFLOAT16) return half << 16;
        return half >= 0x7C00 ? UNSAFE_BITS + 1 : 0;
    }
    uint32_t greatest = 0;
    for (size_t c = 0; c < head.dim; c++) {
        uint32_t bits;
        memcpy(&bits, from + 4 * (ptrdiff_t)c * stride, 4);
        bits &= 0x7FFFFFFF;
        greatest = bits > greatest ? bits : greatest;
    }
    return greatest;
}

static void flag_unsafe(kv_head head, size_t tokens, uint8_t *flags) {
    for (size_t token = 0; token < tokens; token++) {
        if (greatest_bits(head, token) > UNSAFE_BITS) flags[token] = 1;
    }
}

#ifdef KV_HAS_AVX512
// Sixteen channels of a row, or fewer, which rise: where they lie in pairs of vectors from the one of the first on.
typedef struct {
    __m512i index;
    __mmask16 wanted;
    size_t first, pairs;
} kv_pick;

enum { PICK_DIM_MAX = 512, PICKS_MAX = PICK_DIM_MAX / 16 + 1 };

static size_t make_picks(const uint16_t *channels, size_t count, kv_pick *picks) {
    size_t made = 0;
    for (size_t c = 0; c < count; c += 16, made++) {
        size_t width = count - c < 16 ? count - c : 16, first = channels[c] / 16u * 16u;
        uint32_t index[16] = {0};
        for (size_t i = 0; i < width; i++) index[i] = channels[c + i] - (uint32_t)first;
        picks[made] = (kv_pick){.index = _mm512_loadu_si512(index), .wanted = (__mmask16)((1u << width) - 1), .first = first,
                                .pairs = index[width - 1] / 32 + 1};
    }
    return made;
}

// The pick's channels among those in the pair of vectors at `channel`; a vector past the row is taken for the one before.
ALWAYS __m512 pick_pair(const float *row, size_t dim, size_t channel, __m512i index) {
    return _mm512_permutex2var_ps(_mm512_loadu_ps(row + channel), index,
                                  _mm512_loadu_ps(row + (channel + 16 < dim ? channel + 16 : channel)));
}

static void pick_rows(const float *rows, size_t count, size_t dim, const kv_pick *picks, size_t pick_count, size_t width, float *out) {
    for (size_t p = 0; p < pick_count; p++) {
        kv_pick pick = picks[p];
        __mmask16 in_second = _mm512_cmpge_epi32_mask(pick.index, _mm512_set1_epi32(32));
        for (size_t i = 0; i < count; i++) {
            const float *row = rows + i * dim;
            __m512 values = pick_pair(row, dim, pick.first, pick.index);
            if (pick.pairs > 1) values = _mm512_mask_mov_ps(values, in_second, pick_pair(row, dim, pick.first + 32, pick.index));
            for (size_t pair = 2; pair < pick.pairs; pair++) {
                __mmask16 is_in = _mm512_cmpge_epi32_mask(pick.index, _mm512_set1_epi32((int)(32 * pair)));
                values = _mm512_mask_mov_ps(values, is_in, pick_pair(row, dim, pick.first + 32 * pair, pick.index));
            }
            _mm512_mask_storeu_ps(out + i * width + 16 * p, pick.wanted, values);
        }
    }
}
#elif defined(KV_HAS_AVX)
// How the channels of eight neighbours are moved to the front, those of one set and those of the other, and how many there are.
typedef struct {
    __m256i chosen, rest;
    size_t chosen_count;
} kv_parting;

enum { PART_DIM_MAX = 512 };

static void make_partings(const uint16_t *chosen, size_t count, size_t dim, kv_parting *partings) {
    for (size_t first = 0, next = 0; first < dim; first += 8) {
        uint32_t index[2][8] = {0};
        size_t own = 0, others = 0;
        for (size_t c = first; c < first + 8; c++) {
            int is_chosen = next < count && chosen[next] == c;
            if (is_chosen) next++, index[0][own++] = (uint32_t)(c - first);
            else index[1][others++] = (uint32_t)(c - first);
        }
        partings[first / 8] = (kv_parting){.chosen = _mm256_loadu_si256((const __m256i *)index[0]),
                                           .rest = _mm256_loadu_si256((const __m256i *)index[1]), .chosen_count = own};
    }
}

// Each store is of eight values, of which those that do not count are overwritten by the next; so those of the last row reach into the
// row behind it.
static void part_rows(const float *rows, size_t count, size_t dim, const kv_parting *partings, size_t width, float *out, float *rest_out) {
    for (size_t i = 0; i < count; i++) {
        const float *row = rows + i * dim;
        float *to = out + i * width, *rest_to = rest_out + i * (dim - width);
        for (size_t p = 0; p < dim / 8; p++) {
            __m256 values = _mm256_loadu_ps(row + 8 * p);
            _mm256_storeu_ps(to, _mm256_permutevar8x32_ps(values, partings[p].chosen));
            _mm256_storeu_ps(rest_to, _mm256_permutevar8x32_ps(values, partings[p].rest));
            to += partings[p].chosen_count;
            rest_to += 8 - partings[p].chosen_count;
        }
    }
}
#endif

static void split_channels(const float *rows, size_t count, size_t dim, const uint16_t *chosen, size_t chosen_count, float *out,
                           const uint16_t *rest, float *rest_out) {
    size_t rest_count = dim - chosen_count;
#ifdef KV_HAS_AVX512
    if (dim % 16 == 0 && dim <= PICK_DIM_MAX) {
        enum { ROWS = 32 }; // stay in the L1 cache while they are picked from
        kv_pick picks[PICKS_MAX], rest_picks[PICKS_MAX];
        size_t picked = make_picks(chosen, chosen_count, picks), rest_picked = make_picks(rest, rest_count, rest_picks);
        for (size_t i = 0; i < count; i += ROWS) {
            size_t some = count - i < ROWS ? count - i : ROWS;
            pick_rows(rows + i * dim, some, dim, picks, picked, chosen_count, out + i * chosen_count);
            pick_rows(rows + i * dim, some, dim, rest_picks, rest_picked, rest_count, rest_out + i * rest_count);
        }
        return;
    }
#endif
    size_t parted = 0;
#if defined(KV_HAS_AVX) && !defined(KV_HAS_AVX512)
    // The last rows have no rows behind them.
    size_t narrow = chosen_count < rest_count ? chosen_count : rest_count, behind = narrow > 0 ? (8 + narrow - 1) / narrow : count;
    if (dim % 8 == 0 && dim <= PART_DIM_MAX && behind < count) {
        kv_parting partings[PART_DIM_MAX / 8];
        make_partings(chosen, chosen_count, dim, partings);
        parted = count - behind;
        part_rows(rows, parted, dim, partings, chosen_count, out, rest_out);
    }
#endif
    for (size_t i = parted; i < count; i++) {
        for (size_t c = 0; c < chosen_count; c++) out[i * chosen_count + c] = rows[i * dim + chosen[c]];
        for (size_t c = 0; c < rest_count; c++) rest_out[i * rest_count + c] = rows[i * dim + rest[c]];
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
