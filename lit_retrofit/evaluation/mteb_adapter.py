"""Our encoders as models of mteb, with the prompt that each task and role wants. Needs the extra ``eval``."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from mteb.abstasks.abstask import get_abstask_prompt
from mteb.models.abs_encoder import AbsEncoder, get_prompt_name
from mteb.models.model_meta import ModelMeta, ScoringFunction
from mteb.types import PromptType
from numpy.typing import NDArray

from lit_retrofit.errors import UserError
from lit_retrofit.model.device import Precision
from lit_retrofit.model.dual import Encoders
from lit_retrofit.model.encoder import Encoder
from lit_retrofit.model.fingerprint import fingerprint
from lit_retrofit.model.tokenizer import Role
from lit_retrofit.retrieval.cached import embed_cached
from lit_retrofit.retrieval.embed import embed_texts

ROLES: tuple[Role, ...] = ("query", "document")
INSTRUCTION = "{task}"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


class MtebEncoder(AbsEncoder):
    """An encoder for ``mteb.evaluate``.

    The prompt of a text is the most specific one that there is, in mteb's own order: of the task and role, of
    the task, of the kind of task and role, of the kind of task, of the role. Texts without a role (those of
    symmetric tasks, as similarity or clustering) take the query's, as the E5 models' authors advise. In a
    prompt, ``{task}`` stands for mteb's instruction of the task, as E5-instruct wants it.

    Args:
        encoder: on the device to use; its prompts are changed from task to task.
        meta: what mteb writes beside the results.
        prompts: task name, kind of task, role or ``NAME-ROLE`` → prompt; over the encoder's own.
        token_budget: tokens embedded at a time; by default as many as suit the device.
        precision: of the embedding model.
        cache: folder that keeps embeddings; None keeps none.

    Raises:
        UserError: a prompt is for nothing that mteb has.
    """

    def __init__(
        self,
        encoder: Encoders,
        meta: ModelMeta,
        *,
        prompts: Mapping[str, str] | None = None,
        token_budget: int | None = None,
        precision: Precision = "fp32",
        cache: Path | None = None,
    ) -> None:
        self.model = encoder
        self.mteb_model_meta = meta
        self.model_prompts = {role: encoder.of(role).tokenizer.prompts[role] for role in ROLES}
        self.model_prompts |= _checked(prompts or {})
        self.token_budget = token_budget
        self.precision: Precision = precision
        self.cache = cache

    def prompt_for(self, task: Any, prompt_type: PromptType | None) -> str:
        """The prompt of a task's queries, documents, or texts without a role.

        Args:
            task: mteb's metadata of the task.
            prompt_type: None for texts without a role.
        """
        prompts = self.model_prompts or {}
        name = get_prompt_name(prompts, task, prompt_type)
        if name is None and prompt_type is None:
            name = "query"
        prompt = prompts.get(str(name), "")
        return (
            prompt.replace(INSTRUCTION, _instruction(task, prompt_type)) if INSTRUCTION in prompt else prompt
        )

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: Any,
        hf_split: str = "",
        hf_subset: str = "",
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> NDArray[np.float32]:
        """Embeds the texts of a data loader.

        Args:
            inputs: batches with a list of strings as ``text``.
            task_metadata: of the task.
            hf_split: not used.
            hf_subset: not used.
            prompt_type: query or document, or None.
            kwargs: mteb's batch size and progress bar, not used: batches are cut by tokens.

        Returns:
            (texts, dimension) float32.
        """
        role: Role = "document" if prompt_type == PromptType.document else "query"
        encoder = self.model.of(role)
        prompts = {**encoder.tokenizer.prompts, role: self.prompt_for(task_metadata, prompt_type)}
        encoder.tokenizer = replace(encoder.tokenizer, prompts=prompts)
        texts = [text for batch in inputs for text in batch["text"]]
        options: dict[str, Any] = {
            "token_budget": self.token_budget,
            "precision": self.precision,
            "description": f"{task_metadata.name}, {role}",
        }
        if self.cache is None:
            return embed_texts(encoder, texts, role, **options).numpy()
        return embed_cached(encoder, texts, role, cache=self.cache, **options).numpy()


def model_meta(
    encoder: Encoders,
    model: str,
    *,
    prompts: Mapping[str, str],
    precision: Precision,
    name: str | None = None,
    revision: str | None = None,
) -> ModelMeta:
    """What mteb writes beside the results.

    Args:
        encoder: loaded.
        model: as the user named it.
        prompts: see `MtebEncoder`.
        precision: of the embedding model.
        name: ``owner/model`` for the leaderboard; the hub's name, or ``local/folder``, by default.
        revision: of the model; by default a hash of its weights and of how it embeds, so that results of
            different checkpoints or prompts are never taken for each other.

    Raises:
        UserError: the name is none of the form ``owner/model``.
    """
    if name is None:
        on_hub = _HUB_NAME.fullmatch(model) and not Path(model).exists()
        name = model if on_hub else f"local/{_slug(Path(model))}"
    if not _HUB_NAME.fullmatch(name):
        raise UserError(f"name: '{name}' is none for mteb; write owner/model")
    if revision is None:
        content = json.dumps([*map(_use, encoder.parts), dict(prompts), precision], sort_keys=True)
        revision = hashlib.sha256(content.encode()).hexdigest()[:40]
    return ModelMeta.create_empty(
        {
            "name": name,
            "revision": revision,
            "n_parameters": sum(weight.numel() for weight in encoder.parameters()),
            "embed_dim": encoder.dimension,
            "max_tokens": float(max(encoder.of(role).tokenizer.max_lengths[role] for role in ROLES)),
            "similarity_fn_name": ScoringFunction.COSINE
            if encoder.normalise
            else ScoringFunction.DOT_PRODUCT,
            "use_instructions": any(encoder.of(role).tokenizer.prompts[role] for role in ROLES),
            "framework": ["PyTorch"],
            "open_weights": True,
        }
    )


def _use(encoder: Encoder) -> list[Any]:
    """What its embeddings depend on."""
    tokenizer = encoder.tokenizer
    return [
        fingerprint(encoder),
        dict(tokenizer.prompts),
        dict(tokenizer.max_lengths),
        encoder.options.pooling,
    ]


def _slug(path: Path) -> str:
    """The last folders of a path, as a name: ``runs/quickstart/fit`` is ``quickstart-fit``."""
    parts = [re.sub(r"[^\w.-]", "-", part) for part in path.resolve().with_suffix("").parts[-2:]]
    return "-".join(part.strip("-") for part in parts if part.strip("-/"))


def _checked(prompts: Mapping[str, str]) -> dict[str, str]:
    try:
        AbsEncoder.validate_task_to_prompt_name(dict(prompts))
    except KeyError:
        known = "a task's or kind of task's name, query, document, or a name with -query or -document"
        raise UserError(f"prompts: one of {', '.join(prompts)} is nothing mteb has; write {known}") from None
    return dict(prompts)


def _instruction(task: Any, prompt_type: PromptType | None) -> str:
    """The instruction that mteb has for a task; that of its kind where it has none of its own."""
    own = task.prompt
    if isinstance(own, dict):
        own = own.get("document" if prompt_type == PromptType.document else "query")
    return own or get_abstask_prompt(task.name)
