"""Embeddings of all ranks on the first one, in the order of the texts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

Shard = Sequence[tuple[Tensor, Tensor]]


def gather_embeddings(shard: Shard, texts: int, device: torch.device) -> Tensor | None:
    """Puts together what the ranks have embedded; every rank must call it.

    Args:
        shard: this rank's micro-batches, (rows (n,) int64, embeddings (n, dimension) float32); how many
            may differ from rank to rank, and may be none.
        texts: how many there are in all.
        device: on which the process group can send: the GPU for nccl, the CPU for gloo.

    Returns:
        On rank 0 (texts, dimension) float32 on the CPU, or None where a text was not embedded. None on
        the other ranks. A row that several ranks embedded counts once.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return _placed(shard, texts)
    rows = torch.cat([rows.to(device) for rows, _ in shard] or [torch.empty(0, dtype=torch.long)]).to(device)
    sizes = _sizes(shard, len(rows), device)
    longest, width = sizes.amax(dim=0).tolist()
    embeddings = torch.zeros(longest, width, device=device)
    if shard:
        embeddings[: len(rows)] = torch.cat([vectors for _, vectors in shard]).to(device)
    rows = torch.cat([rows, rows.new_zeros(longest - len(rows))])
    all_rows, all_embeddings = _on_first(rows, len(sizes)), _on_first(embeddings, len(sizes))
    counts = sizes[:, 0].tolist()
    parts = zip(all_rows, all_embeddings, counts, strict=True) if dist.get_rank() == 0 else ()
    return _placed([(r[:n].cpu(), e[:n].cpu()) for r, e, n in parts], texts)


def _sizes(shard: Shard, rows: int, device: torch.device) -> Tensor:
    """(ranks, 2): how many rows each rank has, and their dimension (0 where it has none)."""
    own = torch.tensor([rows, shard[0][1].shape[1] if shard else 0], device=device)
    sizes = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, own)
    return torch.stack(sizes)


def _on_first(part: Tensor, ranks: int) -> list[Tensor]:
    """Equal shapes on every rank; a list of all of them on rank 0, none elsewhere."""
    parts = [torch.empty_like(part) for _ in range(ranks)] if dist.get_rank() == 0 else []
    dist.gather(part, parts or None)
    return parts


def _placed(shard: Shard, texts: int) -> Tensor | None:
    if not shard:
        return None
    placed = torch.empty(texts, shard[0][1].shape[1])
    missing = torch.ones(texts, dtype=torch.bool)
    for rows, embeddings in shard:
        placed[rows] = embeddings
        missing[rows] = False
    return None if missing.any() else placed
