"""Cached gradients against one plain graph over the whole batch, written here with dense logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from lit_retrofit.data.batching import TokenBatch, make_micro_batches
from lit_retrofit.model.encoder import Encoder, EncoderOptions, build_encoder
from lit_retrofit.model.lora import LoraOptions
from lit_retrofit.training.grad_cache import CachedEmbeddings
from lit_retrofit.training.objective import Objective, ObjectiveOptions, StepEmbeddings

QUERIES = ["word", "the page of the text", "a", "x y z 12", "what is 7?"]
# Five positives and four hard negatives, of very different lengths.
DOCUMENTS = [
    "page", "text number one, which is long", "the", "another page", "seven is a number",
    "hard negative", "w", "the word is not here", "page 12 of 99 pages",
]  # fmt: skip
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
METHODS = {
    "full": {},
    "frozen embeddings": {"freeze_embeddings": True},
    "checkpointing": {"gradient_checkpointing": True},
    "lora": {"lora": LoraOptions(r=4, alpha=8)},
    "lora, checkpointing": {"lora": LoraOptions(r=4, alpha=8), "gradient_checkpointing": True},
    "lora, top layer": {"lora": LoraOptions(r=4, alpha=8, top_layers=1)},
}
ALL, SOME, NONE = 10**9, 130, 0


@pytest.fixture
def build(model_folder) -> Callable[..., Encoder]:
    def make(
        kind: str = "bert", dtype: torch.dtype = torch.float64, dropout: float = 0.0, **options
    ) -> Encoder:
        torch.manual_seed(1)
        encoder = build_encoder(EncoderOptions(str(model_folder(kind)), dropout=dropout, **options))
        for name, parameter in encoder.named_parameters():
            if "lora_B" in name:  # zero at the start, which would hide half of the gradient
                nn.init.normal_(parameter, std=0.3)
        return encoder.to(dtype)

    return make


def tokens(encoder: Encoder) -> list[list[int]]:
    return encoder.tokenizer(QUERIES, "query") + encoder.tokenizer(DOCUMENTS, "document")


def micro_batches(encoder: Encoder, budget: int = 37) -> tuple[TokenBatch, ...]:
    return make_micro_batches(tokens(encoder), encoder.tokenizer.pad_id, budget)


def whole_batch(encoder: Encoder) -> Tensor:
    """One forward over everything, padded to the longest text."""
    rows = tokens(encoder)
    width = max(map(len, rows))
    ids = torch.tensor([row + [1] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return encoder(ids, mask)


def one_graph(encoder: Encoder, batches: Sequence[TokenBatch]) -> Tensor:
    """Micro-batches in one graph: the same random draws as the engine's, nothing else in common."""
    embeddings = torch.cat([encoder(b.input_ids, b.attention_mask) for b in batches])
    return embeddings[torch.cat([b.rows for b in batches]).argsort()]


def dense_loss(embeddings: Tensor, scale: Tensor | float) -> Tensor:
    logits = embeddings[: len(QUERIES)] @ embeddings[len(QUERIES) :].T * scale
    return nn.functional.cross_entropy(logits, torch.arange(len(QUERIES)))


def take_gradients(*modules: nn.Module) -> dict[str, Tensor]:
    found = {}
    for index, module in enumerate(modules):
        for name, parameter in module.named_parameters():
            if parameter.requires_grad and parameter.grad is not None:
                found[f"{index}.{name}"] = parameter.grad.clone()
        module.zero_grad(set_to_none=True)
    assert found
    return found


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Relative to the largest gradient; a tensor without gradient is not one of zeros."""
    assert found.keys() == expected.keys()
    largest = max(g.abs().max() for g in expected.values())
    assert largest > 1e-3
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max() <= tolerance * largest, name


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def cached_gradients(encoder: Encoder, kept: int, loss: Callable[[Tensor], Tensor], budget: int = 37):
    batches = micro_batches(encoder, budget)
    cached = CachedEmbeddings(encoder, batches, len(QUERIES) + len(DOCUMENTS), kept)
    loss(cached.leaf).backward()
    cached.backward()
    return take_gradients(encoder)


@pytest.mark.parametrize("kept", [NONE, SOME, ALL])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["fp64", "fp32"])
@pytest.mark.parametrize("method", METHODS)
def test_equals_the_plain_full_batch(build, method: str, dtype: torch.dtype, kept: int) -> None:
    encoder = build(dtype=dtype, **METHODS[method])
    objective = Objective(ObjectiveOptions(0.05, learn_temperature=True), 32).to(dtype)
    dense_loss(whole_batch(encoder), objective.log_scale.exp()).backward()
    expected = take_gradients(encoder, objective)
    assert "1.log_scale" in expected

    cached = CachedEmbeddings(encoder, micro_batches(encoder), 14, kept)
    queries, documents = cached.leaf[:5], cached.leaf[5:]
    unknown = torch.full((5, 1), -1)
    objective(StepEmbeddings(queries, documents, torch.arange(5), unknown)).loss.backward()
    cached.backward()
    assert_close(take_gradients(encoder, objective), expected, TOLERANCE[dtype])


@pytest.mark.parametrize("kind", ["xlmr", "modernbert"])
@pytest.mark.parametrize("lora", [None, LoraOptions(r=4)], ids=["full", "lora"])
def test_equals_the_plain_full_batch_of_other_architectures(
    build, kind: str, lora: LoraOptions | None
) -> None:
    encoder = build(kind, lora=lora)
    dense_loss(whole_batch(encoder), 20.0).backward()
    expected = take_gradients(encoder)
    assert_close(cached_gradients(encoder, SOME, lambda leaf: dense_loss(leaf, 20.0)), expected, 1e-10)


@pytest.mark.parametrize("budget", [1, 7, 24, 25, 64, 10**6])
def test_any_token_budget(build, budget: int) -> None:
    encoder = build()
    dense_loss(whole_batch(encoder), 20.0).backward()
    expected = take_gradients(encoder)
    found = cached_gradients(encoder, NONE, lambda leaf: dense_loss(leaf, 20.0), budget)
    assert_close(found, expected, 1e-10)


def test_the_order_of_micro_batches_does_not_matter(build) -> None:
    encoder = build()
    expected = cached_gradients(encoder, SOME, lambda leaf: dense_loss(leaf, 20.0))
    cached = CachedEmbeddings(encoder, micro_batches(encoder)[::-1], 14, SOME)
    dense_loss(cached.leaf, 20.0).backward()
    cached.backward()
    assert_close(take_gradients(encoder), expected, 1e-10)


def test_keeps_what_fits_and_counts_the_rest(build) -> None:
    encoder = build()
    batches = micro_batches(encoder)
    sizes = [b.input_ids.numel() for b in batches]
    calls: list[bool] = []

    def encode(ids: Tensor, mask: Tensor) -> Tensor:
        calls.append(torch.is_grad_enabled())
        return encoder(ids, mask)

    for kept in (0, sizes[0], sizes[0] + sizes[1], sum(sizes) - 1, sum(sizes)):
        calls.clear()
        cached = CachedEmbeddings(encode, batches, 14, kept)
        graphs = sum(size for size, graph in zip(sizes, calls, strict=True) if graph)
        assert graphs <= kept
        assert cached.recomputed_tokens == sum(sizes) - graphs
        dense_loss(cached.leaf, 20.0).backward()
        cached.backward()
        # Kept ones are not embedded again.
        assert sum(calls[len(batches) :]) == calls[: len(batches)].count(False)
    assert calls == [True] * len(batches)


@pytest.mark.parametrize("kept", [NONE, SOME, ALL])
@pytest.mark.parametrize("method", ["full", "lora", "checkpointing", "lora, checkpointing"])
def test_dropout_is_replayed(build, method: str, kept: int) -> None:
    encoder = build(dropout=0.2, **METHODS[method])
    batches = micro_batches(encoder)
    torch.manual_seed(5)
    dense_loss(one_graph(encoder, batches), 20.0).backward()
    expected = take_gradients(encoder)
    torch.manual_seed(6)
    dense_loss(one_graph(encoder, batches), 20.0).backward()
    assert not torch.equal(
        *(next(iter(g.values())) for g in (take_gradients(encoder), expected))
    )  # dropout is on

    torch.manual_seed(5)
    found = cached_gradients(encoder, kept, lambda leaf: dense_loss(leaf, 20.0))
    assert_close(found, expected, 1e-10)


@pytest.mark.parametrize("kept", [NONE, SOME])
def test_backward_leaves_the_random_state_alone(build, kept: int) -> None:
    """Else the next step would draw the dropout of this one again."""
    encoder = build(dropout=0.2)
    cached = CachedEmbeddings(encoder, micro_batches(encoder), 14, kept)
    dense_loss(cached.leaf, 20.0).backward()
    before = torch.get_rng_state()
    cached.backward()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("cache", [False, True], ids=["weight cache off", "weight cache on"])
@pytest.mark.parametrize("method", METHODS)
def test_bf16_autocast_kept_and_recomputed_are_equal(build, method: str, cache: bool) -> None:
    encoder = build(dtype=torch.float32, dropout=0.2, **METHODS[method])

    def autocast():
        return torch.autocast("cpu", torch.bfloat16, cache_enabled=cache)

    def gradients(kept: int) -> dict[str, Tensor]:
        torch.manual_seed(5)
        with autocast():
            # Shortest first: with SOME, graphs are kept before and after one that is not.
            cached = CachedEmbeddings(encoder, micro_batches(encoder, 60)[::-1], 14, kept)
            loss = dense_loss(cached.leaf, 20.0)
        assert cached.leaf.dtype == torch.float32
        loss.backward()
        cached.backward(autocast)
        return take_gradients(encoder)

    expected = gradients(ALL)
    assert_equal(gradients(NONE), expected)
    assert_equal(gradients(SOME), expected)
    # And they are gradients: near those of fp32.
    torch.manual_seed(5)
    cached = CachedEmbeddings(encoder, micro_batches(encoder, 60)[::-1], 14, ALL)
    dense_loss(cached.leaf, 20.0).backward()
    cached.backward()
    assert_close(expected, take_gradients(encoder), 0.2)


def test_a_graph_kept_after_one_that_is_not_has_its_gradient_under_autocasts_weight_cache(build) -> None:
    """The cache must not hand the cast weights of a forward without graph to one with a graph."""
    encoder = build(dtype=torch.float32)
    batches = micro_batches(encoder, 60)
    sizes = [b.input_ids.numel() for b in batches]
    small = min(sizes)
    assert sizes[0] > small

    def gradients(kept: int) -> dict[str, Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            cached = CachedEmbeddings(encoder, batches, 14, kept)
        assert cached.recomputed_tokens == (sum(sizes) - small if kept == small else 0)
        dense_loss(cached.leaf, 20.0).backward()
        cached.backward(lambda: torch.autocast("cpu", torch.bfloat16))
        return take_gradients(encoder)

    assert_equal(gradients(small), gradients(ALL))


@pytest.mark.parametrize("kept", [NONE, SOME, ALL])
def test_gradients_accumulate(build, kept: int) -> None:
    encoder = build(lora=LoraOptions(r=4))
    for scale in (20.0, 5.0):
        (dense_loss(whole_batch(encoder), scale) / 2).backward()
    expected = take_gradients(encoder)
    for scale in (20.0, 5.0):
        cached = CachedEmbeddings(encoder, micro_batches(encoder), 14, kept)
        (dense_loss(cached.leaf, scale) / 2).backward()
        cached.backward()
    assert_close(take_gradients(encoder), expected, 1e-10)


@pytest.mark.parametrize("kept", [NONE, SOME, ALL])
def test_a_loss_on_prefixes_of_the_embedding(build, kept: int) -> None:
    def nested(embeddings: Tensor) -> Tensor:
        parts = [nn.functional.normalize(embeddings[:, :width], dim=1) for width in (8, 16, 32)]
        return sum(weight * dense_loss(part, 20.0) for weight, part in zip((1, 0.5, 2), parts, strict=True))

    encoder = build()
    nested(whole_batch(encoder)).backward()
    expected = take_gradients(encoder)
    assert_close(cached_gradients(encoder, kept, nested), expected, 1e-10)


@pytest.mark.parametrize("kept", [NONE, SOME, ALL])
def test_two_forwards_before_a_backward(build, kept: int) -> None:
    encoder = build(dropout=0.2)
    batches = micro_batches(encoder)
    torch.manual_seed(5)
    first, second = one_graph(encoder, batches), one_graph(encoder, batches)
    (dense_loss(first, 20.0) + 3 * dense_loss(second, 5.0)).backward()
    expected = take_gradients(encoder)

    torch.manual_seed(5)
    first, second = (CachedEmbeddings(encoder, batches, 14, kept) for _ in range(2))
    (dense_loss(first.leaf, 20.0) + 3 * dense_loss(second.leaf, 5.0)).backward()
    first.backward()
    second.backward()
    assert_close(take_gradients(encoder), expected, 1e-10)


@pytest.mark.parametrize("kept", [NONE, ALL])
def test_without_gradients(build, kept: int) -> None:
    encoder = build().eval()
    with torch.no_grad():
        cached = CachedEmbeddings(encoder, micro_batches(encoder), 14, kept)
        expected = whole_batch(encoder)
    assert not cached.leaf.requires_grad
    assert cached.recomputed_tokens == 0
    assert (cached.leaf - expected).abs().max() < 1e-12


@pytest.mark.parametrize("kept", [NONE, SOME, ALL])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["fp64", "fp32"])
def test_a_scaled_loss_scales_the_gradient(build, dtype: torch.dtype, kept: int) -> None:
    encoder = build(dtype=dtype)
    dense_loss(whole_batch(encoder), 20.0).backward()
    expected = take_gradients(encoder)
    scaled = cached_gradients(encoder, kept, lambda leaf: dense_loss(leaf, 20.0) * 1024)
    assert_close({name: g / 1024 for name, g in scaled.items()}, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["fp64", "fp32"])
def test_the_embeddings_are_those_of_the_whole_batch(build, dtype: torch.dtype) -> None:
    encoder = build(dtype=dtype)
    cached = CachedEmbeddings(encoder, micro_batches(encoder), 14, SOME)
    assert cached.leaf.dtype == dtype
    difference = cached.leaf - whole_batch(encoder)
    assert difference.abs().max() < (1e-12 if dtype == torch.float64 else 1e-5)


def test_misuse_is_told(build) -> None:
    encoder = build()
    with pytest.raises(ValueError, match="empty"):
        CachedEmbeddings(encoder, (), 0, ALL)
    cached = CachedEmbeddings(encoder, micro_batches(encoder), 14, ALL)
    with pytest.raises(RuntimeError, match=r"loss\.backward"):
        cached.backward()
    dense_loss(cached.leaf, 20.0).backward()
    cached.backward()
    with pytest.raises(RuntimeError, match="once"):
        cached.backward()
