"""Rankings of the miners, and their fusion, against plain Python."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest
import torch

from lit_retrofit.data.records import Document, Record
from lit_retrofit.mining.miners import LexicalMiner, fuse
from lit_retrofit.mining.pool import build_pool


@pytest.mark.parametrize("miners", [1, 2, 3])
def test_fusion_adds_up_reciprocal_ranks(miners):
    numbers = random.Random(miners)
    lengths = [7, 5, 7][:miners]
    tables = [
        [
            (ranked := numbers.sample(range(12), numbers.randrange(length + 1)))
            + [-1] * (length - len(ranked))
            for _ in range(40)
        ]
        for length in lengths
    ]
    fused = fuse([torch.tensor(table) for table in tables])
    assert fused.shape == (40, sum(lengths))
    for row, found in enumerate(fused.tolist()):
        scores: dict[int, float] = defaultdict(float)
        for table in tables:
            for rank, document in enumerate(table[row], 1):
                if document >= 0:
                    scores[document] += 1 / (60 + rank)
        expected = sorted(scores, key=lambda document: (-round(scores[document], 12), document))
        if miners == 1:
            expected = [document for document in tables[0][row] if document >= 0]
        assert found == expected + [-1] * (len(found) - len(expected))


TEXTS = {"en": ["red apple", "green apple pie", "pie"], "de": ["roter apple", "ein Kuchen", "grün"]}
CORPUS = [
    Document(f"{language}{i}", text, language)
    for language, texts in TEXTS.items()
    for i, text in enumerate(texts)
]


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("all", {"de0", "en0", "en1"}),
        ("language", {"en0", "en1"}),
        ("positive", {"de0"}),
        ("other", {"de0"}),
    ],
)
def test_words_are_found_in_the_scope_and_nowhere_else(scope, expected):
    record = Record("file:1", "apple", (Document("p", "unlike", "de"),), language="en")
    pool = build_pool([record], CORPUS, scope)
    miner = LexicalMiner(pool)
    (rows,) = miner.propose(torch.tensor([0]), 5).tolist()
    assert {pool.documents[row].id for row in rows if row >= 0} == expected
    found = [row for row in rows if row >= 0]
    assert rows == found + [-1] * (5 - len(found))
    scores = miner.scores(0, torch.tensor(found)).tolist()
    assert scores == sorted(scores, reverse=True) and min(scores) > 0
    assert float(miner.scores(0, torch.tensor([pool.text_rows["unlike"]]))) == 0
