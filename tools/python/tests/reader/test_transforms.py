"""The arithmetic of decoding against numpy's own, in double precision."""

import numpy as np
import pytest

from reelkv.reader import fourier, scales
from reelkv.reader.model import PAIRING_HALVES, PAIRING_INTERLEAVED, Rotary
from reelkv.reader.rotary import rotate

RANDOM = np.random.default_rng(5)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 8, 12, 20, 33, 44, 96, 128])
def test_inverse_fourier_transform_is_orthonormal_and_numpys(n):
    packed = RANDOM.standard_normal((n, 7)).astype(np.float32)
    spectrum = packed[: n // 2 + 1].astype(complex)
    spectrum[1 : (n + 1) // 2] += 1j * packed[n // 2 + 1 :]
    # all but the first and, for even n, the last frequency stand for two: so the packed reals have the samples' norm
    spectrum[1 : (n + 1) // 2] /= np.sqrt(2)
    expected = np.fft.irfft(spectrum, n, axis=0, norm="ortho")
    assert np.allclose(fourier.inverse(packed), expected, atol=1e-6 * n)


@pytest.mark.parametrize("pairing", [PAIRING_HALVES, PAIRING_INTERLEAVED])
def test_rotation_is_multiplication_by_complex_numbers(pairing):
    frequencies = np.float32([1, 0.25, 0.01])
    keys = RANDOM.standard_normal((2, 4, 8)).astype(np.float32)
    positions = np.array([[0, 1, 50, -7], [9, 9, 9, 9], [0, 3, 100_000, 2]])
    turned = rotate(keys, Rotary(frequencies, pairing, (1, 1, 1)), positions)
    pairs = [(i, i + 3) if pairing == PAIRING_HALVES else (2 * i, 2 * i + 1) for i in range(3)]
    for pair, (a, b) in enumerate(pairs):
        angles = positions[pair] * float(frequencies[pair])
        expected = (keys[..., a] + 1j * keys[..., b].astype(float)) * np.exp(1j * angles)
        assert np.allclose(turned[..., a] + 1j * turned[..., b].astype(float), expected, atol=1e-6)
    assert np.array_equal(turned[..., 6:], keys[..., 6:])


def test_one_position_stream_turns_every_section():
    frequencies, keys = np.float32([1, 0.5, 0.1]), RANDOM.standard_normal((1, 5, 6)).astype(np.float32)
    positions = np.arange(5)[np.newaxis]
    plain = rotate(keys, Rotary(frequencies, PAIRING_HALVES, ()), positions)
    assert np.array_equal(rotate(keys, Rotary(frequencies, PAIRING_HALVES, (1, 1, 1)), positions), plain)


@pytest.mark.parametrize("steps", range(5))
def test_scale_codes_are_powers_of_two_in_even_steps(steps):
    values = scales.scale_values(-3, steps)
    exponents = np.clip(-3 + (np.arange(1, 256) - 128) / 2**steps, -126, None)
    inside = exponents < 127.9
    assert values[0] == 0
    assert np.allclose(values[1:][inside], 2.0 ** exponents[inside], rtol=1e-7, atol=0)
    assert np.isfinite(values).all()


def test_scale_predictions_are_undone():
    codes = RANDOM.integers(0, 256, (2, 6, 5)).astype(np.uint8)
    stored = np.empty_like(codes)
    for head, column in np.ndindex(2, 5):
        prediction = 128
        for group in range(6):
            code = int(codes[head, group, column])
            stored[head, group, column] = (code - prediction) % 256
            prediction = code if group == 0 else (prediction + code + 1) // 2
    assert np.array_equal(scales.restore_scale_codes(stored), codes)


def test_means_are_zigzag_differences():
    means = RANDOM.integers(-(2**31), 2**31, (2, 6, 5)).astype(np.int32)
    before = np.concatenate([np.zeros_like(means[:, :1]), means[:, :-1]], axis=1)
    differences = (means.astype(np.int64) - before) % 2**32
    zigzag = np.where(differences < 2**31, 2 * differences, 2 * (2**32 - differences) - 1)
    assert np.array_equal(scales.restore_means(zigzag.astype(np.uint32)), means)


def test_the_unit_of_means_is_the_mean_scale_codes_value():
    values = scales.scale_values(0, 4)
    codes = np.array([[0, 100, 0], [0, 103, 7], [0, 0, 7]], np.uint8)
    expected = np.float32([0, values[203 // 2] / 8, values[7] / 8])
    assert np.array_equal(scales.mean_units(codes, values, 3), expected)
