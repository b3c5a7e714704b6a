"""The command ``clean``: records in, those worth learning from out, and a report of all others."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from lit_retrofit.cleaning.compare import cap_languages, compare
from lit_retrofit.cleaning.leakage import evaluation_files, read_evaluation_sets
from lit_retrofit.cleaning.named_models import stamp_models
from lit_retrofit.cleaning.options import (
    ConsistencyOptions,
    DuplicateOptions,
    LanguageOptions,
    LeakageOptions,
    LengthOptions,
    Rules,
    check_rules,
)
from lit_retrofit.cleaning.passes import examine, rank, write
from lit_retrofit.cleaning.processes import available_processors
from lit_retrofit.cleaning.sources import Sources, find_sources, stamp
from lit_retrofit.cleaning.summary import CleaningSummary, show
from lit_retrofit.cleaning.work import Work, open_work
from lit_retrofit.data.formats import check_format_name
from lit_retrofit.data.record_files import check_record_file
from lit_retrofit.data.writing import new_text_file
from lit_retrofit.errors import Interrupted, UserError
from lit_retrofit.retrieval.copied import COPIED_WORDS

_WORK_FORMAT = 2  # of the files in the work folder


def clean(
    data: str | list[str],
    *,
    output: Path,
    dropped: Path | None = None,
    format: str | None = None,
    corpus: Path | None = None,
    lengths: LengthOptions = LengthOptions(),  # noqa: B008  (frozen)
    language: LanguageOptions = LanguageOptions(),  # noqa: B008
    duplicates: DuplicateOptions = DuplicateOptions(),  # noqa: B008
    leakage: LeakageOptions = LeakageOptions(),  # noqa: B008
    consistency: ConsistencyOptions = ConsistencyOptions(),  # noqa: B008
    copied_words: int | None = COPIED_WORDS,
    garbled: bool = True,
    max_per_language: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    skip_invalid: bool = False,
    overwrite: bool = False,
) -> CleaningSummary:
    """Cleans training records: leaves out what is broken, repeated, in the wrong language or leaked.

    Example: lit-retrofit clean pairs.jsonl --output clean.jsonl --leakage.against '[my-beir]'

    Writes the records that stay, in their order and with their texts unchanged, to OUTPUT, and counts and
    examples of every rule beside it, to <OUTPUT's stem>.summary.json. The data are streamed; memory grows by
    about 130 bytes a record, and 50 for each of its documents beyond the first. A run that was stopped or
    killed goes on where it was when the same command is given again. The result does not depend on the number
    of workers.

    Args:
        data: a file, folder, pattern, hub data set or named source (source:NAME), or quickstart:train; or a
            list of them, cleaned together.
        output: the file to write, .jsonl or .parquet.
        dropped: a JSONL file for the records that are dropped, each with the rule's name.
        format: the data's format, where it cannot be told from the fields.
        corpus: the documents of Tevatron's newer files.
        lengths: too short, too long.
        language: another language than the record's.
        duplicates: equal and nearly equal records.
        leakage: texts of the evaluation.
        consistency: the query must find its document.
        copied_words: drop a query of at least so many words (pairs of characters in CJK and Thai) that stands
            word by word in its positive; null keeps it.
        garbled: drop records with a text that is binary or in a mix of encodings.
        max_per_language: keep at most so many records of each language.
        seed: of the choice of these.
        workers: processes; by default as many as there are processors.
        skip_invalid: skip and count invalid rows instead of stopping at the first.
        overwrite: replace the output, and throw away what an unfinished run of other settings left.

    Returns:
        What was read, dropped by which rule, and written.

    Raises:
        UserError: the output exists, an option is out of range, the data are broken or nothing is left.
        Interrupted: by Ctrl-C; the same command goes on.
    """
    started = time.time()
    rules = Rules(
        lengths=lengths,
        language=language,
        duplicates=duplicates,
        leakage=leakage,
        consistency=consistency,
        copied_words=copied_words,
        garbled=garbled,
        max_per_language=max_per_language,
        seed=seed,
    )
    check_rules(rules)
    check_format_name(format)
    if workers is not None and workers < 1:
        raise UserError(f"workers is {workers}; it must be at least 1")
    sources = Sources(find_sources([data] if isinstance(data, str) else data), format, corpus, skip_invalid)
    inputs = [*sources.paths, corpus]
    summary_file = _free_outputs(output, dropped, inputs, overwrite)
    settings = {
        "work_format": _WORK_FORMAT,
        "data": [[asdict(part) for part in sources.parts], format, skip_invalid, stamp(inputs)],
        "evaluation": stamp(evaluation_files(leakage)),
        "models": stamp_models(lengths, consistency),
        **asdict(rules),
    }
    processes = workers or available_processors()
    try:
        with open_work(output, settings, overwrite=overwrite) as work:
            summary = _run(started, sources, rules, work, processes, output, dropped, overwrite)
            with new_text_file(summary_file, overwrite=overwrite) as file:
                json.dump(summary.to_json(), file, ensure_ascii=False, indent=2)
    except KeyboardInterrupt:
        message = "interrupted; what is done is kept, and the same command goes on from there"
        raise Interrupted(message, signal.SIGINT) from None
    show(summary, Console())
    return summary


def _run(
    started: float,
    sources: Sources,
    rules: Rules,
    work: Work,
    workers: int,
    output: Path,
    dropped: Path | None,
    overwrite: bool,
) -> CleaningSummary:
    index = read_evaluation_sets(rules.leakage) if rules.leakage.against else None
    with _progress() as progress:
        parts = examine(sources, rules, index, work, workers, _counter(progress, "Examining"))
        decisions = compare(parts, rules.duplicates, work)
        if rules.consistency.retriever is not None:
            rank(sources, decisions, rules.consistency, work, workers, _counter(progress, "Ranking"))
        if rules.max_per_language is not None:
            cap_languages(decisions, rules.max_per_language, rules.seed)
        return write(
            started,
            sources,
            rules,
            decisions,
            parts,
            index.summary if index else (),
            output,
            dropped,
            overwrite,
            _counter(progress, "Writing"),
        )


def _progress() -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.completed} records"),
        TimeElapsedColumn(),
    )
    return Progress(*columns, transient=True)


def _counter(progress: Progress, description: str) -> Callable[[int], None]:
    task = progress.add_task(description, total=None)
    return lambda count: progress.advance(task, count)


def _free_outputs(output: Path, dropped: Path | None, inputs: list, overwrite: bool) -> Path:
    """The summary's path, once it is sure that nothing is lost by writing; before any work is done."""
    check_record_file(output)
    if dropped is not None and dropped.suffix != ".jsonl":
        raise UserError(
            f"{dropped}: dropped records are written as JSON lines; choose a name ending in .jsonl"
        )
    summary = output.with_name(f"{output.stem}.summary.json")
    for path in [output, summary, *([dropped] if dropped else [])]:
        if path.resolve() in [Path(name).resolve() for name in inputs if name]:
            raise UserError(f"{path}: is the data itself; give another file")
        if path.exists() and not overwrite:
            raise UserError(f"{path}: exists already; give another name or --overwrite")
    if dropped is not None and dropped.resolve() == output.resolve():
        raise UserError(f"{dropped}: is the output, too; give two names")
    return summary
