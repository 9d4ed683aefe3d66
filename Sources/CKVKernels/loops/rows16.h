// Where the rows of a tile of 16-bit elements go.
//
// Rows of whole cache lines go straight from registers to the caller's memory, past the caches, while the next are computed: a
// tile that is first decoded and then copied leaves the memory idle half of the time.

#ifndef LOOPS_ROWS16_H
#define LOOPS_ROWS16_H

typedef uint16_t kv_block16 __attribute__((vector_size(2 * BLOCK), aligned(2), may_alias));

// Puts a block of a row; `streams` says that rows begin and end with cache lines.
__attribute__((always_inline)) static inline void put_block16(uint16_t *to, int streams, kv_block16 block) {
    if (streams) __builtin_nontemporal_store((kv_line)block, (kv_line *)to);
    else *(kv_block16 *)to = block;
}

static int tile_rows(kv_head head, const uint32_t *tokens, size_t first, size_t used, size_t count, uint16_t *tile,
                     kv_rows16 *rows) {
    int direct = head.channel_stride == 1 && (uintptr_t)head.base % 2 == 0;
    rows->streams = direct && rows_are_lines(head);
    for (size_t i = 0; i < count; i++) {
        int wanted = i >= first && i < first + used;
        uint16_t *own = tile + i * head.dim;
        rows->token[i] = wanted ? tokens[i - first] : 0;
        rows->row[i] = !wanted ? NULL : direct ? (uint16_t *)(uintptr_t)token_base(head, tokens[i - first]) : own;
    }
    return direct;
}

#endif
