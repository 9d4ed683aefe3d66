"""Plots of what was measured, as SVG and PNG."""

from pathlib import Path

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot

from . import labels
from .report import KINDS, means, methods

COLOURS = {True: "tab:blue", False: "tab:red"}
"""Of profiles, and of others."""
LAYER_METHODS = ["VidKV 2/2", "quanto 4", "q4_0", "KIVI 2", "kivi-2", "vidkv-1.5-1.58", "vidkv-2-2", "int4"]
BITS_TICKS = [1.5, 2, 3, 4, 6, 8]
DETAIL_BITS_MAX = 3
DETAIL_TICKS = [1.4, 1.6, 1.8, 2, 2.2, 2.4]


def plots(results: dict, folder: Path) -> list[Path]:
    pyplot.rcParams.update({"svg.hashsalt": "reelkv", "font.size": 9, "axes.grid": True, "grid.alpha": 0.3})
    figures = {"bits-kl": bits_and_kl(results), "layers": layers(results)}
    paths = []
    for name, figure in figures.items():
        for suffix, options in ((".svg", {"metadata": {"Date": None}}), (".png", {"dpi": 150})):
            paths.append(folder / (name + suffix))
            figure.savefig(paths[-1], **options)
        pyplot.close(figure)
    return paths


def _kinds(results: dict) -> list[str]:
    return [kind for kind in KINDS if any(passage["kind"] == kind for passage in results["passages"])]


def _title(results: dict, kind: str) -> str:
    names = [passage["name"] for passage in results["passages"] if passage["kind"] == kind]
    return f"{KINDS[kind]}: {', '.join(names)}"


def bits_and_kl(results: dict):
    """Everything, and below it the profiles of few bits, which lie close together: a column for texts and one for clips.

    What loses nothing has no place on a logarithmic axis.
    """
    of = means(results)
    kinds = _kinds(results)
    figure, grid = pyplot.subplots(2, len(kinds), squeeze=False, figsize=(6.5 * len(kinds), 10.5), layout="constrained")
    named = []
    for (whole, detail), kind in zip(grid.T, kinds):
        points = {name: of[name, kind] for name in methods(results) if of[name, kind]["kl"] > 0}
        close = {name: point for name, point in points.items() if point["is_profile"] and point["bits"] < DETAIL_BITS_MAX}
        whole.set_title(_title(results, kind), fontsize=9)
        detail.set_title(f"{KINDS[kind]}: profiles below {DETAIL_BITS_MAX} bits", fontsize=9)
        _scatter(whole, points, BITS_TICKS)
        _scatter(detail, close, DETAIL_TICKS, detailed=True)
        if points:
            whole.legend(loc="lower left")
        apart = {name: point for name, point in points.items() if name not in close}
        named += [(whole, apart), (detail, close)]
    figure.suptitle(f"What is stored, and what it costs in answers ({results['model']['name']})")
    for axes, points in named:
        marks = [(name, point["bits"], point["kl"], COLOURS[point["is_profile"]]) for name, point in points.items()]
        labels.place(axes, marks, fontsize=8)
    return figure


def _scatter(axes, points: dict[str, dict], ticks: list[float], detailed: bool = False):
    if not points:
        axes.set_axis_off()
        return
    for is_profile, marker, label in ((True, "o", "ReelKV's profiles: all bytes of the store"), (False, "s", "others: codes and metadata")):
        own = [point for point in points.values() if point["is_profile"] == is_profile]
        x, y = [point["bits"] for point in own], [point["kl"] for point in own]
        axes.plot(x, y, marker, color=COLOURS[is_profile], markersize=5, label=label)
    axes.set(xscale="log", yscale="log", xlabel="stored bits per element", ylabel="KL from the exact cache, nats")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
    axes.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if detailed and f"{value:e}"[0] in "25" else "")
    axes.margins(0.15)


def layers(results: dict):
    """Error of the attention output by layer."""
    of = means(results)
    kinds = _kinds(results)
    figure, grid = pyplot.subplots(1, len(kinds), squeeze=False, sharey=True, figsize=(11, 4.2), layout="constrained")
    shown = [name for name in LAYER_METHODS if name in methods(results)]
    for kind, axes in zip(kinds, grid[0]):
        for number, name in enumerate(shown):
            mean = of[name, kind]
            style = "-" if mean["is_profile"] else "--"
            axes.plot(mean["attention_error_per_layer"], style, color=f"C{number}", linewidth=1.2, label=name)
        axes.set(yscale="log", xlabel="layer", ylabel="relative error of attention outputs")
        axes.set_title(_title(results, kind), fontsize=9)
    if shown:
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside right center")
    return figure
