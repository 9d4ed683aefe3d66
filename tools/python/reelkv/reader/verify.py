"""Checks a whole store: its records, the references between them, and every page image (FORMAT.md, "Invariants")."""

from collections import Counter

from .codec import decode_layer
from .errors import FormatError, NotStoredError
from .identity import Identity
from .index import (
    KINDS_OF_HEADS,
    PINNED,
    QUARANTINED,
    SEALED_MEDIA,
    Head,
    Leaf,
    Node,
    is_lost,
    parse_account,
    parse_usage,
)
from .records import AccountRecord
from .store import Store, check_name
from .tokens import Tokens


def verify(store: Store, decoding: bool = False) -> list[str]:
    """What is wrong, a line each; empty when nothing is. `decoding` also decodes every layer of every page.

    Of an encrypted tenant whose key was not given, references and checksums are checked, and nothing that takes the key.
    """
    nodes, problems = {}, []
    for key, value in store.items("node"):
        with _noting(problems, f"record {int.from_bytes(key, 'big')}"):
            node = store.parse_node(value)
            nodes[node.hash] = node
    problems += _check_identity(store)
    problems += _check_numbers(store, nodes)
    heads = _heads(store, problems)
    problems += _check_names(store, nodes)
    problems += _check_references(nodes, heads)
    problems += _check_children(store, nodes)
    problems += _check_tips(store)
    problems += _check_leaves(store, nodes)
    problems += _check_known(store, nodes)
    problems += _check_accounts(store, nodes)
    problems += _check_volumes(store, nodes)
    for node in nodes.values():
        for encoding in node.encodings:
            if not encoding.flags & QUARANTINED:
                with _noting(problems, f"node {node.hash.hex()}"):
                    if encoding.key_epoch > 0:
                        store.sealed_image(node, encoding).verify()
                    if node.tokens is None:
                        continue
                    image = store.image(node, encoding)
                    image.verify()
                    for index in range(len(image.layers) if decoding else 0):
                        if image.layers[index] is not None:
                            decode_layer(image, index)
    return problems


class _noting:
    """Turns what goes wrong inside into a line."""

    def __init__(self, problems: list[str], subject: str):
        self.problems, self.subject = problems, subject

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        if isinstance(error, (FormatError, NotStoredError)):
            self.problems.append(f"{self.subject}: {error}")
            return True
        return False


def _heads(store: Store, problems: list[str]) -> list[tuple[str, Head]]:
    heads = []
    for database, name_at in (*((kind, 4) for kind in KINDS_OF_HEADS), ("building", 12)):
        for key, value in store.items(database):
            name = f"{database}/{key[name_at:].decode(errors='replace')}"
            with _noting(problems, name):
                heads.append((name, store.parse_head(database, key, value)))
    return heads


def _check_identity(store: Store) -> list[str]:
    """All tenants and models are in the copy as well; it may have more."""
    problems: list[str] = []
    with _noting(problems, "identity"):
        identity = Identity.read(store.path)
        if identity.store.store_id != store.record.store_id or identity.store.page_tokens != store.record.page_tokens:
            raise FormatError("it is another store's")
        for database, copies in (("tenant", identity.tenants), ("model", identity.models)):
            for key, value in store.items(database):
                if copies.get(key.decode()) != value:
                    problems.append(f"identity: it lacks {database} {key.decode()!r}, or has another")
    return problems


def _check_numbers(store: Store, nodes: dict[bytes, Node]) -> list[str]:
    """Every node is found by its hash, and by no other."""
    records, problems, found = dict(store.items("node")), [], set()
    for hash, number in store.items("name"):
        data = records.get(number)
        with _noting(problems, f"name {hash.hex()}"):
            if data is None or Node.parse(data).hash != hash:
                raise FormatError("it has the number of another node, or of none")
            found.add(hash)
    return problems + [f"node {hash.hex()}: it is not found by its hash" for hash in nodes if hash not in found]


def _check_names(store: Store, nodes: dict[bytes, Node]) -> list[str]:
    problems, hashers = [], {}
    tenants = {tenant.tenant_id: tenant for tenant in store.tenants()}
    for node in nodes.values():
        owner = node.record.model_id, node.record.tenant_id
        with _noting(problems, f"node {node.hash.hex()}"):
            tenant = tenants.get(node.record.tenant_id)
            if tenant is not None:
                _check_sealed(node, tenant.is_encrypted)
            if node.tokens is None:
                continue
            if owner not in hashers:
                hashers[owner] = store.hasher(*owner)
            check_name(node, hashers[owner])
            if node.record.page_first_token == 0 and node.record.base != hashers[owner].root:
                raise FormatError("it is a first page, but not behind its model's and tenant's root")
    return problems


def _check_sealed(node: Node, is_encrypted: bool):
    """All that an encrypted tenant has is sealed, and nothing that another has."""
    images = [encoding.key_epoch > 0 for encoding in node.encodings if not is_lost(encoding)]
    if any(is_sealed != is_encrypted for is_sealed in [node.is_sealed, *images]):
        raise FormatError("its tokens or images are sealed and its tenant not encrypted, or the other way round")
    if node.is_sealed and node.tokens is not None:
        if bool(node.record.flags & SEALED_MEDIA) != bool(Tokens.parse(node.tokens).media):
            raise FormatError("its flags do not say whether it holds media")


def _check_references(nodes: dict[bytes, Node], heads: list[tuple[str, Head]]) -> list[str]:
    problems = []
    children = Counter(node.record.parent for node in nodes.values())
    named = [(name, head.record) for name, head in heads if head.record.token_count > 0]
    tips = Counter(record.tip for _, record in named)
    # what is being written is not evicted, pinned or not
    pins = Counter(record.tip for name, record in named if name.startswith("building/") or record.flags & PINNED)
    for node in nodes.values():
        record, subject = node.record, f"node {node.hash.hex()}"
        if record.page_first_token + record.start > 0 and record.parent not in nodes:
            problems.append(f"{subject}: its parent is not stored")
        if (record.children, record.heads, record.pins) != (children[node.hash], tips[node.hash], pins[node.hash]):
            problems.append(f"{subject}: its reference counts are wrong")
    for name, head in heads:
        if head.record.token_count == 0:
            continue
        tip = nodes.get(head.record.tip)
        if tip is None:
            problems.append(f"{name}: its last page is not stored")
        elif tip.record.page_first_token + head.record.tip_end != head.record.token_count or head.record.tip_end > tip.record.end:
            problems.append(f"{name}: its length is not that of its chain")
    return problems


def _check_children(store: Store, nodes: dict[bytes, Node]) -> list[str]:
    """Every node is listed once, under its base and in token order."""
    problems, expected = [], {}
    for node in nodes.values():
        with _noting(problems, f"node {node.hash.hex()}"):
            if node.is_sealed and node.tokens is not None and node.order_key() != store.blinded(node):
                raise FormatError("its order key is not that of its tokens")
            expected[node.record.base + node.order_key() + node.hash[:8]] = node.hash
    listed = dict(store.items("child"))
    problems += [f"node {hash.hex()}: it is not listed as a child" for key, hash in expected.items() if listed.get(key) != hash]
    problems += [f"child {key.hex()}: no node belongs there" for key in listed.keys() - expected.keys()]
    return problems


def _check_tips(store: Store) -> list[str]:
    """Every finished head with tokens is found by its tip, and nothing else is."""
    problems, expected = [], set()
    for kind, name in enumerate(KINDS_OF_HEADS):
        for key, value in store.items(name):
            try:
                record = store.parse_head(name, key, value).record
            except FormatError:
                continue  # has been told
            if record.token_count > 0:
                expected.add(record.tip + bytes([kind]) + key)
    listed = {key for key, _ in store.items("tip")}
    problems += [f"tip {key[:32].hex()}: the sequence that ends there is not listed" for key in expected - listed]
    problems += [f"tip {key[:32].hex()}: no sequence of that name ends there" for key in listed - expected]
    return problems


def _check_leaves(store: Store, nodes: dict[bytes, Node]) -> list[str]:
    """The order of eviction holds each node that neither children nor pins keep, once, and no other."""
    problems = []
    usages, listed = dict(store.items("usage")), Counter()
    for key, _ in store.items("leaf"):
        with _noting(problems, f"leaf {key.hex()}"):
            leaf = Leaf.parse(key)
            listed[leaf.hash] += 1
            node = nodes.get(leaf.hash)
            if node is None or node.record.children or node.record.pins or node.record.tenant_id != leaf.tenant_id:
                raise FormatError("the node is not to be evicted, or not there")
            usage = parse_usage(usages.get(leaf.hash, b""))
            if not usage.ranked or usage.rank != leaf.rank:
                raise FormatError("its rank is not the one that the node's use tells")
    for node in nodes.values():
        evictable = node.record.children == node.record.pins == 0
        if listed[node.hash] != evictable:
            problems.append(f"node {node.hash.hex()}: listed {listed[node.hash]} times for eviction")
    return problems


def _check_known(store: Store, nodes: dict[bytes, Node]) -> list[str]:
    """Uses and engine states are kept for nodes that are there."""
    problems = []
    for database in ("usage", "state"):
        problems += [f"{database} {key.hex()}: the node is not stored" for key, _ in store.items(database) if key not in nodes]
    return problems


def _check_accounts(store: Store, nodes: dict[bytes, Node]) -> list[str]:
    """What each tenant has stored is counted right; one that has stored nothing needs no account."""
    problems, live_bytes, live_pages = [], Counter(), Counter()
    for node in nodes.values():
        held = [encoding for encoding in node.encodings if not is_lost(encoding)]
        live_bytes[node.record.tenant_id] += sum(encoding.image_bytes for encoding in held)
        live_pages[node.record.tenant_id] += len(held)
    accounts = {int.from_bytes(key, "big"): value for key, value in store.items("account")}
    for tenant_id in sorted(accounts.keys() | live_pages.keys()):
        with _noting(problems, f"tenant {tenant_id}"):
            account = parse_account(accounts[tenant_id]) if tenant_id in accounts else AccountRecord(0, 0)
            if (account.live_bytes, account.live_pages) != (live_bytes[tenant_id], live_pages[tenant_id]):
                raise FormatError("its stored bytes or pages are counted wrong")
    return problems


def _check_volumes(store: Store, nodes: dict[bytes, Node]) -> list[str]:
    live_bytes, live_pages = Counter(), Counter()
    for node in nodes.values():
        for encoding in node.encodings:
            if is_lost(encoding):
                continue
            live_bytes[encoding.volume_id] += encoding.image_bytes
            live_pages[encoding.volume_id] += 1
    records = store.volumes()
    problems = [f"volume {volume_id}: pages lie in it, but it has no record" for volume_id in live_pages.keys() - records.keys()]
    for volume_id, record in records.items():
        if (record.live_bytes, record.live_pages) != (live_bytes[volume_id], live_pages[volume_id]):
            problems.append(f"volume {volume_id}: its live bytes or pages are counted wrong")
    return problems
