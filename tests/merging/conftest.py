"""Run folders with random trained weights, as `fit` leaves them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from lit_retrofit.model.encoder import EncoderOptions, build_encoder


def write_run(folder: Path, model: Path, seed: int, **options) -> Path:
    torch.manual_seed(seed)
    encoder = build_encoder(EncoderOptions(str(model), **options))
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    trained = {f"encoder.{n}": p.detach() for n, p in encoder.named_parameters() if p.requires_grad}
    (folder / "checkpoints").mkdir(parents=True)
    content = {"state_dict": trained, "encoder_options": asdict(encoder.options)}
    torch.save(content, folder / "checkpoints" / "last.ckpt")
    return folder


@pytest.fixture
def run(bert_folder, tmp_path) -> Callable[..., Path]:
    def make(name: str, seed: int = 1, model: Path = bert_folder, **options) -> Path:
        return write_run(tmp_path / name, model, seed, **options)

    return make


@pytest.fixture
def dev(tmp_path) -> Path:
    """Sixteen queries in two languages, each with one page."""
    folder = tmp_path / "dev"
    (folder / "qrels").mkdir(parents=True)
    rows = [(i, ("en", "de")[i % 2]) for i in range(16)]
    for name, text in (("queries", "what of {0}{0}"), ("corpus", "page {0}{0} tells {0}")):
        lines = [{"_id": f"{name[0]}{i}", "text": text.format(i), "language": tag} for i, tag in rows]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    judged = "".join(f"q{i}\tc{i}\t1\n" for i, _ in rows)
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    return folder
