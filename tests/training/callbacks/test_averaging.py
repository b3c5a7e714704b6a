"""The moving average of the weights: by the formula in float64, in validation, in checkpoints, resumed."""

from __future__ import annotations

import pytest
import torch

from lit_retrofit.errors import UserError
from lit_retrofit.training.callbacks import AveragedWeights

EMA = ("--config", "configs/callbacks/ema.yaml")
FULL = ("--model.encoder.lora", "null", "--model.encoder.freeze_embeddings", "true")


@pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])
def test_checkpoints_hold_the_average_of_the_trained_weights(run, injected, full: bool) -> None:
    from injected import WeightsOfEachStep  # type: ignore[import-not-found]

    WeightsOfEachStep.seen.clear()
    assert run(*EMA, *injected("WeightsOfEachStep"), *(FULL if full else ())) == 0
    seen = [{name: w.double() for name, w in weights.items()} for weights in WeightsOfEachStep.seen]
    assert len(seen) == 10
    saved = run.content()
    assert saved["state_dict"].keys() == seen[0].keys() == saved["live_weights"].keys()
    for name, weight in saved["state_dict"].items():
        expected = seen[0][name]
        for step in range(1, 10):
            decay = min(0.99, (1 + step) / (10 + step))
            expected = decay * expected + (1 - decay) * seen[step][name]
        assert (weight - expected).abs().max() < 1e-6
        assert torch.equal(saved["live_weights"][name], seen[-1][name].float())
    moved = max((saved["state_dict"][n] - w).abs().max() for n, w in saved["live_weights"].items())
    assert moved > 1e-3


def test_validation_measures_the_average(run) -> None:
    """What the run logged last is what its checkpoint measures by itself."""
    from lit_retrofit.data.datamodule import RetrievalData
    from lit_retrofit.data.sources import DataOptions
    from lit_retrofit.evaluation.measures import evaluate_embeddings
    from lit_retrofit.model.loading import load_encoder
    from lit_retrofit.retrieval.embed import embed_texts

    assert run(*EMA, "--model.optimizer.learning_rate", "0.05") == 0
    validation = str(run.folder / "validation.jsonl")
    train = (str(run.folder / "train.jsonl"),)
    data = RetrievalData(DataOptions(train=train, validation=validation), tokenize=None)
    data.setup("fit")
    assert data.validation_set is not None
    encoder = load_encoder(run.checkpoint())
    queries = embed_texts(encoder, [query.text for query in data.validation_set.queries], "query")
    corpus = embed_texts(encoder, [document.text for document in data.validation_set.corpus], "document")
    tasks = evaluate_embeddings(data.validation_set, queries, corpus)
    by_hand = sum(task.scores["nDCG@10"] for task in tasks) / len(tasks)
    assert run.column("val/nDCG@10")[-1] == pytest.approx(by_hand, abs=1e-5)


def test_a_resumed_average_is_the_uninterrupted_one(run, injected) -> None:
    assert run(*EMA, name="whole") == 0
    assert run(*EMA, *injected("SignalAt", step=4, name="SIGINT"), name="stopped") == 130
    assert run(*EMA, "--ckpt_path", run.checkpoint("stopped"), name="resumed") == 0
    assert run.same_weights("whole", "resumed")
    whole, resumed = (run.content(name)["live_weights"] for name in ("whole", "resumed"))
    assert all(torch.equal(whole[name], weight) for name, weight in resumed.items())


def test_a_decay_that_cannot_be_meant() -> None:
    with pytest.raises(UserError, match="decay"):
        AveragedWeights(1.0)
