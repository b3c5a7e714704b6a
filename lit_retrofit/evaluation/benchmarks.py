"""What ``--data`` can name: a folder, the embedded data, a hub data set, or a benchmark by its name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lit_retrofit.data.beir import read_beir
from lit_retrofit.data.hub_retrieval import (
    Candidates,
    HubSet,
    read_belebele,
    read_hub_candidates,
    read_hub_set,
)
from lit_retrofit.data.records import RetrievalSet
from lit_retrofit.errors import UserError
from lit_retrofit.evaluation.candidates import read_candidates
from lit_retrofit.evaluation.hub_sets import BELEBELE, COLLECTIONS, SETS
from lit_retrofit.evaluation.tasks import DEFAULT_PIVOT
from lit_retrofit.quickstart.embedded_data import resolve_data


@dataclass(frozen=True)
class Part:
    """A piece of a benchmark that is loaded, measured and forgotten before the next one.

    Attributes:
        load: reads the set.
        load_candidates: reads what each query's reranking chooses from; None searches the corpus.
    """

    load: Callable[[], RetrievalSet]
    load_candidates: Callable[[], Candidates] | None = None


@dataclass(frozen=True)
class Benchmark:
    """What one results folder speaks of.

    Attributes:
        name: of the folder, where there are several, and in tables.
        parts: language by language where each has a corpus of its own.
        pivot: the language that cross-lingual tasks lead to and start from, where the user names none.
        candidates: the user's file that says what is reranked; None where the corpus is searched, or the
            set brings candidates of its own.
    """

    name: str
    parts: tuple[Part, ...]
    pivot: str | None = DEFAULT_PIVOT
    candidates: str | None = None

    @property
    def reranks(self) -> bool:
        """Whether candidates are ordered instead of the corpus searched."""
        return any(part.load_candidates for part in self.parts)


def find_benchmarks(
    data: str, *, split: str | None = None, candidates: Path | None = None, skip_invalid: bool = False
) -> list[Benchmark]:
    """The benchmarks that a name means. A local one is read, so that mistakes in it come to light at once.

    Args:
        data: a BEIR folder, ``quickstart:test``, ``hf:org/name`` in mteb's layout, or a name of
            ``hub_sets``; behind a colon, the languages (or data sets of a collection) to take.
        split: of the judgements; the benchmark's own by default.
        candidates: a file with the documents to rerank for each query of a folder.
        skip_invalid: see ``read_beir``.

    Raises:
        UserError: an unknown benchmark, language or data set, or a folder that cannot be read.
    """
    name, _, wanted = data.partition(":")
    if data.startswith("hf:"):
        path, _, subset = wanted.partition(":")
        return [_hub_benchmark(data, [HubSet(path, split or "test", subset=subset or None)], candidates)]
    if Path(data).exists() or name not in {*SETS, *COLLECTIONS, BELEBELE.name}:
        if not Path(data).exists() and not data.startswith("quickstart:"):
            raise UserError(f"{data}: no such folder or benchmark; {_known()}")
        return [_folder_benchmark(resolve_data(data), split, candidates, skip_invalid)]
    chosen = [word for word in wanted.split(",") if word]
    if name in COLLECTIONS:
        return [
            _set_benchmark(data, each, languages, split, candidates)
            for each, languages in _members(data, name, chosen)
        ]
    if name in SETS:
        return [_set_benchmark(data, name, chosen, split, candidates)]
    if candidates or split not in (None, "test"):
        raise UserError(f"{data}: has one split, test, and is searched; leave out --split and --candidates")
    languages = tuple(_chosen(data, chosen, BELEBELE.languages, "language"))
    part = Part(partial(read_belebele, BELEBELE.path, languages, revision=BELEBELE.revision))
    return [Benchmark(name, (part,), pivot=BELEBELE.pivot)]


def _members(data: str, collection: str, chosen: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The data sets of a collection that are asked for, each with the languages that are asked for."""
    known = COLLECTIONS[collection]
    languages = [word for word in chosen if word in SETS[known[0]].languages]
    sets = _chosen(data, [word for word in chosen if word not in languages], known, "data set")
    return [(name, languages) for name in sets]


def _set_benchmark(
    data: str, name: str, languages: Sequence[str], split: str | None, candidates: Path | None
) -> Benchmark:
    task = SETS[name]
    split = split or task.split
    if not task.languages:
        if languages:
            raise UserError(f"{data}: {name} has no languages to choose from; write {name}")
        places = [HubSet(task.path, split, task.revision, language="en")]
    else:
        places = [
            HubSet(task.path, split, task.revision, subset, task.languages[subset])
            for subset in _chosen(data, languages, task.languages, "language")
        ]
    return _hub_benchmark(name, places, candidates, reranking=task.reranking)


def _folder_benchmark(
    folder: Path, split: str | None, candidates: Path | None, skip_invalid: bool
) -> Benchmark:
    retrieval_set = read_beir(folder, split=split, skip_invalid=skip_invalid)
    if candidates is None:
        return Benchmark(retrieval_set.name, (Part(lambda: retrieval_set),))
    reranked = read_candidates(candidates)
    part = Part(lambda: retrieval_set, lambda: reranked)
    return Benchmark(retrieval_set.name, (part,), candidates=str(candidates))


def _hub_benchmark(
    name: str, places: Sequence[HubSet], candidates: Path | None, *, reranking: bool = False
) -> Benchmark:
    def reranked(place: HubSet) -> Callable[[], Candidates] | None:
        if candidates:
            return partial(read_candidates, candidates)
        return partial(read_hub_candidates, place) if reranking else None

    parts = tuple(Part(partial(read_hub_set, place, name=name), reranked(place)) for place in places)
    return Benchmark(name.removeprefix("hf:"), parts, candidates=str(candidates) if candidates else None)


def _chosen(data: str, chosen: Sequence[str], known: Collection[str], what: str) -> list[str]:
    for word in chosen:
        if word not in known:
            raise UserError(f"{data}: no {what} '{word}'; there are {', '.join(known)}")
    return list(dict.fromkeys(chosen)) or list(known)


def _known() -> str:
    names = ", ".join([*(n for n in SETS if "-" not in n), *COLLECTIONS, BELEBELE.name])
    return f"give a BEIR folder, quickstart:test, hf:org/name or one of {names}"
