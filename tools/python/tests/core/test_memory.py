"""What Python tells the library of a tensor's memory."""

import ctypes

import numpy as np
import pytest

from reelkv import InvalidArgument, _memory, dtypes


def read_through(view: _memory.View) -> np.ndarray:
    """The bits that the library would read, element by element."""
    storage = dtypes.STORAGE[view.dtype]
    bits = np.dtype(f"u{storage.itemsize}")
    out = np.empty(view.shape, bits)
    kind = {2: ctypes.c_uint16, 4: ctypes.c_uint32}[storage.itemsize]
    for index in np.ndindex(*view.shape):
        offset = sum(i * stride for i, stride in zip(index, view.strides)) * storage.itemsize
        out[index] = kind.from_address(view.address + offset).value
    return out


LAYOUTS = {
    "plain": lambda a: a,
    "batch": lambda a: a[np.newaxis],
    "tokens first": lambda a: np.ascontiguousarray(a.transpose(1, 0, 2)).transpose(1, 0, 2),
    "channels first": lambda a: np.ascontiguousarray(a.transpose(2, 0, 1)).transpose(1, 2, 0),
    "every second": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "fortran": np.asfortranarray,
    "one head": lambda a: a[1:2],
    "no tokens": lambda a: a[:, :0],
}


@pytest.mark.parametrize("kind", [np.float16, np.uint16, np.float32])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_memory_is_used_where_it_is(kind, layout):
    values = np.random.default_rng(1).integers(0, 2**16, (3, 5, 4)).astype(kind)
    array = layout(values)
    expected = array[0] if array.ndim == 4 else array
    for view in (_memory.source(array, "a key"), _memory.destination(array, "a key")):
        assert np.shares_memory(view.keep, array) or array.size == 0
        assert np.array_equal(read_through(view), expected.view(f"u{expected.itemsize}"))
        assert view.native().data != 0  # NULL would mean "not wanted"


def test_sources_that_run_backwards_are_copied_and_destinations_refused():
    values = np.random.default_rng(2).standard_normal((2, 6, 4)).astype(np.float32)
    view = _memory.source(values[:, ::-1], "a key")
    assert np.array_equal(read_through(view).view(np.float32), values[:, ::-1])
    with pytest.raises(InvalidArgument, match="backwards"):
        _memory.destination(values[:, ::-1], "a key")


def test_memory_that_is_not_aligned():
    raw = np.zeros(2 * 3 * 4 * 4 + 1, np.uint8)[1:].view(np.float32).reshape(2, 3, 4)
    raw[:] = np.arange(24).reshape(2, 3, 4)
    assert np.array_equal(read_through(_memory.source(raw, "a key")).view(np.float32), raw)
    with pytest.raises(InvalidArgument, match="aligned"):
        _memory.destination(raw, "a key")


@pytest.mark.parametrize("kind", [np.float64, np.int32, np.int16, np.complex64, ">f4", bool])
def test_other_elements_are_refused(kind):
    for role in (_memory.source, _memory.destination):
        with pytest.raises(InvalidArgument, match="layer 3's key has elements of"):
            role(np.zeros((1, 2, 3), kind), "layer 3's key")


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 1, 2, 3), (1, 1, 2, 3, 4)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(InvalidArgument, match="has the shape"):
        _memory.source(np.zeros(shape, np.float32), "a value")


def test_destinations_must_be_writable_and_their_own():
    fixed = np.zeros((1, 2, 3), np.float32)
    fixed.flags.writeable = False
    with pytest.raises(InvalidArgument, match="read-only"):
        _memory.destination(fixed, "a key")
    assert _memory.source(fixed, "a key").keep is fixed
    expanded = np.lib.stride_tricks.as_strided(np.zeros(3, np.float32), (2, 2, 3), (0, 0, 4))
    with pytest.raises(InvalidArgument, match="share memory"):
        _memory.destination(expanded, "a key")
    with pytest.raises(InvalidArgument, match="must be a numpy array"):
        _memory.destination([[[1.0]]], "a key")


def test_bfloat16_bits_and_values():
    random = np.random.default_rng(3)
    bits = np.arange(1 << 16, dtype=np.uint16)
    values = dtypes.bfloat16_to_float32(bits)
    finite = np.isfinite(values)
    assert np.array_equal(dtypes.float32_to_bfloat16(values)[finite], bits[finite])
    assert np.isnan(dtypes.bfloat16_to_float32(dtypes.float32_to_bfloat16(values))[np.isnan(values)]).all()
    some = random.standard_normal(1000).astype(np.float32)
    assert np.abs(dtypes.bfloat16_to_float32(dtypes.float32_to_bfloat16(some)) - some).max() <= np.abs(some).max() * 2**-8


@pytest.mark.parametrize(
    "given, name",
    [("float32", "float32"), ("bf16", "bfloat16"), (np.float16, "float16"), (np.dtype("f4"), "float32"), ("torch.bfloat16", "bfloat16")],
)
def test_names_of_element_types(given, name):
    assert dtypes.name_of(given) == name


@pytest.mark.parametrize("given", ["int8", np.float64, "float8_e4m3fn", None, 3])
def test_other_element_types_are_refused(given):
    with pytest.raises(InvalidArgument, match="float16, bfloat16 or float32"):
        dtypes.name_of(given)
