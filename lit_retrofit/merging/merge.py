"""The command ``merge``."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from lit_retrofit.data.options import DataOptions
from lit_retrofit.data.sources import read_validation
from lit_retrofit.errors import UserError
from lit_retrofit.merging.merged import Merged, merge_parts
from lit_retrofit.merging.parts import Part, check_fit, read_part
from lit_retrofit.merging.scan import MEASURE, Point, check_protectable, pick, scan_weights
from lit_retrofit.merging.weights import Method
from lit_retrofit.model.device import Precision, choose_device
from lit_retrofit.quickstart.embedded_data import resolve_data

RECORD = "merging.json"
TRAINING = "training.json"
LARGEST = 1000.0  # a coefficient beyond is a slip of the hand
STEPS = tuple(step / 10 for step in range(11))


def merge(
    models: list[str],
    *,
    output: Path,
    base: str | None = None,
    coefficients: list[float] | None = None,
    method: Method = "linear",
    weight: float | None = None,
    data: str | None = None,
    scan: list[float] | None = None,
    protect_untrained: bool = False,
    pivot: str | None = "en",
    token_budget: int | None = None,
    precision: Precision = "fp32",
    device: str = "auto",
    overwrite: bool = False,
) -> float:
    """Merges models: averages checkpoints, adds or subtracts adapters, goes a part of the way from the base.

    Example: lit-retrofit merge runs/mine --data dev/ --output runs/merged

    The models are summed as base + sum of c * (model - base), their average by default. The result is that
    sum (weight 1), the base (weight 0), or what lies between. With --data the weights 0, 0.1 … 1 are
    measured on held-out data, and the best by nDCG@10 is taken; merging.json has the whole curve.

    The output folder is a model for evaluate, mine, export and merge itself: a run folder with an adapter
    where all models are adapters of one base and the method is linear, else a sentence-transformers folder.

    Args:
        models: run folders, checkpoints or whole models, one after the other.
        output: the folder to write.
        base: the model that weight 0 means; by default the one that the runs were trained from.
        coefficients: one for each model, such as [1, -0.5] to subtract the second; 1 / n each by default.
        method: linear, or slerp (along the arc between base and sum, tensor by tensor).
        weight: how far from the base to the sum; 1 by default for several models.
        data: held-out data to pick the weight on: a BEIR folder, a file of records, or quickstart:test.
        scan: the weights to measure; 0 and 1 always are.
        protect_untrained: pick only among weights at which the mean of the languages never trained on is not
            below the base's.
        pivot: the language that cross-lingual tasks lead to and start from.
        token_budget: tokens embedded at a time; by default as many as suit the device.
        precision: of the embedding in the scan; auto is bf16 where the device multiplies it, else fp32.
        device: of the scan; auto takes a GPU where there is one.
        overwrite: replace an earlier merge.

    Returns:
        The weight that was given or picked.

    Raises:
        UserError: models that do not fit together, options that contradict each other, or an output that is
            not to be replaced.
    """
    started = time.time()
    _check_output(output, overwrite)
    _check_options(models, coefficients, weight, data, scan, protect_untrained)
    where = choose_device(device)
    parts = [read_part(name) for name in models]
    shares = coefficients or [1 / len(models)] * len(models)
    end = 1.0 if weight is None and data is None else weight
    start = _base(parts, base, needed=end != 1 or abs(sum(shares) - 1) > 1e-9)
    check_fit(parts, start)
    held_out = read_validation(_resolved(data), DataOptions()) if data is not None else None
    trained = _trained_languages(parts)
    if held_out is not None and protect_untrained:
        check_protectable(held_out, trained, pivot)
    merged = merge_parts(parts, start, shares, method)
    merged.encoder.to(where)
    points: list[Point] = []
    if held_out is not None:
        points = scan_weights(
            merged, scan or STEPS, held_out, trained, pivot=pivot,
            token_budget=token_budget, precision=precision,
        )  # fmt: skip
        end = pick(points, protect_untrained=protect_untrained).weight
    if end is None:
        raise AssertionError("without data the weight is given, or 1")
    origin = parts[0].base or (start.name if start else models[0])
    record = {
        "format": 1,
        "started": started,
        "seconds": time.time() - started,
        "models": models,
        "coefficients": shares,
        "base": start.name if start else None,
        "origin": origin,
        "origin_is_folder": Path(origin).exists(),
        "method": method,
        "weight": end,
        "data": data,
        "measure": MEASURE,
        "protect_untrained": protect_untrained,
        "scan": [asdict(point) for point in points],
    }
    merged.set_weight(end)
    merged.encoder.to("cpu")
    _write(merged, output, record, parts)
    _show(points, end, record, output)
    return end


def _check_output(output: Path, overwrite: bool) -> None:
    if output.exists() and not overwrite:
        raise UserError(f"{output}: already there; give another --output or replace it with --overwrite")
    # Replacing deletes the whole folder.
    if output.exists() and not (output / RECORD).is_file():
        raise UserError(f"{output}: not an earlier merge, and not replaced; give another --output")


def _check_options(
    models: Sequence[str],
    coefficients: Sequence[float] | None,
    weight: float | None,
    data: str | None,
    scan: Sequence[float] | None,
    protect_untrained: bool,
) -> None:
    if not models:
        raise UserError("no model; name run folders, checkpoints or models, one after the other")
    if coefficients is not None and len(coefficients) != len(models):
        raise UserError(f"coefficients: {len(coefficients)} for {len(models)} models; give one for each")
    if data is None and (scan or protect_untrained):
        raise UserError("a scan needs held-out data; give --data, or a --weight instead of a scan")
    if data is not None and weight is not None:
        raise UserError("--weight is given, and --data to pick one on; leave one of them out")
    if len(models) == 1 and coefficients is None and weight is None and data is None:
        raise UserError(
            "one model alone: give --weight, how far to go to it from its base, or --data to pick that on"
        )
    for name, values in (("coefficients", coefficients), ("scan", scan), ("weight", [weight or 0.0])):
        if values is not None and not all(abs(value) < LARGEST for value in values):
            raise UserError(f"{name}: {list(values)}; give finite numbers, of at most {LARGEST:g}")


def _base(parts: Sequence[Part], given: str | None, *, needed: bool) -> Part | None:
    """The model at weight 0; None where there is no need for one."""
    if given is not None:
        return read_part(given)
    known = sorted({part.base for part in parts if part.base is not None})
    if len(known) > 1:
        raise UserError(
            f"the models were trained from different bases ({', '.join(known)}); merge those of one"
        )
    if not needed:
        return None
    if not known:
        raise UserError(f"{parts[0].name} does not say what it was trained from; give --base")
    return read_part(known[0])


def _resolved(data: str) -> str:
    path = resolve_data(data)
    if not path.exists():
        raise UserError(f"{data}: no such file or folder; give held-out data with --data")
    return data


def _run_folder(part: Part) -> Path:
    return part.checkpoint.parent.parent if part.checkpoint else Path(part.name)


def _card(part: Part) -> dict[str, Any] | None:
    path = _run_folder(part) / TRAINING
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _trained_languages(parts: Sequence[Part]) -> frozenset[str] | None:
    """Of all runs together; None where one of them does not tell, or no record names a language."""
    cards = [_card(part) for part in parts]
    if any(card is None for card in cards):
        return None
    named = {name for card in cards if card for name in card["data"]["languages"]}
    return frozenset(named - {"unknown"}) or None


def _write(merged: Merged, output: Path, record: dict[str, Any], parts: Sequence[Part]) -> None:
    """The folder appears whole or not at all; what one run was trained on goes along."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".merging-") as scratch:
        made = Path(scratch) / "model"
        merged.write(made)
        (made / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        cards = {_run_folder(part) / TRAINING for part in parts}
        if len(cards) == 1 and (card := cards.pop()).is_file():
            shutil.copy(card, made / TRAINING)
        if output.exists():
            shutil.rmtree(output)
        made.replace(output)


def _show(points: Sequence[Point], chosen: float, record: dict[str, Any], output: Path) -> None:
    console = Console()
    if points:
        table = Table(title=f"{MEASURE} on {record['data']}", box=box.SIMPLE_HEAD)
        kinds = list(points[0].means)
        spared = points[0].untrained is not None
        for name in ("weight", *kinds, *(["never trained on"] if spared else []), "mean of kinds"):
            table.add_column(name.replace("_", "-"), justify="right")
        for point in points:
            cells = [*(point.means[kind][MEASURE] for kind in kinds)]
            cells += [point.untrained] if point.untrained is not None else []
            style = "bold" if point.weight == chosen else ""
            table.add_row(f"{point.weight:g}", *(f"{v:.4f}" for v in (*cells, point.score)), style=style)
        console.print(table)
    console.print(
        f"merged {len(record['models'])} model(s) at weight {chosen:g} ({record['method']}) into {output}",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
