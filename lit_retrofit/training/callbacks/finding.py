"""The search for negatives with the model in training, shared between the ranks."""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from lightning import Trainer
from torch import Tensor

from lit_retrofit.data.sampling import Prompted
from lit_retrofit.mining.find import Finding, find_negatives
from lit_retrofit.mining.pool import Pool
from lit_retrofit.mining.rules import MiningRules
from lit_retrofit.model.device import Precision
from lit_retrofit.model.dual import Encoders
from lit_retrofit.model.encoder import Encoder
from lit_retrofit.model.tokenizer import Role
from lit_retrofit.retrieval.embed import embed_texts
from lit_retrofit.training.callbacks.gathering import gather_embeddings


def find_with_ranks(
    pool: Pool, rules: MiningRules, encoder: Encoders, token_budget: int | None, trainer: Trainer
) -> tuple[list[Finding], dict[str, int]]:
    """Every rank embeds its share; the first searches and tells the others.

    Returns:
        What was found for each query of the pool, and how many candidates each rule dropped.
    """
    found: dict[int, Finding] = {}
    drops: Counter[str] = Counter()
    for places, part in pool.by_document_prompt():
        queries, documents = (
            _embed(encoder, texts, role, token_budget, trainer) for role, texts in _prompted(part).items()
        )
        if queries is None or documents is None:
            continue
        findings, counts = find_negatives(part, queries, documents, rules, device=encoder.device)
        found.update(zip(places, findings, strict=True))
        drops.update(counts)
    told: Any = trainer.strategy.broadcast(([found[at] for at in sorted(found)], dict(drops)))
    return told


def _prompted(pool: Pool) -> dict[Role, list[Prompted]]:
    """The texts of a pool whose queries agree on the documents' prompt."""
    prompts = pool.queries[0].prompts
    return {
        "query": [(query.text, query.prompts and query.prompts.query) for query in pool.queries],
        "document": [(document.text, prompts and prompts.document) for document in pool.documents],
    }


def _embed(
    encoder: Encoders, texts: Sequence[Prompted], role: Role, token_budget: int | None, trainer: Trainer
) -> Tensor | None:
    rows: dict[str | None, list[int]] = defaultdict(list)
    for row in range(trainer.global_rank, len(texts), trainer.world_size):
        rows[texts[row][1]].append(row)
    shard = [
        (torch.tensor(own), embed_texts(
            _with_prompt(encoder.of(role), role, prompt), [texts[row][0] for row in own], role,
            token_budget=token_budget, precision=precision_of(trainer),
            description=f"Mining: {role}s" if trainer.is_global_zero and _shows_progress(trainer) else None,
        ))
        for prompt, own in rows.items()
    ]  # fmt: skip
    if len(shard) == 1 and not dist.is_initialized():
        return shard[0][1]
    return gather_embeddings(shard, len(texts), trainer.strategy.root_device)


def _with_prompt(encoder: Encoder, role: Role, prompt: str | None) -> Encoder:
    """The encoder itself, its weights included, with another prompt of a role."""
    if prompt is None:
        return encoder
    other = copy.copy(encoder)
    other.tokenizer = replace(encoder.tokenizer, prompts={**encoder.tokenizer.prompts, role: prompt})
    return other


def precision_of(trainer: Trainer) -> Precision:
    """What the trainer calls it, as embedding calls it."""
    name = str(trainer.precision)
    return "bf16" if name.startswith("bf16") else "fp16" if name.startswith("16") else "fp32"


def _shows_progress(trainer: Trainer) -> bool:
    return trainer.progress_bar_callback is not None
