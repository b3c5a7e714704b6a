"""MinHash against the true Jaccard similarity."""

from __future__ import annotations

import random

import numpy as np
import pytest

from lit_retrofit.cleaning.signatures import VALUES, band_keys, band_rows, n_grams, sign, similarity


def words(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(2, 9))) for _ in range(count)]


def jaccard(first: str, second: str, size: int) -> float:
    grams = [{f" {t} "[i : i + size] for i in range(len(t) + 3 - size)} for t in (first, second)]
    return len(grams[0] & grams[1]) / len(grams[0] | grams[1])


def edited(text: list[str], changes: int, seed: int) -> str:
    rng = random.Random(seed)
    new = list(text)
    for place in rng.sample(range(len(text)), changes):
        new[place] = words(1, seed + place)[0] + "q"
    return " ".join(new)


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("changes", [0, 2, 10, 40])
def test_signatures_estimate_the_similarity_of_the_sets_of_n_grams(size, changes):
    errors = []
    for seed in range(20):
        text = words(80, seed)
        pair = " ".join(text), edited(text, changes, seed + 1000)
        signatures = sign(pair, size)
        errors.append(similarity(signatures[0], signatures[1]) - jaccard(*pair, size))
    assert np.abs(errors).max() < 4 * 0.5 / VALUES**0.5  # four standard deviations at most
    assert abs(np.mean(errors)) < 4 * 0.5 / (20 * VALUES) ** 0.5


def test_texts_that_fold_alike_have_one_signature_and_short_ones_have_some():
    first, second = sign(["Straße　Ｎｏ 1", "STRASSE\u200b no\n1"], 3)
    assert np.array_equal(first, second)
    one, other = sign(["x", "y"], 5)
    assert similarity(one, other) < 0.1


def test_a_long_text_is_hashed_in_pieces_to_the_same(monkeypatch):
    text = " ".join(words(3000, 1))
    whole = sign([text], 5)
    monkeypatch.setattr("lit_retrofit.cleaning.signatures._PIECE", 100)
    assert np.array_equal(whole, sign([text], 5))


def test_n_grams_count_characters_beyond_the_basic_plane_as_one():
    assert len(n_grams("😀😁😂😃", 2)) == 3
    assert len(n_grams("ab", 5)) == 1


@pytest.mark.parametrize(("threshold", "texts"), [(0.5, 1), (0.7, 2), (0.8, 1), (0.8, 2), (0.95, 2)])
def test_bands_find_95_percent_at_the_threshold(threshold, texts):
    """Signatures are drawn whose values agree with the threshold's probability, as MinHash's do."""
    rng = np.random.default_rng(0)
    rows = band_rows(threshold, texts)
    first = [rng.integers(0, 1 << 16, (4000, VALUES), dtype=np.uint16) for _ in range(texts)]
    second = [
        np.where(rng.random(part.shape) < threshold, part, part + 1).astype(np.uint16) for part in first
    ]
    found = np.zeros(4000, bool)
    for band in range(VALUES // rows):
        found |= band_keys(first, band, rows) == band_keys(second, band, rows)
    assert found.mean() > 0.94
    assert rows == 16 or 1 - (1 - threshold ** (texts * (rows + 1))) ** (VALUES // (rows + 1)) < 0.95


def test_no_two_different_bands_share_a_key():
    rng = np.random.default_rng(1)
    part = rng.integers(0, 1 << 16, (100_000, VALUES), dtype=np.uint16)
    assert len(np.unique(band_keys([part], 0, 4))) == len(np.unique(part[:, :4], axis=0))


@pytest.mark.parametrize("size", [1, 3, 5])
def test_every_character_of_an_n_gram_counts(size):
    text = "abcde"[:size]
    changed = [text[:i] + "x" + text[i + 1 :] for i in range(size)]
    assert len({int(n_grams(t, size)[0]) for t in [text, *changed]}) == size + 1
