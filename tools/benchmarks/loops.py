"""`tools/bench loops`: the loops of a restore by themselves, timed on data that stays in the first caches, and their instructions counted.

Instructions a nanosecond, over the processor's clock in GHz, is how many it executes a cycle: what is near its greatest is a loop that
only fewer instructions can make faster. Times of one loop that lie far apart say that something else may share the core."""

import argparse
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from .report import table

KERNELS = Path("Sources/CKVKernels")
BUILDS = {"portable": 0, "avx2": 1, "avx512": 2, "avx512bf16": 3}
# valgrind 3.19 knows no AVX-512.
COUNTED = ("portable", "avx2")
FEW, MANY = 10, 110


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/bench loops", description=__doc__.split("\n")[0])
    parser.add_argument("--build", choices=BUILDS, default="avx2", help="which build of the loops (default: avx2)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reelkv-loops-") as folder:
        program = compiled(Path(folder))
        rows = timed(program, BUILDS[options.build])
        if options.build in COUNTED and shutil.which("valgrind"):
            for number, row in enumerate(rows):
                row["instructions"] = counted(program, BUILDS[options.build], number, Path(folder)) / row.pop("elements")
    print(json.dumps(rows, indent=2) if options.json else text(rows))
    return 0


def compiled(folder: Path) -> Path:
    program = folder / "loops"
    sources = [*sorted(KERNELS.glob("*.c")), Path(__file__).with_suffix(".c")]
    includes = ["-I", KERNELS, "-I", KERNELS / "include"]
    run("clang", "-O2", "-D_GNU_SOURCE", *includes, *sources, "-lm", "-o", program)
    return program


def timed(program: Path, build: int) -> list[dict]:
    rows = []
    for line in run(program, build).splitlines():
        name, elements, least, median, greatest = line.split("\t")
        rows.append(
            {"loop": name, "elements": int(elements), "least_ns": float(least), "median_ns": float(median), "greatest_ns": float(greatest)}
        )
    return rows


def counted(program: Path, build: int, number: int, folder: Path) -> float:
    """Instructions of one run, by the difference of few and many."""
    totals = []
    for runs in (FEW, MANY):
        out = folder / "callgrind.out"
        run("valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", program, build, number, runs)
        found = re.search(r"^summary: (\d+)", out.read_text(), re.MULTILINE)
        if not found:
            raise SystemExit(f"error: callgrind wrote no summary to {out}")
        totals.append(int(found.group(1)))
    return (totals[1] - totals[0]) / (MANY - FEW)


def text(rows: list[dict]) -> str:
    lines = [("loop, of an element", "least", "median", "greatest", "instructions", "a ns, at best")]
    for row in rows:
        count = row.get("instructions")
        lines.append(
            (
                row["loop"],
                *(f"{row[key]:.3f} ns" for key in ("least_ns", "median_ns", "greatest_ns")),
                "" if count is None else f"{count:.2f}",
                "" if count is None else f"{count / row['least_ns']:.1f}",
            )
        )
    return table(lines)


def run(*command: object) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"error: {command[0]} failed: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    raise SystemExit(main())
