"""Results as Markdown, and the ratios that count."""

from __future__ import annotations

from typing import Any

from benchmarks.kernels.report import table
from benchmarks.kernels.timing import ratio
from benchmarks.training.peers import PEERS

Entry = dict[str, Any]


def ratios(sizes: dict[str, Entry]) -> dict[str, dict[str, float]]:
    """Ours over each peer's, in pairs per second: the median of the ratios within each round."""
    found: dict[str, dict[str, float]] = {}
    for size, entry in sizes.items():
        ours = entry["peers"]["ours"]["seconds"]
        found[size] = {
            f"vs_{peer}": ratio(answers["seconds"], ours)
            for peer, answers in entry["peers"].items()
            if peer != "ours"
        }
    return found


def markdown(results: Entry) -> str:
    """The whole page."""
    machine, data = results["machine"], results["data"]
    versions = ", ".join(f"{name} {machine[name]}" for name in ("torch", "sentence-transformers"))
    head = (
        f"`{results['command']}` on {machine['processor']}, {machine['threads']} threads; "
        f"{results['precision']}, LoRA of rank 16 on every linear layer, "
        f"texts of natural length cut at {data['max_length']} tokens; "
        f"{versions}. Every implementation in a process of its own; they take turns; medians."
    )
    parts = ["# Training steps", head]
    for size, entry in results["sizes"].items():
        parts += [_title(size, entry), _steps(entry, results["ratios"][size]), _shares(entry)]
    if "memory" in results:
        parts.append(_memory(results["memory"]))
    return "\n\n".join([*parts, _gradients(results["gradients"])]) + "\n"


def _title(size: str, entry: Entry) -> str:
    layers = entry["settings"]["layers"]
    return f"## {size} pairs" + (f", the encoder's lowest {layers} layers" if layers else "")


def _steps(entry: Entry, found: dict[str, float]) -> str:
    rows = []
    for peer, answers in entry["peers"].items():
        times = "" if peer == "ours" else f"{found[f'vs_{peer}']:.2f} ×"
        rows.append([
            PEERS[peer][0], f"{answers['median']:.2f} s", f"{answers['pairs_per_second']:.2f}", times,
            f"{answers['peak_bytes'] / 1e9:.2f} GB", f"{answers['losses'][-1]:.4f}",
        ])  # fmt: skip
    return table(["", "step", "pairs/s", "ours is faster", "peak memory", "loss of the last batch"], rows)


def _shares(entry: Entry) -> str:
    ours, parts = entry["peers"]["ours"], entry["parts"]
    overhead = sorted(part["step"] / (part["encoder"] + part["loss"]) - 1 for part in parts)
    encoder = sum(part["encoder"] for part in parts) / sum(part["step"] for part in parts)
    loss = sum(part["loss"] for part in parts) / sum(part["step"] for part in parts)
    return (
        f"Ours: {ours['tokens']:.0f} tokens, {ours['padding']:.1%} padding in its micro-batches, "
        f"{ours['recomputed']:.0%} embedded twice. Encoder alone {encoder:.1%} of the step, loss {loss:.1%}; "
        f"all the rest (tokenization, engine, update) adds {overhead[len(overhead) // 2]:.1%} to them."
    )


def _memory(found: Entry) -> str:
    settings = found["settings"]
    rows = [
        [size, f"{answer['tokens']:.0f}", f"{answer['recomputed']:.0%}", f"{answer['peak'] / 1e9:.2f} GB"]
        for size, answer in found["sizes"].items()
    ]
    return (
        f"## Our peak memory with {settings['graph_memory']:g} GB of graphs, the encoder's lowest "
        f"{settings['layers']} layers\n\nOf the whole process, libraries and weights included.\n\n"
        + table(["pairs", "tokens", "embedded twice", "peak memory"], rows)
    )


def _gradients(found: Entry) -> str:
    rows = [
        [PEERS[peer][0], f"{answers['loss']:.6f}", f"{answers['relative_distance']:.1e}"]
        for peer, answers in found["peers"].items()
    ]
    return (
        f"## Gradients of {found['queries']} pairs against one graph over the whole batch\n\n"
        f"Its loss: {found['loss']:.6f}.\n\n" + table(["", "loss", "relative distance"], rows)
    )
