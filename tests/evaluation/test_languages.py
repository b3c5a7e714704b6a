import pytest

from lit_retrofit.evaluation.hub_sets import BELEBELE, SETS
from lit_retrofit.evaluation.languages import (
    UNKNOWN,
    Language,
    find_language,
    group_means,
    never_trained_on,
    one_language,
)
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


ALIKE = [
    ("zh", "zh-CN", "zh_TW", "zho_Hans", "zho-Hant", "cmn_Hans", "zh-Hans-CN", "ZH-cn", "zh-hant"),
    ("de", "deu", "deu_Latn", "de-AT"),
    ("ar", "ara", "arb_Arab", "arb_Latn"),
    ("ne", "npi_Deva"),
    ("no", "nb-NO", "nob_Latn"),
    ("nn", "nno_Latn"),
    ("yue", "yue_Hant"),
    ("xx", "xx-YY"),
    ("German", "german"),
    ("code-python",),
    ("code-java",),
]


def test_codes_of_one_language_are_one_and_no_others():
    names = [{one_language(code) for code in codes} for codes in ALIKE]
    assert [len(found) for found in names] == [1] * len(ALIKE)
    assert len(set.union(*names)) == len(ALIKE)


def test_benchmarks_write_the_languages_that_data_sets_name():
    """Belebele's code of each language that MIRACL has is one with MIRACL's."""
    written = {one_language(code) for code in BELEBELE.languages}
    assert [code for code in SETS["miracl"].languages if one_language(code) not in written] == []


@pytest.mark.parametrize(
    ("kind", "query", "corpus", "trained", "zero_shot"),
    [
        ("monolingual", "zh", "zh", {"zh-CN"}, False),
        ("monolingual", "deu_Latn", "deu_Latn", {"de"}, False),
        ("monolingual", "ko", "ko", {"de"}, True),
        ("cross_lingual", "deu_Latn", "en", {"de"}, False),
        ("cross_lingual", "ko", "en", {"de", "en"}, True),
        ("monolingual", "en", "en", {"de"}, True),
        ("all", None, None, {"de"}, False),
        ("monolingual", "ko", "ko", None, False),
    ],
)
def test_zero_shot(kind, query, corpus, trained, zero_shot):
    known = None if trained is None else frozenset(trained)
    assert never_trained_on(task(kind, query, corpus, 0.5), known, "en") == zero_shot
