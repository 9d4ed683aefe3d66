"""A store folder, opened for reading (FORMAT.md, "Overview", "Index", "Volumes")."""

import re
import struct
from dataclasses import dataclass
from pathlib import Path

import lmdb
import numpy as np
import xxhash

from .chain import ChainHasher
from .codec import decode_layer
from .errors import FormatError, NotStoredError
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
from .tokens import Tokens
from .values import ElementType

STORE_MAGIC = int.from_bytes(b"\x89REELKV\n", "little")
VOLUME_MAGIC = int.from_bytes(b"\x89RKVVOL\n", "little")
FORMAT_VERSIONS, SEALED_VERSION, VOLUME_FORMAT_VERSION = (2, 3), 3, 1
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
    """

    def __init__(self, path, lock: bool = True):
        self.path = Path(path)
        self.lock = lock
        self._index = self._open_index()
        self._volumes: dict[int, lmdb.Environment] = {}
        try:
            self._databases = {name: self._index.open_db(name.encode(), create=False) for name in DATABASES}
            self.record = self._read_record()
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
        return [Head.parse(key[4:].decode(), value) for key, value in self.items(kind)]

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
        node = Node.parse(data)
        if node.hash != hash:
            raise FormatError(f"the record of node {hash.hex()} is that of {node.hash.hex()}")
        return node

    def engine_state(self, hash: bytes) -> bytes | None:
        """What the engine asked to keep after the last token of a node."""
        return self._get("state", hash)

    # Chains

    def hasher(self, model_id: int, tenant_id: int) -> ChainHasher:
        return ChainHasher(self.tenant(tenant_id).salt, self.model(model_id).chain_bytes(), self.record.page_tokens)

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
        with _begin(self._volume(encoding.volume_id)) as transaction:
            data = transaction.get(struct.pack(">Q", encoding.page_id))
        if data is None or encoding.page_id == 0:
            raise NotStoredError(f"volume {encoding.volume_id} holds no page {encoding.page_id}")
        if len(data) != encoding.image_bytes:
            raise FormatError(f"a page of {len(data)} bytes where the index says {encoding.image_bytes}")
        image = PageImage(data)
        if not _is_image_of(image, encoding, node, self.model(node.record.model_id)):
            raise FormatError(f"page {encoding.page_id} of volume {encoding.volume_id} is not the image of its node")
        return image

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
