"""The embedding space before and after: a projection to two dimensions, and what the whole space says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import orthogonal_procrustes
from sklearn.decomposition import PCA

from lit_retrofit.report.sample import SampledText

SIZE, _MARGIN = 340, 12
COLOURS = 8


@dataclass(frozen=True, slots=True)
class Dot:
    """A text in the picture; ``colour`` is the number of its language, 0 for those beyond `COLOURS`."""

    x: float
    y: float
    text: SampledText
    colour: int


@dataclass(frozen=True, slots=True)
class Structure:
    """What the whole space, not its projection, says of the sample.

    Attributes:
        same_page: mean cosine of documents of one page in different languages; None without such pairs.
        same_language: mean cosine of documents of one language on different pages; None without such pairs.
        by_language: the share of the documents' variance that lies between the means of the languages.
        shown: the share of all variance that the two drawn dimensions have.
    """

    same_page: float | None
    same_language: float | None
    by_language: float
    shown: float


@dataclass(frozen=True, slots=True)
class Panel:
    """One side's picture.

    Attributes:
        name: of the side.
        dots: the texts, documents first.
        links: polylines that join the texts of a page, "x,y x,y …".
        structure: figures.
    """

    name: str
    dots: tuple[Dot, ...]
    links: tuple[str, ...]
    structure: Structure


@dataclass(frozen=True, slots=True)
class Space:
    """The pictures of both sides over the same texts.

    Attributes:
        panels: before and after.
        languages: name → number of the colour, 0 for those beyond `COLOURS`.
        texts: in the sample.
        pages: in the sample.
    """

    panels: tuple[Panel, Panel]
    languages: dict[str, int]
    texts: int
    pages: int


def picture(
    sample: Sequence[SampledText],
    names: tuple[str, str],
    before: NDArray[np.float32],
    after: NDArray[np.float32],
) -> Space:
    """Draws both sides' embeddings of the same texts.

    Each side is projected by a PCA of its own; the second picture is turned, or mirrored, to lie as closely
    as it can on the first (orthogonal Procrustes), so that only what moved looks moved.

    Args:
        sample: the texts, three at least.
        names: of the sides.
        before: (texts, dimension) embeddings of the first model.
        after: the same of the second; its dimension may be another one.
    """
    counts: dict[str, int] = {}
    for text in sample:
        counts[text.language] = counts.get(text.language, 0) + 1
    ordered = sorted(counts, key=lambda language: (-counts[language], language))
    languages = {name: at + 1 if at < COLOURS else 0 for at, name in enumerate(ordered)}
    first, shown_before = project(before)
    second, shown_after = project(after)
    second = second @ orthogonal_procrustes(_unit(second), _unit(first))[0]
    panels = (
        _panel(names[0], sample, first, languages, structure(sample, before, shown_before)),
        _panel(names[1], sample, second, languages, structure(sample, after, shown_after)),
    )
    return Space(panels, dict(sorted(languages.items())), len(sample), len({t.page for t in sample}))


def project(embeddings: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
    """The first two principal components, and the share of the variance that they have."""
    # the full decomposition is the one without random numbers
    found = PCA(n_components=2, svd_solver="full")
    with np.errstate(invalid="ignore"):  # all texts alike: no variance to share
        points = found.fit_transform(np.asarray(embeddings, np.float64))
    share = np.nan_to_num(found.explained_variance_ratio_)
    return points, float(share.sum())


def structure(sample: Sequence[SampledText], embeddings: NDArray[np.float32], shown: float) -> Structure:
    """Figures of the documents in the whole space.

    Args:
        sample: the texts.
        embeddings: (texts, dimension) of any length.
        shown: share of the variance in the picture.
    """
    rows = [row for row, text in enumerate(sample) if text.role == "document"]
    vectors = np.asarray(embeddings, np.float64)[rows]
    page = np.array([sample[row].page for row in rows])
    language = np.array([sample[row].language for row in rows])
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    cosine = unit @ unit.T
    pairs = np.triu(np.ones_like(cosine, dtype=bool), 1)
    alike, together = language[:, None] == language, page[:, None] == page
    means = np.stack([vectors[language == name].mean(axis=0) for name in language])
    spread = ((vectors - vectors.mean(axis=0)) ** 2).sum()
    between = ((means - vectors.mean(axis=0)) ** 2).sum()
    return Structure(
        same_page=_mean(cosine[pairs & together & ~alike]),
        same_language=_mean(cosine[pairs & alike & ~together]),
        by_language=float(between / spread) if spread else 0.0,
        shown=shown,
    )


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None


def _unit(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return points / max(float(np.linalg.norm(points)), 1e-12)


def _panel(
    name: str,
    sample: Sequence[SampledText],
    points: NDArray[np.float64],
    languages: dict[str, int],
    found: Structure,
) -> Panel:
    places = _fit(points)
    dots = [
        Dot(x, y, text, languages[text.language]) for (x, y), text in zip(places, sample, strict=True)
    ]  # fmt: skip
    by_page: dict[int, list[str]] = {}
    for dot in dots:
        by_page.setdefault(dot.text.page, []).append(f"{dot.x},{dot.y}")
    # a star around the query, which comes first
    links = tuple(" ".join(f"{ends[0]} {end}" for end in ends[1:]) for ends in by_page.values())
    drawn = sorted(dots, key=lambda dot: dot.text.role == "query")  # queries above documents
    return Panel(name, tuple(drawn), links, found)


def _fit(points: NDArray[np.float64]) -> list[tuple[float, float]]:
    """The points in a square, one scale for both axes."""
    low, high = points.min(axis=0), points.max(axis=0)
    middle, span = (low + high) / 2, float((high - low).max()) or 1.0
    places = SIZE / 2 + (points - middle) / span * (SIZE - 2 * _MARGIN) * np.array([1, -1])
    return [(round(x, 1), round(y, 1)) for x, y in places.tolist()]
