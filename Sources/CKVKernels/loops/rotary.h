// Rotary position embedding and its undoing (RoPE, arXiv 2104.09864, equation 34).

static void rotate_halves(float *restrict first, float *restrict second, const float *restrict cosines,
                          const float *restrict sines, size_t pairs, float sign) {
    for (size_t p = 0; p < pairs; p++) {
        float a = first[p], b = second[p], sine = sign * sines[p];
        first[p] = a * cosines[p] - b * sine;
        second[p] = b * cosines[p] + a * sine;
    }
}

static void rotate_interleaved(float *restrict row, const float *restrict cosines, const float *restrict sines, size_t pairs,
                               float sign) {
    for (size_t p = 0; p < pairs; p++) {
        float a = row[2 * p], b = row[2 * p + 1], sine = sign * sines[p];
        row[2 * p] = a * cosines[p] - b * sine;
        row[2 * p + 1] = b * cosines[p] + a * sine;
    }
}

static void rotate(float *rows, size_t count, size_t dim, const uint32_t *tokens, const float *cosines, const float *sines,
                   size_t pairs, int interleaved, int direction) {
    float sign = (float)direction;
    for (size_t i = 0; i < count; i++) {
        float *row = rows + i * dim;
        const float *c = cosines + tokens[i] * pairs, *s = sines + tokens[i] * pairs;
        if (interleaved) rotate_interleaved(row, c, s, pairs, sign);
        else rotate_halves(row, row + pairs, c, s, pairs, sign);
    }
}

// Sine and cosine by reduction to an eighth of a turn and Taylor series, in error by less than 2^-48 of the result. Returns 0
// when that leaves in doubt which float is the nearest to some value, or an angle is too large to reduce.
static int angles(double position, const double *restrict frequencies, size_t pairs, float *restrict cosines,
                  float *restrict sines) {
    const double to_whole = 0x1.8p52; // added and taken away again, rounds to an integer
    // 33 bits of pi/2, whose product with an integer below 2^20 is exact, and what they leave out.
    const double quarter_high = 0x1.921fb544p0, quarter_low = 0x1.0b4611a626331p-34;
    int64_t doubtful = 0;
    for (size_t p = 0; p < pairs; p++) {
        double angle = position * frequencies[p];
        double turns = angle * 0x1.45f306dc9c883p-1 + to_whole;
        int64_t quadrant;
        memcpy(&quadrant, &turns, sizeof quadrant);
        turns -= to_whole;
        double x = (angle - turns * quarter_high) - turns * quarter_low, z = x * x;
        double sine = x + x * z * (-1.0 / 6 + z * (1.0 / 120 + z * (-1.0 / 5040 + z * (1.0 / 362880
            + z * (-1.0 / 39916800 + z * (1.0 / 6227020800 + z * (-1.0 / 1307674368000)))))));
        double cosine = 1 - z * (0.5 - z * (1.0 / 24 - z * (1.0 / 720 - z * (1.0 / 40320 - z * (1.0 / 3628800
            - z * (1.0 / 479001600 - z * (1.0 / 87178291200 - z * (1.0 / 20922789888000))))))));
        double s = quadrant & 1 ? cosine : sine, c = quadrant & 1 ? sine : cosine;
        s = quadrant & 2 ? -s : s;
        c = (quadrant + 1) & 2 ? -c : c;
        double s_error = fabs(s) * 0x1p-48 + 0x1p-62, c_error = fabs(c) * 0x1p-48 + 0x1p-62;
        doubtful |= !(fabs(angle) < 0x1p20) | ((float)(s - s_error) != (float)(s + s_error))
            | ((float)(c - c_error) != (float)(c + c_error));
        sines[p] = (float)s;
        cosines[p] = (float)c;
    }
    return doubtful == 0;
}
