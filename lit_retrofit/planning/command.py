"""``lit-retrofit plan``."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console

from lit_retrofit.errors import UserError
from lit_retrofit.planning.devices import usual_precision
from lit_retrofit.planning.parsing import Parsed, count_devices, is_sharded, parse
from lit_retrofit.planning.plan import Plan, Settings, make_plan
from lit_retrofit.planning.show import show
from lit_retrofit.planning.workload import Texts, longest_texts, measured_texts


def plan(words: list[str]) -> None:
    """Tells what a run would take: parameters, memory by part, the largest batch, the time of a step.

    Args:
        words: the options of `fit`, and --device, --json, --query_tokens, --document_tokens, --measure_data.

    Raises:
        UserError: an unknown device, a length that cannot be, or what `fit` would refuse.
    """
    parsed = parse(words)
    options = parsed.options
    graph_memory = options["model"]["graph_memory"]
    settings = Settings(
        device=options["device"],
        precision=str(options["trainer"]["precision"] or usual_precision(options["device"])),
        batch_size=parsed.data.sampling.batch_size,
        token_budget=parsed.data.options.token_budget,
        graph_memory=None if graph_memory == "auto" else graph_memory,
        devices=count_devices(options["trainer"]["devices"]),
        num_nodes=options["trainer"]["num_nodes"],
        sharded=is_sharded(options["trainer"]["strategy"]),
    )
    made = make_plan(parsed.retriever, _texts(parsed), settings)
    if options["json"] is not None:
        write(made, options["json"])
    show(made, Console())


def _texts(parsed: Parsed) -> Texts:
    options = parsed.options
    for name in ("query_tokens", "document_tokens"):
        if options[name] is not None and not options[name] >= 1:
            raise UserError(f"--{name} is {options[name]:g}; a text has at least one token")
    if options["measure_data"]:
        texts = measured_texts(parsed.data)
    else:
        texts = longest_texts(parsed.retriever.encoder.of("document").options, parsed.data)
    given = {n: options[n] for n in ("query_tokens", "document_tokens") if options[n] is not None}
    if not given:
        return texts
    return replace(texts, **given, source=f"{' and '.join(given)} as given; otherwise {texts.source}")


def write(plan: Plan, path: Path) -> None:
    """Writes the plan as JSON; docs/training.md says what each key means.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(plan), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); give another --json") from error
