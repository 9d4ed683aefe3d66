// What the stored scale codes and means stand for (scales.c has the way there).

static void mean_units(const uint8_t *codes, size_t groups, size_t columns, const float *values, int shift, float *units) {
    float factor = 1.0f / (float)(1 << shift);
    for (size_t first = 0; first < columns; first += BLOCK) {
        size_t width = columns - first < BLOCK ? columns - first : BLOCK;
        uint32_t sum[BLOCK] = {0}, count[BLOCK] = {0};
        for (size_t group = 0; group < groups; group++) {
            const uint8_t *row = codes + group * columns + first;
            for (size_t c = 0; c < width; c++) {
                sum[c] += row[c];
                count[c] += row[c] > 0;
            }
        }
        // At most 4096 rows make 512 groups: the quotient of the floats is no closer to the next integer than its rounding error.
        uint32_t mean[BLOCK];
        for (size_t c = 0; c < width; c++) mean[c] = (uint32_t)((float)sum[c] / (float)(count[c] > 0 ? count[c] : 1));
        for (size_t c = 0; c < width; c++) units[first + c] = count[c] > 0 ? values[mean[c]] * factor : 0;
    }
}

static void scales_restore(uint8_t *restrict codes, size_t groups, size_t columns, uint8_t *restrict prediction) {
    memset(prediction, 128, columns);
    for (size_t group = 0; group < groups; group++) {
        uint8_t *row = codes + group * columns;
        // After the first group the prediction is the code itself, later its mean with the prediction before.
        for (size_t c = 0; c < columns; c++) {
            uint8_t expected = prediction[c], code = (uint8_t)(row[c] + expected);
            row[c] = code;
            prediction[c] = group == 0 ? code : (uint8_t)((expected + code + 1) >> 1);
        }
    }
}

static void means_restore(int32_t *means, size_t groups, size_t columns) {
    for (size_t group = 0; group < groups; group++) {
        int32_t *row = means + group * columns;
        const int32_t *before = group > 0 ? row - columns : NULL;
        for (size_t c = 0; c < columns; c++) {
            uint32_t zigzag = (uint32_t)row[c], sum = before ? (uint32_t)before[c] : 0;
            row[c] = (int32_t)(sum + (zigzag >> 1 ^ (uint32_t)-(int32_t)(zigzag & 1)));
        }
    }
}

static void add_plane(const uint8_t *restrict plane, size_t count, int shift, int32_t *restrict means) {
    for (size_t i = 0; i < count; i++) means[i] = (int32_t)((uint32_t)means[i] | (uint32_t)plane[i] << shift);
}

static void expand_metadata(const uint8_t *restrict codes, const int32_t *restrict means, size_t groups, size_t columns,
                            const float *restrict values, const float *restrict units, float *restrict scales_out,
                            float *restrict means_out) {
    for (size_t group = 0; group < groups; group++, codes += columns, means += columns) {
        // Gathering vectors from the table takes longer than loading one value after the other.
#pragma clang loop vectorize(disable) unroll_count(4)
        for (size_t c = 0; c < columns; c++) scales_out[group * columns + c] = values[codes[c]];
        for (size_t c = 0; c < columns; c++) means_out[group * columns + c] = (float)means[c] * units[c];
    }
}
