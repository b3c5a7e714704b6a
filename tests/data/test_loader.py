"""Stopping and going on, with and without workers; faults in workers; texts shared among devices."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_retrofit.data.batching import make_micro_batches
from lit_retrofit.data.loader import DrawLoader, MicroBatchLoader
from lit_retrofit.data.mixture import Mixture
from lit_retrofit.data.options import SamplingOptions, SourceOptions
from lit_retrofit.data.records import Document, Record
from lit_retrofit.data.table_stream import TableStream
from lit_retrofit.errors import UserError

CONTENT = "the content of each source (its files, data.options.seed and validation_share)"


def record_ids(draws) -> list[str]:
    return [draw.record.id for draw in draws]


def held(name: str, count: int) -> tuple[SourceOptions, list[Record]]:
    records = [
        Record(f"{name}{i}", f"q {name}{i}", (Document(f"{name}{i}", f"p {name}{i}"),)) for i in range(count)
    ]
    return SourceOptions(name), records


def loader(sizes: dict[str, int], options: SamplingOptions, workers: int = 0, extra=()) -> DrawLoader:
    sources = [held(name, size) for name, size in sizes.items()]
    return DrawLoader(Mixture([*sources, *extra], options), record_ids, workers)


def run_killed(make, kills: list[int], epochs: int) -> list[list[str]]:
    """Batches seen by a trainer that is killed after so many batches, again and again, and resumed."""
    total = epochs * len(make())
    seen: list[list[str]] = []
    state = None
    for kill in [*kills, total]:
        source = make()
        if state is not None:
            source.load_state_dict(state)
        wanted = min(kill, total - len(seen))
        while wanted > 0:  # an epoch each, as a trainer does
            found = list(islice(iter(source), wanted))
            seen += found
            wanted -= len(found)
        state = source.state_dict()
    return seen


@given(
    st.dictionaries(st.sampled_from("abc"), st.integers(4, 25), min_size=1, max_size=3),
    st.integers(1, 4),
    st.sampled_from([(), ("source",)]),
    st.lists(st.integers(1, 12), max_size=5),
    st.integers(0, 2),
)
@settings(max_examples=80, deadline=None)
def test_killed_anywhere_every_record_of_an_epoch_is_seen_once(sizes, batch_size, keys, kills, seed) -> None:
    options = SamplingOptions(batch_size, homogeneous=keys, seed=seed)

    def make() -> DrawLoader:
        return loader(sizes, options)

    seen = run_killed(make, kills, epochs=2)
    assert seen == run_killed(make, [], epochs=2)
    length = len(make())
    for number in range(2):
        found = list(chain(*seen[number * length : (number + 1) * length]))
        assert len(found) == len(set(found)) == sum(sizes.values()) - make().mixture.left_out
    if length > 3:
        assert seen[:length] != seen[length:]


@pytest.mark.parametrize("of_checkpoint", [1, 3, 5])
@pytest.mark.parametrize("afterwards", [2, 3, 5])
def test_an_epoch_ends_where_the_trainer_ends_it(of_checkpoint: int, afterwards: int) -> None:
    """Five batches, of which the trainer takes fewer; a run that goes on may take another number."""

    def make(taken: int) -> DrawLoader:
        mixture = Mixture([held("a", 10)], SamplingOptions(2))
        return DrawLoader(mixture, record_ids, 0, taken=lambda: taken)

    epochs = make(5)
    first, second = list(epochs), list(epochs)
    source = make(of_checkpoint)
    assert list(islice(iter(source), of_checkpoint)) == first[:of_checkpoint]
    resumed = make(afterwards)
    resumed.load_state_dict(source.state_dict())
    assert list(islice(iter(resumed), afterwards)) == second[:afterwards]


def test_a_position_beyond_the_epochs_end_is_the_next_epoch() -> None:
    """Of a run that goes on with fewer batches than it had taken already."""
    source = loader({"a": 10}, SamplingOptions(2))
    first, second = list(source), list(source)
    assert first != second
    source = loader({"a": 10}, SamplingOptions(2))
    list(islice(iter(source), 3))
    fewer = DrawLoader(source.mixture, record_ids, 0, taken=lambda: 2)
    fewer.load_state_dict(source.state_dict())
    assert next(iter(fewer)) == second[0]


@pytest.mark.slow
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=2),
    st.lists(st.sampled_from([0, 1, 2]), min_size=3, max_size=3),
)
@settings(max_examples=6, deadline=None)
def test_the_number_of_workers_changes_nothing_not_even_from_one_run_to_the_next(kills, workers) -> None:
    options = SamplingOptions(4)
    numbers = iter([*workers, *workers])

    def make() -> DrawLoader:
        return loader({"a": 17, "b": 9}, options, next(numbers, 2))

    assert run_killed(make, kills, epochs=2) == run_killed(lambda: loader({"a": 17, "b": 9}, options), [], 2)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_streamed_sources_go_on_too(write_parquet, workers: int) -> None:
    path = write_parquet([{"query": f"s{i}", "positive": f"t{i}", "query_id": f"s{i}"} for i in range(37)])
    source = SourceOptions(path, stream=True, shuffle_buffer=8)

    def make(count: int = 0) -> DrawLoader:
        return loader({"a": 11}, SamplingOptions(4), count, [(source, TableStream(source))])

    expected = run_killed(make, [], epochs=2)
    assert run_killed(lambda: make(workers), [5, 2], epochs=2) == expected
    assert {len(set(chain(*part))) for part in (expected[:12], expected[12:])} == {48}


SCRIPT = """if True:
    import json, sys, time
    import torch
    from tests_data_loader import loader, SamplingOptions
    source = loader({"a": 40, "b": 23}, SamplingOptions(3), workers=int(sys.argv[2]))
    log = open(sys.argv[1], "a")
    if sys.argv[3] != "-":
        source.load_state_dict(torch.load(sys.argv[3], weights_only=True))
    for number, batch in enumerate(source):
        torch.save(source.state_dict(), sys.argv[1] + f".{number}.pt")
        log.write(json.dumps(batch) + "\\n")
        log.flush()
        time.sleep(0.02)
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_after_kill_9_the_rest_of_the_epoch_follows(tmp_path, workers: int) -> None:
    """A real process, really killed; the state goes through a checkpoint that holds no pickled objects."""
    (tmp_path / "tests_data_loader.py").write_text(Path(__file__).read_text(encoding="utf-8"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    log = tmp_path / "log"

    def start(state: str) -> subprocess.Popen:
        arguments = [sys.executable, "-c", SCRIPT, str(log), str(workers), state]
        return subprocess.Popen(arguments, env=environment)

    process = start("-")
    while process.poll() is None and (not log.exists() or log.read_text().count("\n") < 6):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = [line for line in log.read_text().splitlines() if line.endswith("]")]
    log.unlink()
    assert start(f"{log}.{len(before) - 1}.pt").wait() == 0
    after = log.read_text().splitlines()
    expected = list(loader({"a": 40, "b": 23}, SamplingOptions(3)))
    assert [eval(line) for line in before + after] == expected


@pytest.mark.parametrize(
    ("sizes", "options", "changed"),
    [
        ({"a": 12}, SamplingOptions(2), r"data\.sampling\.batch_size was 3 and is now 2"),
        ({"a": 12}, SamplingOptions(3, seed=1), r"data\.sampling\.seed was 0 and is now 1"),
        ({"a": 13}, SamplingOptions(3), r"the records of each source"),
        ({"b": 12}, SamplingOptions(3), r"the sources was"),
        ({"a": 12}, SamplingOptions(3, homogeneous=("source",)), r"data\.sampling\.homogeneous"),
    ],
)
def test_a_state_of_another_configuration_is_refused(sizes, options, changed) -> None:
    source = loader({"a": 12}, SamplingOptions(3))
    next(iter(source))
    with pytest.raises(UserError, match=changed) as error:
        loader(sizes, options).load_state_dict(source.state_dict())
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="another version"):
        source.load_state_dict({"_snapshot": {}})


def test_a_state_of_other_texts_under_the_same_name_is_refused() -> None:
    """As many records as before, of another file or of another split."""
    source, records = held("a", 12)
    given = DrawLoader(Mixture([(source, records)], SamplingOptions(3)), record_ids, 0)
    state = given.state_dict()
    remined = [replace(record, negatives=(Document("n", "new"),)) for record in records]
    DrawLoader(Mixture([(source, remined)], SamplingOptions(3)), record_ids, 0).load_state_dict(state)
    for others in (records[::-1], [*records[:11], replace(records[11], query="other")]):
        other = DrawLoader(Mixture([(source, others)], SamplingOptions(3)), record_ids, 0)
        with pytest.raises(UserError, match=r"content of each source .* was \[\['a', '\w+'\]\] and is now"):
            other.load_state_dict(state)
        del (old := {**state, "of": dict(state["of"])})["of"][CONTENT]  # of a version that did not know it
        other.load_state_dict(old)


def test_a_state_of_other_files_or_windows_of_a_stream_is_refused(write_parquet) -> None:
    rows = [{"query": f"s{i}", "positive": f"t{i}"} for i in range(12)]
    path = write_parquet(rows)

    def made(**settings) -> DrawLoader:
        source = SourceOptions(path, stream=True, **settings)
        return loader({"a": 12}, SamplingOptions(3), 0, [(source, TableStream(source))])

    state = made().state_dict()
    made().load_state_dict(state)
    with pytest.raises(UserError, match=r"shuffle_buffer of each .*, 65536\]\] and is now .*, 8\]\]"):
        made(shuffle_buffer=8).load_state_dict(state)
    write_parquet([*rows[:5], {"query": "s9", "positive": "t9"}, *rows[6:]])
    with pytest.raises(UserError, match="content of each source") as error:
        made().load_state_dict(state)
    assert "['a'," not in str(error.value)  # only the source that differs is named


def test_the_global_random_state_is_left_alone() -> None:
    """Dropout draws from it: a resumed run opens other iterators than an uninterrupted one."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(loader({"a": 12}, SamplingOptions(3)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_users_mistake_comes_out_of_a_worker_as_one_line(write_parquet, workers: int) -> None:
    rows = [{"query": f"s{i}", "positive": f"t{i}"} for i in range(8)]
    rows[5]["positive"] = " "
    path = write_parquet(rows)
    source = SourceOptions(path, stream=True)
    made = loader({}, SamplingOptions(4), workers, [(source, TableStream(source))])
    with pytest.raises(UserError, match=r"rows\.parquet:6: field 'positive' is blank") as error:
        list(made)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_skipped_rows_are_counted_once_and_told(write_parquet, workers: int, caplog) -> None:
    rows = [{"query": f"s{i}", "positive": f"t{i}"} for i in range(12)]
    rows[5]["positive"] = rows[9]["positive"] = " "
    source = SourceOptions(write_parquet(rows), stream=True)
    stream = TableStream(source, skip_invalid=True)
    made = loader({}, SamplingOptions(4), workers, [(source, stream)])
    for _ in range(2):
        assert [len(batch) for batch in made] == [4, 4, 4]
    assert dict(made.skipped) == {"field 'positive' is blank": 2}
    assert len([r for r in caplog.records if "is blank; skipped" in r.message]) == 1


@pytest.mark.parametrize("devices", [1, 2, 3, 7])
@pytest.mark.parametrize("texts", [0, 1, 2, 10, 23])
def test_texts_are_shared_out_evenly(devices: int, texts: int) -> None:
    tokens = [[row] * (1 + row % 5) for row in range(texts)]
    loaders = [MicroBatchLoader(make_micro_batches(tokens, 0, 12), devices, i) for i in range(devices)]
    assert len({len(part) for part in loaders}) == 1
    found: dict[int, list[int]] = {}
    count = 0
    for part in chain(*loaders):
        for row, ids, mask in zip(part.rows.tolist(), part.input_ids, part.attention_mask, strict=True):
            found[row] = ids[mask.bool()].tolist()
            count += 1
    assert found == dict(enumerate(tokens))
    assert count == texts or texts < devices  # twice only where there are too few
