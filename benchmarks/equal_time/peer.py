"""sentence-transformers' own trainer, with as much time as it is given."""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.sentence_transformer import losses
from sentence_transformers.sentence_transformer.training_args import (
    BatchSamplers,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.util import mine_hard_negatives
from transformers import TrainerCallback

from benchmarks.equal_time.ours import ENOUGH
from lit_retrofit.data.formats import read_records
from lit_retrofit.data.parallel import add_parallel_positives
from lit_retrofit.model.lora import find_targets
from lit_retrofit.model.source import resolve_model
from lit_retrofit.training.optimizer import OptimizerOptions

PROBE_STEPS = 3
EPOCHS = 20
"""Of rows that are drawn ahead; training ends long before."""


@dataclass(frozen=True)
class Setting:
    """One way to use it.

    Attributes:
        name: in the table.
        loss: MultipleNegativesRankingLoss or its cached form.
        batch_size: queries of a step.
        mined: with a hard negative for each query, from its mine_hard_negatives; that takes of the time.
    """

    name: str
    loss: str
    batch_size: int
    mined: bool = False


SETTINGS = (
    Setting("plain loss, 64", "MultipleNegativesRankingLoss", 64),
    Setting("cached loss, 256", "CachedMultipleNegativesRankingLoss", 256),
    Setting("plain loss, 64, hard negatives", "MultipleNegativesRankingLoss", 64, mined=True),
)


@dataclass(frozen=True)
class Shared:
    """What it has in common with ours: the options of a `fit`, and its data.

    Attributes:
        config: of the recipe.
        records: file of training records.
        model: the base.
        half: compute in bf16.
        seconds: for mining and training.
        seed: of the order and the draws.
    """

    config: dict[str, Any]
    records: Path
    model: str
    half: bool
    seconds: float
    seed: int


def train_apart(shared: Shared, setting: Setting, output: Path) -> tuple[int, float]:
    """Trains in a process of its own; returns steps and seconds, those of mining included.

    Where mining takes all of the time there are no steps, and the model is the base.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_train, (shared, setting, output))


def _train(shared: Shared, setting: Setting, output: Path) -> tuple[int, float]:
    rows = _rows(shared)
    begin = time.perf_counter()
    if setting.mined:
        rows = _with_negatives(shared, rows)
    left = shared.seconds - (time.perf_counter() - begin)
    if left <= 0:
        _model(shared).save_pretrained(str(output), create_model_card=False)
        return 0, shared.seconds - left
    _, probe = _run(shared, setting, rows, PROBE_STEPS, float("inf"), output)
    # The first step also pays for allocations.
    per_step = (probe.step_ends[-1] - probe.step_ends[0]) / (len(probe.step_ends) - 1)
    steps = max(1, round(left / per_step))
    model, clock = _run(shared, setting, rows, steps, left, output)
    if len(clock.step_ends) == steps and clock.step_ends[-1] < ENOUGH * left:
        steps = round(steps * left / clock.step_ends[-1])
        model, clock = _run(shared, setting, rows, steps, left, output)
    _merge_adapters(model[0].auto_model)
    model.max_seq_length = 512
    model.save_pretrained(str(output), create_model_card=False)
    return len(clock.step_ends), clock.step_ends[-1] + shared.seconds - left


class StopAtTime(TrainerCallback):
    """Ends training once its seconds are used up."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.started, self.step_ends = seconds, 0.0, []

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Starts the clock."""
        self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Looks at it."""
        self.step_ends.append(time.perf_counter() - self.started)
        control.should_training_stop |= self.step_ends[-1] >= self.seconds


def _rows(shared: Shared) -> Dataset:
    """(anchor, positive) with prompts; the positive in another language as often as in the recipe."""
    records = add_parallel_positives(read_records(shared.records)[0])
    share, rng = shared.config["data"]["sampling"]["cross_lingual"], np.random.default_rng(shared.seed)
    rows = []
    for _ in range(EPOCHS):
        for number in rng.permutation(len(records)):
            own, *others = records[number].positives
            across = others and rng.random() < share
            positive = others[rng.integers(len(others))] if across else own
            rows.append(
                {"anchor": "query: " + records[number].query, "positive": "passage: " + positive.text}
            )
    return Dataset.from_list(rows)


def _with_negatives(shared: Shared, rows: Dataset) -> Dataset:
    """One for each query of the first epoch, by the margin that its documentation recommends."""
    model = _model(shared)
    first = rows.select(range(len(rows) // EPOCHS))
    mined = mine_hard_negatives(
        first, model, num_negatives=1, relative_margin=0.05, range_max=50, sampling_strategy="top",
        batch_size=64, use_faiss=False, verbose=False,
    )  # fmt: skip
    return Dataset.from_list([row for _ in range(EPOCHS) for row in mined])


def _model(shared: Shared) -> SentenceTransformer:
    model = SentenceTransformer(resolve_model(shared.model), device="cpu")
    model.max_seq_length = shared.config["data"]["options"]["training_document_length"]
    return model


def _run(
    shared: Shared, setting: Setting, rows: Dataset, steps: int, seconds: float, folder: Path
) -> tuple[SentenceTransformer, StopAtTime]:
    lora, optimizer = shared.config["model"]["encoder"]["lora"], shared.config["model"]["optimizer"]
    model = _model(shared)
    model.add_adapter(
        LoraConfig(r=lora["r"], lora_alpha=lora["alpha"], target_modules=find_targets(model[0].auto_model))
    )
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=setting.batch_size,
        batch_sampler=BatchSamplers.NO_DUPLICATES,
        max_steps=steps,
        learning_rate=optimizer["learning_rate"],
        warmup_steps=round(steps * optimizer.get("warmup", OptimizerOptions().warmup)),
        bf16=shared.half,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        seed=shared.seed,
        disable_tqdm=True,
    )
    loss = getattr(losses, setting.loss)(model, scale=1 / shared.config["model"]["objective"]["temperature"])
    clock = StopAtTime(seconds)
    SentenceTransformerTrainer(
        model=model, args=arguments, train_dataset=rows, loss=loss, callbacks=[clock]
    ).train()
    return model, clock


def _merge_adapters(backbone: Any) -> None:
    """Folds the adapters that `add_adapter` injected into the layers they wrap."""
    for name, layer in list(backbone.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            parent, _, child = name.rpartition(".")
            setattr(backbone.get_submodule(parent), child, layer.get_base_layer())
    backbone._hf_peft_config_loaded = False  # or only the adapters would be saved
