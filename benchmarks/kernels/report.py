"""Results as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

Entry = dict[str, Any]
TITLES = {"loss": "InfoNCE on given embeddings", "neighbours": "Nearest neighbours with exclusions and a cap"}
PASSES = {"forward_backward": "loss and gradients", "forward": "loss alone"}
GOALS = {
    "ours_vs_three_gemms": "ours / three products alone",
    "eager_vs_ours": "torch cross_entropy / ours",
    "sentence_transformers_vs_ours": "sentence-transformers / ours",
    "ours_extra_bytes": "extra memory of ours",
    "faiss_vs_ours": "faiss / ours, time",
    "sentence_transformers_bytes_vs_ours": "sentence-transformers / ours, extra memory",
    "ours_found": "share of the exact result (fp64) that ours finds",
    "ours_worst_gap": "score that ours is below the exact one at a rank, at worst",
}


def markdown(results: Entry, pictures: Sequence[Path]) -> str:
    """The whole page."""
    parts = [f"# {TITLES[results['kind']]}", _preamble(results), _goals(results)]
    for name_of_pass in PASSES if results["kind"] == "loss" else (None,):
        parts.append(_times(results, name_of_pass))
    parts.append(_memory(results))
    parts.append(_errors(results) if results["kind"] == "loss" else _quality(results))
    parts.append(_predictions(results))
    parts += [f"![{path.stem}]({path.name})" for path in pictures]
    return "\n\n".join(part for part in parts if part) + "\n"


def shape_text(shape: Entry) -> str:
    """8192 × 16384 × 384."""
    return f"{shape['rows']} × {shape['columns']} × {shape['dimension']}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _preamble(results: Entry) -> str:
    machine, settings = results["machine"], results["settings"]
    where = machine.get("gpu") or f"{machine['processor']}, {machine['threads']} threads"
    versions = [f"{name} {version}" for name, version in machine.items()
                if name not in ("device", "processor", "threads", "gpu")]  # fmt: skip
    lines = [
        f"`python -m benchmarks.kernels {results['kind']}` on {where}; {settings['dtype']}; "
        f"{', '.join(versions)}. Measured matmul rate: {results['matmul_tflops']:.3f} TFLOP/s.",
        "Medians of at least "
        f"{settings['rounds']} rounds in which all implementations take turns; ± is half the spread.",
    ]
    if results["kind"] == "neighbours":
        lines.append(
            f"k = {settings['k']}; a query must not find its two answers, nor anything at or above 0.95 "
            "times its positive's score. Shapes are queries × documents × dimension."
        )
    idle = [f"- {peer['title']}: {peer['status']}" for peer in results["peers"].values()
            if peer["status"] != "run"]  # fmt: skip
    return "\n".join([*lines, *(["", *idle] if idle else [])])


def _goals(results: Entry) -> str:
    rows = []
    for goal in results["must_reach"]:
        value, bound = goal["value"], goal["bound"]
        wanted = "" if bound is None else f"{goal['direction']} {_amount(goal['name'], bound)}"
        reached = {True: "yes", False: "**no**", None: ""}[goal["reached"]]
        rows.append([
            GOALS[goal["name"]], shape_text(goal["shape"]),
            "not measured" if value is None else _amount(goal["name"], value), wanted, reached,
        ])  # fmt: skip
    return "## Goals\n\n" + table(["", "shape", "measured", "wanted", "reached"], rows)


def _amount(name: str, value: float) -> str:
    if name == "ours_extra_bytes":
        return f"{value / 1e6:.0f} MB"
    return {"ours_found": f"{value:.5f}", "ours_worst_gap": f"{value:.1e}"}.get(name, f"{value:.2f}")


def _grid(results: Entry, entries: list[Entry], cell: Any) -> str:
    """Shapes down, peers across; what was skipped has a number, and the reason below."""
    there = {entry["peer"] for entry in entries}
    ran = [name for name, peer in results["peers"].items() if peer["status"] == "run" and name in there]
    shapes = list(dict.fromkeys(shape_text(entry["shape"]) for entry in entries))
    by_place = {(shape_text(entry["shape"]), entry["peer"]): entry for entry in entries}
    notes: dict[str, int] = {}
    rows = []
    for shape in shapes:
        row = [shape]
        for name in ran:
            entry = by_place.get((shape, name))
            if entry is None:
                row.append("")
            elif entry["skipped"]:
                row.append(f"({notes.setdefault(entry['skipped'], len(notes) + 1)})")
            else:
                row.append(cell(entry))
        rows.append(row)
    text = table(["shape", *(results["peers"][name]["title"] for name in ran)], rows)
    return text + "".join(f"\n\n({number}) {reason}" for reason, number in notes.items())


def _times(results: Entry, name_of_pass: str | None) -> str:
    entries = [e for e in results["timings"] if e.get("pass") == name_of_pass]
    title = "Time" if name_of_pass is None else f"Time: {PASSES[name_of_pass]}"

    def cell(entry: Entry) -> str:
        spread = (entry["highest"] - entry["lowest"]) / 2
        text = f"{_seconds(entry['median'])} ± {_seconds(spread)}"
        return f"{text} ({entry['matmul_fraction']:.0%})"

    if not entries:
        return ""
    return f"## {title}\n\nIn brackets: share of the measured matmul rate.\n\n" + _grid(
        results, entries, cell
    )


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def _memory(results: Entry) -> str:
    text = _grid(results, results["memory"], lambda entry: f"{entry['bytes'] / 1e6:.0f} MB")
    held = "inputs; gradients are counted" if results["kind"] == "loss" else "queries and corpus"
    return f"## Peak memory\n\nBeyond the {held}.\n\n{text}"


def _errors(results: Entry) -> str:
    rows = []
    for entry in results["errors"]:
        for name, found in entry["peers"].items():
            title, where = results["peers"][name]["title"], shape_text(entry["shape"])
            cells = [found, "", ""] if isinstance(found, str) else [
                f"{found[part]:.1e}" for part in ("loss", "queries", "documents")
            ]  # fmt: skip
            value = "" if entry["loss"] is None else f" (loss {entry['loss']:.1g})"
            rows.append([entry["data"] + value, where, title, *cells])
    head = ["data", "shape", "", "loss", "gradient of queries", "gradient of documents"]
    return "## Error\n\nRelative to fp64 on the same inputs (norm of the difference by norm).\n\n" + table(
        head, rows
    )


def _quality(results: Entry) -> str:
    rows = []
    for entry in results["quality"]:
        for name, found in entry["peers"].items():
            cells = [found, "", "", ""] if isinstance(found, str) else [
                f"{found['found']:.5f}", f"{found['same_order']:.5f}", f"{found['worst_gap']:.1e}",
                str(found["forbidden"]),
            ]  # fmt: skip
            rows.append([shape_text(entry["shape"]), results["peers"][name]["title"], *cells])
    capped = ", ".join(
        f"{entry['capped']:.0%} ({shape_text(entry['shape'])})"
        for entry in results["quality"]
        if entry["capped"] is not None
    )
    head = ["shape", "", "found", "same rank", "worst score gap", "forbidden rows found"]
    return (
        f"## What is found\n\nOf the exact result in fp64, for {results['quality'][0]['checked']} queries. "
        f"The rules leave out {capped} of what a plain search finds.\n\n" + table(head, rows)
    )


def _predictions(results: Entry) -> str:
    rows = [
        [
            entry["card"],
            shape_text(entry["shape"]),
            entry["dtype"],
            f"{_seconds(entry['predicted_seconds'])} ({entry['limited_by']})",
            "" if entry["measured_seconds"] is None else _seconds(entry["measured_seconds"]),
        ]
        for entry in results["predictions"]
    ]
    head = ["card", "shape", "dtype", "prediction, not measured", "measured"]
    return (
        "## GPUs\n\nThe prediction is the cost model of `retrofit_kernels.cost`, at 80 % of the data sheet's "
        "tensor-core rate (before compute capability 8.0, of its fp32 rate) and 90 % of its bandwidth. "
        "**It is not a measurement.** The last column is empty "
        "until the benchmark has run on the card.\n\n" + table(head, rows)
    )
