"""Similarities of queries to their relevant documents and to the best others, out of the TREC runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from lit_retrofit.data.records import RetrievalSet
from lit_retrofit.data.rows import read_lines
from lit_retrofit.errors import UserError
from lit_retrofit.evaluation.measures import trec_word
from lit_retrofit.evaluation.results import run_path
from lit_retrofit.report.certainty import Key
from lit_retrofit.report.histograms import Histogram, histogram

HARDEST = 10
QUERIES = 500
_BINS = 40


@dataclass(frozen=True)
class Similarities:
    """What one model's scores say.

    Attributes:
        positives: of each query to each of its relevant documents that were found.
        negatives: of each query to its `HARDEST` best other documents.
        missed: relevant documents that were not among those found.
        queries: rankings that were read.
    """

    positives: NDArray[np.float64]
    negatives: NDArray[np.float64]
    missed: int
    queries: int

    @property
    def above(self) -> float:
        """The probability that a relevant document scores above one of the best others; ties count half."""
        found = mannwhitneyu(self.positives, self.negatives).statistic
        return float(found) / (len(self.positives) * len(self.negatives))


@dataclass(frozen=True)
class SimilarityPicture:
    """A side's similarities, drawn over the same bins as the other side's."""

    found: Similarities
    chart: Histogram


def read_similarities(folder: Path, keys: Iterable[Key], data: RetrievalSet) -> Similarities:
    """Reads the rankings of an evaluation; of each task, those of its first `QUERIES` queries.

    Args:
        folder: the evaluation.
        keys: its tasks.
        data: the set that was evaluated.

    Raises:
        UserError: a run is missing or damaged, or there are no relevant or no other documents in it.
    """
    language = {document.id: document.language for document in data.corpus}
    judged = {trec_word(query): grades for query, grades in data.qrels.items()}
    positives: list[float] = []
    negatives: list[float] = []
    missed = queries = 0
    for key in keys:
        for query, ranking in _rankings(run_path(folder, *key)):
            relevant = {
                trec_word(id)
                for id, grade in judged.get(query, {}).items()
                if grade > 0 and key[2] in (None, language.get(id))
            }
            found = [score for id, score in ranking if id in relevant]
            positives += found
            negatives += [score for id, score in ranking if id not in relevant][:HARDEST]
            missed += len(relevant) - len(found)
            queries += 1
    if not positives or not negatives:
        raise UserError(
            f"{folder / 'run'}: no {'other' if positives else 'relevant'} documents in the rankings of "
            f"{queries} queries"
        )
    return Similarities(np.array(positives), np.array(negatives), missed, queries)


def _rankings(path: Path) -> Iterator[tuple[str, list[tuple[str, float]]]]:
    """A TREC run's queries, at most `QUERIES`, each with its documents and scores, best first."""
    if not path.is_file():
        raise UserError(f"{path} is missing; evaluate again with --overwrite")
    current: str | None = None
    ranking: list[tuple[str, float]] = []
    seen = 0
    for line, text in read_lines(path):
        columns = text.split()
        if not columns:
            continue
        try:
            query, _, document, _, score, _ = columns
            value = float(score)
        except ValueError:
            raise UserError(
                f"{path}:{line}: no line of a TREC run (query Q0 document rank score tag); evaluate again "
                "with --overwrite"
            ) from None
        if query != current:
            if current is not None:
                yield current, ranking
                seen += 1
            if seen == QUERIES:
                return
            current, ranking = query, []
        ranking.append((document, value))
    if current is not None:
        yield current, ranking


def draw(sides: dict[str, Similarities]) -> list[SimilarityPicture]:
    """Histograms of the sides over the same bins.

    Args:
        sides: by name.
    """
    values = np.concatenate([part for side in sides.values() for part in (side.positives, side.negatives)])
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-6:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, _BINS + 1)
    return [_draw(name, side, edges) for name, side in sides.items()]


def _draw(name: str, side: Similarities, edges: NDArray[np.float64]) -> SimilarityPicture:
    counts = {
        "relevant documents": np.histogram(side.positives, edges)[0].tolist(),
        f"the {HARDEST} best others": np.histogram(side.negatives, edges)[0].tolist(),
    }
    means = f"mean {side.positives.mean():.3f} and {side.negatives.mean():.3f}"
    title = f"Similarities {name}: of queries to relevant documents and to the best others, {means}."
    return SimilarityPicture(side, histogram(title, edges.tolist(), counts))
