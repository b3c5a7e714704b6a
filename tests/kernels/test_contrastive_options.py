"""Every option of info_nce alone and in random combinations, against whole matrices and autograd in fp64."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from retrofit_kernels import ContrastiveOptions, Guide, Threshold, info_nce
from retrofit_kernels._loss import gradients as gradient_sums
from retrofit_kernels._loss import operation, strip_torch, terms
from retrofit_kernels._loss.problem import Columns, Rows, Term
from retrofit_kernels.contrastive import settings_of
from retrofit_kernels.reference import reference_info_nce, reference_masked
from torch.nn.functional import normalize
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

EXACT = {"rtol": 1e-10, "atol": 1e-11}
ROWS, COLUMNS, DIMENSION = 7, 19, 12
POSITIVES = torch.tensor(
    [[0, 5, -1], [1, -1, -1], [9, 2, 2], [3, -1, 7], [-1, -1, 18], [5, 0, 11], [6, 6, -1]]
)


def numbers(seed: int, *shape: int, low: int = 0, high: int = 3) -> torch.Tensor:
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed))


def vectors(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(shape, generator=generator, dtype=torch.float64), dim=1)


def option_sets(rows: int, columns: int, dimension: int, seed: int) -> dict[str, dict[str, object]]:
    """Each option's values, as a test with this many queries and documents needs them."""
    guide = vectors(seed, rows, 6), vectors(seed + 1, columns, 6)
    cuts = tuple(sorted({max(1, dimension // 4), max(1, dimension // 2), dimension}))
    return {
        "ids": {
            "query_ids": numbers(seed, rows, 2, low=-1, high=9),
            "document_ids": numbers(seed + 1, columns, low=-1, high=9),
        },
        "groups": {"query_groups": numbers(seed, rows), "document_groups": numbers(seed + 1, columns)},
        "owners": {"owners": numbers(seed, columns, low=-1, high=rows)},
        "absolute": {"false_negatives": Threshold(0.3, "absolute")},
        "margin": {"false_negatives": Threshold(0.1, "margin")},
        "percentage": {"false_negatives": Threshold(0.95, "percentage")},
        "guide": {"guide": Guide(*guide)},
        "guide percentage": {"guide": Guide(*guide, Threshold(0.9, "percentage"))},
        "query_to_query": {"query_to_query": True},
        "document_to_document": {"document_to_document": True},
        "both_directions": {"both_directions": True},
        "hardness": {"hardness": 5.0},
        "focal": {"focal": 0.5},
        "focal 2": {"focal": 2.0},
        "prefixes": {"prefixes": cuts},
        "weighted prefixes": {
            "prefixes": cuts[:-1] or cuts,
            "prefix_weights": (0.3, 2.0, 0.0)[: len(cuts[:-1] or cuts)],
        },
        "weights": {"weights": torch.arange(rows).double() % 3},
        "sum": {"reduction": "sum"},
        "none": {"reduction": "none"},
        "strips": {"strip_bytes": 3 * 8 * columns},
    }


NAMES = list(option_sets(1, 1, 1, 0))


def check(
    gradients, options, *, positives=None, rows=ROWS, columns=COLUMNS, dimension=DIMENSION, scale=15.0, seed=3
):
    operands = vectors(seed, rows, dimension), vectors(seed + 1, columns, dimension)
    scale = torch.tensor(scale, dtype=torch.float64)

    def ours(queries, documents, scale):
        return info_nce(queries, documents, scale=scale, positives=positives, options=options).loss

    def oracle(queries, documents, scale):
        return reference_info_nce(queries, documents, scale=scale, positives=positives, options=options)

    expected = gradients(oracle, *operands, scale)
    # Where a prefix of one dimension is made a unit vector, parts of the size of the scale cancel out.
    exact = EXACT | {"atol": 1e-12 * max(10.0, float(scale))}
    assert_close(gradients(ours, *operands, scale), expected, **exact)
    return expected


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_each_option_alone(gradients, name, several):
    options = ContrastiveOptions(**option_sets(ROWS, COLUMNS, DIMENSION, 5)[name])
    found = check(gradients, options, positives=POSITIVES if several else None)
    plain = check(
        gradients, ContrastiveOptions(reduction=options.reduction), positives=POSITIVES if several else None
    )
    same = name in ("strips", "none", "sum")
    assert torch.equal(found[0], plain[0]) == same, "the option changes nothing here: a test without force"


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("name", NAMES)
def test_each_option_with_next_to_nothing(gradients, name, rows, columns):
    options = ContrastiveOptions(**option_sets(rows, columns, DIMENSION, 5)[name])
    check(gradients, options, rows=rows, columns=columns)


@pytest.mark.parametrize("columns", [0, 3])
@pytest.mark.parametrize("name", NAMES)
def test_each_option_without_queries(gradients, name, columns):
    options = ContrastiveOptions(**empty_options(option_sets(1, 1, DIMENSION, 5)[name], columns))
    operands = vectors(1, 0, DIMENSION), vectors(2, columns, DIMENSION), torch.tensor(20.0).double()
    found = gradients(lambda q, d, s: info_nce(q, d, scale=s, options=options).loss, *operands)
    assert [tensor.shape for tensor in found[1:]] == [operand.shape for operand in operands]
    assert all(not tensor.any() for tensor in found)


@pytest.mark.parametrize("shape", [(0,), (0, 0), (0, 3)])
@pytest.mark.parametrize("name", NAMES)
def test_without_queries_positives_have_any_width(gradients, name, shape):
    options = ContrastiveOptions(**empty_options(option_sets(1, 1, DIMENSION, 5)[name], 3))
    operands = vectors(1, 0, DIMENSION), vectors(2, 3, DIMENSION), torch.tensor(20.0).double()
    positives = torch.zeros(shape).long()
    found = gradients(
        lambda q, d, s: info_nce(q, d, scale=s, positives=positives, options=options).loss, *operands
    )
    assert all(not tensor.any() for tensor in found)


def empty_options(values, columns):
    """The same for no query."""

    def cut(name, value):
        if isinstance(value, Guide):
            return Guide(vectors(1, 0, 6), vectors(2, columns, 6), value.threshold)
        if not isinstance(value, torch.Tensor):
            return value
        if name in ("document_ids", "document_groups"):
            return torch.zeros(columns).long()
        return torch.full((columns,), -1) if name == "owners" else value[:0]

    return {name: cut(name, value) for name, value in values.items()}


def test_all_options_together(gradients):
    every = option_sets(ROWS, COLUMNS, DIMENSION, 5)
    names = ["ids", "groups", "owners", "margin", "guide", "query_to_query", "document_to_document"]
    names += ["both_directions", "hardness", "focal", "weighted prefixes", "weights"]
    options = ContrastiveOptions(**{key: value for name in names for key, value in every[name].items()})
    assert check(gradients, options, positives=POSITIVES)[0] > 0


def test_rows_of_padding_alone_in_a_row_where_all_is_masked(gradients):
    """With document_to_document each positive has a row, also one that is padding."""
    options = ContrastiveOptions(
        query_groups=torch.zeros(ROWS).long(),
        document_groups=torch.ones(COLUMNS).long(),
        document_to_document=True,
    )
    found = check(gradients, options, positives=POSITIVES)
    assert all(not tensor.any() for tensor in found)


def test_nothing_is_as_large_as_the_embeddings_of_all_positives(monkeypatch):
    """They would be 8 times as large as the queries; a strip holds as many bytes as the queries here."""

    class Largest(TorchDispatchMode):
        bytes = 0

        def __torch_dispatch__(self, function, types, arguments=(), named=None):
            made = function(*arguments, **(named or {}))
            for tensor in made if isinstance(made, (tuple, list)) else [made]:
                if isinstance(tensor, torch.Tensor):
                    self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
            return made

    def counted(*arguments):
        with largest:
            return contrast(*arguments)

    contrast, largest = operation.contrast, Largest()
    monkeypatch.setattr(operation, "contrast", counted)
    queries, documents = vectors(1, 64, 64).requires_grad_(), vectors(2, 64, 64).requires_grad_()
    options = ContrastiveOptions(
        false_negatives=Threshold(0.1),
        guide=Guide(queries.detach(), documents.detach()),
        prefixes=(16, 64),
        strip_bytes=64 * 64 * 8,
    )
    positives = numbers(3, 64, 8, high=64)
    info_nce(queries, documents, scale=20.0, positives=positives, options=options)
    assert 0 < largest.bytes <= 2 * 64 * 64 * 8


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_combination_of_options(gradients, data):
    rows, columns = data.draw(st.integers(1, 8)), data.draw(st.integers(8, 130))
    dimension, seed = data.draw(st.integers(1, 20)), data.draw(st.integers(0, 2**31))
    chosen = data.draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=7))
    every = option_sets(rows, columns, dimension, seed)
    merged = {}
    for name in chosen:
        merged |= {} if "prefixes" in merged and "prefixes" in every[name] else every[name]
    positives = None
    if data.draw(st.booleans()):
        positives = numbers(seed + 2, rows, data.draw(st.integers(1, 3)), low=-1, high=columns)
        positives[:, 0] = positives[:, 0].clamp(min=0)
    scale = data.draw(st.sampled_from([1.0, 20.0, 200.0]))
    with mock.patch.object(strip_torch, "CPU_TILE_BYTES", data.draw(st.sampled_from([1, 1 << 20]))):
        check(
            gradients,
            ContrastiveOptions(**merged),
            positives=positives,
            rows=rows,
            columns=columns,
            dimension=dimension,
            scale=scale,
            seed=seed,
        )


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize(
    "name", ["ids", "groups", "owners", "margin", "guide", "document_to_document", "both_directions"]
)
def test_masked_pairs_and_accuracy_are_counted(name, several):
    merged = option_sets(ROWS, COLUMNS, DIMENSION, 5)
    options = ContrastiveOptions(**merged["ids"], **({} if name == "ids" else merged[name]))
    queries, documents = vectors(3, ROWS, DIMENSION), vectors(4, COLUMNS, DIMENSION)
    positives = POSITIVES if several else torch.arange(ROWS).unsqueeze(1)
    output = info_nce(queries, documents, scale=20.0, positives=positives, options=options)
    cosines = queries @ documents.T
    masked = reference_masked(positives, COLUMNS, options, cosines)
    assert output.masked == masked.sum() > 0
    hits = []
    for row, answers in enumerate(positives.tolist()):
        own = [answer for answer in answers if answer != -1]
        others = [cosines[row, j] for j in range(COLUMNS) if not masked[row, j] and j not in own]
        hits.append(sum(all(cosines[row, j] > other for other in others) for j in own) / len(own))
    assert output.accuracy == pytest.approx(sum(hits) / ROWS)


@pytest.mark.parametrize(("candidate", "masked"), [(-0.52, True), (-0.56, False)])
def test_a_percentage_of_a_positive_below_zero_is_a_distance(candidate: float, masked: bool) -> None:
    """95 % of -0.5 is -0.475, above the positive: as a bound it would keep the false negative at -0.52."""
    queries = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    cosines = torch.tensor([-0.5, candidate], dtype=torch.float64)
    documents = torch.stack([cosines, (1 - cosines.square()).sqrt()], dim=1)
    options = ContrastiveOptions(false_negatives=Threshold(0.95, "percentage"))
    output = info_nce(queries, documents, scale=20.0, options=options)
    assert output.masked == masked
    kept = 0.0 if masked else torch.log1p(torch.tensor(20.0 * (candidate + 0.5)).exp()).item()
    assert output.loss.item() == pytest.approx(kept, rel=1e-6)


def test_sorted_groups_multiply_only_where_they_meet(flops):
    """Two groups in order: half of the tiles hold no pair."""
    queries, documents = vectors(1, 128, 8), vectors(2, 128, 8)
    groups = torch.arange(128) // 64
    options = ContrastiveOptions(query_groups=groups, document_groups=groups, strip_bytes=64 * 128 * 8)
    with mock.patch.object(strip_torch, "CPU_TILE_BYTES", 1), flops() as counted:
        info_nce(queries, documents, scale=20.0, options=options)
    assert counted() == 2 * 128 * 128 * 8 / 2


def test_a_gpu_adds_everything_up_by_sorting(monkeypatch, gradients):
    """Queries that share a positive write to one place: `index_add_` would do so in any order on a GPU."""

    def as_on_a_gpu(target, rows, values):
        target.index_put_((rows,), values, accumulate=True)

    def refuse(*arguments):
        raise AssertionError("index_add_ has no fixed order on a GPU")

    monkeypatch.setattr(gradient_sums, "add_rows", as_on_a_gpu)
    monkeypatch.setattr(torch.Tensor, "index_add_", refuse)
    options = ContrastiveOptions(prefixes=(4, DIMENSION))
    positives = torch.tensor([[0, 5], [0, -1], [5, 0], [3, 0], [5, 18], [5, 0], [0, 3]])
    check(gradients, options, positives=positives)


def test_prefixes_cost_one_product(flops):
    queries, documents = vectors(1, 16, 32).requires_grad_(), vectors(2, 24, 32).requires_grad_()
    options = ContrastiveOptions(prefixes=(4, 8, 16, 32))
    with flops() as counted:
        info_nce(queries, documents, scale=20.0, options=options)
    assert counted() == 3 * 2 * 16 * 24 * 32


@pytest.mark.parametrize(
    "name", ["query_to_query", "document_to_document", "both_directions", "guide", "prefixes"]
)
def test_gradcheck(name):
    options = ContrastiveOptions(
        **option_sets(3, 6, 4, 5)[name], weights=torch.tensor([1.0, 0.5, 2.0]).double(), focal=1.5
    )
    leaves = [vectors(1, 3, 4), vectors(2, 6, 4), torch.tensor(5.0, dtype=torch.float64)]
    positives = torch.tensor([[3, 1], [4, -1], [0, 3]])

    def loss(queries, documents, scale):
        return info_nce(queries, documents, scale=scale, positives=positives, options=options).loss

    assert torch.autograd.gradcheck(loss, [leaf.requires_grad_() for leaf in leaves])


def test_a_zero_vector_has_prefixes_too(gradients):
    """An empty text's embedding: no NaN, and as torch.nn.functional.normalize has it."""
    options = ContrastiveOptions(prefixes=(2, 4))
    documents = torch.eye(5, 4, dtype=torch.float64)
    documents[4] = 0
    queries = torch.ones(3, 4, dtype=torch.float64)
    found = gradients(lambda q: info_nce(q, documents, scale=3.0, options=options).loss, queries)
    expected = gradients(lambda q: reference_info_nce(q, documents, scale=3.0, options=options), queries)
    assert_close(found, expected, **EXACT)


RULES = [Threshold(0.0, "margin"), Threshold(1.0, "percentage")]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dimension", [3, 64, 384, 1024])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("length", [0.01, 1.0, 300.0])
@pytest.mark.parametrize("name", ["false_negatives", "guide", "prefixes"])
def test_duplicates_of_the_positive_are_not_above_it(dtype, dimension, rule, length, name):
    """The positive is multiplied row by row, its duplicate in a matrix product: they differ by rounding."""
    documents = vectors(1, 64, dimension) * length
    queries = (documents + length * vectors(2, 64, dimension)).to(dtype)
    twice = torch.cat([documents, documents]).to(dtype)
    other = torch.ones(64, 2, dtype=dtype), torch.ones(128, 2, dtype=dtype)
    chosen = {"guide": Guide(queries, twice, rule)} if name == "guide" else {"false_negatives": rule}
    chosen |= {"prefixes": (dimension // 2 + 1, dimension)} if name == "prefixes" else {}
    operands = other if name == "guide" else (queries, twice)
    limited = info_nce(*operands, scale=1.0, options=ContrastiveOptions(**chosen))
    # What is left out: others that are truly above, each with its duplicate.
    cosines = queries.double() @ twice.double().T
    if name == "prefixes":
        cosines = normalize(queries.double(), dim=1) @ normalize(twice.double(), dim=1).T
    own = cosines.diagonal().unsqueeze(1)
    assert limited.masked == (cosines > own + 1e-6 * own.abs().amax()).sum()


@pytest.mark.parametrize("dimension", [64, 4096])
def test_the_rounding_of_thresholds_covers_sums_that_are_cut_off(dimension):
    """As tensor cores add up: each sum is cut to fp32, towards 0."""
    side = vectors(1, 1, dimension).float().abs()
    options = ContrastiveOptions(false_negatives=Threshold(0.0))
    total = torch.zeros(1)
    for part in (side * side).unbind(1):
        exact = total.double() + part
        total = exact.float()
        total = torch.where(total > exact, total.nextafter(torch.zeros(1)), total)
    error = ((side.double() ** 2).sum() - total).abs()
    own = torch.zeros(1, 1).long()
    slack = terms._rounding(side, side, own, settings_of(side, options), unit=False)
    assert error < slack[0, 0] < 1e-3


@pytest.mark.parametrize("above", [1e-5, -1e-5])
def test_what_is_above_by_more_than_rounding_is_left_out(above):
    queries = torch.tensor([[1.0, 0.0]])
    documents = torch.tensor([[0.5, 0.0], [0.6 + above, 0.0]])
    options = ContrastiveOptions(false_negatives=Threshold(0.1, "margin"))
    assert info_nce(queries, documents, scale=1.0, options=options).masked == (above > 0)


def test_hand_computed_threshold():
    """Qwen3's rule at margin 0.1: the second document (0.9 against 0.7) is left out, the third not."""
    queries = torch.tensor([[1.0, 0.0]])
    documents = torch.tensor([[0.7, 0.0], [0.9, 0.0], [0.75, 0.0]])
    output = info_nce(
        queries, documents, scale=10.0, options=ContrastiveOptions(false_negatives=Threshold(0.1))
    )
    assert_close(output.loss, torch.tensor(0.5).exp().log1p())
    assert output.masked == 1


def test_a_gpu_works_on_a_strip_in_tiles_too():
    """Masks and a guide's similarities of a whole strip would take several times its memory."""
    columns = Columns(torch.empty(1 << 20, 8, device="meta"))
    rows = Rows(torch.empty(512, 8, device="meta"), torch.empty(512, 1, dtype=torch.int64, device="meta"))
    strips = strip_torch.TorchStrips(Term(rows, columns, torch.ones((), device="meta"), (8,)), 64)
    largest = max(tile.stop - tile.start for tile in strips.tiles)
    assert strips.scratch.nbytes == 64 * largest * 4 == strip_torch.GPU_TILE_BYTES
