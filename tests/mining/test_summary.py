"""The histogram, the examples and what is printed."""

from __future__ import annotations

from rich.console import Console

from lit_retrofit.data.records import Document, Record
from lit_retrofit.mining.rules import MiningRules
from lit_retrofit.mining.summary import BINS, MiningSummary, RecordCounts, examples, histogram, show, too_few


def mined(query: str, positives: list[float], negatives: list[float]) -> Record:
    return Record(
        id=query,
        query=query,
        positives=tuple(Document(f"{query}+{i}", f"{query} positive {i}") for i in range(len(positives))),
        negatives=tuple(Document(f"{query}-{i}", f"{query} negative {i}") for i in range(len(negatives))),
        positive_scores=tuple(positives),
        negative_scores=tuple(negatives),
    )


def test_every_score_falls_in_one_bin():
    records = [mined("q", [0.9, 0.8], [0.7, 0.5]), mined("r", [0.6], [0.5]), mined("s", [0.9], [])]
    counts = histogram(records)
    assert len(counts.edges) == BINS + 1 and len(counts.positives) == len(counts.negatives) == BINS
    assert counts.edges[0] == 0.5 and counts.edges[-1] == 0.9
    assert sum(counts.positives) == 4 and sum(counts.negatives) == 3
    assert counts.positives[-1] == 2 and counts.negatives[0] == 2
    assert counts.negatives[10] + counts.negatives[9] == 1  # 0.7 lies on the edge in the middle


def test_one_single_value_still_has_bins_of_some_width():
    counts = histogram([mined("q", [0.5], [])])
    assert counts.edges[-1] - counts.edges[0] == 1
    assert sum(counts.positives) == 1


def test_examples_run_from_the_narrowest_gap_to_the_widest():
    records = [mined(f"q{i}", [0.9, 0.8], [0.8 - i / 100, 0.1]) for i in range(11)] + [
        mined("none", [0.9], [])
    ]
    picked = examples(records[::-1])
    assert [example.query for example in picked] == ["q0", "q2", "q5", "q7", "q10"]
    assert picked[0].positive == "q0 positive 1" and picked[0].positive_score == 0.8
    assert picked[0].negative == "q0 negative 0" and picked[0].negative_score == 0.8
    assert [example.query for example in examples(records[:2])] == ["q0", "q1"]
    assert [example.query for example in examples(records[:1])] == ["q0"]


def test_prints_counts_and_texts_as_text():
    record = mined("a [bold] query\x1b[2J \u202eback", [0.9], [0.7])
    summary = MiningSummary(
        started=0.0,
        seconds=3.2,
        model="m",
        data="d",
        output="out.jsonl",
        rules=MiningRules(),
        pool="all",
        backend="torch",
        records=RecordCounts(read=12345, kept=1, dropped=12344, short=1, skipped=17),
        queries=1,
        documents=2,
        merged_documents=0,
        candidates={
            "examined": 10,
            "identity": 1,
            "absolute_margin": 0,
            "relative_margin": 6,
            "max_score": 0,
            "skip_ranks": 0,
            "eligible": 3,
        },
        negatives=1,
        replaced_negatives=0,
        miners=("m",),
        scored_by="m",
        examined=10,
        recall={},
        too_few=(),
        histogram=histogram([record]),
        examples=examples([record]),
    )
    console = Console(record=True, width=120)
    show(summary, console)
    text = console.export_text()
    assert "\x1b" not in text and "\u202e" not in text
    for expected in (
        "12345",
        "12344",
        "17",
        "relative_margin",
        "a [bold] query",
        "0.900 a [bold]",
        "<U+001B>[2J",
        "<U+202E>back",
        "out.jsonl",
    ):
        assert expected in text
    assert text.count("█" * 24) == 2


def test_records_with_too_few_negatives_are_listed_fewest_first(monkeypatch):
    monkeypatch.setattr("lit_retrofit.mining.summary.LISTED", 2)
    records = [mined("full", [0.9], [0.7, 0.5]), mined("one", [0.9], [0.7]), mined("none", [0.9], [])]
    records.append(mined("one more", [0.9], [0.7]))
    listed = [(record.query, record.negatives) for record in too_few(records, 2)]
    assert listed == [("none", 0), ("one", 1)]


def test_the_summary_holds_beginnings_of_texts():
    record = mined("ten megabytes " * 700_000, [0.9], [0.7])
    (example,), (few,) = examples([record]), too_few([record], 2)
    for text in (example.query, example.positive, example.negative, few.query):
        assert text.startswith("ten megabytes") and len(text) < 400
        assert "characters)" in text  # and says how many there are
