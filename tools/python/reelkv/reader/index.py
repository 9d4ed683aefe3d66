"""The records of a store's index, as values: tenants, nodes, heads (FORMAT.md, "Index")."""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from .errors import FormatError
from .records import (
    ACCOUNTRECORD_STRUCT,
    ENCODINGRECORD_STRUCT,
    FRAMERECORD_STRUCT,
    HEADRECORD_STRUCT,
    NODERECORD_STRUCT,
    TENANTRECORD_STRUCT,
    TURNRECORD_STRUCT,
    USAGERECORD_STRUCT,
    AccountRecord,
    EncodingRecord,
    FrameRecord,
    HeadRecord,
    NodeRecord,
    TenantRecord,
    TurnRecord,
    UsageRecord,
)
from .sealing import split_value
from .tokens import Tokens

KIND_PAGE, KIND_PIECE = 0, 1
KINDS_OF_HEADS = ("video", "session")
QUARANTINED = 1
"""A flag of an encoding."""
PINNED, DETAILS_SEALED = 1, 2
"""Flags of a head."""
ENCRYPTED = 1
"""A flag of a tenant."""
TOKENS_SEALED, SEALED_MEDIA = 1, 2
"""Flags of a node."""


@dataclass(frozen=True)
class Tenant:
    name: str
    tenant_id: int
    salt: bytes | None
    """None of an encrypted one: it is in the secret."""
    secret: bytes
    """What an encrypted tenant's key opens; empty of others."""

    @property
    def is_encrypted(self) -> bool:
        return self.salt is None

    @classmethod
    def parse(cls, name: str, data: bytes) -> "Tenant":
        try:
            record = TenantRecord.read(data)
        except struct.error:
            raise FormatError(f"the record of tenant {name!r} is cut off") from None
        secret = data[TENANTRECORD_STRUCT.size :]
        is_encrypted = record.flags & ENCRYPTED != 0
        if len(secret) != record.secret_bytes or is_encrypted != bool(secret):
            raise FormatError(f"the record of tenant {name!r} is damaged")
        return cls(name, record.tenant_id, None if is_encrypted else record.salt, secret)


@dataclass(frozen=True)
class Node:
    """A page or tail piece: where it hangs, and where its images lie."""

    record: NodeRecord
    encodings: tuple[EncodingRecord, ...]
    content: bytes
    """The canonical tokens, or what they are sealed in."""
    tokens: bytes | None
    """The canonical tokens of the page, from its first one to the node's end; None while they are sealed."""

    @classmethod
    def parse(cls, data: bytes) -> "Node":
        if len(data) < NODERECORD_STRUCT.size:
            raise FormatError("a node is cut off")
        record = NodeRecord.read(data)
        hash = record.hash
        encodings_at = NODERECORD_STRUCT.size
        tokens_at = encodings_at + record.encoding_count * ENCODINGRECORD_STRUCT.size
        if (
            record.kind not in (KIND_PAGE, KIND_PIECE)
            or not record.start < record.end
            or record.parent_end != record.start
            or not 1 <= record.encoding_count <= 16
            or len(data) != tokens_at + record.token_bytes
        ):
            raise FormatError(f"the record of node {hash.hex()} is damaged")
        fields_of_encodings = ENCODINGRECORD_STRUCT.iter_unpack(data[encodings_at:tokens_at])
        encodings = tuple(EncodingRecord._make(fields) for fields in fields_of_encodings)
        if any(not record.start <= encoding.complete_from <= record.end for encoding in encodings):
            raise FormatError(f"an encoding of node {hash.hex()} is complete from a token that it does not hold")
        content = data[tokens_at:]
        return cls(record, encodings, content, None if record.flags & TOKENS_SEALED else content)

    @property
    def is_sealed(self) -> bool:
        return self.record.flags & TOKENS_SEALED != 0

    @property
    def place(self) -> bytes:
        """What its tokens are sealed for."""
        return b"N" + self.hash

    def order_key(self) -> bytes:
        """What it is listed by among the children of its base; of sealed tokens the one in the clear."""
        return split_value(self.content)[1] if self.is_sealed else Tokens.parse(self.content).order_key()

    @property
    def hash(self) -> bytes:
        """Its chain hash."""
        return self.record.hash

    def best_encoding(self) -> EncodingRecord | None:
        """The most exact one that is not quarantined, the smaller of equals; None if all are."""
        usable = [encoding for encoding in self.encodings if not encoding.flags & QUARANTINED]
        return min(usable, key=lambda encoding: (encoding.key_error + encoding.value_error, encoding.image_bytes), default=None)


@dataclass(frozen=True)
class Leaf:
    """A key of `leaf`: a node that may be evicted, and its place in the order of eviction."""

    tenant_id: int
    rank: int
    hash: bytes

    @classmethod
    def parse(cls, key: bytes) -> "Leaf":
        if len(key) != _LEAF_STRUCT.size:
            raise FormatError(f"the key {key.hex()} of a leaf is damaged")
        return cls(*_LEAF_STRUCT.unpack(key))


_LEAF_STRUCT = struct.Struct(">IQ32s")


def is_lost(encoding: EncodingRecord) -> bool:
    """Its image is gone for good, and it lies in no volume."""
    return encoding.volume_id == 0 and encoding.flags & QUARANTINED != 0


def parse_usage(data: bytes) -> UsageRecord:
    if len(data) != USAGERECORD_STRUCT.size:
        raise FormatError("the record of a node's use is damaged")
    return UsageRecord.read(data)


def parse_account(data: bytes) -> AccountRecord:
    if len(data) != ACCOUNTRECORD_STRUCT.size:
        raise FormatError("a tenant's account is damaged")
    return AccountRecord.read(data)


@dataclass(frozen=True)
class Head:
    """A named tip of a chain: a video or a session."""

    name: str
    record: HeadRecord
    frames: tuple[FrameRecord, ...]
    turns: tuple[TurnRecord, ...]
    provenance: dict[str, str]
    is_locked: bool = False
    """Frames, turns and provenance are sealed, and the tenant's key was not given."""

    @property
    def kind(self) -> str:
        return KINDS_OF_HEADS[self.record.kind]

    @classmethod
    def parse(cls, name: str, data: bytes, opening: Callable[[bytes], bytes] | None = None) -> "Head":
        """`opening` gives what is sealed behind the record; without it that stays locked."""
        if len(data) < HEADRECORD_STRUCT.size:
            raise FormatError(f"the record of {name!r} is cut off")
        record, details = HeadRecord.read(data), data[HEADRECORD_STRUCT.size :]
        if record.kind >= len(KINDS_OF_HEADS):
            raise FormatError(f"the record of {name!r} is damaged")
        if record.flags & DETAILS_SEALED:
            if opening is None:
                return cls(name, record, (), (), {}, is_locked=True)
            details = opening(details)
        turns_at = record.frame_count * FRAMERECORD_STRUCT.size
        provenance_at = turns_at + record.turn_count * TURNRECORD_STRUCT.size
        if len(details) != provenance_at + record.provenance_bytes:
            raise FormatError(f"the record of {name!r} is damaged")
        frames = FRAMERECORD_STRUCT.iter_unpack(details[:turns_at])
        turns = TURNRECORD_STRUCT.iter_unpack(details[turns_at:provenance_at])
        return cls(
            name,
            record,
            tuple(FrameRecord._make(fields) for fields in frames),
            tuple(TurnRecord._make(fields) for fields in turns),
            _parse_provenance(details[provenance_at:], name),
        )


def _parse_provenance(data: bytes, name: str) -> dict[str, str]:
    texts, at = [], 0
    try:
        while at < len(data):
            (length,) = struct.unpack_from("<I", data, at)
            if length > len(data) - at - 4:
                raise FormatError(f"the provenance of {name!r} is cut off")
            texts.append(data[at + 4 : at + 4 + length].decode())
            at += 4 + length
        return dict(zip(texts[::2], texts[1::2], strict=True))
    except (struct.error, UnicodeDecodeError, ValueError) as error:
        raise FormatError(f"the provenance of {name!r} is damaged: {error}") from None
