// The real discrete Fourier transform across channels, for a vector of tokens at once (fourier.c has the layout of its tables).
//
// The order of operations is part of the format (schema/FORMAT.md, "Fourier transform"): an even length splits into its even
// and odd samples, an odd length is summed directly.

enum { W = KV_LANES };

// One operation on a whole row.
#define LANES for (int w = 0; w < W; w++)

// A row as one value: compilers do not see that rows which are read and written in turn are not the same.
typedef float kv_row __attribute__((vector_size(W * sizeof(float)), aligned(4), may_alias));

static inline __attribute__((always_inline)) kv_row load_lanes(const float *row) { return *(const kv_row *)row; }
static inline __attribute__((always_inline)) void store_lanes(kv_row value, float *row) { *(kv_row *)row = value; }

// Packed row of Re X_k is k; of Im X_k it is n/2 + k.
static void combine(size_t n, const float *table, const float *restrict halves, float *restrict out) {
    size_t h = n / 2;
    const float *even = halves, *odd = halves + h * W, *cosines = table, *sines = table + n / 4 + 1;
    LANES {
        out[w] = even[w] + odd[w];
        out[h * W + w] = even[w] - odd[w];
    }
    for (size_t k = 1; 2 * k < h; k++) {
        kv_row er = load_lanes(even + k * W), ei = load_lanes(even + (h / 2 + k) * W);
        kv_row or = load_lanes(odd + k * W), oi = load_lanes(odd + (h / 2 + k) * W);
        kv_row tr = cosines[k] * or + sines[k] * oi, ti = cosines[k] * oi - sines[k] * or;
        store_lanes(er + tr, out + k * W);
        store_lanes(ei + ti, out + (h + k) * W);
        store_lanes(er - tr, out + (h - k) * W);
        store_lanes(ti - ei, out + (n - k) * W);
    }
    if (h % 2 == 0 && h > 0) {
        size_t k = h / 2;
        LANES {
            out[k * W + w] = even[k * W + w];
            out[(h + k) * W + w] = -odd[k * W + w];
        }
    }
}

// The direct sum for odd n: rows 0...n/2 are real parts, the rest imaginary parts of k = 1...n/2.
static void direct(size_t n, const float *table, const float *input, size_t stride, float *restrict out) {
    const float *cosines = table, *sines = table + n;
    for (size_t k = 0; 2 * k < n; k++) {
        float *xr = out + k * W, *xi = out + (n / 2 + k) * W;
        memcpy(xr, input, W * sizeof(float));
        if (k > 0) memset(xi, 0, W * sizeof(float));
        for (size_t j = 1; j < n; j++) {
            const float *x = input + j * stride * W;
            float c = cosines[j * k % n], s = sines[j * k % n];
            LANES xr[w] += c * x[w];
            if (k > 0) LANES xi[w] -= s * x[w];
        }
    }
}

// What combining comes to for four rows: the same operations without the way through memory.
static void forward4(const float *restrict input, size_t stride, float *restrict out) {
    const float *x0 = input, *x1 = input + stride * W, *x2 = input + 2 * stride * W, *x3 = input + 3 * stride * W;
    LANES {
        float e0 = x0[w] + x2[w], e1 = x0[w] - x2[w], o0 = x1[w] + x3[w], o1 = x1[w] - x3[w];
        out[w] = e0 + o0;
        out[W + w] = e1;
        out[2 * W + w] = e0 - o0;
        out[3 * W + w] = -o1;
    }
}

// Likewise for eight rows, with the cosine and sine of an eighth of a turn.
static void forward8(const float *restrict input, size_t stride, float cosine, float sine, float *restrict out) {
    LANES {
        const float *x = input + w;
        float x0 = x[0], x1 = x[stride * W], x2 = x[2 * stride * W], x3 = x[3 * stride * W], x4 = x[4 * stride * W];
        float x5 = x[5 * stride * W], x6 = x[6 * stride * W], x7 = x[7 * stride * W];
        float a = x0 + x4, e1 = x0 - x4, b = x2 + x6, e3 = -(x2 - x6), c = x1 + x5, o1 = x1 - x5, d = x3 + x7, o3 = -(x3 - x7);
        float e0 = a + b, e2 = a - b, o0 = c + d, o2 = c - d;
        float tr = cosine * o1 + sine * o3, ti = cosine * o3 - sine * o1;
        out[w] = e0 + o0;
        out[W + w] = e1 + tr;
        out[2 * W + w] = e2;
        out[3 * W + w] = e1 - tr;
        out[4 * W + w] = e0 - o0;
        out[5 * W + w] = e3 + ti;
        out[6 * W + w] = -o2;
        out[7 * W + w] = ti - e3;
    }
}

static void forward(size_t n, const float *table, const float *input, size_t stride, float *out, float *work) {
    if (n % 2 != 0) {
        direct(n, table, input, stride, out);
        return;
    }
    if (n == 8) {
        forward8(input, stride, table[1], table[n / 4 + 2], out);
        return;
    }
    if (n == 4) {
        forward4(input, stride, out);
        return;
    }
    const float *next = table + 2 * (n / 4 + 1);
    forward(n / 2, next, input, 2 * stride, work, out);
    forward(n / 2, next, input + stride * W, 2 * stride, work + n / 2 * W, out);
    combine(n, table, work, out);
}

static void split(size_t n, const float *table, const float *restrict in, float *restrict halves) {
    size_t h = n / 2;
    float *even = halves, *odd = halves + h * W;
    const float *cosines = table, *sines = table + n / 4 + 1;
    LANES {
        even[w] = in[w] + in[h * W + w];
        odd[w] = in[w] - in[h * W + w];
    }
    for (size_t k = 1; 2 * k < h; k++) {
        kv_row xr = load_lanes(in + k * W), xi = load_lanes(in + (h + k) * W);
        kv_row yr = load_lanes(in + (h - k) * W), yi = load_lanes(in + (n - k) * W);
        kv_row tr = xr - yr, ti = xi + yi;
        store_lanes(xr + yr, even + k * W);
        store_lanes(xi - yi, even + (h / 2 + k) * W);
        store_lanes(cosines[k] * tr - sines[k] * ti, odd + k * W);
        store_lanes(cosines[k] * ti + sines[k] * tr, odd + (h / 2 + k) * W);
    }
    if (h % 2 == 0 && h > 0) {
        size_t k = h / 2;
        LANES {
            even[k * W + w] = 2 * in[k * W + w];
            odd[k * W + w] = -2 * in[(h + k) * W + w];
        }
    }
}

static void direct_inverse(size_t n, const float *table, const float *in, float *output, size_t stride) {
    const float *cosines = table, *sines = table + n;
    for (size_t j = 0; j < n; j++) {
        float *x = output + j * stride * W;
        memcpy(x, in, W * sizeof(float));
        for (size_t k = 1; 2 * k < n; k++) {
            const float *xr = in + k * W, *xi = in + (n / 2 + k) * W;
            float c = 2 * cosines[j * k % n], s = 2 * sines[j * k % n];
            LANES x[w] += c * xr[w] - s * xi[w];
        }
    }
}

// What splitting comes to for four rows: the same operations without the way through memory.
static void inverse4(const float *restrict in, float *restrict output, size_t stride) {
    LANES {
        float a = in[w] + in[2 * W + w], b = 2 * in[W + w], c = in[w] - in[2 * W + w], d = -2 * in[3 * W + w];
        output[w] = a + b;
        output[stride * W + w] = c + d;
        output[2 * stride * W + w] = a - b;
        output[3 * stride * W + w] = c - d;
    }
}

// Likewise for eight rows, with the cosine and sine of an eighth of a turn.
static void inverse8(const float *restrict in, float cosine, float sine, float *restrict output, size_t stride) {
    LANES {
        float x0 = in[w], x1 = in[W + w], x2 = in[2 * W + w], x3 = in[3 * W + w], x4 = in[4 * W + w], x5 = in[5 * W + w];
        float x6 = in[6 * W + w], x7 = in[7 * W + w], tr = x1 - x3, ti = x5 + x7;
        float e0 = x0 + x4, e1 = x1 + x3, e2 = 2 * x2, e3 = x5 - x7;
        float o0 = x0 - x4, o1 = cosine * tr - sine * ti, o2 = -2 * x6, o3 = cosine * ti + sine * tr;
        float ea = e0 + e2, eb = 2 * e1, ec = e0 - e2, ed = -2 * e3, oa = o0 + o2, ob = 2 * o1, oc = o0 - o2, od = -2 * o3;
        output[w] = ea + eb;
        output[stride * W + w] = oa + ob;
        output[2 * stride * W + w] = ec + ed;
        output[3 * stride * W + w] = oc + od;
        output[4 * stride * W + w] = ea - eb;
        output[5 * stride * W + w] = oa - ob;
        output[6 * stride * W + w] = ec - ed;
        output[7 * stride * W + w] = oc - od;
    }
}

static void inverse(size_t n, const float *table, float *in, float *output, size_t stride, float *work) {
    if (n % 2 != 0) {
        direct_inverse(n, table, in, output, stride);
        return;
    }
    if (n == 8) {
        inverse8(in, table[1], table[n / 4 + 2], output, stride);
        return;
    }
    if (n == 4) {
        inverse4(in, output, stride);
        return;
    }
    const float *next = table + 2 * (n / 4 + 1);
    split(n, table, in, work);
    inverse(n / 2, next, work, output, 2 * stride, in);
    inverse(n / 2, next, work + n / 2 * W, output + stride * W, 2 * stride, in + n / 2 * W);
}

// Scales the packed rows: those of frequency 0 and, for even n, n/2 by `end`, all others by `middle`.
static void scale_rows(size_t n, float *rows, float end, float middle) {
    for (size_t row = 0; row < n; row++) {
        float factor = row == 0 || 2 * row == n ? end : middle;
        LANES rows[row * W + w] *= factor;
    }
}

static void fourier_forward(size_t n, const float *tables, float *input, float *output) {
    float *work = output + n * W;
    forward(n, tables + 4, input, 1, output, work);
    scale_rows(n, output, tables[0], tables[1]);
}

static void fourier_inverse(size_t n, const float *tables, float *input, float *output) {
    float *work = output + n * W;
    scale_rows(n, input, tables[2], tables[3]);
    inverse(n, tables + 4, input, output, 1, work);
}
