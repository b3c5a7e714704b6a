"""A mining problem: topics of unequal density, known answers, a ceiling below the positive."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.kernels.shapes import Shape

DOCUMENTS_PER_TOPIC = 200
CEILING = 0.95
"""Share of the positive's similarity at which candidates are taken for false negatives (NV-Retriever,
arXiv 2407.15831)."""


@dataclass(frozen=True, eq=False)
class Problem:
    """What a search is given.

    Attributes:
        queries: (Q, D) unit vectors.
        corpus: (N, D) unit vectors.
        k: documents wanted for each query.
        answers: (Q, 2) int64, rows of the corpus that a query must not find; the first is its positive.
        corpus_ids: (N,) int64, the rows' numbers.
        ceiling: (Q,) fp32; only scores below it count.
    """

    queries: Tensor
    corpus: Tensor
    k: int
    answers: Tensor
    corpus_ids: Tensor
    ceiling: Tensor

    def rows(self, wanted: Tensor) -> Problem:
        """The same problem for some of the queries."""
        return Problem(
            self.queries[wanted],
            self.corpus,
            self.k,
            self.answers[wanted],
            self.corpus_ids,
            self.ceiling[wanted],
        )


def make_problem(shape: Shape, k: int, dtype: str, device: str, seed: int) -> Problem:
    """Random topics with about 200 documents each, more in the first ones.

    In the densest topics documents are as near to each other as to the query: the ceiling then removes more
    than the best k, as it does with real duplicates and paraphrases.
    """
    generator = torch.Generator(device).manual_seed(seed)
    size = {"generator": generator, "device": device}
    topics = max(1, shape.columns // DOCUMENTS_PER_TOPIC)
    centres = F.normalize(torch.randn(topics, shape.dimension, **size), dim=1)
    spread = 0.1 + 0.7 * torch.rand(topics, **size)
    topic = (topics * torch.rand(shape.columns, **size) ** 1.5).long()
    corpus = _around(centres[topic], spread[topic], size)
    positive = torch.randint(shape.columns, (shape.rows,), **size)
    queries = _around(corpus[positive], 0.3 + 0.9 * torch.rand(shape.rows, **size), size)
    by_topic = topic.argsort()
    other = by_topic[(by_topic.argsort()[positive] + 1) % shape.columns]  # most often of the same topic
    kind = getattr(torch, dtype)
    queries, corpus = queries.to(kind), corpus.to(kind)
    return Problem(
        queries,
        corpus,
        k,
        torch.stack([positive, other], dim=1),
        torch.arange(shape.columns, device=device),
        CEILING * (queries.float() * corpus[positive].float()).sum(1),
    )


def _around(centres: Tensor, spread: Tensor, size: dict) -> Tensor:
    noise = F.normalize(torch.randn(centres.shape, **size), dim=1)
    return F.normalize(centres + spread.unsqueeze(1) * noise, dim=1)


def exact_rows(problem: Problem, chunk: int = 8192) -> tuple[Tensor, Tensor]:
    """Scores and rows of the best k in fp64, by looking at the whole corpus in chunks: the oracle."""
    queries = problem.queries.double()
    scores = torch.full((len(queries), problem.k), -torch.inf, dtype=torch.float64, device=queries.device)
    rows = torch.full_like(scores, -1, dtype=torch.int64)
    for begin in range(0, len(problem.corpus), chunk):
        part = problem.corpus[begin : begin + chunk].double()
        found = queries @ part.T
        ids = problem.corpus_ids[begin : begin + chunk]
        forbidden = (ids == problem.answers.unsqueeze(2)).any(1)
        found.masked_fill_(forbidden | (found >= problem.ceiling.double().unsqueeze(1)), -torch.inf)
        scores = torch.cat([scores, found], dim=1)
        numbers = torch.arange(begin, begin + len(part), device=rows.device)
        rows = torch.cat([rows, numbers.expand(len(queries), -1)], dim=1)
        scores, place = scores.topk(problem.k, dim=1)
        rows = rows.gather(1, place)
    return scores, rows.masked_fill(scores == -torch.inf, -1)
