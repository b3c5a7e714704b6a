import json
from pathlib import Path

import numpy as np
import pytest

from lit_retrofit.errors import UserError
from lit_retrofit.evaluation.significance import interval, paired_difference
from lit_retrofit.report.comparison import Change, mean
from lit_retrofit.report.matching import compare


def test_blocks_split_trained_from_zero_shot(made):
    blocks = {block.name: block for block in compare(made.before, made.after, frozenset({"en", "de"})).blocks}
    assert list(blocks) == ["monolingual", "X → en", "en → X"]
    assert [[t.label for t in b.trained] for b in blocks.values()] == [["de", "en"], ["de"], ["de"]]
    assert [[t.label for t in b.zero_shot] for b in blocks.values()] == [["tr"], ["tr"], ["tr"]]
    assert blocks["X → en"].zero_shot_mean == Change(0.10, 0.25, 0.05)
    assert blocks["monolingual"].mean.delta == pytest.approx(0.075)


def test_codes_are_compared_as_languages(made):
    zero_shot = [t.zero_shot for t in compare(made.before, made.after, frozenset({"en", "de"})).tasks]
    written = compare(made.before, made.after, frozenset({"en-GB", "deu_Latn"}))
    assert [task.zero_shot for task in written.tasks] == zero_shot and any(zero_shot)


def test_an_untrained_pivot_does_not_make_its_partners_zero_shot(made):
    comparison = compare(made.before, made.after, frozenset({"de"}))
    assert [task.name for task in comparison.tasks if task.zero_shot] == [
        "en → en", "tr → tr", "tr → en", "en → tr",
    ]  # fmt: skip
    assert comparison.mean("cross_lingual").before == pytest.approx(0.25)


def test_without_a_pivot_tasks_are_pairs(made):
    for folder in (made.before, made.after):
        edit(folder, lambda c: c["settings"].update(pivot=None))
    comparison = compare(made.before, made.after, frozenset({"en", "de"}))
    cross = comparison.blocks[1]
    assert (cross.name, [task.label for task in cross.trained]) == ("cross-lingual", ["de → en", "en → de"])
    assert [task.label for task in cross.zero_shot] == ["tr → en", "en → tr"]


def test_a_mean_of_bm25_needs_every_task():
    assert mean([Change(0.0, 1.0, 0.5), Change(1.0, 1.0, None)]) == Change(0.5, 1.0, None)
    assert mean([]) is None


def edit(folder: Path, change):
    content = json.loads((folder / "metrics.json").read_text())
    change(content)
    (folder / "metrics.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(data="other"), r"data differs: data in .*before, other in .*after"),
        (lambda c: c["settings"].update(split="dev"), r"split differs: None in .*, dev in "),
        (lambda c: c["settings"].update(pivot="de"), r"pivot differs: en in .*, de in "),
        (lambda c: c["settings"].update(candidates="a.trec"), r"candidates differs: None in .*, a.trec in "),
        (lambda c: c["tasks"].pop(3), r"after lacks tasks .*\(de → en\)"),
        (lambda c: c["tasks"].append(c["tasks"][0] | {"query_language": "x"}), r"before lacks .*\(x → de\)"),
        (lambda c: c["tasks"][2].update(queries=3), r"task tr → tr differs: 2 queries .*, 3 queries"),
        (lambda c: c.update(tasks=[]), r"after/metrics.json has no tasks; evaluate both"),
        (
            lambda c: c["tasks"][0].update(scores={"V-measure": 0.5}),
            r"after/metrics.json: the task de has no nDCG@10",
        ),
    ],
)
def test_evaluations_that_differ_are_refused(made, change, message):
    edit(made.after, change)
    with pytest.raises(UserError, match=message):
        compare(made.before, made.after, None)


def test_the_same_folder_spelt_differently_is_the_same_data(made):
    edit(made.after, lambda c: c.update(data="./data/"))
    assert len(compare(made.before, made.after, None).tasks) == 7


def test_an_empty_language_and_a_cut_file_are_told(made):
    for folder in (made.before, made.after):
        edit(folder, lambda c: c["tasks"][2].update(queries=0))
    with pytest.raises(UserError, match=r"metrics.json: tr → tr has no queries, .*leave the language out"):
        compare(made.before, made.after, None)
    for folder in (made.before, made.after):
        edit(folder, lambda c: c["tasks"][2].update(queries=2))
        lines = (folder / "queries.jsonl").read_text().splitlines()
        (folder / "queries.jsonl").write_text("\n".join(lines[:-1]))
    with pytest.raises(UserError, match=r"queries.jsonl has 1 of the 2 queries of de → en; .*--overwrite"):
        compare(made.before, made.after, None)


def test_intervals_are_those_of_significance(made):
    rng = np.random.default_rng(3)
    scores = {key: rng.random((2, 40)) for key in made.pairs}
    scores[made.pairs[0]][1] = np.clip(scores[made.pairs[0]][0] + 0.3, 0, None)  # gains on every query
    for side, folder in enumerate((made.before, made.after)):
        lines = [
            made.query_line(*key, f"q{i}", float(value), [])
            for key, found in scores.items()
            for i, value in enumerate(found[side])
        ]
        content = made.metrics([float(scores[key][side].mean()) for key in made.pairs])
        for task in content["tasks"]:
            task["queries"] = 40
        made.write_evaluation(folder, content, lines)
    comparison = compare(made.before, made.after, frozenset({"de", "en"}))
    for task in comparison.tasks:
        before, after = scores[task.key]
        assert task.change.sure.before == interval([before])
        assert task.change.sure.after == interval([after])
        assert task.change.sure.difference == paired_difference([before], [after])
        assert task.change.sure.difference.mean == pytest.approx(task.change.delta)
    both = [scores[key] for key in made.pairs[:2]]
    assert comparison.mean("monolingual").sure.difference == paired_difference(*zip(*both, strict=True))
    assert made.pairs[0] in comparison.certain
    assert next(task.key for task in comparison.certain_better) == made.pairs[0]
    ranked = [task.change.delta for task in comparison.better]
    assert ranked == sorted(ranked, reverse=True) and min(ranked) > 0
    assert len(comparison.better) + len(comparison.worse) == 7
