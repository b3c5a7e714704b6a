"""Settings as the numbers and words that the schema of a torch operation knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from retrofit_kernels._loss.operands import Settings
from retrofit_kernels.options import Precision, Reduction, Rule, Threshold


def flatten(settings: Settings) -> tuple[list[int], list[float], str]:
    """The settings in types that the schema of an operation knows; `unflatten` is the inverse."""
    rules = settings.false_negatives, settings.guide_threshold
    integers = [
        settings.first_query,
        settings.strip_bytes,
        int(settings.query_to_query),
        int(settings.document_to_document),
        int(settings.both_directions),
        int(settings.renormalise),
        *settings.prefixes,
    ]
    numbers = [
        float(settings.hardness),
        float(settings.focal),
        *(0.0 if rule is None else float(rule.value) for rule in rules),
        *(float(weight) for weight in settings.prefix_weights),
    ]
    words = [settings.reduction, settings.precision, settings.backend]
    words += ["" if rule is None else rule.rule for rule in rules]
    return integers, numbers, ",".join(words)


def unflatten(integers: Sequence[int], numbers: Sequence[float], words: str) -> Settings:
    """The settings again."""
    first_query, strip_bytes, to_queries, to_documents, both, renormalise, *prefixes = integers
    hardness, focal, least, guide_least, *weights = numbers
    reduction, precision, backend, rule, guide_rule = words.split(",")
    return Settings(
        first_query=first_query,
        false_negatives=Threshold(least, cast(Rule, rule)) if rule else None,
        guide_threshold=Threshold(guide_least, cast(Rule, guide_rule)) if guide_rule else None,
        query_to_query=bool(to_queries),
        document_to_document=bool(to_documents),
        both_directions=bool(both),
        hardness=hardness,
        focal=focal,
        prefixes=tuple(prefixes),
        prefix_weights=tuple(weights),
        renormalise=bool(renormalise),
        reduction=cast(Reduction, reduction),
        precision=cast(Precision, precision),
        strip_bytes=strip_bytes,
        backend=backend,
    )
