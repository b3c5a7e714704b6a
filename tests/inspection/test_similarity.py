"""Scores against products by hand, and which negatives are suspects."""

from __future__ import annotations

import numpy as np
import pytest

from lit_retrofit.data.records import Document, Record
from lit_retrofit.inspection.similarity import (
    ABOVE,
    IDENTICAL,
    NEAR,
    ScoredRecord,
    describe_scores,
    find_suspects,
    score_by_model,
    score_by_records,
)


def record(id: str, positives: list[str], negatives: list[str], **scores) -> Record:
    def documents(texts: list[str]) -> tuple[Document, ...]:
        return tuple(Document(f"{id} {i} {text}", text) for i, text in enumerate(texts))

    return Record(id, f"query {id}", documents(positives), documents(negatives), **scores)


def test_scores_are_inner_products_of_each_record_with_its_own() -> None:
    rng = np.random.default_rng(0)
    vectors: dict[tuple[str, str], np.ndarray] = {}
    asked: list[str] = []

    def embed(texts, role):
        asked.extend(texts)
        return np.stack([vectors.setdefault((role, text), rng.normal(size=4)) for text in texts])

    records = [record("a", ["p", "shared"], ["n"]), record("b", ["shared"], [])]
    scored = score_by_model(records, embed)
    assert asked.count("shared") == 1
    for one in scored:
        query = vectors["query", one.record.query]
        for found, documents in (
            (one.positives, one.record.positives),
            (one.negatives, one.record.negatives),
        ):
            assert found == pytest.approx([query @ vectors["document", d.text] for d in documents])


def test_suspects() -> None:
    records = [
        record("above", ["p", "low"], ["n"]),
        record("near", ["p"], ["n", "far"]),
        record("below zero", ["p"], ["n", "m"]),
        record("twin", ["p"], ["p", "n"]),
    ]
    scored = [
        ScoredRecord(records[0], (0.9, 0.5), (0.7,)),
        ScoredRecord(records[1], (0.8,), (0.76, 0.75)),  # 0.95 · 0.8 = 0.76
        ScoredRecord(records[2], (-0.2,), (-0.1, -0.3)),
        ScoredRecord(records[3], (0.8,), (0.8, 0.1)),
    ]
    counts, shown = find_suspects(scored, records, 0.95, 10)
    assert counts == {IDENTICAL: 1, ABOVE: 2, NEAR: 1}
    assert [(one.record, one.reason) for one in shown] == [
        ("twin", IDENTICAL), ("above", ABOVE), ("below zero", ABOVE), ("near", NEAR),
    ]  # fmt: skip
    assert (shown[1].positive, shown[1].positive_score, shown[1].negative_score) == ("low", 0.5, 0.7)
    assert len(find_suspects(scored, records, 0.95, 1)[1]) == 1


def test_figures() -> None:
    one = record("a", ["p"], ["n", "m"])
    two = record("b", ["p"], ["n"], positive_scores=(0.5,), negative_scores=(0.9,))
    scored = [ScoredRecord(one, (0.8,), (0.2, 0.4)), *score_by_records([one, two])]
    found = describe_scores(scored, "me")
    assert found is not None and found.negatives is not None
    assert (found.records, found.positives.count, found.negatives.count) == (2, 2, 3)
    assert found.positives.mean == pytest.approx(0.65) and found.negatives.mean == pytest.approx(0.5)
    assert sum(found.positive_counts) == 2 and sum(found.negative_counts) == 3
    assert found.hardest_first == 0.5
    assert describe_scores([], "me") is None
    assert score_by_model([], None) == []  # type: ignore[arg-type]
