from dataclasses import replace

import pytest

from lit_retrofit.errors import UserError
from lit_retrofit.evaluation.comparing import Side, compare_sides, write_comparison
from lit_retrofit.evaluation.evaluate import compare
from lit_retrofit.evaluation.results import QueryResult, Results, TaskScores
from lit_retrofit.evaluation.significance import paired_difference

BEFORE = {"de": [0.1, 0.5, 0.3, 0.9], "en": [0.2, 0.2]}
AFTER = {"de": [0.4, 0.5, 0.6, 1.0], "en": [0.1, 0.2]}


def side(name, values, dimension=384):
    queries = tuple(
        QueryResult("monolingual", language, language, f"q{number}", value, ("d",))
        for language, scores in values.items()
        for number, value in enumerate(scores)
    )
    tasks = tuple(
        TaskScores("monolingual", x, x, len(v), 9, 0, {"nDCG@10": sum(v) / len(v)}) for x, v in values.items()
    )
    return Side(name, Results(0.0, 1.0, name, "d", {}, tasks, {"dimension": dimension}), queries)


def test_rows_are_tasks_and_their_mean():
    found = compare_sides(side("after", AFTER), side("before", BEFORE))
    german, english = found.tasks
    assert german.label == "de → de"
    assert (german.score, german.other) == (pytest.approx(0.625), pytest.approx(0.45))
    assert german.difference == paired_difference([BEFORE["de"]], [AFTER["de"]])
    assert german.difference.mean == pytest.approx(0.175)
    assert english.difference.mean == pytest.approx(-0.05)
    (mean,) = found.means
    assert mean.label == "mean, monolingual"
    assert mean.difference.mean == pytest.approx((0.175 - 0.05) / 2)
    assert mean.score == pytest.approx((0.625 + 0.15) / 2)
    assert mean.interval[0] < mean.score < mean.interval[1]


def test_p_values_of_tasks_are_adjusted_and_those_of_means_are_not():
    scores = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    lower = {language: scores for language in ("a", "b", "c", "d")}
    values = {language: [x + 0.3 for x in scores] for language in lower}
    lower["d"] = [0.9, 0.1, 0.8, 0.9, 0.9, 0.9]
    found = compare_sides(side("x", values), side("y", lower))
    raw = [row.difference.p for row in found.tasks]
    assert raw[:3] == [pytest.approx(2 / 64)] * 3
    assert [row.adjusted_p for row in found.tasks][:3] == [pytest.approx(2 / 64 * 4 / 3)] * 3
    assert found.means[0].adjusted_p == found.means[0].difference.p


def test_queries_are_paired_by_id_not_by_place():
    shuffled = side("before", BEFORE)
    shuffled = replace(shuffled, queries=tuple(reversed(shuffled.queries)))
    expected = compare_sides(side("after", AFTER), side("before", BEFORE))
    assert compare_sides(side("after", AFTER), shuffled).tasks == expected.tasks


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({**BEFORE, "en": [0.2]}, "task en → en differs: 1 queries and 9 documents in before, 2 queries"),
        ({"de": BEFORE["de"]}, r"before lacks tasks that the other evaluation has \(en → en\)"),
        ({**BEFORE, "ru": [0.2]}, r"after lacks tasks that the other evaluation has \(ru → ru\)"),
    ],
)
def test_different_tasks_are_refused(other, message):
    with pytest.raises(UserError, match=message):
        compare_sides(side("after", AFTER), side("before", other))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "e"}, "data differs: e in before, d in after; evaluate both models on the same data"),
        ({"settings": {"pivot": "de"}}, "pivot differs: de in before, None in after"),
        ({"settings": {"candidates": "a.trec"}}, "candidates differs: a.trec in before, None in after"),
    ],
)
def test_evaluations_of_other_data_or_settings_are_refused(change, message):
    """The queries are the same, so the test would pass for a fair one."""
    other = side("before", BEFORE)
    with pytest.raises(UserError, match=message):
        compare_sides(side("after", AFTER), replace(other, results=replace(other.results, **change)))


def test_another_corpus_or_other_queries_are_refused():
    other = side("before", BEFORE)
    tasks = tuple(replace(task, documents=8) for task in other.results.tasks)
    with pytest.raises(UserError, match="task de → de differs: 4 queries and 8 documents in before, 4"):
        compare_sides(side("after", AFTER), replace(other, results=replace(other.results, tasks=tasks)))
    queries = (replace(other.queries[0], query_id="q9"), *other.queries[1:])
    message = "before has no score of query 'q0' in the task de → de .1 queries differ"
    with pytest.raises(UserError, match=message):
        compare_sides(side("after", AFTER), replace(other, queries=queries))


def test_different_dimensions_are_told():
    assert compare_sides(side("a", AFTER), side("b", BEFORE)).notes == ()
    (note,) = compare_sides(side("a", AFTER), side("b", BEFORE, dimension=768)).notes
    assert "384 numbers in a and 768 in b" in note


def test_nothing_to_compare():
    empty = replace(side("a", AFTER), queries=())
    with pytest.raises(UserError, match="no scores of single queries"):
        compare_sides(empty, replace(side("b", BEFORE), queries=()))


def test_a_comparison_is_written_beside_the_results(tmp_path):
    found = compare_sides(side("a", AFTER), side("runs/b", BEFORE))
    assert write_comparison(tmp_path, found).name == "comparison-runs-b.json"
    assert '"label": "de → de"' in (tmp_path / "comparison-runs-b.json").read_text()
    # Another model of a like name does not replace it; the same one does.
    other = replace(found, other="runs-b")
    assert write_comparison(tmp_path, other).name == "comparison-runs-b-2.json"
    assert write_comparison(tmp_path, found).name == "comparison-runs-b.json"
    assert write_comparison(tmp_path, other).name == "comparison-runs-b-2.json"
    # What is cut short names no model.
    (tmp_path / "comparison-runs-b.json").write_text('{"name": ')
    assert write_comparison(tmp_path, found).name == "comparison-runs-b.json"


def test_the_command_says_which_folder_is_no_finished_evaluation(tmp_path):
    (tmp_path / "queries.jsonl").touch()
    with pytest.raises(UserError, match=r"metrics.json is missing; lit-retrofit evaluate was interrupted"):
        compare(tmp_path, versus=str(tmp_path))
