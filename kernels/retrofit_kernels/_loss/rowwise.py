"""Products of single rows: positives' similarities, norms and gradients; nothing here is rows × columns."""

from __future__ import annotations

import torch
from torch import Tensor

from retrofit_kernels._shared.checks import compute_dtype

LEAST_NORM = 1e-12
"""What is shorter is not made a unit vector, as in torch.nn.functional.normalize."""


def segments(prefixes: tuple[int, ...]) -> list[slice]:
    """The dimensions that each prefix adds to the one before."""
    return [slice(begin, end) for begin, end in zip((0, *prefixes[:-1]), prefixes, strict=True)]


def inverse_norms(embeddings: Tensor, prefixes: tuple[int, ...]) -> Tensor:
    """(M, R): factors that make each of the M prefixes of the (R, D) embeddings a unit vector."""
    embeddings = embeddings.to(compute_dtype(embeddings.dtype))
    squares = torch.stack([embeddings[:, part].square().sum(1) for part in segments(prefixes)])
    return squares.cumsum(0).sqrt().clamp(min=LEAST_NORM).reciprocal()


def prefix_products(
    left: Tensor,
    right: Tensor,
    columns: Tensor,
    prefixes: tuple[int, ...],
    norms: tuple[Tensor | None, Tensor | None],
    room: int,
) -> Tensor:
    """Similarities of rows with columns of their own.

    Args:
        left: (R, D).
        right: (N, D).
        columns: (R, P) rows of `right`; -1 is padding, whose similarity means nothing.
        prefixes: M dimensions.
        norms: (M, R) and (M, N) inverse norms, or None.
        room: bytes for the embeddings of the columns: as many rows are worked on at a time.

    Returns:
        (M, R, P) in the type of computation.
    """
    dtype = compute_dtype(left.dtype)
    columns = columns.clamp(min=0)
    # The columns' embeddings, and the products with them, in the type of computation.
    row_bytes = 2 * columns.shape[1] * left.shape[1] * dtype.itemsize
    height = max(1, room // row_bytes)
    blocks = [
        _segment_products(
            left[begin : begin + height].to(dtype), right, columns[begin : begin + height], prefixes
        )
        for begin in range(0, max(1, len(left)), height)
    ]
    products = torch.cat(blocks, dim=1).cumsum(0)
    if norms[0] is not None and norms[1] is not None:
        products = products * norms[0].unsqueeze(2) * norms[1][:, columns]
    return products


def _segment_products(left: Tensor, right: Tensor, columns: Tensor, prefixes: tuple[int, ...]) -> Tensor:
    """(M, R, P) what each segment of the dimensions adds to the products."""
    others = right[columns].to(left.dtype)
    return torch.stack([(left[:, None, part] * others[..., part]).sum(2) for part in segments(prefixes)])


def from_each_prefix_on(values: Tensor) -> Tensor:
    """Sums over the first axis from each place to its end: what the dimensions of a segment get."""
    return values.flip(0).cumsum(0).flip(0)
