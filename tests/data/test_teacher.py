"""A teacher's embeddings on disk: found by text, refused where they are something else."""

from __future__ import annotations

import numpy as np
import pytest

from lit_retrofit.data.teacher import Teacher, write_teacher
from lit_retrofit.errors import UserError


def write(folder, queries: int = 5, width: int = 4, dtype=np.float32) -> np.ndarray:
    rows = np.random.default_rng(0).normal(size=(queries, width)).astype(dtype)
    write_teacher(folder, "query", [f"q{i}" for i in range(queries)], rows)
    write_teacher(folder, "document", ["d"], rows[:1])
    return rows


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_every_text_gets_its_own_row(tmp_path, dtype) -> None:
    rows = write(tmp_path, 500, dtype=dtype)
    order = np.random.default_rng(1).permutation(500)
    found = Teacher(tmp_path).look_up([f"q{i}" for i in order], "query")
    assert np.array_equal(found.numpy(), rows[order].astype(np.float32))


def test_a_text_given_twice_is_held_once(tmp_path) -> None:
    write(tmp_path)
    write_teacher(tmp_path, "query", ["a", "b", "a"], np.array([[1], [2], [1]], np.float32))
    assert len(np.load(tmp_path / "query.embeddings.npy")) == 2


def test_roles_are_kept_apart_and_what_is_missing_is_named(tmp_path) -> None:
    write(tmp_path)
    with pytest.raises(UserError, match="no embedding of the document 'q1 and more'") as error:
        Teacher(tmp_path).look_up(["d", "q1\nand more", "x"], "document")
    assert "\n" not in str(error.value)


def test_what_is_no_teacher(tmp_path) -> None:
    with pytest.raises(UserError, match=r"query\.keys\.npy: cannot be read"):
        Teacher(tmp_path / "nothing")
    write(tmp_path)
    np.save(tmp_path / "document.embeddings.npy", np.zeros((1, 3), np.float32))
    with pytest.raises(UserError, match="different lengths"):
        Teacher(tmp_path)
    np.save(tmp_path / "document.embeddings.npy", np.zeros((2, 4), np.float32))
    with pytest.raises(UserError, match="do not match"):
        Teacher(tmp_path)
    np.save(tmp_path / "document.embeddings.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(UserError, match=r"document\.embeddings\.npy: cannot be read"):
        Teacher(tmp_path)
    with pytest.raises(ValueError, match="float64"):
        write_teacher(tmp_path, "query", ["a"], np.zeros((1, 2)))
