"""Batches of several sources: homogeneous, weighted, capped, shared among devices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_retrofit.data.mixture import Mixture
from lit_retrofit.data.options import SamplingOptions, SourceOptions
from lit_retrofit.data.records import Document, Record
from lit_retrofit.data.sampling import Draw
from lit_retrofit.data.table_stream import TableStream
from lit_retrofit.errors import UserError


def records(name: str, count: int, languages: Sequence[str] = ("de",), negatives: int = 0) -> list[Record]:
    return [
        Record(
            f"{name}{i}",
            f"query {name}{i}",
            (Document(f"p-{name}{i}", f"text {name}{i}"),),
            tuple(Document(f"n-{name}{i}-{k}", f"no {name}{i} {k}") for k in range(negatives)),
            language=languages[i % len(languages)],
            task=("title", "question")[i % 2],
        )
        for i in range(count)
    ]


def mixture(
    sizes: dict[str, int], options: SamplingOptions, weights: dict[str, float] | None = None, **arguments
) -> Mixture:
    sources = [
        (SourceOptions(name, weight=(weights or {}).get(name)), records(name, size, ("de", "en")))
        for name, size in sizes.items()
    ]
    return Mixture(sources, options, **arguments)


def epoch(mixed: Mixture, number: int = 0) -> list[list[Draw]]:
    return [mixed.batch(number, position) for position in range(len(mixed))]


def names(batch: Sequence[Draw]) -> list[str]:
    return [draw.record.id for draw in batch]


KINDS = {
    "source": lambda draw: draw.source.label,
    "language": lambda draw: draw.record.language,
    "task": lambda draw: draw.record.task,
}


@pytest.mark.parametrize("keys", [("source",), ("language",), ("task", "source"), ("source", "language")])
def test_homogeneous_batches(keys) -> None:
    mixed = mixture({"a": 40, "b": 26}, SamplingOptions(4, homogeneous=keys))
    batches = epoch(mixed)
    for batch in batches:
        assert len(batch) == 4
        assert len({tuple(KINDS[key](draw) for key in keys) for draw in batch}) == 1
    kinds = Counter(tuple(KINDS[key](batch[0]) for key in keys) for batch in batches)
    # In these records task and language go together.
    assert len(kinds) == 2 ** len(keys)
    order = [tuple(KINDS[key](batch[0]) for key in keys) for batch in batches]
    assert order != sorted(order)  # the sources' batches come mixed
    seen = list(chain(*map(names, batches)))
    assert len(set(seen)) == len(seen) == 66 - mixed.left_out


def test_batches_of_like_length() -> None:
    texts = ["x" * length for length in (4, 900, 5, 6, 1000, 7, 600, 700)]
    given = [Record(text, text, (Document(text, text),)) for text in texts]
    mixed = Mixture([(SourceOptions("a"), given)], SamplingOptions(4, homogeneous=("length",)))
    lengths = sorted(sorted(len(draw.record.query) for draw in batch) for batch in epoch(mixed))
    assert lengths == [[4, 5, 6, 7], [600, 700, 900, 1000]]


@pytest.mark.parametrize("share", [0.5, 0.75])
def test_most_of_a_batch_from_one_source(share: float) -> None:
    mixed = mixture(
        {"a": 400, "b": 240, "c": 5}, SamplingOptions(8, homogeneous=("source",), homogeneous_share=share)
    )
    batches = epoch(mixed)
    most = [Counter(draw.source.label for draw in batch).most_common(1)[0] for batch in batches]
    assert all(count >= 8 * share for _, count in most)
    assert {name for name, _ in most} == {"a", "b"}
    assert any(len({draw.source.label for draw in batch}) > 1 for batch in batches)
    seen = list(chain(*map(names, batches)))
    assert len(set(seen)) == len(seen)
    assert "c" in {name[0] for name in seen}  # too small to lead a batch, but part of the rest


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 30), min_size=1, max_size=4),
    st.integers(1, 9),
    st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_every_record_once_per_epoch(sizes, batch_size: int, number: int) -> None:
    mixed = mixture(sizes, SamplingOptions(batch_size))
    seen = list(chain(*map(names, epoch(mixed, number))))
    assert len(set(seen)) == len(seen) == sum(sizes.values()) - mixed.left_out
    assert mixed.left_out < mixed.shape.batch_size


@pytest.mark.parametrize("homogeneous", [(), ("source",)])
def test_weights_decide_how_often_a_source_is_seen(homogeneous) -> None:
    options = SamplingOptions(5, homogeneous=homogeneous)
    mixed = mixture({"a": 900, "b": 100}, options, {"a": 1, "b": 3})
    batches = epoch(mixed)
    seen = Counter(chain(*map(names, batches)))
    shares = Counter(name[0] for name in seen.elements())
    assert len(batches) == 200
    assert abs(shares["b"] / shares.total() - 0.75) < 0.01
    of_b = [count for name, count in seen.items() if name[0] == "b"]
    # Passes, one after another. Of each, the few records that fill no batch's part are left out.
    assert len(of_b) == 100 and max(of_b) - min(of_b) <= (1 if homogeneous else 2)
    assert max(count for name, count in seen.items() if name[0] == "a") == 1
    assert all(len(set(names(batch))) == 5 for batch in batches)
    # What an epoch leaves of the large source is another part in the next.
    other = Counter(chain(*map(names, epoch(mixed, 1))))
    assert {n for n in seen if n[0] == "a"} != {n for n in other if n[0] == "a"}


def test_alpha_lifts_small_sources() -> None:
    mixed = mixture({"a": 1600, "b": 100}, SamplingOptions(10, alpha=0.5, homogeneous=("source",)))
    shares = Counter(draw.source.label for batch in epoch(mixed) for draw in batch)
    assert abs(shares["b"] / shares.total() - 10 / 50) < 0.01  # 100^½ of 1600^½ + 100^½
    by_language = mixture({"a": 40}, SamplingOptions(10, alpha=0.0, homogeneous=("language",)))
    assert Counter(draw.record.language for batch in epoch(by_language) for draw in batch) == {
        "de": 20,
        "en": 20,
    }


@pytest.mark.parametrize("devices", [1, 2, 4])
@pytest.mark.parametrize("homogeneous", [(), ("source",), ("language",)])
def test_devices_share_the_batches_that_one_would_have(devices: int, homogeneous) -> None:
    options = SamplingOptions(8, homogeneous=homogeneous, negatives=1)
    sizes = {"a": 50, "b": 31}
    whole = epoch(mixture(sizes, options), 2)
    parts = [epoch(mixture(sizes, options, devices=devices, device=i), 2) for i in range(devices)]
    assert {len(part) for part in parts} == {len(whole)}
    for position, batch in enumerate(whole):
        shared = [part[position] for part in parts]
        assert {len(part) for part in shared} == {8 // devices}
        together = list(chain(*shared))
        assert names(together) == names(batch)
        assert [draw.place for draw in together] == list(range(8))
        assert len(set(names(together))) == 8
        assert [(d.positive, d.negatives) for d in together] == [(d.positive, d.negatives) for d in batch]
        for key in homogeneous:
            assert len({KINDS[key](draw) for draw in together}) == 1


def test_fewer_records_than_a_batch_are_shared_too() -> None:
    parts = [epoch(mixture({"a": 7}, SamplingOptions(64), devices=2, device=i)) for i in (0, 1)]
    assert [[len(batch) for batch in part] for part in parts] == [[3], [3]]


def test_a_devices_draws_know_those_of_all_devices() -> None:
    (whole,) = epoch(mixture({"a": 8}, SamplingOptions(8)))
    assert not any(draw.shared for draw in whole)
    for device in range(4):
        (part,) = epoch(mixture({"a": 8}, SamplingOptions(8), devices=4, device=device))
        assert {draw.shared for draw in part} == {tuple(whole)}


def test_streamed_and_held_sources_share_batches(write_parquet) -> None:
    path = write_parquet(
        [{"query": f"s{i}", "positive": f"text s{i}", "query_id": f"s{i}"} for i in range(60)]
    )
    source = SourceOptions(path, stream=True, shuffle_buffer=16)
    options = SamplingOptions(6)

    def mixed() -> Mixture:
        return Mixture([(source, TableStream(source)), (SourceOptions("a"), records("a", 30))], options)

    batches = epoch(mixed())
    seen = list(chain(*map(names, batches)))
    assert len(set(seen)) == len(seen) == 90
    assert sum(len({name[0] for name in names(batch)}) == 2 for batch in batches) > 10
    assert names(mixed().batch(0, 11)) == names(batches[11])
    assert epoch(mixed(), 1) != batches


def test_a_sources_own_number_of_negatives() -> None:
    sources = [
        (SourceOptions("a", negatives=3), records("a", 8, negatives=5)),
        (SourceOptions("b"), records("b", 8, negatives=5)),
    ]
    for batch in epoch(Mixture(sources, SamplingOptions(4, negatives=1))):
        for draw in batch:
            assert len(set(draw.negatives)) == {"a": 3, "b": 1}[draw.source.label]


def test_scores_go_with_what_is_drawn() -> None:
    positives = tuple(Document(f"p{i}", f"p{i}") for i in range(3))
    negatives = tuple(Document(f"n{i}", f"n{i}") for i in range(6))
    scored = Record("r", "q", positives, negatives, None, None, None, None, (0.0, 1.0, 2.0), tuple(range(6)))
    mixed = Mixture([(SourceOptions("a"), [scored])], SamplingOptions(1, negatives=3))
    for number in range(10):
        (draw,) = mixed.batch(number, 0)
        assert draw.positive.id == f"p{draw.positive_score:.0f}"
        assert [d.id for d in draw.negatives] == [f"n{score}" for score in draw.negative_scores]


BY_SOURCE = ("source",)
MOSTLY_ONE_SOURCE = SamplingOptions(8, homogeneous=BY_SOURCE, homogeneous_share=0.75)


@pytest.mark.parametrize(("sizes", "options", "weights", "message"), [
    ({"a": 20, "b": 3}, SamplingOptions(4, homogeneous=BY_SOURCE), None, "'b': 3 records, fewer than the 4"),
    ({"a": 20}, SamplingOptions(12, homogeneous=("language",)), None, "language '..': 10 records, fewer"),
    ({"a": 3}, SamplingOptions(4, homogeneous=BY_SOURCE, homogeneous_share=0.5), None, "fewer than"),
    ({"a": 90, "b": 5}, MOSTLY_ONE_SOURCE, {"a": 9, "b": 1}, "source 'b': 5 records, fewer than the 6"),
    ({"a": 90, "b": 3}, SamplingOptions(8), {"a": 1, "b": 1}, r"source 'b': its weight gives it 4 queries"),
    ({"a": 20, "b": 0}, SamplingOptions(4), None, r"source 'b' has no training records"),
])  # fmt: skip
def test_batches_that_cannot_be_filled(sizes, options, weights, message) -> None:
    with pytest.raises(UserError, match=message) as error:
        mixture(sizes, options, weights)
    assert "\n" not in str(error.value)


def test_devices_that_cannot_share() -> None:
    with pytest.raises(UserError, match=r"batch_size is 9, the queries of all 2 devices"):
        mixture({"a": 20}, SamplingOptions(9), devices=2)
    with pytest.raises(UserError, match=r"1 training records for 2 devices"):
        mixture({"a": 1}, SamplingOptions(2), devices=2)


def test_what_a_streamed_source_cannot_do(write_parquet) -> None:
    path = write_parquet([{"query": "q", "positive": "p"}])
    source = SourceOptions(path, stream=True)
    for options, message in (
        (SamplingOptions(1, homogeneous=("language",)), "cannot be told apart by language"),
        (SamplingOptions(1, neighbours=2), "neighbours need all records in memory"),
    ):
        with pytest.raises(UserError, match=message):
            Mixture([(source, TableStream(source))], options)
