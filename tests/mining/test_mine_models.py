"""The command with real (tiny, random) models: fusion, scorers, the cache, several processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from lit_retrofit.cli import main
from lit_retrofit.data.formats import read_records
from lit_retrofit.data.teacher import Teacher
from lit_retrofit.errors import UserError
from lit_retrofit.mining import cached_scores, searching
from lit_retrofit.mining.mine import mine
from lit_retrofit.model.cross_encoder import CrossEncoder
from lit_retrofit.model.loading import load_encoder
from lit_retrofit.retrieval import cached, workers
from lit_retrofit.retrieval.embed import embed_texts

OPTIONS = {"relative_margin": None, "per_query": 3, "rank_window": 6, "precision": "fp32"}


@pytest.fixture
def pairs(tmp_path):
    file = tmp_path / "pairs.jsonl"
    rows = [
        {
            "query": f"what page {i} {i % 9}",
            "positive": f"the page {i} tells of word {i % 9} and text {i % 4}",
        }
        for i in range(40)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def embedded(monkeypatch):
    """Counts the texts that are embedded and not taken from a cache."""
    seen: list[str] = []

    def spy(encoder, texts, role, **options):
        seen.extend(texts)
        return embed_texts(encoder, texts, role, **options)

    monkeypatch.setattr(cached, "embed_texts", spy)
    return seen


def score_by_hand(score, records):
    for record in records:
        for documents, scores in (
            (record.positives, record.positive_scores),
            (record.negatives, record.negative_scores),
        ):
            expected = score(record.query, [document.text for document in documents])
            assert scores == pytest.approx(expected, abs=1e-5)


def test_a_cross_encoder_scores_what_a_fusion_proposes(bert_folder, cross_encoder_folder, pairs, tmp_path):
    summary = mine(
        str(bert_folder), data=str(pairs), output=tmp_path / "mined.jsonl", miners=["bm25"],
        cross_encoder=str(cross_encoder_folder), candidates=12, absolute_margin=0.0, min_negatives=0,
        **OPTIONS,
    )  # fmt: skip
    records, _ = read_records(tmp_path / "mined.jsonl")
    model = CrossEncoder(str(cross_encoder_folder), device=torch.device("cpu"), precision="fp32")
    score_by_hand(lambda query, texts: model.scores([(query, text) for text in texts]).tolist(), records)
    for record in records:
        assert all(score < record.positive_scores[0] for score in record.negative_scores)
    assert summary.miners == (str(bert_folder), "bm25") and summary.scored_by == str(cross_encoder_folder)
    assert summary.examined == 12 and summary.candidates["examined"] >= 12 * 40
    assert summary.negatives > 40
    few = {item.id: item.negatives for item in summary.too_few}
    assert few == {record.id: len(record.negatives) for record in records if len(record.negatives) < 3}


def test_a_larger_embedder_scores_and_leaves_its_embeddings(bert_folder, xlmr_folder, pairs, tmp_path):
    options = OPTIONS | {"data": str(pairs), "output": tmp_path / "mined.jsonl", "teacher": str(xlmr_folder)}
    mine(str(bert_folder), teacher_embeddings=tmp_path / "teacher", **options)
    records, _ = read_records(tmp_path / "mined.jsonl")
    encoder = load_encoder(str(xlmr_folder))

    def score(query, texts):
        return (embed_texts(encoder, texts, "document") @ embed_texts(encoder, [query], "query")[0]).tolist()

    score_by_hand(score, records)
    teacher = Teacher(tmp_path / "teacher")
    queries = [record.query for record in records]
    torch.testing.assert_close(
        teacher.look_up(queries, "query"), embed_texts(encoder, queries, "query"), rtol=0, atol=1e-5
    )
    assert (
        teacher.look_up([d.text for record in records for d in record.negatives], "document").shape[1] == 32
    )
    (tmp_path / "mined.jsonl").unlink()
    (tmp_path / "mined.summary.json").unlink()
    with pytest.raises(UserError, match="teacher: exists already"):
        mine(str(bert_folder), teacher_embeddings=tmp_path / "teacher", **options)


def test_words_alone_need_no_model(pairs, tmp_path, embedded):
    summary = mine("bm25", data=str(pairs), output=tmp_path / "mined.jsonl", **OPTIONS)
    assert summary.scored_by == "bm25" and summary.negatives > 40 and not embedded
    with pytest.raises(UserError, match="max_score is of a similarity"):
        mine("bm25", data=str(pairs), output=tmp_path / "again.jsonl", max_score=0.5)


def test_a_cache_is_kept_where_it_is_asked_for_and_nowhere_else(bert_folder, pairs, tmp_path, embedded):
    options = OPTIONS | {"data": str(pairs), "overwrite": True, "output": tmp_path / "mined.jsonl"}
    mine(str(bert_folder), cache=tmp_path / "cache", **options)
    first, texts = (tmp_path / "mined.jsonl").read_bytes(), len(embedded)
    assert texts == 80
    mine(str(bert_folder), cache=tmp_path / "cache", **options)
    assert len(embedded) == texts and (tmp_path / "mined.jsonl").read_bytes() == first
    mine(str(bert_folder), **options)
    assert len(embedded) == 2 * texts and (tmp_path / "mined.jsonl").read_bytes() == first
    mine(str(bert_folder), cache=tmp_path / "cache", document_prompt="doc: ", **options)
    assert len(embedded) == 2 * texts + 40
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"pairs.jsonl", "mined.jsonl", "mined.summary.json", "cache"}


def test_an_index_tells_its_recall(bert_folder, pairs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lit_retrofit.retrieval.approximate.LEAST_TRAINED", 30)
    options = OPTIONS | {"data": str(pairs), "candidates": 10}
    summary = mine(str(bert_folder), output=tmp_path / "ivf.jsonl", index="ivf", **options)
    assert summary.recall == {str(bert_folder): 1.0}  # so few documents make a single list
    assert "finds 1.000 of the 10 nearest documents" in " ".join(capsys.readouterr().out.split())
    mine(str(bert_folder), output=tmp_path / "exact.jsonl", index="exact", **options)
    for found, exact in zip(
        *(read_records(tmp_path / f"{name}.jsonl")[0] for name in ("ivf", "exact")), strict=True
    ):
        assert {document.id for document in found.negatives} == {document.id for document in exact.negatives}
        assert found.negative_scores == pytest.approx(exact.negative_scores, abs=2e-6)


@pytest.mark.slow
def test_two_processes_mine_what_one_does(bert_folder, tmp_path, monkeypatch):
    """Of two pieces of work one is left to the other process, which the command starts."""
    pairs, started = tmp_path / "pairs.jsonl", []
    rows = [
        {"query": f"what page {i}", "positive": f"the page {i} of {i % 7}"} for i in range(workers.CHUNK + 9)
    ]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(workers.os, "cpu_count", lambda: 2)
    plain = workers.mp.spawn
    monkeypatch.setattr(workers.mp, "spawn", lambda *a, **o: started.append(o["nprocs"]) or plain(*a, **o))
    words = ["mine", str(bert_folder), "--data", str(pairs), "--precision", "fp32", "--min_negatives", "0"]
    for processes in ("1", "2"):
        output = tmp_path / f"{processes}.jsonl"
        assert main([*words, "--output", str(output), "--processes", processes]) == 0
    assert started == [1, 1]  # beside the command's own, for the queries and for the documents
    one, two = (read_records(tmp_path / f"{processes}.jsonl")[0] for processes in "12")
    assert len(one) == len(two) == len(rows)
    for left, right in zip(one, two, strict=True):
        assert left.positive_scores == pytest.approx(right.positive_scores, abs=2e-5)
    same = sum(a.negatives == b.negatives for a, b in zip(one, two, strict=True))
    assert same > 0.98 * len(one)  # near ties change places with the last bits


def test_a_wrong_cross_encoder_is_told_before_the_texts_are_embedded(bert_folder, pairs, tmp_path, embedded):
    with pytest.raises(UserError, match="is no cross-encoder"):
        mine(str(bert_folder), data=str(pairs), output=tmp_path / "m.jsonl", cross_encoder=str(bert_folder))
    assert not embedded


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"miners": ["bm25", "bm25"]}, "miner 'bm25' is named twice"),
        ({"teacher": "a", "cross_encoder": "b"}, "give one of them"),
        ({"teacher_embeddings": "out"}, "name one with teacher"),
        ({"candidates": 0}, "candidates is 0"),
        ({"processes": 0}, "processes is 0; give 1 to"),
        ({"cache": "pairs.jsonl"}, "no embeddings can be kept here"),
        ({"index": "ivf"}, "index ivf needs 9984 documents"),
    ],
)
def test_options_that_do_not_go_together(bert_folder, pairs, tmp_path, options, message):
    for name in ("cache", "teacher_embeddings"):
        if name in options:
            options = {**options, name: tmp_path / options[name]}
    with pytest.raises(UserError, match=message) as caught:
        mine(str(bert_folder), data=str(pairs), output=tmp_path / "mined.jsonl", **options)
    assert "\n" not in str(caught.value)


KILLED = """if True:
    import os, signal, sys
    from pathlib import Path
    from lit_retrofit.mining.mine import mine
    from lit_retrofit.retrieval import cached
    cached.CHUNK = 10
    calls, plain = [], cached.embed_texts
    def spy(encoder, texts, role, **options):
        calls.append(texts)
        if len(calls) == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(encoder, texts, role, **options)
    cached.embed_texts = spy
    mine(sys.argv[1], data=sys.argv[2], output=Path(sys.argv[3]), relative_margin=None, precision="fp32")
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(bert_folder, pairs, tmp_path, embedded):
    whole, output = tmp_path / "whole.jsonl", tmp_path / "mined.jsonl"
    options = {"data": str(pairs), "relative_margin": None, "precision": "fp32"}
    words = [sys.executable, "-c", KILLED, str(bert_folder), str(pairs), str(output)]
    ended = subprocess.run(words, env={**os.environ}, capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not output.exists() and (tmp_path / "mined.embeddings").is_dir()
    mine(str(bert_folder), output=output, **options)
    assert len(embedded) == 30  # fifty of the eighty texts were there
    assert not (tmp_path / "mined.embeddings").exists()
    mine(str(bert_folder), output=whole, **options)
    assert whole.read_bytes() == output.read_bytes()


KILLED_WHILE_SCORING = """if True:
    import json, os, signal, sys
    from pathlib import Path
    from lit_retrofit.mining import cached_scores
    from lit_retrofit.mining.mine import mine
    from lit_retrofit.model.cross_encoder import CrossEncoder
    cached_scores.PAIR_BLOCK = 100
    calls, plain = [], CrossEncoder.scores
    def spy(self, pairs):
        calls.append(pairs)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(self, pairs)
    CrossEncoder.scores = spy
    options = json.loads(sys.argv[1])
    mine(options.pop("model"), **{n: Path(options.pop(n)) for n in ("output", "cache")}, **options)
"""


@pytest.fixture
def scored(monkeypatch):
    """Counts the pairs that a cross-encoder scores, in blocks of a hundred."""
    seen: list[tuple[str, str]] = []
    plain = CrossEncoder.scores

    def spy(self, pairs):
        seen.extend(pairs)
        return plain(self, pairs)

    monkeypatch.setattr(cached_scores, "PAIR_BLOCK", 100)
    monkeypatch.setattr(CrossEncoder, "scores", spy)
    return seen


@pytest.mark.slow
def test_a_run_killed_while_rescoring_scores_only_the_rest(
    bert_folder, cross_encoder_folder, pairs, tmp_path, embedded, scored, capsys
):
    options = OPTIONS | {
        "data": str(pairs), "cross_encoder": str(cross_encoder_folder), "candidates": 12, "min_negatives": 0,
    }  # fmt: skip
    output, whole, cache = (tmp_path / name for name in ("mined.jsonl", "whole.jsonl", "cache"))
    given = options | {"model": str(bert_folder), "output": str(output), "cache": str(cache)}
    words = [sys.executable, "-c", KILLED_WHILE_SCORING, json.dumps(given)]
    ended = subprocess.run(words, env={**os.environ}, capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not output.exists()
    mine(str(bert_folder), output=output, cache=cache, **options)
    # Of 40 queries 12 candidates and a positive; three blocks of a hundred were there.
    assert len(scored) == 40 * 13 - 300 and not embedded
    assert "300 of 520 scores were in the cache" in " ".join(capsys.readouterr().out.split())
    mine(str(bert_folder), output=output, cache=cache, overwrite=True, **options)
    assert len(scored) == 40 * 13 - 300
    assert "520 of 520 scores were in the cache" in " ".join(capsys.readouterr().out.split())
    mine(str(bert_folder), output=whole, **options)
    assert len(scored) == 2 * 40 * 13 - 300 and whole.read_bytes() == output.read_bytes()
    assert "in the cache" not in capsys.readouterr().out
    left = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert left == {"cache"}  # and none beside the output


def test_a_run_with_a_teacher_goes_on_and_leaves_its_embeddings_last(
    bert_folder, xlmr_folder, pairs, tmp_path, embedded, monkeypatch
):
    options = OPTIONS | {"data": str(pairs), "teacher": str(xlmr_folder), "min_negatives": 0}
    stopped = options | {"output": tmp_path / "mined.jsonl", "teacher_embeddings": tmp_path / "teacher"}
    monkeypatch.setattr(cached, "CHUNK", 10)
    counted, calls = cached.embed_texts, []

    def stop(*arguments, **others):
        calls.append(arguments)
        if len(calls) == 13:
            raise KeyboardInterrupt
        return counted(*arguments, **others)

    monkeypatch.setattr(cached, "embed_texts", stop)
    with pytest.raises(KeyboardInterrupt):
        mine(str(bert_folder), **stopped)
    assert len(embedded) == 120  # both models embed 80 texts, in eight calls each
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(
            searching, "propose_negatives", lambda *a, **o: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        mine(str(bert_folder), **stopped)
    assert len(embedded) == 160
    with monkeypatch.context() as patched, pytest.raises(OSError, match="full"):
        patched.setattr(searching, "write_teacher", half_written(searching.write_teacher))
        mine(str(bert_folder), **stopped)
    mine(str(bert_folder), **stopped)  # which would refuse a folder of embeddings
    assert len(embedded) == 160
    mine(str(bert_folder), output=tmp_path / "whole.jsonl", **options)
    assert (tmp_path / "whole.jsonl").read_bytes() == (tmp_path / "mined.jsonl").read_bytes()
    assert Teacher(tmp_path / "teacher").look_up(["what page 3 3"], "query").shape == (1, 32)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["teacher"]


def half_written(write):
    def stop(folder, role, *others):
        if role == "document":
            raise OSError("full")
        write(folder, role, *others)

    return stop
