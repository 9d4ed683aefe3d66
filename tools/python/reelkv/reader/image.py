"""Page images: header, prologue and checksums (FORMAT.md, "Page image"). What sections hold is `section` and `codec`."""

import struct
from dataclasses import dataclass

import numpy as np
import xxhash

from .errors import ChecksumError, FormatError
from .model import NO_ROTARY, Layer, Rotary, parse_rotary
from .records import (
    PAGEHEADER_STRUCT,
    PAGEIDENTITYRECORD_STRUCT,
    SECTIONENTRY_STRUCT,
    PageHeader,
    PageIdentityRecord,
    SectionEntry,
)
from .streams import expand
from .values import ELEMENT_TYPES, ElementType

MAGIC = int.from_bytes(b"\x89RKVP\r\n\x1a", "little")
FORMAT_VERSION, CODEC_ID, CODEC_VERSIONS = 1, 1, (1, 2)
SECTION_ALIGNMENT = 64
TOKENS_MAX, LAYERS_MAX, HEADS_MAX, DIM_MAX, ELEMENTS_MAX = 4096, 1024, 1024, 1024, 1 << 28
CLASS_BASE, CLASS_SALIENT, CLASS_EXACT = 0, 1, 2


@dataclass(frozen=True)
class LayerSection:
    """Where a page keeps one layer."""

    layer: Layer
    first_token: int
    """The page's first token that the layer holds; it holds all from there on."""
    offset: int
    byte_count: int
    checksum: int
    key_error: float
    value_error: float


class PageImage:
    """One page image. Making it checks header and prologue, with their checksum; `verify` checks the rest."""

    header: PageHeader
    identity: PageIdentityRecord
    element_type: ElementType
    tokens: bytes
    """The canonical tokens: of the page from its first token to the image's last one."""
    classes: np.ndarray
    """The class of each of the image's tokens."""
    positions: np.ndarray
    """`[streams, tokens]` position ids; one stream where they are the tokens' indices in the sequence."""
    layers: tuple[LayerSection | None, ...]

    def __init__(self, data: bytes):
        self.data = bytes(data)
        self.header = _read_header(self.data)
        self._check_sum(self.header.prologue_checksum, 48, self.header.prologue_bytes, "prologue")
        prologue = _Prologue(self.data, self.header)
        self.element_type = ELEMENT_TYPES[self.header.element_type]
        self.identity = PageIdentityRecord._make(prologue.unpack(PAGEIDENTITYRECORD_STRUCT))
        rotaries = [prologue.rotary() for _ in range(self.header.rotary_count)]
        self.tokens = prologue.take(self.identity.token_bytes)
        self.classes = prologue.classes(self.identity)
        self.positions = prologue.positions(self.identity)
        self.layers = prologue.section_table(rotaries)

    @property
    def token_count(self) -> int:
        return self.header.token_count

    def section(self, index: int) -> bytes:
        """The bytes of a layer's section, checked against their checksum."""
        entry = self.layers[index]
        if entry is None:
            raise FormatError(f"the page lacks layer {index}")
        data = self.data[entry.offset : entry.offset + entry.byte_count]
        if xxhash.xxh3_64_intdigest(data) != entry.checksum:
            raise ChecksumError(f"layer {index} of the page does not match its checksum")
        return data

    def verify(self):
        """Checks the checksums of the whole image and of every section."""
        self._check_sum(self.header.image_checksum, 56, len(self.data), "image")
        for index, entry in enumerate(self.layers):
            if entry is not None:
                self.section(index)

    def _check_sum(self, expected: int, header_end: int, end: int, what: str):
        checksum = xxhash.xxh3_64(self.data[:header_end])
        checksum.update(self.data[PAGEHEADER_STRUCT.size : end])
        if checksum.intdigest() != expected:
            raise ChecksumError(f"the {what} of the page does not match its checksum")


def _read_header(data: bytes) -> PageHeader:
    if len(data) < PAGEHEADER_STRUCT.size or PageHeader.read(data).magic != MAGIC:
        raise FormatError("these bytes are no page image")
    header = PageHeader.read(data)
    known = (header.format_version, header.codec_id) == (FORMAT_VERSION, CODEC_ID)
    if not known or header.codec_version not in CODEC_VERSIONS:
        raise FormatError(
            f"a page of format version {header.format_version} by codec {header.codec_id} version {header.codec_version}; "
            f"this reader knows {FORMAT_VERSION}, {CODEC_ID}, {CODEC_VERSIONS[-1]}"
        )
    if header.image_bytes != len(data):
        raise FormatError(f"the page should have {header.image_bytes} bytes and has {len(data)}")
    if not PAGEHEADER_STRUCT.size <= header.prologue_bytes <= len(data) or header.prologue_bytes % 8 != 0:
        raise FormatError(f"a prologue of {header.prologue_bytes} bytes does not fit the page")
    tokens_fit = 1 <= header.token_count <= TOKENS_MAX and header.first_token <= (1 << 63) - 1 - TOKENS_MAX
    if not tokens_fit or not 1 <= header.layer_count <= LAYERS_MAX:
        raise FormatError(f"a page of {header.token_count} tokens from {header.first_token} and {header.layer_count} layers")
    if header.rotary_count > LAYERS_MAX or header.position_streams > 4 or header.element_type not in ELEMENT_TYPES:
        raise FormatError("a page with an unknown element type, or too many rotary tables or position streams")
    return header


class _Prologue:
    """Reads the prologue from front to back."""

    def __init__(self, data: bytes, header: PageHeader):
        self.data = data
        self.header = header
        self.at = PAGEHEADER_STRUCT.size

    def take(self, byte_count: int) -> bytes:
        if byte_count > self.header.prologue_bytes - self.at:
            raise FormatError("the prologue is too short for what it should hold")
        self.at += byte_count
        return self.data[self.at - byte_count : self.at]

    def unpack(self, layout: struct.Struct) -> tuple:
        return layout.unpack(self.take(layout.size))

    def rotary(self) -> Rotary:
        try:
            table, self.at = parse_rotary(self.data[: self.header.prologue_bytes], self.at)
        except (struct.error, ValueError) as error:
            raise FormatError(f"a rotary table of the page is damaged: {error}") from None
        return table

    def classes(self, identity: PageIdentityRecord) -> np.ndarray:
        stored = self.take(identity.class_bytes)
        if identity.class_encoding == 0:
            if stored:
                raise FormatError("the page has token classes and says that it has none")
            return np.full(self.header.token_count, CLASS_BASE, np.uint8)
        raw = expand(stored, identity.class_encoding, self.header.token_count, "token classes")
        classes = np.frombuffer(raw, np.uint8)
        if classes.max() > CLASS_EXACT:
            raise FormatError("a token has an unknown class")
        return classes

    def positions(self, identity: PageIdentityRecord) -> np.ndarray:
        stored = self.take(identity.position_bytes)
        streams, tokens = self.header.position_streams, self.header.token_count
        if (identity.position_encoding == 0) != (streams == 0) or (streams == 0 and stored):
            raise FormatError(f"the page's positions do not fit {streams} streams")
        if streams == 0:
            return self.header.first_token + np.arange(tokens, dtype=np.int64)[np.newaxis]
        raw = expand(stored, identity.position_encoding, 4 * streams * tokens, "positions")
        planes = np.frombuffer(raw, np.uint8).reshape(streams, 4, tokens).astype(np.uint32)
        zigzag = planes[:, 0] | planes[:, 1] << 8 | planes[:, 2] << 16 | planes[:, 3] << 24
        differences = (zigzag >> 1) ^ (np.uint32(0) - (zigzag & 1))
        return np.cumsum(differences, axis=1, dtype=np.uint32).view(np.int32).astype(np.int64)

    def section_table(self, rotaries: list[Rotary]) -> tuple[LayerSection | None, ...]:
        """The table; it ends the prologue, and its sections lie one after the other up to the end of the image."""
        self.take(-self.at % 8)
        free = self.header.prologue_bytes
        layers = []
        for index in range(self.header.layer_count):
            entry = SectionEntry._make(self.unpack(SECTIONENTRY_STRUCT))
            if entry.section_offset == 0:
                if entry.section_bytes != 0 or entry.first_token != self.header.token_count:
                    raise FormatError(f"layer {index} is neither there nor absent")
                layers.append(None)
                continue
            start = free + -free % SECTION_ALIGNMENT
            free = start + entry.section_bytes
            if entry.section_offset != start or free > len(self.data):
                raise FormatError(f"the section of layer {index} is not in its place")
            layers.append(self._layer(index, entry, rotaries))
        if self.at != self.header.prologue_bytes or free != len(self.data):
            raise FormatError("the page has bytes that belong to nothing")
        return tuple(layers)

    def _layer(self, index: int, entry: SectionEntry, rotaries: list[Rotary]) -> LayerSection:
        heads, dims = entry.key_value_heads, (entry.key_dim, entry.value_dim)
        if not 1 <= heads <= HEADS_MAX or not all(1 <= dim <= DIM_MAX for dim in dims):
            raise FormatError(f"layer {index} has {heads} heads of {dims[0]} and {dims[1]} channels")
        if entry.first_token >= self.header.token_count:
            raise FormatError(f"layer {index} holds no token")
        if heads * (self.header.token_count - entry.first_token) * max(dims) > ELEMENTS_MAX:
            raise FormatError(f"layer {index} is larger than a page may be")
        rotary = None
        if entry.rotary_index != NO_ROTARY:
            if entry.rotary_index >= len(rotaries):
                raise FormatError(f"layer {index} refers to a rotary table that is not there")
            rotary = rotaries[entry.rotary_index]
        layer = Layer(heads, *dims, entry.sliding_window, rotary)
        layer.check(index)
        return LayerSection(
            layer=layer,
            first_token=entry.first_token,
            offset=entry.section_offset,
            byte_count=entry.section_bytes,
            checksum=entry.checksum,
            key_error=entry.key_error,
            value_error=entry.value_error,
        )
