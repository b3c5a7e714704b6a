"""How the figures are put into words, in the terminal and on the page alike."""

from __future__ import annotations

from collections.abc import Mapping

from lit_retrofit.inspection.summary import GroupSummary


def number(value: float | None) -> str:
    """A length or count; a dash for what is not known."""
    return "–" if value is None else f"{value:,.0f}"


def percent(value: float | None) -> str:
    """A share; small ones are not rounded to nothing."""
    if value is None:
        return "–"
    return "< 0.1 %" if 0 < value < 0.001 else f"{100 * value:.1f} %"


def similarity(score: float | None) -> str:
    """A similarity before its text, or nothing."""
    return "" if score is None else f"{score:.3f}  "


def few(counts: Mapping[str, int], most: int = 3) -> str:
    """The most frequent of some counts, and how many more there are."""
    named = [f"{name} {count:,}" for name, count in list(counts.items())[:most]]
    more = len(counts) - most
    return ", ".join([*named, *([f"{more} more"] if more > 0 else [])])


def facts(group: GroupSummary) -> dict[str, str]:
    """The counts of a group, by what they are of; what is nowhere is left out."""
    found = {
        "records": f"{group.records:,}",
        "looked into": f"{group.sampled:,}" if group.sampled < group.records else "all",
        "kinds of query": few(group.tasks, 6),
        "positives": f"{group.positives:,} ({group.positives / group.records:.2f} per record)",
        "hard negatives": f"{group.negatives:,} ({group.negatives / group.records:.2f} per record)",
        "distinct documents": f"{group.distinct_documents:,}",
    }
    maybe = {
        "records without hard negatives": group.without_negatives if group.negatives else 0,
        "positive in another language": group.crossing,
        "query repeated": group.repeated_queries,
        "query and positive repeated": group.repeated_pairs,
        "query in an earlier source too": group.shared_queries,
        "query copied from its positive": group.copied,
    }
    for name, count in maybe.items():
        if count:
            found[name] = f"{count:,} ({percent(count / group.records)})"
    if group.suspects:
        found["likely false negatives"] = few(group.suspects)
    return found
