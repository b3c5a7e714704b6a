"""The structure that the rest relies on: imports run downwards, nothing shadows, start-up is quick."""

import ast
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lit_retrofit.cli import COMMANDS, TRAINER_COMMANDS

ROOT = Path(__file__).parents[1]
# What each package may import of lit_retrofit, beside itself; `errors` is open to all.
BELOW = {
    "quickstart": set(),
    "data": {"quickstart"},
    "model": {"quickstart"},
    "retrieval": {"data", "model"},
    "evaluation": {"data", "model", "retrieval", "quickstart"},
    "mining": {"data", "model", "retrieval", "quickstart"},
    "cleaning": {"data", "model", "retrieval", "quickstart", "evaluation"},  # test sets that may leak
    "synthesis": {"data", "model", "retrieval", "quickstart"},
    "training": {"data", "model", "retrieval", "evaluation", "mining"},
    "merging": {"data", "model", "retrieval", "evaluation", "quickstart"},
    "side_by_side": {"data", "model", "retrieval", "quickstart"},
    "export": {"data", "model", "retrieval", "evaluation"},
    "report": {"data", "model", "retrieval", "evaluation", "quickstart"},
    "sweeps": {"data", "training"},
    "inspection": {"data", "model", "retrieval", "report"},
    "planning": {"data", "model", "training"},
}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("package", BELOW)
def test_imports_run_downwards(package):
    files = list((ROOT / "lit_retrofit" / package).rglob("*.py"))
    assert files
    for path in files:
        used = {name.split(".")[1] for name in imported(path) if name.startswith("lit_retrofit.")}
        assert used <= BELOW[package] | {package, "errors"}, path.name


def test_every_package_is_in_the_table():
    folders = {path.parent.name for path in (ROOT / "lit_retrofit").glob("*/__init__.py")}
    assert folders == set(BELOW)


def test_the_kernels_know_tensors_only():
    for path in (ROOT / "kernels" / "retrofit_kernels").rglob("*.py"):
        outside = {name.split(".")[0] for name in imported(path)} - set(sys.stdlib_module_names)
        special = {"faiss"} if path.name == "with_faiss.py" else set()
        assert outside <= {"torch", "triton", "retrofit_kernels"} | special, path.name


def test_loss_and_search_know_nothing_of_each_other():
    folder = ROOT / "kernels" / "retrofit_kernels"
    for inside, others in (("_loss", ["_search"]), ("_search", ["_loss"]), ("_shared", ["_loss", "_search"])):
        for path in (folder / inside).glob("*.py"):
            used = {name.split(".")[1] for name in imported(path) if name.startswith("retrofit_kernels.")}
            assert not used & set(others), path.name


def test_no_folder_shadows_the_package_kernels():
    assert not (ROOT / "kernels" / "__init__.py").exists()


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        text=True,
        capture_output=True,
    )


def test_nothing_heavy_is_imported_before_it_is_needed():
    code = """if True:
        import sys
        from lit_retrofit.cli import main
        main(["--help"])
        heavy = {"torch", "lightning", "transformers", "datasets", "faiss", "wandb", "numpy"}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
    """
    started = time.perf_counter()
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - started < 2
    for command in (*COMMANDS, *TRAINER_COMMANDS):
        assert f"\n  {command} " in done.stdout


def test_commands_that_train_nothing_do_not_wait_for_what_trains():
    """Lightning, peft and transformers' models take three of six seconds; what needs one imports it then."""
    targets = [command.target.split(":")[0] for name, command in COMMANDS.items() if name != "plan"]
    code = f"""if True:
        import sys
        from importlib import import_module
        for target in {targets}:
            import_module(target)
        late = {{"lightning", "peft", "transformers", "datasets", "mteb", "sentence_transformers"}}
        assert not late & set(sys.modules), late & set(sys.modules)
    """
    assert "lit_retrofit.evaluation.evaluate" in targets
    done = run(code)
    assert done.returncode == 0, done.stderr


def test_files_that_an_example_names_are_shipped():
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "lit_retrofit").rglob("*.py"))
    examples = [line for text in sources for line in re.findall(r"Example: lit-retrofit (.*)", text)]
    assert len(examples) >= len(COMMANDS)
    shipped = [path for line in examples for path in re.findall(r"configs/[\w./-]+", line)]
    assert shipped and [path for path in shipped if not (ROOT / path).is_file()] == []


@pytest.mark.slow
def test_hugging_faces_own_package_kernels_can_live_beside_this_one(tmp_path, bert_folder):
    target = tmp_path / "site"
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(target),
        "kernels",
    ]
    if subprocess.run(install, capture_output=True).returncode != 0:
        pytest.skip("the package kernels cannot be installed here")
    code = f"""if True:
        import kernels
        assert kernels.__file__.startswith({str(target)!r}), kernels.__path__
        import retrofit_kernels
        from lit_retrofit.model.loading import load_encoder
        print(load_encoder({str(bert_folder)!r}).dimension)
    """
    done = run(code, PYTHONPATH=str(target))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "32"
