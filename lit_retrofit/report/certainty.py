"""How sure the scores and their differences are: intervals over the queries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lit_retrofit.evaluation.significance import Difference, interval, paired_difference
from lit_retrofit.report.pairs import QueryPair

Key = tuple[str, "str | None", "str | None"]
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Sure:
    """95 % intervals of a score, or of a mean of scores.

    Attributes:
        before: of the score before training.
        after: of the one after it.
        difference: the paired difference, with its interval and p-value.
    """

    before: Interval
    after: Interval
    difference: Difference

    @property
    def beyond_zero(self) -> bool:
        """Whether the difference's interval leaves zero out."""
        return self.difference.low > 0 or self.difference.high < 0


class Certainty:
    """The queries' scores by task, and what they say about tasks and means over tasks.

    Args:
        pairs: of all tasks.
    """

    def __init__(self, pairs: Iterable[QueryPair]) -> None:
        scores: dict[Key, list[tuple[float, float]]] = defaultdict(list)
        for pair in pairs:
            query = pair.after
            key = (query.kind, query.query_language, query.corpus_language)
            scores[key].append((pair.before.ndcg, query.ndcg))
        self._values: dict[Key, NDArray[np.float64]] = {k: np.array(found) for k, found in scores.items()}
        # a mean is asked for by the page, the summary and the terminal, and takes seconds
        self._found: dict[tuple[Key, ...], Sure] = {}

    def queries(self, key: Key) -> int:
        """How many queries of a task there are scores of."""
        return len(self._values.get(key, ()))

    def of(self, keys: Sequence[Key]) -> Sure | None:
        """The intervals of a task, or of the mean over several; None where a task has no queries' scores."""
        wanted = tuple(keys)
        if not wanted or any(key not in self._values for key in wanted):
            return None
        if wanted not in self._found:
            before, after = ([self._values[key][:, side] for key in wanted] for side in (0, 1))
            self._found[wanted] = Sure(interval(before), interval(after), paired_difference(before, after))
        return self._found[wanted]
