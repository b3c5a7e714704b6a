"""Argument checks of the contrastive loss, all before anything is computed."""

from __future__ import annotations

import math
import reprlib
import sys
from itertools import pairwise
from typing import get_args

import torch
from torch import Tensor

from retrofit_kernels._shared.backend import why_not_triton
from retrofit_kernels._shared.checks import (
    check_bytes,
    check_embeddings,
    check_floats,
    check_integers,
    check_matching,
    check_same_dimension,
    check_type,
    check_values,
    compute_dtype,
    describe,
)
from retrofit_kernels._shared.pairs import PADDING, as_rows
from retrofit_kernels.options import (
    Backend,
    ContrastiveOptions,
    Guide,
    Precision,
    Reduction,
    Rule,
    Threshold,
)

FLAGS = ("query_to_query", "document_to_document", "both_directions", "check_finite")
SCALES = {torch.float32: 2.0**24, torch.float64: 2.0**900}
"""Largest scale, and the inverse of the least. In fp32, the logits of unit vectors err by up to 2^-22 of
the scale: far beyond 2^24 an exponential could overflow, although its row's largest logit is the offset. Far
below 2^-24, Triton's exponentials of pairs that are left out would not be 0 (see `LEFT_OUT`). In fp64,
products with the scale leave the range."""


def check_contrastive(
    queries: Tensor, documents: Tensor, scale: float | Tensor, options: ContrastiveOptions
) -> None:
    """Raise unless operands and options are of the right type, shape, device and value."""
    check_operands(queries, documents)
    _check_scale(scale, compute_dtype(queries.dtype))
    check_type("options", options, ContrastiveOptions)
    for name in FLAGS:
        check_type(name, getattr(options, name), bool)
    _check_tensors(queries, documents, options)
    _check_prefixes(queries.shape[1], options)
    _check_number("focal", options.focal, least=0.0)
    # It adds to the scale.
    _check_number("hardness", options.hardness, least=0.0, most=SCALES[compute_dtype(queries.dtype)])
    if options.false_negatives is not None:
        _check_threshold("false_negatives", options.false_negatives)
    for name, allowed in (("reduction", Reduction), ("precision", Precision), ("backend", Backend)):
        _check_choice(name, getattr(options, name), get_args(allowed))
    check_bytes("strip_bytes", options.strip_bytes)
    missing = why_not_triton(queries) if options.backend == "triton" else None
    if missing is not None:
        raise ValueError(f"backend 'triton' needs {missing}; leave it at 'auto'")
    if options.check_finite:
        named = {"queries": queries, "documents": documents}
        if options.guide is not None:
            named |= {"guide.queries": options.guide.queries, "guide.documents": options.guide.documents}
        for name, tensor in named.items():
            _check_finite(name, tensor)


def check_operands(queries: Tensor, documents: Tensor) -> None:
    """Raise unless both are matrices of embeddings that can be multiplied."""
    check_embeddings("queries", queries)
    check_embeddings("documents", documents)
    check_same_dimension("queries", queries, "documents", documents)
    if queries.dtype != documents.dtype:
        raise TypeError(
            f"queries and documents must have one dtype, but are {queries.dtype} and {documents.dtype}"
        )
    if queries.device != documents.device:
        raise ValueError(
            f"queries and documents must be on one device, but are on {queries.device} and {documents.device}"
        )
    check_values("queries", queries)


def checked_positives(positives: Tensor | None, queries: Tensor, documents: Tensor) -> Tensor:
    """(B, P) int64 positives; by default document i is query i's.

    Raises:
        TypeError: they are not int64.
        ValueError: a wrong shape or device, a document that does not exist, a query without a positive. The
            last two need the values: on a GPU that waits for it, and in a compiled graph it is not looked at.
    """
    rows, columns = len(queries), len(documents)
    if positives is None:
        if columns < rows:
            raise ValueError(
                f"documents must hold a positive for each of the {rows} queries, "
                f"but has {describe(documents)}; name them with positives"
            )
        return torch.arange(rows, device=documents.device).unsqueeze(1)
    check_integers("positives", positives, ((rows,), (rows, -1)), documents.device)
    several = positives.dim() == 2
    positives = as_rows(positives)
    if not rows:  # a batch of none has no column either, where its rows were padded to the longest
        return positives.new_empty(0, max(1, positives.shape[1]))
    if positives.shape[1] == 0:
        raise ValueError(f"positives must have a column or more, but has {describe(positives)}")
    if torch.compiler.is_compiling():
        return positives
    least = PADDING if several else 0
    if not bool(((positives >= least) & (positives < columns)).all()):
        low, high = int(positives.min()), int(positives.max())
        padding = ", or -1 for padding," if several else ""
        raise ValueError(
            f"positives must be from 0 to {columns - 1} (rows of documents){padding} but reach {low} … {high}"
        )
    alone = (positives == PADDING).all(1)
    if several and bool(alone.any()):
        raise ValueError(
            f"positives must name a document for each query, but row {int(alone.nonzero()[0])} is all -1"
        )
    return positives


def _check_tensors(queries: Tensor, documents: Tensor, options: ContrastiveOptions) -> None:
    rows, columns, device = len(queries), len(documents), queries.device
    ids = "query_ids", options.query_ids, ((rows,), (rows, -1))
    check_matching(ids, ("document_ids", options.document_ids, ((columns,),)), device)
    groups = "query_groups", options.query_groups, ((rows,),)
    check_matching(groups, ("document_groups", options.document_groups, ((columns,),)), device)
    if options.owners is not None:
        check_integers("owners", options.owners, ((columns,),), device)
        _check_owners(options.owners, rows)
    if options.weights is not None:
        check_floats("weights", options.weights, ((rows,),), device)
        if _values_are_here(device) and not bool(((options.weights >= 0) & options.weights.isfinite()).all()):
            raise ValueError("weights must be finite and at least 0")
    if options.guide is not None:
        _check_guide(options.guide, rows, columns, device)


def _check_owners(owners: Tensor, rows: int) -> None:
    if not owners.numel() or not _values_are_here(owners.device):
        return
    low, high = int(owners.min()), int(owners.max())
    if low < PADDING or high >= rows:
        raise ValueError(
            f"owners must be from 0 to {rows - 1} (rows of queries), or -1 for all queries, "
            f"but reach {low} … {high}"
        )


def _check_guide(guide: Guide, rows: int, columns: int, device: torch.device) -> None:
    check_type("guide", guide, Guide)
    for name, tensor, count in (
        ("guide.queries", guide.queries, rows),
        ("guide.documents", guide.documents, columns),
    ):
        check_embeddings(name, tensor)
        check_floats(name, tensor, ((count, -1),), device)
    check_same_dimension("guide.queries", guide.queries, "guide.documents", guide.documents)
    if guide.queries.dtype != guide.documents.dtype:
        raise TypeError(
            "guide.queries and guide.documents must have one dtype, "
            f"but are {guide.queries.dtype} and {guide.documents.dtype}"
        )
    _check_threshold("guide.threshold", guide.threshold)


def _check_threshold(name: str, threshold: Threshold) -> None:
    check_type(name, threshold, Threshold)
    _check_choice(f"{name}.rule", threshold.rule, get_args(Rule))
    _check_number(f"{name}.value", threshold.value)
    if threshold.rule == "percentage" and threshold.value <= 0:
        raise ValueError(
            f"{name}.value must be above 0 with the rule 'percentage', a share of the positive's similarity, "
            f"not {threshold.value}"
        )


def _check_prefixes(dimension: int, options: ContrastiveOptions) -> None:
    prefixes, weights = options.prefixes, options.prefix_weights
    if prefixes is None:
        if weights is not None:
            raise ValueError("prefix_weights must come with prefixes, but prefixes is None")
        return
    _check_numbers("prefixes", prefixes, int)
    rising = all(small < large for small, large in pairwise(prefixes))
    if not prefixes or not rising or prefixes[0] < 1 or prefixes[-1] > dimension:
        raise ValueError(
            f"prefixes must ascend from 1 or more to at most {dimension} (the dimension), not {prefixes}"
        )
    if weights is None:
        return
    _check_numbers("prefix_weights", weights, (int, float))
    if len(weights) != len(prefixes) or not all(0 <= weight <= sys.float_info.max for weight in weights):
        raise ValueError(f"prefix_weights must be {len(prefixes)} numbers of at least 0, not {weights}")


def _values_are_here(device: torch.device) -> bool:
    """Whether values can be looked at without waiting for a GPU or breaking a compiled graph."""
    return device.type == "cpu" and not torch.compiler.is_compiling()


def _check_numbers(name: str, values: object, kind: type | tuple[type, ...]) -> None:
    """Raise unless `values` is a tuple (or list) of numbers of a kind, truth values not among them."""
    right = isinstance(values, (tuple, list)) and all(
        isinstance(value, kind) and not isinstance(value, bool) for value in values
    )
    if not right:
        whole = "whole numbers" if kind is int else "numbers"
        raise TypeError(f"{name} must be a tuple of {whole}, not {values!r}")


def _check_number(
    name: str, value: float, least: float = -math.inf, most: float = sys.float_info.max
) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    # Comparisons: where a number is dynamic, math.isfinite breaks the graph of torch.compile.
    if not max(least, -sys.float_info.max) <= value <= most:
        bound = "" if least == -math.inf else f" of at least {least:g}"
        bound += "" if most == sys.float_info.max else f" and at most {most:.0e}"
        raise ValueError(f"{name} must be a finite number{bound}, not {reprlib.repr(value)}")


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        *others, last = (repr(choice) for choice in allowed)
        raise ValueError(f"{name} must be {', '.join(others)} or {last}, not {value!r}")


def _check_finite(name: str, tensor: Tensor) -> None:
    finite = tensor.detach().isfinite().all(1)
    if not bool(finite.all()):
        raise ValueError(f"{name} must be finite, but row {int((~finite).nonzero()[0])} is not")


def _check_scale(scale: float | Tensor, dtype: torch.dtype) -> None:
    if isinstance(scale, Tensor):
        if scale.dim() != 0:
            raise ValueError(f"scale must be a number or a 0-d tensor, but has {describe(scale)}")
        if not scale.is_floating_point():
            raise TypeError(f"scale must be floating point, but has {describe(scale)}")
        check_values("scale", scale)
        if not _values_are_here(scale.device):
            return
        scale = scale.item()
    elif isinstance(scale, bool) or not isinstance(scale, (int, float)):
        raise TypeError(f"scale must be a number or a 0-d tensor, not {type(scale).__name__}")
    if not 0 < scale < math.inf:
        raise ValueError(
            f"scale (1 / temperature) must be a finite number above 0, not {reprlib.repr(scale)}"
        )
    largest = SCALES[dtype]
    if not 1 / largest <= scale <= largest:
        raise ValueError(
            f"scale (1 / temperature) must be from {1 / largest:.0e} to {largest:.0e} for logits in {dtype}, "
            f"not {reprlib.repr(scale)}"
        )
