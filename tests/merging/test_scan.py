"""Which weight is picked."""

from lit_retrofit.merging.scan import Point, pick


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
