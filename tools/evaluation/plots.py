"""Plots of what was measured, as SVG and PNG."""

from pathlib import Path

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot

from . import labels
from .report import KINDS, means, methods

PROFILE_COLOUR, BASELINE_COLOUR = "tab:blue", "tab:red"
LAYER_METHODS = ["VidKV 2/2", "quanto 4", "q4_0", "KIVI 2", "kivi-2", "vidkv-1.5-1.58", "vidkv-2-2", "int4"]
BITS_TICKS = [1.5, 2, 3, 4, 6, 8]


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


def _panels(results: dict, **options):
    kinds = [kind for kind in KINDS if any(passage["kind"] == kind for passage in results["passages"])]
    figure, axes = pyplot.subplots(1, len(kinds), squeeze=False, layout="constrained", **options)
    return figure, list(zip(kinds, axes[0]))


def _title(results: dict, kind: str) -> str:
    names = [passage["name"] for passage in results["passages"] if passage["kind"] == kind]
    return f"{KINDS[kind]}: {', '.join(names)}"


def bits_and_kl(results: dict):
    """A panel for texts and one for clips; what loses nothing has no place on a logarithmic axis."""
    of = means(results)
    figure, panels = _panels(results, figsize=(13, 6.5))
    for kind, axes in panels:
        lossy = {name: of[name, kind] for name in methods(results) if of[name, kind]["kl"] > 0}
        for is_profile, marker, colour, label in (
            (True, "o", PROFILE_COLOUR, "ReelKV's profiles: all bytes of the store"),
            (False, "s", BASELINE_COLOUR, "others: codes and metadata"),
        ):
            own = [mean for mean in lossy.values() if mean["is_profile"] == is_profile]
            axes.plot([mean["bits"] for mean in own], [mean["kl"] for mean in own], marker, color=colour, markersize=5, label=label)
        axes.set(xscale="log", yscale="log", xlabel="stored bits per element", ylabel="KL from the exact cache, nats")
        axes.set_xticks(BITS_TICKS, [str(tick) for tick in BITS_TICKS], minor=False)
        axes.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
        axes.margins(0.12)
        axes.set_title(_title(results, kind), fontsize=9)
        axes.legend(loc="upper right")
    figure.suptitle(f"What is stored, and what it costs in answers ({results['model']['name']})")
    for kind, axes in panels:
        named = [(name, of[name, kind]) for name in methods(results) if of[name, kind]["kl"] > 0]
        colours = {True: PROFILE_COLOUR, False: BASELINE_COLOUR}
        labels.place(axes, [(name, mean["bits"], mean["kl"], colours[mean["is_profile"]]) for name, mean in named], fontsize=8)
    return figure


def layers(results: dict):
    """Error of the attention output by layer."""
    of = means(results)
    figure, panels = _panels(results, figsize=(11, 4.2), sharey=True)
    shown = [name for name in LAYER_METHODS if name in methods(results)]
    for kind, axes in panels:
        for number, name in enumerate(shown):
            mean = of[name, kind]
            style = "-" if mean["is_profile"] else "--"
            axes.plot(mean["attention_error_per_layer"], style, color=f"C{number}", linewidth=1.2, label=name)
        axes.set(yscale="log", xlabel="layer", ylabel="relative error of attention outputs")
        axes.set_title(_title(results, kind), fontsize=9)
    if shown:
        figure.legend(*panels[0][1].get_legend_handles_labels(), loc="outside right center")
    return figure
