// A caller's strided tensors: their bits looked at. loops/convert.h has the conversions.

#include "kvkernels.h"

#include "tensor.h"

#pragma STDC FP_CONTRACT OFF

void kv_add_energy(kv_head head, size_t tokens, double *energy) {
    float row[1024];
    for (size_t token = 0; token < tokens; token++) {
        uint32_t at = (uint32_t)token;
        kv_load_rows(head, &at, 1, row);
        double sum = 0;
        for (size_t c = 0; c < head.dim; c++) sum += (double)row[c] * row[c];
        energy[token] += sum;
    }
}
