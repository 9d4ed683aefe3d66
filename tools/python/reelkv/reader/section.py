"""A layer's section: its parts and their streams (FORMAT.md, "Section"). Checks what a decoder relies on, decodes nothing."""

from dataclasses import dataclass

from .errors import FormatError
from .model import Layer
from .records import (
    PARTRECORD_STRUCT,
    SECTIONHEADER_STRUCT,
    STREAMRECORD_STRUCT,
    PartRecord,
    SectionHeader,
    StreamRecord,
)
from .streams import RAW, SHARED, ZSTD, expand
from .values import ElementType

KEY, VALUE = 0, 1
EXACT, UNIFORM, SIGN, TERNARY = 0, 1, 2, 3
UNROTATED, FOURIER, ALONG_CHANNELS = 1, 2, 4
ALL_CHANNELS, MASKED, UNMASKED = 0, 1, 2
CODES, SCALES, ANCHORS, MEANS, MASK, EXACT_PLANE, EXPONENT_MAXIMA = 1, 2, 3, 4, 5, 6, 7
PARTS_MAX, STREAMS_MAX, MEAN_PLANES_MAX = 32, 512, 4
SHARED_BYTES_MAX = 1 << 20


@dataclass(frozen=True)
class Part:
    """The tokens of some classes and the channels of one set, encoded one way."""

    record: PartRecord
    streams: dict[tuple[int, int], tuple[int, bytes]]
    """(kind, plane) -> (encoding, stored bytes)"""

    def stream(self, kind: int, byte_count: int, plane: int = 0) -> bytes:
        encoding, stored = self.streams[kind, plane]
        return expand(stored, encoding, byte_count, f"stream {kind}, plane {plane}")

    @property
    def mean_planes(self) -> int:
        """Byte planes of the means; none when every mean is zero."""
        return sum(kind == MEANS for kind, _ in self.streams)

    def has(self, flag: int) -> bool:
        return self.record.flags & flag != 0

    def check(self, element_type: ElementType):
        record = self.record
        if (
            record.tensor not in (KEY, VALUE)
            or record.token_classes & ~7
            or record.scheme not in (EXACT, UNIFORM, SIGN, TERNARY)
            or record.flags & ~(UNROTATED | FOURIER | ALONG_CHANNELS)
            or record.channel_set not in (ALL_CHANNELS, MASKED, UNMASKED)
            or record.channel_count == 0
        ):
            raise FormatError("a part of an unknown kind")
        if record.scheme == EXACT:
            self._check_exact(element_type)
        else:
            self._check_quantized()

    def _check_exact(self, element_type: ElementType):
        expected = {(EXPONENT_MAXIMA, 0)} | {(EXACT_PLANE, plane) for plane in range(element_type.byte_count)}
        record = self.record
        rest = record.code_bits, record.flags, record.channel_set, record.group_size, record.mean_shift
        if set(self.streams) != expected or any(rest):
            raise FormatError("an exact part is not whole")

    def _check_quantized(self):
        record = self.record
        if record.code_bits not in (1, 2, 4, 8) or not 8 <= record.group_size <= 1024 or record.group_size % 8 != 0:
            raise FormatError(f"a part with codes of {record.code_bits} bits in groups of {record.group_size}")
        if record.mean_shift > 16 or self.mean_planes > MEAN_PLANES_MAX:
            raise FormatError("a part whose means have an impossible unit or length")
        if self.has(ALONG_CHANNELS) and (record.channel_set != ALL_CHANNELS or self.has(FOURIER)):
            raise FormatError("a part with groups along some channels only")
        if record.tensor == VALUE and self.has(UNROTATED):
            raise FormatError("a value part is un-rotated")
        expected = {(CODES, 0), (SCALES, 0), (ANCHORS, 0)} | {(MEANS, plane) for plane in range(self.mean_planes)}
        if record.channel_set == MASKED:
            expected.add((MASK, 0))
        if set(self.streams) != expected:
            raise FormatError("a part's streams are not the ones it needs")


def parse_section(data: bytes, layer: Layer, element_type: ElementType, present: int) -> list[Part]:
    """The parts of a section, in order. `present` has a bit for each class among the tokens that the layer holds."""
    if len(data) < SECTIONHEADER_STRUCT.size:
        raise FormatError("a section is too short for its header")
    header = SectionHeader.read(data)
    if not 1 <= header.part_count <= PARTS_MAX or not 1 <= header.stream_count <= STREAMS_MAX:
        raise FormatError(f"a section of {header.part_count} parts and {header.stream_count} streams")
    parts_at = SECTIONHEADER_STRUCT.size
    streams_at = parts_at + header.part_count * PARTRECORD_STRUCT.size
    bytes_at = streams_at + header.stream_count * STREAMRECORD_STRUCT.size
    if bytes_at > len(data):
        raise FormatError("a section is too short for its tables")
    records = [PartRecord._make(fields) for fields in PARTRECORD_STRUCT.iter_unpack(data[parts_at:streams_at])]
    streams = _streams(data, streams_at, bytes_at, header.shared_bytes)
    if sum(record.stream_count for record in records) != len(streams):
        raise FormatError("a section's parts do not name its streams")
    parts = []
    for record in records:
        own, streams = streams[: record.stream_count], streams[record.stream_count :]
        part = Part(record, {key: value for key, value in own})
        if len(part.streams) != len(own):
            raise FormatError("a part has two streams of one kind")
        part.check(element_type)
        parts.append(part)
    for part, following in zip(parts, parts[1:]):
        if part.record.channel_set == MASKED and following.record.tensor != part.record.tensor:
            raise FormatError("no unmasked part follows a masked one")
    _check_coverage([part for part in parts if part.record.tensor == KEY], layer.key_dim, present)
    _check_coverage([part for part in parts if part.record.tensor == VALUE], layer.value_dim, present)
    if layer.rotary is None and any(part.has(UNROTATED) for part in parts):
        raise FormatError("a section is un-rotated, but its layer has no rotary table")
    return parts


def _streams(data: bytes, table: int, at: int, shared_bytes: int) -> list[tuple[tuple[int, int], tuple[int, bytes]]]:
    records = [StreamRecord._make(fields) for fields in STREAMRECORD_STRUCT.iter_unpack(data[table:at])]
    end = len(data) - shared_bytes
    if end < at:
        raise FormatError(f"a section's shared frame of {shared_bytes} bytes does not fit")
    shared = _shared(records, data[end:])
    streams = []
    for index, record in enumerate(records):
        if record.encoding == SHARED:
            streams.append(((record.kind, record.plane), (RAW, shared[index])))
            continue
        if record.stored_bytes > end - at:
            raise FormatError("a stream reaches past the end of its section")
        streams.append(((record.kind, record.plane), (record.encoding, data[at : at + record.stored_bytes])))
        at += record.stored_bytes
    if at != end:
        raise FormatError(f"a section has {end} bytes of streams, its streams end at {at}")
    return streams


def _shared(records: list[StreamRecord], frame: bytes) -> dict[int, bytes]:
    """The streams in the shared frame, by their index in the table; they lie there by kind, then as in the table."""
    own = sorted((record.kind, index) for index, record in enumerate(records) if record.encoding == SHARED)
    total = sum(records[index].stored_bytes for _, index in own)
    if total > SHARED_BYTES_MAX or (total == 0) != (len(frame) == 0):
        raise FormatError(f"a section has a shared frame of {len(frame)} bytes for {total} shared ones")
    raw = expand(frame, ZSTD, total, "the shared frame") if total else b""
    streams, at = {}, 0
    for _, index in own:
        streams[index] = raw[at : at + records[index].stored_bytes]
        at += records[index].stored_bytes
    return streams


def _check_coverage(parts: list[Part], dim: int, present: int):
    """Every class that occurs is in one place: a part of all channels, or a masked part and the unmasked one right after it."""
    covered = 0
    parts = list(parts)
    while parts:
        part = parts.pop(0)
        record = part.record
        if record.channel_set == UNMASKED or record.token_classes & covered or not record.token_classes & present:
            raise FormatError("a token class is in two parts, in a part for no token, or only in part of the channels")
        covered |= record.token_classes
        if record.channel_set == ALL_CHANNELS:
            if record.channel_count != dim:
                raise FormatError(f"a part has {record.channel_count} of {dim} channels")
            continue
        other = parts.pop(0) if parts else None
        if (
            other is None
            or other.record.channel_set != UNMASKED
            or other.record.token_classes != record.token_classes
            or other.record.group_size != record.group_size
            or other.record.channel_count + record.channel_count != dim
            or other.has(UNROTATED) != part.has(UNROTATED)
        ):
            raise FormatError("the part after a masked one does not go with it")
    if present & ~covered:
        raise FormatError("a section lacks some of its tokens")
