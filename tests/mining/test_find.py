"""Mined negatives against a plain Python oracle that knows records and texts, but no rows and no search."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest
import torch
from torch import Tensor

from lit_retrofit.data.records import Document, Record, text_id
from lit_retrofit.mining import find, judges
from lit_retrofit.mining.find import find_negatives
from lit_retrofit.mining.pool import Pool, build_pool
from lit_retrofit.mining.rules import MiningRules

DIMENSION = 6
Vectors = dict[str, list[float]]
Mined = dict[tuple[str, str | None], list[tuple[str, float]]]


def unit(text: str, bias: float) -> list[float]:
    """A direction of the text's own; a bias draws all of them together, so that scores are positive."""
    numbers = random.Random(f"direction of {text}")
    vector = [numbers.gauss(0, 1) + bias for _ in range(DIMENSION)]
    norm = sum(x * x for x in vector) ** 0.5
    return [x / norm for x in vector]


def data(seed: int) -> tuple[list[Record], list[Document]]:
    """Repeated queries, several positives, repeated texts under several ids, groups, two languages."""
    numbers = random.Random(seed)
    languages = ("en", "de")

    def document() -> Document:
        text = numbers.randrange(60)
        return Document(f"d{text}-{numbers.randrange(2)}", f"document {text}", languages[text % 2])

    records = [
        Record(
            id=f"file:{line}",
            query=f"query {numbers.randrange(30)}",
            positives=tuple(document() for _ in range(numbers.choice((1, 1, 1, 2, 3)))),
            negatives=tuple(document() for _ in range(numbers.choice((0, 0, 2)))),
            language=numbers.choice(languages),
            group=numbers.choice((None, None, "g0", "g1", "g2")),
        )
        for line in range(40)
    ]
    return records, [document() for _ in range(20)]


def vectors(pool: Pool, bias: float) -> tuple[Tensor, Tensor]:
    queries = torch.tensor([unit(query.text, bias) for query in pool.queries])
    return queries, torch.tensor([unit(document.text, bias) for document in pool.documents])


def run(
    records: list[Record], corpus: list[Document], rules: MiningRules, scope: str, bias: float
) -> tuple[Mined, dict[str, int]]:
    """Texts and scores of the negatives for each query and candidates' language."""
    pool = build_pool(records, corpus, scope)
    findings, drops = find_negatives(pool, *vectors(pool, bias), rules)
    found = {}
    for query, finding in zip(pool.queries, findings, strict=True):
        texts = [pool.documents[row].text for row in finding.negatives]
        found[query.text, query.language] = list(zip(texts, finding.negative_scores, strict=True))
    return found, drops


def oracle(
    records: list[Record], corpus: list[Document], rules: MiningRules, scope: str, bias: float
) -> tuple[Mined, dict[str, int]]:
    def similarity(left: str, right: str) -> float:
        return sum(x * y for x, y in zip(unit(left, bias), unit(right, bias), strict=True))

    every = corpus + [document for record in records for document in record.positives + record.negatives]
    ids: dict[str, set[str]] = defaultdict(set)
    for document in every:
        ids[document.text].add(document.id)
    found, drops = {}, defaultdict(int)
    for record in records:
        language = {
            "all": None,
            "language": record.language,
            "positive": record.positives[0].language,
            "other": record.language,
        }[scope]
        if (record.query, language) in found:
            continue
        same = [other for other in records if other.query == record.query]
        positives = {document.text for other in same for document in other.positives}
        groups = {other.group for other in same} - {None}
        known = positives | {d.text for other in records if other.group in groups for d in other.positives}
        lowest = min(similarity(record.query, text) for text in positives)
        limits = [
            *([lowest - rules.absolute_margin] if rules.absolute_margin is not None else []),
            *(
                [lowest * rules.relative_margin if lowest > 0 else lowest - 0.05]
                if rules.relative_margin is not None
                else []
            ),
            *([rules.max_score] if rules.max_score is not None else []),
        ]
        texts = {
            document.text
            for document in every
            if language is None or (document.language == language) != (scope == "other")
        }
        ranked = sorted(texts, key=lambda text: (-similarity(record.query, text), min(ids[text])))
        below = [text for text in ranked if all(similarity(record.query, text) < limit for limit in limits)]
        window = [text for text in below if text not in known][rules.skip_ranks :][: rules.rank_window]
        found[record.query, language] = [(text, similarity(record.query, text)) for text in window]
        depth = rules.skip_ranks + rules.rank_window
        drops["examined"] += len(ranked[:depth])
        drops["identity"] += len([text for text in ranked[:depth] if text in known])
        drops["eligible"] += max(
            0,
            len([text for text in ranked[:depth] if text in below and text not in known]) - rules.skip_ranks,
        )
    return found, drops


@pytest.mark.parametrize("scope", ["all", "language", "positive", "other"])
@pytest.mark.parametrize("spare", [1, 4])
@pytest.mark.parametrize("bias", [0.0, 0.7], ids=["scores of both signs", "positive scores"])
@pytest.mark.parametrize(
    "rules",
    [
        MiningRules(per_query=5, rank_window=5, sampling="top"),
        MiningRules(per_query=3, rank_window=3, sampling="top", relative_margin=None),
        MiningRules(per_query=4, rank_window=4, sampling="top", absolute_margin=0.1, max_score=0.5),
        MiningRules(per_query=4, rank_window=6, skip_ranks=2, sampling="top", relative_margin=0.8),
        MiningRules(per_query=90, rank_window=90, sampling="top"),
    ],
    ids=["relative", "none", "absolute", "skipping", "deeper than the corpus"],
)
def test_negatives_are_those_of_the_oracle(monkeypatch, rules, bias, scope, spare):
    monkeypatch.setattr(find, "SPARE", spare)
    expected, expected_drops = oracle(*data(1), rules, scope, bias)
    found, drops = run(*data(1), rules, scope, bias)
    assert found.keys() == expected.keys()
    for query, pairs in found.items():
        wanted = expected[query][: rules.per_query]
        assert [text for text, _ in pairs] == [text for text, _ in wanted]
        assert [score for _, score in pairs] == pytest.approx([score for _, score in wanted], abs=2e-6)
    assert {rule: drops[rule] for rule in expected_drops} == dict(expected_drops)
    assert drops["examined"] == sum(count for rule, count in drops.items() if rule != "examined")


def test_random_negatives_lie_in_the_window_of_the_oracle():
    rules = MiningRules(per_query=3, rank_window=8, skip_ranks=1)
    expected, _ = oracle(*data(2), rules, "all", 0.7)
    found, _ = run(*data(2), rules, "all", 0.7)
    for query, pairs in found.items():
        assert {text for text, _ in pairs} <= {text for text, _ in expected[query]}
        assert len(pairs) == min(3, len(expected[query]))
    assert any(pairs != expected[query][:3] for query, pairs in found.items())


@pytest.mark.parametrize("scope", ["all", "language"])
def test_order_of_records_and_corpus_changes_nothing(scope):
    rules = MiningRules(per_query=3, rank_window=8)
    records, corpus = data(3)
    before = run(records, corpus, rules, scope, 0.7)
    random.Random(0).shuffle(records)
    random.Random(1).shuffle(corpus)
    assert run(records, corpus, rules, scope, 0.7) == before


def test_blocks_of_queries_and_pairs_change_nothing(monkeypatch):
    rules = MiningRules(per_query=3, rank_window=8)
    whole, drops = run(*data(4), rules, "language", 0.7)
    monkeypatch.setattr(find, "QUERY_BLOCK", 7)
    monkeypatch.setattr(judges, "PAIR_BLOCK", 2)
    found, drops_by_block = run(*data(4), rules, "language", 0.7)
    assert drops_by_block == drops
    for query, pairs in whole.items():
        assert [text for text, _ in found[query]] == [text for text, _ in pairs]
        assert [score for _, score in found[query]] == pytest.approx([score for _, score in pairs], abs=2e-6)


def test_both_backends_find_the_same():
    pytest.importorskip("faiss")
    pool = build_pool(*data(6), "language")
    rules = MiningRules(per_query=3, rank_window=8)
    exact, drops = find_negatives(pool, *vectors(pool, 0.7), rules)
    other, other_drops = find_negatives(pool, *vectors(pool, 0.7), rules, backend="faiss")
    assert other_drops == drops
    assert [finding.negatives for finding in other] == [finding.negatives for finding in exact]


def test_positive_scores_are_those_of_each_positive():
    pool = build_pool(*data(5))
    findings, _ = find_negatives(pool, *vectors(pool, 0.0), MiningRules())
    for query, finding in zip(pool.queries, findings, strict=True):
        expected = {
            row: sum(
                x * y for x, y in zip(unit(query.text, 0), unit(pool.documents[row].text, 0), strict=True)
            )
            for row in query.positives
        }
        assert finding.positive_scores == pytest.approx(expected, abs=2e-6)


def test_equal_scores_are_settled_by_id():
    """One negative among documents of the same similarity, whatever order they come in."""
    near = [Document(id, f"text {id}") for id in ("m", "c", "x", "b")]
    record = Record("file:1", "q", (Document("p", "positive"),))
    rules = MiningRules(per_query=2, rank_window=2, sampling="top")
    for corpus in (near, near[::-1]):
        pool = build_pool([record], corpus)
        documents = torch.tensor(
            [[1.0, 0.0] if document.id == "p" else [0.6, 0.8] for document in pool.documents]
        )
        findings, _ = find_negatives(pool, torch.tensor([[1.0, 0.0]]), documents, rules)
        assert [pool.documents[row].id for row in findings[0].negatives] == ["b", "c"]


def test_a_query_whose_language_has_no_documents_gets_none():
    records = [
        Record("file:1", "q", (Document("a", "one", "en"),), language="fr"),
        Record("file:2", "r", (Document("b", "two", "en"),), language="en"),
    ]
    pool = build_pool(records, scope="language")
    queries, documents = torch.eye(2), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    findings, drops = find_negatives(pool, queries, documents, MiningRules(per_query=1))
    assert findings[0].negatives == ()
    assert [pool.documents[row].id for row in findings[1].negatives] == ["a"]
    assert drops["examined"] == 2


def test_a_text_without_an_id_is_a_document_as_well():
    texts = ["one", "two", "three"]
    records = [Record(f"file:{i}", f"q{i}", (Document(text_id(t), t),)) for i, t in enumerate(texts)]
    pool = build_pool(records)
    findings, _ = find_negatives(pool, *vectors(pool, 0.0), MiningRules(relative_margin=None))
    for query, finding in zip(pool.queries, findings, strict=True):
        assert len(finding.negatives) == 2
        assert not set(finding.negatives) & set(query.positives)
