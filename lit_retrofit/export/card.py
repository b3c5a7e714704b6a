"""The model card of an export: data, recipe, before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lit_retrofit.evaluation.results import Results, TaskScores, read_results
from lit_retrofit.model import embedded
from lit_retrofit.model.encoder import EncoderOptions

_MEASURE = "nDCG@10"
_USE = """## Use

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("DIRECTORY_OR_HUB_NAME")
queries = model.encode_query(["How do I save a document?"])
documents = model.encode_document(["Choose File – Save …", "…"])
print(model.similarity(queries, documents))
```
"""


def write_card(
    folder: Path,
    options: EncoderOptions,
    training: dict[str, Any] | None,
    before: Path | None,
    after: Path | None,
    document_options: EncoderOptions | None = None,
) -> None:
    """Writes README.md with metadata, the data and recipe, and the table of both evaluations.

    Args:
        folder: the exported directory.
        options: of the encoder; where there are two, of that of queries.
        training: the content of the run's training.json, where there is one.
        before: a folder of `evaluate` on the base model.
        after: the same of the trained model.
        document_options: of the encoder of documents, where there are two.
    """
    results = {name: read_results(f) for name, f in (("before", before), ("after", after)) if f is not None}
    data = (training or {}).get("data", {})
    languages = sorted(language for language in data.get("languages", {}) if language != "unknown")
    # The embedded model's own name says nothing outside of this tool.
    base = embedded.ORIGIN if options.model == embedded.NAME else options.model
    trained = f"`{base}`, trained as a retriever with lit-retrofit.\n"
    if document_options is not None:
        kept = "kept as it is" if document_options.freeze else "trained along"
        trained += f"It embeds queries; `{document_options.model}`, {kept}, embeds documents.\n"
    parts = [
        _metadata(base, languages),
        f"# {Path(base).name}, retrofitted for retrieval\n",
        trained,
        _USE,
        *([_recipe(training, options)] if training else []),
        *([_table(results)] if results else []),
    ]
    (folder / "README.md").write_text("\n".join(parts), encoding="utf-8")


def _metadata(base: str, languages: list[str]) -> str:
    lines = ["---", "library_name: sentence-transformers", "pipeline_tag: sentence-similarity", "tags:"]
    lines += [
        f"- {tag}" for tag in ("sentence-transformers", "feature-extraction", "retrieval", "lit-retrofit")
    ]
    if "/" in base and not Path(base).exists():
        lines.append(f"base_model: {base}")
    if languages:
        # The hub knows languages by their ISO 639 code, without region.
        lines += ["language:", *(f"- {code}" for code in sorted({name.split("-")[0] for name in languages}))]
    return "\n".join([*lines, "---\n"])


def _recipe(training: dict[str, Any], options: EncoderOptions) -> str:
    data, sampling = training["data"], training["sampling"]
    counts = ", ".join(f"{language} {count}" for language, count in data["languages"].items())
    lora = options.lora
    method = f"LoRA, r = {lora.r}, alpha = {lora.alpha}" if lora else "full fine-tuning"
    rows = [
        ("data", f"{', '.join(data['sources'])}: {data['records']} records ({counts})"),
        (
            "hard negatives",
            f"{sampling['negatives']} per query as documents of their own, {sampling['neighbours']} through "
            f"records that share its batch; {data['with_negatives']} records have some",
        ),
        ("method", method),
        ("loss", f"{_terms(training['objective'])}, temperature {training['objective']['temperature']:g}"),
        ("batch", f"{sampling['batch_size']} queries, {training['steps']} steps, {training['precision']}"),
        ("learning rate", f"{training['optimizer']['learning_rate']:g}, {training['optimizer']['schedule']}"),
        ("lengths", f"queries {options.query_max_length}, documents {options.document_max_length} tokens"),
        ("prompts", f"query `{options.query_prompt}`, document `{options.document_prompt}`"),
        ("training time", f"{training['seconds']:.0f} s"),
    ]
    return "## Recipe\n\n| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in rows)


def _terms(objective: dict[str, Any]) -> str:
    """The terms of the loss with their weights."""
    weights = {name: part["weight"] for name, part in objective.items() if isinstance(part, dict)}
    names = {"info_nce": "InfoNCE", "margin_mse": "MarginMSE"}
    used = [(names.get(name, name.replace("_", " ")), weight) for name, weight in weights.items() if weight]
    return " + ".join(name if weight == 1 else f"{weight:g} × {name}" for name, weight in used)


def _table(results: dict[str, Results]) -> str:
    names = list(results)
    data = " and ".join(sorted({result.data for result in results.values()}))
    scores = {name: {_label(task): task.scores[_MEASURE] for task in r.tasks} for name, r in results.items()}
    lines = [
        f"## {_MEASURE} on {data}\n",
        f"| queries → corpus | {' | '.join(names)} |",
        "|---" * (1 + len(names)) + "|",
    ]
    for label in scores[names[0]]:
        cells = [f"{scores[name][label]:.4f}" if label in scores[name] else "–" for name in names]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _label(task: TaskScores) -> str:
    return "all" if task.kind == "all" else f"{task.query_language} → {task.corpus_language}"
