"""Every config of configs/data: it is parsed as `fit` does, its sources are read, and a batch comes out.

Hub data sets are stood in for by tables with the columns of their pages, local files by made-up ones.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import datasets
import pytest
from jsonargparse import ArgumentParser

from lit_retrofit.data.beir import write_beir
from lit_retrofit.data.catalogue import config_folder, source_files
from lit_retrofit.data.datamodule import RetrievalData
from lit_retrofit.data.options import DataOptions, SamplingOptions, SourceOptions
from lit_retrofit.data.records import Document, Query, RetrievalSet
from lit_retrofit.data.sources import read_training_data

from .hub_fixtures import ROWS, load_dataset

CONFIGS = sorted((config_folder() / "data").glob("*.yaml"))


class Letters:
    """A token per character, after those of the prompt."""

    pad_id = 0

    def of(self, role):
        return self

    def __call__(self, texts, role, max_length=None, prompt=None):
        return [[*map(ord, prompt or role), *map(ord, text)][:max_length] for text in texts]


@pytest.fixture(autouse=True)
def hub(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.chdir(tmp_path)


def parse(*arguments: str) -> RetrievalData:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(RetrievalData, "data", skip={"tokenize"}, instantiate=False)
    parsed = parser.instantiate_classes(parser.parse_args(list(arguments))).data
    return RetrievalData(parsed.options, parsed.sampling, tokenize=Letters())


def make_local_files(options: DataOptions, write_parquet) -> None:
    rows = [
        {"query": f"q{i}", "positive": f"page {i}", "negative": f"no {i}", "language": "de", "group": f"g{i}"}
        for i in range(20)
    ]
    for source in options.sources:
        path = Path(source.path.replace("*", "1"))
        if source.path.startswith(("hf:", "quickstart:")):
            continue
        path.parent.mkdir(exist_ok=True)
        if source.stream:
            write_parquet(rows, str(path))
        else:
            own = [{**row, "query": f"{path.stem} {row['query']}"} for row in rows]
            path.write_text("".join(json.dumps(row) + "\n" for row in own))
    if options.validation and not options.validation.startswith("quickstart:"):
        found = RetrievalSet("dev", (Query("q", "a query"),), (Document("d", "a page"),), {"q": {"d": 1}})
        write_beir(found, Path(options.validation))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_yields_a_batch(path, write_parquet) -> None:
    module = parse("--config", str(path), "--data.sampling.batch_size", "4", "--data.options.workers", "0")
    make_local_files(module.options, write_parquet)
    module.setup("fit")
    batch = next(iter(module.train_dataloader()))
    assert len(batch.record_ids) == 4
    assert batch.texts >= 8


def read(name: str, **settings):
    source = SourceOptions(f"source:{name}", **settings)
    options = DataOptions(train=(source,), validation_share=0)
    (found, records), *_ = read_training_data(options).sources
    return found, records


@pytest.mark.parametrize("name", source_files())
def test_a_named_source_fills_its_records(name) -> None:
    source, records = read(name)
    parts = source.parts()
    assert len(records) == ROWS * len(parts)
    assert {record.language for record in records} == {part.language for part in parts}
    assert source.label == name and source.task and source.instruction
    for record in records:
        assert record.task == source.task
        assert record.query != record.positives[0].text
        assert all(document.language for document in (*record.positives, *record.negatives))
    # its hub page and licence are told
    text = source_files()[name].read_text()
    assert f"# Page: https://huggingface.co/datasets/{source.path[3:].split(':')[0].split('@')[0]}" in text
    assert re.search(r"^# Licence: \w", text, re.MULTILINE)


def test_what_becomes_of_the_columns() -> None:
    """One of each layout against the rows by hand."""
    of = "of sentence-transformers/natural-questions:pair"
    record = read("nq")[1][1]
    assert (record.query, record.positives[0].text) == (f"query 1 {of}", f"answer 1 {of}")

    record = read("mmarco")[1][0]
    assert len(record.negatives) == 7
    assert record.negatives[6].text.startswith("negative_7 0 of hotchpotch") and record.language == "ar"

    record = read("swim-ir")[1][0]
    of = "of nthakur/swim-ir-monolingual:ar"
    assert record.positives[0].text == f"title 0 {of} text 0 {of}"

    record = read("fever")[1][2]
    assert record.query == "text 2 of mteb/fever:queries"
    assert record.positives == (
        Document("2", "title 2 of mteb/fever:corpus text 2 of mteb/fever:corpus", "en"),
    )


def test_parallel_sentences_know_both_languages_and_their_group() -> None:
    _, records = read("parallel-talks")
    german = [r for r in records if r.positives[0].language == "de"]
    assert len(german) == ROWS
    assert german[0].language == "en" and german[0].group == german[0].query
    turned = SourceOptions(
        "source:parallel-talks",
        fields={"query": "non_english", "positive": "english", "group": "english"},
        language="{language}",
        document_language="en",
    )
    (_, records), *_ = read_training_data(DataOptions(train=(turned,), validation_share=0)).sources
    assert {r.positives[0].language for r in records} == {"en"}
    assert records[0].language == "ar" and records[0].query.startswith("non_english")


def test_instructions_become_prompts_where_they_are_asked_for() -> None:
    options = DataOptions(
        train=("source:fever", "rows.jsonl"), instruction_prompt="Instruct: {instruction}\nQuery: "
    )
    fever, other = options.sources
    assert fever.query_prompt == f"Instruct: {fever.instruction}\nQuery: "
    assert other.query_prompt is None
    assert DataOptions(train=("source:fever",)).sources[0].query_prompt is None


def test_sampling_options_are_those_of_the_configs() -> None:
    assert parse("--config", str(config_folder() / "data" / "english.yaml")).sampling == SamplingOptions(
        batch_size=512, negatives=1, homogeneous=("source",)
    )
