import pytest

from lit_retrofit.evaluation.hub_sets import BELEBELE, SETS
from lit_retrofit.evaluation.languages import UNKNOWN, Language, find_language, group_means
from lit_retrofit.evaluation.results import TaskScores


@pytest.mark.parametrize(
    ("code", "family", "script"),
    [
        ("de", "Indo-European", "Latn"),
        ("deu", "Indo-European", "Latn"),
        ("ru", "Indo-European", "Cyrl"),
        ("zh-CN", "Sino-Tibetan", "Hans"),
        ("zh-TW", "Sino-Tibetan", "Hant"),
        ("zho_Hant", "Sino-Tibetan", "Hant"),
        ("hin_Latn", "Indo-European", "Latn"),
        ("ko", "Koreanic", "Hang"),
        ("pt-BR", "Indo-European", "Latn"),
        ("xx", UNKNOWN, UNKNOWN),
        ("German", UNKNOWN, UNKNOWN),
        ("qqq_Cyrl", UNKNOWN, "Cyrl"),
    ],
)
def test_codes(code, family, script):
    found = find_language(code)
    assert (found.family, found.script) == (family, script)


def test_every_language_of_the_benchmarks_is_known():
    codes = {*BELEBELE.languages, *(tag for task in SETS.values() for tag in task.languages.values())}
    assert len(codes) > 140
    unknown = [code for code in codes if UNKNOWN in (find_language(code).family, find_language(code).script)]
    assert unknown == []
    assert find_language("sw") == Language("Swahili", "Atlantic-Congo", "Latn")


def task(kind, query, corpus, value):
    return TaskScores(kind, query, corpus, 1, 1, 0, {"nDCG@10": value})


def test_means_over_families_and_scripts():
    tasks = [
        task("monolingual", "de", "de", 0.2),
        task("monolingual", "ko", "ko", 0.9),
        task("monolingual", "ru", "ru", 0.4),
        task("cross_lingual", "ru", "en", 0.0),
        task("all", None, None, 0.0),
    ]
    assert group_means(tasks) == {
        "monolingual": {
            "family": {
                "Indo-European": {"nDCG@10": pytest.approx(0.3), "tasks": 2},
                "Koreanic": {"nDCG@10": 0.9, "tasks": 1},
            },
            "script": {
                "Cyrl": {"nDCG@10": 0.4, "tasks": 1},
                "Hang": {"nDCG@10": 0.9, "tasks": 1},
                "Latn": {"nDCG@10": 0.2, "tasks": 1},
            },
        }
    }
    assert group_means(tasks[-1:]) == {}
