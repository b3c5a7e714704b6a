"""From draws to a batch: what is embedded, in which micro-batch, and what is no negative for whom."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch

from lit_retrofit.data.batching import RetrievalBatch, make_micro_batches
from lit_retrofit.data.collating import RetrievalCollator
from lit_retrofit.data.records import Document, Record, text_id
from lit_retrofit.data.sampling import Draw

PAD = 0


class Letters:
    """A token per character, a prompt token per role, at most ten tokens; case does not matter."""

    pad_id = PAD

    def of(self, role: str) -> Letters:
        return self

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[str]]] = []

    def __call__(self, texts: Sequence[str], role: str, max_length: int | None = None) -> list[list[int]]:
        self.calls.append((role, list(texts)))
        prompt = {"query": 1, "document": 2}[role]
        return [[prompt, *map(ord, text.lower())][: max_length or 10] for text in texts]


def doc(text: str, id: str | None = None) -> Document:
    return Document(id or text_id(text), text)


def draw(
    query: str, positives: Sequence[Document], negatives: Sequence[Document] = (), drawn: int = 0
) -> Draw:
    return Draw(Record(query, query, tuple(positives), tuple(negatives)), positives[drawn], tuple(negatives))


def collate(*draws: Draw, budget: int = 1000) -> RetrievalBatch:
    return RetrievalCollator(Letters(), budget)(draws)


def rows(batch: RetrievalBatch) -> list[tuple[int, ...]]:
    """The tokens of each row, without padding."""
    found: dict[int, tuple[int, ...]] = {}
    for part in batch.micro_batches:
        for row, ids, mask in zip(part.rows.tolist(), part.input_ids, part.attention_mask, strict=True):
            assert row not in found
            found[row] = tuple(ids[mask.bool()].tolist())
    assert sorted(found) == list(range(batch.texts))
    return [found[row] for row in range(batch.texts)]


def documents(batch: RetrievalBatch) -> list[str]:
    texts = rows(batch)
    return ["".join(map(chr, texts[row][1:])) for row in batch.document_rows.tolist()]


def known(batch: RetrievalBatch) -> list[set[str]]:
    names = documents(batch)
    return [
        {names[column] for column in columns if column >= 0} for columns in batch.known_positives.tolist()
    ]


def positives(batch: RetrievalBatch) -> list[str]:
    names = documents(batch)
    return [names[column] for column in batch.positives.tolist()]


def test_a_batch_by_hand() -> None:
    batch = collate(draw("one", [doc("a")], [doc("long"), doc("n")]), draw("two", [doc("bb")], [doc("n")]))
    assert batch.record_ids == ("one", "two")
    assert [rows(batch)[row] for row in batch.query_rows] == [(1, *map(ord, "one")), (1, *map(ord, "two"))]
    assert documents(batch) == ["a", "bb", "long", "n"]
    assert all(rows(batch)[row][0] == 2 for row in batch.document_rows)
    assert positives(batch) == ["a", "bb"]
    assert known(batch) == [{"a"}, {"bb"}]
    assert batch.query_rows.dtype == batch.positives.dtype == batch.known_positives.dtype == torch.int64


def test_each_role_is_tokenized_once_without_any_text_changed() -> None:
    tokenize = Letters()
    RetrievalCollator(tokenize, 100)([draw("Q", [doc("A")], [doc("B")]), draw("q", [doc("a")])])
    assert tokenize.calls == [("query", ["Q", "q"]), ("document", ["A", "a", "B"])]


def test_equal_texts_are_embedded_once() -> None:
    batch = collate(
        draw("q", [doc("p")], [doc("n"), doc("m")]),
        draw("q", [doc("p")], [doc("n")]),
        draw("r", [doc("p", id="other id")], [doc("n", id="yet another")]),
    )
    assert documents(batch) == ["p", "n", "m"]
    assert batch.texts == len(set(rows(batch))) == 5
    assert batch.query_rows[0] == batch.query_rows[1] != batch.query_rows[2]


def test_a_text_that_is_query_and_document_has_a_prompt_each() -> None:
    batch = collate(draw("same", [doc("same")]))
    assert batch.texts == 2


def test_a_document_that_answers_another_query_is_known_by_id_and_by_text() -> None:
    same_id = collate(draw("q", [doc("p", "1"), doc("x", "2")]), draw("r", [doc("x", "2")]))
    assert known(same_id) == [{"p", "x"}, {"x"}]
    same_text = collate(draw("q", [doc("p", "1"), doc("x", "2")]), draw("r", [doc("x", "3")]))
    assert known(same_text) == [{"p", "x"}, {"x"}]
    id_alone = collate(draw("q", [doc("p", "1"), doc("x", "2")]), draw("r", [doc("x, edited", "2")]))
    assert known(id_alone) == [{"p", "x, edited"}, {"x, edited"}]
    neither = collate(draw("q", [doc("p", "1"), doc("x", "2")]), draw("r", [doc("y", "3")]))
    assert known(neither) == [{"p"}, {"y"}]


def test_equal_queries_know_each_others_positives() -> None:
    batch = collate(draw("q", [doc("a")]), draw("r", [doc("b")]), draw("q", [doc("c"), doc("d")], drawn=1))
    assert known(batch) == [{"a", "d"}, {"b"}, {"a", "d"}]
    assert positives(batch) == ["a", "b", "d"]


def test_several_positives_of_which_another_is_drawn() -> None:
    batch = collate(
        draw("q", [doc("a"), doc("b"), doc("c")], drawn=2), draw("r", [doc("b")]), draw("s", [doc("a")])
    )
    assert positives(batch) == ["c", "b", "a"]
    assert known(batch) == [{"a", "b", "c"}, {"b"}, {"a"}]


def test_a_hard_negative_that_is_another_querys_positive() -> None:
    batch = collate(draw("q", [doc("a")], [doc("b")]), draw("r", [doc("b")], [doc("a")]))
    assert documents(batch) == ["a", "b"]
    assert positives(batch) == ["a", "b"]
    # A negative for the one, the positive of the other: neither is masked.
    assert known(batch) == [{"a"}, {"b"}]


def test_a_hard_negative_that_answers_the_query_after_all_is_no_negative() -> None:
    batch = collate(draw("q", [doc("a"), doc("b")], [doc("n")]), draw("r", [doc("c")], [doc("b")]))
    assert known(batch) == [{"a", "b"}, {"c"}]


def test_documents_that_the_model_cannot_tell_apart_are_one() -> None:
    """Equal after truncation or lower-casing: as negatives they would have the positive's own score."""
    long = "123456789"
    batch = collate(
        draw("q", [doc(long + " and a")]),
        draw("r", [doc(long + " and b")]),
        draw("s", [doc("X")]),
        draw("t", [doc("y")], [doc("x")]),
    )
    assert documents(batch) == [long, "x", "y"]
    assert positives(batch) == [long, long, "x", "y"]
    assert known(batch) == [{long}, {long}, {"x"}, {"y"}]


def test_queries_that_the_model_cannot_tell_apart_know_each_others_positives() -> None:
    batch = collate(draw("Q", [doc("a")]), draw("q", [doc("b")]))
    assert known(batch) == [{"a", "b"}] * 2


def test_known_positives_are_padded() -> None:
    batch = collate(draw("q", [doc("a"), doc("b")]), draw("r", [doc("b")]), draw("s", [doc("c")]))
    assert batch.known_positives.tolist() == [[0, 1], [1, -1], [2, -1]]


@pytest.mark.parametrize("budget", [1, 3, 7, 10, 11, 23, 1000])
def test_micro_batches_stay_within_the_budget(budget: int) -> None:
    lengths = [3, 10, 1, 7, 7, 2, 10, 5, 1, 1, 4]
    tokens = [[row + 5] * length for row, length in enumerate(lengths)]
    parts = make_micro_batches(tokens, PAD, budget)
    seen: dict[int, list[int]] = {}
    widths = []
    for part in parts:
        count, width = part.input_ids.shape
        assert count == 1 or count * width <= budget
        assert part.input_ids.dtype == part.attention_mask.dtype == part.rows.dtype == torch.int64
        # Exactly as wide as its longest text, padded with the pad id, tokens first.
        assert width == max(lengths[row] for row in part.rows)
        widths.append(width)
        for row, ids, mask in zip(part.rows.tolist(), part.input_ids, part.attention_mask, strict=True):
            assert mask.tolist() == [1] * lengths[row] + [0] * (width - lengths[row])
            assert (ids[mask == 0] == PAD).all()
            seen[row] = ids[mask == 1].tolist()
    assert seen == dict(enumerate(tokens))
    assert widths == sorted(widths, reverse=True)
    # No micro-batch could have taken the next text too, within the budget and half its own length.
    for part, following in pairwise(parts):
        full = (len(part.rows) + 1) * part.input_ids.shape[1] > budget
        assert full or 2 * following.input_ids.shape[1] < part.input_ids.shape[1]
        assert 2 * int(part.attention_mask.sum(1).min()) >= part.input_ids.shape[1]


def test_similar_lengths_go_together() -> None:
    parts = make_micro_batches([[1] * n for n in (1, 9, 1, 9, 1, 9)], PAD, 27)
    assert [sorted(part.rows.tolist()) for part in parts] == [[1, 3, 5], [0, 2, 4]]


def test_short_texts_are_not_padded_to_long_ones() -> None:
    parts = make_micro_batches([[1] * n for n in (64, 9, 30, 64, 16, 31, 12)], PAD, 8192)
    assert [part.input_ids.shape for part in parts] == [(2, 64), (3, 31), (2, 12)]


def test_texts_without_tokens() -> None:
    (part,) = make_micro_batches([[], [7]], PAD, 10)
    assert part.rows.tolist() == [1, 0]
    assert part.attention_mask.tolist() == [[1], [0]]
    assert make_micro_batches([], PAD, 10) == ()


def test_counts_of_tokens() -> None:
    batch = collate(draw("abc", [doc("a")]), budget=4)  # 4 tokens, and 2
    assert (batch.tokens, batch.padded_tokens) == (6, 6)
    batch = collate(draw("abc", [doc("a")]), budget=8)
    assert (batch.tokens, batch.padded_tokens) == (6, 8)


def test_moves_every_tensor() -> None:
    batch = collate(draw("q", [doc("a")], [doc("n")]), budget=2).to("meta")
    tensors = [batch.query_rows, batch.document_rows, batch.positives, batch.known_positives]
    tensors += [t for part in batch.micro_batches for t in (part.input_ids, part.attention_mask, part.rows)]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert (batch.texts, batch.record_ids) == (3, ("q",))


def test_one_query_alone_has_only_its_positive() -> None:
    batch = collate(draw("q", [doc("a"), doc("b")]))
    assert (documents(batch), known(batch)) == (["a"], [{"a"}])


def test_documents_may_be_cut_shorter_in_training_and_queries_are_not() -> None:
    batch = RetrievalCollator(Letters(), 64, document_length=4)(
        [draw("a long query", [doc("a long document")])]
    )
    lengths = {
        row: int(n)
        for m in batch.micro_batches
        for row, n in zip(m.rows.tolist(), m.attention_mask.sum(1), strict=True)
    }
    assert lengths[int(batch.query_rows[0])] == 10
    assert lengths[int(batch.document_rows[0])] == 4
