import hashlib
import io
import json
import re
import shutil
from types import SimpleNamespace

import pytest
import torch
from retrofit_kernels import Neighbours
from rich.console import Console

from lit_retrofit.data.beir import read_beir
from lit_retrofit.errors import UserError
from lit_retrofit.evaluation import evaluate as command
from lit_retrofit.evaluation import latency, measures, measuring
from lit_retrofit.evaluation.benchmarks import Benchmark, Part
from lit_retrofit.evaluation.evaluate import compare, evaluate
from lit_retrofit.evaluation.results import read_queries, read_results
from lit_retrofit.evaluation.tables import show_results
from lit_retrofit.model.loading import load_encoder

DIMENSION = 256


class FakeEncoder:
    """Stands in for a model: texts that share characters are near each other."""

    def __init__(self, overrides):
        self.device = torch.device("cpu")
        self.dimension = DIMENSION
        self.normalise = True
        self.calls = []
        self.options = SimpleNamespace(
            **{"query_prompt": "", "document_prompt": "", "pooling": "mean", **overrides},
            query_max_length=64,
            document_max_length=128,
        )

    def to(self, device):
        return self

    def of(self, role):
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
    monkeypatch.setattr(measuring, "embed_texts", embed)
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


def test_smaller_indexes_are_columns_and_have_sizes(beir, tmp_path, capsys):
    results = evaluate("m", data=str(beir), variants=[16, "int8", "16-binary"], output=tmp_path / "out")
    assert all(task.variants.keys() == {"16", "int8", "16-binary"} for task in results.tasks)
    assert results.tasks[0].variants["int8"] == 1  # as without: the texts are far apart
    assert results.cost["index_bytes"] == {
        "float32": 8 * 4 * DIMENSION,
        "16": 8 * 64,
        "int8": 8 * DIMENSION,
        "16-binary": 8 * 2,
    }
    assert read_results(tmp_path / "out") == results
    printed = capsys.readouterr().out
    assert "index of 8 documents: float32 0.01 MB, 16 0.00 MB" in printed
    assert "16-binary" in printed
    assert evaluate("m", data=str(beir), variants="int8").tasks[0].variants.keys() == {"int8"}
    with pytest.raises(UserError, match="'512' keeps 512 numbers, and embeddings of m have 256"):
        evaluate("m", data=str(beir), variants=512)


def test_models_side_by_side(beir, tmp_path, loaded, capsys):
    evaluate("old", data=str(beir), output=tmp_path / "old", query_prompt="q: ")
    evaluate(
        "new", data=str(beir), output=tmp_path / "new", versus=[str(tmp_path / "old"), "third"], max_length=9
    )
    assert [model for model, _ in loaded] == ["old", "new", "third"]  # "old" was measured before
    # a further model has prompts of its own, and is cut at the same length
    assert loaded[2][1] == {"max_length": 9}
    printed = " ".join(capsys.readouterr().out.split())
    assert "new against third, nDCG@10" in printed
    assert "adjusted for 5 tests" in printed
    files = sorted((path.name for path in (tmp_path / "new").glob("comparison-*")), key=len, reverse=True)
    assert len(files) == 2 and files[1] == "comparison-third.json"
    for told in (
        f"results: {tmp_path / 'new'}",
        *(f"comparison: {tmp_path / 'new' / name}" for name in files),
    ):
        assert told in printed
    (found,) = compare(tmp_path / "new", versus=str(tmp_path / "old"))
    assert f"comparison: {tmp_path / 'new' / files[0]}" in capsys.readouterr().out
    written = json.loads((tmp_path / "new" / files[0]).read_text())
    assert written["other"] == found.other == str(tmp_path / "old")
    assert written["tasks"][0]["difference"]["mean"] == found.tasks[0].difference.mean


def test_a_comparison_with_an_interrupted_evaluation_stops_before_the_model_is_loaded(beir, tmp_path, loaded):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "queries.jsonl").touch()
    with pytest.raises(UserError, match="evaluate was interrupted: run it again"):
        evaluate("new", data=str(beir), versus=str(tmp_path / "old"))
    assert loaded == []


def test_reranking_takes_the_candidates_of_a_run(beir, tmp_path, capsys):
    run = tmp_path / "run.trec"
    run.write_text("q-a@de Q0 b@de 1 1 x\nq-b@de Q0 b@de 1 1 x\nq-b@de Q0 a@de 2 0 x\n")
    results = evaluate("m", data=str(beir), candidates=run, pivot=None, variants="int8")
    german = results.tasks[0]
    assert german.scores == {"nDCG@10": pytest.approx(1 / 3), "MAP": pytest.approx(1 / 3), "MRR@10": 1 / 3}
    assert german.variants == {"int8": pytest.approx(1 / 3)}
    assert results.settings["candidates"] == str(run)
    assert len(results.tasks) == 1  # no other task has a candidate in its corpus
    told = " ".join(capsys.readouterr().out.split())
    assert "data, de → de: 1 of 3 queries have no candidates and count as zero" in told
    assert "data, en → ru is left out: none of its 2 queries has a candidate in its corpus" in told


def test_candidates_that_are_none_of_the_corpora_searched_are_refused(beir, tmp_path):
    run = tmp_path / "run.trec"
    run.write_text("q-of-another-set Q0 b@de 1 1 x\n")
    with pytest.raises(UserError, match="data: no query has a candidate in a corpus"):
        evaluate("m", data=str(beir), candidates=run)


def test_clustering(tmp_path, capsys):
    path = tmp_path / "topics.jsonl"
    rows = [("aaaa", "x"), ("aaab", "x"), ("zzzz", "y"), ("zzzy", "y")]
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
    results = evaluate("m", data=str(path), task="clustering", output=tmp_path / "out")
    assert [(t.kind, t.queries, t.documents, t.scores) for t in results.tasks] == [
        ("clustering", 4, 2, {"V-measure": 1})
    ]
    assert read_results(tmp_path / "out") == results
    assert encoders[0].calls == [("query", 4, None, "fp32")]
    printed = capsys.readouterr().out
    assert "labels" in printed and "V-measure" in printed


@pytest.mark.parametrize(
    "options",
    [
        {"versus": "other"},
        {"variants": "int8"},
        {"by": "family"},
        {"bm25": True, "latency": True},
        {"split": "dev"},
        {"pivot": None},
        {"document_prompt": "d: "},
        {"skip_invalid": True},
    ],
)
def test_options_that_do_nothing_for_clustering_are_refused(loaded, options):
    words = ", ".join(options), " and --".join(options)
    with pytest.raises(UserError, match=f"clustering has no use for {words[0]}; leave out --{words[1]}"):
        evaluate("m", data="topics.jsonl", task="clustering", **options)
    assert loaded == []


def test_bm25_ranks_no_candidates(beir, tmp_path, loaded):
    run = tmp_path / "run.trec"
    run.write_text("q-a@de Q0 b@de 1 1 x\n")
    with pytest.raises(UserError, match="reranking has no use for bm25; leave out --bm25"):
        evaluate("m", data=str(beir), candidates=run, bm25=True)
    assert loaded == []


def test_families_and_scripts(beir, capsys):
    evaluate("m", data=str(beir), by="family")
    printed = capsys.readouterr().out
    assert "m, monolingual, by family" in printed
    assert re.search(r"Indo-European +2 +1\.0000", printed)
    results = evaluate("m", data=str(beir), by="script")
    printed = capsys.readouterr().out
    german, english = (task.scores["nDCG@10"] for task in results.tasks[:2])
    assert "m, monolingual, by script" in printed and "Indo-European" not in printed
    assert re.search(rf"Latn +2 +{(german + english) / 2:.4f}", printed)


def test_without_languages_there_is_no_mean_over_families(beir, capsys):
    for name in ("corpus", "queries"):
        path = beir / f"{name}.jsonl"
        path.write_text(re.sub(r'"metadata": \{.*?\}', '"metadata": {}', path.read_text()))
    evaluate("m", data=str(beir), by="family")
    assert "note: no means by family: no language is measured alone" in capsys.readouterr().out


def test_several_processes_need_a_cache(beir, loaded):
    with pytest.raises(UserError, match="give one with --cache"):
        evaluate("m", data=str(beir), processes=2)
    assert loaded == []


def test_a_cache_keeps_the_embeddings(beir, bert_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "load_encoder", load_encoder)
    monkeypatch.setattr(measuring, "embed_texts", None)  # all goes through the cache
    first, again = (evaluate(str(bert_folder), data=str(beir), cache=tmp_path / "cache") for _ in range(2))
    assert first.tasks == again.tasks
    assert len(list((tmp_path / "cache").glob("*/vectors.bin"))) == 2  # queries, documents


def test_latency_is_told_and_kept(beir, tmp_path, monkeypatch, capsys):
    asked = []

    def embed_one(encoder, texts, role, *, precision):
        asked.append((tuple(texts), role, precision))
        return embed(encoder, texts, role, token_budget=None, precision=precision, description=None)

    monkeypatch.setattr(latency, "embed_texts", embed_one)
    results = evaluate("m", data=str(beir), latency=True, precision="bf16", output=tmp_path / "out")
    found = results.cost["latency"]
    assert (found["queries"], found["documents"]) == (6, 8)
    assert all(found[f"{part}_ms_p{p}"] > 0 for part in ("embed", "search") for p in (50, 95))
    assert asked[0] == (("Zellen",), "query", "bf16") and len(asked) == 3 + 6
    assert read_results(tmp_path / "out") == results
    assert "one query: embedding" in capsys.readouterr().out


def test_the_search_is_on_the_models_device_and_the_corpus_stays_where_it_is(beir, monkeypatch):
    """On ``meta``, which holds no values: where tensors are is all that is looked at."""
    places = []

    def search(queries, corpus, k, *, options, backend):
        tensors = (queries, options.query_ids, options.corpus_ids, corpus)
        places.append([tensor.device.type for tensor in tensors])
        return Neighbours(torch.zeros(len(queries), k), torch.arange(k).repeat(len(queries), 1))

    def load(model, **overrides):
        encoder = FakeEncoder(overrides)
        encoder.device = torch.device("meta")
        return encoder

    monkeypatch.setattr(command, "load_encoder", load)
    monkeypatch.setattr(measures, "search", search)
    evaluate("m", data=str(beir))
    assert places == [["meta", "meta", "meta", "cpu"]] * 5


def test_candidates_whose_documents_were_skipped_are_left_out(beir, tmp_path, capsys):
    with (beir / "corpus.jsonl").open("a") as file:
        file.write(json.dumps({"_id": "blank", "text": " "}) + "\n")
    run = tmp_path / "run.trec"
    run.write_text("q-a@de Q0 a@de 1 2 x\nq-a@de Q0 blank 2 1 x\n")
    evaluate("m", data=str(beir), candidates=run, skip_invalid=True)
    told = " ".join(capsys.readouterr().out.split())
    assert "data, de → de: 1 candidates are left out, for their documents were skipped as invalid" in told


def test_queries_that_do_not_search_their_own_document_are_told(beir, capsys):
    path = beir / "corpus.jsonl"
    with path.open("a") as file:
        file.write(json.dumps({"_id": "q-a@de", "text": "Zellen", "language": "de"}) + "\n")
    evaluate("m", data=str(beir))
    told = " ".join(capsys.readouterr().out.split())
    assert "data, de → de: 1 of 3 queries do not search the document that has their own id" in told


@pytest.fixture
def two_benchmarks(beir, monkeypatch):
    """A collection of two data sets; the second one has no languages."""
    plain = beir.parent / "plain"
    shutil.copytree(beir, plain)
    for name in ("corpus", "queries"):
        path = plain / f"{name}.jsonl"
        path.write_text(re.sub(r'"metadata": \{.*?\}', '"metadata": {}', path.read_text()))
    benchmarks = [
        Benchmark(folder.name, (Part(lambda folder=folder: read_beir(folder)),)) for folder in (beir, plain)
    ]
    monkeypatch.setattr(command, "find_benchmarks", lambda data, **options: benchmarks)


def test_several_benchmarks_have_a_folder_each_and_one_summary(two_benchmarks, tmp_path, loaded, capsys):
    old, new = tmp_path / "old", tmp_path / "new"
    evaluate("old", data="both", output=old)
    capsys.readouterr()
    first = evaluate("new", data="both", output=new, versus=[str(old), "third"])
    assert [model for model, _ in loaded] == ["old", "new", "third"]
    data, plain = (read_results(new / name) for name in ("data", "plain"))
    assert (data, data.data, plain.data) == (first, "data", "plain")
    for name in ("data", "plain"):
        compared = {json.loads(path.read_text())["other"] for path in (new / name).glob("comparison-*")}
        assert compared == {str(old / name), "third"}
    summary = json.loads((new / "benchmarks.json").read_text())
    scores = [
        ("data", "monolingual", 2, data.means["monolingual"]["nDCG@10"]),
        ("data", "cross_lingual", 3, data.means["cross_lingual"]["nDCG@10"]),
        ("plain", "all", 1, plain.means["all"]["nDCG@10"]),
    ]
    assert [tuple(entry.values()) for entry in summary["benchmarks"]] == scores
    assert summary["mean"] == pytest.approx(sum(score for *_, score in scores) / 3)
    printed = " ".join(capsys.readouterr().out.split())
    assert "nDCG@10 of all benchmarks" in printed and f"mean {summary['mean']:.4f}" in printed


def test_the_folder_of_several_benchmarks_is_no_evaluation(two_benchmarks, beir, tmp_path, monkeypatch):
    evaluate("m", data="both", output=tmp_path / "both")
    message = r"both: no evaluation, but a folder with 2 \(data, plain\); give one of them, such as .*/data"
    with pytest.raises(UserError, match=message):
        compare(tmp_path / "both", versus=str(tmp_path / "both"))
    only = read_beir(beir)
    single = [Benchmark("data", (Part(lambda: only),))]
    monkeypatch.setattr(command, "find_benchmarks", lambda data, **options: single)
    with pytest.raises(UserError, match=message):
        evaluate("m", data="data", versus=str(tmp_path / "both"))
    # one evaluation in place of two leaves no summary of them
    evaluate("m", data="data", output=tmp_path / "both", overwrite=True)
    assert not (tmp_path / "both" / "benchmarks.json").exists()
