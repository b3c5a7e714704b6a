"""Which weight is picked."""

from types import SimpleNamespace

import pytest
import torch

from lit_retrofit.data.records import Document, Query, RetrievalSet
from lit_retrofit.errors import UserError
from lit_retrofit.merging import scan
from lit_retrofit.merging.scan import Point, check_protectable, pick, scan_weights


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
    merged = SimpleNamespace(encoder=SimpleNamespace(device="cpu"), set_weight=lambda weight: None)
    scan_weights(merged, [0.5], held_out, None)  # type: ignore[arg-type]
    assert told == [f"weight {w}: {side}" for w in ("0", "0.5", "1") for side in ("queries", "documents")]


def test_codes_are_compared_as_languages(monkeypatch) -> None:
    """Trained on `deu_Latn`, a model is measured on `de`: no language is left to protect."""
    queries = tuple(Query(f"q-{tag}", "?", tag) for tag in ("de", "en"))
    corpus = tuple(Document(f"d-{tag}", "!", tag) for tag in ("de", "en"))
    held_out = RetrievalSet("dev", queries, corpus, {f"q-{tag}": {f"d-{tag}": 1} for tag in ("de", "en")})
    check_protectable(held_out, frozenset({"en-US"}), "en")
    with pytest.raises(UserError, match="protect_untrained"):
        check_protectable(held_out, frozenset({"en-US", "deu_Latn"}), "en")
    monkeypatch.setattr(scan, "embed_texts", lambda encoder, texts, role, description: torch.eye(2, 4))
    merged = SimpleNamespace(encoder=SimpleNamespace(device="cpu"), set_weight=lambda weight: None)
    both, one = (
        scan_weights(merged, [], held_out, frozenset(trained))[0].untrained  # type: ignore[arg-type]
        for trained in ({"eng", "de-AT"}, {"eng"})
    )
    assert both is None and one == 1.0
