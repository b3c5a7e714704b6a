import io

from rich.console import Console

from lit_retrofit.evaluation.published import published_scores, show_published
from lit_retrofit.evaluation.results import Results, TaskScores


def test_every_score_has_a_source_and_is_a_percentage():
    for benchmark in ("retrieval-18", "miracl"):
        found = published_scores(benchmark)
        assert found
        assert all(0 < one.score < 100 and one.source and one.measure for one in found)
        assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert published_scores("my folder") == []


def test_the_measured_score_stands_among_them():
    tasks = (TaskScores("monolingual", "sw", "sw", 1, 1, 0, {"nDCG@10": 0.7}),)
    results = Results(0.0, 1.0, "mine", "miracl:sw", {}, tasks)
    console = Console(file=io.StringIO(), width=150)
    show_published("miracl", results, console)
    text = console.file.getvalue()
    assert text.index("70.00") < text.index("60.80")
    assert "mean of 16 languages" in text
    show_published("my folder", results, console)
    assert console.file.getvalue() == text
