"""Exact searches with exclusions and a ceiling. All but ours and one search first and filter afterwards."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from benchmarks.kernels.neighbour_cuda import cuvs, faiss_gpu_index, faiss_knn_gpu, flashlib
from benchmarks.kernels.neighbour_data import CEILING, Problem
from benchmarks.kernels.neighbour_filter import Run, filtered
from benchmarks.kernels.peers import Peer
from benchmarks.kernels.shapes import Shape

CHUNK_ROWS = 1024
MINED_ROWS = 16384
"""Default `faiss_batch_size` of mine_hard_negatives: queries whose scores it holds at a time."""


def ours(mode: Literal["exact", "approximate"]) -> Run:
    """`retrofit_kernels.nearest_neighbours`."""
    from retrofit_kernels import NeighbourOptions, nearest_neighbours

    def run(problem: Problem) -> Tensor:
        options = NeighbourOptions(
            query_ids=problem.answers, corpus_ids=problem.corpus_ids, ceiling=problem.ceiling, mode=mode
        )
        return nearest_neighbours(problem.queries, problem.corpus, problem.k, options=options).indices

    return run


def chunked() -> Run:
    """torch: matmul and topk, 1024 queries at a time."""

    def run(problem: Problem) -> Tensor:
        def search(queries: Tensor, depth: int) -> tuple[Tensor, Tensor]:
            parts = [(rows @ problem.corpus.T).topk(depth, dim=1) for rows in queries.split(CHUNK_ROWS)]
            scores, found = zip(*parts, strict=True)
            return torch.cat(scores).float(), torch.cat(found)

        return filtered(search, problem, len(problem.corpus))

    return run


def faiss_flat() -> Run:
    """faiss-cpu: IndexFlatIP."""
    import faiss

    def run(problem: Problem) -> Tensor:
        faiss.omp_set_num_threads(torch.get_num_threads())
        index = faiss.IndexFlatIP(problem.corpus.shape[1])
        index.add(problem.corpus.float().numpy())

        def search(queries: Tensor, depth: int) -> tuple[Tensor, Tensor]:
            scores, rows = index.search(queries.float().numpy(), depth)
            return torch.from_numpy(scores), torch.from_numpy(rows)

        return filtered(search, problem, len(problem.corpus))

    return run


def mined() -> Run:
    """sentence-transformers' mine_hard_negatives, all of it, with a model that knows its embeddings."""
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    def run(problem: Problem) -> Tensor:
        corpus = [f"d{row}" for row in range(len(problem.corpus))]
        names = [f"q{row}" for row in range(len(problem.queries))]
        pairs = {"query": names, "answer": [corpus[row] for row in problem.answers[:, 0].tolist()]}
        made = mine_hard_negatives(
            Dataset.from_dict(pairs),
            KnownEmbeddings(problem),
            corpus=corpus,
            num_negatives=problem.k,
            relative_margin=1 - CEILING,
            sampling_strategy="top",
            output_format="n-tuple",
            faiss_batch_size=MINED_ROWS,
            verbose=False,
        )
        found = torch.full((len(names), problem.k), -1, dtype=torch.int64)
        queries = [int(name[1:]) for name in made["query"]]
        for rank in range(problem.k):
            rows = [int(name[1:]) for name in made[f"negative_{rank + 1}"]]
            found[queries, rank] = torch.tensor(rows, dtype=torch.int64)
        return found.to(problem.queries.device)

    return run


class KnownEmbeddings:
    """What mine_hard_negatives asks a model for. Texts are numbered."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.device = problem, problem.queries.device

    def encode_query(self, texts: list[str], **_: Any) -> Any:
        """The queries' embeddings."""
        return self.problem.queries[[int(text[1:]) for text in texts]].float().cpu().numpy()

    def encode_document(self, texts: list[str], **_: Any) -> Any:
        """The corpus, which is asked for as a whole and in order."""
        return self.problem.corpus[[int(text[1:]) for text in texts]].float().cpu().numpy()

    def similarity(self, queries: Any, documents: Any) -> Tensor:
        """As SentenceTransformer computes it by default."""
        from sentence_transformers.util import cos_sim

        return cos_sim(queries, documents)

    def similarity_pairwise(self, queries: Any, documents: Any) -> Tensor:
        """As SentenceTransformer computes it by default."""
        from sentence_transformers.util import pairwise_cos_sim

        return pairwise_cos_sim(queries, documents)


def _found(shape: Shape, size: int) -> int:
    """Scores and rows of a search of ten times the usual 100."""
    return shape.rows * 1000 * 12


def _chunk(shape: Shape, size: int) -> int:
    return 2 * CHUNK_ROWS * shape.columns * 4 + _found(shape, size)


def _copy(shape: Shape, size: int) -> int:
    return 2 * shape.columns * shape.dimension * 4 + _found(shape, size)


def _mined(shape: Shape, size: int) -> int:
    return min(shape.rows, MINED_ROWS) * shape.columns * 4 + 3 * _copy(shape, size)


PEERS = (
    Peer("ours", "retrofit_kernels", lambda: ours("exact"), _chunk),
    Peer("ours_approximate", "retrofit_kernels, approximate", lambda: ours("approximate"), _chunk,
         cuda_only=True, exact=False),
    Peer("chunked", "torch matmul + topk, filtered", chunked, _chunk),
    Peer("faiss", "faiss IndexFlatIP, filtered", faiss_flat, _copy, module="faiss", cpu_only=True),
    Peer(
        "sentence_transformers",
        "sentence-transformers mine_hard_negatives",
        mined,
        _mined,
        module="sentence_transformers",
        exact=False,
    ),
    Peer("faiss_knn_gpu", "faiss knn_gpu, filtered", faiss_knn_gpu, _copy, module="faiss", cuda_only=True,
         exact=False),
    Peer("faiss_gpu_index", "faiss GpuIndexFlatIP, filtered", faiss_gpu_index, _copy, module="faiss",
         cuda_only=True, exact=False),
    Peer("cuvs", "cuVS brute force, filtered", cuvs, _copy, module="cuvs", cuda_only=True),
    Peer("flashlib", "flashlib flash_knn, filtered", flashlib, _copy, module="flashlib", cuda_only=True),
)  # fmt: skip
BY_NAME = {peer.name: peer for peer in PEERS}
