"""What is drawn of a record for one step: a positive and some hard negatives, anew in each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lit_retrofit.data.options import SamplingOptions as SamplingOptions
from lit_retrofit.data.options import SourceOptions
from lit_retrofit.data.records import Document, Record

NO_SETTINGS = SourceOptions(path="")
# A text, and the prompt of its source where that has its own.
Prompted = tuple[str, str | None]


# A tuple is made in a quarter of a frozen dataclass's time; sampling makes one for every query.
class Draw(NamedTuple):
    """A record with the positive and the hard negatives drawn for this step.

    Attributes:
        record: where they are drawn from.
        positive: one of the record's.
        negatives: some of the record's, each once.
        source: the record's source, with its settings.
        positive_score: the teacher's or miner's of this positive, where the record has it.
        negative_scores: the same of these negatives, or empty.
        place: the query's place in the batch over all devices.
        shared: the draws of all devices where they share a batch: one may hold what answers another's query.
    """

    record: Record
    positive: Document
    negatives: tuple[Document, ...]
    source: SourceOptions = NO_SETTINGS
    positive_score: float | None = None
    negative_scores: tuple[float, ...] = ()
    place: int = 0
    shared: tuple[Draw, ...] = ()


def numbers_needed(sampling: SamplingOptions, sources: Sequence[SourceOptions]) -> int:
    """How many random numbers a draw may use."""
    return 2 + max((negatives_of(source, sampling) for source in sources), default=sampling.negatives)


def negatives_of(source: SourceOptions, sampling: SamplingOptions) -> int:
    """Hard negatives to draw for each query of a source."""
    return sampling.negatives if source.negatives is None else source.negatives


def draw(
    record: Record, source: SourceOptions, sampling: SamplingOptions, uniform: Sequence[float], place: int
) -> Draw:
    """Draws a positive, of another language with probability `cross_lingual`, and hard negatives.

    Args:
        record: to draw from.
        source: the record's.
        sampling: how to draw.
        uniform: `numbers_needed` random numbers in [0, 1).
        place: the query's place in the batch.
    """
    share = sampling.cross_lingual if source.cross_lingual is None else source.cross_lingual
    positive = _positive(record, share, uniform[0], uniform[1])
    chosen = _without_repetition(len(record.negatives), negatives_of(source, sampling), uniform[2:])
    return Draw(
        record,
        record.positives[positive],
        tuple([record.negatives[i] for i in chosen]),
        source,
        record.positive_scores[positive] if record.positive_scores else None,
        tuple([record.negative_scores[i] for i in chosen]) if record.negative_scores else (),
        place,
    )


def _positive(record: Record, cross_lingual: float, first: float, second: float) -> int:
    if len(record.positives) == 1:
        return 0
    own: list[int] = []
    other: list[int] = []
    for i, document in enumerate(record.positives):
        (own if document.language == record.language else other).append(i)
    pool = other if other and (not own or first < cross_lingual) else own
    return pool[int(second * len(pool))]


def _without_repetition(size: int, count: int, uniform: Sequence[float]) -> list[int]:
    """The beginning of a random order (Fisher and Yates): every selection is equally likely."""
    order = list(range(size))
    count = min(count, size)
    if size < 2:
        return order[:count]
    for i, number in enumerate(uniform[:count]):
        j = i + int(number * (size - i))
        order[i], order[j] = order[j], order[i]
    return order[:count]
