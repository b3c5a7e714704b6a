"""From files to batches, through the data module."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_retrofit.data.datamodule import DataOptions, RetrievalData
from lit_retrofit.data.options import SamplingOptions, SourceOptions
from lit_retrofit.data.records import Document
from lit_retrofit.data.teacher import write_teacher
from lit_retrofit.errors import UserError


class Letters:
    """A token per character after one for the role."""

    pad_id = 0

    def of(self, role: str) -> Letters:
        return self

    def __call__(self, texts: Sequence[str], role: str, max_length: int | None = None) -> list[list[int]]:
        return [[{"query": 1, "document": 2}[role], *map(ord, text)][:max_length] for text in texts]


def write(path: Path, rows: Sequence[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def train(tmp_path) -> str:
    rows = [{"query": f"q{i}", "positive": f"text {i}", "negative": f"no {i}"} for i in range(20)]
    return write(tmp_path / "train.jsonl", rows)


def data(*train: str | SourceOptions, batch_size: int = 4, **options) -> RetrievalData:
    return RetrievalData(DataOptions(train=train, **options), SamplingOptions(batch_size), tokenize=Letters())


def text(ids: torch.Tensor, mask: torch.Tensor) -> str:
    return "".join(map(chr, ids[mask.bool()].tolist()[1:]))


def test_batches_of_an_epoch(train) -> None:
    module = data(train, validation_share=0.0, token_budget=40)
    module.setup("fit")
    batches = list(module.train_dataloader())
    assert len(batches) == len(module.train_dataloader()) == 5
    queries = []
    for batch in batches:
        assert batch.texts == 12  # 4 queries, 4 positives, 4 negatives
        assert all(part.input_ids.numel() <= 40 for part in batch.micro_batches)
        texts = {
            row: text(ids, mask) for part in batch.micro_batches
            for row, ids, mask in zip(part.rows.tolist(), part.input_ids, part.attention_mask, strict=True)
        }  # fmt: skip
        for query, positive in zip(batch.query_rows.tolist(), batch.positives.tolist(), strict=True):
            queries.append(texts[query])
            assert texts[batch.document_rows[positive].item()] == "text " + texts[query][1:]
    assert sorted(queries) == sorted(f"q{i}" for i in range(20))


def test_a_part_is_split_off_for_validation(train) -> None:
    module = data(train, validation_share=0.3)
    module.setup("fit")
    assert module.validation_set is not None
    held_out = {query.text for query in module.validation_set.queries}
    assert held_out and not held_out & {record.query for record in module.train_records}
    assert len(held_out) + len(module.train_records) == 20
    queries, documents = module.val_dataloader()
    for loader, expected in (
        (queries, module.validation_set.queries),
        (documents, module.validation_set.corpus),
    ):
        found = {}
        for part in loader:
            for row, ids, mask in zip(part.rows.tolist(), part.input_ids, part.attention_mask, strict=True):
                found[row] = text(ids, mask)
        assert [found[i] for i in range(len(found))] == [item.text for item in expected]


def test_given_validation_data_leaves_the_training_data_whole(train, tmp_path) -> None:
    other = write(tmp_path / "v.jsonl", [{"query": "v", "positive": "w"}])
    module = data(train, validation=other)
    module.setup("fit")
    assert len(module.train_records) == 20
    assert [query.text for query in module.validation_set.queries] == ["v"]


def test_several_files_are_put_together(train, tmp_path) -> None:
    other = write(tmp_path / "b.jsonl", [{"query": "v", "positive": "w"}])
    module = data(train, other, validation_share=0.0)
    module.setup("fit")
    card = module.card()
    assert card["records"] == 21
    assert card["with_negatives"] == 20
    assert card["sources"] == [train, other]
    assert len(card["reports"]) == 2
    assert card["validation_queries"] == 0
    assert module.val_dataloader() == []


def test_an_id_that_stands_for_two_texts_in_two_files(tmp_path) -> None:
    """In one batch the second text would silently be replaced by the first."""

    def tevatron(name: str, words: str) -> str:
        passages = [{"docid": "7", "title": "", "text": words}]
        row = {"query_id": "1", "query": words, "positive_passages": passages, "negative_passages": []}
        return write(tmp_path / name, [row])

    module = data(tevatron("a.jsonl", "one"), tevatron("b.jsonl", "two"), validation_share=0.0)
    with pytest.raises(UserError, match=r"b\.jsonl.*'7'"):
        module.setup("fit")
    same = data(tevatron("c.jsonl", "one"), tevatron("d.jsonl", "one"), validation_share=0.0)
    same.setup("fit")
    assert len(same.train_records) == 2


def test_parallel_positives(tmp_path) -> None:
    rows = [{"query": f"q {x}", "positive": f"text {x}", "language": x, "group": "g"} for x in ("de", "en")]
    file = write(tmp_path / "p.jsonl", rows)
    for wanted, count in ((True, 2), (False, 1)):
        module = data(file, validation_share=0.0, parallel_positives=wanted)
        module.setup("fit")
        assert [len(record.positives) for record in module.train_records] == [count] * 2


def test_training_documents_may_be_cut_shorter(train) -> None:
    module = data(train, validation_share=0.0, training_document_length=4)
    module.setup("fit")
    batch = next(iter(module.train_dataloader()))
    assert max(part.input_ids.shape[1] for part in batch.micro_batches) == 4


@pytest.mark.parametrize("row", [{"text": " "}, {"text": None}, {"words": "x"}, {"text": 3}])
def test_texts_to_predict(tmp_path, row: dict) -> None:
    file = write(tmp_path / "t.jsonl", [{"text": "short"}, {"text": "longer"}])
    module = data(predict=file, predict_role="query")
    module.setup("predict")
    parts = list(module.predict_dataloader())
    assert parts[0].rows.tolist() == [1, 0]
    assert parts[0].input_ids[0, 0] == 1  # the query's prompt
    bad = data(predict=write(tmp_path / "bad.jsonl", [{"text": "a"}, row]))
    with pytest.raises(UserError, match=r"bad\.jsonl:2: field 'text'"):
        bad.setup("predict")


@pytest.mark.parametrize(("stage", "field"), [
    ("fit", "train"), ("validate", "train"), ("test", "test"), ("predict", "predict"),
])  # fmt: skip
def test_what_a_stage_needs(stage: str, field: str) -> None:
    with pytest.raises(UserError, match=rf"data\.options\.{field} is not set"):
        data().setup(stage)


def test_validation_that_is_not_there(train) -> None:
    with pytest.raises(UserError, match=r"data\.options\.validation is not set"):
        data(train, validation_share=0.0).setup("validate")


def test_nothing_left_to_train_on(tmp_path) -> None:
    file = write(tmp_path / "one.jsonl", [{"query": "q", "positive": "p"}] * 2)
    with pytest.raises(UserError, match="leaves no training data"):
        data(file, validation_share=0.9999999).setup("fit")


@pytest.mark.parametrize(
    "options", [{"token_budget": 0}, {"validation_share": 1.0}, {"validation_share": -0.1}]
)
def test_senseless_options(train, options: dict) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        data(train, **options).setup("fit")


def test_nothing_left_to_validate_on(tmp_path) -> None:
    file = write(tmp_path / "one.jsonl", [{"query": "q", "positive": "p"}] * 2)
    with pytest.raises(UserError, match="leaves no validation data"):
        data(file, validation_share=1e-9).setup("fit")


def test_records_left_out_are_told(train, caplog) -> None:
    module = data(train, validation_share=0.0, batch_size=8)
    module.setup("fit")
    with caplog.at_level("INFO"):
        module.train_dataloader()
    assert "4 of 20 records fill no batch of 8" in caplog.text


def test_the_state_goes_on_in_another_module(train) -> None:
    def module() -> RetrievalData:
        made = data(train, validation_share=0.0)
        made.setup("fit")
        return made

    first = module()
    assert first.state_dict() == {}
    expected = [batch.record_ids for batch in first.train_dataloader()]
    stopped = module()
    source = iter(stopped.train_dataloader())
    seen = [next(source).record_ids for _ in range(2)]
    resumed = module()
    resumed.load_state_dict(stopped.state_dict())
    assert seen + [batch.record_ids for batch in resumed.train_dataloader()] == expected


def test_an_answer_in_one_record_is_no_negative_in_another_with_the_same_query(tmp_path) -> None:
    file = write(
        tmp_path / "train.jsonl",
        [{"query": "q", "positive": "a", "negative": "b"}, {"query": "q", "positive": "b"}],
    )
    module = data(file, validation_share=0.0)
    module.setup("fit")
    assert [[d.text for d in record.positives] for record in module.train_records] == [["a", "b"], ["b", "a"]]
    assert [record.negatives for record in module.train_records] == [(), ()]


def test_validation_is_split_off_what_is_in_memory_and_streams_are_left_whole(train, write_parquet) -> None:
    rows = [{"query": f"s{i}", "positive": f"text s{i}"} for i in range(24)]
    stream = SourceOptions(write_parquet(rows), name="web", stream=True)
    module = data(train, stream, validation_share=0.3)
    module.setup("fit")
    held_out = {query.text for query in module.validation_set.queries}
    assert held_out and not any(query.startswith("s") for query in held_out)
    seen = [name for batch in module.train_dataloader() for name in batch.record_ids]
    assert len(set(seen)) == len(seen) == 24 + 20 - len(held_out) - module.train_dataloader().mixture.left_out
    card = module.card()
    assert card["streamed"] == {"web": 24}
    assert card["sources"] == [train, "web"]
    assert card["records"] == 44 - len(held_out)


def test_only_streamed_sources_need_validation_data_of_their_own(write_parquet) -> None:
    stream = SourceOptions(
        write_parquet([{"query": f"s{i}", "positive": f"t{i}"} for i in range(8)]), stream=True
    )
    with pytest.raises(UserError, match="nothing can be split off streamed sources"):
        data(stream).setup("fit")
    module = data(stream, validation_share=0.0)
    module.setup("fit")
    assert len(list(module.train_dataloader())) == 2


def test_one_streamed_query_per_batch_without_negatives_is_refused(write_parquet) -> None:
    rows = [{"query": f"s{i}", "positive": f"t{i}", "negatives": [f"u{i}"]} for i in range(8)]
    path = write_parquet(rows)
    for negatives in (0, 1):
        stream = SourceOptions(path, stream=True, negatives=negatives)
        module = data(stream, batch_size=1, validation_share=0.0)
        if negatives:
            module.setup("fit")
        else:
            with pytest.raises(UserError, match="one query per batch and no hard negatives"):
                module.setup("fit")


def test_languages_are_capped_and_told(tmp_path) -> None:
    rows = [{"query": f"q{i}", "positive": f"t{i}", "language": ("de", "en", "en")[i % 3]} for i in range(30)]
    source = SourceOptions(write(tmp_path / "t.jsonl", rows), name="pages", max_per_language=12)
    modules = [data(source, validation_share=0.0, seed=seed) for seed in (0, 0, 1)]
    for module in modules:
        module.setup("fit")
    first, same, other = ([record.query for record in module.train_records] for module in modules)
    assert first == same != other
    assert modules[0].card()["languages"] == {"en": 12, "de": 10}
    assert "pages: kept 12 records each in en of 20" in modules[0].reports


def test_no_in_batch_and_no_hard_negatives_is_refused(tmp_path, train, caplog) -> None:
    plain = write(tmp_path / "plain.jsonl", [{"query": f"q{i}", "positive": f"t{i}"} for i in range(8)])
    with pytest.raises(UserError, match=r"has neither in-batch nor hard negatives"):
        data(SourceOptions(plain, in_batch_negatives=False), validation_share=0.0).setup("fit")
    with pytest.raises(UserError, match=r"has neither in-batch nor hard negatives"):
        data(SourceOptions(train, in_batch_negatives=False, negatives=0), validation_share=0.0).setup("fit")
    rows = [{"query": "q", "positive": "p"}, {"query": "r", "positive": "s", "negative": "n"}]
    some = write(tmp_path / "some.jsonl", rows)
    data(SourceOptions(some, in_batch_negatives=False), validation_share=0.0).setup("fit")
    assert "1 of 2 records have no hard negatives" in caplog.text


def test_a_source_without_in_batch_negatives_and_its_teacher(tmp_path, train) -> None:
    texts = {
        "query": [f"q{i}" for i in range(20)],
        "document": [f"{t} {i}" for t in ("text", "no") for i in range(20)],
    }
    for role, names in texts.items():
        write_teacher(tmp_path / "teacher", role, names, np.ones((len(names), 2), np.float16))
    options = {"validation_share": 0.0, "teacher": str(tmp_path / "teacher")}
    module = data(SourceOptions(train, in_batch_negatives=False, temperature=0.5), **options)
    module.setup("fit")
    batch = next(iter(module.train_dataloader()))
    assert len(set(batch.query_groups.tolist())) == 4
    assert batch.temperature == 0.5
    assert batch.teacher_documents.shape == (8, 2)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("homogeneous", [(), ("source",)])
def test_records_with_new_negatives_are_drawn_from_the_next_epoch_on(
    train, tmp_path, workers, homogeneous
) -> None:
    rows = [{"query": f"v{i}", "positive": f"w {i}", "negative": f"never {i}"} for i in range(8)]
    other = write(tmp_path / "other.jsonl", rows)
    module = data(train, other, validation_share=0.0, workers=workers)
    module.sampling = SamplingOptions(4, homogeneous=homogeneous)
    module.setup("fit")
    loader = module.train_dataloader()

    def negatives() -> set[str]:
        found = set()
        for batch in loader:
            for part in batch.micro_batches:
                found |= {text(*row) for row in zip(part.input_ids, part.attention_mask, strict=True)}
        return {name for name in found if name.startswith(("n", "mined"))}

    assert negatives() == {f"no {i}" for i in range(20)} | {f"never {i}" for i in range(8)}
    mined = [replace(r, negatives=(Document(f"m{r.id}", f"mined {r.query}"),)) for r in module.train_records]
    module.replace_records(mined)
    assert negatives() == {f"mined {r.query}" for r in mined}
    with pytest.raises(ValueError, match="in their order"):
        module.replace_records(mined[::-1])
