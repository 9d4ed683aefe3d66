"""Tables of what was measured, in Markdown."""

from math import exp, log
from statistics import fmean

# What a profile may lose on the text gpl-3: SmolLM2, 1,024 tokens cached, 256 following.
KL_LIMITS = {"vidkv-2-2": 0.07, "vidkv-1.5-1.58": 0.13}
LIMIT_PASSAGE = {"name": "gpl-3", "prefix_tokens": 1024, "following_tokens": 256}
LIMIT_MODEL = "SmolLM2-135M-Instruct"

FIGURES = ("KL", "top-1", "perplexity", "NMSE K", "NMSE V", "attention")
KINDS = {"text": "texts", "clip": "clips"}


def means(results: dict) -> dict[tuple[str, str], dict]:
    """Of every method and kind: figures that are means over the passages of that kind."""
    exact = {passage["name"]: passage["perplexity"] for passage in results["passages"]}
    groups: dict[tuple[str, str], list[dict]] = {}
    for row in results["rows"]:
        groups.setdefault((row["method"], row["kind"]), []).append(row)
    out = {}
    for key, rows in groups.items():
        names = ("bits", "kl", "top1_agreement", "key_nmse", "value_nmse", "attention_error")
        out[key] = {name: fmean(row[name] for row in rows) for name in names}
        out[key]["perplexity_ratio"] = exp(fmean(log(row["perplexity"] / exact[row["passage"]]) for row in rows))
        layers = zip(*(row["attention_error_per_layer"] for row in rows), strict=True)
        out[key]["attention_error_per_layer"] = [fmean(layer) for layer in layers]
        out[key]["is_profile"] = rows[0]["is_profile"]
    return out


def markdown(results: dict) -> str:
    parts = [summary(results), by_passage(results)]
    reached = limits(results)
    if reached:
        parts.append("\n".join(reached))
    return "\n\n".join(parts) + "\n"


def summary(results: dict) -> str:
    """Every method, means over texts and over clips."""
    of = means(results)
    kinds = [kind for kind in KINDS if any(passage["kind"] == kind for passage in results["passages"])]
    rows = [["mean over", *(figure for kind in kinds for figure in (f"{KINDS[kind]}: bits", *FIGURES))]]
    for method in methods(results):
        cells = [f"`{method}`" if of[method, kinds[0]]["is_profile"] else method]
        for kind in kinds:
            mean = of[method, kind]
            cells += [f"{mean['bits']:.2f}", small(mean["kl"]), share(mean["top1_agreement"]), f"x {mean['perplexity_ratio']:.3f}"]
            cells += [small(mean[name]) for name in ("key_nmse", "value_nmse", "attention_error")]
        rows.append(cells)
    return table(rows)


def by_passage(results: dict) -> str:
    """KL of every method on every passage, with its standard error."""
    names = [passage["name"] for passage in results["passages"]]
    cells = {(row["method"], row["passage"]): f"{small(row['kl'])} ± {small(row['kl_standard_error'])}" for row in results["rows"]}
    rows = [["KL", *names]]
    rows += [["exact perplexity", *(f"{passage['perplexity']:.2f}" for passage in results["passages"])]]
    rows += [[method, *(cells[method, name] for name in names)] for method in methods(results)]
    return table(rows)


def methods(results: dict) -> list[str]:
    """In the order in which they were measured."""
    return list(dict.fromkeys(row["method"] for row in results["rows"]))


def limits(results: dict) -> list[str]:
    """Whether the profiles keep their limits, where they were measured under the limits' conditions."""
    same = [passage for passage in results["passages"] if all(passage.get(key) == value for key, value in LIMIT_PASSAGE.items())]
    if results["model"]["name"] != LIMIT_MODEL or not same:
        return []
    lines = []
    for row in results["rows"]:
        limit = KL_LIMITS.get(row["method"])
        if limit is not None and row["passage"] == LIMIT_PASSAGE["name"]:
            verdict = "reached" if row["kl"] < limit else "NOT REACHED"
            lines.append(f"{row['method']} on {row['passage']}: KL {small(row['kl'])}, asked below {small(limit)}: {verdict}")
    return lines


def small(value: float) -> str:
    """Three significant digits, at most four places, without the zero before the point."""
    if value == 0:
        return "0"
    if value >= 1:
        return f"{value:.2f}"
    text = f"{value:.3f}" if value >= 0.1 else f"{value:.4f}"
    return text.removeprefix("0") if float(text) else "<.0001"


def share(value: float) -> str:
    return "1" if value == 1 else f"{value:.3f}".removeprefix("0")


def table(rows: list[list[str]]) -> str:
    """A Markdown table whose columns line up; the first is left-aligned."""
    widths = [max(3, *(len(row[column]) for row in rows)) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths))]
        lines.append("| " + " | ".join(cells) + " |")
    rule = [("-" * width) if column == 0 else ("-" * (width - 1) + ":") for column, width in enumerate(widths)]
    lines.insert(1, "| " + " | ".join(rule) + " |")
    return "\n".join(lines)
