import random
import xml.etree.ElementTree

import pytest
from matplotlib import pyplot

from evaluation import labels, plots, report


def row(method: str, passage: str, kind: str, kl: float, is_profile: bool = True) -> dict:
    return {
        "method": method, "passage": passage, "kind": kind, "is_profile": is_profile, "bits": 2 + kl, "kl": kl, "kl_standard_error": kl / 10,
        "top1_agreement": 1 - kl, "perplexity": 10 * (1 + kl), "key_nmse": kl, "value_nmse": kl, "attention_error": kl,
        "key_nmse_per_layer": [kl] * 3, "value_nmse_per_layer": [kl] * 3, "attention_error_per_layer": [kl, kl / 2, kl / 4],
    }  # fmt: skip


@pytest.fixture
def results() -> dict:
    passages = [("gpl-3", "text"), ("manual", "text"), ("vtest", "clip")]
    kls = {"exact": 0.0, "vidkv-2-2": 0.06, "vidkv-1.5-1.58": 0.14, "q4_0": 0.02}
    return {
        "model": {"name": "SmolLM2-135M-Instruct", "element_type": "bfloat16"},
        "passages": [
            {"name": name, "kind": kind, "perplexity": 10.0, "prefix_tokens": 1024, "following_tokens": 256} for name, kind in passages
        ],
        "rows": [
            row(method, name, kind, kl * (2 if name == "manual" else 1), method != "q4_0")
            for name, kind in passages
            for method, kl in kls.items()
        ],
    }


def cells(table: str) -> dict[str, list[str]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert len({len(line) for line in rows}) == 1
    return {line[0]: line[1:] for line in rows}


def test_the_summary_has_means_over_kinds(results):
    summary = cells(report.summary(results))
    assert summary["mean over"][0] == "texts: bits" and summary["mean over"][7] == "clips: bits"
    # Means over gpl-3 and manual, which has twice the KL.
    assert summary["`vidkv-2-2`"][:4] == ["2.09", ".0900", ".910", f"x {(1.06 * 1.12) ** 0.5:.3f}"]
    assert summary["`vidkv-2-2`"][7:10] == ["2.06", ".0600", ".940"]
    assert summary["q4_0"][1] == ".0300" and summary["`exact`"][1:3] == ["0", "1"]


def test_every_passage_has_its_kl(results):
    table = cells(report.by_passage(results))
    assert table["vidkv-2-2"] == [".0600 ± .0060", ".120 ± .0120", ".0600 ± .0060"]


def test_limits_are_told_where_they_apply(results):
    reached, missed = report.limits(results)
    assert reached.endswith(": reached") and missed.endswith(": NOT REACHED") and "vidkv-1.5-1.58" in missed
    results["passages"][0]["prefix_tokens"] = 512
    assert report.limits(results) == []


@pytest.mark.parametrize(("value", "shown"), [(0, "0"), (1.5, "1.50"), (0.1234, ".123"), (0.01234, ".0123"), (0.00001, "<.0001")])
def test_small_numbers(value, shown):
    assert report.small(value) == shown


def test_plots_are_pictures(results, tmp_path):
    paths = plots.plots(results, tmp_path)
    assert {path.name for path in paths} == {"bits-kl.svg", "bits-kl.png", "layers.svg", "layers.png"}
    for path in paths:
        if path.suffix == ".svg":
            assert xml.etree.ElementTree.parse(path).getroot().tag.endswith("svg")
        else:
            assert path.read_bytes().startswith(b"\x89PNG")


def test_a_run_without_profiles_or_clips_can_be_reported(results, tmp_path):
    results["rows"] = [row for row in results["rows"] if row["method"] == "q4_0" and row["kind"] == "text"]
    results["passages"] = results["passages"][:2]
    assert len(cells(report.summary(results))) == 3
    assert len(plots.plots(results, tmp_path)) == 4
    # Nor need anything be lossy.
    results["rows"] = [row("exact", "gpl-3", "text", 0.0), row("exact", "manual", "text", 0.0)]
    assert len(plots.plots(results, tmp_path)) == 4


def test_labels_do_not_hide_each_other():
    generator = random.Random(1)
    points = [(f"vidkv-{index}-1.58", generator.uniform(1.4, 3), 10 ** generator.uniform(-2, 0), "black") for index in range(20)]
    figure, axes = pyplot.subplots(figsize=(7, 6))
    axes.plot([x for _, x, _, _ in points], [y for _, _, y, _ in points], "o")
    axes.set(xscale="log", yscale="log")
    labels.place(axes, points, fontsize=8)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 20
    for index, box in enumerate(boxes):
        # Padding of a pixel or two may touch.
        assert not any(box.padded(-1).overlaps(other.padded(-1)) for other in boxes[:index])
    pyplot.close(figure)
