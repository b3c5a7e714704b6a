"""The head of a model card, in the hub's own form: what it is searched by, and its results."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.utils import HFValidationError, validate_repo_id

from lit_retrofit.evaluation.results import Results, TaskScores
from lit_retrofit.export.evaluations import label, measure_of

_LIBRARY = {"sentence-transformers": "sentence-transformers", "transformers": "transformers", "onnx": "onnx"}
_TASK = {"sentence-transformers": "sentence-similarity"}
_TAGS = ["sentence-transformers", "feature-extraction", "retrieval", "lit-retrofit"]
_LANGUAGE_CODE = re.compile(r"[a-z]{2,3}")


def metadata(
    name: str, format: str, base: str | None, languages: list[str], results: Results | None
) -> ModelCardData:
    """The card's YAML head.

    Args:
        name: of the model.
        format: of the export.
        base: its name on the hub; None for a folder of this machine, which is no name there.
        languages: as the training records name them. The hub knows them by their ISO 639 codes without
            region; what is no such code is left out.
        results: of the evaluation, for the hub's table of results.
    """
    codes = {language.replace("_", "-").split("-")[0].lower() for language in languages}
    known = sorted(code for code in codes if _LANGUAGE_CODE.fullmatch(code))
    return ModelCardData(
        library_name=_LIBRARY[format],
        pipeline_tag=_TASK.get(format, "feature-extraction"),
        tags=[tag for tag in _TAGS if format == "sentence-transformers" or tag != "sentence-transformers"],
        base_model=base,
        language=known or None,
        model_name=name if results else None,
        eval_results=_eval_results(results) if results else None,
    )


def is_hub_name(name: str) -> bool:
    """Whether a name has the form owner/model. Folders may have it, too."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return "/" in name


def _eval_results(results: Results) -> list[EvalResult]:
    """A result per language task, in the form that mteb's own cards have."""
    data = Path(results.data).name or results.data
    split: Any = results.settings.get("split")
    measure = measure_of(results)
    return [
        EvalResult(
            task_type=measure.task,
            dataset_type=re.sub(r"[^\w.-]+", "-", data, flags=re.ASCII).strip("-") or "data",
            dataset_name=f"{data}, {label(task)}",
            dataset_config=_config(task),
            dataset_split=split,
            metric_type=measure.metric,
            metric_name=measure.name,
            metric_value=round(task.scores[measure.name], 5),
        )
        for task in results.tasks
    ]


def _config(task: TaskScores) -> str | None:
    """The part of the data that a task is of."""
    if task.query_language is None or task.kind == "clustering":
        return task.query_language
    return f"{task.query_language}-{task.corpus_language}"
