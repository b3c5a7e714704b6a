"""Smaller indexes of the same embeddings: shorter (Matryoshka), int8, binary."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lit_retrofit.errors import UserError

Code = Literal["float32", "int8", "binary"]
_WORD = re.compile(r"(?P<dimension>[0-9]+)?-?(?P<code>int8|binary|float32)?")


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to keep an embedding.

    Attributes:
        dimension: how many leading numbers of it are kept; None keeps all.
        code: what a kept number becomes in the index: float32, int8 (faiss's 8-bit scalar quantiser; queries
            stay float32) or binary (its sign, in queries too: the order is that of the Hamming distance).
    """

    dimension: int | None = None
    code: Code = "float32"

    @property
    def name(self) -> str:
        """As the user writes it: ``256``, ``int8``, ``256-int8``."""
        parts = [str(self.dimension)] if self.dimension else []
        return "-".join(parts + ([self.code] if self.code != "float32" or not parts else []))

    def index_bytes(self, documents: int, dimension: int) -> int:
        """Bytes of the documents' vectors in a flat index.

        Args:
            documents: in the corpus.
            dimension: of the model's embeddings.
        """
        numbers = self.dimension or dimension
        bits = {"float32": 32, "int8": 8, "binary": 1}[self.code]
        return documents * ((numbers * bits + 7) // 8)


def parse_variants(words: Sequence[str]) -> tuple[Variant, ...]:
    """Reads ``256``, ``int8``, ``256-binary`` and the like.

    Raises:
        UserError: a word is none of these, or appears twice.
    """
    found: list[Variant] = []
    for word in map(str, words):
        match = _WORD.fullmatch(word)
        if not word or match is None or (match["dimension"] and int(match["dimension"]) < 1):
            raise UserError(
                f"variants: '{word}' is none; write a dimension, int8 or binary, or both as in 256-int8"
            )
        dimension = int(match["dimension"]) if match["dimension"] else None
        variant = Variant(dimension, match["code"] or "float32")  # type: ignore[arg-type]
        if variant in found:
            raise UserError(f"variants: '{word}' is there twice; write each once")
        found.append(variant)
    return tuple(found)


def check_variants(variants: Sequence[Variant], dimension: int, model: str) -> None:
    """Refuses dimensions that a model does not have.

    Raises:
        UserError: a variant keeps more numbers than an embedding has.
    """
    for variant in variants:
        if variant.dimension and variant.dimension > dimension:
            raise UserError(
                f"variants: '{variant.name}' keeps {variant.dimension} numbers, and embeddings of {model} "
                f"have {dimension}; leave it out or make it smaller"
            )


def compress(variant: Variant, queries: Tensor, corpus: Tensor, *, normalise: bool) -> tuple[Tensor, Tensor]:
    """Embeddings whose inner products are the scores that the variant's index gives.

    Args:
        variant: what to keep.
        queries: (Q, D) float32 on the CPU.
        corpus: (N, D) likewise.
        normalise: whether the model's embeddings have length one: shortened ones get it again.

    Returns:
        (Q, d) and (N, d) float32.
    """
    if variant.dimension:
        queries, corpus = (vectors[:, : variant.dimension] for vectors in (queries, corpus))
        if normalise:
            queries, corpus = (torch.nn.functional.normalize(vectors) for vectors in (queries, corpus))
    if variant.code == "int8":
        return queries, _through_int8(corpus)
    if variant.code == "binary":
        # ⟨±1, ±1⟩ = d − 2·Hamming distance
        return tuple(torch.where(vectors > 0, 1.0, -1.0) for vectors in (queries, corpus))  # type: ignore[return-value]
    return queries, corpus


def _through_int8(corpus: Tensor) -> Tensor:
    """What a document is after the index has coded it and reads it again."""
    import faiss

    vectors = corpus.contiguous().numpy()
    index = faiss.IndexScalarQuantizer(
        vectors.shape[1], faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    index.train(vectors)
    return torch.from_numpy(index.sa_decode(index.sa_encode(vectors)))
