"""A causal language model on this machine, by transformers, in batches."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_retrofit.errors import UserError
from lit_retrofit.model.device import choose_device
from lit_retrofit.model.embedded import file_sha256
from lit_retrofit.model.fingerprint import hash_parts
from lit_retrofit.synthesis.answers import Answer, Failure, Request


@dataclass(frozen=True)
class LocalOptions:
    """How a local model runs.

    Attributes:
        batch_size: texts at a time.
        dtype: of the weights; auto is the checkpoint's own.
        device: auto takes a GPU where there is one.
    """

    batch_size: int = 16
    dtype: str = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"local.batch_size is {self.batch_size}; give 1 or more")
        if self.dtype not in ("auto", "float32", "bfloat16", "float16"):
            raise UserError(f"local.dtype is {self.dtype}; give auto, float32, bfloat16 or float16")


class LocalModel:
    """Continues texts, or answers messages in the checkpoint's chat form.

    Each text is sampled with the seed of its request, so its answer does not hang on what else is in its
    batch (but for what rounding does to near ties).

    Args:
        name: a hub name, a directory, or a .gguf file, which is converted once and kept in the cache.
        options: how it runs.
        cache: where converted files are kept; the user's cache folder by default.

    Attributes:
        version: the revision of a hub's model; of others a hash of what it computes with.
    """

    retried = 0

    def __init__(self, name: str, options: LocalOptions, cache: Path | None = None) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model: Any
        folder = str(converted_gguf(Path(name), cache)) if name.endswith(".gguf") else name
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=options.dtype)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"model {name}: cannot be loaded ({reason:.200}); give a causal language model"
            ) from None
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._name, self._options = name, options
        revision = getattr(model.config, "_commit_hash", None)
        self.version: str = (revision or _fingerprint(model, self._tokenizer))[:16]
        self._model = model.to(choose_device(options.device)).eval()

    def generate(
        self, requests: Sequence[Request], stopped: Callable[[], bool]
    ) -> Iterator[Answer | Failure]:
        """Yields the answers batch by batch, texts of similar length together.

        Raises:
            UserError: a message for a checkpoint without a chat form.
        """
        texts = {request.key: self._text(request) for request in requests}
        ordered = sorted(requests, key=lambda request: (len(texts[request.key]), request.key))
        for start in range(0, len(ordered), self._options.batch_size):
            if stopped():
                return
            batch = ordered[start : start + self._options.batch_size]
            yield from self._answer(batch, [texts[request.key] for request in batch])

    def _text(self, request: Request) -> str:
        if not request.chat:
            return request.prompt
        if not self._tokenizer.chat_template:
            raise UserError(
                f"model {self._name}: the checkpoint has no chat form; pass --prompt.chat=false, which gives "
                "it examples to continue"
            )
        message = {"role": "user", "content": request.prompt}
        return self._tokenizer.apply_chat_template([message], add_generation_prompt=True, tokenize=False)

    @torch.inference_mode()
    def _answer(self, batch: Sequence[Request], texts: list[str]) -> Iterator[Answer]:
        from transformers import LogitsProcessorList, StoppingCriteriaList

        first = batch[0]
        # A chat form writes the special tokens itself.
        tokens = self._tokenizer(
            texts, return_tensors="pt", padding=True, add_special_tokens=not first.chat
        ).to(self._model.device)
        width = tokens["input_ids"].shape[1]
        done = _AtStop(self._tokenizer, [request.stop for request in batch], width)
        found = self._model.generate(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            max_new_tokens=max(request.max_tokens for request in batch),
            do_sample=False,  # the sampling is in the noise
            logits_processor=LogitsProcessorList([_SeededNoise(batch)]),
            stopping_criteria=StoppingCriteriaList([done]),
            pad_token_id=self._tokenizer.pad_token_id,
        )
        # A row that is done is filled up with padding.
        listed = _listed(self._model.generation_config.eos_token_id)
        ends = {self._tokenizer.eos_token_id, self._tokenizer.pad_token_id, *listed}
        lengths = tokens["attention_mask"].sum(1).tolist()
        for request, row, length in zip(batch, found[:, width:].tolist(), lengths, strict=True):
            end = next((i for i, token in enumerate(row) if token in ends), len(row))
            row = row[: min(end, request.max_tokens)]
            text = self._tokenizer.decode(row, skip_special_tokens=True)
            begin = text.lstrip()
            stopped = request.stop is not None and request.stop in begin
            finish = "stop" if stopped or end < request.max_tokens else "length"
            yield Answer(
                request.key, begin.split(request.stop)[0] if stopped else text, finish, length, len(row)
            )


class _SeededNoise:
    """Adds Gumbel noise to the logits over the temperature: the largest sum is a sample of the softmax.

    Each row has a generator of its own (Gumbel-max, Maddison et al., arXiv 1411.0030).
    """

    def __init__(self, batch: Sequence[Request]) -> None:
        self._temperatures = [request.temperature for request in batch]
        self._generators = [torch.Generator().manual_seed(request.seed) for request in batch]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores = scores.float()
        for row, (temperature, generator) in enumerate(
            zip(self._temperatures, self._generators, strict=True)
        ):
            if temperature > 0:
                noise = torch.empty(scores.shape[1]).exponential_(generator=generator).log_().neg_()
                scores[row] = scores[row] / temperature + noise.to(scores.device)
        return scores


class _AtStop:
    """A row is done once its stop text stands behind something else than white space."""

    def __init__(self, tokenizer: Any, stops: list[str | None], width: int) -> None:
        self._tokenizer, self._stops, self._width = tokenizer, stops, width

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        texts = self._tokenizer.batch_decode(input_ids[:, self._width :])
        done = [
            stop is not None and stop in text.lstrip() for stop, text in zip(self._stops, texts, strict=True)
        ]
        return torch.tensor(done, device=input_ids.device)


def _fingerprint(model: Any, tokenizer: Any) -> str:
    """Of all that an answer depends on beside its request; neither the name nor the folder is in it."""
    computed = hash_parts(model.state_dict(), model.config, None, tokenizer)
    around = [computed, tokenizer.chat_template, _listed(model.generation_config.eos_token_id)]
    return hashlib.sha256(json.dumps(around).encode()).hexdigest()


def _listed(ids: int | list[int] | None) -> list[int]:
    return ids if isinstance(ids, list) else [] if ids is None else [ids]


def converted_gguf(file: Path, cache: Path | None = None) -> Path:
    """A directory with the weights of a .gguf file in 16 bits, made on the first call.

    Reading the metadata of a large vocabulary takes a minute or more; the copy loads in seconds.

    Args:
        file: quantised weights of an architecture that transformers knows.
        cache: where copies are kept, by the file's content; the user's cache folder by default.

    Raises:
        UserError: the file is missing or cannot be read, or the package gguf is not installed.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such file; check the path")
    if cache is None:
        from platformdirs import user_cache_path

        cache = user_cache_path("lit-retrofit")
    folder = cache / f"{file.stem}-{file_sha256(file)[:12]}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".converting-") as scratch:
            _convert(file, Path(scratch) / "model")
            (Path(scratch) / "model").replace(folder)  # whole or not at all
    return folder


def _convert(file: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source: dict[str, Any] = {
        "pretrained_model_name_or_path": str(file.parent.resolve()),
        "gguf_file": file.name,
    }
    try:
        AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
        read = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16)
    except ImportError:
        raise UserError(f"{file}: needs the package gguf: pip install 'lit-retrofit[synthesis]'") from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file}: cannot be read ({' '.join(str(error).split()):.200}); check the file"
        ) from None
    # What was read from quantised weights refuses to be saved; a plain model with the same weights does not.
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    plain.load_state_dict(read.state_dict())
    plain.save_pretrained(folder)
