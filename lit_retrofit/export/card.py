"""The model card of an export: how it is used, data, recipe, before and after."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from lit_retrofit.evaluation.results import Results
from lit_retrofit.export.evaluations import table
from lit_retrofit.export.metadata import is_hub_name, metadata
from lit_retrofit.export.use import usage
from lit_retrofit.model import embedded
from lit_retrofit.model.encoder import EncoderOptions


@dataclass(frozen=True)
class Exported:
    """What a card tells.

    Attributes:
        format: of the export.
        options: of the encoder; where there are two, of that of queries.
        settings: pooling, prompts and lengths, as `embedding_settings` gives them.
        training: the content of the run's training.json, where there is one.
        merging: the content of the merge's merging.json, where it is one.
        evaluations: `before` of the base model and `after` of the trained one, as far as they are given.
        checks: what was measured of the export itself, a sentence each.
        document_options: of the encoder of documents, where there are two.
        checkpoint: the weights are from a checkpoint of fit; a run that did not end left no training.json.
    """

    format: str
    options: EncoderOptions
    settings: dict[str, Any]
    training: dict[str, Any] | None = None
    merging: dict[str, Any] | None = None
    evaluations: dict[str, Results] = field(default_factory=dict)
    checks: tuple[str, ...] = ()
    document_options: EncoderOptions | None = None
    checkpoint: bool = False

    @property
    def base(self) -> str:
        """The model that was trained, as it may be shown."""
        if self.merging is None or self.checkpoint:
            return _shown(self.options.model)
        # A merge with all weights is loaded without its origin: only `merge` saw whether that was a folder.
        return _shown(self.merging["origin"], folder=self.merging.get("origin_is_folder", True))

    @property
    def made(self) -> tuple[str, ...]:
        """What was done to the base's weights; nothing where the export is of a model as it is."""
        trained = ("trained as a retriever",) if self.training or self.checkpoint else ()
        return (*trained, "merged") if self.merging else trained


def write_card(folder: Path, exported: Exported) -> None:
    """Writes README.md.

    Args:
        folder: the exported directory.
        exported: what to tell.
    """
    training = exported.training
    parts = [
        f"# {_title(exported)}\n",
        f"{_sentence(exported)}\n",
        *([_second(exported.document_options)] if exported.document_options else []),
        usage(exported.format, exported.settings),
        *([_recipe(training, exported.options)] if training else []),
        *([_merging(exported.merging)] if exported.merging else []),
        *([table(exported.evaluations)] if exported.evaluations else []),
        *(["## Checked\n", "\n".join(f"- {check}" for check in exported.checks)] if exported.checks else []),
    ]
    card = ModelCard(f"---\n{_head(exported).to_yaml()}\n---\n\n" + "\n".join(parts))
    (folder / "README.md").write_text(str(card), encoding="utf-8")


def _sentence(exported: Exported) -> str:
    if not exported.made:
        return f"`{exported.base}` as it is, written by lit-retrofit in the form {exported.format}."
    return f"`{exported.base}`, {' and '.join(exported.made)} with lit-retrofit."


def _shown(model: str, *, folder: bool | None = None) -> str:
    """A model's name on the hub; a folder's own name alone, for its path is nobody else's business.

    Args:
        model: as it was named for training; the embedded model's own name says nothing outside of this tool.
        folder: whether that meant a folder; None looks, for a model that was loaded just now.
    """
    if model == embedded.NAME:
        return embedded.ORIGIN
    local = Path(model).exists() if folder is None else folder
    return Path(model).name if local or not is_hub_name(model) else model


def _second(options: EncoderOptions) -> str:
    kept = "kept as it is" if options.freeze else "trained along"
    return f"It embeds queries; `{_shown(options.model)}`, {kept}, embeds documents.\n"


def _title(exported: Exported) -> str:
    name = Path(exported.base).name
    return f"{name}, retrofitted for retrieval" if exported.made else f"{name}, exported with lit-retrofit"


def _head(exported: Exported) -> ModelCardData:
    data = (exported.training or {}).get("data", {})
    languages = [language for language in data.get("languages", {}) if language != "unknown"]
    base = exported.base if is_hub_name(exported.base) else None
    return metadata(_title(exported), exported.format, base, languages, exported.evaluations.get("after"))


def _merging(merging: dict[str, Any]) -> str:
    models = ", ".join(
        f"{coefficient:g} × `{Path(model).name}`"
        for model, coefficient in zip(merging["models"], merging["coefficients"], strict=True)
    )
    picked = f", picked by {merging['measure']} on {Path(merging['data']).name}" if merging["scan"] else ""
    return f"## Merging\n\nBase + {merging['weight']:g} × ({models} − base), {merging['method']}{picked}.\n"


def _recipe(training: dict[str, Any], options: EncoderOptions) -> str:
    data, sampling = training["data"], training["sampling"]
    counts = ", ".join(f"{language} {count}" for language, count in data["languages"].items())
    rows = [
        ("data", f"{', '.join(data['sources'])}: {data['records']} records ({counts})"),
        (
            "hard negatives",
            f"{sampling['negatives']} per query as documents of their own, {sampling['neighbours']} through "
            f"records that share its batch; {data['with_negatives']} records have some",
        ),
        ("method", _method(training)),
        ("loss", f"{_terms(training['objective'])}, temperature {training['objective']['temperature']:g}"),
        ("batch", f"{sampling['batch_size']} queries, {training['steps']} steps, {training['precision']}"),
        ("learning rate", f"{training['optimizer']['learning_rate']:g}, {training['optimizer']['schedule']}"),
        ("lengths", f"queries {options.query_max_length}, documents {options.document_max_length} tokens"),
        ("prompts", f"query `{options.query_prompt}`, document `{options.document_prompt}`"),
        ("training time", f"{training['seconds']:.0f} s"),
    ]
    return "## Recipe\n\n| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in rows)


def _method(training: dict[str, Any]) -> str:
    """By the run's own record: a merge's weights no longer tell how they were trained."""
    query, document = training["encoder"], training.get("document_encoder")
    if document is None:
        return _method_of(query)
    return f"queries: {_method_of(query)}; documents: {_method_of(document)}"


def _method_of(encoder: dict[str, Any]) -> str:
    lora = encoder["lora"]
    if encoder.get("freeze"):
        return "kept as it is"
    if lora:
        return f"LoRA, r = {lora['r']}, alpha = {lora['alpha']}"
    frozen = encoder.get("freeze_layers", 0)
    return f"fine-tuning above the lowest {frozen} blocks" if frozen else "full fine-tuning"


def _terms(objective: dict[str, Any]) -> str:
    """The terms of the loss with their weights."""
    weights = {name: part["weight"] for name, part in objective.items() if isinstance(part, dict)}
    names = {"info_nce": "InfoNCE", "margin_mse": "MarginMSE"}
    used = [(names.get(name, name.replace("_", " ")), weight) for name, weight in weights.items() if weight]
    return " + ".join(name if weight == 1 else f"{weight:g} × {name}" for name, weight in used)
