"""The four Trainer commands, from files to files, with a tiny model."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy

from lit_retrofit.cli import main
from lit_retrofit.data.collating import RetrievalCollator
from lit_retrofit.data.datamodule import DataOptions, RetrievalData
from lit_retrofit.data.mixture import Mixture
from lit_retrofit.data.sampling import SamplingOptions
from lit_retrofit.errors import UserError
from lit_retrofit.model.encoder import EncoderOptions
from lit_retrofit.model.loading import load_encoder
from lit_retrofit.model.lora import LoraOptions
from lit_retrofit.retrieval.embed import embed_texts
from lit_retrofit.training.lit_module import Retriever
from lit_retrofit.training.objective import ObjectiveOptions
from lit_retrofit.training.optimizer import OptimizerOptions
from lit_retrofit.training.strategy import OneSyncStrategy

TEXTS = ["word 7", "the page of 12", "x"]


def pair(i: int, negatives: bool = True) -> dict:
    row = {"query": f"what of {i}{i}", "positive": f"page {i}{i} tells {i}", "language": ("en", "de")[i % 2]}
    return {**row, "negative_1": f"page {i + 40} tells nothing"} if negatives else row


def write(path: Path, rows: Sequence[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("data")
    return {
        "train": str(write(folder / "train.jsonl", [pair(i) for i in range(30)])),
        "validation": str(write(folder / "validation.jsonl", [pair(i, False) for i in range(30, 40)])),
    }


@pytest.fixture
def fit(bert_folder, files, tmp_path) -> Callable[..., tuple[int, Path]]:
    """Runs ``fit``; returns its exit status and the output folder."""

    def run(*extra: str, name: str = "run", lora: bool = True) -> tuple[int, Path]:
        words = [
            "fit", "--output", str(tmp_path / name), "--model.encoder.model", str(bert_folder),
            "--model.objective.temperature", "0.1", "--model.optimizer.learning_rate", "0.01",
            "--data.options.train", f"[{files['train']}]", "--data.options.validation", files["validation"],
            "--data.options.token_budget", "100", "--data.sampling.batch_size", "8",
            "--trainer.accelerator", "cpu", "--trainer.max_epochs", "2", "--trainer.log_every_n_steps", "1",
            "--trainer.enable_progress_bar", "false", "--trainer.precision", "32-true", "--wandb", "false",
        ]  # fmt: skip
        adapters = ["--model.encoder.lora.r", "4", "--model.encoder.lora.dropout", "0.1"] if lora else []
        return main([*words, *adapters, *extra]), tmp_path / name

    return run


def exit_status(run: Callable[[], tuple[int, Path]]) -> int | str | None:
    """Of a command that may be refused while its options are read, by jsonargparse."""
    try:
        return run()[0]
    except SystemExit as stopped:
        return stopped.code


@pytest.fixture(autouse=True)
def _as_on_the_command_line(monkeypatch) -> None:
    """Lightning's parser debugs, and raises, where pytest shows debug logs; here it exits."""
    monkeypatch.delenv("JSONARGPARSE_DEBUG", raising=False)


def weights(run: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def assert_same_weights(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def column(run: Path, name: str) -> list[float]:
    with (run / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def test_a_whole_run(fit, bert_folder, capsys) -> None:
    status, run = fit("--trainer.max_epochs", "6", "--model.optimizer.learning_rate", "0.005")
    assert status == 0, capsys.readouterr().err
    loss = column(run, "train/loss")
    assert len(loss) == 6 * 3
    assert sum(loss[-3:]) < 0.9 * sum(loss[:3])
    for key in (
        "val/nDCG@10",
        "val/monolingual/nDCG@10",
        "val/monolingual/Recall@100",
        "train/padding_share",
    ):
        assert all(0 <= value <= 1 for value in column(run, key))
    assert len(column(run, "val/nDCG@10")) == 6
    assert max(column(run, "val/nDCG@10")) > 0
    assert column(run, "train/temperature") == pytest.approx([0.1] * 18)
    assert len(set(column(run, "lr-AdamW") or column(run, "lr-AdamW/pg1"))) > 5

    card = json.loads((run / "training.json").read_text())
    assert (card["steps"], card["epochs"], card["format"]) == (18, 6, 1)
    assert card["seconds"] > 0
    assert card["encoder"]["model"] == str(bert_folder)
    assert card["encoder"]["query_prompt"] == "query: "
    assert card["encoder"]["lora"]["r"] == 4
    assert card["objective"]["temperature"] == 0.1
    assert card["optimizer"]["learning_rate"] == 0.005
    assert card["sampling"]["batch_size"] == 8
    assert card["data"]["records"] == card["data"]["with_negatives"] == 30
    assert card["data"]["languages"] == {"en": 15, "de": 15}
    assert card["data"]["validation_queries"] == 10
    assert card["metrics"]["val/nDCG@10"] == pytest.approx(column(run, "val/nDCG@10")[-1], abs=1e-4)
    assert (run / "config.yaml").is_file()
    assert not (run / "wandb").exists()

    trained = weights(run)
    assert trained and all("lora_" in name for name in trained)
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["callbacks"]


def test_a_checkpoint_loads_with_equal_embeddings(fit, bert_folder, files) -> None:
    """The module that trained, the checkpoint in a new encoder: the same vectors, other than the base's."""
    module = Retriever(
        EncoderOptions(str(bert_folder), query_prompt="ask: ", document_max_length=12, lora=LoraOptions(r=4)),
        optimizer=OptimizerOptions(learning_rate=0.05),
    )
    data = RetrievalData(
        DataOptions(train=(files["train"],), validation=files["validation"]), SamplingOptions(batch_size=8),
        tokenize=module.tokenizer,
    )  # fmt: skip
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(module, datamodule=data)
    checkpoint = Path(files["train"]).with_name("manual.ckpt")
    trainer.save_checkpoint(checkpoint)
    loaded = load_encoder(str(checkpoint))
    base = load_encoder(str(bert_folder))
    for role in ("query", "document"):
        found = embed_texts(loaded, TEXTS, role)
        assert torch.equal(found, embed_texts(module.encoder, TEXTS, role))
        assert (found - embed_texts(base, TEXTS, role)).abs().max() > 0.01
    assert loaded.options == module.encoder.options


def quiet_trainer(**options) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(accelerator="cpu", enable_model_summary=False, **quiet, **options)


@pytest.mark.parametrize("lora", [True, False], ids=["lora", "full"])
def test_the_same_config_twice_gives_the_same_weights(fit, lora: bool) -> None:
    _, first = fit(name="first", lora=lora)
    torch.rand(3)
    _, second = fit(name="second", lora=lora)
    assert_same_weights(weights(first), weights(second))
    _, third = fit("--seed_everything", "1", name="third", lora=lora)
    assert any(not torch.equal(weights(first)[name], w) for name, w in weights(third).items())


def test_the_config_that_a_run_wrote_repeats_it(fit, tmp_path) -> None:
    _, first = fit()
    assert main(["fit", "--config", str(first / "config.yaml"), "--output", str(tmp_path / "again")]) == 0
    assert_same_weights(weights(first), weights(tmp_path / "again"))


def test_full_fine_tuning_stores_all_that_is_trained(fit) -> None:
    _, run = fit("--model.encoder.freeze_embeddings", "true", lora=False)
    names = set(weights(run))
    assert any("attention.self.query.weight" in name for name in names)
    assert not any("word_embeddings" in name or "pooler" in name for name in names)
    assert load_encoder(str(run)).options.freeze_embeddings


@pytest.mark.parametrize(("first", "then", "workers"), [
    (("--trainer.max_epochs", "1"), ("--trainer.max_epochs", "3"), "1"),
    (("--trainer.max_epochs", "2"), ("--trainer.max_epochs", "3"), "0"),
    (("--trainer.max_steps", "4"), ("--trainer.max_steps", "8", "--trainer.max_epochs", "-1"), "0"),
], ids=["after one epoch", "after two epochs", "within an epoch"])  # fmt: skip
def test_a_resumed_run_ends_with_the_same_weights(fit, first, then, workers: str) -> None:
    """The order, the positives and the negatives are random; resuming must not repeat or skip any."""
    constant = (*CONSTANT, "--data.options.workers", workers)
    assert fit(*constant, *then, name="whole")[0] == 0
    status, stopped = fit(*constant, *first, name="stopped")
    assert status == 0
    last = str(stopped / "checkpoints" / "last.ckpt")
    assert fit(*constant, *then, "--ckpt_path", last, name="resumed")[0] == 0
    assert_same_weights(weights(stopped.with_name("whole")), weights(stopped.with_name("resumed")))
    whole = weights(stopped.with_name("whole"))
    assert any(not torch.equal(whole[name], w) for name, w in weights(stopped).items())


@pytest.mark.parametrize("limit", ["2", "0.7"])
def test_a_run_on_a_part_of_each_epoch_goes_on_with_the_next(fit, limit: str) -> None:
    """Two of the three batches of an epoch: the loader's own end is never reached."""
    options = (*CONSTANT, "--trainer.limit_train_batches", limit)
    _, whole = fit(*options, name="whole")
    _, stopped = fit(*options, "--trainer.max_epochs", "1", name="stopped")
    last = str(stopped / "checkpoints" / "last.ckpt")
    status, resumed = fit(*options, "--ckpt_path", last, name="resumed")
    assert status == 0
    losses = column(whole, "train/loss")
    assert len(losses) == 2 * 2
    assert column(stopped, "train/loss") == losses[:2] and column(resumed, "train/loss") == losses[2:]
    assert_same_weights(weights(whole), weights(resumed))


CONSTANT = (
    "--model.optimizer.schedule", "constant", "--model.optimizer.warmup", "0",
    "--model.encoder.dropout", "0", "--model.encoder.lora.dropout", "0",
)  # fmt: skip


@pytest.mark.parametrize("workers", ["0", pytest.param("2", marks=pytest.mark.slow)])
def test_a_run_killed_within_an_epoch_goes_on_from_its_checkpoint(fit, workers: str) -> None:
    """Three epochs of three steps, with a checkpoint after the fourth."""
    constant = (*CONSTANT, "--trainer.max_epochs", "3", "--data.options.workers", workers)
    saved = (
        "--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.every_n_train_steps=4",
        "--trainer.callbacks.filename={step}", "--trainer.callbacks.save_top_k=-1",
    )  # fmt: skip
    status, run = fit(*constant, *saved, name="whole")
    assert status == 0
    (fourth,) = run.rglob("step=4.ckpt")
    (eighth,) = run.rglob("step=8.ckpt")
    status, resumed = fit(*constant, "--ckpt_path", str(fourth), name="resumed")
    assert status == 0
    assert len(column(resumed, "train/loss")) == 5
    assert column(resumed, "train/loss") == column(run, "train/loss")[4:]
    status, again = fit(*constant, "--ckpt_path", str(eighth), name="again")
    assert column(again, "train/loss") == column(run, "train/loss")[8:]
    assert_same_weights(weights(resumed), weights(again))


def test_every_epoch_has_all_its_steps(fit) -> None:
    _, run = fit("--trainer.max_epochs", "4")
    assert len(column(run, "train/loss")) == 4 * 3


def test_an_output_that_exists_is_not_touched(fit, capsys) -> None:
    assert fit()[0] == 0
    status, run = fit()
    before = weights(run)
    error = capsys.readouterr().err
    assert status == 2
    assert "--overwrite" in error and str(run) in error
    (run / "mine.txt").write_text("kept")
    assert fit("--overwrite", "--seed_everything", "3")[0] == 0
    assert any(not torch.equal(before[name], w) for name, w in weights(run).items())
    assert (run / "mine.txt").read_text() == "kept"


@pytest.mark.parametrize(
    "typo",
    [
        ("--model.objective.temprature", "0.1"),
        ("--data.sampling.batch_size", "many"),
        ("--trainer.max_epoch_", "1"),
        ("--optimizer.learning_rate", "1"),
        ("--model.encoder.pooling", "max"),
        ("--model.optimizer.schedule", "step"),
    ],
)
def test_a_typo_ends_with_status_2(fit, capsys, typo: tuple[str, str]) -> None:
    assert exit_status(lambda: fit(*typo)) == 2
    error = capsys.readouterr().err
    assert typo[0].removeprefix("--").rsplit(".", 1)[-1] in error
    assert "Traceback" not in error


def test_a_typo_in_a_file_ends_with_status_2(fit, tmp_path, capsys) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("model:\n  objective:\n    temperatur: 0.1\n")
    assert exit_status(lambda: fit("--config", str(config))) == 2
    assert "temperatur" in capsys.readouterr().err
    assert exit_status(lambda: fit("--config", str(tmp_path / "none.yaml"))) == 2
    assert "none.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(("wrong", "named"), [
    (("--model.encoder.model", "no/where/at/all"), "no/where/at/all"),
    (("--model.encoder.query_max_length", "1000"), "query_max_length"),
    (("--model.encoder.lora.top_layers", "9"), "top_layers"),
    (("--model.encoder.lora.r", "0"), "lora.r"),
    (("--model.encoder.dropout", "1.5"), "dropout"),
    (("--model.objective.temperature", "0"), "temperature"),
    (("--model.optimizer.learning_rate", "-1"), "learning_rate"),
    (("--model.optimizer.warmup", "1.5"), "warmup"),
    (("--model.graph_memory", "-1"), "graph_memory"),
    (("--data.options.train", "[missing.jsonl]"), "missing.jsonl"),
    (("--data.options.token_budget", "0"), "token_budget"),
    (("--data.options.validation_share", "1.5"), "validation_share"),
    (("--data.sampling.batch_size", "0"), "batch_size"),
    (("--trainer.precision", "bf16-true"), "bf16-mixed"),
])  # fmt: skip
def test_a_wrong_value_is_told_in_one_line(fit, capsys, wrong: tuple[str, str], named: str) -> None:
    status = exit_status(lambda: fit(*wrong))
    error = capsys.readouterr().err
    assert status == 2, error
    assert named in error
    assert "Traceback" not in error


def test_one_query_without_negatives_cannot_be_learnt_from(fit, tmp_path, capsys) -> None:
    alone = str(write(tmp_path / "alone.jsonl", [pair(1, negatives=False)]))
    assert fit("--data.options.train", f"[{alone}]")[0] == 2
    assert "negatives" in capsys.readouterr().err
    assert fit("--data.sampling.batch_size", "1", "--data.sampling.negatives", "0", name="b")[0] == 2
    assert fit("--data.sampling.batch_size", "1", "--data.sampling.negatives", "1", name="c")[0] == 0


def test_too_few_records_for_a_validation_part(fit, tmp_path) -> None:
    """A share of few groups may be none: then there is no measure to choose the best checkpoint by."""
    few = str(write(tmp_path / "few.jsonl", [pair(i) for i in range(4)]))
    options = ("--data.options.train", f"[{few}]", "--data.options.validation", "null")
    assert fit(*options, "--data.options.validation_share", "0.0001", name="unlucky")[0] == 2
    status, run = fit(*options, "--data.options.validation_share", "0", name="none")
    assert status == 0
    assert (run / "checkpoints" / "last.ckpt").exists()
    assert not (run / "checkpoints" / "best.ckpt").exists()


class Recorder(Callback):
    """Gradient norms as the optimizer sees them, and the sizes of the steps."""

    def __init__(self) -> None:
        self.norms: list[float] = []
        self.gradients: list[dict[str, torch.Tensor]] = []
        self.recomputed: list[float] = []

    def on_before_optimizer_step(self, trainer, module, optimizer) -> None:
        found = {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}
        self.gradients.append(found)
        self.norms.append(torch.stack([g.norm() for g in found.values()]).norm().item())

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self.recomputed.append(float(trainer.callback_metrics["train/recomputed_share"]))


class AfterClipping(Recorder):
    """The same once the Trainer has clipped."""

    on_before_optimizer_step = Callback.on_before_optimizer_step

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        Recorder.on_before_optimizer_step(self, trainer, module, None)


def train(
    folder: Path, files: dict[str, str], graph_memory: float = 1.0, learn_temperature: bool = False, **options
):
    """A run of the modules without the command line; without dropout, with a constant rate."""
    torch.manual_seed(0)
    module = Retriever(
        EncoderOptions(str(folder), dropout=0.0),
        ObjectiveOptions(0.1, learn_temperature),
        OptimizerOptions(0.001, schedule="constant", warmup=0.0),
        graph_memory=graph_memory,
    )
    batch_size = options.pop("batch_size", 8)
    data = RetrievalData(
        DataOptions(train=(files["train"],), validation_share=0.0, token_budget=100),
        SamplingOptions(batch_size=batch_size), tokenize=module.tokenizer,
    )  # fmt: skip
    recorder = Recorder()
    callbacks = [recorder, *options.pop("callbacks", [])]
    quiet_trainer(**{"max_epochs": 1, "callbacks": callbacks, **options}).fit(module, datamodule=data)
    return module, recorder


def plain_gradients(folder: Path, files: dict[str, str], steps: int) -> dict[str, torch.Tensor]:
    """The mean gradient of the first steps, from one graph each and dense logits."""
    torch.manual_seed(0)
    module = Retriever(EncoderOptions(str(folder), dropout=0.0))
    data = RetrievalData(DataOptions(train=(files["train"],), validation_share=0.0), SamplingOptions(8))
    data.setup("fit")
    mixture = Mixture(data.sources, data.sampling)
    for step in range(steps):
        batch = RetrievalCollator(module.tokenizer, 10**6)(mixture.batch(0, step))
        parts = [module.encoder(p.input_ids, p.attention_mask) for p in batch.micro_batches]
        embeddings = torch.cat(parts)[torch.cat([p.rows for p in batch.micro_batches]).argsort()]
        logits = embeddings[batch.query_rows] @ embeddings[batch.document_rows].T / 0.1
        (torch.nn.functional.cross_entropy(logits, batch.positives) / steps).backward()
    return {n: p.grad for n, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("graph_memory", [0, 5e-4, 1.0])
@pytest.mark.parametrize("steps", [1, 3])
def test_the_trainers_gradient_is_the_plain_one(bert_folder, files, graph_memory: float, steps: int) -> None:
    _, recorder = train(bert_folder, files, graph_memory, accumulate_grad_batches=steps)
    expected = plain_gradients(bert_folder, files, steps)
    found = recorder.gradients[0]
    assert found.keys() == expected.keys()
    largest = max(g.abs().max() for g in expected.values())
    assert max((found[n] - g).abs().max() for n, g in expected.items()) < 1e-5 * largest
    assert len(recorder.gradients) == 3 // steps


def test_double_precision_stays_double(bert_folder, files) -> None:
    first, second = (
        train(bert_folder, files, kept, precision="64-true")[1].gradients[0] for kept in (0, 1.0)
    )
    assert {g.dtype for g in first.values()} == {torch.float64}
    largest = max(g.abs().max() for g in first.values())
    assert max((second[n] - g).abs().max() for n, g in first.items()) < 1e-10 * largest


@pytest.mark.parametrize("graph_memory", [0, 5e-4])
def test_bf16_mixed_trains_float32_weights(bert_folder, files, graph_memory: float) -> None:
    module, recorder = train(bert_folder, files, graph_memory, precision="bf16-mixed", max_epochs=2)
    _, all_kept = train(bert_folder, files, 1.0, precision="bf16-mixed", max_epochs=2)
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert len(recorder.gradients) == len(all_kept.gradients) == 6
    for found, expected in zip(recorder.gradients, all_kept.gradients, strict=True):
        assert all(torch.equal(found[n], g) for n, g in expected.items())


def test_gradients_are_clipped(bert_folder, files) -> None:
    after = AfterClipping()
    _, before = train(
        bert_folder, files, 5e-4, gradient_clip_val=0.01, callbacks=[after], limit_train_batches=1
    )
    assert before.norms[0] > 0.02
    # The gradient is cleared at the beginning of the next step: here it is what the optimizer used.
    assert after.norms[0] == pytest.approx(0.01, rel=1e-3)


def test_the_temperature_is_learnt(bert_folder, files) -> None:
    module, recorder = train(bert_folder, files, 5e-4, learn_temperature=True, max_epochs=3)
    assert all(g["objective.log_scale"].abs() > 0 for g in recorder.gradients)
    assert module.objective.temperature != pytest.approx(0.1, rel=1e-3)
    fixed, recorder = train(bert_folder, files, 150)
    assert "objective.log_scale" not in recorder.gradients[0]
    assert fixed.objective.temperature == pytest.approx(0.1)


class OutOfMemory(Callback):
    """Memory runs out in the loss of a batch, or once its gradient has reached the embeddings."""

    def __init__(self, where: str, batch: int) -> None:
        self.where, self.batch = where, batch

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        if self.where == "loss" and batch_idx == self.batch:
            module.objective.register_forward_pre_hook(self._fail)

    def on_before_backward(self, trainer, module, loss) -> None:
        if self.where == "backward" and trainer.fit_loop.epoch_loop.batch_idx == self.batch:
            module._cached.leaf.register_hook(self._fail)

    def _fail(self, *_):
        if self.batch >= 0:
            self.batch = -1
            raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("where", ["loss", "backward"])
def test_memory_that_runs_out_in_the_loss_lets_graphs_go(bert_folder, files, caplog, where: str) -> None:
    """In the second of two accumulated batches, with a learnt temperature."""
    options = {"learn_temperature": True, "accumulate_grad_batches": 2}
    expected, calm = train(bert_folder, files, **options)
    assert "out of memory" not in caplog.text
    module, recorder = train(bert_folder, files, **options, callbacks=[OutOfMemory(where, 1)])
    assert caplog.text.count("out of memory") == 1
    assert (calm.recomputed, recorder.recomputed[:2]) == ([0.0] * 3, [0.0, 1.0])
    for found, wanted in zip(recorder.gradients, calm.gradients, strict=True):
        assert found.keys() == wanted.keys() and "objective.log_scale" in found
        assert all(torch.equal(found[name], gradient) for name, gradient in wanted.items())
    assert_same_weights(module.state_dict(), expected.state_dict())
    with pytest.raises(torch.OutOfMemoryError):
        train(bert_folder, files, graph_memory=0, callbacks=[OutOfMemory(where, 1)])


def test_every_trained_weight_gets_a_gradient(bert_folder, files) -> None:
    module, recorder = train(bert_folder, files)
    trained = {name for name, p in module.named_parameters() if p.requires_grad}
    assert trained == set(recorder.gradients[0])


def test_training_sees_prompts_and_lengths_once(bert_folder, files) -> None:
    """What the collator hands to the encoder is prompt and text, as `embed_texts` does it."""
    module = Retriever(EncoderOptions(str(bert_folder)))
    data = RetrievalData(
        DataOptions(train=(files["train"],), validation_share=0.0),
        SamplingOptions(batch_size=30, negatives=0),
        tokenize=module.tokenizer,
    )
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    texts = {}
    for part in batch.micro_batches:
        for row, ids, mask in zip(part.rows.tolist(), part.input_ids, part.attention_mask, strict=True):
            texts[row] = module.tokenizer.backend.decode(ids[mask.bool()], skip_special_tokens=True)
    assert all(
        texts[row].startswith("query :") and texts[row].count("query") == 1
        for row in batch.query_rows.tolist()
    )
    assert all(texts[row].count("passage :") == 1 for row in batch.document_rows.tolist())


def shown(capsys, key: str) -> float:
    """A measure in the table that the Trainer prints."""
    found = re.search(re.escape(key) + r"\D+([\d.]+)", capsys.readouterr().out)
    assert found is not None
    return float(found[1])


def test_validate_and_test_measure_what_evaluation_does(fit, bert_folder, files, tmp_path, capsys) -> None:
    """The numbers of a base model: from the commands, and by hand from its embeddings."""
    _, run = fit()
    words = [
        "--model.encoder.model",
        str(bert_folder),
        "--model.encoder.lora.r",
        "4",
        "--trainer.accelerator",
        "cpu",
        "--trainer.precision",
        "32-true",
        "--output",
        str(tmp_path / "unused"),
        "--ckpt_path",
        str(run / "checkpoints" / "last.ckpt"),
    ]
    capsys.readouterr()
    assert main(["validate", *words, "--data.options.validation", files["validation"]]) == 0
    assert shown(capsys, "val/nDCG@10") == pytest.approx(column(run, "val/nDCG@10")[-1], abs=1e-6)
    assert not (tmp_path / "unused").exists()

    beir = tmp_path / "beir"
    (beir / "qrels").mkdir(parents=True)
    rows = [pair(i) for i in range(30, 40)]
    write(beir / "queries.jsonl", [{"_id": f"q{i}", "text": row["query"]} for i, row in enumerate(rows)])
    write(beir / "corpus.jsonl", [{"_id": f"d{i}", "text": row["positive"]} for i, row in enumerate(rows)])
    (beir / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"q{i}\td{i}\t1\n" for i in range(10))
    )
    assert main(["test", *words, "--data.options.test", str(beir)]) == 0
    encoder = load_encoder(str(run / "checkpoints" / "last.ckpt"))
    vectors = [embed_texts(encoder, [row[k] for row in rows], role)
               for k, role in (("query", "query"), ("positive", "document"))]  # fmt: skip
    similarity = vectors[0] @ vectors[1].T
    ranks = 1 + (similarity > similarity.diagonal()[:, None]).sum(1).double()
    ndcg = (1 / torch.log2(1 + ranks)).mean().item()
    assert shown(capsys, "test/nDCG@10") == pytest.approx(ndcg, abs=1e-5)


def test_predict_writes_a_row_per_text_in_order(fit, bert_folder, tmp_path) -> None:
    _, run = fit()
    texts = [f"text {'x' * (i % 7)} {i}" for i in range(25)]
    source = write(tmp_path / "texts.jsonl", [{"text": text} for text in texts])
    status = main(
        [
            "predict",
            "--model.encoder.model",
            str(bert_folder),
            "--model.encoder.lora.r",
            "4",
            "--data.options.predict",
            str(source),
            "--data.options.predict_role",
            "query",
            "--data.options.token_budget",
            "60",
            "--trainer.accelerator",
            "cpu",
            "--trainer.precision",
            "32-true",
            "--output",
            str(tmp_path / "out"),
            "--ckpt_path",
            str(run / "checkpoints" / "last.ckpt"),
            "--return_predictions",
            "false",
        ]
    )
    assert status == 0
    found = np.load(tmp_path / "out" / "embeddings.npy", allow_pickle=False)
    expected = embed_texts(load_encoder(str(run / "checkpoints" / "last.ckpt")), texts, "query")
    assert found.dtype == np.float32
    assert np.abs(found - expected.numpy()).max() < 1e-6


def test_weights_that_do_not_fit_are_not_ignored(fit, bert_folder, files, tmp_path, capsys) -> None:
    """Measured without its adapters, a checkpoint would silently be the base model."""
    _, run = fit()
    status = main(
        [
            "validate",
            "--model.encoder.model",
            str(bert_folder),
            "--trainer.accelerator",
            "cpu",
            "--data.options.validation",
            files["validation"],
            "--ckpt_path",
            str(run / "checkpoints" / "last.ckpt"),
        ]
    )
    assert status == 2
    assert "lora" in capsys.readouterr().err


@pytest.mark.parametrize(("command", "field"), [("test", "test"), ("predict", "predict"), ("fit", "train")])
def test_data_that_a_command_needs(bert_folder, tmp_path, capsys, command: str, field: str) -> None:
    words = ["--model.encoder.model", str(bert_folder), "--trainer.accelerator", "cpu"]
    words += ["--wandb", "false"] if command == "fit" else []
    assert main([command, *words, "--output", str(tmp_path / "out")]) == 2
    assert f"data.options.{field}" in capsys.readouterr().err


def test_validate_without_validation_data(bert_folder, files, tmp_path, capsys) -> None:
    words = ["--model.encoder.model", str(bert_folder), "--trainer.accelerator", "cpu"]
    words += ["--data.options.train", f"[{files['train']}]", "--data.options.validation_share", "0"]
    assert main(["validate", *words, "--output", str(tmp_path / "out")]) == 2
    assert "validation" in capsys.readouterr().err


def test_several_processes_need_the_strategy_that_waits_for_the_whole_gradient(bert_folder) -> None:
    module = Retriever(EncoderOptions(str(bert_folder)))
    trainer = SimpleNamespace(world_size=2, precision="32-true", strategy=DDPStrategy())
    module.trainer = trainer  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"2 processes with DDPStrategy.*one_sync.*configs/trainer/ddp"):
        module.setup("fit")
    trainer.strategy = OneSyncStrategy()
    module.setup("fit")
