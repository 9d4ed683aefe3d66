"""VidKV's published arithmetic, rendered from its formulas (arXiv 2503.16257, section 3) in torch.

Keys have 2 bits, or 1.5: half of the channels at 2 bits, the others Fourier transformed and at 1 bit. Values have 2 bits or 1.58. Keys
are quantized as the cache holds them, after the rotary embedding; one mask of channels serves all heads of a layer; no token is exact.
Tensors are `[heads, tokens, dim]` float32; groups are `group` consecutive tokens of a channel.
"""

import torch

from .scheme import FLOAT16_BITS, Approximation, in_whole_groups

GROUP = 32



def _grouped(x: torch.Tensor, group: int) -> torch.Tensor:
    heads, tokens, dim = x.shape
    if tokens % group != 0:
        raise ValueError(f"{tokens} tokens are no multiple of the group of {group}")
    return x.reshape(heads, tokens // group, group, dim)


def two_bit(x: torch.Tensor, group: int = GROUP) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes, scales and minima: q = round((x - m) / s), s = (max - m) / 3."""
    grouped = _grouped(x, group)
    low = grouped.amin(2, keepdim=True)
    scale = ((grouped.amax(2, keepdim=True) - low) / 3).clamp_min(torch.finfo(torch.float32).tiny)
    codes = ((grouped - low) / scale).round_().clamp_(0, 3).to(torch.uint8)
    return codes, scale, low


def from_two_bit(codes: torch.Tensor, scale: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
    return (codes * scale + low).flatten(1, 2)


def one_bit(x: torch.Tensor, group: int = GROUP) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes x > 0 and s = mean |x|, which stand for 0 and s: the published levels."""
    grouped = _grouped(x, group)
    return (grouped > 0).to(torch.uint8), grouped.abs().mean(2, keepdim=True)


def from_one_bit(codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return (codes * scale).flatten(1, 2)


def ternary(x: torch.Tensor, group: int = GROUP, gamma: float = 0.7) -> torch.Tensor:
    """q = sign(x) [|x| > gamma s], s = mean |x|; the published code keeps no scale."""
    grouped = _grouped(x, group)
    threshold = gamma * grouped.abs().mean(2, keepdim=True)
    return (grouped.sign() * (grouped.abs() > threshold)).to(torch.int8)


def encode_key(x: torch.Tensor, anomalous: float = 0.5):
    """The channels of the largest range at 2 bits; of the others, the Fourier transform's parts at 1 bit."""
    spread = (x.amax(1) - x.amin(1)).mean(0)
    order = spread.argsort(descending=True)
    count = int(anomalous * x.shape[2])
    masked, rest = order[:count].sort().values, order[count:].sort().values
    spectrum = torch.fft.fft(x[:, :, rest], dim=2)
    return masked, rest, two_bit(x[:, :, masked]), one_bit(spectrum.real), one_bit(spectrum.imag)


def decode_key(encoded, shape: torch.Size) -> torch.Tensor:
    masked, rest, coarse, real, imaginary = encoded
    x = torch.empty(shape)
    x[:, :, masked] = from_two_bit(*coarse)
    x[:, :, rest] = torch.fft.ifft(torch.complex(from_one_bit(*real), from_one_bit(*imaginary)), dim=2).real
    return x


def encode_value(x: torch.Tensor) -> torch.Tensor:
    return ternary(x)


def decode_value(encoded: torch.Tensor) -> torch.Tensor:
    return encoded.to(torch.float32).flatten(1, 2)


def two_bits_each(key: torch.Tensor, value: torch.Tensor) -> Approximation:
    """2 bits for keys and for values."""
    return Approximation(
        in_whole_groups(key, GROUP, lambda x: from_two_bit(*two_bit(x))),
        in_whole_groups(value, GROUP, lambda x: from_two_bit(*two_bit(x))),
        _bits(key, 2) + _bits(value, 2),
    )


def mixed(key: torch.Tensor, value: torch.Tensor) -> Approximation:
    """1.5 bits for keys, 1.58 for values.

    Of a transformed channel the published code keeps the real and the imaginary parts of the whole spectrum, though one half of it
    follows from the other: two codes an element. Ternary codes take 2 bits.
    """
    anomalous = key.shape[2] // 2
    return Approximation(
        in_whole_groups(key, GROUP, lambda x: decode_key(encode_key(x), x.shape)),
        in_whole_groups(value, GROUP, lambda x: decode_value(encode_value(x))),
        _bits(key[:, :, :anomalous], 2) + 2 * _bits(key[:, :, anomalous:], 1) + key.shape[2] + _bits(value, 2),
    )


def _bits(x: torch.Tensor, code: int) -> int:
    """Codes, and a float16 scale and minimum for each group, which is how the published code lays out all of its codes."""
    heads, tokens, dim = x.shape
    quantized = tokens - tokens % GROUP
    metadata = 2 * FLOAT16_BITS * (quantized // GROUP)
    return heads * dim * (code * quantized + metadata + FLOAT16_BITS * (tokens - quantized))
