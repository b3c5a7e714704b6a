"""What counts as the same text, case by case."""

from __future__ import annotations

import hashlib
import unicodedata

import pytest

from lit_retrofit.cleaning.folding import fold, hash_text, visible_length


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Straße", "STRASSE"),
        (unicodedata.normalize("NFC", "Zürich é"), unicodedata.normalize("NFD", "Zürich é")),
        ("ＡＢＣ　１２３", "abc 123"),
        ("ｶﾞｲﾄﾞ", "ガイド"),
        ("ﬁle ②", "file 2"),
        ("İstanbul", "i\u0307stanbul"),
        ("a\u200bb\u00adc\ufeff", "abc"),
        ("\u202bשלום\u202c", "שלום"),
        ("\ufe8d\ufedf", "ال"),  # Arabic presentation forms
        ("مـــرحبا", "مرحبا"),
        ("می\u200cخواهم", "میخواهم"),
        ("one\n\t two\u00a0 three\u2028", "one two three"),
        ("bell\x07 rings", "bell rings"),
        ("e\u200b\u0301", "é"),  # joined once nothing stands between
    ],
)
def test_what_looks_alike_is_equal(first, second):
    assert fold(first) == fold(second)
    assert fold(fold(first)) == fold(first)


@pytest.mark.parametrize(
    ("first", "second"), [("resume", "résumé"), ("can't", "cant"), ("가", "각"), ("ab", "a b"), ("ば", "は")]
)
def test_what_looks_different_is_not(first, second):
    assert fold(first) != fold(second)


def test_only_what_is_seen_has_length():
    assert visible_length("  ab c \n") == 4
    assert visible_length("\u200f\u200bשלום\u2060") == 4
    assert visible_length("x\x00y") == 3  # a control inside is a space


def test_hashes_tell_texts_and_their_borders_apart():
    texts = [("ab", "c"), ("a", "bc"), ("abc",), ("abc", ""), ("", "abc"), ("\ud800",)]
    assert len({hash_text(*text) for text in texts}) == len(texts)
    expected = hashlib.blake2b((3).to_bytes(8, "little") + b"abc", digest_size=8).digest()
    assert hash_text("abc") == int.from_bytes(expected, "little")
