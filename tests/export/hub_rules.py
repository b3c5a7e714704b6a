"""The hub's rules for the head of a model card, as far as they can be checked without the hub.

Its own check, `ModelCard.validate`, is a request to it. The rules are those of
huggingface.co/docs/hub/model-cards and of hub-docs (modelcard.md; repositories-licenses.md for licences);
tags of pipelines are those of huggingface.js (packages/tasks/src/pipelines.ts). Where huggingface_hub can
tell, it is asked.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.repocard_data import model_index_to_eval_results
from huggingface_hub.utils import HFValidationError, validate_repo_id

PIPELINES = """
    any-to-any audio-classification audio-text-to-text audio-to-audio automatic-speech-recognition
    depth-estimation document-question-answering feature-extraction fill-mask graph-ml image-classification
    image-feature-extraction image-segmentation image-text-to-text image-to-3d image-to-image image-to-text
    image-to-video keypoint-detection mask-generation multiple-choice object-detection other
    question-answering reinforcement-learning robotics sentence-similarity summarization
    table-question-answering table-to-text tabular-classification tabular-regression tabular-to-text
    text-classification text-generation text-ranking text-retrieval text-to-3d text-to-audio text-to-image
    text-to-speech text-to-video time-series-forecasting token-classification translation
    unconditional-image-generation video-classification video-text-to-text visual-document-retrieval
    visual-question-answering voice-activity-detection zero-shot-classification
    zero-shot-image-classification zero-shot-object-detection
"""
LICENCES = """
    afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
    bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0
    cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0
    cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0
    cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license
    ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 gemma gfdl gpl gpl-2.0 gpl-3.0 isc lgpl lgpl-2.1 lgpl-3.0
    lgpl-lr llama2 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openrail openrail++ osl-3.0 other pddl
    postgresql unknown unlicense wtfpl zlib
"""
WORDS = {"code", "multilingual"}  # that stand where a language does


def head_of(card: str) -> dict[str, Any]:
    """The card's YAML; it must be the first thing in the file."""
    match = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    head = yaml.safe_load(match[1]) if match else None
    assert isinstance(head, dict)
    return head


def problems(head: dict[str, Any]) -> list[str]:
    """What the hub would refuse or warn of: a sentence each, which begins with the field."""
    checks = (_names, _languages, _licence, _base, _results)
    return [problem for check in checks for problem in check(head)]


def _names(head: dict[str, Any]) -> Iterator[str]:
    tags = head.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) and tag for tag in tags):
        yield f"tags: {tags!r} is no list of words"
    elif len(set(tags)) < len(tags):
        yield f"tags: {tags!r} names one twice"
    if "pipeline_tag" in head and head["pipeline_tag"] not in PIPELINES.split():
        yield f"pipeline_tag: {head['pipeline_tag']!r} is not known"
    if not re.fullmatch(r"[a-z0-9_.-]+", str(head.get("library_name", "none"))):
        yield f"library_name: {head['library_name']!r} is no name"


def _languages(head: dict[str, Any]) -> Iterator[str]:
    for language in _listed(head.get("language")):
        # YAML reads the Norwegian `no` as False, if it is not quoted
        if not isinstance(language, str) or language not in iso_639() | WORDS:
            yield f"language: {language!r} is no code of ISO 639"


def iso_639() -> set[str]:
    """The codes of ISO 639-1 and 639-3, out of mteb's files: mteb itself takes seconds to import."""
    spec = find_spec("mteb")
    assert spec is not None and spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "languages"
    names = ("iso_639_1_to_3.json", "iso_639_3_to_language.json")
    return {code for name in names for code in json.loads((folder / name).read_text(encoding="utf-8"))}


def _licence(head: dict[str, Any]) -> Iterator[str]:
    licence = head.get("license")
    if licence is not None and licence not in LICENCES.split():
        yield f"license: {licence!r} is not known"
    if licence == "other" and not re.fullmatch(r"[a-z0-9.-]+", str(head.get("license_name") or "")):
        yield "license_name: the licence is another one, and needs a name"


def _base(head: dict[str, Any]) -> Iterator[str]:
    for model in _listed(head.get("base_model")):
        try:
            validate_repo_id(model)
        except HFValidationError:
            yield f"base_model: {model!r} is no name of a model"


def _results(head: dict[str, Any]) -> Iterator[str]:
    if "model-index" not in head:
        return
    try:
        name, results = model_index_to_eval_results(head["model-index"])
        again = ModelCardData(model_name=name, eval_results=results).to_dict()
    except (KeyError, TypeError, ValueError) as error:
        yield f"model-index: {error!r}"
        return
    if again["model-index"] != head["model-index"]:
        yield "model-index: huggingface_hub reads something else in it"
    for result in results:
        yield from _result(result)


def _result(result: EvalResult) -> Iterator[str]:
    for field in ("task_type", "dataset_type", "dataset_name", "metric_type"):
        if not isinstance(getattr(result, field), str) or not getattr(result, field):
            yield f"model-index: {field} is {getattr(result, field)!r}"
    if not re.fullmatch(r"([\w.-]+/)?[\w.-]+", str(result.dataset_type), re.ASCII):
        yield f"model-index: dataset_type {result.dataset_type!r} has not the form of a data set's name"
    value = result.metric_value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        yield f"model-index: the value {value!r} is no number"


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
