"""A store folder, opened for reading (FORMAT.md, "Overview", "Index", "Volumes")."""

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import lmdb
import numpy as np
import xxhash

from .chain import ChainHasher
from .codec import decode_layer
from .errors import FormatError, KeyRequiredError, NotStoredError
from .image import PageImage
from .index import KIND_PAGE, KINDS_OF_HEADS, Head, Node, Tenant
from .model import Model
from .records import (
    STORERECORD_STRUCT,
    VOLUMEHEADER_STRUCT,
    VOLUMERECORD_STRUCT,
    EncodingRecord,
    StoreRecord,
    VolumeHeader,
    VolumeRecord,
)
from .sealing import SealedImage, TenantKeys
from .tokens import Tokens
from .values import ElementType

STORE_MAGIC = int.from_bytes(b"\x89REELKV\n", "little")
VOLUME_MAGIC = int.from_bytes(b"\x89RKVVOL\n", "little")
FORMAT_VERSIONS, SEALED_VERSION, VOLUME_FORMAT_VERSION = (2, 3, 4), 3, 1
SEAL = struct.Struct("<Q")
DEFAULT_TENANT = "default"
DATABASES = (
    *("store", "model", "tenant", "node", "name", "child", "video", "session", "building", "state", "volume"),
    *("tip", "usage", "leaf", "account"),
)
VOLUMES_OPEN_MAX = 16
OPENING_ATTEMPTS_MAX = 16
INDEX_GENERATION = re.compile(r"index\.([1-9][0-9]*)\.mdb")


@dataclass(frozen=True)
class Segment:
    """What one node contributes to a sequence: its tokens from its start to `end`, both counted from the page's first."""

    node: Node
    end: int

    @property
    def first_token(self) -> int:
        """Index in the sequence of the first token."""
        return self.node.record.page_first_token + self.node.record.start

    @property
    def token_count(self) -> int:
        return self.end - self.node.record.start


@dataclass(frozen=True)
class LayerCache:
    """One layer of a sequence: keys and values `[heads, tokens, dim]`, as bits of `element_type`."""

    key: np.ndarray
    value: np.ndarray
    element_type: ElementType
    first_token: int
    """The tokens from here on are all there; a layer with a sliding window may lack some before, and then has zeros there."""


def sealed(database: str, key: bytes, value: bytes) -> bytes:
    """A value of the index with the checksum that stands behind it (FORMAT.md, "Index")."""
    seed = xxhash.xxh3_64_intdigest(key, seed=xxhash.xxh3_64_intdigest(database.encode()))
    return value + SEAL.pack(xxhash.xxh3_64_intdigest(value, seed=seed))


class Store:
    """Reads; never writes. Use it in a `with` statement.

    A store must not be opened twice in one process. Others may write it meanwhile: reading takes a slot in LMDB's lock file.
    With `lock=False` no lock file is touched: for a store on a medium that cannot be written, or one that nobody writes.

    What is written after another process has shrunk the index file is not seen: open the store anew for that.

    `keys` are those of encrypted tenants, 32 bytes each, by the tenants' names; `read_key` reads one from a file. What a tenant holds
    whose key is not given is listed and its checksums checked, but reading it raises KeyRequiredError.
    """

    def __init__(self, path, lock: bool = True, keys: Mapping[str, bytes] | None = None):
        self.path = Path(path)
        self.lock = lock
        self._index = self._open_index()
        self._volumes: dict[int, lmdb.Environment] = {}
        self._keys: dict[int, TenantKeys] = {}
        try:
            self._databases = {name: self._index.open_db(name.encode(), create=False) for name in DATABASES}
            self.record = self._read_record()
            for name, key in (keys or {}).items():
                self._unlock(name, key)
        except lmdb.NotFoundError as error:
            self.close()
            raise FormatError(f"{self.path} has an index that is not one of a ReelKV store: {error}") from None
        except BaseException:
            self.close()
            raise

    def close(self):
        for environment in self._volumes.values():
            environment.close()
        self._volumes = {}
        self._index.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_):
        self.close()

    def _open_index(self) -> lmdb.Environment:
        """Opens the newest index file; again, where it was succeeded while it was being opened."""
        for _ in range(OPENING_ATTEMPTS_MAX):
            path = newest_index(self.path)
            if path is None:
                raise NotStoredError(f"{self.path} is no ReelKV store: it has no index.mdb")
            try:
                environment = self._open(path, self.lock, max_dbs=len(DATABASES) + 6)
            except FormatError:
                if newest_index(self.path) == path:
                    raise
                continue
            if newest_index(self.path) == path:
                return environment
            environment.close()
        raise FormatError(f"the index of {self.path} is succeeded faster than it can be opened")

    def _open(self, path: Path, lock: bool, **options) -> lmdb.Environment:
        try:
            # a map size of 0 takes the one that the file names
            return lmdb.open(str(path), map_size=0, subdir=False, readonly=True, lock=lock, create=False, **options)
        except lmdb.Error as error:
            raise FormatError(f"{path} cannot be opened: {error}") from None

    def _read_record(self) -> StoreRecord:
        with _begin(self._index) as transaction:
            data = transaction.get(b"store", db=self._databases["store"]) or b""
        if len(data) < STORERECORD_STRUCT.size or StoreRecord.read(data).magic != STORE_MAGIC:
            raise FormatError(f"{self.path} is no ReelKV store")
        version = StoreRecord.read(data).format_version
        if version not in FORMAT_VERSIONS:
            raise FormatError(f"the store has format version {version}, this reader knows {FORMAT_VERSIONS}")
        self._is_sealed = version >= SEALED_VERSION
        return StoreRecord.read(self._opened("store", b"store", data))

    # The index

    def _get(self, database: str, key: bytes) -> bytes | None:
        with _begin(self._index) as transaction:
            value = transaction.get(key, db=self._databases[database])
        return None if value is None else self._opened(database, key, value)

    def items(self, database: str) -> list[tuple[bytes, bytes]]:
        """Every key and value of one database of the index; without checksums, which are checked."""
        with _begin(self._index) as transaction:
            entries = list(transaction.cursor(self._databases[database]))
        return [(key, self._opened(database, key, value)) for key, value in entries]

    def _opened(self, database: str, key: bytes, value: bytes) -> bytes:
        """A value without the checksum behind it."""
        if not self._is_sealed:
            return value
        contents = value[: -SEAL.size]
        if len(value) < SEAL.size or sealed(database, key, contents) != value:
            raise FormatError(f"a record in database {database} does not match its checksum")
        return contents

    def models(self) -> list[Model]:
        return [Model.parse(key.decode(), value) for key, value in self.items("model")]

    def tenants(self) -> list[Tenant]:
        return [Tenant.parse(key.decode(), value) for key, value in self.items("tenant")]

    def _unlock(self, name: str, key: bytes):
        tenant = _only((tenant for tenant in self.tenants() if tenant.name == name), f"tenant {name!r}")
        if not tenant.is_encrypted:
            raise ValueError(f"tenant {name!r} is not encrypted")
        self._keys[tenant.tenant_id] = TenantKeys(tenant.tenant_id, name, tenant.secret, key)

    def is_locked(self, tenant: Tenant) -> bool:
        """Whether it is encrypted, and its key was not given."""
        return tenant.is_encrypted and tenant.tenant_id not in self._keys

    def _keys_of(self, tenant_id: int) -> TenantKeys:
        if tenant_id not in self._keys:
            raise KeyRequiredError(f"tenant {self.tenant(tenant_id).name!r} is encrypted: give its key")
        return self._keys[tenant_id]

    def volumes(self) -> dict[int, VolumeRecord]:
        return {
            int.from_bytes(key, "big"): VolumeRecord._make(VOLUMERECORD_STRUCT.unpack(value))
            for key, value in self.items("volume")
        }

    def model(self, model_id: int) -> Model:
        return _only((model for model in self.models() if model.model_id == model_id), f"model {model_id}")

    def tenant(self, tenant_id: int) -> Tenant:
        return _only((tenant for tenant in self.tenants() if tenant.tenant_id == tenant_id), f"tenant {tenant_id}")

    def heads(self, kind: str) -> list[Head]:
        """All heads of a kind, `video` or `session`, of every tenant."""
        if kind not in KINDS_OF_HEADS:
            raise NotStoredError(f"{kind!r} is neither of {KINDS_OF_HEADS}")
        return [self.parse_head(kind, key, value) for key, value in self.items(kind)]

    def parse_head(self, database: str, key: bytes, value: bytes) -> Head:
        """A head of the database `video`, `session` or `building`. What of it is sealed is opened where the key was given."""
        name_at = 12 if database == "building" else 4
        keys = self._keys.get(int.from_bytes(key[name_at - 4 : name_at], "big"))
        place = b"B" + key if database == "building" else b"H" + bytes([KINDS_OF_HEADS.index(database)]) + key
        opening = keys and (lambda details: keys.open_value(details, place))
        return Head.parse(key[name_at:].decode(errors="replace"), value, opening)

    def head(self, name: str, tenant: str = DEFAULT_TENANT) -> Head:
        """The head called `video/NAME` or `session/NAME`."""
        kind, _, own_name = name.partition("/")
        tenant_id = _only((known.tenant_id for known in self.tenants() if known.name == tenant), f"tenant {tenant!r}")
        matching = (head for head in self.heads(kind) if head.record.tenant_id == tenant_id and head.name == own_name)
        return _only(matching, name)

    def node(self, hash: bytes) -> Node:
        number = self._get("name", hash)
        data = None if number is None else self._get("node", number)
        if data is None:
            raise NotStoredError(f"no node {hash.hex()}")
        node = self.parse_node(data)
        if node.hash != hash:
            raise FormatError(f"the record of node {hash.hex()} is that of {node.hash.hex()}")
        return node

    def parse_node(self, data: bytes) -> Node:
        """A node's record. Its tokens are opened, where they are sealed and the key was given."""
        node = Node.parse(data)
        keys = self._keys.get(node.record.tenant_id)
        return replace(node, tokens=keys.open_value(node.content, node.place)) if node.is_sealed and keys else node

    def engine_state(self, hash: bytes) -> bytes | None:
        """What the engine asked to keep after the last token of a node."""
        state = self._get("state", hash)
        node = None if state is None else self.node(hash)
        if node is None or not node.is_sealed:
            return state
        return self._keys_of(node.record.tenant_id).open_value(state, b"E" + hash)

    # Chains

    def hasher(self, model_id: int, tenant_id: int) -> ChainHasher:
        salt = self.tenant(tenant_id).salt or self._keys_of(tenant_id).salt
        return ChainHasher(salt, self.model(model_id).chain_bytes(), self.record.page_tokens)

    def blinded(self, node: Node) -> bytes:
        """The order key that a node of sealed tokens must have in the clear."""
        return self._keys_of(node.record.tenant_id).blinded(Tokens.parse(node.tokens).order_key(), node.record.base)

    def chain(self, head: Head) -> list[Segment]:
        """What the sequence consists of, first tokens first. Checks every node's chain hash on the way from tip to root."""
        hasher = self.hasher(head.record.model_id, head.record.tenant_id)
        if head.record.root != hasher.root:
            raise FormatError(f"{head.name!r} does not begin at the root of its model and tenant")
        segments: list[Segment] = []
        hash, end, missing = head.record.tip, head.record.tip_end, head.record.token_count
        while missing > 0:
            node = self.node(hash)
            check_name(node, hasher)
            segment = Segment(node, end)
            if not node.record.start < end <= node.record.end or segment.first_token + segment.token_count != missing:
                raise FormatError(f"node {hash.hex()} does not end where the tokens after it begin")
            segments.append(segment)
            missing = segment.first_token
            hash = node.record.parent
            end = node.record.parent_end if node.record.start > 0 else self.record.page_tokens
        if head.record.token_count > 0 and hash != hasher.root:
            raise FormatError(f"the chain of {head.name!r} does not end at its root")
        return segments[::-1]

    def tokens(self, head: Head) -> Tokens:
        """Ids and media of the whole sequence. Positions are left to the pages."""
        whole = Tokens()
        for segment in self.chain(head):
            whole.extend(Tokens.parse(segment.node.tokens), segment.node.record.start, segment.end)
        return whole

    # Pages

    def image(self, node: Node, encoding: EncodingRecord | None = None) -> PageImage:
        """A node's page image, by default in its most exact encoding. Checks that it is the image of this node."""
        encoding = encoding or node.best_encoding()
        if encoding is None:
            raise NotStoredError(f"every image of node {node.hash.hex()} is quarantined")
        if encoding.key_epoch == 0:
            image = PageImage(self._image_bytes(encoding))
        else:
            sealed = self.sealed_image(node, encoding)
            image = PageImage(sealed.open(self._keys_of(node.record.tenant_id)))
            sections = [entry.offset for entry in image.layers if entry is not None]
            if sealed.bounds != [0, *sections, len(image.data)]:
                raise FormatError(f"the chunks of page {encoding.page_id} are not its layers")
        if not _is_image_of(image, encoding, node, self.model(node.record.model_id)):
            raise FormatError(f"page {encoding.page_id} of volume {encoding.volume_id} is not the image of its node")
        return image

    def sealed_image(self, node: Node, encoding: EncodingRecord) -> SealedImage:
        """A page image of an encrypted tenant as it lies in its volume. Checks what can be checked without the key."""
        sealed = SealedImage(self._image_bytes(encoding))
        found = sealed.header.key_epoch, sealed.header.tenant_id, sealed.header.chain_hash
        if found != (encoding.key_epoch, node.record.tenant_id, node.hash):
            raise FormatError(f"page {encoding.page_id} of volume {encoding.volume_id} is not the image of its node")
        return sealed

    def _image_bytes(self, encoding: EncodingRecord) -> bytes:
        with _begin(self._volume(encoding.volume_id)) as transaction:
            data = transaction.get(struct.pack(">Q", encoding.page_id))
        if data is None or encoding.page_id == 0:
            raise NotStoredError(f"volume {encoding.volume_id} holds no page {encoding.page_id}")
        if len(data) != encoding.image_bytes:
            raise FormatError(f"a page of {len(data)} bytes where the index says {encoding.image_bytes}")
        return data

    def read(self, head: Head, layer: int, output: ElementType | None = None) -> LayerCache:
        """Decodes one layer of a whole sequence as `output`, by default the model's own type. Checks every section on the way."""
        model = self.model(head.record.model_id)
        if not 0 <= layer < len(model.layers):
            raise NotStoredError(f"model {model.name!r} has {len(model.layers)} layers; there is no layer {layer}")
        geometry, count = model.layers[layer], head.record.token_count
        output = output or model.element_type
        key = np.zeros((geometry.heads, count, geometry.key_dim), output.storage)
        value = np.zeros((geometry.heads, count, geometry.value_dim), output.storage)
        complete_from = 0
        for segment in self.chain(head):
            image = self.image(segment.node)
            entry = image.layers[layer]
            held_from = entry.first_token if entry else segment.token_count
            first, end = segment.first_token + held_from, segment.first_token + segment.token_count
            if held_from > 0:
                complete_from = min(first, end)
            if first < end:
                decoded = decode_layer(image, layer, output)
                key[:, first:end], value[:, first:end] = (bits[:, : end - first] for bits in decoded)
        return LayerCache(key, value, output, complete_from)

    def _volume(self, volume_id: int) -> lmdb.Environment:
        if volume_id not in self._volumes:
            record = self.volumes().get(volume_id)
            if record is None:
                raise NotStoredError(f"the index knows no volume {volume_id}")
            if len(self._volumes) >= VOLUMES_OPEN_MAX:
                self._volumes.pop(next(iter(self._volumes))).close()
            path = self.path / "volumes" / f"{volume_id:08x}.mdb"
            # nobody writes a sealed volume: it needs no lock
            environment = self._open(path, lock=self.lock and record.state == 0)
            try:
                self._check_header(environment, volume_id)
            except BaseException:
                environment.close()
                raise
            self._volumes[volume_id] = environment
        return self._volumes[volume_id]

    def _check_header(self, environment: lmdb.Environment, volume_id: int):
        with _begin(environment) as transaction:
            data = transaction.get(bytes(8))
        if data is None or len(data) != VOLUMEHEADER_STRUCT.size:
            raise FormatError(f"volume {volume_id} has no header")
        header = VolumeHeader.read(data)
        if header.magic != VOLUME_MAGIC or header.format_version > VOLUME_FORMAT_VERSION:
            raise FormatError(f"volume {volume_id} is no volume, or of a newer version than {VOLUME_FORMAT_VERSION}")
        if (header.store_id, header.volume_id) != (self.record.store_id, volume_id):
            raise FormatError(f"volume {volume_id} belongs to another store or is another volume")


def newest_index(folder: Path) -> Path | None:
    """The current index file: of `index.mdb`, `index.2.mdb`, ... the one of the highest number. None if there is none."""

    def generation(name: str) -> int:
        numbered = INDEX_GENERATION.fullmatch(name)
        number = int(numbered[1]) if numbered else 0
        return number if number > 1 else int(name == "index.mdb")

    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    newest = max(names, key=generation, default="")
    return folder / newest if generation(newest) > 0 else None


def _begin(environment: lmdb.Environment) -> lmdb.Transaction:
    try:
        return environment.begin()
    except lmdb.MapResizedError:
        # another process has made the file larger than the map
        environment.set_mapsize(0)
        return environment.begin()


def check_name(node: Node, hasher: ChainHasher):
    """Checks that a node's key is the hash of its tokens behind its parent."""
    record = node.record
    if record.kind == KIND_PAGE:
        expected = hasher.page(record.base, node.tokens)
    else:
        expected = hasher.piece(record.parent, record.start, node.tokens)
    if expected != node.hash:
        raise FormatError(f"the tokens of node {node.hash.hex()} do not give its chain hash")


def _is_image_of(image: PageImage, encoding: EncodingRecord, node: Node, model: Model) -> bool:
    """Whether an image's identity, geometry and completeness are those that the node and its encoding state."""
    record, identity = node.record, image.identity
    complete_from = max(image.token_count if layer is None else layer.first_token for layer in image.layers)
    return (
        (identity.chain_hash, identity.parent_hash, image.tokens) == (node.hash, record.parent, node.tokens)
        and image.header.first_token == record.page_first_token + record.start
        and image.token_count == record.end - record.start
        and encoding.complete_from == record.start + complete_from
        and identity.model_fingerprint == model.fingerprint
        and image.element_type is model.element_type
        and len(image.layers) == len(model.layers)
        and all(own is None or own.layer.shape == layer.shape for own, layer in zip(image.layers, model.layers))
    )


def _only(matching, what: str):
    found = next(matching, None)
    if found is None:
        raise NotStoredError(f"the store has no {what}")
    return found
