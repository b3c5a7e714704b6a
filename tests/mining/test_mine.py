"""The command from a file to a file, with an encoder of a few lines."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from functools import cache

import pytest
import torch
from torch import nn

from lit_retrofit.data.formats import read_records
from lit_retrofit.data.records import Document
from lit_retrofit.errors import UserError
from lit_retrofit.mining import searching
from lit_retrofit.mining.mine import mine


class Fake(nn.Module):
    device = torch.device("cpu")


@cache
def vector(text: str) -> list[float]:
    numbers = [random.Random(f"{text} {i}").gauss(0.5, 1) for i in range(8)]
    length = sum(x * x for x in numbers) ** 0.5
    return [x / length for x in numbers]


def similarities(query: str, documents: Sequence[Document]) -> list[float]:
    return [
        sum(x * y for x, y in zip(vector(query), vector(document.text), strict=True))
        for document in documents
    ]


@pytest.fixture
def embedded(monkeypatch) -> list[tuple[str, list[str]]]:
    """Replaces the encoder; a text's vector follows from its text. Collects what was embedded."""
    calls: list[tuple[str, list[str]]] = []

    def embed(encoder, texts, role, *, cache, processes, token_budget, precision, description):
        calls.append((role, texts))
        return torch.tensor([vector(text) for text in texts])

    monkeypatch.setattr(searching, "load_encoder", lambda model, **options: Fake())
    monkeypatch.setattr(searching, "embed_in_processes", embed)
    return calls


@pytest.fixture
def pairs(tmp_path):
    """60 rows of 49 different queries and 39 different positives; some of both are in two languages."""
    file = tmp_path / "pairs.jsonl"
    rows = [
        {"query": f"query {i % 49}", "positive": f"text {i % 39}", "language": ("en", "de")[i % 2]}
        for i in range(60)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_writes_records_that_obey_the_rules_and_a_summary_that_adds_up(embedded, pairs, tmp_path):
    output = tmp_path / "mined.jsonl"
    summary = mine("m", data=str(pairs), output=output, per_query=3, rank_window=6, pool="language")
    records, _ = read_records(output)
    assert 0 < len(records) == summary.records.kept
    positives = {}
    for record in read_records(pairs)[0]:
        positives.setdefault(record.query, set()).add(record.positives[0].text)
    for record in records:
        texts = [document.text for document in record.negatives]
        assert 1 <= len(set(texts)) == len(texts) <= 3
        assert not set(texts) & positives[record.query]
        assert {document.language for document in record.negatives} == {record.language}
        assert record.positive_scores == pytest.approx(similarities(record.query, record.positives), abs=2e-6)
        assert record.negative_scores == pytest.approx(similarities(record.query, record.negatives), abs=2e-6)
        score = min(similarities(record.query, [Document("", text) for text in positives[record.query]]))
        assert all(other < (0.95 * score if score > 0 else score - 0.05) for other in record.negative_scores)
        assert list(record.negative_scores) == sorted(record.negative_scores, reverse=True)
    counts = summary.records
    assert counts.read == 60 == counts.kept + counts.dropped
    assert counts.short == sum(len(record.negatives) < 3 for record in records)
    assert summary.negatives == sum(len(record.negatives) for record in records)
    assert sum(summary.histogram.negatives) == summary.negatives
    assert sum(summary.histogram.positives) == counts.kept
    drops = dict(summary.candidates)
    assert drops.pop("examined") == sum(drops.values()) == 6 * summary.queries

    written = json.loads((tmp_path / "mined.summary.json").read_text())
    assert written["format"] == 1
    assert written["records"] == {"read": 60, "kept": counts.kept, "dropped": counts.dropped} | {
        "short": counts.short,
        "skipped": 0,
    }
    assert written["rules"]["relative_margin"] == 0.95 and written["candidates"] == summary.candidates
    assert len(written["histogram"]["edges"]) == 21 and len(written["examples"]) == 5


def test_queries_and_documents_are_embedded_in_their_roles_and_once(embedded, pairs, tmp_path):
    mine("m", data=str(pairs), output=tmp_path / "mined.jsonl")
    (first, queries), (second, documents) = embedded
    assert (first, second) == ("query", "document")
    assert sorted(queries) == sorted(f"query {i}" for i in range(49))
    assert sorted(documents) == sorted(f"text {i}" for i in range(39))


def test_records_without_enough_negatives_are_dropped_and_counted_or_kept(embedded, pairs, tmp_path):
    options = {"data": str(pairs), "per_query": 4, "max_score": 0.0, "rank_window": 4}
    some = mine("m", output=tmp_path / "some.jsonl", min_negatives=4, **options)
    assert 0 < some.records.kept < 60 and some.records.short == 0
    everything = mine("m", output=tmp_path / "all.jsonl", min_negatives=0, **options)
    assert everything.records.kept == 60 and everything.records.short == 60 - some.records.kept
    assert len(read_records(tmp_path / "all.jsonl")[0]) == 60


def test_nothing_left_is_an_error_that_names_the_rules_and_writes_nothing(embedded, pairs, tmp_path):
    with pytest.raises(UserError, match="max_score dropped") as caught:
        mine("m", data=str(pairs), output=tmp_path / "mined.jsonl", max_score=-0.99, min_negatives=0)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "mined.jsonl").exists()


def test_a_corpus_deeper_than_itself_and_a_second_run_give_the_same(embedded, pairs, tmp_path):
    for name in ("a", "b"):
        options = {"per_query": 5, "rank_window": 1000, "seed": 7}
        mine("m", data=str(pairs), output=tmp_path / f"{name}.jsonl", **options)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_a_separate_corpus_is_searched_and_its_invalid_rows_are_counted(embedded, pairs, tmp_path):
    corpus = tmp_path / "corpus.jsonl"
    rows = [{"_id": i, "title": "T", "text": f"further {i}"} for i in range(200)]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"_id": "x", "text": " "}\n')
    output = tmp_path / "mined.jsonl"
    with pytest.raises(UserError, match=r"corpus\.jsonl:201"):
        mine("m", data=str(pairs), output=output, corpus=corpus)
    summary = mine("m", data=str(pairs), output=output, corpus=corpus, skip_invalid=True)
    assert summary.documents == 239 and summary.records.skipped == 1
    found = {document.text for record in read_records(output)[0] for document in record.negatives}
    assert any(text.startswith("T further") for text in found)


def test_a_beir_folder_brings_its_corpus(embedded, tmp_path):
    folder = tmp_path / "set"
    (folder / "qrels").mkdir(parents=True)
    documents = [{"_id": f"d{i}", "text": f"text {i}"} for i in range(30)]
    rows = [*documents, {"_id": "blank", "text": ""}]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "what"}\n')
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq\td3\t1\n")
    options = {"relative_margin": None, "skip_invalid": True}
    summary = mine("m", data=str(folder), output=tmp_path / "mined.jsonl", **options)
    assert summary.documents == 30 and summary.negatives == 4 and summary.records.skipped == 1


@pytest.fixture
def many(tmp_path, monkeypatch):
    """1280 documents, 80 of them German: an index of several lists, once it takes so few."""
    monkeypatch.setattr("lit_retrofit.retrieval.approximate.LEAST_TRAINED", 300)
    file = tmp_path / "many.jsonl"
    rows = [
        {"query": f"query {i}", "positive": f"text {i}", "language": ("de", "en")[i % 16 > 0]}
        for i in range(1280)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


NEAREST = {"relative_margin": None, "sampling": "top", "per_query": 3, "rank_window": 3, "min_negatives": 0}


def texts_of(path):
    return [[document.text for document in record.negatives] for record in read_records(path)[0]]


def test_what_an_index_proposes_is_ranked_by_the_exact_scores(embedded, many, tmp_path, capsys):
    options = NEAREST | {"data": str(many), "skip_ranks": 2}
    summary = mine("m", output=tmp_path / "pq.jsonl", index="ivfpq", candidates=200, **options)
    printed = " ".join(capsys.readouterr().out.split())
    assert re.search(r"m: index ivfpq, \d+ of 20 lists: finds 0\.\d+ of the 200 nearest", printed)
    assert 0.5 < summary.recall["m"] < 1  # eight numbers in two bytes
    mine("m", output=tmp_path / "exact.jsonl", index="exact", **options)
    found, exact = texts_of(tmp_path / "pq.jsonl"), texts_of(tmp_path / "exact.jsonl")
    same = sum(a == b for a, b in zip(found, exact, strict=True))
    assert same > 0.9 * len(exact)  # of all, the places 3 to 5: whatever the codes rank first


@pytest.mark.parametrize("pool", ["language", "other"])
def test_the_recall_of_an_index_is_that_of_the_search_within_the_scope(
    embedded, many, tmp_path, capsys, pool
):
    options = NEAREST | {"data": str(many), "pool": pool, "per_query": 20, "rank_window": 20}
    summary = mine("m", output=tmp_path / "ivf.jsonl", index="ivf", candidates=20, **options)
    printed = " ".join(capsys.readouterr().out.split())
    assert f"of the 20 nearest documents of an exact search (pool '{pool}')" in printed
    mine("m", output=tmp_path / "exact.jsonl", index="exact", **options)
    records = read_records(tmp_path / "ivf.jsonl")[0]
    for record in records:
        assert {(d.language == record.language) for d in record.negatives} == {pool == "language"}
    found, exact = texts_of(tmp_path / "ivf.jsonl"), texts_of(tmp_path / "exact.jsonl")
    shares = [len({*a} & {*b}) / 20 for a, b in zip(found, exact, strict=True)]
    assert summary.recall["m"] == pytest.approx(sum(shares) / len(shares), abs=0.05)
    assert summary.recall["m"] >= 0.95


def test_mining_again_replaces_the_negatives_of_the_first_time(embedded, pairs, tmp_path):
    first = mine("m", data=str(pairs), output=tmp_path / "a.jsonl", min_negatives=0)
    again = mine("m", data=str(tmp_path / "a.jsonl"), output=tmp_path / "b.jsonl", min_negatives=0)
    assert again.replaced_negatives == first.negatives
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


@pytest.mark.parametrize("existing", ["mined.jsonl", "mined.summary.json"])
def test_an_existing_output_stops_before_any_work(embedded, pairs, tmp_path, existing):
    (tmp_path / existing).write_text("mine")
    with pytest.raises(UserError, match=rf"{existing}: .*--overwrite"):
        mine("m", data=str(pairs), output=tmp_path / "mined.jsonl")
    assert (tmp_path / existing).read_text() == "mine" and not embedded
    mine("m", data=str(pairs), output=tmp_path / "mined.jsonl", overwrite=True)
    assert (tmp_path / existing).read_text() != "mine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": "out.parquet"}, "jsonl"),
        ({"output": "pairs.jsonl", "overwrite": True}, "is the data or"),
        ({"min_negatives": 5}, "min_negatives"),
        ({"relative_margin": 95}, "relative_margin"),
        ({"device": "abacus"}, "device abacus"),
    ],
)
def test_mistakes_are_told_before_any_work(embedded, pairs, tmp_path, options, message):
    before = pairs.read_bytes()
    output = tmp_path / options.pop("output", "mined.jsonl")
    with pytest.raises(UserError, match=message) as caught:
        mine("m", data=str(pairs), output=output, **options)
    assert "\n" not in str(caught.value)
    assert not embedded and pairs.read_bytes() == before


def test_a_named_source_says_how_its_columns_are_read(embedded, tmp_path) -> None:
    """One file per language; the records carry the language, and each is mined in its own."""
    for name, language in (("german", "de"), ("english", "en")):
        rows = [{"question": f"{language} query {i}", "answer": f"{language} text {i}"} for i in range(12)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = tmp_path / "mine.yaml"
    source.write_text(
        f"path: {tmp_path}/{{language}}.jsonl\nfields: {{query: question, positive: answer}}\n"
        "languages: {de: german, en: english}\n"
    )
    output = tmp_path / "mined.jsonl"
    summary = mine("fake", data=f"source:{source}", output=output, pool="language", min_negatives=0)
    records, _ = read_records(output)
    assert summary.records.read == 24 and {record.language for record in records} == {"de", "en"}
    assert any(record.negatives for record in records)
    assert all(n.text.startswith(f"{record.language} ") for record in records for n in record.negatives)


def test_an_unknown_source(embedded, tmp_path) -> None:
    with pytest.raises(UserError, match="source:nothing: no source has this name"):
        mine("fake", data="source:nothing", output=tmp_path / "mined.jsonl")
