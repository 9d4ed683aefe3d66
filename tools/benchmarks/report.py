"""Tables and plots of what was measured."""

from pathlib import Path

from .product import OTHER_TYPE, OWN_TYPE, PROFILES, restore_name
from .rounds import Measurements


# Profiles named in the plot, and where the name stands from the point; the others lie between them.
LABELLED = {
    "vidkv-1-1": (-10, 7), "vidkv-1.5-1.58": (-20, -12), "vidkv-2-2": (-6, -12), "kivi-2": (5, 4), "int4": (5, 4), "int8": (-6, 7)
}


def asked_rows(measured: Measurements) -> list[dict]:
    """What was asked, what was measured, and whether it was reached."""
    rows = []

    def add(what: str, asked: str, value: float, shown: str, reached: bool):
        rows.append({"what": what, "asked": asked, "value": value, "shown": shown, "reached": reached})

    for profile, least in (("vidkv-2-2", 0.8), ("kivi-2", 0.8), ("vidkv-1.5-1.58", 0.5), ("exact", 0.25)):
        for element_type in (OWN_TYPE,) if profile == "exact" else (OTHER_TYPE, OWN_TYPE):
            ratio = measured.median(f"{restore_name(profile, element_type)} warm, of memcpy")
            add(f"warm restore, {profile} to {element_type}, of memcpy", f"{least}", ratio, f"{ratio:.2f}", ratio >= least)
    for profile in PROFILES:
        share = measured.median(f"{restore_name(profile)} warm, first layer of the whole")
        add(f"first of 28 layers, {profile}, of the whole", "1/14", share, f"1/{1 / share:.0f}", share < 1 / 14)
    cold = measured.median("safetensors load cold") / measured.median(f"{restore_name('vidkv-1.5-1.58')} cold")
    add("cold restore, vidkv-1.5-1.58, against cold safetensors", "5x", cold, f"{cold:.1f}x", cold >= 5)
    write = measured.rate("write vidkv-1.5-1.58") / measured.rate("safetensors save + fsync")
    add("durable write, vidkv-1.5-1.58, against safetensors + fsync", "1.5x", write, f"{write:.2f}x", write >= 1.5)
    for name, limit in (("median", 30e-6), ("p99", 100e-6)):
        seconds = measured.median(f"longest prefix, {name}")
        add(f"longest prefix, 25 of 1,000,000 pages, {name}", f"{limit * 1e6:.0f} µs", seconds, f"{seconds * 1e6:.1f} µs", seconds <= limit)
    if "memory of a restore, bytes" in measured:
        memory = max(measured.values["memory of a restore, bytes"])
        add("memory above the caller's buffers, 16,384 tokens", "64 MB", memory, f"{memory / 1e6:.1f} MB", memory <= 64e6)
    return rows


def text(results: dict) -> str:
    rows = [("what", "asked", "measured", "")]
    rows += [(row["what"], row["asked"], row["shown"], "" if row["reached"] else "not reached") for row in results["rows"]]
    lines = [table(rows), ""]
    rates = [("what", "median", "least … greatest", "GB/s", "of memcpy")]
    memcpy = results["measured"]["memcpy"]
    for name, value in sorted(results["measured"].items()):
        if "bytes" not in value:
            continue
        rate = value["bytes"] / value["median"]
        ratio = rate / (memcpy["bytes"] / memcpy["median"])
        spread = f"{value['least'] * 1e3:.1f} … {value['greatest'] * 1e3:.1f} ms"
        rates.append((name, f"{value['median'] * 1e3:.1f} ms", spread, f"{rate / 1e9:.2f}", f"{ratio:.2f}"))
    lines.append(table(rates))
    return "\n".join(lines + [""] + results["notes"])


def table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths))]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def plots(results: dict, folder: Path) -> list[Path]:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"svg.hashsalt": "reelkv", "font.size": 9, "axes.grid": True, "grid.alpha": 0.3})
    return [_bits_and_error(results["profiles"], folder, pyplot), _speed(results["measured"], folder, pyplot)]


def _bits_and_error(rows: list[dict], folder: Path, pyplot) -> Path:
    figure, axes = pyplot.subplots(figsize=(7.5, 4.8), layout="constrained")
    for file, marker in zip(sorted({row["file"] for row in rows}), "os^"):
        own = sorted((row for row in rows if row["file"] == file and row["attention_error"]), key=lambda row: row["bits_per_element"])
        bits, errors = [row["bits_per_element"] for row in own], [row["attention_error"] for row in own]
        axes.plot(bits, errors, marker + "-", label=Path(file).stem, linewidth=0.6, markersize=4)
        for row, x, y in zip(own, bits, errors):
            if row["name"] in LABELLED:
                axes.annotate(row["name"], (x, y), xytext=LABELLED[row["name"]], textcoords="offset points", fontsize=7)
    axes.set(xscale="log", yscale="log", xlabel="stored bits per element", ylabel="relative error of attention outputs")
    axes.set_xticks([1.5, 2, 3, 4, 6, 8], ["1.5", "2", "3", "4", "6", "8"], minor=False)
    axes.set_title("What a profile stores, and what it loses")
    axes.legend()
    return _save(figure, folder / "bits-error.svg", pyplot)


def _speed(measured: dict, folder: Path, pyplot) -> Path:
    memcpy = measured["memcpy"]["bytes"] / measured["memcpy"]["median"] / 1e9
    names = [f"{restore_name(profile)} warm" for profile in PROFILES] + [f"{restore_name('vidkv-1.5-1.58')} cold"]
    names += ["write exact", "write vidkv-1.5-1.58", "safetensors load warm", "safetensors load cold", "safetensors save + fsync"]
    names = [name for name in names if name in measured][::-1]
    rates = [measured[name]["bytes"] / measured[name]["median"] / 1e9 for name in names]
    colours = ["tab:blue" if name.startswith("restore") else "tab:orange" if name.startswith("write") else "tab:gray" for name in names]
    figure, axes = pyplot.subplots(figsize=(7.5, 4.2), layout="constrained")
    bars = axes.barh(names, rates, color=colours)
    axes.bar_label(bars, [f"{rate:.2f} GB/s, {rate / memcpy:.2f} of memcpy" for rate in rates], padding=3, fontsize=7)
    axes.axvline(memcpy, color="black", linestyle="--", linewidth=0.8, label=f"memcpy, {memcpy:.1f} GB/s")
    axes.set(xlabel="bytes of bfloat16 per second, GB/s", xlim=(0, 1.5 * max([memcpy, *rates])))
    axes.set_title("How fast tensors come and go")
    axes.legend(loc="lower right")
    return _save(figure, folder / "speed.svg", pyplot)


def _save(figure, path: Path, pyplot) -> Path:
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path
