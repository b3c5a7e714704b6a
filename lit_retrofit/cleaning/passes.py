"""The passes that read the records: examine each, rank those that are left, write them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from lit_retrofit.cleaning.compare import Decisions
from lit_retrofit.cleaning.consistency import BM25, Pool, Ranker
from lit_retrofit.cleaning.examine import CHUNK, Chunk, Examined, Examiner
from lit_retrofit.cleaning.leakage import LeakageIndex
from lit_retrofit.cleaning.options import ConsistencyOptions, Rules
from lit_retrofit.cleaning.processes import ordered_map
from lit_retrofit.cleaning.sources import Sources
from lit_retrofit.cleaning.summary import EXAMPLES, CleaningSummary, Example, excerpt
from lit_retrofit.cleaning.verdicts import CODES, KEPT, NAMES, RULES
from lit_retrofit.cleaning.work import Work
from lit_retrofit.data.capping import UNKNOWN
from lit_retrofit.data.collecting import drop_false_negatives
from lit_retrofit.data.formats import record_to_row
from lit_retrofit.data.record_files import record_writer, to_json_line
from lit_retrofit.data.records import Record
from lit_retrofit.data.text_language import is_known
from lit_retrofit.data.writing import new_text_file
from lit_retrofit.errors import UserError

Advance = Callable[[int], None]
T = TypeVar("T")


def examine(
    sources: Sources,
    rules: Rules,
    leakage: LeakageIndex | None,
    work: Work,
    workers: int,
    advance: Advance,
) -> list[Path]:
    """The first pass. What an earlier run of the same settings examined is not examined again.

    Returns:
        The files of the chunks, in their order.

    Raises:
        UserError: the data cannot be read, or hold no record.
    """
    parts: dict[Path, int] = {}

    def unfinished() -> Iterator[Chunk]:
        for number, records in enumerate(_batches(sources.read(), CHUNK)):
            path = work.path(f"examined-{number:06d}.npz")
            parts[path] = len(records)
            if path.is_file():
                advance(len(records))
            else:
                yield Chunk(path, records)

    for path in ordered_map(Examiner, (rules, leakage), unfinished(), workers):
        advance(parts[path])
    if not parts:
        raise UserError(f"{sources.paths[0]}: no record in the data; check the file")
    return list(parts)


def rank(
    sources: Sources,
    decisions: Decisions,
    options: ConsistencyOptions,
    work: Work,
    workers: int,
    advance: Advance,
) -> None:
    """Ranks the positives of what is left, in pools of equal size, and drops what is not found."""
    rows = decisions.kept
    if not len(rows):
        return
    pools = np.array_split(rows, max(1, round(len(rows) / options.pool)))
    left = (record for number, record in _again(sources, decisions) if decisions.rules[number] == KEPT)
    named = {work.path(f"ranks-{number:06d}.npz"): pool for number, pool in enumerate(pools)}

    def unfinished() -> Iterator[Pool]:
        for path, pool in named.items():
            records = list(islice(left, len(pool)))
            if path.is_file():
                advance(len(records))
            else:
                yield Pool(path, records)

    # A model uses all processors, or the GPU, by itself.
    processes = min(workers, len(pools)) if options.retriever == BM25 else 1
    for path in ordered_map(Ranker, (options,), unfinished(), processes):
        advance(len(named[path]))
    for path, pool in named.items():
        with np.load(path, allow_pickle=False) as arrays:
            decisions.ranks[pool] = arrays["ranks"]
    decisions.drop("inconsistent", rows[decisions.ranks[rows] > options.top])


def _again(sources: Sources, decisions: Decisions) -> Iterator[tuple[int, Record]]:
    """Reads the records anew, each with its number.

    Raises:
        UserError: there are more or fewer than the first time.
    """
    number = -1
    for number, record in enumerate(sources.read()):
        if number < len(decisions.rules):
            yield number, record
    if number + 1 != len(decisions.rules):
        raise UserError(f"{', '.join(sources.paths)}: changed while being cleaned; run the command again")


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def write(
    started: float,
    sources: Sources,
    rules: Rules,
    decisions: Decisions,
    parts: Sequence[Path],
    evaluation_sets: tuple[str, ...],
    output: Path,
    dropped: Path | None,
    overwrite: bool,
    advance: Advance,
) -> CleaningSummary:
    """The last pass: writes what stays and, if asked for, what goes.

    Raises:
        UserError: nothing stays, or a file cannot be written.
    """
    counts = {name: int(np.count_nonzero(decisions.rules == CODES[name])) for name in RULES}
    kept = int(np.count_nonzero(decisions.rules == KEPT))
    if not kept:
        most = max(counts, key=lambda name: counts[name])
        raise UserError(
            f"{sources.paths[0]}: no record is left of {len(decisions.rules)}; the rule '{most}' dropped "
            f"{counts[most]}; loosen it or turn it off"
        )
    examples: dict[str, list[Example]] = {name: [] for name in RULES if counts[name]}
    removed = 0
    with ExitStack() as files:
        keep = files.enter_context(record_writer(output, overwrite=overwrite))
        side = files.enter_context(new_text_file(dropped, overwrite=overwrite)) if dropped else None
        details = _details(parts)
        for (number, record), detail in zip(_again(sources, decisions), details, strict=True):
            if number % 1000 == 0:
                advance(min(1000, len(decisions.rules) - number))
            code = int(decisions.rules[number])
            if code == KEPT:
                record, negatives = drop_false_negatives(record)
                removed += negatives
                keep(record)
                continue
            rule = NAMES[code]
            wants_example = len(examples[rule]) < EXAMPLES
            if not side and not wants_example:
                continue
            detail = detail or _compared(number, decisions, sources)
            place = sources.place(number)
            if wants_example:
                examples[rule].append(_example(record, place, detail))
            if side:
                row = {"rule": rule, "detail": detail, "place": place, **record_to_row(record)}
                side.write(to_json_line(row) + "\n")
    return CleaningSummary(
        started=started,
        seconds=time.time() - started,
        data=tuple(sources.paths),
        output=str(output),
        dropped_file=str(dropped) if dropped else None,
        rules=rules,
        read=len(decisions.rules),
        kept=kept,
        dropped=counts,
        skipped=sources.skipped,
        removed_negatives=removed,
        languages=_languages(decisions),
        examples={rule: tuple(found) for rule, found in examples.items()},
        evaluation_sets=evaluation_sets,
        notes=tuple(_notes(rules, decisions, counts)),
    )


def _details(parts: Sequence[Path]) -> Iterator[str]:
    for path in parts:
        yield from Examined.load(path).details.tolist()


def _compared(number: int, decisions: Decisions, sources: Sources) -> str:
    """What the rules that compare records have found."""
    other = int(decisions.other[number])
    rule = NAMES[decisions.rules[number]]
    if rule == "near_duplicate":
        return f"{decisions.similarity[number]:.2f} similar to {sources.place(other)}"
    if other >= 0:
        return f"{'equal to' if rule == 'exact_duplicate' else 'other text in'} {sources.place(other)}"
    if rule == "inconsistent":
        return f"rank {decisions.ranks[number]}"
    return ""


def _example(record: Record, place: str, detail: str) -> Example:
    return Example(place, record.id, excerpt(record.query), excerpt(record.positives[0].text), detail)


def _languages(decisions: Decisions) -> dict[str, tuple[int, int]]:
    size = len(decisions.language_names)
    read = np.bincount(decisions.languages, minlength=size)
    kept = np.bincount(decisions.languages[decisions.kept], minlength=size)
    return {name: (int(read[i]), int(kept[i])) for i, name in enumerate(decisions.language_names)}


def _notes(rules: Rules, decisions: Decisions, counts: dict[str, int]) -> Iterator[str]:
    if counts["leaked_id"]:
        yield (
            f"{counts['leaked_id']} records went by an id alone: look at their examples, and pass "
            "--leakage.ids false if the ids only number rows"
        )
    if rules.language.confidence is None:
        return
    named = [name for name in decisions.language_names if name != UNKNOWN]
    if not named and not rules.language.allowed:
        yield (
            "no record names its language: languages were not checked; name what you want in language.allowed"
        )
    unknown = sorted(name for name in named if not is_known(name))
    if unknown:
        yield f"not checked, for the detector does not know them: {', '.join(unknown)}"
