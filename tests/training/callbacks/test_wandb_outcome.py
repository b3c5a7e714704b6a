"""What Weights & Biases gets at the end of a run: scores by language, records, the model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
from lightning.pytorch.loggers import WandbLogger

from lit_retrofit.data.records import Document, Record
from lit_retrofit.errors import UserError
from lit_retrofit.model.loading import load_encoder
from lit_retrofit.training.callbacks import WandbOutcome
from lit_retrofit.training.callbacks.wandb_outcome import _record_rows


class Fake(WandbLogger):
    """Keeps what it is given."""

    made: ClassVar[list[Fake]] = []

    def __init__(self, **options: object) -> None:
        self.tables: dict[str, list[dict]] = {}
        self.artifacts: list = []
        self._offline = False
        Fake.made.append(self)

    @property
    def experiment(self):
        return SimpleNamespace(id="run-id", log_artifact=self.artifacts.append)

    def log_table(self, key, columns=None, data=None, dataframe=None, step=None) -> None:
        self.tables[key] = [dict(zip(columns, row, strict=True)) for row in data]

    def log_hyperparams(self, params) -> None: ...
    def log_metrics(self, metrics, step=None) -> None: ...
    def after_save_checkpoint(self, checkpoint_callback) -> None: ...
    def finalize(self, status) -> None: ...

    name = version = save_dir = None


@pytest.fixture
def logged(run, monkeypatch):
    """Starts a run with W&B on, and tells what its logger was given."""

    def start(*extra: str, status: int = 0, **where: str) -> Fake:
        monkeypatch.setattr("lit_retrofit.training.loggers._wandb_logger", lambda folder: Fake())
        assert run(*extra, "--wandb", "true", **where) == status
        return Fake.made[-1]

    return start


def files(logger: Fake) -> dict[str, Path]:
    (artifact,) = logger.artifacts
    assert (artifact.type, artifact.name) == ("model", "model-run-id")
    return {name: Path(entry.local_path) for name, entry in artifact.manifest.entries.items()}


def test_the_scores_of_the_best_and_the_last_validation(run, logged) -> None:
    """The rate falls to nothing after the first epoch: that is the best, and later ones are no better."""
    rows = logged("--model.optimizer.learning_rate", "1e-12").tables["val/tasks"]
    assert [(row["validation"], row["step"]) for row in rows[:: len(rows) // 2]] == [("best", 3), ("last", 9)]
    last = [row for row in rows if row["validation"] == "last"]
    own = [row["nDCG@10"] for row in last if row["kind"] == "monolingual"]
    assert {(row["query_language"], row["corpus_language"]) for row in last} >= {("en", "en"), ("de", "de")}
    assert sum(own) / len(own) == pytest.approx(run.column("val/monolingual/nDCG@10")[-1], abs=1e-4)
    assert {"queries", "documents", "Recall@100", "MRR@10"} <= last[0].keys()


def test_the_records_with_the_negatives_that_they_were_trained_on(run, logged) -> None:
    rows = logged("--wandb_records", "5").tables["train/records"]
    known = {row["query"]: row for row in map(json.loads, (run.folder / "train.jsonl").open())}
    assert len({row["query"] for row in rows}) == 5
    for row in rows:
        source = known[row["query"]]
        assert row["positive"] == source["positive"] and row["language"] == source["language"]
        assert row["hard_negatives"] == [source["negative_1"], source["negative_2"]]


def record(number: int, negatives: int = 0, scored: bool = False) -> Record:
    documents = tuple(Document(f"n{i}", f"no {i}") for i in range(negatives))
    scores = {"positive_scores": (0.9, 0.8), "negative_scores": (0.5,) * negatives} if scored else {}
    return Record(f"r{number}", "q" * 5000, (Document("p", "yes"), Document("o", "too")), documents, **scores)


def test_rows_are_drawn_with_a_seed_from_records_that_have_negatives() -> None:
    records = [record(number, negatives=number % 2) for number in range(40)]
    rows = _record_rows(records, 10)
    assert rows == _record_rows(records, 10) and len(rows) == 10
    assert all(row["hard_negatives"] == ["no 0"] for row in rows)
    assert rows[0]["query"] == "q" * 1000 + "…"
    assert rows[0]["positive_score"] is None and rows[0]["negative_scores"] == []
    assert len(_record_rows(records[::2], 50)) == 20  # none has any: all may be shown
    (scored,) = _record_rows([record(0, negatives=2, scored=True)], 50)
    assert (scored["positive_score"], scored["negative_scores"]) == (0.9, [0.5, 0.5])
    assert _record_rows(records, 0) == _record_rows([], 5) == []


def test_the_model_is_the_best_checkpoint_with_its_configuration(run, logged, tmp_path) -> None:
    folder = run.folder / "run"
    found = files(logged())
    assert found == {
        "checkpoints/best.ckpt": folder / "checkpoints" / "best.ckpt",
        "config.yaml": folder / "config.yaml",
        "training.json": folder / "training.json",
    }
    for name, file in found.items():  # as a download has them: a model for every command
        (tmp_path / "downloaded" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tmp_path / "downloaded" / name)
    assert load_encoder(str(tmp_path / "downloaded")).dimension == 32
    assert not logged("--overwrite", "--wandb_model", "false").artifacts


def test_the_last_checkpoint_where_nothing_is_validated_and_none_where_nothing_is_saved(run, logged) -> None:
    none = ("--data.options.validation", "null", "--data.options.validation_share", "0")
    logger = logged(*none)
    assert "checkpoints/last.ckpt" in files(logger) and "val/tasks" not in logger.tables
    assert not logged(*none, "--overwrite", "--trainer.enable_checkpointing", "false").artifacts


def test_own_checkpoints_come_under_the_names_of_a_run_folder(run, logged, tmp_path) -> None:
    own = ("--trainer.callbacks+=ModelCheckpoint", f"--trainer.callbacks.dirpath={tmp_path / 'kept'}")
    found = files(logged(*own, "--trainer.callbacks.monitor=val/nDCG@10", "--trainer.callbacks.mode=max"))
    assert found["checkpoints/best.ckpt"].parent == tmp_path / "kept"


def test_a_run_that_goes_on_remembers_the_best(run, logged, injected) -> None:
    slow = ("--model.optimizer.learning_rate", "1e-12")
    stopped = logged(*slow, *injected("SignalAt", step=6, name="SIGTERM"), status=143)
    assert not stopped.tables and not stopped.artifacts
    rows = logged(*slow, "--ckpt_path", run.checkpoint()).tables["val/tasks"]
    assert {(row["validation"], row["step"]) for row in rows} == {("best", 3), ("last", 9)}


def test_nothing_where_wandb_is_off_or_on_other_ranks(run, monkeypatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("logged")

    monkeypatch.setattr(WandbOutcome, "on_fit_end", refuse)
    assert run() == 0
    monkeypatch.undo()
    logger = Fake()
    for trainer in (
        SimpleNamespace(is_global_zero=False, loggers=[logger]),
        SimpleNamespace(is_global_zero=True, loggers=[]),
    ):
        WandbOutcome(run.folder).on_fit_end(trainer, None)  # type: ignore[arg-type]
    assert not logger.tables and not logger.artifacts


def test_a_number_of_records_that_cannot_be_meant() -> None:
    with pytest.raises(UserError, match="wandb_records is -1"):
        WandbOutcome(Path(), records=-1)


@pytest.mark.slow
def test_an_offline_run_keeps_it_in_its_files(run, monkeypatch, tmp_path) -> None:
    import wandb

    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    try:
        assert run("--wandb", "true", "--trainer.max_epochs", "1") == 0
    finally:
        wandb.finish()
        wandb.teardown()  # ends the process that writes the files
    (offline,) = (run.folder / "run" / "wandb").glob("offline-run-*")
    tables = {
        path.relative_to(offline / "files" / "media" / "table").parts[0]: json.loads(path.read_text())
        for path in (offline / "files").rglob("*.table.json")
    }
    assert tables.keys() == {"val", "train"}
    assert "hard_negatives" in tables["train"]["columns"] and len(tables["train"]["data"]) == 30
    assert {row[0] for row in tables["val"]["data"]} == {"best", "last"}
    (log,) = offline.glob("*.wandb")
    assert all(name in log.read_bytes() for name in (b"checkpoints/best.ckpt", b"config.yaml"))
    # No copy of the model: what is uploaded later is the run folder's.
    copies = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".log"]
    size = Path(run.checkpoint(file="best")).stat().st_size
    assert [path for path in copies if path.stat().st_size == size and path.suffix != ".ckpt"] == []
