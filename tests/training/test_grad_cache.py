"""Cached gradients against one plain graph over the whole batch, written here with dense logits."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from lit_retrofit.data.batching import TokenBatch, make_micro_batches
from lit_retrofit.model.encoder import Encoder, EncoderOptions, build_encoder
from lit_retrofit.model.kept_weights import in_use
from lit_retrofit.model.lora import LoraOptions, find_blocks
from lit_retrofit.planning.live_bytes import LiveBytes
from lit_retrofit.training import graph_budget
from lit_retrofit.training.grad_cache import CachedEmbeddings, RandomState
from lit_retrofit.training.graph_budget import GraphBudget, GraphSize
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
    "frozen layer": {"freeze_layers": 1},
}
ALL, SOME, NONE = "all graphs", "half of the graphs", "no graph"


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


def prefixes(encoder: Encoder) -> dict:
    return {} if encoder.frozen is None else {None: encoder.frozen}


def engine(
    encoder: Encoder, batches: Sequence[TokenBatch], kept: str | int, encode: Callable | None = None
) -> CachedEmbeddings:
    """The engine with a budget for all graphs, half of them, none, or for so many bytes."""
    encode = encode or (lambda batch: encoder(batch.input_ids, batch.attention_mask))
    texts = len(QUERIES) + len(DOCUMENTS)

    def with_budget(gigabytes: float) -> CachedEmbeddings:
        budget = GraphBudget(gigabytes)
        return CachedEmbeddings(encode, batches, texts, budget, encoder.parameters(), prefixes(encoder))

    if kept == SOME:
        with torch.random.fork_rng(), torch.enable_grad():
            kept = with_budget(1e3).kept_bytes // 2
    return with_budget({ALL: 1e3, NONE: 0.0}.get(kept, kept) if isinstance(kept, str) else kept / 1e9)


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


def cached_gradients(encoder: Encoder, kept: str, loss: Callable[[Tensor], Tensor], budget: int = 37):
    cached = engine(encoder, micro_batches(encoder, budget), kept)
    loss(cached.leaf).backward()
    cached.backward()
    return take_gradients(encoder)


@pytest.mark.parametrize("kept", [NONE, SOME, ALL])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["fp64", "fp32"])
@pytest.mark.parametrize("method", METHODS)
def test_equals_the_plain_full_batch(build, method: str, dtype: torch.dtype, kept: str) -> None:
    encoder = build(dtype=dtype, **METHODS[method])
    objective = Objective(ObjectiveOptions(0.05, learn_temperature=True), 32).to(dtype)
    dense_loss(whole_batch(encoder), objective.log_scale.exp()).backward()
    expected = take_gradients(encoder, objective)
    assert "1.log_scale" in expected

    cached = engine(encoder, micro_batches(encoder), kept)
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
    cached = engine(encoder, micro_batches(encoder)[::-1], SOME)
    dense_loss(cached.leaf, 20.0).backward()
    cached.backward()
    assert_close(take_gradients(encoder), expected, 1e-10)


def test_keeps_what_fits_and_counts_the_rest(build) -> None:
    encoder = build()
    batches = micro_batches(encoder)
    tokens_of = [b.input_ids.numel() for b in batches]
    calls: list[bool] = []

    def encode(batch: TokenBatch) -> Tensor:
        calls.append(torch.is_grad_enabled())
        return encoder(batch.input_ids, batch.attention_mask)

    sizes = []  # bytes of the graph of each micro-batch
    for batch in batches:
        alone = TokenBatch(batch.input_ids, batch.attention_mask, torch.arange(len(batch.rows)))
        sizes.append(engine(encoder, [alone], ALL).kept_bytes)
    # An index that is gone when a later one takes its place is not counted twice: some hundred bytes.
    assert engine(encoder, batches, ALL).kept_bytes == pytest.approx(sum(sizes), rel=0.01)

    for limit in (0, sizes[0], sizes[0] + sizes[1], sum(sizes) - 1, 2 * sum(sizes)):
        calls.clear()
        cached = engine(encoder, batches, limit, encode)
        first = len(calls)
        assert first == len(batches)
        assert cached.kept_bytes <= limit
        kept = sum(tokens_of) - cached.recomputed_tokens
        assert (kept > 0) == (limit > 0)
        keeps = [step.embeddings is not None for step in cached._pending]
        if limit < sum(sizes) / 2:  # more is a matter of what the first lets expect of the others
            assert keeps == sorted(keeps)  # the last: their graphs are gone when the others are made again
        recomputed = keeps.count(False)
        dense_loss(cached.leaf, 20.0).backward()
        cached.backward()
        assert len(calls) - first == recomputed  # kept ones are not embedded again
    assert recomputed == 0


def test_a_graph_that_is_dropped_is_gone(build) -> None:
    """A node that holds its own output through a hook would never be freed, by no collector either."""
    with GraphSize(frozenset()):
        output = torch.ones(3, requires_grad=True).exp()
    alive = weakref.ref(output)
    del output
    gc.collect()
    assert alive() is None


def test_a_branch_that_is_dropped_does_not_count() -> None:
    """Its memory may be given to what follows: with that counted, plans differed from run to run."""
    rows = torch.ones(6, requires_grad=True)
    with GraphSize(frozenset()) as size:
        unused = [rows.expand(100, 6).exp() for _ in range(2)]
        del unused
        used = rows.exp()
    assert size.bytes == used.untyped_storage().nbytes()


def test_the_size_of_a_graph_is_what_it_keeps(build) -> None:
    """Against a count of the storages that autograd's nodes hold on to, by walking the graph."""
    encoder = build()
    batch = micro_batches(encoder)[0]
    alone = TokenBatch(batch.input_ids, batch.attention_mask, torch.arange(len(batch.rows)))
    cached = engine(encoder, [alone], ALL)
    weights = {p.untyped_storage().data_ptr() for p in encoder.parameters()}
    held: dict[int, int] = {}
    todo, seen = [cached._pending[0].embeddings.grad_fn], set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        todo += [following for following, _ in node.next_functions]
        for name in dir(node):
            if name.startswith("_saved_") and isinstance(getattr(node, name), Tensor):
                storage = getattr(node, name).untyped_storage()
                if storage.data_ptr() not in weights:
                    held[storage.data_ptr()] = storage.nbytes()
    assert held
    # A node's lists of tensors (the indices of one operation) are not seen by this walk.
    assert sum(held.values()) <= cached.kept_bytes <= 1.01 * sum(held.values())


@pytest.mark.parametrize("kind", ["bert", "xlmr"])
@pytest.mark.parametrize("packs", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("lora", [None, LoraOptions(r=4)], ids=["full", "lora"])
def test_the_size_of_a_checkpointed_graph_is_what_stays_alive(build, kind: str, packs: bool, lora) -> None:
    """Against the storages that are alive after the forward pass; the peak is in the backward pass."""
    encoder = build(kind, torch.float32, gradient_checkpointing=True, lora=lora)
    if not packs:
        encoder.states.packs = lambda *_: False
    ids = 8 + torch.arange(30 * 16).view(30, 16) % 40
    mask = torch.ones_like(ids)
    with torch.no_grad():
        encoder(ids, mask)  # tries whether texts can be packed
    for parameter in encoder.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    gradients = [p.grad for p in encoder.parameters() if p.grad is not None]
    with LiveBytes([*encoder.parameters(), *encoder.buffers(), *gradients, ids, mask]) as live:
        with GraphSize(frozenset(p.data_ptr() for p in encoder.parameters())) as size:
            embeddings = encoder(ids, mask)
        held = live.now
        embeddings.sum().backward()
    assert size.bytes == pytest.approx(held, rel=0.06)  # masks and random states are not seen
    assert live.peak > 2 * held


@pytest.mark.parametrize("method", ["lora, top layer", "frozen layer"])
def test_checkpointing_below_the_trained_blocks_keeps_nothing(build, method: str) -> None:
    """Libraries let the embeddings require a gradient then, and the backward pass go down to them."""
    sizes = []
    for checkpointing in (False, True):
        encoder = build(gradient_checkpointing=checkpointing, **METHODS[method])
        seen = []
        _, blocks = find_blocks(encoder.backbone)
        blocks[0].register_forward_hook(lambda _, args, output, seen=seen: seen.append(output.requires_grad))
        batch = micro_batches(encoder)[0]
        with GraphSize(frozenset(p.data_ptr() for p in encoder.parameters())) as size:
            embeddings = encoder(batch.input_ids, batch.attention_mask)
        assert embeddings.requires_grad and not any(seen)
        sizes.append(size.bytes)
    assert sizes[1] < sizes[0]


def test_the_random_state_is_that_of_the_device_at_work(monkeypatch) -> None:
    """Of several GPUs the current one need not be the one that embeds."""
    states = {0: torch.tensor([0]), 1: torch.tensor([1])}
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device="cuda": states[_index(device)])
    monkeypatch.setattr(
        torch.cuda, "set_rng_state", lambda state, device="cuda": states.update({_index(device): state})
    )
    device = torch.device("cuda", 1)
    with torch.random.fork_rng(devices=()):
        state = RandomState.capture(device)
        drawn = torch.rand(3)
        states.update({0: torch.tensor([7]), 1: torch.tensor([8])})
        state.restore(device)
        assert states == {0: torch.tensor([7]), 1: torch.tensor([1])}
        assert torch.equal(torch.rand(3), drawn)


def _index(device: torch.device | str) -> int:
    return torch.device(device).index or 0


class Scarce:
    """An encoder that runs out of memory in the n-th of its calls with a graph."""

    def __init__(self, encoder: Encoder, fails: int, message: str) -> None:
        self.encoder, self.fails, self.message, self.calls = encoder, fails, message, 0

    def __call__(self, batch: TokenBatch) -> Tensor:
        self.calls += torch.is_grad_enabled()
        if torch.is_grad_enabled() and self.calls == self.fails:
            raise RuntimeError(self.message)
        return self.encoder(batch.input_ids, batch.attention_mask)


@pytest.mark.parametrize("fails", [1, 2, 4, 5, 6])
def test_out_of_memory_lowers_the_budget_and_repeats_the_work(build, caplog, fails: int) -> None:
    """In the first pass, and in the second with gradients of an earlier step that must survive."""
    encoder = build(dropout=0.2)
    torch.manual_seed(5)
    for _ in range(2):
        dense_loss(one_graph(encoder, micro_batches(encoder)), 20.0).backward()
    expected = take_gradients(encoder)

    torch.manual_seed(5)
    batches = micro_batches(encoder)
    scarce = Scarce(encoder, 0, "[enforce fail] DefaultCPUAllocator: can't allocate memory")
    budget = GraphBudget(engine(encoder, batches, ALL).kept_bytes / 2 / 1e9)
    torch.manual_seed(5)
    before = budget.limit(torch.device("cpu"))
    for step in range(2):
        scarce.calls, scarce.fails = 0, fails if step == 1 else 0
        cached = CachedEmbeddings(scarce, batches, 14, budget, encoder.parameters())
        dense_loss(cached.leaf, 20.0).backward()
        cached.backward()
    assert_close(take_gradients(encoder), expected, 1e-10)
    assert budget.limit(torch.device("cpu")) <= before / 2
    assert caplog.text.count("out of memory") == 1


@pytest.mark.parametrize("kept", [ALL, NONE])
def test_weights_made_for_a_step_are_kept_in_both_passes_and_no_longer(build, kept: str) -> None:
    encoder, scopes = build(lora=LoraOptions(r=4)), []

    def encode(batch: TokenBatch) -> Tensor:
        scopes.append(in_use(torch.device("cpu")))
        return encoder(batch.input_ids, batch.attention_mask)

    batches = micro_batches(encoder)
    cached = engine(encoder, batches, kept, encode)
    assert len(scopes) == len(batches) and scopes[0]._made
    cached.release()
    assert not scopes[0]._made, "it holds memory that ran out"
    dense_loss(cached.leaf, 20.0).backward()
    cached.backward()
    assert len(scopes) == 2 * len(batches) and {id(scope) for scope in scopes} == {id(scopes[0])}
    assert not scopes[0]._made and in_use(torch.device("cpu")) is None


def test_processes_of_one_machine_share_its_memory_and_have_a_gpu_each(monkeypatch) -> None:
    monkeypatch.setattr(graph_budget, "free_memory", lambda device: 8_000_000_000)
    for device, share in (("cpu", 0.5 / 4), ("cuda", 0.8)):
        budget = GraphBudget()
        budget.processes = 4
        assert budget.limit(torch.device(device)) == share * 8_000_000_000


def test_out_of_memory_later_on_is_an_error(build) -> None:
    encoder = build()
    batches, budget = micro_batches(encoder), GraphBudget(1e3)
    for _ in range(3):
        cached = CachedEmbeddings(Scarce(encoder, 0, ""), batches, 14, budget, encoder.parameters())
        dense_loss(cached.leaf, 20.0).backward()
        cached.backward()
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        CachedEmbeddings(Scarce(encoder, 1, "can't allocate memory"), batches, 14, budget, ())


def test_other_errors_are_not_taken_for_a_lack_of_memory(build) -> None:
    encoder = build()
    with pytest.raises(RuntimeError, match="shapes"):
        CachedEmbeddings(
            Scarce(encoder, 1, "shapes do not match"), micro_batches(encoder), 14, GraphBudget(1e3), ()
        )


@pytest.mark.parametrize("kept", [NONE, SOME])
@pytest.mark.parametrize("method", ["lora, top layer", "frozen layer"])
def test_frozen_blocks_run_once(build, method: str, kept: str) -> None:
    encoder = build(dropout=0.2, **METHODS[method])
    lower, upper = encoder.backbone.get_submodule(
        "base_model.model.encoder.layer" if "lora" in method else "encoder.layer"
    )
    calls = {"lower": 0, "upper": 0}
    for name, block in (("lower", lower), ("upper", upper)):
        block.attention.register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    batches = micro_batches(encoder)
    torch.manual_seed(5)
    dense_loss(one_graph(encoder, batches), 20.0).backward()
    expected = take_gradients(encoder)
    calls.update(lower=0, upper=0)

    torch.manual_seed(5)
    texts = len(QUERIES) + len(DOCUMENTS)
    total = sum(b.input_ids.numel() for b in batches) * encoder.frozen.token_bytes
    limit = 2 * total if kept == NONE else 3 * total  # half of it is for the blocks' output
    encode = lambda batch: encoder(batch.input_ids, batch.attention_mask)  # noqa: E731
    budget = GraphBudget(limit / 1e9)
    cached = CachedEmbeddings(encode, batches, texts, budget, encoder.parameters(), prefixes(encoder))
    assert cached.recomputed_tokens > 0
    dense_loss(cached.leaf, 20.0).backward()
    cached.backward()
    assert_close(take_gradients(encoder), expected, 1e-10)
    assert calls["lower"] == len(batches) < calls["upper"]


@pytest.mark.parametrize("kept", [NONE, SOME, ALL])
@pytest.mark.parametrize("method", ["full", "lora", "checkpointing", "lora, checkpointing"])
def test_dropout_is_replayed(build, method: str, kept: str) -> None:
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
def test_backward_leaves_the_random_state_alone(build, kept: str) -> None:
    """Else the next step would draw the dropout of this one again."""
    encoder = build(dropout=0.2)
    cached = engine(encoder, micro_batches(encoder), kept)
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

    def gradients(kept: str) -> dict[str, Tensor]:
        torch.manual_seed(5)
        with autocast():
            # Shortest first: with SOME, graphs are kept before and after one that is not.
            cached = engine(encoder, micro_batches(encoder, 60)[::-1], kept)
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
    cached = engine(encoder, micro_batches(encoder, 60)[::-1], ALL)
    dense_loss(cached.leaf, 20.0).backward()
    cached.backward()
    assert_close(expected, take_gradients(encoder), 0.2)


def test_a_graph_kept_after_one_that_is_not_has_its_gradient_under_autocasts_weight_cache(build) -> None:
    """The cache must not hand the cast weights of a forward without graph to one with a graph."""
    encoder = build(dtype=torch.float32)
    batches = micro_batches(encoder, 60)
    with torch.autocast("cpu", torch.bfloat16):
        smallest = engine(encoder, batches[-1:], ALL).kept_bytes

    def gradients(kept: str | int) -> dict[str, Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            cached = engine(encoder, batches, kept)
        if kept == smallest:
            assert [step.embeddings is None for step in cached._pending] == [True] * (len(batches) - 1) + [
                False
            ]
        dense_loss(cached.leaf, 20.0).backward()
        cached.backward(lambda: torch.autocast("cpu", torch.bfloat16))
        return take_gradients(encoder)

    assert_equal(gradients(smallest), gradients(ALL))


@pytest.mark.parametrize("kept", [NONE, ALL])
def test_a_forward_without_graph_before_leaves_the_gradient_whole_under_autocasts_weight_cache(
    build, kept: str
) -> None:
    """The cache lives until the outermost autocast ends, and validation may come before in it."""
    encoder = build(dtype=torch.float32)

    def gradients(kept: str, validated: bool) -> dict[str, Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            if validated:
                with torch.no_grad():
                    whole_batch(encoder)
            cached = engine(encoder, micro_batches(encoder), kept)
            dense_loss(cached.leaf, 20.0).backward()
            cached.backward(lambda: torch.autocast("cpu", torch.bfloat16))
        return take_gradients(encoder)

    assert_equal(gradients(kept, validated=True), gradients(ALL, validated=False))


@pytest.mark.parametrize("kept", [NONE, SOME, ALL])
def test_fp16_with_a_gradient_scaler(build, kept: str) -> None:
    """Scaled by the scaler through both passes; where the scale is too large, the step is left out."""
    encoder = build(dtype=torch.float32)
    optimizer = torch.optim.SGD(encoder.parameters(), lr=1.0)
    dense_loss(whole_batch(encoder), 20.0).backward()
    expected = take_gradients(encoder)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}

    def autocast():
        return torch.autocast("cpu", torch.float16, cache_enabled=False)

    def step(scale: float) -> torch.amp.GradScaler:
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, backoff_factor=0.5)
        with autocast():
            cached = engine(encoder, micro_batches(encoder), kept)
            loss = dense_loss(cached.leaf, 20.0)
        scaler.scale(loss).backward()
        cached.backward(autocast)
        scaler.unscale_(optimizer)
        return scaler

    step(1024.0)
    assert_close(take_gradients(encoder), expected, 0.02)
    scaler = step(2.0**100)
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0**99
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


@pytest.mark.parametrize("kept", [NONE, SOME, ALL])
def test_gradients_accumulate(build, kept: str) -> None:
    encoder = build(lora=LoraOptions(r=4))
    for scale in (20.0, 5.0):
        (dense_loss(whole_batch(encoder), scale) / 2).backward()
    expected = take_gradients(encoder)
    for scale in (20.0, 5.0):
        cached = engine(encoder, micro_batches(encoder), kept)
        (dense_loss(cached.leaf, scale) / 2).backward()
        cached.backward()
    assert_close(take_gradients(encoder), expected, 1e-10)


@pytest.mark.parametrize("kept", [NONE, SOME, ALL])
def test_a_loss_on_prefixes_of_the_embedding(build, kept: str) -> None:
    def nested(embeddings: Tensor) -> Tensor:
        parts = [nn.functional.normalize(embeddings[:, :width], dim=1) for width in (8, 16, 32)]
        return sum(weight * dense_loss(part, 20.0) for weight, part in zip((1, 0.5, 2), parts, strict=True))

    encoder = build()
    nested(whole_batch(encoder)).backward()
    expected = take_gradients(encoder)
    assert_close(cached_gradients(encoder, kept, nested), expected, 1e-10)


@pytest.mark.parametrize("kept", [NONE, SOME, ALL])
def test_two_forwards_before_a_backward(build, kept: str) -> None:
    encoder = build(dropout=0.2)
    batches = micro_batches(encoder)
    torch.manual_seed(5)
    first, second = one_graph(encoder, batches), one_graph(encoder, batches)
    (dense_loss(first, 20.0) + 3 * dense_loss(second, 5.0)).backward()
    expected = take_gradients(encoder)

    torch.manual_seed(5)
    first, second = (engine(encoder, batches, kept) for _ in range(2))
    (dense_loss(first.leaf, 20.0) + 3 * dense_loss(second.leaf, 5.0)).backward()
    first.backward()
    second.backward()
    assert_close(take_gradients(encoder), expected, 1e-10)


@pytest.mark.parametrize("kept", [NONE, ALL])
def test_without_gradients(build, kept: str) -> None:
    encoder = build().eval()
    with torch.no_grad():
        cached = engine(encoder, micro_batches(encoder), kept)
        expected = whole_batch(encoder)
    assert not cached.leaf.requires_grad
    assert cached.recomputed_tokens == 0
    assert (cached.leaf - expected).abs().max() < 1e-12


@pytest.mark.parametrize("kept", [NONE, SOME, ALL])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["fp64", "fp32"])
def test_a_scaled_loss_scales_the_gradient(build, dtype: torch.dtype, kept: str) -> None:
    encoder = build(dtype=dtype)
    dense_loss(whole_batch(encoder), 20.0).backward()
    expected = take_gradients(encoder)
    scaled = cached_gradients(encoder, kept, lambda leaf: dense_loss(leaf, 20.0) * 1024)
    assert_close({name: g / 1024 for name, g in scaled.items()}, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["fp64", "fp32"])
def test_the_embeddings_are_those_of_the_whole_batch(build, dtype: torch.dtype) -> None:
    encoder = build(dtype=dtype)
    cached = engine(encoder, micro_batches(encoder), SOME)
    assert cached.leaf.dtype == dtype
    difference = cached.leaf - whole_batch(encoder)
    assert difference.abs().max() < (1e-12 if dtype == torch.float64 else 1e-5)


def test_misuse_is_told(build) -> None:
    encoder = build()
    with pytest.raises(ValueError, match="empty"):
        CachedEmbeddings(lambda batch: batch.rows, (), 0, GraphBudget(0), ())
    cached = engine(encoder, micro_batches(encoder), ALL)
    with pytest.raises(RuntimeError, match=r"loss\.backward"):
        cached.backward()
    dense_loss(cached.leaf, 20.0).backward()
    cached.backward()
    with pytest.raises(RuntimeError, match="once"):
        cached.backward()
