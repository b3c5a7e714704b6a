"""The validation part, and records as a retrieval set."""

from __future__ import annotations

import random

import pytest

from lit_retrofit.data.records import Document, Record
from lit_retrofit.data.splitting import split_by_group, to_retrieval_set


def record(name: str, group: str | None = None, *documents: str, **rest) -> Record:
    positives = tuple(Document(d, f"text of {d}") for d in documents or (f"d-{name}",))
    return Record(name, f"query {name}", positives, group=group, **rest)


RECORDS = [record(f"{page}@{k}", f"page {page}") for page in range(400) for k in range(3)]


def test_every_record_on_one_side_and_groups_whole() -> None:
    train, validation = split_by_group(RECORDS, 0.25, 0)
    assert sorted(r.id for r in train + validation) == sorted(r.id for r in RECORDS)
    assert not {r.group for r in train} & {r.group for r in validation}
    # 400 groups at 0.25: a standard deviation of 0.022.
    assert abs(len(validation) / len(RECORDS) - 0.25) < 0.08
    assert [r for r in RECORDS if r in validation] == validation


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (1.0, 1200)])
def test_none_and_all(share: float, expected: int) -> None:
    assert len(split_by_group(RECORDS, share, 0)[1]) == expected


def test_the_split_depends_on_the_seed_and_not_on_the_order() -> None:
    chosen = {r.id for r in split_by_group(RECORDS, 0.25, 0)[1]}
    shuffled = random.Random(1).sample(RECORDS, len(RECORDS))
    assert {r.id for r in split_by_group(shuffled, 0.25, 0)[1]} == chosen
    assert {r.id for r in split_by_group(RECORDS[:600], 0.25, 0)[1]} == {r.id for r in RECORDS[:600]} & chosen
    assert {r.id for r in split_by_group(RECORDS, 0.25, 1)[1]} != chosen


def test_without_groups_a_shared_document_stays_on_one_side() -> None:
    records = [record(f"{i}-{k}", None, f"d{i}") for i in range(200) for k in range(2)]
    train, validation = split_by_group(records, 0.3, 0)
    assert validation
    assert not {r.positives[0].id for r in train} & {r.positives[0].id for r in validation}


def test_a_retrieval_set_by_hand() -> None:
    negative = Document("n", "text of n")
    records = [
        record("1", None, "a", "b", language="de", negatives=(negative,)),
        record("2", None, "b", language="de"),
        Record("3", "query 1", (Document("c", "text of c"),), language="de"),
        Record("4", "query 1", (Document("a", "text of a"),), language="en"),
    ]
    found = to_retrieval_set(records, "name")
    assert found.name == "name"
    assert [(q.id, q.text, q.language) for q in found.queries] == [
        ("1", "query 1", "de"), ("2", "query 2", "de"), ("4", "query 1", "en"),
    ]  # fmt: skip
    assert [d.id for d in found.corpus] == ["a", "b", "n", "c"]
    assert found.qrels == {"1": {"a": 1, "b": 1, "c": 1}, "2": {"b": 1}, "4": {"a": 1}}
