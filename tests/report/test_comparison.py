import json
from pathlib import Path

import pytest

from lit_retrofit.errors import UserError
from lit_retrofit.report.comparison import Change, compare, mean


def test_blocks_split_trained_from_zero_shot(made):
    blocks = {block.name: block for block in compare(made.before, made.after, frozenset({"en", "de"})).blocks}
    assert list(blocks) == ["monolingual", "X → en", "en → X"]
    assert [[t.label for t in b.trained] for b in blocks.values()] == [["de", "en"], ["de"], ["de"]]
    assert [[t.label for t in b.zero_shot] for b in blocks.values()] == [["tr"], ["tr"], ["tr"]]
    assert blocks["X → en"].zero_shot_mean == Change(0.10, 0.25, 0.05)
    assert blocks["monolingual"].mean.delta == pytest.approx(0.075)


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
        (lambda c: c["tasks"].pop(3), r"after lacks tasks .*\(de → en\)"),
        (lambda c: c["tasks"].append(c["tasks"][0] | {"query_language": "x"}), r"before lacks .*\(x → de\)"),
        (lambda c: c["tasks"][2].update(queries=3), r"task tr → tr differs: 2 queries .*, 3 queries"),
    ],
)
def test_evaluations_that_differ_are_refused(made, change, message):
    edit(made.after, change)
    with pytest.raises(UserError, match=message):
        compare(made.before, made.after, None)


def test_the_same_folder_spelt_differently_is_the_same_data(made):
    edit(made.after, lambda c: c.update(data="./data/"))
    assert len(compare(made.before, made.after, None).tasks) == 7
