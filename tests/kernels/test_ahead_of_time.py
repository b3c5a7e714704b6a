"""All Triton kernels in machine code: no spills, no traps, within shared memory, on the tensor cores.

``python tests/kernels/strip_resources.py --write`` and ``neighbour_resources.py --write`` make the golden
figures of the installed Triton anew. With ``--cases all`` they compile what would be too much for every run
of the tests: every kind at every usual dimension and 16-bit type, and every rule alone. Figures are golden
for the version that made them; of any other the hard limits are asked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from retrofit_kernels._search.configs import UNKNOWN, lane_bin_config
from retrofit_kernels.configs import SHARED_MEMORY

HERE = Path(__file__).parent
NAMES = ("strip", "neighbour")
GOLDEN = {"strip": HERE / "golden" / "strip.json", "neighbour": HERE / "golden" / "neighbours.json"}
CAPABILITIES = [capability for capability in SHARED_MEMORY if capability >= 80]
OTHER_VERSIONS = ("3.6.0", "3.8.0")
INTERPRETED_IN = "3.8.0"
"""One is enough: no user runs the interpreter. That of 3.6 needs a NumPy before 2.4."""
INTERPRETED = "each_rule_alone or adversarial or mixing or real_scores"
"""Cases that are enough to see that the interpreter of another version understands the kernels."""
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


def run(command, libraries=None, **variables):
    """Standard output of a Python process, with the packages of a folder before those of the environment."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    if libraries is not None:
        paths = [str(libraries), environment.get("PYTHONPATH")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    environment |= variables
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def measure(name, *arguments, libraries=None):
    return json.loads(run([str(HERE / f"{name}_resources.py"), *arguments], libraries))


def check(cases):
    assert cases
    for name, found in cases.items():
        capability = int(name.split()[0].removeprefix("sm_"))
        assert found["spills"] == found["stack"] == found["traps"] == 0, (name, found)
        assert found["shared"] <= SHARED_MEMORY[capability], (name, found)
        no_products = any(word in name.split() for word in ("mix", "ieee", "rescore"))
        assert (found["tensor_core"] == 0) == no_products, (name, found)


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_configuration_of_the_tables(name):
    measured = measure(name)
    check(measured["cases"])
    golden = json.loads(GOLDEN[name].read_text())
    if measured["version"] in golden:
        assert measured["cases"].items() <= golden[measured["version"]].items()


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("version", OTHER_VERSIONS)
def test_other_versions_of_triton(version, tmp_path):
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path)]
    done = subprocess.run([*pip, f"triton=={version}"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"pip cannot install Triton {version}: {done.stderr.strip().splitlines()[-1:]}")
    for name in NAMES:
        measured = measure(name, "--cases", "few", libraries=tmp_path)
        assert version.startswith(measured["version"])
        check(measured["cases"])
    if version != INTERPRETED_IN:
        return
    files = [str(HERE / f"{name}_cases.py") for name in ("strip", "contrastive", "neighbour")]
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", INTERPRETED, *files]
    variables = {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    assert " passed" in run(command, tmp_path, **variables)


@pytest.mark.parametrize("name", NAMES)
def test_golden_figures_keep_the_limits(name):
    for cases in json.loads(GOLDEN[name].read_text()).values():
        check(cases)


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_golden_figures_are_of_all_cases(name):
    names = measure(name, "--cases", "all", "--names")
    for cases in json.loads(GOLDEN[name].read_text()).values():
        assert sorted(cases) == sorted(names)


def lane_bins(capability, itemsize, dimension=768):
    return lane_bin_config(divmod(capability, 10), itemsize, dimension)


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("itemsize", [2, 4])
def test_the_usual_dimensions_share_one_configuration_of_the_search(capability, itemsize):
    """What is compiled for one is launched for all: the dimension is a runtime argument."""
    first, *others = (lane_bins(capability, itemsize, dimension) for dimension in (384, 768, 1024))
    assert all(other == first for other in others)
    assert all(dimension % first.depth == 0 for dimension in (384, 768, 1024))


@pytest.mark.parametrize("capability", [*CAPABILITIES, 75, 103, 121, 130])
@pytest.mark.parametrize("itemsize", [2, 4])
def test_every_tile_of_the_search_fits_into_shared_memory(capability, itemsize):
    for dimension in (1, 31, 64, 100, 384, 4096):
        tile = lane_bins(capability, itemsize, dimension)
        assert 0 < tile.shared_bytes(itemsize) <= SHARED_MEMORY.get(capability, 48 << 10)
        assert tile.stages >= 1


def test_the_search_gives_an_unknown_gpu_a_small_tile_and_one_stage():
    assert lane_bins(130, 2) == lane_bin_config(None, 4, 768) == UNKNOWN
    assert (UNKNOWN.rows * UNKNOWN.columns, UNKNOWN.stages) == (1024, 1)
