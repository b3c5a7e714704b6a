import random

import pytest

from lit_retrofit.errors import UserError
from lit_retrofit.evaluation.results import QueryResult
from lit_retrofit.report.changed_queries import EXCERPT, changed_pairs, choose, excerpt
from lit_retrofit.report.pairs import QueryPair, pair_queries


def changed(id, old, new, source="de", target="de"):
    kind = "monolingual" if source == target else "cross_lingual"
    return QueryPair(
        QueryResult(kind, source, target, id, old, ("a",)), QueryResult(kind, source, target, id, new, ("b",))
    )


def names(chosen):
    return [pair.after.query_id for pair in chosen]


def test_only_other_first_three_documents_count(made):
    pairs, counts = changed_pairs(pair_queries(made.before, made.after))
    assert [(pair.after.query_id, pair.after.kind) for pair in pairs] == [
        ("q1", "monolingual"), ("q2", "monolingual"), ("q1", "cross_lingual"),
    ]  # fmt: skip
    assert (counts.measured, counts.changed, counts.better, counts.worse) == (4, 3, 1, 1)


def test_different_queries_are_refused(made):
    lines = (made.after / "queries.jsonl").read_text().splitlines()
    (made.after / "queries.jsonl").write_text("\n".join(lines[1:]))
    with pytest.raises(UserError, match=r"name different queries \(1, first .*q1"):
        pair_queries(made.before, made.after)


def test_the_largest_changes_spread_over_languages():
    pairs = [
        changed("best", 0.0, 1.0),
        changed("second", 0.0, 0.9),
        changed("spanish", 0.0, 0.4, "es", "es"),
        changed("across", 0.0, 0.3, "ja", "en"),
        changed("same", 0.5, 0.5, "ru", "ru"),
    ]
    assert names(choose(pairs, 3)) == ["best", "across", "spanish"]
    assert names(choose(pairs, 9)) == ["best", "across", "spanish", "second"]


def test_losses_have_their_share_and_at_least_one_place():
    better = [changed(f"up{i}", 0.0, 0.1 + i / 100) for i in range(40)]
    worse = [changed(f"down{i}", 0.5 + i / 100, 0.1) for i in range(40)]
    assert names(choose(better + worse[:1], 5))[4:] == ["down0"]
    assert sum(pair.delta < 0 for pair in choose(better[:20] + worse, 6)) == 4
    assert names(choose(better + worse, 1)) == ["up39"]
    assert names(choose(worse, 2)) == ["down39", "down38"]
    assert len(choose(better, 5)) == 5
    assert choose([], 5) == []


def test_a_query_is_shown_once_and_the_order_of_the_files_does_not_matter():
    pairs = [changed("q", 0.0, 1.0), changed("q", 0.0, 1.0, "de", "en"), changed("r", 0.0, 0.1)]
    pairs += [changed(f"n{i}", 0.0, 0.1, "es", "es") for i in range(5)]
    expected = names(choose(pairs, 4))
    assert len(set(expected)) == 4
    for seed in range(5):
        shuffled = random.Random(seed).sample(pairs, len(pairs))
        assert names(choose(shuffled, 4)) == expected


def test_excerpts():
    assert excerpt("short\n text ") == "short text"
    assert excerpt("x" * EXCERPT) == "x" * EXCERPT
    assert excerpt("表" * 200) == "表" * (EXCERPT - 1) + "…"
    assert excerpt("word " * 100) == ("word " * 32).strip()[: EXCERPT - 6] + "…"
