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


def shown(benchmark: str, scores: dict[str, float], settings: dict[str, str] | None = None) -> str:
    tasks = tuple(
        TaskScores("monolingual", code, code, 1, 1, 0, {"nDCG@10": score}) for code, score in scores.items()
    )
    other = TaskScores("cross_lingual", "sw", "en", 1, 1, 0, {"nDCG@10": 0.0})
    console = Console(file=io.StringIO(), width=150)
    results = Results(0.0, 1.0, "mine", benchmark, settings or {}, (*tasks, other))
    show_published(benchmark, results, console)
    return console.file.getvalue()


SIXTEEN = ["ar", "bn", "en", "es", "fa", "fi", "fr", "hi", "id", "ja", "ko", "ru", "sw", "te", "th", "zh"]


def test_the_measured_score_is_over_the_languages_of_the_published_ones():
    """German and Yoruba are measured too, and count for nothing here."""
    text = shown("miracl", {**dict.fromkeys(SIXTEEN, 0.7), "de": 0.1, "yo": 0.1})
    assert text.index("70.00") < text.index("60.80")
    assert "mean of 16 languages" in text and "not shown" not in text


def test_published_scores_of_other_languages_are_not_shown_but_told_of():
    text = shown("miracl", dict.fromkeys(SIXTEEN[3:], 0.7))
    assert text == (
        "published scores of miracl are not shown: nDCG@10, mean of 16 languages (not de, yo); "
        "not measured here: ar, bn, en\n"
    )
    assert shown("miracl", {"sw": 0.7}).endswith("ar, bn, en and 12 more\n")


def test_nothing_is_said_where_nothing_is_known_or_it_is_no_mean_over_languages():
    assert shown("my folder", {"sw": 0.7}) == "" == shown("retrieval-18", {"sw": 0.7})


def test_reranked_scores_do_not_stand_among_those_of_searching():
    text = shown("miracl", dict.fromkeys(SIXTEEN, 0.7), {"candidates": "bm25.trec"})
    assert text == "published scores of miracl are not shown: they are of searching the corpus\n"
    assert shown("my folder", {"sw": 0.7}, {"candidates": "bm25.trec"}) == ""
