"""Clustering: do texts of one label lie together, in every language."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lit_retrofit.data.fields import BadRow, Row, checked_text, optional_text
from lit_retrofit.data.hub import PREFIX, read_hub
from lit_retrofit.data.rows import read_rows
from lit_retrofit.errors import UserError, bad_field
from lit_retrofit.evaluation.measures import check_finite
from lit_retrofit.evaluation.results import TaskScores

SEEDS = 10
"""k-means is run from as many starting points, and the mean is reported, as in MTEB."""


@dataclass(frozen=True, slots=True)
class LabelledText:
    """One text.

    Attributes:
        text: without any prompt.
        label: what it should lie together with.
        language: where known.
    """

    text: str
    label: str
    language: str | None = None


def read_labelled(data: str) -> tuple[LabelledText, ...]:
    """Reads texts with labels.

    Args:
        data: a JSONL, CSV or parquet file, or a hub data set (``hf:…``), with a column ``text`` (or
            ``sentences``), a column ``label`` (or ``labels``) and perhaps ``language``.

    Raises:
        UserError: the file or a row is invalid, or there are fewer than two labels.
    """
    rows = read_hub(data) if data.startswith(PREFIX) else read_rows(Path(data))
    found = []
    for line, row in rows:
        try:
            found.append(_labelled(row))
        except BadRow as fault:
            raise bad_field(data, line, fault.field, fault.problem, fault.remedy) from None
    if len({text.label for text in found}) < 2:
        raise UserError(f"{data}: all {len(found)} texts have one label; clustering needs two at least")
    return tuple(found)


def _labelled(row: Row) -> LabelledText:
    text = "text" if "text" in row else "sentences"
    label = "label" if "label" in row else "labels"
    for field, name in ((text, "text"), (label, "label")):
        if field not in row:
            raise BadRow(name, "is missing", "give every row a text and a label")
    if not isinstance(row[label], str | int) or row[label] == "":
        raise BadRow(label, f"is {row[label]!r:.50}", "write one label, a string or an integer")
    return LabelledText(checked_text(row[text], text), str(row[label]), optional_text(row, "language"))


def cluster_embeddings(
    texts: tuple[LabelledText, ...], embeddings: Tensor, *, name: str, seed: int = 0
) -> tuple[list[TaskScores], tuple[str, ...]]:
    """V-measure (Rosenberg & Hirschberg 2007) of k-means with as many clusters as labels, per language.

    Args:
        texts: with labels.
        embeddings: (texts, D) float32.
        name: of the data, for messages.
        seed: of the first of the ten starting points.

    Returns:
        A task of kind ``clustering`` for each language with two labels at least, and sentences about the
        others.

    Raises:
        UserError: an embedding is not finite, or no language has two labels.
    """
    check_finite(name, embeddings)
    by_language: dict[str | None, list[int]] = {}
    for row, text in enumerate(texts):
        by_language.setdefault(text.language, []).append(row)
    tasks, notes = [], []
    for language, rows in sorted(by_language.items(), key=lambda item: item[0] or ""):
        labels = [texts[row].label for row in rows]
        kinds = len(set(labels))
        if kinds < 2 or kinds == len(labels):
            notes.append(
                f"{language or 'texts without a language'}: left out, {len(rows)} texts have {kinds} labels"
            )
            continue
        value = _v_measure(embeddings[torch.tensor(rows)].numpy(), labels, kinds, seed)
        tasks.append(TaskScores("clustering", language, language, len(rows), kinds, 0, {"V-measure": value}))
    if not tasks:
        raise UserError(f"{name}: no language has texts that share labels and two labels; {notes[0]}")
    return tasks, tuple(notes)


def _v_measure(vectors: np.ndarray, labels: list[str], clusters: int, seed: int) -> float:
    from sklearn.cluster import KMeans
    from sklearn.metrics import v_measure_score

    scores = [
        v_measure_score(labels, KMeans(clusters, n_init=1, random_state=seed + start).fit_predict(vectors))
        for start in range(SEEDS)
    ]
    return math.fsum(scores) / len(scores)
