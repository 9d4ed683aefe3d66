// The angles of the rotary position embedding.

#include "kernels.h"

#include <math.h>

void kv_rotary_angles(double position, const double *frequencies, size_t pairs, float *cosines, float *sines) {
    if (kv_loops_active()->angles(position, frequencies, pairs, cosines, sines)) return;
    for (size_t p = 0; p < pairs; p++) {
        double angle = position * frequencies[p];
        cosines[p] = (float)cos(angle);
        sines[p] = (float)sin(angle);
    }
}
