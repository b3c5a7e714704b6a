"""Which records are drawn when: counted over epochs, stopped and resumed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain, islice

import pytest

from lit_retrofit.data.loader import DrawLoader
from lit_retrofit.data.mixture import Mixture
from lit_retrofit.data.options import SamplingOptions, SourceOptions
from lit_retrofit.data.records import Document, Record
from lit_retrofit.data.sampling import Draw
from lit_retrofit.errors import UserError


def document(name: str, language: str | None = None) -> Document:
    return Document(name, f"text of {name}", language)


def pairs(count: int, negatives: int = 0) -> list[Record]:
    return [
        Record(
            f"r{i}",
            f"query {i}",
            (document(f"p{i}"),),
            tuple(document(f"n{i}-{k}") for k in range(negatives)),
        )
        for i in range(count)
    ]


def pages(count: int, languages: Sequence[str] = ("de", "en", "ru"), negatives: int = 0) -> list[Record]:
    """A record per page and language; all languages' versions of the page are positives."""
    return [
        Record(
            f"{page}@{language}",
            f"query {page} {language}",
            tuple(
                document(f"d{page}@{name}", name)
                for name in (language, *(x for x in languages if x != language))
            ),
            tuple(document(f"n{page}-{k}") for k in range(negatives)),
            language=language,
            group=f"page {page}",
        )
        for page in range(count)
        for language in languages
    ]


def drawing(records: Sequence[Record], options: SamplingOptions, workers: int = 0) -> DrawLoader:
    return DrawLoader(Mixture([(SourceOptions("a"), records)], options), list, workers)


def epochs(sampler: DrawLoader, count: int) -> list[list[list[Draw]]]:
    return [list(sampler) for _ in range(count)]


def ids(batches: Sequence[Sequence[Draw]]) -> list[list[str]]:
    return [[draw.record.id for draw in batch] for batch in batches]


OPTIONS = [
    SamplingOptions(batch_size=4, negatives=2, cross_lingual=0.5),
    SamplingOptions(batch_size=4, negatives=0),
    SamplingOptions(batch_size=4, negatives=1, neighbours=2),
]


@pytest.mark.parametrize("options", OPTIONS, ids=["across languages", "own language", "neighbours"])
def test_the_same_seed_draws_the_same_and_epochs_differ(options: SamplingOptions) -> None:
    records = pages(5, negatives=4)
    first, second = (epochs(drawing(records, options), 3) for _ in range(2))
    assert first == second
    assert first[0] != first[1] != first[2] != first[0]
    other = SamplingOptions(**{**vars(options), "seed": 1})
    assert epochs(drawing(records, other), 1) != first[:1]


@pytest.mark.parametrize("options", OPTIONS, ids=["across languages", "own language", "neighbours"])
def test_an_epoch_holds_every_record_once_but_those_left_out(options: SamplingOptions) -> None:
    records = pages(5)  # 15 records, batches of 4: 3 are left out
    sampler = drawing(records, options)
    rests = []
    for batches in epochs(sampler, 6):
        assert len(batches) == len(sampler) == 3
        assert {len(batch) for batch in batches} == {4}
        seen = list(chain(*ids(batches)))
        assert len(set(seen)) == len(seen) == len(records) - sampler.mixture.left_out == 12
        rests.append({record.id for record in records} - set(seen))
    assert len({frozenset(rest) for rest in rests}) > 1  # not the same records every time


@pytest.mark.parametrize(("count", "size", "batches", "left_out"), [
    (8, 4, 2, 0), (9, 4, 2, 1), (3, 64, 1, 0), (4, 4, 1, 0), (1, 4, 1, 0), (5, 1, 5, 0),
])  # fmt: skip
def test_as_many_batches_as_promised(count: int, size: int, batches: int, left_out: int) -> None:
    sampler = drawing(pairs(count), SamplingOptions(batch_size=size))
    assert (len(sampler), sampler.mixture.left_out) == (batches, left_out)
    assert [len(list(sampler)) for _ in range(3)] == [batches] * 3


@pytest.mark.parametrize("options", OPTIONS, ids=["across languages", "own language", "neighbours"])
@pytest.mark.parametrize("stop", [0, 1, 2, 3, 4, 5, 6, 7])
def test_resumes_where_it_was_stopped(options: SamplingOptions, stop: int) -> None:
    records = pages(5, negatives=4)
    expected = list(chain(*epochs(drawing(records, options), 3)))

    def endless(sampler: DrawLoader):
        while True:
            yield from sampler

    sampler = drawing(records, options)
    before = list(islice(endless(sampler), stop))
    resumed = drawing(records, options)
    resumed.load_state_dict(sampler.state_dict())
    after = list(islice(endless(resumed), 9 - stop))
    assert before + after == expected


def test_a_state_may_be_loaded_into_a_sampler_that_was_used() -> None:
    expected = epochs(drawing(pairs(12), SamplingOptions(batch_size=4)), 1)[0]
    sampler = drawing(pairs(12), SamplingOptions(batch_size=4))
    epochs(sampler, 2)
    sampler.load_state_dict({**sampler.state_dict(), "epoch": 0, "position": 1})
    assert list(sampler) == expected[1:]


def test_an_epoch_ends_with_its_last_batch_even_if_nobody_asks_for_more() -> None:
    """A trainer that knows the length takes that many batches and opens the next epoch."""
    expected = epochs(drawing(pairs(12), SamplingOptions(batch_size=4)), 3)
    sampler = drawing(pairs(12), SamplingOptions(batch_size=4))
    assert [list(islice(iter(sampler), len(sampler))) for _ in range(3)] == expected


def test_an_abandoned_epoch_is_not_continued_in_the_next() -> None:
    """With fewer batches per epoch than there are, each epoch is drawn from all records."""
    whole = epochs(drawing(pairs(12), SamplingOptions(batch_size=4)), 3)
    sampler = drawing(pairs(12), SamplingOptions(batch_size=4))
    assert [list(islice(iter(sampler), 2)) for _ in range(3)] == [batches[:2] for batches in whole]


def loader(workers: int) -> DrawLoader:
    return drawing(pairs(12, negatives=3), SamplingOptions(batch_size=4, negatives=1), workers)


def take(source: DrawLoader, count: int) -> list[list[Draw]]:
    """As a trainer does: no more than the loader's length, which must be there."""
    batches = list(islice(iter(source), count))
    assert len(batches) == count <= len(source)
    return batches


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_the_loader_resumes_within_and_between_epochs(workers: int, stop: int) -> None:
    uninterrupted = loader(workers)
    expected = [take(uninterrupted, 3) for _ in range(3)]
    assert len({record for record in chain(*ids(expected[1]))}) == 12
    assert ids(expected[0]) != ids(expected[1]) != ids(expected[2])

    stopped = loader(workers)
    take(stopped, 3)
    found, source = [], iter(stopped)
    for _ in range(stop):
        found.append(next(source))
    state = stopped.state_dict()
    resumed = loader(workers)
    resumed.load_state_dict(state)
    if stop < 3:
        found += list(iter(resumed))
    assert found == expected[1]
    assert take(resumed, 3) == expected[2]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_an_iterator_that_is_not_read_draws_nothing(workers: int) -> None:
    """A trainer that resumes between two epochs opens two iterators and reads the second."""
    expected = loader(workers)
    take(expected, 3)
    state = expected.state_dict()
    resumed = loader(workers)
    resumed.load_state_dict(state)
    unread = iter(resumed)
    assert take(resumed, 3) == take(expected, 3)
    del unread


def test_negatives_are_the_records_own_without_repetition_and_anew_in_each_epoch() -> None:
    records = pairs(8, negatives=5)
    sampler = drawing(records, SamplingOptions(batch_size=8, negatives=3))
    seen: Counter[str] = Counter()
    for batches in epochs(sampler, 200):
        for draw in chain(*batches):
            assert len(set(draw.negatives)) == 3
            assert set(draw.negatives) <= set(draw.record.negatives)
            seen.update(d.id for d in draw.negatives if draw.record.id == "r0")
    # 200 draws of 3 of 5: each 120 times, standard deviation 6.9.
    assert len(seen) == 5
    assert all(abs(count - 120) < 30 for count in seen.values())


def test_fewer_negatives_than_asked_for() -> None:
    records = [*pairs(2, negatives=2), *pairs(3)[2:]]
    (batch,) = drawing(records, SamplingOptions(batch_size=3, negatives=7))
    assert sorted(len(draw.negatives) for draw in batch) == [0, 2, 2]
    (batch,) = drawing(records, SamplingOptions(batch_size=3, negatives=0))
    assert [draw.negatives for draw in batch] == [()] * 3


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_share_of_positives_in_another_language(share: float) -> None:
    sampler = drawing(pages(100), SamplingOptions(batch_size=300, cross_lingual=share))
    draws = list(chain(*chain(*epochs(sampler, 5))))
    across = [draw for draw in draws if draw.positive.language != draw.record.language]
    assert all(draw.positive in draw.record.positives for draw in draws)
    # 1500 draws: a standard deviation of 0.012 at 0.3.
    assert abs(len(across) / len(draws) - share) < (0.05 if 0 < share < 1 else 1e-9)
    if share:  # both other languages alike
        german = Counter(draw.positive.language for draw in across if draw.record.language == "de")
        assert abs(german["en"] / german.total() - 0.5) < 0.15


def test_a_record_with_one_language_has_no_other_to_draw() -> None:
    own = Record("a", "q", (document("a", "de"),), language="de")
    foreign = Record("b", "q", (document("b", "en"),), language="de")
    unknown = Record("c", "q", (document("c"),))
    options = SamplingOptions(batch_size=3, cross_lingual=1.0)
    assert all(len(batches[0]) == 3 for batches in epochs(drawing([own, foreign, unknown], options), 5))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_size", 0),
        ("batch_size", -4),
        ("negatives", -1),
        ("neighbours", -1),
        ("cross_lingual", 1.5),
        ("cross_lingual", -0.1),
    ],
)
def test_senseless_options_are_refused(field: str, value: float) -> None:
    with pytest.raises(UserError, match=field):
        drawing(pairs(4), SamplingOptions(**{field: value}))


def test_no_records_make_no_batches() -> None:
    with pytest.raises(UserError, match="record"):
        drawing([], SamplingOptions())


def test_records_whose_positives_are_hard_negatives_share_a_batch() -> None:
    # Record i's mined negatives are the positives of i + 10, i + 20 and i + 30 (of 40).
    def record(i: int) -> Record:
        near = tuple(Document(f"p{(i + j) % 40}", f"text {(i + j) % 40}") for j in (10, 20, 30))
        return Record(f"r{i}", f"query {i}", (Document(f"p{i}", f"text {i}"),), near)

    records = [record(i) for i in range(40)]
    for neighbours, size in ((3, 4), (1, 2)):
        sampler = drawing(records, SamplingOptions(batch_size=size, negatives=0, neighbours=neighbours))
        for batches in epochs(sampler, 3):
            assert sorted(chain(*ids(batches))) == sorted(r.id for r in records)
            for batch in batches:
                numbers = {int(draw.record.id[1:]) for draw in batch}
                assert len({number % 10 for number in numbers}) == 1, numbers
                assert all(draw.negatives == () for draw in batch)
    alone = drawing(records, SamplingOptions(batch_size=4, negatives=0))
    mixed = [len({int(draw.record.id[1:]) % 10 for draw in batch}) for batch in alone]
    assert max(mixed) > 1


def test_neighbours_come_into_the_batch_of_the_record_that_has_them_as_negatives() -> None:
    """Record i's negatives are the positives of i + 1 … i + 4 (mod 40); two of them come along."""
    names = [document(f"p{i}") for i in range(40)]
    records = [
        Record(f"r{i}", f"q {i}", (names[i],), tuple(names[(i + k) % 40] for k in (1, 2, 3, 4)))
        for i in range(40)
    ]

    def negatives_per_query(neighbours: int) -> float:
        sampler = drawing(records, SamplingOptions(batch_size=8, negatives=0, neighbours=neighbours))
        found = 0
        for batches in epochs(sampler, 20):
            assert sorted(chain(*ids(batches))) == sorted(record.id for record in records)
            for batch in batches:
                there = {draw.positive.id for draw in batch}
                found += sum(len(there & {n.id for n in draw.record.negatives}) for draw in batch)
        return found / (20 * 40)

    # At random, a query meets 4 · 7 / 39 of its negatives in a batch of eight.
    assert abs(negatives_per_query(0) - 28 / 39) < 0.1
    assert negatives_per_query(1) > 28 / 39 + 0.15
    assert negatives_per_query(2) > negatives_per_query(1) + 0.05
