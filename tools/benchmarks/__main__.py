"""`python -m benchmarks --bench PATH`: measures everything in turn, round by round, and reports."""

import argparse
import importlib.util
import json
import sys
import tempfile
from pathlib import Path

from . import lmcache_disk, peers, product, report, tensors
from .rounds import Measurements

FIXTURES = [Path("Tests/Fixtures/video.safetensors"), Path("Tests/Fixtures/text.safetensors")]


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/bench", description=__doc__)
    parser.add_argument("--bench", type=Path, required=True, help="the built reelkv-bench")
    parser.add_argument("--out", type=Path, default=Path("bench-results"), help="where bench.json and the plots go")
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured; medians are reported")
    parser.add_argument("--tokens", type=int, default=2048, help="tokens of the restored prefix")
    parser.add_argument("--with-lmcache", action="store_true", help="also LMCache's local-disk backend, which this installs")
    options = parser.parse_args()
    if options.with_lmcache and importlib.util.find_spec("lmcache") is None:
        parser.error("LMCache is not in this environment: tools/bench --with-lmcache installs it")
    options.out.mkdir(parents=True, exist_ok=True)
    bench = product.Bench(options.bench)
    measured = Measurements()
    with tempfile.TemporaryDirectory(prefix="reelkv-bench-") as folder:
        cache = tensors.cache(options.tokens)
        contenders = peers.contenders(Path(folder), cache)
        if options.with_lmcache:
            contenders.append(lmcache_disk.LMCacheDisk(Path(folder), cache))
        for number in range(options.rounds):
            progress(f"round {number + 1} of {options.rounds}")
            bench.measure_round(measured, options.tokens)
            for contender in contenders:
                contender.measure_round(measured)
        notes = [note for contender in contenders for note in contender.notes]
    progress("a look-up among a million pages, memory, and errors of the profiles")
    bench.measure_once(measured)
    results = {"rows": report.asked_rows(measured), "measured": measured.summary(), "notes": notes}
    results["profiles"] = bench.profiles(FIXTURES)
    (options.out / "bench.json").write_text(json.dumps(results, indent=2) + "\n")
    print(report.text(results))
    for path in report.plots(results, options.out):
        print(f"wrote {path}")
    print(f"wrote {options.out / 'bench.json'}")
    return 0


def progress(text: str):
    if sys.stderr.isatty():
        print(f"\r\033[K{text} …", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
