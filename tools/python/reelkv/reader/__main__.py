"""`python -m reelkv.reader STORE`: what a store holds; with --verify, whether it is sound."""

import argparse
import sys

from .errors import KeyRequiredError, NotStoredError, WrongKeyError
from .index import KINDS_OF_HEADS
from .sealing import read_key
from .store import Store
from .verify import verify


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reelkv.reader", description=__doc__)
    parser.add_argument("store", help="the store's folder")
    parser.add_argument("--verify", action="store_true", help="check records, checksums and chain hashes; decode all")
    parser.add_argument("--no-lock", action="store_true", help="touch no lock file; for a store that nobody writes")
    parser.add_argument(
        "--key-file",
        action="append",
        default=[],
        type=_key_of_tenant,
        metavar="TENANT=FILE",
        help="the key of an encrypted tenant, once for each",
    )
    options = parser.parse_args(arguments)
    try:
        with Store(options.store, lock=not options.no_lock, keys=dict(options.key_file)) as store:
            _list(store)
            problems = verify(store, decoding=True) if options.verify else []
            locked = [tenant.name for tenant in store.tenants() if store.is_locked(tenant)]
    except (ValueError, NotStoredError, KeyRequiredError, WrongKeyError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for problem in problems:
        print(f"problem: {problem}", file=sys.stderr)
    if options.verify and not problems:
        print("sound" + (f", as far as can be told without the keys of {', '.join(locked)}" if locked else ""))
    return 1 if problems else 0


def _key_of_tenant(text: str) -> tuple[str, bytes]:
    name, _, path = text.partition("=")
    try:
        return name, read_key(path)
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _list(store: Store):
    models, tenants = store.models(), {tenant.tenant_id: tenant for tenant in store.tenants()}
    for model in models:
        print(f"model {model.name}: {len(model.layers)} layers, {model.element_type.name}")
    names = {model.model_id: model.name for model in models}
    for tenant in tenants.values():
        if tenant.is_encrypted:
            print(f"tenant {tenant.name}: encrypted" + (", locked" if store.is_locked(tenant) else ""))
    for kind in KINDS_OF_HEADS:
        for head in store.heads(kind):
            tenant = tenants.get(head.record.tenant_id)
            whose = f"{kind}/{head.name}: tenant {tenant and tenant.name}, model {names.get(head.record.model_id)}, "
            if head.is_locked:
                print(f"{whose}{head.record.token_count} tokens, locked")
                continue
            segments = store.chain(head)
            encodings = [segment.node.best_encoding() for segment in segments]
            stored = sum(encoding.image_bytes for encoding in encodings if encoding)
            print(
                f"{whose}{head.record.token_count} tokens in {len(segments)} pages and pieces, {stored} bytes, "
                f"{len(head.frames)} frames, {len(head.turns)} turns"
            )


if __name__ == "__main__":
    sys.exit(main())
