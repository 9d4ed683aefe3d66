"""The command `reelkv-precompute`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import Error
from ..writer import DEFAULT_PROFILE
from .clip import Clip, Sampling, open_clip
from .errors import Interrupted, PrecomputeError
from .progress import Reporter

if TYPE_CHECKING:
    from .job import Result

_EXAMPLES = """\
examples:
  reelkv-precompute lobby.mp4 --model ~/models/Qwen2.5-VL-7B-Instruct --store ~/kv --fps 2
  reelkv-precompute lecture.mkv --model DIR --name lecture-1 --frames 64 --start 60 --end 1260 --profile exact

A run that is interrupted keeps what it has stored; the same command goes on from there. The rest is then computed from what was
stored, lossy as it is; --recompute computes from the start instead. `reelkv show video/NAME` tells which it was.
"""


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="reelkv-precompute",
        description="Runs a video through a video language model once, and stores its KV cache for every chat about it.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("video", metavar="VIDEO", type=Path, help="the clip")
    result.add_argument("--model", metavar="DIR", type=Path, required=True, help="the folder of a transformers video language model")
    result.add_argument(
        "--store", metavar="DIR", type=Path, default=os.environ.get("REELKV_STORE"), help="the store, made where there is none (default: $REELKV_STORE)"
    )
    result.add_argument("--name", help="what to call the video in the store (default: the clip's file name without its ending)")
    result.add_argument("--tenant", help="whose cache it is")
    result.add_argument("--profile", default=DEFAULT_PROFILE, help="how pages are stored: exact, int8, vidkv-1.5-1.58, ... (default: %(default)s)")

    frames = result.add_argument_group("which frames")
    count = frames.add_mutually_exclusive_group()
    count.add_argument("--fps", type=float, help="frames a second (default: 1)")
    count.add_argument("--frames", type=int, help="frames in all, spread evenly")
    frames.add_argument("--start", metavar="SECONDS", type=float, default=0.0, help="where to begin in the clip")
    frames.add_argument("--end", metavar="SECONDS", type=float, help="where to end")

    running = result.add_argument_group("how the model runs")
    running.add_argument("--system", metavar="TEXT", help="the chats' system message (default: what the model's template says then)")
    running.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: an accelerator if there is one)")
    running.add_argument("--dtype", choices=["bfloat16", "float16", "float32"], help="of weights and cache (default: what the folder says)")
    running.add_argument("--chunk-tokens", metavar="N", type=int, default=1024, help="tokens computed at a time, rounded up to full pages (default: %(default)s)")
    running.add_argument("--frames-per-pass", metavar="N", type=int, default=16, help="frames that the vision encoder takes at a time (default: %(default)s)")

    what = result.add_argument_group("what happens")
    what.add_argument("--recompute", action="store_true", help="do not go on from lossy pages of an interrupted run: compute from the start")
    what.add_argument("--replace", action="store_true", help="put the video in the place of another one of its name")
    what.add_argument("--no-pin", action="store_true", help="let the video be evicted when room is needed")
    what.add_argument("--json", action="store_true", help="print the result as JSON")
    what.add_argument("--quiet", action="store_true", help="no progress")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; its exit status."""
    options = _parsed(arguments)
    # A job that is told to end, ends as one that a person interrupts.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    reporter = Reporter(options.quiet)
    try:
        result = _run(options, reporter)
    except Interrupted as error:
        print(f"reelkv-precompute: {error}", file=sys.stderr)
        return 130 if error.by_person else 1
    except (PrecomputeError, Error) as error:
        print(f"reelkv-precompute: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("reelkv-precompute: interrupted; nothing had been computed yet", file=sys.stderr)
        return 130
    print(json.dumps(asdict(result), indent=2) if options.json else _text(result))
    return 0


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    commands = parser()
    options = commands.parse_args(arguments)
    if options.store is None:
        commands.error("--store is missing, and REELKV_STORE is not set")
    if options.chunk_tokens < 1 or options.frames_per_pass < 1:
        commands.error("--chunk-tokens and --frames-per-pass must be at least 1")
    if options.fps is None and options.frames is None:
        options.fps = 1.0
    return options


def _run(options: argparse.Namespace, reporter: Reporter) -> Result:
    began = time.monotonic()
    sampling = Sampling(options.fps, options.frames, options.start, options.end)
    from ..store import Store
    from . import loading

    loading.check_folder(options.model)  # before a long clip is decoded
    if options.quiet or not sys.stderr.isatty():
        loading.hide_progress()
    clip = _clip(options.video, sampling, reporter)
    decoded = time.monotonic()
    with Store.open_or_create(options.store) as store:
        engine = loading.load(options.model, options.device, options.dtype)
        loaded = time.monotonic()
        from .job import Options, precompute

        result = precompute(
            store,
            engine,
            clip,
            options.name or options.video.stem,
            Options(
                profile=options.profile,
                tenant=options.tenant,
                system=options.system,
                chunk_tokens=options.chunk_tokens,
                frames_per_pass=options.frames_per_pass,
                from_lossy=not options.recompute,
                replace=options.replace,
                pinned=False if options.no_pin else None,
            ),
            reporter,
        )
    stages = {"decode": decoded - began, "load": loaded - decoded}
    result.seconds = {name: round(seconds, 3) for name, seconds in stages.items()} | result.seconds
    return result


def _clip(path: Path, sampling: Sampling, reporter: Reporter) -> Clip:
    with reporter.stage("decoding", sampling.frames, "frames") as stage:
        return open_clip(path, sampling, stage.reach)


def _text(result: Result) -> str:
    errors = f"NMSE of keys {result.key_error:.3g}, of values {result.value_error:.3g}"
    size = f"{result.stored_bytes / 1e6:.1f} MB, {result.bits_per_element:.2f} bits per element, {errors}"
    if result.is_unchanged:
        return f"{result.video} is stored already, token for token: {result.tokens:,} tokens, {size}"
    lines = [
        f"{result.video}: {result.frames:,} frames, {result.tokens:,} tokens, {result.restored_tokens:,} of them restored, "
        f"{result.computed_tokens:,} computed in {result.seconds['prefill']:.1f} s",
        f"stored as {result.profile} of model {result.model}: {size}",
    ]
    if result.context_key_error > 0 or result.context_value_error > 0:
        lines.append(
            f"what was computed now was computed from lossy pages (NMSE of keys {result.context_key_error:.3g}, of values "
            f"{result.context_value_error:.3g}); with --recompute it would not be"
        )
    return "\n".join(lines)


def run() -> Any:
    """What the installed command calls."""
    sys.exit(main())
