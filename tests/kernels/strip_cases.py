"""Cases for the Triton kernels of the contrastive loss under Triton's interpreter, against plain fp64.

`test_interpreted.py` runs this file in a process of its own: Triton reads TRITON_INTERPRET when it is
imported, and torch may import it early. The interpreter multiplies bf16 wrongly (bf16 is tested as fp32 that
holds bf16 numbers), and rounds towards zero where it stores bf16.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from retrofit_kernels._loss import strip_triton, strip_tuning
from retrofit_kernels._loss.problem import Columns, Rows, Term
from retrofit_kernels._loss.strip_kernel import strip
from retrofit_kernels._loss.strip_triton import TritonStrips

FLAGS = ("ids", "groups", "owners", "threshold", "guide", "prefixes")


def similarities(term):
    """(M, R, N) in fp64."""
    left, right = term.rows.embeddings.double(), term.columns.embeddings.double()
    products = torch.stack([left[:, :prefix] @ right[:, :prefix].T for prefix in term.prefixes])
    if term.rows.inverse_norms is not None:
        norms = term.rows.inverse_norms.double(), term.columns.inverse_norms.double()
        products = products * norms[0].unsqueeze(2) * norms[1].unsqueeze(1)
    return products


def kept(term, similarity):
    """(M, R, N) bool."""
    rows, columns = term.rows, term.columns
    numbers = torch.arange(len(columns.embeddings))
    keep = ~(rows.held_out.unsqueeze(2) == numbers).any(1)
    if rows.ids is not None:
        same = rows.ids[:, None, :, None] == columns.ids[None, :, None, :]
        keep &= ~(same & (rows.ids != -1)[:, None, :, None]).flatten(2).any(2)
    if rows.groups is not None:
        keep &= rows.groups.unsqueeze(1) == columns.groups
    if rows.owner is not None:
        keep &= (columns.owners == -1) | (columns.owners == rows.owner.unsqueeze(1))
    if rows.guide is not None:
        keep &= rows.guide.double() @ columns.guide.double().T <= rows.guide_threshold.double().unsqueeze(1)
    keep = keep.expand_as(similarity).clone()
    if rows.threshold is not None:
        keep &= similarity <= rows.threshold.double().unsqueeze(2)
    return keep


def between(similarity):
    """A threshold for each row, in the middle of the widest gap among the middle half of its similarities."""
    ordered = similarity.sort(-1).values
    count = ordered.shape[-1]
    middle = ordered[..., count // 4 : max(count // 4 + 2, 3 * count // 4)]
    if middle.shape[-1] < 2:
        return ordered[..., 0].float() + 1
    gap, place = middle.diff(dim=-1).max(-1, keepdim=True)
    return (middle.gather(-1, place) + gap / 2).squeeze(-1).float()


def make_term(
    rows, columns, dimension, flags=(), *, gain=20.0, seed=0, dtype=torch.float32, held_out=1, prefixes=None
):
    generator = torch.Generator().manual_seed(seed)

    def embeddings(count, width=dimension):
        vectors = torch.randn(count, width, generator=generator, dtype=torch.float64)
        return torch.nn.functional.normalize(vectors, dim=1)

    def numbers(high, *shape, low=0):
        return torch.randint(low, high, shape, generator=generator)

    right = embeddings(columns)
    left = 0.6 * right[torch.arange(rows) % columns] + 0.8 * embeddings(rows)
    left, right = (side.to(dtype if dtype != torch.bfloat16 else torch.float32) for side in (left, right))
    if dtype == torch.bfloat16:
        left, right = left.bfloat16().float(), right.bfloat16().float()
    one = Rows(left, numbers(columns, rows, held_out, low=-1))
    other = Columns(right)
    if "ids" in flags:  # some beyond 32 bits, some negative
        ids = torch.cat([numbers(12, 9) + (1 << 40), numbers(12, 9), -numbers(12, 9)])
        one = replace(one, ids=torch.where(numbers(4, rows, 3) == 0, -1, ids[numbers(27, rows, 3)]))
        other = replace(other, ids=torch.where(numbers(4, columns, 2) == 0, -1, ids[numbers(27, columns, 2)]))
    if "groups" in flags:
        one = replace(one, groups=numbers(3, rows).sort().values - 1)
        other = replace(other, groups=numbers(3, columns).sort().values - 1)
    if "owners" in flags:
        one = replace(one, owner=torch.arange(rows) + 5)
        other = replace(other, owners=numbers(rows + 5, columns, low=-rows).clamp(min=-1))
    if "guide" in flags:
        guides = embeddings(rows, 40).float(), embeddings(columns, 40).float()
        threshold = between(guides[0].double() @ guides[1].double().T)
        one = replace(one, guide=guides[0], guide_threshold=threshold)
        other = replace(other, guide=guides[1])
    if "prefixes" in flags:
        prefixes = prefixes or tuple(sorted({max(1, dimension // 5), max(1, dimension // 2), dimension}))
        one = replace(one, inverse_norms=norms(left, prefixes))
        other = replace(other, inverse_norms=norms(right, prefixes))
    term = Term(one, other, torch.tensor(gain), prefixes or (dimension,))
    if "threshold" in flags:
        term = replace(term, rows=replace(one, threshold=between(similarities(term))))
    return term


def norms(embeddings, prefixes):
    return torch.stack(
        [1 / embeddings[:, :prefix].float().norm(dim=1).clamp(min=1e-12) for prefix in prefixes]
    )


def own_logits(term, seed=1):
    """(M, R): a positive's logit for each row, that of column i for row i."""
    similarity = similarities(term)
    own = torch.arange(similarity.shape[1]) % similarity.shape[2]
    return (similarity[:, torch.arange(len(own)), own] * term.gain).float()


def check(term, preferred=None, height=48, precision="ieee"):
    """Fill all strips and compare everything that is known of them with fp64; return the offsets."""
    strips = TritonStrips(term, precision)
    rows, columns = len(term.rows.embeddings), len(term.columns.embeddings)
    preferred = own_logits(term) if preferred is None else preferred
    similarity = similarities(term)
    keep = kept(term, similarity)
    logits = (similarity * term.gain.double()).masked_fill(~keep, -torch.inf)
    offsets = []
    for begin, end in strips.bounds(rows, height):
        entries = torch.full((len(term.prefixes), end - begin, columns), torch.nan, dtype=strips.dtype)
        filled = strips.fill(begin, end, preferred[:, begin:end], entries)
        alone = strips.fill(begin, end, preferred[:, begin:end], None)
        expected = (logits[:, begin:end] - filled.offset.double().unsqueeze(2)).exp()
        rounding = 2**-7 if strips.dtype == torch.bfloat16 else 0
        error = 3e-6 * max(1.0, term.gain.item())
        close = {"rtol": error, "atol": 1e-35}
        torch.testing.assert_close(entries.double(), expected, rtol=error + rounding, atol=1e-35)
        torch.testing.assert_close(filled.total.double(), expected.sum(2), **close)
        torch.testing.assert_close(filled.largest.double(), expected.amax(2), **close)
        for one, two in zip(filled, alone, strict=True):
            assert (one is None and two is None) or torch.equal(one, two)
        if filled.kept is None:
            assert keep.any(2).all() or columns == 1
        else:
            assert torch.equal(filled.kept, keep[-1, begin:end].sum(1))
        raised = filled.offset != preferred[:, begin:end]
        least = torch.maximum(logits[:, begin:end].amax(2), preferred[:, begin:end].double())
        torch.testing.assert_close(filled.offset[raised].double(), least[raised], rtol=1e-5, atol=1e-4)
        assert filled.total.isfinite().all()
        offsets.append(filled.offset)
    return torch.cat(offsets, 1)


@pytest.mark.parametrize("flag", ["none", *FLAGS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_each_rule_alone(flag, dtype):
    check(make_term(61, 130, 72, (flag,), dtype=dtype))


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 70), columns=st.integers(1, 140), dimension=st.integers(32, 150),
    flags=st.sets(st.sampled_from(FLAGS)), gain=st.sampled_from([1.0, 20.0, 200.0]),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    held_out=st.integers(1, 3), seed=st.integers(0, 99),
)  # fmt: skip
def test_rules_together(rows, columns, dimension, flags, gain, dtype, held_out, seed):
    check(make_term(rows, columns, dimension, flags, gain=gain, dtype=dtype, held_out=held_out, seed=seed))


@pytest.mark.parametrize("dimension", [32, 33, 96, 1000, 4096])
def test_dimensions(dimension):
    check(make_term(40, 70, dimension, ("threshold",)))


@pytest.mark.parametrize("prefixes", [(32, 64, 96), (1, 2, 40, 71, 96), (96,)])
def test_prefixes_anywhere(prefixes):
    check(make_term(40, 70, 96, ("prefixes", "threshold"), prefixes=prefixes))


def test_rows_whose_columns_are_all_left_out():
    term = make_term(50, 90, 48, ("groups",))
    term = replace(term, rows=replace(term.rows, groups=torch.full((50,), 7)))
    check(term)
    strips = TritonStrips(term, "ieee")
    filled = strips.fill(0, 50, own_logits(term), None)
    assert not filled.total.any() and not filled.largest.any() and not filled.kept.any()


def test_groups_that_do_not_meet_are_not_multiplied():
    # What lies in the second column tile would poison the products of the second prefix.
    term = make_term(64, 128, 48, ("groups", "guide", "prefixes"), prefixes=(16, 48))
    groups = (torch.arange(64) >= 32).long(), (torch.arange(128) >= 64).long()
    term.columns.embeddings[64:] = torch.nan
    term = replace(
        term, rows=replace(term.rows, groups=groups[0]), columns=replace(term.columns, groups=groups[1])
    )
    entries = torch.full((2, 64, 128), 7.0)
    filled = TritonStrips(term, "ieee").fill(0, 64, own_logits(term).nan_to_num(), entries)
    assert filled.total[:, :32].isfinite().all() and not entries[:, :32, 64:].any()
    assert filled.total[1, 32:].isnan().any()


@pytest.mark.parametrize("gain", [1.0, 100.0, 200.0])
@pytest.mark.parametrize("flags", [(), ("threshold", "ids"), ("prefixes",), FLAGS])
def test_negatives_far_above_the_positive(gain, flags):
    term = make_term(70, 130, 64, flags, gain=gain)
    term.rows.embeddings[40:] *= -1  # their columns are as far from them as can be
    if "threshold" in flags:
        term = replace(term, rows=replace(term.rows, threshold=between(similarities(term))))
    preferred = own_logits(term)
    offsets = check(term, preferred)
    assert gain < 100 or (offsets > preferred)[:, 40:].any()


@pytest.mark.parametrize("gain", [2.0**-24, 2.0**24])
@pytest.mark.parametrize("flags", [(), ("threshold", "ids"), FLAGS])
def test_the_least_and_largest_scales(gain, flags):
    """What is left out is 0, and no exponential overflows."""
    term = make_term(70, 130, 64, flags, gain=gain)
    preferred = own_logits(term)
    preferred[:, ::2] = -(2.0**30)
    strips = TritonStrips(term, "ieee")
    entries = torch.empty(len(term.prefixes), 70, 130)
    filled = strips.fill(0, 70, preferred, entries)
    assert filled.total.isfinite().all() and entries.isfinite().all()
    assert not entries[~kept(term, similarities(term))].any()


def test_an_offset_is_raised_only_where_the_sum_could_overflow():
    term = make_term(64, 100, 32, gain=60.0)
    assert torch.equal(check(term, torch.zeros(1, 64)), torch.zeros(1, 64))
    low = torch.zeros(1, 64)
    low[0, 5] = -90.0
    offsets = check(term, low)
    assert offsets[0, 5] > -60 and torch.equal(offsets[0, 6:], low[0, 6:])


def test_rows_without_a_positive_have_a_finite_offset():
    term = make_term(40, 90, 48, ("groups",))
    preferred = own_logits(term)
    preferred[0, ::3] = -torch.inf
    term.rows.groups[:6] = 9  # nothing is kept either
    filled = TritonStrips(term, "ieee").fill(0, 40, preferred, None)
    assert filled.offset.isfinite().all() and filled.total.isfinite().all()


def test_duplicates_are_left_out_by_their_ids_and_only_by_them():
    term = make_term(30, 60, 40)
    right = term.columns.embeddings
    right[30:] = right[:30]
    own = torch.arange(30)
    rows = replace(term.rows, held_out=own.unsqueeze(1))
    without = replace(term, rows=rows)
    ids = torch.cat([own, own]) + (1 << 33)
    columns = replace(term.columns, ids=ids.unsqueeze(1))
    marked = replace(term, rows=replace(rows, ids=ids[:30].unsqueeze(1)), columns=columns)
    check(without)
    check(marked)
    strips = [TritonStrips(each, "ieee") for each in (without, marked)]
    totals = [each.fill(0, 30, own_logits(term), None).total for each in strips]
    assert (totals[0] > totals[1] + 0.5).all()


def test_embeddings_may_have_any_strides():
    term = make_term(40, 70, 48, ("guide", "owners"))
    whole = check(term)
    wide = torch.zeros(40, 60)
    wide[:, 5:53] = term.rows.embeddings
    strided = replace(
        term,
        rows=replace(term.rows, embeddings=wide[:, 5:53], guide=term.rows.guide.T.contiguous().T),
        columns=replace(term.columns, embeddings=term.columns.embeddings.T.contiguous().T),
    )
    assert torch.equal(check(strided), whole)


@pytest.mark.parametrize("shape", [(1, 5, 70), (3, 2, 70)])
def test_strips_of_more_than_2_to_the_31_elements(shape):
    # The memory between the rows is never touched, so it is never there.
    prefixes, rows, columns = shape
    dtype = torch.float16  # for strips in bf16
    term = make_term(rows, columns, 48, ("prefixes",), prefixes=(16, 32, 48)[-prefixes:], dtype=dtype)
    strips = TritonStrips(term, "ieee")
    far = torch.empty((prefixes, rows, (1 << 29) + 64), dtype=strips.dtype)[:, :, :columns]
    near = torch.empty(shape, dtype=strips.dtype)
    for entries in (far, near):
        filled = strips.fill(0, rows, own_logits(term), entries)
        moments = strips.mix(0, rows, entries, torch.ones_like(filled.offset), filled.offset)
    assert far.stride(0) * (prefixes - 1) + far.stride(1) * (rows - 1) > 1 << 31
    assert torch.equal(far, near) and moments[0].isfinite().all()


def test_room_between_the_rows_is_zero_up_to_a_multiple_of_16_and_untouched_beyond():
    term = make_term(40, 70, 48)
    strips = TritonStrips(term, "ieee")
    room, tight = torch.full((1, 40, 90), 7.0), torch.full((1, 40, 70), 7.0)
    for entries in (room[:, :, :70], tight):
        strips.fill(0, 40, own_logits(term), entries)
    assert torch.equal(room[:, :, :70], tight)
    assert not room[:, :, 70:80].any() and (room[:, :, 80:] == 7).all()


def test_room_that_the_last_row_has_not_is_not_written():
    term = make_term(40, 70, 48)
    memory = torch.full((39 * 80 + 70,), 7.0)
    entries = memory.as_strided((1, 40, 70), (40 * 80, 80, 1))
    TritonStrips(term, "ieee").fill(0, 40, own_logits(term), entries)
    assert (memory.as_strided((39, 10), (80, 1), 70) == 7).all()


def test_tuning_tries_what_fits(monkeypatch):
    monkeypatch.setattr(strip_tuning, "capability", lambda device: 89)
    tuned = strip_tuning.tuned_strip()
    assert set(tuned.keys) < set(strip.arg_names)
    rows, guide = torch.zeros(1, 1, dtype=torch.float16), torch.zeros(1, 1)
    for beside, depth in ((None, 64), (rows, 64), (guide, 32)):
        tried = strip_tuning.fitting(tuned.configs, {"rows": rows, "guide_rows": beside})
        assert 10 < len(tried) < len(tuned.configs)
        assert {config.kwargs["BLOCK_K"] for config in tried} == {depth}


@pytest.mark.parametrize("rows, columns", [(0, 5), (5, 0)])
def test_nothing_to_compare(rows, columns):
    term = make_term(8, 8, 32, ("ids",))
    term = replace(
        term,
        rows=Rows(term.rows.embeddings[:rows], term.rows.held_out[:rows], term.rows.ids[:rows]),
        columns=Columns(term.columns.embeddings[:columns], term.columns.ids[:columns]),
    )
    filled = TritonStrips(term, "ieee").fill(0, rows, torch.zeros(1, rows), torch.empty(1, rows, columns))
    assert filled.total.shape == (1, rows) and not filled.total.any() and not filled.kept.any()


def test_tuned_tiles_share_the_slots_of_the_partial_sums(monkeypatch):
    # A tile of 64 columns fills one slot of 16 and clears three, whatever stood there.
    monkeypatch.setattr(strip_triton, "autotuning", lambda: True)
    monkeypatch.setattr(strip_triton, "TUNED_SLOT", 16)
    monkeypatch.setattr(strip_triton, "tuned_strip", lambda: _WithTiles([]))
    check(make_term(50, 150, 40, ("threshold", "ids")))


def test_tuning_tells_masks_apart_and_leaves_out_the_search_for_maxima(monkeypatch):
    """Ids, groups and owners are two int32 tensors each: by their types they are one kernel."""
    launches = []
    monkeypatch.setattr(strip_triton, "autotuning", lambda: True)
    monkeypatch.setattr(strip_triton, "TUNED_SLOT", 16)
    monkeypatch.setattr(strip_triton, "tuned_strip", lambda: _WithTiles(launches))
    seen = set()
    for name in ("none", "ids", "groups", "owners"):
        launches.clear()
        check(make_term(20, 70, 40, (name,)))
        keys = {tuple(str(launch[key]) for key in strip_tuning.KEY) for launch in launches}
        assert len(keys) == 2  # with a strip, and sums alone; not the search for the largest
        assert not keys & seen
        seen |= keys


class _WithTiles:
    def __init__(self, launches):
        self.launches = launches

    def __getitem__(self, grid):
        def launch(*arguments, **named):
            self.launches.append(named)
            strip[grid](*arguments, **named, BLOCK_M=32, BLOCK_N=64, BLOCK_K=32, num_warps=4, num_stages=1)

        return launch


def test_mixing_in_parts(monkeypatch):
    """Where the rows are too many for one grid."""
    term = make_term(100, 70, 48, ("prefixes",))
    strips = TritonStrips(term, "ieee")
    found, grids = [], []

    class Watched:
        def __getitem__(self, grid):
            grids.append(grid)
            return mix[grid]

    mix = strip_triton.mix
    monkeypatch.setattr(strip_triton, "mix", Watched())
    for most in (1 << 20, 32):
        monkeypatch.setattr(strip_triton, "MOST_MIXED", most)
        entries = torch.empty(3, 100, 70)
        offset = strips.fill(0, 100, own_logits(term), entries).offset
        found.append([*strips.mix(0, 100, entries, torch.ones_like(offset), offset), entries])
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-6, atol=1e-6)
    assert [rows for _, rows in grids] == [4, 1, 1, 1, 1]


@settings(max_examples=15, deadline=None)
@given(
    rows=st.integers(1, 80), columns=st.integers(1, 200), dimension=st.integers(34, 90),
    gain=st.sampled_from([1.0, 30.0, 200.0]), flags=st.sampled_from([(), ("threshold",), ("ids", "groups")]),
    dtype=st.sampled_from([torch.float32, torch.float16]), seed=st.integers(0, 99),
)  # fmt: skip
def test_mixing(rows, columns, dimension, gain, flags, dtype, seed):
    term = make_term(rows, columns, dimension, ("prefixes", *flags), gain=gain, seed=seed, dtype=dtype)
    strips = TritonStrips(term, "ieee")
    entries = torch.empty(len(term.prefixes), rows, columns, dtype=strips.dtype)
    filled = strips.fill(0, rows, own_logits(term), entries)
    generator = torch.Generator().manual_seed(seed)
    factor = torch.rand(filled.offset.shape, generator=generator) / (1 + filled.total)
    exponential = entries.double()
    weighted = exponential * factor.double().unsqueeze(2)
    similarity = similarities(term)
    left, right = term.rows.inverse_norms.double(), term.columns.inverse_norms.double()
    scaled = weighted * left.unsqueeze(2) * right.unsqueeze(1)
    expected = scaled.flip(0).cumsum(0).flip(0)
    by_row, by_column = strips.mix(0, rows, entries, factor, filled.offset)
    half = strips.dtype == torch.bfloat16
    torch.testing.assert_close(entries.double(), expected, rtol=2**-6 if half else 1e-4, atol=1e-30)
    # A similarity is recovered to within the rounding of the exponential, over the gain.
    slack = (2**-7 if half else 4e-6 * gain) / gain + 2e-6
    moment = weighted * similarity
    row_slack, column_slack = weighted.sum(2) * slack, weighted.sum(1) * slack
    assert ((by_row - moment.sum(2)).abs() <= row_slack + 1e-30).all()
    assert ((by_column - moment.sum(1)).abs() <= column_slack + 1e-30).all()
