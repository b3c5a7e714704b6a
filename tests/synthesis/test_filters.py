"""Each filter on drafts made for it, and the round trip against ranks counted by hand."""

from __future__ import annotations

import itertools

import pytest
import torch

from lit_retrofit.data.records import Document
from lit_retrofit.errors import UserError
from lit_retrofit.synthesis.drafts import Draft, Provenance
from lit_retrofit.synthesis.filters import FilterOptions, apply_filters, cap_per_language, normalised
from lit_retrofit.synthesis.round_trip import drop_higher_negatives, keep_found

BODY = "Removes the filter from the selected cells. 選択したセルからフィルターを削除します。"
numbers = itertools.count()


def draft(query, language="en", text=BODY, id=None, negatives=(), own_words=False):
    document = Document(id or f"d{next(numbers)}", text, language)
    made = Provenance("local", "m", "question", 0)
    return Draft(query, language, document, document.id, made, tuple(negatives), own_words)


def kept_and_dropped(drafts, **options):
    kept, report = apply_filters(drafts, FilterOptions(**options), seed=0)
    return [d.query for d in kept], {name: drops.count for name, drops in report.items() if drops.count}


def test_length_counts_what_can_be_seen():
    drafts = [draft("?!"), draft("\u200f\u200d a"), draft("ok"), draft("x" * 301)]
    assert kept_and_dropped(drafts) == (["ok"], {"length of the query": 3})


def test_other_codes_of_a_language_and_unknown_languages_lose_nothing():
    german, hebrew = (
        "Wie entferne ich den Filter wieder von allen Zellen?",
        "איך אפשר להסיר את המסנן מכל התאים?",
    )
    norwegian = "Hvordan fjerner jeg filteret fra alle cellene i arket igjen?"
    drafts = [draft(german, "deu"), draft(german + "!", "german"), draft(hebrew, "iw"),
              draft(norwegian, "nb"), draft(norwegian + "!", "no")]  # fmt: skip
    assert kept_and_dropped(drafts, near_duplicate=1.0)[1] == {}


def test_language_is_judged_where_there_is_enough_to_judge():
    drafts = [
        draft("Wie entferne ich den Filter wieder von allen Zellen?", "en"),
        draft("Wie entferne ich den Filter von den Zellen?", "de-AT"),
        draft("如何从所选的单元格中删除筛选器？", "zh-CN"),
        draft("如何从所选的单元格中删除筛选？", "en"),
        draft("Filter", "fr"),
        draft("Wie entferne ich einen Filter von diesen Zellen?", "en", own_words=True),
    ]
    kept, dropped = kept_and_dropped(drafts, near_duplicate=1.0)
    assert kept == [d.query for d in (drafts[1], drafts[2], drafts[4], drafts[5])]
    assert dropped == {"wrong language": 2}
    assert len(kept_and_dropped(drafts, language_score=1.0, near_duplicate=1.0)[0]) == 6


def test_copies_are_found_whatever_their_case_punctuation_and_width():
    drafts = [
        draft("Filter from the SELECTED cells!"),
        draft("the filter from the"),
        draft("which filter was taken from cells"),
        draft("選択したセルからﾌｨﾙﾀｰを", "ja"),
        draft("removes the filter from the selected cells", own_words=True),
    ]
    kept, dropped = kept_and_dropped(drafts)
    assert kept == [drafts[1].query, drafts[2].query, drafts[4].query]
    assert dropped == {"copied from the document": 2}


def test_duplicates_go_by_language_and_near_ones_by_their_share_of_trigrams():
    queries = ["How is a filter removed?", "how is a FILTER removed", "How is the filter removed?"]
    share = len(trigrams(queries[0]) & trigrams(queries[2])) / len(
        trigrams(queries[0]) | trigrams(queries[2])
    )
    assert 0.5 < share < 0.8
    drafts = [draft(query) for query in queries] + [draft(queries[0], "de", own_words=True)]
    kept, dropped = kept_and_dropped(drafts, near_duplicate=0.8)
    assert len(kept) == 3 and dropped == {"duplicate": 1}
    kept, dropped = kept_and_dropped(drafts, near_duplicate=0.5)
    assert len(kept) == 2 and dropped == {"duplicate": 1, "near duplicate": 1}


def trigrams(text):
    text = f" {normalised(text)} "
    return {text[i : i + 3] for i in range(len(text) - 2)}


def test_the_cap_draws_per_language_and_keeps_the_order():
    drafts = [draft(f"q{i}", ("en", "en-GB", "de")[i % 3]) for i in range(30)]
    kept, drops = cap_per_language(drafts, 4, seed=3)
    assert drops.count == 22 and kept == [d for d in drafts if d in kept]
    assert sum(d.language == "de" for d in kept) == 4
    assert cap_per_language(drafts, 4, seed=3)[0] == kept != cap_per_language(drafts, 4, seed=4)[0]


def on_a_line(texts, role):
    """A text's number is its place; the nearer, the more similar."""
    angles = torch.tensor([float(text.split()[-1]) for text in texts]) / 100
    return torch.stack([angles.cos(), angles.sin()], 1)


def test_the_round_trip_keeps_those_whose_document_ranks_among_the_first():
    corpus = [Document(f"c{i}", f"text {i}", "en") for i in range(10)]
    corpus += [Document("german", "text 3", "de")]
    drafts = [
        draft("asks 3", text="text 3", id="c3"),  # rank 1
        draft("asks 3.2", text="text 5", id="c5"),  # 3, 4, 2 and 4.4 are nearer: rank 5
        draft("asks 3", text="part 4.4", id="c3#text:ab"),  # c3 is its own page, 2 and 4 are nearer: rank 3
        draft("asks 9", "de", text="text 3", id="german"),  # alone in its language
    ]
    kept, drops = keep_found(drafts, corpus, 5, on_a_line)
    assert kept == drafts and drops.count == 0
    kept, drops = keep_found(drafts, corpus, 4, on_a_line)
    assert kept == [drafts[0], drafts[2], drafts[3]] and drops.examples == ["asks 3.2"]
    kept, drops = keep_found(drafts, corpus, 2, on_a_line)
    assert kept == [drafts[0], drafts[3]] and drops.examples == ["asks 3.2", "asks 3"]


def test_negatives_nearer_than_the_positive_are_taken_away():
    near, far = Document("n", "text 3.5", "en"), Document("f", "text 9", "en")
    drafts = [draft("asks 3", text="text 4", negatives=(near, far)), draft("asks 3", text="text 4")]
    checked, drops = drop_higher_negatives(drafts, on_a_line)
    assert [d.negatives for d in checked] == [(far,), ()] and drops.count == 1


@pytest.mark.parametrize(
    "options",
    [{"min_characters": 0}, {"language_score": 0}, {"near_duplicate": 1.5}, {"copied_words": 0},
     {"round_trip_k": 0}, {"per_language": 0}, {"max_characters": 1}],
)  # fmt: skip
def test_options_out_of_range(options):
    with pytest.raises(UserError, match="filters"):
        FilterOptions(**options)
