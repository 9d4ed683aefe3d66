// Codes of a few bits into bytes. codes.h has the way back to values.
//
// A byte holds consecutive tokens of one channel, and bytes of neighbouring channels are neighbours: expanding a vector of
// bytes gives vectors of whole rows without any transposition.

static uint8_t *pack_group(const uint8_t *codes, size_t rows, size_t columns, int bits, uint8_t *restrict packed) {
    size_t per_byte = 8 / (size_t)bits;
    for (size_t row = 0; row < rows; row += per_byte) {
        size_t count = rows - row < per_byte ? rows - row : per_byte;
        for (size_t c = 0; c < columns; c++) packed[c] = codes[row * columns + c];
        for (size_t i = 1; i < count; i++) {
            const uint8_t *from = codes + (row + i) * columns;
            for (size_t c = 0; c < columns; c++) packed[c] |= (uint8_t)(from[c] << (i * (size_t)bits));
        }
        packed += columns;
    }
    return packed;
}
