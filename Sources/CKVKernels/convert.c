// A caller's strided tensors: their bits looked at. loops/convert.h has the conversions.

#include "kvkernels.h"

#include "tensor.h"

#pragma STDC FP_CONTRACT OFF

void kv_flag_unsafe(kv_head head, size_t tokens, uint8_t *flags) {
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
