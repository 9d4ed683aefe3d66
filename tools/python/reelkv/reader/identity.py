"""The file `identity` of a store: the copy of its tenants and models (FORMAT.md, "Identity")."""

import struct
from dataclasses import dataclass
from pathlib import Path

import xxhash

from .errors import FormatError
from .records import (
    IDENTITYHEADER_STRUCT,
    SETTINGSRECORD_STRUCT,
    STORERECORD_STRUCT,
    TENANTRECORD_STRUCT,
    IdentityHeader,
    StoreRecord,
    TenantRecord,
)

FILE_NAME = "identity"
MAGIC = int.from_bytes(b"\x89RKVIDN\n", "little")
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Identity:
    store: StoreRecord
    tenants: dict[str, bytes]
    """TenantRecords by name, with their secrets, as the index has them."""
    models: dict[str, bytes]

    @classmethod
    def read(cls, folder: Path) -> "Identity":
        try:
            data = (Path(folder) / FILE_NAME).read_bytes()
        except OSError as error:
            raise FormatError(f"the file {FILE_NAME} cannot be read: {error}") from None
        try:
            return cls.parse(data)
        except (struct.error, IndexError, UnicodeDecodeError):
            raise FormatError(f"the file {FILE_NAME} is cut off") from None

    @classmethod
    def parse(cls, data: bytes) -> "Identity":
        header = IdentityHeader.read(data)
        body_at = IDENTITYHEADER_STRUCT.size
        if header.magic != MAGIC or header.format_version > FORMAT_VERSION or header.body_bytes != len(data) - body_at:
            raise FormatError(f"the file {FILE_NAME} is none, or of a newer version than {FORMAT_VERSION}")
        if xxhash.xxh3_64_intdigest(data[:56] + data[body_at:]) != header.checksum:
            raise FormatError(f"the file {FILE_NAME} does not match its checksum")
        store = StoreRecord.read(data, body_at)
        offset = body_at + STORERECORD_STRUCT.size + SETTINGSRECORD_STRUCT.size
        tenants, models = {}, {}
        for _ in range(header.tenant_count):
            name, offset = _counted(data, offset)
            end = offset + TENANTRECORD_STRUCT.size + TenantRecord.read(data, offset).secret_bytes
            tenants[name.decode()], offset = data[offset:end], end
        for _ in range(header.model_count):
            name, offset = _counted(data, offset)
            models[name.decode()], offset = _counted(data, offset)
        if offset != len(data):
            raise FormatError(f"the file {FILE_NAME} has {len(data)} bytes, its contents end at {offset}")
        return cls(store, tenants, models)


def _counted(data: bytes, offset: int) -> tuple[bytes, int]:
    (count,) = struct.unpack_from("<I", data, offset)
    end = offset + 4 + count
    if end > len(data):
        raise FormatError(f"the file {FILE_NAME} is cut off")
    return data[offset + 4 : end], end
