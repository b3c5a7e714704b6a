import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lit_retrofit.errors import UserError
from lit_retrofit.report.report import report

VOID = {"meta", "br", "img", "link", "input", "hr", "line", "circle", "polyline"}


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
    return report(**(given | options))


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
    assert "1 of 7 tasks lost nDCG@10: tr → tr (zero-shot) −0.0200 ." in text
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
