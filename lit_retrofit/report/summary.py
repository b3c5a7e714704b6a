"""The headline numbers, ``summary.json``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from lit_retrofit.report.comparison import Change, Comparison


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean nDCG@10, before, after and BM25's; None where there is no such task.

    Attributes:
        monolingual: over the training languages (all languages where those are not known).
        cross_lingual: over the tasks to and from the pivot, of the same languages.
        zero_shot: monolingual, over the languages never trained on.
        all: of a set that names no languages.
        seconds: wall time from the start of the earliest input to the report.
    """

    monolingual: Change | None
    cross_lingual: Change | None
    zero_shot: Change | None
    all: Change | None
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """In plain types; ``all`` is there for a set without languages only, intervals where known."""
        means = {"monolingual": self.monolingual, "cross_lingual": self.cross_lingual}
        means |= {"zero_shot": self.zero_shot, "all": self.all}
        content: dict[str, Any] = {name: _plain(change) for name, change in means.items()}
        if self.all is None:
            del content["all"]
        intervals = {name: asdict(change.sure) for name, change in means.items() if change and change.sure}
        return {**content, **({"intervals": intervals} if intervals else {}), "seconds": self.seconds}


def _plain(change: Change | None) -> dict[str, float | None] | None:
    if change is None:
        return None
    return {"before": change.before, "after": change.after, "bm25": change.bm25}


def summarise(comparison: Comparison, seconds: float) -> Summary:
    """Takes the means of a comparison.

    Args:
        comparison: of two evaluations.
        seconds: wall time to note.
    """
    return Summary(
        monolingual=comparison.mean("monolingual"),
        cross_lingual=comparison.mean("cross_lingual"),
        zero_shot=comparison.mean("monolingual", zero_shot=True),
        all=comparison.mean("all"),
        seconds=seconds,
    )
