"""Errors and bits that follow from the formulas."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

torch = pytest.importorskip("torch")

from baselines import ggml, kivi, quanto, vidkv  # noqa: E402

SCHEMES = {
    "vidkv 2/2": vidkv.two_bits_each,
    "vidkv 1.5/1.58": vidkv.mixed,
    "kivi": kivi.two_bits_each,
    "q8_0": ggml.q8_0,
    "q4_0": ggml.q4_0,
}


def gaussian(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def nmse(approximate: torch.Tensor, exact: torch.Tensor) -> float:
    return float(((approximate - exact) ** 2).sum() / (exact**2).sum())


@pytest.mark.parametrize(
    ("encode", "decode", "expected"),
    [(vidkv.two_bit, vidkv.from_two_bit, 0.154), (vidkv.one_bit, vidkv.from_one_bit, 0.676)],
)
def test_vidkv_has_its_known_errors(encode, decode, expected):
    """NMSE on Gaussian values in groups of 32."""
    x = gaussian(4, 4096, 128)
    assert nmse(decode(*encode(x)), x) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(
    ("name", "key_error", "value_error"),
    # Min-max levels of 32 Gaussian values: .154 at 2 bits. q8_0's step is the block's greatest magnitude / 127, q4_0's / 8.
    [("vidkv 2/2", 0.154, 0.154), ("kivi", 0.154, 0.154), ("q8_0", 2.7e-5, 2.7e-5), ("q4_0", 0.0073, 0.0073)],
)
def test_errors_on_a_gaussian(name, key_error, value_error):
    key, value = gaussian(2, 4096, 64), gaussian(2, 4096, 64).flip(1)
    approximation = SCHEMES[name](key, value)
    # KIVI's last values are exact.
    tokens = slice(0, 4096 - kivi.RESIDUAL)
    assert nmse(approximation.key[:, tokens], key[:, tokens]) == pytest.approx(key_error, rel=0.1)
    assert nmse(approximation.value[:, tokens], value[:, tokens]) == pytest.approx(value_error, rel=0.1)


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("vidkv 2/2", 2 + 1),
        # Keys: half at 2 + 1, half at two codes of 1 bit with 1 bit of metadata each; values 2 + 1; one mask of 64 bits.
        ("vidkv 1.5/1.58", ((3 + 4) / 2 + 3) / 2 + 64 / (2 * 2 * 1024 * 64)),
        ("kivi", (3 + (3 * (1024 - 128) + 16 * 128) / 1024) / 2),
        ("q8_0", 8.5),
        ("q4_0", 4.5),
    ],
)
def test_bits_count_codes_and_metadata(name, bits):
    key, value = gaussian(2, 1024, 64), gaussian(2, 1024, 64)
    assert SCHEMES[name](key, value).bit_count / (key.numel() + value.numel()) == pytest.approx(bits)


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("tokens", [1, 31, 131, 2051])
def test_tokens_that_fill_no_group_stay_exact(name, tokens):
    key, value = gaussian(3, tokens, 64), gaussian(3, tokens, 64)
    approximation = SCHEMES[name](key, value)
    assert approximation.key.shape == key.shape and approximation.value.shape == value.shape
    if not name.startswith("q"):
        assert torch.equal(approximation.key[:, tokens - tokens % 32 :], key[:, tokens - tokens % 32 :])
        assert approximation.bit_count >= 2 * 16 * 3 * 64 * (tokens % 32)


@pytest.mark.parametrize("name", SCHEMES)
def test_a_constant_comes_back_finite(name):
    for constant in (0.0, 3.0):
        x = torch.full((1, 256, 128), constant)
        approximation = SCHEMES[name](x, x)
        assert torch.isfinite(approximation.key).all() and torch.isfinite(approximation.value).all()
        if name in ("vidkv 2/2", "kivi", "q8_0", "q4_0"):
            assert torch.allclose(approximation.key, x, rtol=1e-3)


@pytest.mark.parametrize(("bits", "stored"), [(4, 4 + 2 * 16 / 64), (2, 2 + 2 * 16 / 64)])
def test_quanto_counts_what_it_keeps(bits, stored):
    pytest.importorskip("transformers")
    pytest.importorskip("optimum.quanto")
    key, value = gaussian(3, 256, 64).bfloat16().float(), gaussian(3, 256, 64).bfloat16().float()
    approximation = quanto.quantized_cache(bits)(key, value)
    assert approximation.bit_count / (key.numel() + value.numel()) == pytest.approx(stored)
    assert 0.3 * 0.0087 < nmse(approximation.key, key) * (1 if bits == 4 else 1 / 25) < 3 * 0.0087
