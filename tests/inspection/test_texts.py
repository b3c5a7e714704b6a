"""Scripts, oddities, and what a text looks like when it is shown."""

from __future__ import annotations

import pytest

from lit_retrofit.inspection.texts import EXCERPT, NO_LETTERS, oddities, script_of, shown


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("How do I reset it? 123", "Latin"),
        ("Ｆｕｌｌ ｗｉｄｔｈ", "Latin"),
        ("Как сбросить", "Cyrillic"),
        ("كيف أعيد", "Arabic"),
        ("फ़िल्टर कैसे", "Devanagari"),
        ("如何重置筛选器", "Han"),
        ("フィルターを解除する方法", "Japanese"),
        ("필터를 초기화 方法", "Hangul"),
        ("ฉันจะรีเซ็ต", "Thai"),
        ("API 使用方法说明书", "Han"),
        ("… 123 !", NO_LETTERS),
        ("", NO_LETTERS),
    ],
)
def test_script(text: str, script: str) -> None:
    assert script_of(text) == script


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Ärger und Façade, 日本語, می‌خواهم, 👨‍👩‍👧", None),
        ("Gruß… « CAFÉ» “„ 20°", None),
        ("tab\tand\nline", None),
        ("\x00\x1b[31m", "control"),
        ("bro\ufffdken", "replacement"),
        ("FranÃ§ais", "Latin-1"),
        ("Itâ€™s", "Latin-1"),
        ("ÐŸÑ€Ð¸Ð²ÐµÑ‚", "Latin-1"),
        ("a\u202eb\u202c", "direction"),
        ("zero\u200bwidth", "invisible"),
        ("so\u00adft", "invisible"),
        ("\ufeffmark", "invisible"),
        ("x" * 100_001, "100,000"),
    ],
)
def test_oddities(text: str, found: str | None) -> None:
    assert [found in name for name in oddities(text)] == ([] if found is None else [True])


def test_what_is_shown_neither_acts_nor_hides() -> None:
    assert shown("a\nb \t c") == "a b c"
    assert shown("evil \u202etxt\u202c") == "evil <U+202E>txt<U+202C>"
    assert shown("\x1b[31mred\x07") == "<U+001B>[31mred<U+0007>"
    assert shown("zero\u200bwidth \ue000") == "zero<U+200B>width <U+E000>"
    assert shown("می‌خواهم") == "می‌خواهم"  # a joiner is part of the spelling
    assert shown("x" * EXCERPT) == "x" * EXCERPT
    assert shown("x" * 10_000_000) == "x" * EXCERPT + " … (10,000,000 characters)"
