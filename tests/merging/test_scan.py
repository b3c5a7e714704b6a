"""Which weight is picked."""

from types import SimpleNamespace

import torch

from lit_retrofit.data.records import Document, Query, RetrievalSet
from lit_retrofit.merging import scan
from lit_retrofit.merging.scan import Point, pick, scan_weights


def points(*rows: tuple[float, float, float | None]) -> list[Point]:
    return [Point(weight, score, untrained, {}, ()) for weight, score, untrained in rows]


def test_the_best_is_picked_and_of_equals_the_one_nearest_to_the_base() -> None:
    found = points((0.0, 0.1, None), (0.5, 0.4, None), (0.8, 0.4, None), (1.0, 0.3, None))
    assert pick(found, protect_untrained=False).weight == 0.5


def test_languages_never_trained_on_can_be_protected() -> None:
    found = points((0.0, 0.1, 0.50), (0.3, 0.2, 0.50), (0.6, 0.4, 0.49), (1.0, 0.5, 0.2))
    assert pick(found, protect_untrained=False).weight == 1.0
    assert pick(found, protect_untrained=True).weight == 0.3
    # The base itself is always allowed.
    assert pick(points((0.0, 0.3, 0.5), (1.0, 0.9, 0.4)), protect_untrained=True).weight == 0.0


def test_what_is_embedded_is_told_of_each_weight(monkeypatch) -> None:
    told = []

    def embed(encoder, texts, role, *, description):
        told.append(description)
        return torch.eye(1, 4)

    monkeypatch.setattr(scan, "embed_texts", embed)
    held_out = RetrievalSet("dev", (Query("q", "?"),), (Document("d", "!"),), {"q": {"d": 1}})
    merged = SimpleNamespace(encoder=None, set_weight=lambda weight: None)
    scan_weights(merged, [0.5], held_out, None)  # type: ignore[arg-type]
    assert told == [f"weight {w}: {side}" for w in ("0", "0.5", "1") for side in ("queries", "documents")]
