// Where the elements of a caller's tensor lie.

#ifndef TENSOR_H
#define TENSOR_H

#include "kvkernels.h"

#include <string.h>

// A 16-bit element at any address.
typedef uint16_t kv_u16 __attribute__((aligned(1), may_alias));

static inline size_t element_bytes(int32_t type) { return type == KV_FLOAT32 ? 4 : 2; }

static inline const char *token_base(kv_head head, size_t token) {
    return (const char *)head.base + (ptrdiff_t)token * head.token_stride * (ptrdiff_t)element_bytes(head.element_type);
}

// Puts a row of `dim` values of `size` bytes each at a token's channels.
static inline void place_row(char *to, ptrdiff_t stride, const void *values, size_t dim, size_t size) {
    if (stride == 1) {
        memcpy(to, values, dim * size);
        return;
    }
    for (size_t c = 0; c < dim; c++) {
        memcpy(to + (ptrdiff_t)c * stride * (ptrdiff_t)size, (const char *)values + c * size, size);
    }
}

#endif
