"""Rules of one record: what each takes and what it leaves, in many scripts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lit_retrofit.cleaning.options import (
    ConsistencyOptions,
    DuplicateOptions,
    LanguageOptions,
    LeakageOptions,
    LengthOptions,
    Rules,
)
from lit_retrofit.cleaning.record_rules import RecordRules, is_mojibake
from lit_retrofit.data.records import Document, Record

RULES = Rules(
    lengths=LengthOptions(),
    language=LanguageOptions(),
    duplicates=DuplicateOptions(),
    leakage=LeakageOptions(),
    consistency=ConsistencyOptions(),
    copied_words=5,
    garbled=True,
    max_per_language=None,
    seed=0,
)
TEXTS = {
    "en": "The filter is removed from the selected cell range, and all rows are shown again.",
    "de": "Der Filter wird aus dem ausgewählten Zellbereich entfernt, und alle Zeilen werden wieder gezeigt.",
    "ru": "Фильтр удаляется из выделенного диапазона ячеек, и все строки снова отображаются.",
    "ja": "選択したセル範囲からフィルターが削除され、すべての行が再び表示されます。",
    "zh-CN": "从所选的单元格区域中删除筛选，并再次显示所有的行。",
    "ko": "선택한 셀 범위에서 필터가 제거되고 모든 행이 다시 표시됩니다.",
    "ar": "تتم إزالة عامل التصفية من نطاق الخلايا المحدد، وتظهر جميع الصفوف مرة أخرى.",
    "he": "המסנן מוסר מטווח התאים שנבחר, וכל השורות מוצגות שוב.",
    "fa": "صافی از محدودهٔ انتخاب\u200cشدهٔ خانه\u200cها حذف می\u200cشود و همهٔ سطرها دوباره نمایش داده می\u200cشوند.",  # noqa: E501
    "hi": "चयनित सेल श्रेणी से फ़िल्टर हटा दिया जाता है, और सभी पंक्तियाँ फिर से दिखाई देती हैं।",
}


def record(query: str = "filters", text: str = TEXTS["en"], language: str | None = None, negative: str = ""):
    negatives = (Document("n", negative),) if negative else ()
    return Record("r", query, (Document("d", text, language),), negatives, language=language)


def judged(given: Record, rules: Rules = RULES) -> tuple[str, str] | None:
    verdict = RecordRules(rules)(given)
    return tuple(verdict) if verdict else None


@pytest.mark.parametrize("language", TEXTS)
def test_a_good_record_of_any_script_stays(language):
    assert judged(record("filter", TEXTS[language], language)) is None
    marked = "\u202b\u200f" + TEXTS[language] + "\u202c\ufeff"
    assert judged(record("filter", marked, language)) is None


@pytest.mark.parametrize("language", TEXTS)
def test_the_same_text_under_another_name_goes(language):
    other = "de" if language != "de" else "ru"
    rule, detail = judged(record("filter", TEXTS[language], other))
    assert rule == "language" and detail.startswith("positive 1: " + language[:2])


def test_a_query_is_judged_if_it_has_enough_letters_only():
    long = "Wie entferne ich den Filter aus einem Zellbereich wieder?"
    rule, detail = judged(record(long, language="en"))
    assert rule == "language" and detail.startswith("query: de (") and detail.endswith("), not en")
    assert judged(record("Zellbereich", language="en")) is None
    assert judged(record("AutoFilter 2.0 API", TEXTS["de"], "de")) is None
    switched_off = replace(RULES, language=LanguageOptions(confidence=None))
    assert judged(record(long, language="en"), switched_off) is None


def test_close_languages_old_codes_and_unknown_ones_are_let_be():
    danish = "Filteret fjernes fra det markerede celleområde, og alle rækker vises igen."
    for name in ("da", "nb", "no", "DA-dk", "da_DK"):
        assert judged(record("filter", danish, name)) is None, name
    assert judged(record("filter", TEXTS["he"], "iw")) is None
    assert judged(record("filter", danish, "xx-unknown")) is None


def test_languages_that_are_not_allowed_go_whether_named_or_found():
    rules = replace(RULES, language=LanguageOptions(allowed=("en", "zh")))
    assert judged(record(language="en"), rules) is None
    assert judged(record("筛选", TEXTS["zh-CN"], "zh-CN"), rules) is None
    assert judged(record("filter", TEXTS["de"], "de"), rules) == (
        "language", "query: de is not among those allowed",
    )  # fmt: skip
    rule, detail = judged(record("filter", TEXTS["de"]), rules)
    assert rule == "language" and detail.endswith("not en or zh")
    assert judged(record("filter", TEXTS["en"]), rules) is None


@pytest.mark.parametrize(
    "text",
    [
        TEXTS["en"] + "\x00\x01\x02" * 4,
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x01".decode("latin-1") * 5,
        TEXTS["de"].encode("latin-1").decode("utf-8", "replace") + "\ufffd" * 2,
        TEXTS["de"].encode().decode("latin-1"),
        TEXTS["ru"].encode().decode("cp1252", "replace"),
        TEXTS["ru"].encode("utf-8").decode("cp1251", "replace"),
    ],
)
def test_binary_and_wrongly_decoded_texts_go_wherever_they_stand(text):
    for given in (record(text), record(text=text), record(negative=text)):
        assert judged(given)[0] == "garbled"
    assert judged(record(negative=text), replace(RULES, garbled=False)) is None


@pytest.mark.parametrize("text", ["»åbne« en fil", "naïve café — “quoted” …", "10 € ± 5 %", "Ä Ö Ü ß", "Ã"])
def test_what_only_looks_odd_is_not_wrongly_decoded(text):
    assert not is_mojibake(text)


def test_lengths_count_what_is_seen():
    lengths = LengthOptions(query_characters=(3, 10), document_characters=(20, 100))
    rules = replace(RULES, lengths=lengths)
    assert judged(record("abc"), rules) is None
    assert judged(record(" ab\u200b\u200b\u200b "), rules) == ("too_short", "query: 2 characters")
    assert judged(record("a" * 11), rules) == ("too_long", "query: 11 characters")
    assert judged(record(text="x" * 19), rules) == ("too_short", "positive 1: 19 characters")
    assert judged(record(text="x" * 101), rules) == ("too_long", "positive 1: 101 characters")
    assert judged(record(negative="x"), rules) is None
    assert judged(record(negative="x" * 101), rules) == ("too_long", "negative 1: 101 characters")


def test_tokens_are_those_of_the_model(bert_folder):
    lengths = LengthOptions(model=str(bert_folder), query_tokens=(3, 5), document_tokens=(4, 6))
    rules = replace(RULES, lengths=replace(lengths, document_characters=(1, 99)))
    # the tokenizer has a piece for "page" and one for "the", and adds two of its own
    assert judged(record("page", "the page"), rules) is None
    assert judged(record("the page the page", "the page"), rules) == ("too_long", "query: 6 tokens")
    assert judged(record("page", "the"), rules) == ("too_short", "positive 1: 3 tokens")


@pytest.mark.parametrize(
    ("query", "text", "copied"),
    [
        ("removed from the selected cell", TEXTS["en"], True),
        ("REMOVED from\u200b the  selected, cell", TEXTS["en"], True),
        ("moved from the selected cell", TEXTS["en"], False),
        ("from the selected cell", TEXTS["en"], False),  # four words may well be a title
        ("removed from a selected cell", TEXTS["en"], False),
        ("選択したセル", TEXTS["ja"], True),
        ("セル範囲を選択", TEXTS["ja"], False),
        ("из выделенного диапазона ячеек, и", TEXTS["ru"], True),
    ],
)
def test_a_query_that_stands_in_its_document_goes(query, text, copied):
    verdict = judged(record(query, text))
    assert (verdict is not None and verdict[0] == "copied") == copied
    assert judged(record(query, text), replace(RULES, copied_words=None)) is None


def test_a_text_of_ten_megabytes_is_told_by_its_length_and_can_pass_all_rules():
    long = (TEXTS["en"] + " ") * 120_000
    assert judged(record(text=long)) == ("too_long", f"positive 1: {len(long) - 1} characters")
    rules = replace(RULES, lengths=LengthOptions(document_characters=(1, 10**8)))
    assert judged(record(text=long, language="en"), rules) is None
