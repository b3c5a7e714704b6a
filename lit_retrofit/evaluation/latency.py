"""How long one query takes: embedding it, and searching for it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lit_retrofit.model.device import Precision, free_memory
from lit_retrofit.model.dual import Encoders
from lit_retrofit.retrieval.embed import embed_texts
from lit_retrofit.retrieval.search import search

QUERIES = 30


def measure_latency(
    encoder: Encoders, texts: Sequence[str], corpus: Tensor, precision: Precision
) -> dict[str, float]:
    """Times single queries one after the other, the first three not counted.

    Args:
        encoder: on the device to use.
        texts: queries, of which the first 30 that differ are taken.
        corpus: (N, D) float32, searched exactly, ten documents deep; on the device, where it takes at most
            half of the free memory, and else read from where it is.
        precision: of the model.

    Returns:
        Median and 95th percentile of embedding and of searching, milliseconds, with the sizes they are for.
    """
    asked = list(dict.fromkeys(texts))[:QUERIES]
    corpus = _placed(corpus, encoder.device)
    embedding, searching = [], []
    for text in [*asked[:3], *asked]:
        started = _now(encoder)
        vector = embed_texts(encoder, [text], "query", precision=precision)
        embedded = _now(encoder)
        search(vector.to(encoder.device), corpus, min(10, len(corpus)))
        embedding.append(1000 * (embedded - started))
        searching.append(1000 * (_now(encoder) - embedded))
    warm = min(3, len(asked))
    return {
        "queries": len(asked),
        "documents": len(corpus),
        **_percentiles("embed", embedding[warm:]),
        **_percentiles("search", searching[warm:]),
    }


def _placed(corpus: Tensor, device: torch.device) -> Tensor:
    fits = device.type != "cpu" and 2 * corpus.nbytes <= free_memory(device)
    return corpus.to(device) if fits else corpus


def _now(encoder: Encoders) -> float:
    """Seconds, once the device has done what it was given."""
    if encoder.device.type == "cuda":
        torch.cuda.synchronize(encoder.device)
    return time.perf_counter()


def _percentiles(name: str, milliseconds: Sequence[float]) -> dict[str, float]:
    return {f"{name}_ms_p{p}": float(np.percentile(milliseconds, p)) for p in (50, 95)}
