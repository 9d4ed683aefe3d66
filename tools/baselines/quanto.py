"""What transformers' `QuantizedCache` does with optimum-quanto: groups of 64 along the channels of a token (for heads of 64), scale and
minimum of each in the cache's type.

It quantizes a whole prefill at once; its `residual_length` only holds back what comes later.
"""

from functools import partial

import torch

from .scheme import Approximation, Scheme


def quantized_cache(bits: int, element_type: torch.dtype = torch.bfloat16) -> Scheme:
    """The scheme of `bits` bits, 2 or 4, for a cache of an element type."""
    return partial(_through_cache, bits, element_type)


def _through_cache(bits: int, element_type: torch.dtype, key: torch.Tensor, value: torch.Tensor) -> Approximation:
    # Imported late: a C++ extension is built the first time.
    from transformers.cache_utils import QuantoQuantizedLayer

    layer = QuantoQuantizedLayer(nbits=bits)
    layer.update(key[None].to(element_type), value[None].to(element_type))
    stored = (layer._quantized_keys, layer._quantized_values)
    decoded = [layer._dequantize(tensor)[0].float() for tensor in stored]
    return Approximation(*decoded, 8 * sum(map(_byte_count, stored)))


def _byte_count(tensor) -> int:
    """Of packed codes, scales and minima, as they lie in memory."""
    parts = (tensor._data._data, tensor._scale, tensor._shift)
    return sum(part.numel() * part.element_size() for part in parts)
