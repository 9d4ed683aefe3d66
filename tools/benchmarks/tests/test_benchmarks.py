"""The parts of the benchmarks that can be wrong without a machine being slow."""

import shutil
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

pytest.importorskip("matplotlib")

from benchmarks import loops, report  # noqa: E402
from benchmarks.product import PROFILES, restore_name  # noqa: E402
from benchmarks.rounds import Measurements  # noqa: E402


@pytest.fixture
def measured() -> Measurements:
    measured = Measurements()
    for seconds in (1.0, 3.0, 2.0):
        measured.add("memcpy", seconds, 10)
        for profile in PROFILES:
            for element_type, ratio in (("bf16", 0.5), ("f16", 0.85)):
                name = restore_name(profile, element_type)
                measured.add(f"{name} warm", 2 * seconds, 10)
                measured.add(f"{name} warm, of memcpy", ratio)
                measured.add(f"{name} warm, first layer of the whole", 1 / 20)
        measured.add(f"{restore_name('vidkv-1.5-1.58')} cold", seconds, 10)
        measured.add("safetensors load cold", 6 * seconds, 10)
        measured.add("write vidkv-1.5-1.58", seconds, 10)
        measured.add("safetensors save + fsync", seconds, 10)
    measured.add("longest prefix, median", 29e-6)
    measured.add("longest prefix, p99", 101e-6)
    return measured


def test_rows_tell_what_was_reached(measured):
    reached = {row["what"]: row["reached"] for row in report.asked_rows(measured)}
    assert reached["warm restore, vidkv-2-2 to f16, of memcpy"] and not reached["warm restore, vidkv-2-2 to bf16, of memcpy"]
    assert reached["warm restore, vidkv-1.5-1.58 to bf16, of memcpy"] and reached["warm restore, exact to bf16, of memcpy"]
    assert reached["cold restore, vidkv-1.5-1.58, against cold safetensors"]
    assert not reached["durable write, vidkv-1.5-1.58, against safetensors + fsync"]
    assert reached["longest prefix, 25 of 1,000,000 pages, median"] and not reached["longest prefix, 25 of 1,000,000 pages, p99"]


def test_the_report_is_a_table_and_plots(measured, tmp_path):
    profiles = [
        {"file": "video.safetensors", "name": name, "bits_per_element": bits, "attention_error": error}
        for name, bits, error in (("int4", 4.5, 0.02), ("vidkv-2-2", 2.4, 0.1), ("exact", 10.7, 0.0))
    ]
    results = {"rows": report.asked_rows(measured), "measured": measured.summary(), "notes": ["a note"], "profiles": profiles}
    assert "memcpy" in report.text(results) and "a note" in report.text(results)
    for path in report.plots(results, tmp_path):
        assert xml.etree.ElementTree.parse(path).getroot().tag.endswith("svg")


@pytest.mark.skipif(shutil.which("clang") is None, reason="the loops are compiled with clang")
def test_the_loops_run_by_themselves(tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[3])
    program = loops.compiled(tmp_path)
    rows = loops.timed(program, loops.BUILDS["portable"])
    assert len(rows) == 10 and all(0 < row["least_ns"] <= row["median_ns"] <= row["greatest_ns"] for row in rows)
    if shutil.which("valgrind"):
        row = rows[0] | {"instructions": loops.counted(program, loops.BUILDS["portable"], 0, tmp_path) / rows[0]["elements"]}
        assert 0.5 < row["instructions"] < 20
        assert f"{row['instructions']:.2f}" in loops.text([row])
