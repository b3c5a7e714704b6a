"""A cross-encoder's scores against its classifier, called by hand."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lit_retrofit.errors import UserError
from lit_retrofit.model.cross_encoder import CrossEncoder

CPU = torch.device("cpu")
PAIRS = [
    ("what page", "the page of the text"),
    ("12", "word " * 60),
    ("what page", "a"),
    ("b", "the page of the text"),
]


@torch.no_grad()
def expected(folder, limit: int) -> torch.Tensor:
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = [
        model(**tokenizer(*pair, return_tensors="pt", truncation=True, max_length=limit)).logits[0, 0]
        for pair in PAIRS
    ]
    return torch.stack(rows)


@pytest.mark.parametrize(("max_length", "budget"), [(None, None), (16, 1), (None, 128)])
def test_the_scores_are_the_classifiers_logits(cross_encoder_folder, max_length, budget):
    model = CrossEncoder(
        str(cross_encoder_folder), device=CPU, precision="fp32", max_length=max_length, token_budget=budget
    )
    scores = model.scores(PAIRS)
    assert (scores.dtype, scores.requires_grad) == (torch.float32, False)
    torch.testing.assert_close(scores, expected(cross_encoder_folder, max_length or 64), rtol=0, atol=1e-5)
    assert scores.min() < 0 or scores.max() > 1  # no sigmoid has gone over them
    assert model.scores([]).shape == (0,)


def test_half_precision_is_near_and_not_the_same(cross_encoder_folder):
    single, half = (
        CrossEncoder(str(cross_encoder_folder), device=CPU, precision=precision).scores(PAIRS)
        for precision in ("fp32", "bf16")
    )
    assert half.dtype == torch.float32 and not torch.equal(half, single)
    torch.testing.assert_close(half, single, rtol=0.1, atol=0.1)


def test_what_is_no_cross_encoder_is_refused(bert_folder, cross_encoder_folder, tmp_path):
    several = shutil.copytree(cross_encoder_folder, tmp_path / "several")
    config = json.loads((several / "config.json").read_text())
    labels = {"id2label": {str(i): str(i) for i in range(3)}, "label2id": {str(i): i for i in range(3)}}
    (several / "config.json").write_text(json.dumps(config | labels))
    broken = shutil.copytree(cross_encoder_folder, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"nothing")
    for folder, reason in ((bert_folder, "BertModel"), (several, "3 labels"), (broken, "cannot be loaded")):
        with pytest.raises(UserError, match=reason) as caught:
            CrossEncoder(str(folder), device=CPU)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no such model"):
        CrossEncoder(str(tmp_path / "none"), device=CPU)
