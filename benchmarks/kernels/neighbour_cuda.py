"""Searches of other libraries on NVIDIA GPUs."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.kernels.neighbour_data import Problem
from benchmarks.kernels.neighbour_filter import Run, filtered

FAISS_GPU_DEPTH = 2048
"""More than this faiss does not select on a GPU."""


def faiss_knn_gpu() -> Run:
    """faiss-gpu: knn_gpu on torch tensors."""
    import faiss
    import faiss.contrib.torch_utils

    resources = faiss.StandardGpuResources()

    def run(problem: Problem) -> Tensor:
        def search(queries: Tensor, depth: int) -> tuple[Tensor, Tensor]:
            return faiss.knn_gpu(resources, queries, problem.corpus, depth, metric=faiss.METRIC_INNER_PRODUCT)

        return filtered(search, problem, FAISS_GPU_DEPTH)

    return run


def faiss_gpu_index() -> Run:
    """faiss-gpu: GpuIndexFlatIP."""
    import faiss
    import faiss.contrib.torch_utils

    resources = faiss.StandardGpuResources()

    def run(problem: Problem) -> Tensor:
        index = faiss.GpuIndexFlatIP(resources, problem.corpus.shape[1])
        index.add(problem.corpus.float())
        return filtered(lambda queries, depth: index.search(queries.float(), depth), problem, FAISS_GPU_DEPTH)

    return run


def cuvs() -> Run:
    """cuVS: brute force."""
    from cuvs.neighbors import brute_force

    def run(problem: Problem) -> Tensor:
        index = brute_force.build(problem.corpus, metric="inner_product")

        def search(queries: Tensor, depth: int) -> tuple[Tensor, Tensor]:
            scores, rows = brute_force.search(index, queries, depth)
            device = queries.device
            return torch.as_tensor(scores, device=device), torch.as_tensor(rows, device=device).long()

        return filtered(search, problem, len(problem.corpus))

    return run


def flashlib() -> Run:
    """flashlib: its distances are squared Euclidean ones, which order unit vectors alike."""
    from flashlib.primitives.knn import flash_knn

    def run(problem: Problem) -> Tensor:
        def search(queries: Tensor, depth: int) -> tuple[Tensor, Tensor]:
            distances, rows = flash_knn(queries.unsqueeze(0), problem.corpus.unsqueeze(0), depth)
            return 1 - distances.squeeze(0).float() / 2, rows.squeeze(0).long()

        return filtered(search, problem, len(problem.corpus))

    return run
