import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from lit_retrofit.cli import main
from lit_retrofit.errors import UserError
from lit_retrofit.evaluation.significance import paired_difference
from lit_retrofit.report.report import report

VOID = {"meta", "br", "img", "link", "input", "hr", "line", "polyline", "polygon"}


class Page(HTMLParser):
    """Checks that tags nest, and keeps attributes, tags and texts."""

    def __init__(self, html):
        super().__init__()
        self.open, self.attributes, self.tags, self.texts = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(" ".join(data.split()))

    @property
    def text(self):
        return " ".join(text for text in self.texts if text).replace("\xa0", " ")


def run(made, **options):
    given = {"before": made.before, "after": made.after, "output": made.out, "training": made.fit}
    return report(**({"points": 0} | given | options))[0]


def page_of(made, **options):
    run(made, **options)
    return Page((made.out / "report.html").read_text(encoding="utf-8"))


def test_summary_of_a_run_with_its_training(made):
    run(made, mining=made.mining)
    summary = json.loads((made.out / "summary.json").read_text())
    assert list(summary) == ["monolingual", "cross_lingual", "zero_shot", "seconds"]
    assert summary["monolingual"] == pytest.approx({"before": 0.6, "after": 0.675, "bm25": 0.6})
    assert summary["cross_lingual"] == pytest.approx({"before": 0.25, "after": 0.45, "bm25": 0.11})
    assert summary["zero_shot"] == pytest.approx({"before": 0.6, "after": 0.58, "bm25": 0.5})
    assert summary["seconds"] == pytest.approx(500, abs=20)


def test_without_training_all_languages_count(made):
    summary = run(made, training=None)
    assert summary.monolingual.before == pytest.approx(0.6)
    assert summary.monolingual.after == pytest.approx(1.93 / 3)
    assert summary.cross_lingual.after == pytest.approx(0.375)
    assert json.loads((made.out / "summary.json").read_text())["zero_shot"] is None
    assert summary.seconds == pytest.approx(100, abs=20)


def test_bm25_is_null_where_it_was_not_measured(made):
    content = json.loads((made.before / "metrics.json").read_text())
    for task in content["tasks"]:
        del task["bm25"]
    (made.before / "metrics.json").write_text(json.dumps(content))
    assert "BM25" not in page_of(made).text
    assert json.loads((made.out / "summary.json").read_text())["monolingual"]["bm25"] is None


def test_the_page_is_well_formed_and_self_contained(made):
    page = page_of(made, mining=made.mining)
    loading = {"src", "href", "srcset", "data", "action", "poster", "background"}
    assert [found for found in page.attributes if found[1] in loading or found[1].startswith("on")] == []
    assert not {"script", "link", "iframe", "img", "object"} & set(page.tags)
    html = (made.out / "report.html").read_text()
    assert "@import" not in html and "url(" not in html and "://" not in html
    assert ("html", "lang", "en") in page.attributes
    assert page.tags.count("svg") == sum(
        (tag, name) in {("svg", "role"), ("svg", "aria-hidden")} for tag, name, _ in page.attributes
    )


def test_texts_are_escaped(made):
    page = page_of(made, title="<b>mine</b>")
    assert "<script>alert('q1')</script> & more" in page.text
    assert "<img src=x onerror=alert(1)> Wort" in page.text
    assert page.texts.count("<b>mine</b>") == 2
    for given, name, value in page.attributes:
        assert "<" not in (value or ""), (given, name)


def test_the_page_tells_what_was_measured_and_made(made):
    text = page_of(made, mining=made.mining).text
    assert "Monolingual before 0.600 → after 0.675 change +0.075" in text
    assert "zero-shot: never trained on tr 0.600 0.580 −0.020 0.500" in text
    assert "1 of 7 tasks lost nDCG@10, none of them beyond chance: tr → tr (zero-shot) −0.0200 ." in text
    assert "BM25 is still ahead in en → en (0.750 against 0.800)." in text
    assert "dropped: relative margin 102" in text and "Records dropped 2" in text
    assert "lora.r 16" in text and "Mining 9 s" in text and "Training 40 s" in text
    assert "lit-retrofit export" in text
    assert "Training loss by step: from 3 to 1." in text
    assert "3 of 4 rankings" in text and "rose for 1 of them and fell for 1." in text


def test_an_export_that_is_there_is_the_one_to_load(made):
    (made.out / "export").mkdir(parents=True)
    (made.out / "export" / "modules.json").touch()
    text = page_of(made).text
    assert "lit-retrofit export" not in text
    assert f'SentenceTransformer("{made.out / "export"}")' in text


def test_changed_queries_side_by_side(made):
    page = page_of(made)
    assert ("h3", "lang", "de") in page.attributes and ("h3", "dir", "auto") in page.attributes
    html = (made.out / "report.html").read_text()
    improved, worse = html.split('<article class="card example">')[1:]
    sides = [re.findall(r'<li( class="relevant")?>.*?<p [^>]*>([^<]*)', s) for s in improved.split("After")]
    assert [[(bool(r), text[:13]) for r, text in side] for side in sides] == [
        [(False, "Document b in"), (False, "Document c in"), (False, "Document d in")],
        [(True, "&lt;img src=x"), (False, "Document b in"), (False, "Document c in")],
    ]
    assert "مرحبا" in worse and "−0.500" in worse
    assert "no relevant document in the first ten" in improved
    assert "first relevant document at rank 3" in worse


def test_no_examples_need_no_data(made):
    text = page_of(made, examples=0, training=None).text
    assert "changed" not in text
    assert "means are over all languages" in text


def test_a_loss_log_that_is_missing_or_bad_is_told(made):
    log = made.fit / "metrics.csv"
    log.write_text("step,train/loss\n0,1.5\n1,nan\n2,oops\n3,1.0\n")
    text = page_of(made).text
    assert "2 values of the loss" in text and "from 1.5 to 1." in text
    log.write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in page_of(made, overwrite=True).text
    log.write_text("epoch,step\n")
    assert "no value of train/loss" in page_of(made, overwrite=True).text
    log.unlink()
    assert "metrics.csv is missing" in page_of(made, overwrite=True).text


def test_records_without_a_language_train_none_that_can_be_named(made):
    def train_on(languages):
        card = json.loads((made.fit / "training.json").read_text())
        card["data"]["languages"] = languages
        (made.fit / "training.json").write_text(json.dumps(card))

    train_on({"unknown": 30})
    assert "The training records name no language" in page_of(made).text
    assert json.loads((made.out / "summary.json").read_text())["zero_shot"] is None
    train_on({"unknown": 10, "de": 20})
    assert "10 training records name no language" in page_of(made, overwrite=True).text
    assert json.loads((made.out / "summary.json").read_text())["zero_shot"]["after"] == pytest.approx(0.665)


def test_a_set_without_languages(made):
    for folder, score in ((made.before, 0.25), (made.after, 0.5)):
        content = json.loads((folder / "metrics.json").read_text())
        task = content["tasks"][0] | {"kind": "all", "query_language": None, "corpus_language": None}
        content["tasks"] = [task | {"scores": {"nDCG@10": score}}]
        (folder / "metrics.json").write_text(json.dumps(content))
    page_of(made, examples=0)
    summary = json.loads((made.out / "summary.json").read_text())
    assert summary["all"] == {"before": 0.25, "after": 0.5, "bm25": 0.4}
    assert summary["monolingual"] is None and summary["zero_shot"] is None


def test_only_the_two_files_are_overwritten_and_only_on_demand(made):
    made.out.mkdir()
    (made.out / "notes.txt").write_text("mine")
    run(made)
    first = (made.out / "report.html").read_text()
    with pytest.raises(UserError, match=r"report.html already exists; .*--overwrite"):
        run(made, title="other")
    (made.out / "report.html").unlink()
    with pytest.raises(UserError, match=r"summary.json already exists; .*--overwrite"):
        run(made, title="other")
    assert not (made.out / "report.html").exists()
    run(made, title="other", overwrite=True)
    assert (made.out / "report.html").read_text() != first
    assert sorted(path.name for path in made.out.iterdir()) == ["notes.txt", "report.html", "summary.json"]


@pytest.mark.parametrize(
    ("damage", "options", "message"),
    [
        (lambda m: (m.after / "metrics.json").unlink(), {}, r"after/metrics.json is missing; lit-retrofit"),
        (lambda m: (m.before / "queries.jsonl").unlink(), {}, r"before/queries.jsonl is missing"),
        (lambda m: (m.fit / "training.json").unlink(), {}, r"training.json is missing: the fit did not end"),
        (
            lambda m: (m.fit / "training.json").write_text("{}"),
            {},
            r"training.json: field 'started' is missing",
        ),
        (lambda m: (m.fit / "training.json").write_text("{"), {}, r"training.json:1: not valid JSON"),
        (lambda m: None, {"training": "nowhere"}, r"nowhere: no such folder; .*lit-retrofit fit"),
        (lambda m: None, {"mining": "nowhere"}, r"nowhere: no such file; .*summary.json"),
        (
            lambda m: m.mining.write_text('{"a": 1}\n{"b": 2}'),
            {"mining": "mined.summary.json"},
            r":2: not valid",
        ),
        (lambda m: m.data.rename(m.root / "moved"), {}, r"data: no such folder; .*--data"),
        (lambda m: (m.data / "corpus.jsonl").write_text('{"_id": "x", "text": "y"}\n'), {}, r"no query with"),
        (lambda m: None, {"examples": -1}, r"examples is -1; give 0 or more"),
        (lambda m: m.out.write_text(""), {}, r"out is a file"),
    ],
)
def test_a_mistake_is_told_and_nothing_written(made, damage, options, message):
    damage(made)
    with pytest.raises(UserError, match=message):
        run(made, **{n: v if n == "examples" else Path(v) for n, v in options.items()})
    assert not (made.out / "report.html").exists()


def test_data_that_moved_can_be_named(made):
    made.data.rename(made.root / "moved")
    assert "مرحبا" in page_of(made, data="moved").text


def test_the_table_fits_80_columns(made, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    run(made)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert max(len(line) for line in lines if not line.startswith("report:")) <= 80
    assert any(re.fullmatch(r"de +\.500 +\.600 \+\.100 +\.400 +\.200 +\.500 .*", line) for line in lines)
    assert any(re.fullmatch(r"mean +\.600 +\.675 \+\.075 +\.600 .*", line) for line in lines)
    assert any(re.fullmatch(r"tr\* +\.600 +\.580 −\.020 +\.500 .*", line) for line in lines)
    assert any(line.endswith("report.html") for line in lines)
    monkeypatch.setenv("COLUMNS", "45")
    run(made, overwrite=True)
    narrow = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert sum(bool(re.match(r"de +\.\d{3} +\.\d{3} \+\.\d{3} +\.\d{3}$", line)) for line in narrow) == 3


def as_run(made, name="runs"):
    """The parts of the made run in one folder, as the quickstart leaves them."""
    home = made.root / name
    home.mkdir()
    for part in (made.before, made.after, made.fit):
        shutil.copytree(part, home / part.name)
    shutil.copy(made.mining, home / "mined.summary.json")
    return home


MERGED = {"models": ["gone/fit"], "coefficients": [1.0], "method": "linear", "weight": 0.6, "scan": []}
MERGED |= {"measure": "nDCG@10", "data": None, "seconds": 3.0}


def command(*words):
    return main(["report", *map(str, words)])


def read_page(folder):
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_a_run_is_enough(made, capsys):
    home = as_run(made)
    assert command(home, "--points", 0, "--price_per_hour", 3600) == 0
    text = read_page(home).text
    assert "Training loss by step: from 3 to 1." in text and "Mined hard negatives" in text
    # 20.5 s, 9 s, 40 s and 20.5 s at 1 a second
    assert (
        "Evaluation before 20 s 20.50 Mining 9 s 9.00 Training 40 s 40.00 Evaluation after 20 s 20.50" in text
    )
    assert "Hours of device 0.03 90.00" in text
    assert command(home) == 2
    assert re.search(r"report.html already exists; .*--overwrite\n$", capsys.readouterr().err)


def test_the_run_shows_its_environment_if_it_noted_it(made):
    assert "did not note the versions" in page_of(made).text
    card = json.loads((made.fit / "training.json").read_text())
    card["environment"] = {"device": "cpu", "devices": 2, "torch": "9.9.9"}
    (made.fit / "training.json").write_text(json.dumps(card))
    text = page_of(made, overwrite=True, price_per_hour=36.0).text
    assert "torch 9.9.9" in text and "Training 40 s 0.80" in text and "did not note" not in text


def test_the_whole_configuration_is_folded_up(made):
    assert "has no config.yaml" in page_of(made).text
    (made.fit / "config.yaml").write_text("seed_everything: 7\ntrainer:\n  max_steps: 40  # <b>\n")
    page = page_of(made, overwrite=True)
    assert "seed_everything: 7 trainer: max_steps: 40 # <b>" in page.text and "has no config" not in page.text
    assert page.tags.count("details") == 1 and ("details", "open", None) not in page.attributes


def test_an_evaluated_merge_is_shown_with_the_curves_of_its_run(made):
    home = as_run(made)
    (home / "merged").mkdir()
    shutil.copy(home / "fit" / "training.json", home / "merged")
    (home / "merged" / "merging.json").write_text(json.dumps(MERGED))
    content = json.loads((home / "after" / "metrics.json").read_text())
    (home / "after" / "metrics.json").write_text(json.dumps(content | {"model": "gone/merged"}))
    assert command(home, "--points", 0) == 0
    text = read_page(home).text
    assert "Training loss by step: from 3 to 1." in text and "kept no CSV log" not in text
    assert "Weight against the base 0.6" in text
    assert f"lit-retrofit export {home}/merged --output" in text


def test_without_files_of_wandb_or_metrics_the_page_is_written(made):
    (made.fit / "metrics.csv").unlink()
    text = page_of(made).text
    assert "metrics.csv is missing: the run kept no CSV log." in text and "No curve of the loss" in text


def test_intervals_stand_beside_the_scores(made):
    for folder, scores in ((made.before, (0.1, 0.3)), (made.after, (0.5, 0.9))):
        content = json.loads((folder / "metrics.json").read_text())
        content["tasks"] = content["tasks"][:1]
        content["tasks"][0]["scores"]["nDCG@10"] = sum(scores) / 2
        lines = [made.query_line("monolingual", "de", "de", f"q{i + 1}", s, []) for i, s in enumerate(scores)]
        made.write_evaluation(folder, content, lines)
    text = page_of(made, examples=0).text
    found = paired_difference([np.array([0.1, 0.3])], [np.array([0.5, 0.9])])
    assert (found.low, found.high) == pytest.approx((0.4, 0.6))
    assert "de 0.200 .10–.30 0.700 .50–.90 +0.500 +.400 … +.600" in text
    assert "interval of the change +.400 … +.600" in text
    summary = json.loads((made.out / "summary.json").read_text())
    assert summary["intervals"]["monolingual"]["difference"]["p"] == found.p


def test_dimensions_that_differ_are_told(made):
    for folder, dimension in ((made.before, 384), (made.after, 768)):
        content = json.loads((folder / "metrics.json").read_text())
        (folder / "metrics.json").write_text(json.dumps(content | {"cost": {"dimension": dimension}}))
    assert "Embeddings have 384 numbers before and 768 after: the larger index" in page_of(made).text


def test_similarities_come_from_the_rankings(made):
    text = page_of(made).text
    # before: 0.1 and 0.95 against 0.9 … 0.6; after: 0.8 and 0.4 against 0.3, 0.5, 0.2
    found = re.findall(r"above one of the best others in ([0-9.]+) % of pairs", text)
    assert found == ["50.0", "83.3"]
    assert "2 rankings" in text
    (made.after / "run" / "de-de.trec").unlink()
    assert re.search(
        r"Similarities are left out: .*de-de.trec is missing", page_of(made, overwrite=True).text
    )


def test_the_embedding_space_of_both_models(made, bert_folder, xlmr_folder):
    for folder, model in ((made.before, bert_folder), (made.after, xlmr_folder)):
        content = json.loads((folder / "metrics.json").read_text()) | {"model": str(model)}
        content["settings"] |= {
            "document_prompt": "passage: ",
            "query_max_length": 16,
            "document_max_length": 16,
        }
        (folder / "metrics.json").write_text(json.dumps(content))
    page = page_of(made, points=50)
    assert "The sampled texts before, projected to two dimensions." in page.text
    # a query and its documents in de and en: one page, the second query has the same documents
    assert "3 texts of the evaluated data" in page.text
    assert "Mean cosine, one page in different languages" in page.text
    dots = [
        value for tag, name, value in page.attributes if name == "class" and (value or "").startswith("dot ")
    ]
    assert len(dots) >= 6
    first = (made.out / "report.html").read_text()
    drawn = first[first.index('class="plot space"') : first.rindex('class="plot space"')]
    run(made, points=50, overwrite=True)
    assert drawn in (made.out / "report.html").read_text()


def test_a_model_that_is_not_at_hand_is_told(made):
    text = page_of(made, points=50).text
    assert "The picture of the embedding space is left out: some/model" in text


def test_two_models_against_each_other(made, capsys):
    home = as_run(made)
    assert command("--compare", made.before, home, "--output", made.out, "--points", 0) == 0
    told = capsys.readouterr().out
    assert "A: some/model, B: runs/fit" in told and re.search(r"\bA +B +Δ", told)
    assert "before" not in told and "after" not in told
    text = read_page(made.out).text
    assert "Where B is better" in text and "Where B is worse" in text
    assert "A: some/model, B: runs/fit" in text
    assert "Monolingual A 0.600 → B 0.643 change +0.043" in text  # A's training is not known: all count
    assert "before" not in text.replace("differences are taken before rounding", "")


def test_several_runs_beside_each_other(made):
    home, other = as_run(made), as_run(made, "<i>other")
    card = json.loads((other / "fit" / "training.json").read_text())
    card["encoder"]["lora"]["r"] = 64
    (other / "fit" / "training.json").write_text(json.dumps(card))
    content = json.loads((other / "after" / "metrics.json").read_text())
    content["tasks"][0]["scores"]["nDCG@10"] = 0.9
    (other / "after" / "metrics.json").write_text(json.dumps(content))
    (other / "fit" / "config.yaml").write_text("seed_everything: 3\n")
    assert command(home, other, "--output", made.out) == 0
    page = read_page(made.out)
    assert "The whole configuration of <i>other: config.yaml seed_everything: 3" in page.text
    assert "The run of runs has no config.yaml" in page.text
    assert "2 runs beside each other" in page.text
    assert "de 0.600 0.900 +0.300" in page.text
    assert "encoder.lora.r 16 64" in page.text
    assert "<i>other" in page.text and "i" not in page.tags
    summary = json.loads((made.out / "summary.json").read_text())
    assert list(summary) == ["runs", "<i>other"]
    assert summary["<i>other"]["monolingual"]["after"] == pytest.approx((0.9 + 0.75) / 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], r"give one of these: RUN, several RUNs, --before with --after, or --compare A B"),
        (["runs", "--before", "before"], r"give one of these"),
        (["--before", "before"], r"give one of these"),
        (["--compare", "runs"], r"--compare takes two runs or evaluations, 1 given"),
        (["--compare", "runs", "before", "after"], r"takes two runs or evaluations, 3 given"),
        (["--compare", "runs", "before"], r"name a folder for report.html with --output"),
        (["runs", "runs", "--output", "out"], r"a run is named twice"),
        (["runs", "after", "--training", "fit"], r"--training goes with a single run"),
        (["runs", "--price_per_hour=-1"], r"price_per_hour is -1.0; give 0 or more"),
        (["nowhere"], r"nowhere: no such folder"),
        (["before"], r"before/before: no such folder; write it with lit-retrofit evaluate"),
        (["--before", "before", "--after", "after"], r"name a folder for report.html"),
    ],
)
def test_a_wrong_command_gets_one_line(made, words, message, capsys):
    as_run(made)
    assert command(*words) == 2
    assert re.fullmatch(rf"lit-retrofit report: error: .*{message}.*\n", capsys.readouterr().err)
    assert not (made.root / "runs" / "report.html").exists() and not made.out.exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda home: (home / "after" / "metrics.json").unlink(), r"evaluate was interrupted: run it again"),
        (
            lambda home: (home / "fit" / "training.json").unlink(),
            r"the fit did not end; .* the evaluations alone: --before and --after without --training",
        ),
        (lambda home: (home / "fit" / "training.json").write_text("{"), r"training.json:1: not valid JSON"),
        (lambda home: (home / "after" / "metrics.json").write_text("{"), r"metrics.json:1: not valid JSON"),
        (lambda home: (home / "mined.summary.json").write_text("["), r"mined.summary.json:1: not valid JSON"),
        (lambda home: shutil.rmtree(home / "before"), r"runs/before: no such folder; write it with"),
    ],
)
def test_a_run_that_was_interrupted_or_damaged_gets_one_line(made, damage, message, capsys):
    home = as_run(made)
    (home / "fit" / "checkpoints").mkdir()
    damage(home)
    assert command(home) == 2
    assert re.fullmatch(rf"lit-retrofit report: error: .*{message}.*\n", capsys.readouterr().err)
    assert not (home / "report.html").exists()
