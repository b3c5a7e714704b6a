"""The contrastive loss's kernels in machine code: no spills, no traps, within shared memory, on tensor cores.

``python tests/kernels/strip_resources.py --write`` makes the golden figures of the installed Triton anew.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from retrofit_kernels.configs import SHARED_MEMORY

SCRIPT = Path(__file__).with_name("strip_resources.py")
GOLDEN = Path(__file__).parent / "golden" / "strip.json"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed"),
]


def measure(*arguments, libraries=None):
    """What strip_resources.py prints, with the packages of a folder before those of the environment."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    if libraries is not None:
        environment["PYTHONPATH"] = str(libraries)
    command = [sys.executable, str(SCRIPT), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def check(cases):
    assert cases
    for name, found in cases.items():
        capability = int(name.split()[0].removeprefix("sm_"))
        assert found["spills"] == found["stack"] == found["traps"] == 0, (name, found)
        assert found["shared"] <= SHARED_MEMORY[capability], (name, found)
        no_products = " mix " in name or " ieee " in name
        assert (found["tensor_core"] == 0) == no_products, (name, found)


def test_every_configuration_of_the_table():
    measured = measure()
    check(measured["cases"])
    golden = json.loads(GOLDEN.read_text())
    if measured["version"] in golden:
        assert measured["cases"] == golden[measured["version"]]


@pytest.mark.parametrize("version", ["3.6.0", "3.8.0"])
def test_other_versions_of_triton(version, tmp_path):
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path)]
    done = subprocess.run([*pip, f"triton=={version}"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"pip cannot install Triton {version}: {done.stderr.strip().splitlines()[-1:]}")
    measured = measure("--few", libraries=tmp_path)
    assert version.startswith(measured["version"])
    check(measured["cases"])
