"""All filters in their order: what costs nothing first, the round trip, the cap."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from lit_retrofit.model.device import choose_device
from lit_retrofit.model.loading import load_encoder
from lit_retrofit.retrieval.embed import embed_texts
from lit_retrofit.synthesis.documents import SourceDocument
from lit_retrofit.synthesis.drafts import Draft
from lit_retrofit.synthesis.filters import FilterOptions, Report, apply_filters, cap_per_language
from lit_retrofit.synthesis.round_trip import Embed, keep_found


def load_retriever(filters: FilterOptions) -> Embed | None:
    """Loaded before anything is paid for: a wrong name stops here."""
    if filters.retriever is None:
        return None
    encoder = load_encoder(filters.retriever).to(choose_device("auto"))
    return partial(embed_texts, encoder, precision="auto", description="Round trip")


def run_filters(
    drafts: Sequence[Draft],
    sources: Sequence[SourceDocument],
    filters: FilterOptions,
    embed: Embed | None,
    seed: int,
) -> tuple[list[Draft], Report]:
    """The drafts that every filter lets through, and what each took away."""
    kept, report = apply_filters(drafts, filters, seed)
    if embed and kept:
        corpus = [source.document for source in sources]
        kept, report["round trip"] = keep_found(kept, corpus, filters.round_trip_k, embed)
    kept, report["beyond per_language, not drawn"] = cap_per_language(kept, filters.per_language, seed)
    return kept, report
