"""Files that appear whole: what a killed process leaves of one goes with the next."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lit_retrofit.data import writing
from lit_retrofit.data.writing import new_file, new_text_file

KILLED = """if True:
    import os, pathlib, signal, sys
    from lit_retrofit.data.writing import new_file
    with new_file(pathlib.Path(sys.argv[1]), overwrite=False) as partial:
        partial.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed(tmp_path):
    path = tmp_path / "odd [1].name.jsonl"
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    (left,) = tmp_path.iterdir()
    assert left.read_text() == "half"
    with new_text_file(path, overwrite=False) as file:
        file.write("whole")
    assert [found.name for found in tmp_path.iterdir()] == [path.name] and path.read_text() == "whole"


@pytest.mark.parametrize("what", ["a process that runs", "another host", "another file"])
def test_what_others_write_is_left_alone(tmp_path, monkeypatch, what):
    path, gone = tmp_path / "a", 2**22 + 1  # more than Linux numbers processes to
    with monkeypatch.context() as there:
        if what == "another host":
            there.setattr(writing.platform, "node", lambda: "elsewhere")
        other = tmp_path / f"a.{writing.platform.node()}" if what == "another file" else path
        theirs = writing._partial(other, str(os.getppid() if what == "a process that runs" else gone))
    theirs.write_text("half")
    with new_file(path, overwrite=False) as partial:
        partial.write_text("whole")
    assert theirs.read_text() == "half" and path.read_text() == "whole"
