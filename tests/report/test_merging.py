"""The section on a merge: its curve, where it is found, and records that are none."""

import json
import re

import pytest

from lit_retrofit.errors import UserError
from lit_retrofit.report.merging import read_merging
from lit_retrofit.report.report import report

SCAN = [(0.0, 0.50, 0.60), (0.5, 0.58, 0.62), (1.0, 0.56, 0.55)]


def record(points=SCAN, **changes):
    content = {
        "format": 1,
        "models": ["runs/<fit>"],
        "coefficients": [1.0],
        "method": "linear",
        "weight": 0.5,
    }
    scan = [{"weight": weight, "score": score, "untrained": rest} for weight, score, rest in points]
    return content | {"measure": "nDCG@10", "data": "dev", "seconds": 3.0, "scan": scan} | changes


def test_the_curve_is_drawn_where_its_points_are(tmp_path):
    (tmp_path / "merging.json").write_text(json.dumps(record()))
    curve = read_merging(tmp_path / "merging.json").curve
    assert (curve.base, curve.whole, curve.picked) == (0.50, 0.56, (0.5, 0.58))
    assert (curve.x(0), curve.x(1)) == (44, 344) and curve.y(0.62) < curve.y(0.50)
    drawn = [tuple(map(float, point.split(","))) for point in curve.line.split()]
    assert drawn == [(curve.x(weight), curve.y(score)) for weight, score, _ in SCAN]
    assert all(
        10 <= y <= 168
        for line in (curve.line, curve.untrained)
        for y in map(float, re.findall(r",(\S+)", line))
    )


@pytest.mark.parametrize("given", [True, False])
def test_the_report_shows_a_merge_that_is_given_or_found(made, given):
    folder = made.root / "runs" / "fit" if not given else made.root
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "merging.json").write_text(json.dumps(record()))
    report(
        before=made.before, after=made.after, output=made.out, merging=folder if given else None, examples=0
    )
    html = (made.out / "report.html").read_text()
    assert "<h3>Merging</h3>" in html and "0.580 at the picked weight 0.5" in html
    assert "runs/&lt;fit&gt;" in html and html.count("<polyline") == 2


def test_without_a_merge_there_is_no_section(made):
    report(before=made.before, after=made.after, output=made.out, examples=0)
    assert "Merging" not in (made.out / "report.html").read_text()


def test_a_merge_at_a_given_weight_has_no_curve(made):
    (made.root / "merging.json").write_text(json.dumps(record([], weight=0.3, data=None)))
    report(
        before=made.before, after=made.after, output=made.out, merging=made.root / "merging.json", examples=0
    )
    html = (made.out / "report.html").read_text()
    assert "<h3>Merging</h3>" in html and "merging-title" not in html


@pytest.mark.parametrize(
    "content",
    ["{", "[]", json.dumps({"scan": []}), json.dumps(record(weight=0.25)), json.dumps(record(weight="x"))],
)
def test_other_files_are_refused_in_one_line(tmp_path, content):
    path = tmp_path / "merging.json"
    with pytest.raises(UserError, match="no such file"):
        read_merging(path)
    path.write_text(content)
    with pytest.raises(UserError, match=r"merging\.json"):
        read_merging(path)
