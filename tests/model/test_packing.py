"""Packed texts against padded ones: states, gradients, and when packing is left alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lit_retrofit.model import packing
from lit_retrofit.model.encoder import EncoderOptions, build_encoder
from lit_retrofit.model.lora import find_blocks
from lit_retrofit.model.states import TokenStates

KINDS = ("bert", "xlmr", "modernbert")
TEXTS = ["word", "the page of the text 12", "a", "?", "", "x y", "x z", "the page of the word 34 and more"]


def batch_of(encoder):
    rows = sorted(encoder.tokenizer(TEXTS, "document"), key=len)
    width = max(map(len, rows))
    ids = torch.tensor([row + [1] * (width - len(row)) for row in rows])
    return ids, torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])


@pytest.fixture
def both(model_folder):
    """An encoder that packs and the same one that pads."""

    def make(kind: str, dtype: torch.dtype = torch.float64, **options):
        made = []
        for allowed in (True, False):
            torch.manual_seed(0)
            encoder = build_encoder(EncoderOptions(str(model_folder(kind)), dropout=0.0, **options)).to(dtype)
            if not allowed:
                encoder.states.packs = lambda *_: False
            made.append(encoder)
        return made

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_packed_states_and_gradients_are_the_padded_ones(both, kind: str) -> None:
    packed, padded = both(kind)
    found = []
    for encoder in (packed, padded):
        ids, mask = batch_of(encoder)
        calls = []
        encoder.backbone.register_forward_pre_hook(
            lambda _, args, kwargs, calls=calls: calls.append(kwargs["input_ids"].shape), with_kwargs=True
        )
        embeddings = encoder(ids, mask)
        embeddings.pow(3).sum().backward()
        gradients = {n: p.grad for n, p in encoder.named_parameters() if p.grad is not None}
        found.append((embeddings, gradients, calls))
    (made, gradients, calls), (expected, exact, _) = found
    assert calls[-1] == (1, int(mask.sum()))  # one row of real tokens, no padding
    assert (made - expected).abs().max() < 1e-12
    assert gradients.keys() == exact.keys()
    for name, gradient in exact.items():
        assert (gradients[name] - gradient).abs().max() < 1e-10, name


def test_a_window_is_kept(both) -> None:
    """ModernBERT's local layers see 4 tokens to either side here; the longest text has over 15."""
    packed, padded = both("modernbert", document_max_length=40)
    ids, mask = batch_of(packed)
    assert mask.sum(1).max() > 15
    assert (packed(ids, mask) - padded(ids, mask)).abs().max() < 1e-12


def test_packed_texts_have_no_mask(both) -> None:
    """One of ModernBERT's for a row of T tokens would be T times T."""
    packed, padded = both("modernbert")
    ids, mask = batch_of(packed)
    masks = []
    for encoder in (packed, padded):
        _, blocks = find_blocks(encoder.backbone)
        blocks[1].register_forward_pre_hook(
            lambda _, args, kwargs: masks.append(kwargs.get("attention_mask")), with_kwargs=True
        )
        encoder(ids, mask)
    assert masks[-2] is None  # the last packed pass; those before it are of the trial
    assert masks[-1] is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_autocast(both, dtype: torch.dtype) -> None:
    packed, padded = both("bert", torch.float32)
    ids, mask = batch_of(packed)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        made, expected = packed(ids, mask), padded(ids, mask)
        assert packed.states.packs(packed.backbone, ids.device)
    assert (made - expected).abs().max() < (1e-5 if dtype is torch.float32 else 0.05)


def test_left_padding(both) -> None:
    packed, padded = both("bert")
    ids, mask = torch.tensor([[1, 1, 0, 108, 2], [0, 55, 108, 110, 2]]), torch.ones(2, 5, dtype=torch.long)
    mask[0, :2] = 0
    right = torch.tensor([[0, 108, 2, 1, 1]]), torch.tensor([[1, 1, 1, 0, 0]])
    assert (packed(ids, mask)[0] - padded(*right)[0]).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("fault", "reason"), [("raises", "no packed texts"), ("ignores the layout", "computes other states")]
)
def test_a_backbone_that_does_not_agree_is_padded(
    model_folder, monkeypatch, caplog, fault: str, reason: str
) -> None:
    right = packing.packed_attention

    def wrong(module, query, key, value, mask, packed=None, **kwargs):
        if packed is not None and fault == "raises":
            raise NotImplementedError("no packed texts")
        return right(module, query, key, value, mask, **kwargs)  # texts would see each other

    monkeypatch.setattr(packing, "packed_attention", wrong)
    encoder = build_encoder(EncoderOptions(str(model_folder("bert")), dropout=0.0)).double()
    ids, mask = batch_of(encoder)
    made = encoder(ids, mask)
    assert not encoder.states.packs(encoder.backbone, ids.device)
    encoder.eval()(ids, mask)  # tried anew, for the same reason: said once
    monkeypatch.undo()
    (line,) = [record.getMessage() for record in caplog.records if "padded" in record.getMessage()]
    assert reason in line and "\n" not in line
    expected = build_encoder(EncoderOptions(str(model_folder("bert")), dropout=0.0)).double()(ids, mask)
    assert (made - expected).abs().max() < 1e-12


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_lack_of_memory_is_no_disagreement(model_folder, monkeypatch, caplog, error: RuntimeError) -> None:
    """It says nothing of the backbone: whoever has memory to give back must hear of it, and tries again."""
    encoder = build_encoder(EncoderOptions(str(model_folder("bert"))))
    ids, mask = batch_of(encoder)
    with monkeypatch.context() as scarce:
        scarce.setattr(packing, "unpack", lambda *_: (_ for _ in ()).throw(error))
        with pytest.raises(RuntimeError) as raised:
            encoder(ids, mask)
    assert raised.value is error
    assert encoder.training and all(module.training for module in encoder.modules())
    assert encoder.states.packs(encoder.backbone, ids.device)
    assert not caplog.records


def test_trying_out_draws_no_random_numbers(model_folder) -> None:
    encoder = build_encoder(EncoderOptions(str(model_folder("bert"))))
    assert encoder.training
    before = torch.get_rng_state()
    encoder.states.packs(encoder.backbone, torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in encoder.modules())


def test_another_attention_is_left_alone(model_folder, caplog) -> None:
    from transformers import AutoModel

    backbone = AutoModel.from_pretrained(model_folder("bert"), attn_implementation="eager")
    states = TokenStates(backbone, 0)
    assert not states.packs(backbone, torch.device("cpu"))
    assert backbone.config._attn_implementation == "eager"
    assert "is eager, not sdpa" in caplog.text


def test_a_causal_layer_is_refused() -> None:
    layout = packing.Layout.of(torch.ones(1, 3, dtype=torch.long))
    row = torch.zeros(1, 2, 3, 4)
    module = nn.Module()
    module.is_causal = True
    with pytest.raises(NotImplementedError, match="causal"):
        packing.packed_attention(module, row, row, row, None, packed=layout)


def test_fewer_key_heads_than_query_heads() -> None:
    """Against plain attention over each text with the key heads repeated."""
    torch.manual_seed(0)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]])
    tokens = int(mask.sum())
    query = torch.randn(1, 6, tokens, 8, dtype=torch.float64)
    key, value = (torch.randn(1, 2, tokens, 8, dtype=torch.float64) for _ in range(2))
    module = nn.Module()
    made, _ = packing.packed_attention(
        module, query, key, value, None, scaling=0.3, packed=packing.Layout.of(mask)
    )
    begin = 0
    for length in mask.sum(1).tolist():
        part = slice(begin, begin + length)
        q, k, v = (
            query[:, :, part],
            key[:, :, part].repeat_interleave(3, 1),
            value[:, :, part].repeat_interleave(3, 1),
        )
        expected = (0.3 * q @ k.transpose(2, 3)).softmax(3) @ v
        assert (made[:, part] - expected.transpose(1, 2)).abs().max() < 1e-12
        begin += length


def test_the_configuration_that_is_saved_names_no_attention(model_folder, tmp_path) -> None:
    encoder = build_encoder(EncoderOptions(str(model_folder("bert"))))
    encoder.backbone.save_pretrained(tmp_path)
    assert packing.NAME not in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize(
    ("given", "computed"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
    ids=str,
)
def test_16_bit_attention_is_computed_in_float32(monkeypatch, given, computed) -> None:
    """Its bf16 backward is nine times slower on a CPU; autocast would turn float32 back."""
    attend, seen = packing.scaled_dot_product_attention, []

    def noting(query, *args, **kwargs):
        seen.append((query.dtype, torch.is_autocast_enabled("cpu")))
        return attend(query, *args, **kwargs)

    monkeypatch.setattr(packing, "scaled_dot_product_attention", noting)
    torch.manual_seed(0)
    parts = [torch.randn(1, 2, 6, 8).to(given) for _ in range(3)]
    layout = packing.Layout.of(torch.ones(2, 3).long())
    with torch.autocast("cpu", torch.bfloat16):
        attended, _ = packing.packed_attention(nn.Module(), *parts, None, packed=layout)
    assert seen == [(computed, False)] and attended.dtype == given
    one = attend(*(part[:, :, :3].double() for part in parts)).transpose(1, 2)
    torch.testing.assert_close(attended[:, :3].double(), one, rtol=0, atol=2 * torch.finfo(given).eps)
