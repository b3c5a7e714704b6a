"""The command from files to files: every rule, several processes, a kill, and broken input."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lit_retrofit.cleaning import examine
from lit_retrofit.cleaning.clean import clean
from lit_retrofit.cleaning.named_models import stamp_models
from lit_retrofit.cleaning.options import (
    ConsistencyOptions,
    DuplicateOptions,
    LanguageOptions,
    LeakageOptions,
    LengthOptions,
)
from lit_retrofit.cleaning.sources import Sources, find_sources
from lit_retrofit.data.catalogue import resolve_source
from lit_retrofit.data.formats import read_records
from lit_retrofit.data.source_options import SourceOptions
from lit_retrofit.data.sources import read_source
from lit_retrofit.errors import Interrupted, UserError
from lit_retrofit.quickstart.embedded_data import resolve_data

TOPICS = [
    "filters", "borders", "comments", "charts", "formulas", "headers", "macros", "styles", "tables", "fonts"
]  # fmt: skip


def row(number: int, **changes) -> dict:
    topic = TOPICS[number % 10]
    text = (
        f"This page of chapter {number} explains how {topic} are created in sheet {number * 7919 % 1009}, "
        f"and what becomes of them when document {number * 31 % 997} is saved as version {number % 89}."
    )
    query = f"{topic} {number} {hash_letters(number)}"
    return {"query": query, "positive": text, "language": "en", "document_id": f"d{number}"} | changes


def hash_letters(number: int) -> str:
    return "".join(chr(97 + (number * p) % 26) for p in (3, 7, 11, 17, 19, 23, 29, 31))


def write_rows(path, rows):
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    return path


DIRTY = {
    1: ("exact_duplicate", row(0, query=row(0)["query"].upper() + "\u200b")),
    3: ("too_short", row(3, positive="Too short.")),
    4: ("garbled", row(4, positive="\x00\x01\x02\ufffd" * 20)),
    6: ("near_duplicate", row(5, positive=row(5)["positive"].replace("saved", "safed"), document_id="d6")),
    7: ("id_conflict", row(7, document_id="d2")),
    8: ("language", row(8, positive="Diese Seite erklärt, wie man Tabellen anlegt und wieder löscht.")),
    9: ("copied", row(9, query="chapter 9 explains how fonts are")),
    11: ("leaked_exact", row(11, query="EVALUATION  question")),
    12: ("leaked_id", row(12, document_id="e1")),
    13: ("too_long", row(13, query="x" * 1001)),
    14: ("leaked_near", row(14, positive=row(500)["positive"].replace("created", "creatad"))),
}


@pytest.fixture
def dirty(tmp_path):
    """Twenty rows, eleven of which are dropped, and the evaluation set that three of them give away."""
    rows = [DIRTY[i][1] if i in DIRTY else row(i) for i in range(20)]
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    documents = [{"_id": "e1", "text": row(500)["positive"]}, {"_id": "e2", "text": row(0)["positive"]}]
    write_rows(folder / "corpus.jsonl", documents)
    write_rows(folder / "queries.jsonl", [{"_id": "q", "text": "evaluation question"}])
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\te1\t1\n")
    return write_rows(tmp_path / "dirty.jsonl", rows), LeakageOptions(against=(str(folder),))


def test_every_rule_drops_its_record_and_says_so(dirty, tmp_path, capsys):
    data, leakage = dirty
    output, side = tmp_path / "clean.jsonl", tmp_path / "dropped.jsonl"
    summary = clean(str(data), output=output, dropped=side, leakage=leakage, workers=1)
    assert summary.read == 20 and summary.kept == 9
    assert {rule: count for rule, count in summary.dropped.items() if count} == {
        rule: 1 for rule, _ in DIRTY.values()
    }
    given, _ = read_records(
        write_rows(tmp_path / "good.jsonl", [row(i) for i in range(20) if i not in DIRTY])
    )
    kept, _ = read_records(output)
    assert [(r.query, r.positives) for r in kept] == [(r.query, r.positives) for r in given]
    dropped = [json.loads(line) for line in side.read_text().splitlines()]
    assert [(r["place"], r["rule"]) for r in dropped] == [
        (f"{data}:{i + 1}", rule) for i, (rule, _) in DIRTY.items()
    ]
    assert len(read_records(side)[0]) == 11  # they are records still
    details = {r["rule"]: r["detail"] for r in dropped}
    assert details["exact_duplicate"] == f"equal to {data}:1"
    assert details["near_duplicate"].endswith(f"similar to {data}:6")
    assert details["id_conflict"] == f"other text in {data}:3"
    assert details["leaked_id"] == "positive is beir e1"
    written = json.loads((tmp_path / "clean.summary.json").read_text())
    assert written["kept"] == 9 and written["examples"]["copied"][0]["place"] == f"{data}:10"
    assert written["rules"]["copied_words"] == 5 and written["languages"] == {"en": [20, 9]}
    shown = capsys.readouterr().out
    assert "9 of 20 records (45.0 %)" in shown and "leakage.ids false" in shown
    assert not list(tmp_path.glob(".*"))  # no work is left


def test_rules_can_be_turned_off(dirty, tmp_path):
    summary = clean(
        str(dirty[0]),
        output=tmp_path / "clean.jsonl",
        lengths=LengthOptions(query_characters=(1, 5000), document_characters=(1, 5000)),
        language=LanguageOptions(confidence=None),
        duplicates=DuplicateOptions(exact=False, near=None),
        copied_words=None,
        garbled=False,
        workers=1,
    )
    assert summary.kept == 19 and summary.dropped["id_conflict"] == 1


@pytest.mark.parametrize(("scope", "kept"), [("pair", 3), ("query", 2), ("document", 2)])
def test_what_counts_as_repeated_can_be_chosen(tmp_path, scope, kept):
    rows = [row(1), row(1, query="something else"), row(2, query=row(1)["query"])]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    for near in (None, 0.8):
        summary = clean(
            str(data), output=tmp_path / "o.jsonl", duplicates=DuplicateOptions(of=scope, near=near),
            workers=1, overwrite=True,
        )  # fmt: skip
        assert summary.kept == kept


def test_caps_keep_a_seeded_choice_of_the_clean_ones(tmp_path):
    rows = [row(i, language="en" if i % 3 else "de") for i in range(60)]
    data = write_rows(tmp_path / "rows.jsonl", [*rows, row(1, query="!")])
    options = {"language": LanguageOptions(confidence=None), "max_per_language": 15, "workers": 1}
    kept = []
    for seed, name in ((0, "a"), (0, "b"), (1, "c")):
        summary = clean(str(data), output=tmp_path / f"{name}.jsonl", seed=seed, **options)
        assert summary.languages == {"de": (20, 15), "en": (41, 15)} and summary.dropped["too_short"] == 1
        kept.append((tmp_path / f"{name}.jsonl").read_bytes())
    assert kept[0] == kept[1] != kept[2]


def test_the_consistency_filter_drops_what_bm25_does_not_find(tmp_path):
    rows = [row(i) for i in range(30)]
    rows[4]["query"] = "entirely unrelated zebra"
    data = write_rows(tmp_path / "rows.jsonl", rows)
    for pool in (30, 7):
        summary = clean(
            str(data), output=tmp_path / "o.jsonl", dropped=tmp_path / "d.jsonl", overwrite=True, workers=1,
            consistency=ConsistencyOptions(retriever="bm25", top=3, pool=pool),
        )  # fmt: skip
        assert summary.dropped["inconsistent"] >= 1
        lines = [json.loads(line) for line in (tmp_path / "d.jsonl").read_text().splitlines()]
        assert f"{data}:5" in [line["place"] for line in lines]
        assert all(line["detail"].startswith("rank ") for line in lines)


def test_several_sources_patterns_and_parquet(tmp_path):
    write_rows(tmp_path / "part-0.jsonl", [row(i) for i in range(5)])
    pq.write_table(pa.Table.from_pylist([row(i) for i in range(3, 8)]), tmp_path / "more.parquet")
    data = [str(tmp_path / "part-*.jsonl"), str(tmp_path / "more.parquet")]
    output = tmp_path / "clean.parquet"
    summary = clean(data, output=output, workers=1)
    assert summary.kept == 8 and summary.dropped["exact_duplicate"] == 2
    assert summary.examples["exact_duplicate"][0].place == f"{tmp_path / 'more.parquet'}:1"
    kept, _ = read_records(output)
    assert [r.positives[0].id for r in kept] == [f"d{i}" for i in range(8)]
    clean(str(output), output=tmp_path / "again.parquet", workers=1)
    assert read_records(tmp_path / "again.parquet")[0] == kept


def test_every_convention_is_read(tmp_path, dirty):
    triplet = {"anchor": "a question", "positive": row(1)["positive"], "negative": row(1)["positive"]}
    flag = {"query": "b question", "pos": [row(2)["positive"]], "neg": [row(3)["positive"]]}
    write_rows(tmp_path / "t.jsonl", [triplet])
    write_rows(tmp_path / "f.jsonl", [flag])
    data = [str(tmp_path / "t.jsonl"), str(tmp_path / "f.jsonl"), dirty[1].against[0], "quickstart:train"]
    summary = clean(data, output=tmp_path / "o.jsonl", duplicates=DuplicateOptions(near=None), workers=1)
    assert summary.read == 3 + len(read_records(resolve_data("quickstart:train"))[0])
    assert summary.removed_negatives == 1
    assert read_records(tmp_path / "o.jsonl")[0][1].negatives[0].text == row(3)["positive"]


def test_a_named_source_is_cleaned_under_its_fields_and_languages(tmp_path, dirty, monkeypatch):
    """A YAML file's: in two languages, columns of other names, and the evaluation's question in both."""
    monkeypatch.chdir(tmp_path)
    texts = {
        "en": row(1)["positive"],
        "de": "Diese Seite erklärt, wie man Tabellen anlegt und wieder löscht.",
    }
    for language, text in texts.items():
        pairs = [("a question", text), ("Evaluation question", text)]
        rows = [{"title": question, "page": {"body": body}, "query": "no"} for question, body in pairs]
        write_rows(tmp_path / f"{language}-pages.jsonl", rows)
    (tmp_path / "mine.yaml").write_text(
        "path: '{language}-pages.jsonl'\nlanguages: {en: en, de: de}\ntask: question\nweight: 2\n"
        "fields: {query: title, positive: page.body}\n"
    )
    summary = clean(
        ["source:mine.yaml", "dirty.jsonl"], output=Path("o.jsonl"), leakage=dirty[1], workers=1,
        language=LanguageOptions(min_letters=30),
    )  # fmt: skip
    assert summary.languages == {"en": (22, 10), "de": (2, 1)}
    assert [e.place for e in summary.examples["leaked_exact"]][:2] == [
        "en-pages.jsonl:2",
        "de-pages.jsonl:2",
    ]
    expected, _ = read_source(resolve_source(SourceOptions("source:mine.yaml")))
    kept = read_records("o.jsonl")[0]
    assert kept[:2] == [expected[0], expected[2]]
    assert [(r.query, r.language, r.task, r.positives[0].text) for r in kept[:2]] == [
        ("a question", language, "question", text) for language, text in texts.items()
    ]


def test_a_shipped_source_is_read_from_the_hub_in_all_its_languages(tmp_path, monkeypatch):
    def load(name, config, split=None, revision=None):
        number = sum(map(ord, config))
        texts = {"anchor": row(number)["query"], "positive": row(number)["positive"] + config}
        return datasets.Dataset.from_list([texts | {"negative": f"not for {config}"}] * 2)

    monkeypatch.setattr(datasets, "load_dataset", load)
    languages = resolve_source(SourceOptions("source:miracl")).languages
    summary = clean(
        "source:miracl", output=tmp_path / "o.jsonl", workers=1, language=LanguageOptions(confidence=None),
        duplicates=DuplicateOptions(near=None),
    )  # fmt: skip
    assert summary.languages == dict.fromkeys(languages, (2, 1)) and len(languages) == 16
    assert summary.examples["exact_duplicate"][0].place == "hf:sentence-transformers/miracl:ar-triplet:2"
    assert [r.language for r in read_records(tmp_path / "o.jsonl")[0]] == list(languages)


def test_the_place_of_a_later_record_is_known_while_they_are_read_again(tmp_path):
    paths = [str(write_rows(tmp_path / f"{name}.jsonl", [row(0), row(1)])) for name in "ab"]
    sources = Sources(find_sources(paths))
    assert len(list(sources.read())) == 4
    next(iter(sources.read()))
    assert [sources.place(number) for number in (0, 3)] == [f"{paths[0]}:1", f"{paths[1]}:2"]


def test_a_record_in_conflict_does_not_take_its_equal_along(tmp_path):
    """The third row has the second one's texts, and an id of its own."""
    again = row(2, document_id="d77")
    data = write_rows(tmp_path / "rows.jsonl", [row(1), row(2, document_id="d1"), again, again])
    summary = clean(str(data), output=tmp_path / "o.jsonl", dropped=tmp_path / "d.jsonl", workers=1)
    assert [r.positives[0].id for r in read_records(tmp_path / "o.jsonl")[0]] == ["d1", "d77"]
    dropped = [json.loads(line) for line in (tmp_path / "d.jsonl").read_text().splitlines()]
    assert [(r["rule"], r["detail"]) for r in dropped] == [
        ("id_conflict", f"other text in {data}:1"),
        ("exact_duplicate", f"equal to {data}:3"),
    ]
    assert summary.kept == 2


def test_ids_that_reading_made_up_are_not_compared(tmp_path):
    """Equal lines of files of one name, and equal documents without an id; also where they were written."""

    def unnamed(number: int, **changes) -> dict:
        return {name: value for name, value in row(number, **changes).items() if name != "document_id"}

    for folder in ("train", "test"):
        (tmp_path / folder).mkdir()
    data = write_rows(tmp_path / "train" / "data.jsonl", [unnamed(i) for i in range(4)])
    others = [unnamed(7), unnamed(8), unnamed(2, query="something else")]
    test = write_rows(tmp_path / "test" / "data.jsonl", others)
    clean(str(test), output=tmp_path / "kept.jsonl", workers=1)
    clean(str(data), output=tmp_path / "before.jsonl", workers=1)
    for given in (data, tmp_path / "before.jsonl"):
        for against in (test, tmp_path / "kept.jsonl"):
            summary = clean(
                str(given), output=tmp_path / "o.jsonl", workers=1, overwrite=True,
                leakage=LeakageOptions(against=(str(against),)),
            )  # fmt: skip
            assert {rule: count for rule, count in summary.dropped.items() if count} == {"leaked_exact": 1}


@pytest.fixture
def many(tmp_path, monkeypatch):
    """450 rows in chunks of 50, every third repeated, and options that use all passes."""
    monkeypatch.setattr("lit_retrofit.cleaning.passes.CHUNK", 50)
    rows = [row(i) if i % 3 else row(i // 2) for i in range(450)]
    return {
        "data": str(write_rows(tmp_path / "many.jsonl", rows)),
        "consistency": ConsistencyOptions(retriever="bm25", pool=100),
        "max_per_language": 200,
    }


def run(many, folder, **options):
    folder.mkdir(exist_ok=True)
    summary = clean(**many, output=folder / "o.jsonl", dropped=folder / "d.jsonl", **options)
    return summary.dropped, (folder / "o.jsonl").read_bytes(), (folder / "d.jsonl").read_bytes()


def test_an_interrupted_run_goes_on_and_ends_the_same(many, tmp_path, monkeypatch):
    whole = run(many, tmp_path / "whole", workers=1)
    real = examine.Examiner.__call__
    examined = []

    def failing(self, chunk):
        examined.append(chunk.path.name)
        if len(examined) == 4:
            raise KeyboardInterrupt
        return real(self, chunk)

    monkeypatch.setattr(examine.Examiner, "__call__", failing)
    with pytest.raises(Interrupted, match="same command goes on"):
        run(many, tmp_path / "cut", workers=1)
    assert not (tmp_path / "cut" / "o.jsonl").exists()
    with pytest.raises(UserError, match=r"other settings \(seed\) left its work"):
        run(many, tmp_path / "cut", workers=1, seed=3)
    assert run(many, tmp_path / "cut", workers=1) == whole
    assert len(examined) == len(set(examined)) + 1 == 10  # the fourth chunk alone was begun twice
    assert whole[0]["exact_duplicate"] > 0 and whole[0]["language_cap"] > 0


def test_work_of_other_data_is_thrown_away(many, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "lit_retrofit.cleaning.clean.compare", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(Interrupted):
        run(many, tmp_path / "cut", workers=1)
    monkeypatch.undo()
    with open(many["data"], "a") as file:
        file.write(json.dumps(row(999)) + "\n")
    dropped, written, _ = run(many, tmp_path / "cut", workers=1)
    assert sum(dropped.values()) + 200 == 451 and len(written.splitlines()) == 200


def test_a_model_that_was_trained_anew_is_another_setting(tmp_path, monkeypatch, bert_folder):
    data = write_rows(tmp_path / "rows.jsonl", [row(i) for i in range(5)])
    model = shutil.copytree(bert_folder, tmp_path / "model")
    options = {
        "output": tmp_path / "o.jsonl",
        "consistency": ConsistencyOptions(retriever=str(model), top=5),
        "workers": 1,
    }
    monkeypatch.setattr(
        "lit_retrofit.cleaning.clean.rank", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(Interrupted):
        clean(str(data), **options)
    monkeypatch.undo()
    (model / "model.safetensors").touch()
    with pytest.raises(UserError, match=r"other settings \(models\) left its work"):
        clean(str(data), **options)
    assert clean(str(data), **options, overwrite=True).kept == 5


def test_a_checkpoint_is_told_by_its_file_and_its_bases(two_encoders_run, bert_folder, xlmr_folder):
    lengths = LengthOptions(model=str(bert_folder), query_tokens=(1, 9))
    stamps = stamp_models(lengths, ConsistencyOptions(retriever=str(two_encoders_run)))
    of_run = {Path(name) for name, _, _ in stamps["consistency.retriever"]}
    assert two_encoders_run / "checkpoints" / "last.ckpt" in of_run
    assert {bert_folder / "config.json", xlmr_folder / "config.json"} <= of_run
    assert {Path(name).parent for name, _, _ in stamps["lengths.model"]} >= {bert_folder}
    assert not stamp_models(LengthOptions(), ConsistencyOptions(retriever="bm25"))


@pytest.mark.parametrize(
    ("retriever", "message"),
    [("./e6", "e6: no such model"), ("owner/e6", "e6: cannot be loaded .no such repository.; check")],
)
def test_a_misspelt_retriever_is_told_before_anything_is_read(tmp_path, monkeypatch, retriever, message):
    def refuse(*names, **options):
        raise OSError("no such\nrepository")

    monkeypatch.setattr("transformers.utils.cached_file", refuse)
    monkeypatch.setattr(Sources, "read", lambda self: pytest.fail("the data are read"))
    data = write_rows(tmp_path / "rows.jsonl", [row(1)])
    with pytest.raises(UserError, match=message):
        clean(
            str(data), output=tmp_path / "o.jsonl", workers=1,
            consistency=ConsistencyOptions(retriever=retriever),
        )  # fmt: skip


def test_a_fault_before_anything_is_done_leaves_nothing(tmp_path):
    data = write_rows(tmp_path / "rows.jsonl", [row(1, positive=None)])
    with pytest.raises(UserError, match="is null"):
        clean(str(data), output=tmp_path / "o.jsonl", workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.slow
def test_any_number_of_processes_gives_the_same(many, tmp_path):
    assert run(many, tmp_path / "one", workers=1) == run(many, tmp_path / "three", workers=3)


def is_running(pid: str) -> bool:
    """There, and no zombie that nobody has asked for."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.slow
def test_a_run_killed_outright_leaves_no_process_and_goes_on(tmp_path):
    data = write_rows(tmp_path / "data.jsonl", [row(i) for i in range(12_000)])
    code = "import sys; from lit_retrofit.cli import main; sys.exit(main())"
    output = tmp_path / "o.jsonl"
    command = [sys.executable, "-c", code, "clean", str(data), "--output", str(output), "--workers", "2"]
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    work = tmp_path / ".o.jsonl.work"
    deadline = time.monotonic() + 60
    while len(list(work.glob("examined-*.npz"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(started.pid)], capture_output=True, text=True
    ).stdout.split()
    assert len(children) >= 2
    with pytest.raises(UserError, match="another process"):
        clean(str(data), output=output, workers=1)
    started.send_signal(signal.SIGKILL)
    started.wait()
    done = {path.name: path.stat().st_mtime_ns for path in work.glob("examined-*.npz")}
    assert done and not output.exists()
    deadline = time.monotonic() + 10
    while any(map(is_running, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, children))
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert "of 12000 records" in finished.stdout and output.exists() and not work.exists()


def test_broken_lines_stop_or_are_counted(tmp_path):
    good = json.dumps(row(0)).encode()
    lines = [
        good,
        json.dumps(row(1, positive="Größe und Länge der ausgewählten Zellen")).encode("utf-8"),
        json.dumps(row(2, positive="Größe und Länge"), ensure_ascii=False).encode("latin-1"),
        b"\x89PNG\r\x1a\x00\xff\xfe",
        b'{"query": "cut off", "posi',
        b'["a list"]',
        json.dumps(row(3, positive=None)).encode(),
        json.dumps(row(4, positive="\u200b\u200f\ufeff")).encode(),
    ]
    data = tmp_path / "broken.jsonl"
    data.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(UserError, match=r"broken\.jsonl:3: not UTF-8"):
        clean(str(data), output=tmp_path / "o.jsonl", workers=1)
    options = {"language": LanguageOptions(confidence=None), "overwrite": True, "skip_invalid": True}
    summary = clean(str(data), output=tmp_path / "o.jsonl", workers=1, **options)
    assert summary.kept == summary.read == 2
    assert summary.skipped == {
        "not UTF-8": 2,
        "not a JSON object": 2,
        "field 'positive' is null": 1,
        "field 'positive' is blank": 1,
    }


def test_nothing_left_is_an_error_that_names_the_rule(tmp_path):
    data = write_rows(tmp_path / "rows.jsonl", [row(1, query="?"), row(2, query="!")])
    with pytest.raises(UserError, match="rule 'too_short' dropped 2") as caught:
        clean(str(data), output=tmp_path / "o.jsonl", workers=1)
    assert "\n" not in str(caught.value) and not (tmp_path / "o.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": "o.csv"}, r"\.jsonl or \.parquet"),
        ({"output": "rows.jsonl", "overwrite": True}, "is the data itself"),
        ({"output": "there.jsonl"}, "exists already"),
        ({"dropped": "d.parquet"}, r"ending in \.jsonl"),
        ({"dropped": "o.jsonl"}, "two names"),
        ({"data": "nowhere-*.jsonl"}, "no such file"),
        ({"data": "nowhere.jsonl"}, "no such file"),
        ({"data": ["rows.jsonl", "rows.jsonl"]}, "named twice"),
        ({"format": "beer"}, "format 'beer' is unknown"),
        ({"workers": 0}, "workers is 0"),
        ({"max_per_language": 0}, "max_per_language is 0"),
        ({"copied_words": 0}, "copied_words is 0"),
        ({"duplicates": DuplicateOptions(near=1.5)}, "near is 1.5"),
        ({"language": LanguageOptions(confidence=80)}, "confidence is 80"),
        ({"lengths": LengthOptions(query_characters=(9, 2))}, r"query_characters is \[9, 2\]"),
        ({"lengths": LengthOptions(query_tokens=(1, 9))}, "lengths.model and the tokens"),
        ({"consistency": ConsistencyOptions(retriever="bm25", pool=10, top=10)}, "every record would pass"),
        ({"leakage": LeakageOptions(against=("nowhere",))}, "no such folder or benchmark"),
        ({"data": "source:nowhere"}, "no source has this name"),
        ({"data": ["source:miracl", "source:miracl"]}, "miracl:ar-triplet: named twice"),
        ({"data": "source:odd.yaml"}, "languages is given, but path has no"),
        ({"lengths": LengthOptions(model="./no", query_tokens=(1, 9))}, "no such model"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.jsonl", [row(1), row(2)])
    (tmp_path / "there.jsonl").write_text("mine")
    (tmp_path / "odd.yaml").write_text("path: rows.jsonl\nlanguages: {en: en}\n")
    paths = {"output": Path(options.pop("output", "o.jsonl"))}
    if "dropped" in options:
        paths["dropped"] = Path(options.pop("dropped"))
    with pytest.raises(UserError, match=message) as caught:
        clean(options.pop("data", "rows.jsonl"), **paths, **{"workers": 1} | options)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "there.jsonl").read_text() == "mine" and len(
        read_records(tmp_path / "rows.jsonl")[0]
    ) == 2


def test_the_console_takes_nested_options_and_shows_mistakes(tmp_path, capsys):
    from lit_retrofit.cli import main

    data = write_rows(tmp_path / "rows.jsonl", [row(1), row(2), row(1)])
    words = ["clean", str(data), "--output", str(tmp_path / "o.jsonl"), "--workers", "1"]
    assert main([*words, "--duplicates.near", "2"]) == 2
    assert "near is 2" in capsys.readouterr().err
    assert main([*words, "--duplicates.near", "null", "--lengths.query_characters", "[1, 99]"]) == 0
    assert "2 of 3 records" in capsys.readouterr().out
