"""Candidates of any miners, scored by any judge, against a plain Python oracle."""

from __future__ import annotations

import math
import random

import pytest
import torch

from lit_retrofit.data.records import Document, Record
from lit_retrofit.mining import propose
from lit_retrofit.mining.exact import ExactSearch
from lit_retrofit.mining.find import find_negatives
from lit_retrofit.mining.judges import EncoderJudge, LexicalJudge
from lit_retrofit.mining.miners import DenseMiner, LexicalMiner
from lit_retrofit.mining.pool import build_pool
from lit_retrofit.mining.propose import propose_negatives
from lit_retrofit.mining.rules import MiningRules


def unit(text: str, bias: float = 0.7) -> list[float]:
    numbers = random.Random(f"direction of {text}")
    vector = [numbers.gauss(0, 1) + bias for _ in range(6)]
    norm = math.sqrt(sum(x * x for x in vector))
    return [x / norm for x in vector]


def dot(left: str, right: str) -> float:
    return sum(x * y for x, y in zip(unit(left), unit(right), strict=True))


@pytest.fixture
def pool():
    numbers = random.Random(0)
    records = [
        Record(
            f"file:{line}",
            f"query {line % 25}",
            tuple(Document(f"p{d}", f"text {d}", ("en", "de")[d % 2]) for d in numbers.sample(range(50), 2)),
            language=("en", "de")[line % 2],
        )
        for line in range(40)
    ]
    corpus = [Document(f"c{d}", f"text {d + 50} of {d % 5}", ("en", "de")[d % 2]) for d in range(40)]
    return build_pool(records, corpus)


@pytest.fixture
def exact(pool):
    queries = torch.tensor([unit(query.text) for query in pool.queries])
    return ExactSearch(pool, queries, torch.tensor([unit(document.text) for document in pool.documents]))


class Listed:
    """A miner with a ranking of its own: by the remainder of the row."""

    def propose(self, queries, k):
        return torch.tensor([_listed(int(query), 1000)[:k] for query in queries])


def _listed(query: int, documents: int) -> list[int]:
    return sorted(range(min(documents, 80)), key=lambda row: ((row * 7 + query) % 80, row))


class Logits:
    """A judge whose scores are no similarities."""

    def __init__(self):
        self.asked = []

    def scores(self, queries, rows):
        self.asked += list(zip(queries.tolist(), rows.tolist(), strict=True))
        return torch.tensor([_logit(q, r) for q, r in zip(queries.tolist(), rows.tolist(), strict=True)])

    def comparable(self, scores):
        return scores.sigmoid()


def _logit(query: int, row: int) -> float:
    return random.Random(f"{query} {row}").gauss(0, 3)


@pytest.mark.parametrize("reorder", [False, True])
@pytest.mark.parametrize("skip", [0, 2])
def test_the_judge_scores_and_the_rules_choose(pool, monkeypatch, reorder, skip):
    monkeypatch.setattr(propose, "QUERY_BLOCK", 7)
    rules = MiningRules(
        relative_margin=0.95, max_score=0.9, per_query=4, rank_window=4, skip_ranks=skip, sampling="top"
    )
    judge = Logits()
    findings, drops = propose_negatives(pool, [Listed()], judge, rules, candidates=30, reorder=reorder)
    examined = eligible = 0
    for at, (query, finding) in enumerate(zip(pool.queries, findings, strict=True)):
        unknown = [row for row in _listed(at, 80) if row not in query.known][:30]
        if reorder:
            unknown.sort(key=lambda row: (-_logit(at, row), row))
        lowest = min(_sigmoid(_logit(at, row)) for row in query.positives)
        limit = min(0.95 * lowest, 0.9)
        left = [row for row in unknown if _sigmoid(_logit(at, row)) < limit][skip:]
        expected = sorted(left[:4], key=lambda row: (-_logit(at, row), row))
        assert list(finding.negatives) == expected
        assert finding.negative_scores == pytest.approx([_logit(at, row) for row in expected], abs=2e-6)
        assert finding.positive_scores == pytest.approx(
            {row: _logit(at, row) for row in query.positives}, abs=2e-6
        )
        assert {row for number, row in judge.asked if number == at} == {*unknown, *query.positives}
        examined += 30
        eligible += len(left)
    assert drops["eligible"] == eligible
    assert drops["examined"] - drops["identity"] == examined
    assert drops["examined"] == sum(count for rule, count in drops.items() if rule != "examined")


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_one_model_proposes_what_its_exact_search_finds(pool, exact):
    rules = MiningRules(per_query=3, rank_window=8, skip_ranks=1)
    whole, _ = find_negatives(pool, exact.queries, exact.documents, rules)
    judge = EncoderJudge(exact.queries, exact.documents)
    for reorder in (False, True):
        found, _ = propose_negatives(pool, [DenseMiner(exact)], judge, rules, candidates=90, reorder=reorder)
        assert [finding.negatives for finding in found] == [finding.negatives for finding in whole]


def test_a_fusion_is_ranked_by_both_and_scored_by_the_model(pool, exact):
    rules = MiningRules(per_query=2, rank_window=2, sampling="top", relative_margin=None)
    lexical = LexicalMiner(pool)
    judge = EncoderJudge(exact.queries, exact.documents)
    found, _ = propose_negatives(
        pool, [DenseMiner(exact), lexical], judge, rules, candidates=20, reorder=False
    )
    other = 0
    for at, (query, finding) in enumerate(zip(pool.queries, found, strict=True)):
        depth = 20 + max(len(query.known) for query in pool.queries)
        rankings = [
            sorted(range(len(pool.documents)), key=lambda row: -dot(query.text, pool.documents[row].text)),
            [row for row in lexical.propose(torch.tensor([at]), depth)[0].tolist() if row >= 0],
        ]
        scores: dict[int, float] = {}
        for ranking in rankings:
            for rank, row in enumerate(ranking[:depth], 1):
                scores[row] = scores.get(row, 0) + 1 / (60 + rank)
        best = sorted(scores, key=lambda row: (-round(scores[row], 12), row))
        expected = [row for row in best if row not in query.known][:2]
        assert set(finding.negatives) == set(expected)
        assert list(finding.negative_scores) == sorted(finding.negative_scores, reverse=True)
        for row, score in zip(finding.negatives, finding.negative_scores, strict=True):
            assert score == pytest.approx(dot(query.text, pool.documents[row].text), abs=2e-6)
        other += set(expected) != {
            row for row in rankings[0] if row not in query.known and row in rankings[0][:2]
        }
    assert other  # the words did change something


def test_words_alone_can_judge(pool):
    lexical = LexicalMiner(pool)
    rules = MiningRules(per_query=2, rank_window=4, absolute_margin=0.0, relative_margin=None)
    found, _ = propose_negatives(pool, [lexical], LexicalJudge(lexical), rules, candidates=20, reorder=False)
    for at, finding in enumerate(found):
        rows = torch.tensor(finding.negatives, dtype=torch.long)
        assert list(finding.negative_scores) == pytest.approx(lexical.scores(at, rows).tolist(), abs=2e-6)
        assert all(score < min(finding.positive_scores.values()) for score in finding.negative_scores)
