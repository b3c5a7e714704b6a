import pytest

from lit_retrofit.report.charts import Scale, dumbbells, nice_ticks
from lit_retrofit.report.matching import compare
from lit_retrofit.report.numbers import delta, duration, plain, score, tone
from lit_retrofit.report.sources import read_log


@pytest.mark.parametrize(
    ("low", "high", "most", "ticks"),
    [
        (0.0, 1.0, 6, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
        (0.31, 0.62, 6, (0.35, 0.4, 0.45, 0.5, 0.55, 0.6)),
        (0, 240, 5, (0, 50, 100, 150, 200)),
        (0, 99999, 5, (0, 20000, 40000, 60000, 80000)),
        (-0.2, 0.2, 5, (-0.2, -0.1, 0.0, 0.1, 0.2)),
    ],
)
def test_ticks_are_round(low, high, most, ticks):
    assert nice_ticks(low, high, most) == ticks


def test_a_scale_maps_and_labels():
    scale = Scale(0.5, 1.0, 100, 200, (0.6, 0.8, 1.0))
    assert [scale(0.5), scale(0.6), scale(1.0)] == [100, 120, 200]
    assert scale.label(0.8) == "0.8"
    assert Scale(0, 1, 0, 1, (0.0, 0.05)).label(0.05) == "0.05"
    assert Scale(0, 300, 0, 1, (0, 100, 200)).label(100) == "100"
    assert Scale(2, 4, 168, 10, (2, 3, 4))(4) == 10


def test_dumbbells_share_a_scale_and_part_zero_shot_languages(made):
    charts = dumbbells(compare(made.before, made.after, frozenset({"en", "de"})).blocks)
    assert {(chart.x.low, chart.x.high) for chart in charts} == {(0.0, 0.8)}
    first = charts[0]
    assert [row.task.label for row in first.rows] == ["de", "en", "tr"]
    assert first.rows[1].y < first.divider < first.rows[2].y < first.height
    assert dumbbells(compare(made.before, made.after, None).blocks)[0].divider is None


def test_the_last_word_on_a_step_counts(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,train/loss,val/nDCG@10\n0,2.0,\n5,1.5,\n3,1.0,\n5,1.25,\n5,,0.7\n")
    log = read_log(path)
    assert log.loss == ((0, 2.0), (3, 1.0), (5, 1.25))
    assert log.validation == ((5, 0.7),)
    assert log.notes == ()


def test_numbers_in_words():
    assert [delta(0.0274), delta(-0.0123), delta(-0.0004), delta(-0.0004, 4)] == [
        "+0.027", "−0.012", "0.000", "−0.0004",
    ]  # fmt: skip
    assert [tone(0.1), tone(-0.1), tone(0.0001)] == ["good", "bad", "soft"]
    assert [score(None), score(0.86149)] == ["–", "0.861"]
    spoken = [duration(s).replace("\xa0", " ") for s in (38.4, 59.6, 245, 7805)]
    assert spoken == ["38 s", "1 min 00 s", "4 min 05 s", "2 h 10 min"]
    assert [plain(v) for v in (None, True, 0.001, 32, "query: ", "", "mean", 1)] == [
        "none", "yes", "0.001", "32", "“query: ”", "“”", "mean", "1",
    ]  # fmt: skip
