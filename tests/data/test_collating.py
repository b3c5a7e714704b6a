"""Private negatives, groups, drawn negatives and scores, prompts, teachers, identity across devices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from retrofit_kernels import ContrastiveOptions, info_nce

from lit_retrofit.data.batching import RetrievalBatch
from lit_retrofit.data.collating import RetrievalCollator
from lit_retrofit.data.mixture import Mixture
from lit_retrofit.data.options import SamplingOptions, SourceOptions
from lit_retrofit.data.records import Document, Record, text_id
from lit_retrofit.data.sampling import NO_SETTINGS, Draw
from lit_retrofit.data.teacher import Teacher, write_teacher
from lit_retrofit.errors import UserError
from lit_retrofit.model.tokenizer import RoleTokenizer

PUBLIC = SourceOptions("public")
PRIVATE = SourceOptions("private", in_batch_negatives=False)


class Letters:
    """A token per character after the prompt's; at most six tokens of a text."""

    pad_id = 0

    def of(self, role: str) -> Letters:
        return self

    def __call__(
        self, texts: Sequence[str], role: str, max_length: int | None = None, prompt: str | None = None
    ) -> list[list[int]]:
        before = {"query": "?", "document": "!"}[role] if prompt is None else prompt
        return [[*map(ord, before), *map(ord, text[: max_length or 6])] for text in texts]


def doc(text: str) -> Document:
    return Document(text_id(text), text)


def draw(
    query: str,
    positive: str,
    negatives: str = "",
    source: SourceOptions = NO_SETTINGS,
    also: str = "",
    place: int = 0,
    **fields,
) -> Draw:
    """Every letter of `negatives` and `also` (further positives) is a document."""
    positives = tuple(map(doc, (positive, *also)))
    record = Record(query, query, positives, tuple(map(doc, negatives)), **fields)
    return Draw(record, positives[0], record.negatives, source, place=place)


def collate(draws: Sequence[Draw], **options) -> RetrievalBatch:
    placed = [one._replace(place=i) for i, one in enumerate(draws)]
    return RetrievalCollator(Letters(), 1000, **options)(placed)


def texts(batch: RetrievalBatch) -> list[str]:
    found = {}
    for part in batch.micro_batches:
        for row, ids, mask in zip(part.rows.tolist(), part.input_ids, part.attention_mask, strict=True):
            found[row] = "".join(map(chr, ids[mask.bool()].tolist()))
    assert sorted(found) == list(range(batch.texts))
    return [found[row] for row in range(batch.texts)]


def seen(batch: RetrievalBatch) -> list[list[str]]:
    """The negatives that the loss sees for each query, from the batch's fields alone."""
    names = texts(batch)
    documents = [names[row] for row in batch.document_rows.tolist()]
    found = []
    for q, known in enumerate(batch.known_ids.tolist()):
        found.append(
            sorted(
                name
                for column, name in enumerate(documents)
                if batch.document_ids[column].item() not in known
                and (batch.query_groups is None or batch.query_groups[q] == batch.document_groups[column])
            )
        )
    return found


def expected(draws: Sequence[Draw], within: Sequence[str] = ()) -> list[list[str]]:
    """The same by the definition: documents of queries that share, none known to answer the query."""
    found = []
    for i, own in enumerate(draws):
        known = {
            d.text[:6]
            for other in draws
            if other.record.query == own.record.query
            for d in (*other.record.positives, other.positive)
        }
        negatives = set()
        for j, other in enumerate(draws):
            private = own.source.private or other.source.private
            alike = all(getattr(own.record, key) == getattr(other.record, key) for key in within)
            if i == j or (not private and alike):
                negatives |= {d.text[:6] for d in (other.positive, *other.negatives)}
        found.append(sorted("!" + text for text in negatives - known))
    return found


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("within", [(), ("language",)])
def test_who_sees_whom_as_a_negative(seed: int, within) -> None:
    """Against the definition: sources with and without in-batch negatives share few texts and queries."""
    rng = np.random.default_rng(seed)

    def letters(count: int) -> str:
        return "".join(rng.choice(list("abcdefgh"), count, replace=False))

    draws = []
    for _ in range(rng.integers(1, 8)):
        drawn = letters(4)
        source = (PUBLIC, PRIVATE)[rng.integers(2)]
        fields = {"language": ("de", "en")[rng.integers(2)]}
        query = f"q{rng.integers(5)}{source.label}{fields['language']}"[: 6 + rng.integers(9)]
        draws.append(draw(query, drawn[0], drawn[2:], source, drawn[1], **fields))
    batch = collate(draws, negatives_within=within)
    # Queries that differ beyond the sixth letter are one to the model.
    assert seen(batch) == expected(
        [d._replace(record=replace(d.record, query=d.record.query[:6])) for d in draws], within
    )
    names = texts(batch)
    assert len(set(names)) == len(names)  # embedded once, however many columns there are
    assert [names[batch.document_rows[c]][1:] for c in batch.positives.tolist()] == [
        d.positive.text for d in draws
    ]
    if batch.query_groups is not None:
        assert torch.equal(batch.document_groups[batch.positives], batch.query_groups)


def test_the_loss_of_a_private_query_is_that_of_the_query_alone() -> None:
    """Documents that two queries share, one as positive and one as negative, as labels do."""
    draws = [
        draw("nli", "a", "bc", PRIVATE), draw("other", "b", "ac", PRIVATE), draw("both", "a", "b", PRIVATE),
        draw("public", "c", "d", PUBLIC), draw("too", "e", "", PUBLIC),
    ]  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    vectors = {}

    def losses(batch: RetrievalBatch) -> list[float]:
        for name in texts(batch):
            vectors.setdefault(
                name, torch.nn.functional.normalize(torch.randn(8, generator=generator), dim=0)
            )
        embeddings = torch.stack([vectors[name] for name in texts(batch)]).double()
        options = ContrastiveOptions(
            query_ids=batch.known_ids, document_ids=batch.document_ids, query_groups=batch.query_groups,
            document_groups=batch.document_groups, reduction="none", backend="torch", query_to_query=True,
        )  # fmt: skip
        output = info_nce(
            embeddings[batch.query_rows], embeddings[batch.document_rows], scale=5.0,
            positives=batch.positives, options=options,
        )  # fmt: skip
        return output.loss.tolist()

    together = losses(collate(draws))
    alone = [losses(collate([one]))[0] for one in draws[:3]] + losses(collate(draws[3:]))
    assert together == pytest.approx(alone, abs=1e-6)
    assert min(together) > 0.01


def test_batches_have_groups_where_a_source_of_the_mixture_needs_them() -> None:
    """All devices must agree, whatever they drew."""
    assert collate([draw("q", "a")]).query_groups is None
    assert collate([draw("q", "a")], private_sources=True).query_groups is not None


def test_groups_mean_the_same_on_all_devices() -> None:
    def parts(**options) -> tuple[RetrievalBatch, RetrievalBatch, RetrievalBatch]:
        draws = [draw(f"q{i}", "abcd"[i], source=s, place=i) for i, s in enumerate([PRIVATE, PUBLIC] * 2)]
        make = RetrievalCollator(Letters(), 100, private_sources=True)
        return make(draws), make(draws[:2]), make(draws[2:])

    whole, first, second = parts()
    assert torch.equal(torch.cat([first.query_groups, second.query_groups]), whole.query_groups)
    assert len(set(whole.query_groups.tolist())) == 3
    assert torch.equal(torch.cat([first.document_ids, second.document_ids]), whole.document_ids)
    assert (whole.document_ids >= 0).all()


@pytest.mark.parametrize("seed", range(15))
def test_no_device_takes_anothers_answer_for_a_negative(seed: int) -> None:
    """What one device's loss sees with all documents gathered is what a single device would see.

    Queries that differ beyond the sixth letter are one to the model; with another prompt, equal ones are two.
    """
    rng = np.random.default_rng(seed)

    def record(i: int) -> Record:
        drawn = rng.choice(list("abcdefgh"), 5, replace=False)
        documents = [Document(f"id{rng.integers(20)}", text) for text in drawn]
        query = f"q{rng.integers(5)}same{rng.integers(3)}"
        return Record(f"r{i}", query, tuple(documents[:2]), tuple(documents[2:]))

    records = [record(i) for i in range(12)]
    sources = [(PUBLIC, records[:8]), (SourceOptions("b", query_prompt="Q:"), records[8:])]
    make = RetrievalCollator(Letters(), 1000)

    def batches(devices: int) -> list[RetrievalBatch]:
        mixtures = [Mixture(sources, SamplingOptions(12), devices, i) for i in range(devices)]
        return [make(mixture.batch(0, 0)) for mixture in mixtures]

    (whole,) = batches(1)
    known = [set(ids) - {-1} for ids in whole.known_ids.tolist()]
    parts = batches(3)
    every = {i for part in parts for i in part.document_ids.tolist()}
    assert every == set(whole.document_ids.tolist())
    found = [set(ids) - {-1} for part in parts for ids in part.known_ids.tolist()]
    assert found == known


def test_an_answer_that_another_device_holds_is_known() -> None:
    """By id, by text and through a record with the same query; all else is unknown."""
    one, two, three = Document("1", "one"), Document("2", "two"), Document("3", "three")
    edited, copy, four = Document("2", "two!"), Document("x", "three"), Document("4", "four")
    records = [
        Record("r0", "q", (one, two)),
        Record("r1", "q", (three,)),
        Record("r2", "s", (edited,), (copy,)),
        Record("r3", "t", (four,)),
    ]
    draws = tuple(Draw(record, record.positives[0], record.negatives) for record in records)
    make = RetrievalCollator(Letters(), 1000)
    ids = dict(zip(["one", "three", "two!", "four"], make(draws).document_ids.tolist(), strict=False))
    for draw, answers in zip(draws, [["one", "three", "two!"]] * 2 + [["two!"], ["four"]], strict=True):
        (known,) = make([draw._replace(shared=draws)]).known_ids.tolist()
        assert sorted(known) == sorted(ids[text] for text in answers)


def test_the_hard_negatives_drawn_with_their_scores() -> None:
    one = draw("q", "a", "bcd")
    one = one._replace(positive_score=0.9, negative_scores=(0.1, 0.2, 0.3))
    two = draw("r", "b", "a")
    batch = collate([one, two])
    names = [texts(batch)[row][1:] for row in batch.document_rows.tolist()]
    assert [[names[c] for c in row if c >= 0] for row in batch.negatives.tolist()] == [["b", "c", "d"], ["a"]]
    assert batch.negatives[1].tolist()[1:] == [-1, -1]
    assert batch.teacher_scores.dtype == torch.float32
    assert batch.teacher_scores[0].tolist() == pytest.approx([0.9, 0.1, 0.2, 0.3])
    assert all(math.isnan(score) for score in batch.teacher_scores[1].tolist())
    plain = collate([draw("q", "a", ""), draw("r", "b", "")])
    assert plain.negatives is plain.teacher_scores is None
    only_positive = collate([draw("q", "a")._replace(positive_score=0.5)])
    assert (only_positive.negatives.shape, only_positive.teacher_scores.tolist()) == ((1, 0), [[0.5]])
    unknown = collate([draw("q", "a", "b")], scored=True)
    assert unknown.negatives.tolist() == [[1]]
    assert unknown.teacher_scores.shape == (1, 2) and unknown.teacher_scores.isnan().all()
    nothing = collate([draw("q", "a")], scored=True)
    assert (nothing.negatives.shape, nothing.negatives.dtype) == ((1, 0), torch.int64)


def test_a_drawn_negative_that_answers_the_query_is_left_out_with_its_score() -> None:
    """As text equal once truncated, through another record with the same query, or twice the same."""
    record = Record("r", "q", (doc("answer one"),), tuple(map(doc, ("answer two", "x", "y", "x "[:1]))))
    one = Draw(record, record.positives[0], record.negatives, negative_scores=(0.9, 0.1, 0.2, 0.3))
    batch = collate([one, draw("q", "y")])
    names = [texts(batch)[row][1:] for row in batch.document_rows.tolist()]
    assert [names[c] for c in batch.negatives[0].tolist() if c >= 0] == ["x"]
    assert batch.teacher_scores[0, 1:].tolist() == pytest.approx([0.1])


def test_own_prompts_replace_the_models_and_keep_texts_apart() -> None:
    other = SourceOptions("b", query_prompt="Q:", document_prompt="D:")
    batch = collate([draw("q", "a", "c"), draw("q", "a", "d", other), draw("r", "b", "a", other)])
    names = texts(batch)
    assert [names[row] for row in batch.query_rows.tolist()] == ["?q", "Q:q", "Q:r"]
    documents = [names[row] for row in batch.document_rows.tolist()]
    assert sorted(documents) == ["!a", "!c", "D:a", "D:b", "D:d"]
    # The same document with another prompt still answers the query.
    known = [{documents[c] for c in row if c >= 0} for row in batch.known_positives.tolist()]
    assert known == [{"!a", "D:a"}, {"!a", "D:a"}, {"D:b"}]
    empty = SourceOptions("c", query_prompt="", document_prompt="")
    assert sorted(texts(collate([draw("q", "a", source=empty)]))) == ["a", "q"]


def test_an_own_prompt_comes_once_and_without_the_models() -> None:
    class Backend:
        pad_token_id = 0

        def __call__(self, texts: list[str], **_) -> dict[str, list[list[int]]]:
            return {"input_ids": [list(map(ord, text)) for text in texts]}

    tokenizer = RoleTokenizer(Backend(), {"query": "query: ", "document": ""}, {"query": 99, "document": 99})
    own = SourceOptions("b", query_prompt="Find: ")
    batch = RetrievalCollator(tokenizer, 1000)([draw("q", "a"), draw("q", "b", source=own)])
    assert [texts(batch)[row] for row in batch.query_rows.tolist()] == ["query: q", "Find: q"]


def test_the_sources_own_temperature() -> None:
    hot = SourceOptions("hot", temperature=0.1)
    assert collate([draw("q", "a", source=hot), draw("r", "b", source=hot)]).temperature == 0.1
    assert collate([draw("q", "a")]).temperature is None
    with pytest.raises(UserError, match=r"homogeneous to \[source\]"):
        collate([draw("q", "a", source=hot), draw("r", "b")])


def test_a_teachers_embeddings_go_with_the_texts(tmp_path) -> None:
    names = [*"abcd", "q", "r"]
    rows = np.arange(12, dtype=np.float16).reshape(6, 2)
    write_teacher(tmp_path, "document", names[:4], rows[:4])
    write_teacher(tmp_path, "query", names[4:], rows[4:])
    draws = [draw("r", "c", "ab"), draw("q", "a", "c")]
    batch = collate(draws, teacher=Teacher(tmp_path))
    assert batch.teacher_queries.tolist() == [[10, 11], [8, 9]]
    documents = [texts(batch)[row][1:] for row in batch.document_rows.tolist()]
    assert batch.teacher_documents.tolist() == [rows[names.index(text)].tolist() for text in documents]
    assert batch.teacher_documents.dtype == torch.float32
    with pytest.raises(UserError, match="no embedding of the document 'e'"):
        collate([draw("q", "e")], teacher=Teacher(tmp_path))


def test_moves_every_tensor_it_has(tmp_path) -> None:
    write_teacher(tmp_path, "document", ["a", "b"], np.zeros((2, 3), np.float32))
    write_teacher(tmp_path, "query", ["q"], np.zeros((1, 3), np.float32))
    one = draw("q", "a", "b", SourceOptions("s", in_batch_negatives=False))._replace(positive_score=1.0)
    batch = collate([one], teacher=Teacher(tmp_path))
    moved = batch.to("meta")
    tensors = {name: value for name, value in vars(moved).items() if isinstance(value, torch.Tensor)}
    assert len(tensors) == 12
    assert {tensor.device.type for tensor in tensors.values()} == {"meta"}
    assert batch.query_rows.device.type == "cpu"
