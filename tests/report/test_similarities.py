from pathlib import Path

import numpy as np
import pytest

from lit_retrofit.data.records import Document, Query, RetrievalSet
from lit_retrofit.errors import UserError
from lit_retrofit.report.similarities import HARDEST, QUERIES, draw, read_similarities

KEY = ("monolingual", "de", "de")


def data(queries, relevant):
    ids = [f"d{i}" for i in range(30)] + ["a b"]
    corpus = (*tuple(Document(id, id, "de") for id in ids), Document("e0", "e0", "en"))
    names = [f"q{i}" for i in range(queries)]
    found = tuple(Query(name, name, "de") for name in names)
    return RetrievalSet("set", found, corpus, {name: dict.fromkeys(relevant, 1) for name in names})


def write(folder: Path, lines):
    (folder / "run").mkdir()
    (folder / "run" / "de-de.trec").write_text("".join(line + "\n" for line in lines))
    return folder


def test_relevant_documents_and_the_best_others(tmp_path):
    lines = [f"q0 Q0 d{i} {i + 1} {1 - i / 100:.2f} model" for i in range(20)]
    write(tmp_path, [*lines, "q0 Q0 a%20b 21 0.5 model"])
    # e0 is in another language's corpus; d29 was not found
    found = read_similarities(tmp_path, [KEY], data(1, ["d3", "d15", "d29", "a b", "e0"]))
    assert found.positives.tolist() == [0.97, 0.85, 0.5]
    others = [1 - i / 100 for i in range(20) if i not in (3, 15)][:HARDEST]
    assert found.negatives.tolist() == pytest.approx(others)
    assert (found.missed, found.queries) == (1, 1)
    pairs = [(p > n) + (p == n) / 2 for p in found.positives for n in found.negatives]
    assert found.above == pytest.approx(np.mean(pairs))


def test_of_a_large_task_the_first_queries_are_read(tmp_path):
    many = QUERIES + 3
    write(tmp_path, [f"q{i} Q0 d{j} {j + 1} {0.9 - j / 10} m" for i in range(many) for j in range(2)])
    found = read_similarities(tmp_path, [KEY], data(many, ["d0"]))
    assert (found.queries, len(found.positives), len(found.negatives)) == (QUERIES, QUERIES, QUERIES)


def test_the_histograms_count_every_value_over_the_same_bins(tmp_path):
    rng = np.random.default_rng(0)
    sides = {}
    for name, shift in (("before", 0.0), ("after", 0.5)):
        scores = np.sort(rng.random(20))[::-1] + shift
        (tmp_path / name).mkdir()
        lines = [f"q0 Q0 d{i} {i + 1} {score:.9f} m" for i, score in enumerate(scores)]
        sides[name] = read_similarities(write(tmp_path / name, lines), [KEY], data(1, ["d1", "d2"]))
    pictures = draw(sides)
    values = np.concatenate([part for one in sides.values() for part in (one.positives, one.negatives)])
    for drawn, side in zip(pictures, sides.values(), strict=True):
        relevant, others = drawn.chart.series
        assert relevant.name == "relevant documents" and others.name == "the 10 best others"
        for series, found in ((relevant, side.positives), (others, side.negatives)):
            corners = [tuple(map(float, corner.split(","))) for corner in series.points.split()]
            heights = np.array([120 - y for _, y in corners[1:-1:2]])
            counts = np.histogram(found, np.linspace(values.min(), values.max(), 41))[0]
            assert heights / heights.sum() == pytest.approx(counts / counts.sum(), abs=2e-3)
    assert pictures[0].chart.ticks == pictures[1].chart.ticks
    assert "mean 0." in pictures[0].chart.title


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["q0 Q0 d0 1 0.9 m", "q0 Q0 d1"], r"de-de.trec:2: no line of a TREC run .*--overwrite"),
        (["q0 Q0 d0 1 high m"], r"de-de.trec:1: no line of a TREC run"),
        (["q0 Q0 d9 1 0.9 m"], r"no relevant documents in the rankings of 1 queries"),
        (["q0 Q0 d0 1 0.9 m"], r"no other documents in the rankings of 1 queries"),
    ],
)
def test_a_damaged_run_is_told(tmp_path, lines, message):
    with pytest.raises(UserError, match=message):
        read_similarities(write(tmp_path, lines), [KEY], data(1, ["d0"]))


def test_a_missing_run_is_told(tmp_path):
    with pytest.raises(UserError, match=r"run/de-de.trec is missing; evaluate again"):
        read_similarities(tmp_path, [KEY], data(1, ["d0"]))
