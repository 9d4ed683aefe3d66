"""What is sealed of encrypted tenants, and the keys that open it (FORMAT.md, "Sealed values and page images").

PyNaCl is imported when a key is first used: a store without encrypted tenants is read without it.
"""

import hashlib
import struct
from pathlib import Path

import xxhash

from .errors import ChecksumError, FormatError, KeyRequiredError, WrongKeyError
from .records import (
    SEALEDCHUNK_STRUCT,
    SEALEDHEADER_STRUCT,
    SEALEDIMAGEHEADER_STRUCT,
    SealedChunk,
    SealedHeader,
    SealedImageHeader,
)

IMAGE_MAGIC = int.from_bytes(b"\x89RKVSPG\n", "little")
IMAGE_FORMAT_VERSION, ALGORITHM = 1, 1
KEY_BYTES, SALT_BYTES, ORDER_KEY_BYTES = 32, 32, 16
AUTHENTICATED_BYTES = 88
"""Of a sealed image's header: all but its checksum."""
CHUNKS_MAX = 1 + 1024
EPOCH = struct.Struct("<I32s")
"""An entry of a tenant's secret: an epoch, and its data key."""


def read_key(path) -> bytes:
    """The key in a key file: 32 bytes, or 64 hexadecimal digits and perhaps the end of a line."""
    data = Path(path).read_bytes()
    try:
        key = data if len(data) == KEY_BYTES else bytes.fromhex(data.decode().strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError(f"{path} is no key file: it holds {KEY_BYTES} bytes, or {2 * KEY_BYTES} hexadecimal digits")
    return key


class TenantKeys:
    """What an encrypted tenant's key opens: its salt, and the data keys of every epoch that something is still sealed with."""

    def __init__(self, tenant_id: int, name: str, secret: bytes, key: bytes):
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
        opened = _opened(secret, b"S" + struct.pack("<I", tenant_id), derived(key, b"rkvtenan"))
        if opened is None:
            raise WrongKeyError(f"this is not the key of tenant {name!r}")
        if len(opened) <= SALT_BYTES or (len(opened) - SALT_BYTES) % EPOCH.size != 0:
            raise FormatError(f"the secret of tenant {name!r} has {len(opened)} bytes")
        self.name = name
        self.salt = opened[:SALT_BYTES]
        self._data_keys = dict(EPOCH.iter_unpack(opened[SALT_BYTES:]))
        self._order_key = derived(self.salt, b"rkvorder")[:ORDER_KEY_BYTES]

    def data_key(self, epoch: int) -> bytes:
        if epoch not in self._data_keys:
            raise KeyRequiredError(f"tenant {self.name!r} was given another key meanwhile: open the store anew with that")
        return self._data_keys[epoch]

    def open_value(self, data: bytes, place: bytes) -> bytes:
        """A value of the index, sealed for what it is stored under."""
        header, _, _ = split_value(data)
        plain = _opened(data, place, derived(self.data_key(header.key_epoch), b"rkvindex"))
        if plain is None:
            raise FormatError(f"a sealed record of tenant {self.name!r} is damaged: its tag is not right")
        return plain

    def blinded(self, order_key: bytes, base: bytes) -> bytes:
        """What stands for a node's order key: it shows only which of their first tokens the children of a base have in common."""
        state, words = self._siphash(base), []
        for at in range(0, len(order_key), 4):
            state = self._siphash(struct.pack("<Q", state) + order_key[at : at + 4])
            words.append(state >> 32)
        return struct.pack(f">{len(words)}I", *words)

    def _siphash(self, message: bytes) -> int:
        return int.from_bytes(_nacl().bindings.crypto_shorthash_siphash24(message, self._order_key), "little")


class SealedImage:
    """A page image as a volume has it of an encrypted tenant. Making it checks header and chunk table, which needs no key."""

    def __init__(self, data: bytes):
        if not is_sealed_image(data):
            raise FormatError("these bytes are no sealed page image")
        self.header = header = SealedImageHeader.read(data)
        if (header.format_version, header.algorithm) != (IMAGE_FORMAT_VERSION, ALGORITHM):
            raise FormatError(f"a sealed page of format version {header.format_version} and algorithm {header.algorithm}")
        start = SEALEDIMAGEHEADER_STRUCT.size + header.chunk_count * SEALEDCHUNK_STRUCT.size
        if not 1 <= header.chunk_count <= CHUNKS_MAX or start + header.image_bytes != len(data):
            raise FormatError(f"a sealed page of {header.chunk_count} chunks, {header.image_bytes} bytes of them, in {len(data)}")
        self._authenticated, table = data[:AUTHENTICATED_BYTES], data[SEALEDIMAGEHEADER_STRUCT.size : start]
        if xxhash.xxh3_64_intdigest(self._authenticated + table) != header.checksum:
            raise ChecksumError("the header of a sealed page does not match its checksum")
        self._chunks = [SealedChunk._make(fields) for fields in SEALEDCHUNK_STRUCT.iter_unpack(table)]
        self._ciphertext = data[start:]
        self.bounds = [0]
        """Where each chunk begins in the image, and where the last one ends."""
        for chunk in self._chunks:
            self.bounds.append(self.bounds[-1] + chunk.byte_count)
        if self.bounds[-1] != header.image_bytes:
            raise FormatError("the chunks of a sealed page do not fit it")

    def verify(self):
        """Checks the checksums of all chunks: needs no key."""
        for index, chunk in enumerate(self._chunks):
            if xxhash.xxh3_64_intdigest(self._chunk(index)) != chunk.checksum:
                raise ChecksumError(f"chunk {index} of a sealed page does not match its checksum")

    def open(self, keys: TenantKeys) -> bytes:
        """The page image."""
        key = derived(keys.data_key(self.header.key_epoch), b"rkvimage")
        plain = []
        for index, chunk in enumerate(self._chunks):
            nonce = struct.pack("<QQQ", self.header.nonce_a, self.header.nonce_b, index)
            opened = _decrypted(self._chunk(index), (chunk.tag_a, chunk.tag_b), self._authenticated, nonce, key)
            if opened is None:
                raise FormatError(f"chunk {index} of a sealed page was changed: its tag is not right")
            plain.append(opened)
        return b"".join(plain)

    def _chunk(self, index: int) -> bytes:
        return self._ciphertext[self.bounds[index] : self.bounds[index + 1]]


def is_sealed_image(data: bytes) -> bool:
    return len(data) >= SEALEDIMAGEHEADER_STRUCT.size and SealedImageHeader.read(data).magic == IMAGE_MAGIC


def split_value(data: bytes) -> tuple[SealedHeader, bytes, bytes]:
    """Header, order key in the clear, and ciphertext of a sealed value."""
    if len(data) < SEALEDHEADER_STRUCT.size:
        raise FormatError("a sealed value is cut off")
    header = SealedHeader.read(data)
    end = SEALEDHEADER_STRUCT.size + header.order_bytes
    if end > len(data):
        raise FormatError("a sealed value's order key is cut off")
    return header, data[SEALEDHEADER_STRUCT.size : end], data[end:]


def derived(key: bytes, context: bytes) -> bytes:
    """The key of one purpose."""
    return hashlib.blake2b(digest_size=KEY_BYTES, key=key, salt=struct.pack("<Q", 1), person=context).digest()


def _opened(data: bytes, place: bytes, key: bytes) -> bytes | None:
    """A sealed value; None where it was not sealed with this key for this place."""
    header, order_key, ciphertext = split_value(data)
    nonce = struct.pack("<QQQ", header.nonce_a, header.nonce_b, header.nonce_c)
    return _decrypted(ciphertext, (header.tag_a, header.tag_b), order_key + place, nonce, key)


def _decrypted(ciphertext: bytes, tag: tuple[int, int], additional: bytes, nonce: bytes, key: bytes) -> bytes | None:
    """XChaCha20-Poly1305; None where the tag is not right."""
    nacl = _nacl()
    sealed = ciphertext + struct.pack("<QQ", *tag)
    try:
        return nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, additional, nonce, key)
    except nacl.exceptions.CryptoError:
        return None


def _nacl():
    try:
        import nacl.bindings
        import nacl.exceptions
    except ImportError as error:
        raise ImportError(f"encrypted tenants are opened with PyNaCl: pip install 'reelkv[reader]' ({error})") from None
    return nacl
