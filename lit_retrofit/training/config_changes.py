"""How the configuration of a run that goes on differs from the one that its checkpoint was made with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import takewhile
from typing import Any

_TRAINER = (
    "max_epochs", "min_epochs", "max_steps", "min_steps", "max_time", "precision", "limit_train_batches",
    "overfit_batches", "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm",
)  # fmt: skip
"""Of the Trainer's options those that change what is trained, beside the callbacks."""
_SAME_RUN = (
    "model.graph_memory", "model.encoder.gradient_checkpointing",
    "model.document_encoder.gradient_checkpointing", "data.options.workers", "data.options.test",
    "data.options.predict", "data.options.predict_role",
)  # fmt: skip
"""Of the model's and the data's options those that do not."""
_LEARNT, _TEMPERATURE = "model.objective.learn_temperature", "model.objective.temperature"
_MISSING = object()


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names every option that changes the run, with its value in either configuration.

    Args:
        before: the configuration of `fit` that the checkpoint holds: plain values, as in its config.yaml.
        now: that of the run that goes on.

    Returns:
        ``model.optimizer.learning_rate 0.001 → 0.0001`` and so on, in the order of the configuration.
    """
    old, new = dict(_options(before)), dict(_options(now))
    if old.get(_LEARNT) and new.get(_LEARNT):
        old[_TEMPERATURE] = new[_TEMPERATURE]  # only where learning began: it is one of the weights by now
    names = [*new, *(name for name in old if name not in new)]
    pairs = ((name, old.get(name, _MISSING), new.get(name, _MISSING)) for name in names)
    return [f"{name} {_shown(_text(a), _text(b))}" for name, a, b in pairs if a != b]


def _options(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The options that change the run, by their dotted names."""
    trainer = config.get("trainer") or {}
    chosen = {
        "model": config.get("model"),
        "data": config.get("data"),
        "trainer": {name: trainer.get(name) for name in _TRAINER},
    }
    for name, value in _flat(chosen, ""):
        if name not in _SAME_RUN:
            yield name, value
    for callback in trainer.get("callbacks") or ():
        name = callback["class_path"].rsplit(".", 1)[-1]
        yield from _flat(callback.get("init_args") or {}, f"trainer.callbacks.{name}.")


def _flat(options: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _text(value: object) -> str:
    return "unset" if value is _MISSING or value is None else str(value)


def _shown(old: str, new: str) -> str:
    """Both, cut short. Of what is equal at the beginning of long values only the end is kept."""
    same = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False))))
    start = same - 20 if same > 40 and max(len(old), len(new)) > 60 else 0
    return f"{_cut(old, start)} → {_cut(new, start)}"


def _cut(text: str, start: int) -> str:
    rest = text[start:]
    return ("…" if start else "") + (rest if len(rest) <= 60 else f"{rest[:57]}…")
