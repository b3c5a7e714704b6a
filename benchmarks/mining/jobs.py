"""What is measured, each in a process of its own: one line of JSON with seconds and the peak of memory."""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.mining.data import GivenPairs, given_pairs, stored_vectors
from lit_retrofit.mining.find import find_negatives
from lit_retrofit.mining.pool import build_pool
from lit_retrofit.mining.rules import MiningRules
from lit_retrofit.retrieval.search import search

PER_QUERY = 4
WINDOW = 10
RELATIVE_MARGIN = 0.05
Negatives = dict[str, list[str]]


class GivenModel:
    """What sentence-transformers' miner needs of a model, with the embeddings at hand."""

    device = torch.device("cpu")

    def __init__(self, pairs: GivenPairs) -> None:
        self._rows = {text: i for i, text in enumerate(pairs.queries)}
        self._rows |= {text: i for i, text in enumerate(pairs.documents)}
        self._pairs = pairs

    def encode_query(self, texts: list[str], **options: Any) -> Any:
        """(texts, dimension) numpy."""
        return self._pairs.query_vectors[[self._rows[text] for text in texts]].numpy()

    def encode_document(self, texts: list[str], **options: Any) -> Any:
        """(texts, dimension) numpy."""
        return self._pairs.document_vectors[[self._rows[text] for text in texts]].numpy()

    def similarity_pairwise(self, left: Any, right: Any) -> Tensor:
        """The cosine of each pair."""
        return (torch.as_tensor(left) * torch.as_tensor(right)).sum(dim=1)

    def similarity(self, left: Any, right: Any) -> Tensor:
        """All cosines."""
        return torch.as_tensor(left) @ torch.as_tensor(right).T

    def get_embedding_dimension(self) -> int:
        """Of a vector."""
        return self._pairs.query_vectors.shape[1]


def mine_here(pairs: GivenPairs) -> Negatives:
    """This project's miner with given embeddings; the records it makes are part of the time."""
    pool = build_pool(pairs.records)  # alphabetical queries, documents by id: the pairs' own order
    rules = MiningRules(
        relative_margin=1 - RELATIVE_MARGIN, per_query=PER_QUERY, rank_window=WINDOW, sampling="top"
    )
    findings, _ = find_negatives(pool, pairs.query_vectors, pairs.document_vectors, rules)
    return {
        query.text: [pool.documents[row].text for row in finding.negatives]
        for query, finding in zip(pool.queries, findings, strict=True)
    }


def mine_there(pairs: GivenPairs, *, use_faiss: bool = False) -> Negatives:
    """sentence-transformers' miner with the same rules and embeddings."""
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    data = Dataset.from_dict({"query": pairs.queries, "positive": pairs.documents})
    mined = mine_hard_negatives(
        data,
        GivenModel(pairs),  # type: ignore[arg-type]
        relative_margin=RELATIVE_MARGIN,
        num_negatives=PER_QUERY,
        sampling_strategy="top",
        output_format="triplet",
        use_faiss=use_faiss,
        verbose=False,
    )
    found: Negatives = {query: [] for query in pairs.queries}
    for row in mined:
        found[row["query"]].append(row["negative"])
    return found


def measured(work: Callable[[], Any]) -> dict[str, float]:
    """Seconds of the work, and the peak of the process's resident memory above what it had before."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "peak_gb": peak / 2**20, "added_gb": (peak - before) / 2**20}


def run_search(cache: Path, documents: int, queries: int, k: int, dimension: int) -> dict[str, float]:
    """The exact search of a corpus on disk; a sample is compared with the plain product."""
    corpus = stored_vectors(cache, documents, dimension)
    numbers = torch.Generator().manual_seed(1)
    asked = torch.nn.functional.normalize(torch.randn(queries, dimension, generator=numbers), dim=1)
    result = []
    figures = measured(lambda: result.append(search(asked, corpus, k)))
    found = result[0]
    sample = asked[:8]
    # In pieces: the whole product would not show in the time, but in the memory.
    scores = torch.cat([sample @ part.T for part in corpus.split(65536)], dim=1)
    best = scores.topk(k, dim=1)
    torch.testing.assert_close(found.scores[:8], best.values, rtol=0, atol=1e-5)
    return figures


def main() -> None:
    """Runs one job and prints its figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("job", choices=["search", "here", "there", "there-faiss"])
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--documents", type=int, default=0)
    parser.add_argument("--queries", type=int, default=0)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--pairs", type=int, default=0)
    given = parser.parse_args()
    if given.job == "search":
        figures = run_search(given.cache, given.documents, given.queries, given.k, given.dimension)
    else:
        pairs = given_pairs(given.pairs, given.dimension)
        miners = {
            "here": mine_here,
            "there": mine_there,
            "there-faiss": lambda pairs: mine_there(pairs, use_faiss=True),
        }
        import sentence_transformers.util  # noqa: F401 (not part of either's time)

        figures = measured(lambda: miners[given.job](pairs))
    print("RESULT " + json.dumps(figures))


if __name__ == "__main__":
    main()
