import hashlib
import io
import json
import re
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from lit_retrofit.errors import UserError
from lit_retrofit.evaluation import evaluate as command
from lit_retrofit.evaluation.evaluate import evaluate, show_results
from lit_retrofit.evaluation.results import read_queries, read_results

DIMENSION = 256


class FakeEncoder:
    """Stands in for a model: texts that share characters are near each other."""

    def __init__(self, overrides):
        self.device = torch.device("cpu")
        self.calls = []
        self.options = SimpleNamespace(**overrides, query_max_length=64, document_max_length=128)

    def to(self, device):
        return self


def embed(encoder, texts, role, *, token_budget, precision, description):
    encoder.calls.append((role, len(texts), token_budget, precision))
    vectors = torch.zeros(len(texts), DIMENSION)
    for row, text in enumerate(texts):
        for character in text:
            vectors[row, hashlib.blake2b(character.encode(), digest_size=1).digest()[0]] += 1
    return torch.nn.functional.normalize(vectors, dim=1)


encoders = []


@pytest.fixture(autouse=True)
def loaded(monkeypatch):
    """Replaces the model; the list tells which models were loaded."""
    models = []
    encoders.clear()

    def load(model, **overrides):
        models.append((model, overrides))
        encoders.append(FakeEncoder(overrides))
        return encoders[-1]

    monkeypatch.setattr(command, "load_encoder", load)
    monkeypatch.setattr(command, "embed_texts", embed)
    return models


TEXTS = {
    "de": {"a": "Zellen verbinden", "b": "Bild drehen", "c": "Seite nummerieren"},
    "en": {"a": "merge cells", "b": "rotate picture", "c": "number pages"},
    "ru": {"a": "объединить ячейки", "b": "повернуть рисунок"},
}


@pytest.fixture
def beir(tmp_path):
    """A BEIR folder with a query and a document for each text; Russian has no queries."""
    folder = tmp_path / "data"
    (folder / "qrels").mkdir(parents=True)
    corpus = [
        (f"{page}@{language}", text, language)
        for language, texts in TEXTS.items()
        for page, text in texts.items()
    ]
    queries = [(f"q-{id}", text.split()[0], language) for id, text, language in corpus if language != "ru"]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        with (folder / f"{name}.jsonl").open("w") as file:
            for id, text, language in rows:
                file.write(json.dumps({"_id": id, "text": text, "metadata": {"language": language}}) + "\n")
    with (folder / "qrels" / "test.tsv").open("w") as file:
        file.write("query-id\tcorpus-id\tscore\n")
        for query, _, _ in queries:
            page = query.removeprefix("q-").split("@")[0]
            file.writelines(f"{query}\t{id}\t1\n" for id, _, _ in corpus if id.startswith(f"{page}@"))
    return folder


def test_the_whole_command(beir, tmp_path, loaded, capsys):
    output = tmp_path / "runs" / "before"
    results = evaluate(
        "some/model", data=str(beir), output=output, bm25=True, query_prompt="q: ", max_length=64
    )
    assert loaded == [
        ("some/model", {"query_prompt": "q: ", "document_prompt": None, "pooling": None, "max_length": 64})
    ]
    assert read_results(output) == results
    assert [
        (t.query_language, t.corpus_language, t.queries, t.documents, t.left_out_queries)
        for t in results.tasks
    ] == [
        ("de", "de", 3, 3, 0),
        ("en", "en", 3, 3, 0),
        ("de", "en", 3, 3, 0),
        ("en", "de", 3, 3, 0),
        ("en", "ru", 2, 2, 1),
    ]
    german = results.tasks[0]
    assert german.scores == {"nDCG@10": 1, "Recall@100": 1, "MRR@10": 1}
    assert german.bm25 == {"nDCG@10": 1, "Recall@100": 1, "MRR@10": 1}
    assert results.tasks[2].bm25 == {"nDCG@10": 0, "Recall@100": 0, "MRR@10": 0}
    assert (results.model, results.data, results.settings["query_prompt"]) == ("some/model", str(beir), "q: ")
    assert 0 < results.seconds < 60
    assert len(read_queries(output)) == 3 * 4 + 2
    assert sorted(path.name for path in (output / "run").iterdir()) == [
        f"{pair}.trec" for pair in ("de-de", "de-en", "en-de", "en-en", "en-ru")
    ]
    printed = capsys.readouterr().out
    assert "ru has 2 documents but no queries" in " ".join(printed.split())
    assert "BM25" in printed


def test_texts_are_embedded_in_their_role_and_as_asked(beir):
    evaluate("m", data=str(beir), token_budget=512, precision="bf16")
    assert encoders[0].calls == [("query", 6, 512, "bf16"), ("document", 8, 512, "bf16")]


def test_without_output_nothing_is_written(beir, tmp_path):
    before = set(tmp_path.rglob("*"))
    evaluate("m", data=str(beir))
    assert set(tmp_path.rglob("*")) == before


def test_an_existing_output_stops_before_the_model_is_loaded(beir, tmp_path, loaded):
    with pytest.raises(UserError, match="--overwrite"):
        evaluate("m", data=str(beir), output=tmp_path)
    assert loaded == []
    evaluate("m", data=str(beir), output=tmp_path, overwrite=True)
    assert (tmp_path / "metrics.json").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu"}, "device gpu cannot be used .*use auto, cpu, cuda"),
        ({"split": "dev"}, "dev"),
    ],
)
def test_bad_options_stop_before_the_model_is_loaded(beir, loaded, options, message):
    with pytest.raises(UserError, match=message):
        evaluate("m", data=str(beir), **options)
    assert loaded == []


def table_rows(results, notes=()):
    console = Console(file=io.StringIO(), width=80)
    show_results(results, console, notes)
    text = console.file.getvalue()
    cells = [re.split("  +", line.strip()) for line in text.splitlines()]
    return {row[0]: row[1:] for row in cells}, text


def test_the_table_has_a_row_for_each_language_and_means_for_each_direction(beir):
    results = evaluate("m", data=str(beir), bm25=True)
    rows, text = table_rows(results, ["3 queries are in no task"])
    tasks = {(t.query_language, t.corpus_language): t for t in results.tasks}
    for (source, target), task in tasks.items():
        shown = [task.scores[m] for m in ("nDCG@10", "Recall@100", "MRR@10")] + [task.bm25["nDCG@10"]]
        counts = [str(task.queries), str(task.left_out_queries), str(task.documents)]
        assert rows[f"{source} → {target}"] == [*counts, *(f"{v:.4f}" for v in shown)]
    means = results.means
    assert rows["mean, monolingual"][0] == f"{means['monolingual']['nDCG@10']:.4f}"
    assert (
        rows["mean, en → X"][0]
        == f"{(tasks['en', 'de'].scores['nDCG@10'] + tasks['en', 'ru'].scores['nDCG@10']) / 2:.4f}"
    )
    assert rows["mean, X → en"][0] == f"{tasks['de', 'en'].scores['nDCG@10']:.4f}"
    assert rows["mean, cross-lingual"][0] == f"{means['cross_lingual']['nDCG@10']:.4f}"
    assert "note: 3 queries are in no task" in text
    assert "Recall@100" in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_table_without_bm25_has_no_column_for_it(beir):
    rows, text = table_rows(evaluate("m", data=str(beir)))
    assert "BM25" not in text
    assert len(rows["de → en"]) == 6
