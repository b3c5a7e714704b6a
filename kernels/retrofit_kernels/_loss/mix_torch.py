"""Nested prefixes in plain torch: from the exponentials of each prefix to the factors of the gradients."""

from __future__ import annotations

import torch
from torch import Tensor


def mix_strip(
    entries: Tensor,
    factor: Tensor,
    offset: Tensor,
    gain: Tensor,
    norms: tuple[Tensor, Tensor],
    tiles: list[slice],
) -> tuple[Tensor, Tensor]:
    """Turn the prefixes' exponentials into what each segment of the dimensions is multiplied with.

    A similarity at prefix m takes part in the gradients of all dimensions below m. So ``entries[k]`` becomes
    ``Σ_{m ≥ k} factor · exponential · row norm · column norm``, in place. The similarities are needed once
    more, for the norms' own gradients; they are recovered from the exponentials.

    Args:
        entries: (M, rows, N) exponentials, 0 where left out.
        factor: (M, rows).
        offset: (M, rows) that was taken from the exponents.
        gain: 0-d, factor of the similarities in the exponents.
        norms: (M, rows) and (M, N) inverse norms.
        tiles: columns worked on at a time.

    Returns:
        (M, rows) and (M, N): row and column sums of ``factor · exponential · similarity``.
    """
    prefixes, rows, columns = entries.shape
    by_row, by_column = entries.new_zeros(prefixes, rows), entries.new_zeros(prefixes, columns)
    for tile in tiles:
        for prefix in reversed(range(prefixes)):
            exponentials = entries[prefix, :, tile]
            similarity = exponentials.clamp(min=torch.finfo(entries.dtype).tiny).log_()
            similarity.add_(offset[prefix].unsqueeze(1)).div_(gain)
            exponentials.mul_(factor[prefix].unsqueeze(1))
            similarity.mul_(exponentials)
            by_row[prefix] += similarity.sum(1)
            by_column[prefix, tile] = similarity.sum(0)
            exponentials.mul_(norms[0][prefix].unsqueeze(1)).mul_(norms[1][prefix, tile])
            if prefix + 1 < prefixes:
                exponentials.add_(entries[prefix + 1, :, tile])
    return by_row, by_column
