"""Decoding: a page's keys and values of one layer, from the parts of its section (FORMAT.md, "Parts")."""

import numpy as np

from . import fourier
from .errors import FormatError
from .image import PageImage
from .rotary import rotate
from .scales import read_scales_and_means
from .section import (
    ALONG_CHANNELS,
    CODES,
    EXACT,
    EXACT_PLANE,
    EXPONENT_MAXIMA,
    FOURIER,
    KEY,
    MASK,
    MASKED,
    SIGN,
    TERNARY,
    UNIFORM,
    UNROTATED,
    VALUE,
    Part,
    parse_section,
)
from .values import ElementType

# a value is mean + (slope * code + offset) * scale
LEVELS = {UNIFORM: (1, 0), SIGN: (2, -1), TERNARY: (1, -1)}


@np.errstate(over="ignore", invalid="ignore")  # an image that no encoder wrote may overflow
def decode_layer(image: PageImage, index: int, output: ElementType | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Keys and values of one layer, `[heads, tokens, dim]` each, as bits of `output`: by default the image's own element type.

    The tokens are those that the layer holds: from `image.layers[index].first_token` on.
    """
    output = output or image.element_type
    data = image.section(index)
    entry = image.layers[index]
    classes = image.classes[entry.first_token :]
    present = int(np.bitwise_or.reduce(np.uint8(1) << classes))
    parts = parse_section(data, entry.layer, image.element_type, present)
    tensors = []
    for tensor, dim in ((KEY, entry.layer.key_dim), (VALUE, entry.layer.value_dim)):
        bits = np.zeros((entry.layer.heads, len(classes), dim), output.storage)
        own = [part for part in parts if part.record.tensor == tensor]
        while own:
            part = own.pop(0)
            tokens = np.flatnonzero(part.record.token_classes >> classes & 1)
            if part.record.scheme == EXACT:
                exact = _decode_exact(part, entry.layer.heads, len(tokens), image.element_type)
                bits[:, tokens] = output.convert(exact, image.element_type)
                continue
            if part.record.channel_set == MASKED:
                values = _decode_mixed(part, own.pop(0), entry.layer.heads, len(tokens), dim)
            else:
                values = _decode_quantized(part, entry.layer.heads, len(tokens))
            if part.has(UNROTATED):
                values = rotate(values, entry.layer.rotary, image.positions[:, entry.first_token + tokens])
            bits[:, tokens] = output.from_float32(values)
        tensors.append(bits)
    return tensors[0], tensors[1]


def _decode_exact(part: Part, heads: int, tokens: int, element_type: ElementType) -> np.ndarray:
    """Byte planes, channel by channel, the highest first; they hold the bits rotated left by one, and the highest byte as the
    distance from the channel's largest."""
    channels, width = part.record.channel_count, element_type.byte_count
    shape = (heads, channels, tokens)
    maxima = np.frombuffer(part.stream(EXPONENT_MAXIMA, heads * channels), np.uint8).reshape(heads, channels, 1)
    planes = [
        np.frombuffer(part.stream(EXACT_PLANE, heads * channels * tokens, plane), np.uint8).reshape(shape)
        for plane in range(width)
    ]
    planes[0] = maxima - planes[0]
    rotated = np.zeros(shape, element_type.storage)
    for plane in planes:
        rotated = rotated << 8 | plane
    bits = rotated >> 1 | rotated << (8 * width - 1)
    return bits.transpose(0, 2, 1)


def _decode_mixed(masked: Part, unmasked: Part, heads: int, tokens: int, dim: int) -> np.ndarray:
    """Two parts that share the channels of each head, as the mask says."""
    stride = (dim + 7) // 8
    mask = np.frombuffer(masked.stream(MASK, heads * stride), np.uint8).reshape(heads, stride)
    chosen = np.unpackbits(mask, axis=1, count=dim, bitorder="little").astype(bool)
    if np.any(chosen.sum(axis=1) != masked.record.channel_count):
        raise FormatError("a mask names another number of channels than its part has")
    values = np.empty((heads, tokens, dim), np.float32)
    in_mask, out_of_mask = _decode_quantized(masked, heads, tokens), _decode_quantized(unmasked, heads, tokens)
    for head in range(heads):
        values[head][:, chosen[head]] = in_mask[head]
        values[head][:, ~chosen[head]] = out_of_mask[head]
    return values


def _decode_quantized(part: Part, heads: int, tokens: int) -> np.ndarray:
    """float32 `[heads, tokens, channels]`, still un-rotated if the part is."""
    channels, along = part.record.channel_count, part.has(ALONG_CHANNELS)
    rows, columns = (channels, tokens) if along else (tokens, channels)
    group = part.record.group_size
    scales, means = read_scales_and_means(part, heads, -(-rows // group), columns)
    codes = _read_codes(part, heads, rows, columns)
    group_of_row = np.arange(rows) // group
    slope, offset = LEVELS[part.record.scheme]
    levels = codes.astype(np.float32) * np.float32(slope) + np.float32(offset)
    values = means[:, group_of_row] + levels * scales[:, group_of_row]
    if part.has(FOURIER):
        spectra = values.transpose(2, 0, 1).reshape(channels, heads * tokens)
        values = fourier.inverse(spectra).reshape(channels, heads, tokens).transpose(1, 2, 0)
    return values.transpose(0, 2, 1) if along else values


def _read_codes(part: Part, heads: int, rows: int, columns: int) -> np.ndarray:
    """`[heads, rows, columns]`. A byte holds consecutive rows of a column, the first in its lowest bits; every group starts at a
    new byte."""
    bits = part.record.code_bits
    per_byte = 8 // bits
    # groups are a multiple of 8 rows, so only the last can end within a byte
    byte_rows = -(-rows // per_byte)
    raw = np.frombuffer(part.stream(CODES, heads * byte_rows * columns), np.uint8).reshape(heads, byte_rows, 1, columns)
    shifts = (np.arange(per_byte, dtype=np.uint8) * bits)[:, np.newaxis]
    codes = raw >> shifts & np.uint8((1 << bits) - 1)
    return codes.reshape(heads, byte_rows * per_byte, columns)[:, :rows]
