"""What profiles cost in answers: a real model goes on from restored caches, beside the exact ones and other quantizers.

For every text and clip: a prefix is computed once, exact, and stored under each profile; the model then reads the tokens that follow over
what the store gives back. Prints a table of stored bits, KL divergence and agreement of the next-token distributions, perplexity, NMSE and
error of the attention outputs, and writes it with plots and JSON.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import reelkv
import torch

from . import clips, plots, report, texts
from .measure import measure
from .methods import BASELINES, Baseline, Method, Profile
from .model import EvaluatedModel
from .passages import Source
from .stored import PROFILES


@dataclass(frozen=True)
class Defaults:
    texts: list[str]
    clips: list[str]
    profiles: list[str]
    baselines: list[str]
    prefix: int
    following: int


FULL = Defaults(list(texts.NAMED), list(clips.NAMED), list(PROFILES), list(BASELINES), 1024, 256)
QUICK = Defaults(["gpl-3"], [], ["int4", "vidkv-2-2", "vidkv-1.5-1.58"], ["VidKV 2/2", "KIVI 2", "q4_0"], 512, 128)


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/eval", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, metavar="DIR", help="a Hugging Face model's folder; by default SmolLM2-135M-Instruct")
    parser.add_argument("--profiles", nargs="*", choices=PROFILES, metavar="NAME", help="by default all")
    parser.add_argument("--baselines", nargs="*", choices=BASELINES, metavar="NAME", help=f"of {', '.join(map(repr, BASELINES))}")
    parser.add_argument("--texts", nargs="*", metavar="NAME", help=f"of {', '.join(texts.NAMED)}, or files")
    parser.add_argument("--clips", nargs="*", metavar="NAME", help=f"of {', '.join(clips.NAMED)}, or files")
    parser.add_argument("--prefix", type=int, metavar="TOKENS", help=f"of a text that are cached; by default {FULL.prefix}")
    parser.add_argument("--frames", type=int, default=32, help="of a clip that are cached, 64 tokens each; by default 32")
    parser.add_argument("--following", type=int, metavar="TOKENS", help=f"that are scored; by default {FULL.following}")
    parser.add_argument("--out", type=Path, default=Path("evaluation-results"), metavar="DIR", help="where tables and plots go")
    parser.add_argument("--quick", action="store_true", help="one short text and few profiles, unless other options say more")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clip-folder", type=Path, action="append", default=[], help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    defaults = QUICK if options.quick else FULL
    for name in ("texts", "clips", "profiles", "baselines", "prefix", "following"):
        if getattr(options, name) is None:
            setattr(options, name, getattr(defaults, name))
    for name, least in (("prefix", 1), ("frames", 1), ("following", 2), ("threads", 1)):
        if getattr(options, name) < least:
            parser.error(f"--{name} must be at least {least}")
    if not options.texts + options.clips or not options.profiles + options.baselines:
        parser.error("nothing to measure: name a text or clip, and a profile or baseline")
    return options


def sources(options: argparse.Namespace) -> list[Source]:
    folders = options.clip_folder + clips.packaged_folder()
    chosen = [texts.text(name, options.prefix, options.following) for name in options.texts]
    chosen += [clips.clip(name, folders, options.frames, options.following) for name in options.clips]
    names = [source.name for source in chosen]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"two texts or clips have the name {', '.join(repeated)}: results go by the name; rename a file")
    return chosen


def methods(options: argparse.Namespace) -> list[Method]:
    return [Profile(name) for name in options.profiles] + [Baseline(name) for name in options.baselines]


def main(words: list[str] | None = None) -> int:
    options = arguments(words)
    torch.set_num_threads(options.threads)
    try:
        wanted = sources(options)
        progress("the model is loaded")
        model = EvaluatedModel(options.model)
        results = measure(model, wanted, methods(options), progress)
    except (ValueError, OSError, reelkv.Error) as error:
        progress("")
        print(f"error: {error}", file=sys.stderr)
        return 1
    progress("")
    element_type = str(model.element_type).removeprefix("torch.")
    results = {"model": {"name": model.name, "element_type": element_type}, **results}
    show(results, options)
    return 0


def show(results: dict, options: argparse.Namespace):
    options.out.mkdir(parents=True, exist_ok=True)
    table = report.markdown(results)
    written = [options.out / "evaluation.json", options.out / "evaluation.md"]
    written[0].write_text(json.dumps(results, indent=1) + "\n")
    written[1].write_text(table)
    written += plots.plots(results, options.out)
    print(json.dumps(results) if options.json else table)
    for path in written:
        print(f"wrote {path}", file=sys.stderr)


def progress(text: str):
    """On a terminal only; the next step overwrites it, and nothing erases it."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text} …" if text else "\r\033[K", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
