"""Images that are not whole: every change is noticed, and whatever bytes say, only a FormatError comes of it."""

import struct

import numpy as np
import pytest
import xxhash

from reelkv.reader import ChecksumError, FormatError, PageImage, decode_layer
from reelkv.reader.records import PAGEHEADER_STRUCT, SECTIONENTRY_STRUCT, PageHeader

from .support import VECTORS


@pytest.fixture(scope="module", params=["exact-f16", "kivi-2", "int4-rotated", "vidkv-1.5-1.66"])
def image(request) -> bytes:
    """A golden image."""
    return (VECTORS / "v1" / f"{request.param}.page").read_bytes()


def decode_all(data: bytes):
    image = PageImage(data)
    image.verify()
    for index, entry in enumerate(image.layers):
        if entry is not None:
            decode_layer(image, index)


def resealed(data: bytearray) -> bytes:
    """The bytes with checksums that fit them, as far as the tables can be read."""
    header = PageHeader.read(data)
    table = header.prologue_bytes - header.layer_count * SECTIONENTRY_STRUCT.size
    if 0 <= table and header.prologue_bytes <= len(data):
        for at in range(table, header.prologue_bytes, SECTIONENTRY_STRUCT.size):
            offset, length = struct.unpack_from("<QI", data, at)
            if offset > 0:
                struct.pack_into("<Q", data, at + 16, xxhash.xxh3_64_intdigest(data[offset : offset + length]))
    for at, end in ((48, min(header.prologue_bytes, len(data))), (56, len(data))):
        checksum = xxhash.xxh3_64_intdigest(bytes(data[:at] + data[PAGEHEADER_STRUCT.size : end]))
        struct.pack_into("<Q", data, at, checksum)
    return bytes(data)


def test_the_whole_image_decodes(image):
    decode_all(image)
    assert resealed(bytearray(image)) == image


def test_every_byte_is_covered_by_a_checksum(image):
    random = np.random.default_rng(1)
    for at in [*range(PageImage(image).header.prologue_bytes), *random.integers(0, len(image), 500)]:
        changed = bytearray(image)
        changed[at] ^= 1 << random.integers(8)
        with pytest.raises(FormatError):
            decode_all(bytes(changed))


def test_a_section_alone_is_checked(image):
    indices = [index for index, entry in enumerate(PageImage(image).layers) if entry]
    entry = PageImage(image).layers[indices[-1]]
    changed = bytearray(image)
    changed[entry.offset + entry.byte_count // 2] ^= 1
    damaged = PageImage(bytes(changed))
    for index in indices[:-1]:
        decode_layer(damaged, index)
    with pytest.raises(ChecksumError):
        decode_layer(damaged, indices[-1])


def test_cut_images_are_refused(image):
    for length in [*range(0, 200), *range(200, len(image), 97)]:
        with pytest.raises(FormatError):
            decode_all(image[:length])
    with pytest.raises(FormatError):
        decode_all(image + b"\0")


def test_what_hostile_bytes_say_is_checked(image):
    """Changes with checksums made to fit: the result is a cache or a FormatError, never another exception."""
    random = np.random.default_rng(2)
    tables = [(0, 400)] + [(entry.offset, entry.offset + 300) for entry in PageImage(image).layers if entry]
    refused = 0
    for _ in range(3000):
        changed = bytearray(image)
        for _ in range(random.integers(1, 4)):
            start, end = tables[random.integers(len(tables))]
            at = random.integers(start, min(end, len(image)))
            changed[at] = random.choice([0, 1, 2, 3, 255, random.integers(256)])
        try:
            decode_all(resealed(changed))
        except FormatError:
            refused += 1
    assert refused > 1000
