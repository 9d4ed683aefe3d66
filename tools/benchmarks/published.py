"""VidKV's published arithmetic at 1.5 bits for keys and 1.58 for values, rendered from its formulas (arXiv 2503.16257, section 3) in torch.

Tensors are `[heads, tokens, dim]` float32; groups are `group` consecutive tokens of a channel.
"""

import torch


def _grouped(x: torch.Tensor, group: int) -> torch.Tensor:
    heads, tokens, dim = x.shape
    if tokens % group != 0:
        raise ValueError(f"{tokens} tokens are no multiple of the group of {group}")
    return x.reshape(heads, tokens // group, group, dim)


def two_bit(x: torch.Tensor, group: int = 32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes, scales and minima: q = round((x - m) / s), s = (max - m) / 3."""
    grouped = _grouped(x, group)
    low = grouped.amin(2, keepdim=True)
    scale = ((grouped.amax(2, keepdim=True) - low) / 3).clamp_min(torch.finfo(torch.float32).tiny)
    codes = ((grouped - low) / scale).round_().clamp_(0, 3).to(torch.uint8)
    return codes, scale, low


def from_two_bit(codes: torch.Tensor, scale: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
    return (codes * scale + low).flatten(1, 2)


def one_bit(x: torch.Tensor, group: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes x > 0 and s = mean |x|, which stand for 0 and s: the published levels."""
    grouped = _grouped(x, group)
    return (grouped > 0).to(torch.uint8), grouped.abs().mean(2, keepdim=True)


def from_one_bit(codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return (codes * scale).flatten(1, 2)


def ternary(x: torch.Tensor, group: int = 32, gamma: float = 0.7) -> torch.Tensor:
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
