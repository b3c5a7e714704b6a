"""What the rules compare of a judge's scores."""

from __future__ import annotations

import math

import pytest
import torch

from lit_retrofit.data.records import Document, Record
from lit_retrofit.mining.judges import CrossEncoderJudge, EncoderJudge
from lit_retrofit.mining.pool import build_pool


class Lengths:
    """A model that scores a pair by the lengths of its texts."""

    def scores(self, pairs):
        return torch.tensor([len(query) - float(len(document)) for query, document in pairs])


def test_a_cross_encoder_reads_the_texts_and_its_logits_compare_as_probabilities():
    records = [Record(f"f:{i}", "q" * (i + 1), (Document(f"d{i}", "d" * (i + 3)),)) for i in range(3)]
    judge = CrossEncoderJudge(build_pool(records), Lengths())
    scores = judge.scores(torch.tensor([0, 0, 2]), torch.tensor([0, 2, 1]))
    assert scores.tolist() == [1 - 3, 1 - 5, 3 - 4]
    expected = [1 / (1 + math.exp(-score)) for score in scores.tolist()]
    assert judge.comparable(scores).tolist() == pytest.approx(expected, abs=1e-6)


def test_similarities_compare_as_they_are():
    vectors = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    judge = EncoderJudge(vectors, vectors)
    scores = judge.scores(torch.tensor([0, 1]), torch.tensor([1, 1]))
    assert judge.comparable(scores).tolist() == pytest.approx([0.6, 1.0])
    assert judge.scores(torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long)).shape == (0,)
