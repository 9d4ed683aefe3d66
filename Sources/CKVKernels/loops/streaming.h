// Stores past the caches.
//
// What a restore writes is larger than any cache, and a store through the caches first reads the line that it then overwrites.
// The order of these stores is loose: kv_finish_stores comes before another thread may look.

typedef uint32_t kv_line __attribute__((vector_size(64), aligned(64), may_alias));
typedef uint32_t kv_unaligned_line __attribute__((vector_size(64), aligned(4), may_alias));

// Whether every row of the head is a number of whole cache lines.
static inline int rows_are_lines(kv_head head) {
    size_t size = element_bytes(head.element_type);
    return head.channel_stride == 1 && head.dim * size % 64 == 0 && (uintptr_t)head.base % 64 == 0
        && (size_t)head.token_stride * size % 64 == 0;
}

static inline void stream_lines(void *to, const void *from, size_t bytes) {
    for (size_t i = 0; i < bytes; i += 64) {
        kv_line line = *(const kv_unaligned_line *)((const char *)from + i);
        __builtin_nontemporal_store(line, (kv_line *)((char *)to + i));
    }
}
