"""The Trainer's settings that take a number of batches or a share: 1 is one batch, 1.0 is all."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# Lightning's types as they are where another package wrote the same unions first, float before int.
WRONG_ORDER = """
import json, sys
from datetime import timedelta
from typing import Optional, Union
from lightning import Trainer
types, names = Trainer.__init__.__annotations__, json.loads(sys.stdin.read())
types.update(dict.fromkeys(names, Union[float, int, None]))
types["val_check_interval"] = Union[float, int, str, timedelta, dict[str, int], None]
Optional[Union[float, int]], Optional[float | int | None]  # and what typing hands out from here on
command, words = sys.argv[1], sys.argv[2:]
if command == "plan":
    from lit_retrofit.planning.parsing import parse
    trainer = parse(words).options["trainer"]
else:
    from lit_retrofit.sweeps.checking import fit_parser
    trainer = fit_parser(words).parse_args(["fit", *words])["fit"]["trainer"]
print(json.dumps({name: trainer[name] for name in names}))
"""
NAMES = [f"limit_{part}_batches" for part in ("train", "val", "test", "predict")]
NAMES += ["overfit_batches", "val_check_interval"]


def parsed(command: str, model, values: dict[str, str], *words: str) -> dict[str, int | float]:
    """As a process of its own reads them, for types are changed in it."""
    words += tuple(f"--trainer.{name}={value}" for name, value in values.items())
    process = [sys.executable, "-c", WRONG_ORDER, command, f"--model.encoder.model={model}", *words]
    done = subprocess.run(process, input=json.dumps(NAMES), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("command", ["fit", "plan"])
def test_one_is_one_batch_whatever_was_imported_before(bert_folder, tmp_path, command: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("trainer: {limit_test_batches: 1, limit_train_batches: 0.5}")
    given = {"limit_val_batches": "1", "limit_predict_batches": "1.0", "overfit_batches": "1"}
    given |= {"val_check_interval": "1"}
    found = parsed(command, bert_folder, given, f"--config={config}")
    types = {name: (type(value), value) for name, value in found.items()}
    assert types == {
        "limit_train_batches": (float, 0.5),
        "limit_val_batches": (int, 1),
        "limit_test_batches": (int, 1),
        "limit_predict_batches": (float, 1.0),
        "overfit_batches": (int, 1),
        "val_check_interval": (int, 1),
    }


def test_every_such_setting_of_lightning_is_among_them() -> None:
    """Those that a share and a number mean different things for; a bound of the gradients is a number."""
    from lightning import Trainer

    types = Trainer.__init__.__annotations__
    both = {name for name, kind in types.items() if {int, float} <= set(getattr(kind, "__args__", ()))}
    assert both - {"gradient_clip_val"} == set(NAMES)
