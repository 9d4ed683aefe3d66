import numpy as np
import pytest

from reelkv.reader.values import BFLOAT16, ELEMENT_TYPES, FLOAT16, FLOAT32


@pytest.mark.parametrize("kind", ELEMENT_TYPES.values(), ids=lambda kind: kind.name)
def test_every_finite_value_survives_a_trip_through_float32(kind):
    if kind is FLOAT32:
        bits = np.random.default_rng(1).integers(0, 1 << 32, 100_000, dtype=np.uint32)
    else:
        bits = np.arange(1 << 16, dtype=np.uint16)
    values = kind.to_float32(bits)
    finite = np.isfinite(values)
    assert np.array_equal(kind.from_float32(values)[finite], bits[finite])
    assert np.array_equal(np.isnan(kind.to_float32(kind.from_float32(values))), np.isnan(values))


def test_bfloat16_rounds_to_nearest_even():
    one = np.float32(1)
    step = np.float32(2**-7)  # one unit in the last place at 1
    halves = np.float32([one + step / 2, one + step * 3 / 2, one + step * 0.51, one + step * 0.49])
    assert BFLOAT16.to_float32(BFLOAT16.from_float32(halves)).tolist() == [1, 1 + 2 * step, 1 + step, 1]


def test_overflow_becomes_infinity():
    large = np.float32([3.4e38, -3.4e38])
    assert np.isinf(BFLOAT16.to_float32(BFLOAT16.from_float32(large))).all()
    assert np.isinf(FLOAT16.to_float32(FLOAT16.from_float32(np.float32([65520, -65520])))).all()
