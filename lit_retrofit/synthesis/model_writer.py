"""Drafts by a language model: queries for documents, invented examples, written hard negatives."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lit_retrofit.data.records import Document, text_id
from lit_retrofit.data.text_language import is_in_another
from lit_retrofit.errors import UserError
from lit_retrofit.synthesis.answers import Answer, Request
from lit_retrofit.synthesis.asking import Asker
from lit_retrofit.synthesis.documents import SourceDocument
from lit_retrofit.synthesis.drafts import Draft, Provenance
from lit_retrofit.synthesis.filters import normalised
from lit_retrofit.synthesis.schema import (
    BadAnswer,
    NegativeAnswer,
    QueryAnswer,
    TasksAnswer,
    TripletAnswer,
    read_json,
    read_line,
)
from lit_retrofit.synthesis.templates import (
    DOCUMENT_TEMPLATES,
    Task,
    brainstorm_prompt,
    chat_prompt,
    draw_slots,
    draw_task,
    few_shot_prompt,
    negative_prompt,
    triplet_prompt,
)

BRAINSTORM = "brainstorm"
MODEL_TEMPLATES = (*DOCUMENT_TEMPLATES, BRAINSTORM)
_TASKS_PER_ANSWER = 20
_Invented = tuple[str, str]  # a task and the key of the request that gave it
_DOCUMENT_TOKENS = 1536  # 500 words of a language whose words have three tokens
_SURE = 0.8  # of a written document's language


@dataclass(frozen=True)
class PromptOptions:
    """How a model is asked.

    Attributes:
        chat: as a message to an instructed model; false gives a pre-trained one examples to continue.
        temperature: of the sampling; 0 takes the likeliest token.
        max_tokens: the longest answer, of a query.
        characters: of the document that the model sees.
        attempts: how often an unusable answer is asked for anew, the first time included.
    """

    chat: bool = True
    temperature: float = 0.7
    max_tokens: int = 128
    characters: int = 2000
    attempts: int = 2

    def __post_init__(self) -> None:
        for name in ("max_tokens", "characters", "attempts"):
            if getattr(self, name) < 1:
                raise UserError(f"prompt.{name} is {getattr(self, name)}; give 1 or more")
        if self.temperature < 0:
            raise UserError(f"prompt.temperature is {self.temperature}; give 0 or more")


@dataclass(frozen=True)
class BrainstormOptions:
    """E5-Mistral's two steps (arXiv 2401.00368): tasks, then a query with documents for each.

    Attributes:
        records: how many to ask for.
        languages: of the queries, drawn evenly.
        document_languages: of the documents, drawn evenly; the query's own without it.
    """

    records: int = 100
    languages: tuple[str, ...] = ("en",)
    document_languages: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.records < 1 or not self.languages or self.document_languages == ():
            raise UserError("brainstorm: records and languages must be given; name at least one of each")


class ModelWriter:
    """Turns templates into requests and answers into drafts.

    Args:
        asker: asks and keeps.
        generator: endpoint or local, for the provenance.
        model: its name, of a local one with its version.
        options: of the prompts.
        seed: of the whole run.
    """

    def __init__(self, asker: Asker, generator: str, model: str, options: PromptOptions, seed: int) -> None:
        self._asker, self._generator, self._model = asker, generator, model
        self._options, self._seed = options, seed

    def queries(
        self,
        documents: Sequence[SourceDocument],
        template: str,
        copies: int,
        languages: tuple[str, ...] | None,
    ) -> list[Draft]:
        """Asks for queries of documents.

        Args:
            documents: to ask about; of cross-lingual queries those that have `other_languages`.
            template: one of `DOCUMENT_TEMPLATES`.
            copies: queries per document.
            languages: that cross-lingual queries may be in.
        """
        tasks = [
            draw_task(document, template, languages, self._seed, copy)
            for document in documents
            for copy in range(copies)
        ]
        chat, characters = self._options.chat, self._options.characters
        prompt = chat_prompt if chat else few_shot_prompt
        requests = [self._request(prompt(task, characters), task.seed, chat=chat) for task in tasks]
        answers = self._asker.ask(requests, _chat_query if chat else read_line, f"Writing: {template}")
        return [
            self._draft(task, answer.value, answer.key)
            for task, answer in zip(tasks, answers, strict=True)
            if answer is not None
        ]

    def brainstorm(self, options: BrainstormOptions) -> list[Draft]:
        """Invents tasks, then examples of them; needs no document."""
        count = -(-options.records // _TASKS_PER_ANSWER)
        step_one = [
            self._request(brainstorm_prompt(_TASKS_PER_ANSWER), self._seed + 1000 * i, tokens=1024)
            for i in range(count)
        ]
        found = self._asker.ask(
            step_one, lambda answer: read_json(answer, TasksAnswer), "Brainstorming tasks"
        )
        lists = [[(task, answer.key) for task in answer.value.tasks] if answer else [] for answer in found]
        if not any(lists):
            return []
        plans = []
        for i in range(options.records):
            rng = random.Random(f"{self._seed} {BRAINSTORM} {i}")
            language = rng.choice(options.languages)
            other = rng.choice(options.document_languages or (language,))
            seed = int.from_bytes(rng.randbytes(4), "big")
            plans.append((*_task_of_plan(lists, i), draw_slots(language, other, seed), seed))
        step_two = [
            self._request(triplet_prompt(task, slots), seed, tokens=2 * _DOCUMENT_TOKENS)
            for task, _, slots, seed in plans
        ]
        answers = self._asker.ask(
            step_two, lambda answer: read_json(answer, TripletAnswer), "Writing: brainstorm"
        )
        drafts = []
        for (task, task_key, slots, seed), answer in zip(plans, answers, strict=True):
            if answer is None:
                continue
            try:
                written = _checked_triplet(answer.value, slots["document_language"])
            except BadAnswer as bad:
                self._asker.tally.bad[str(bad)] += 1
                continue
            drafts.append(
                self._triplet(written, slots, {**slots, "task": task}, seed, (task_key, answer.key))
            )
        return drafts

    def negatives(self, drafts: Sequence[Draft], copies: int) -> list[Draft]:
        """Has hard negatives written for drafts; one that gets none stays as it is."""
        rows = [row for row in range(len(drafts)) for _ in range(copies)]
        requests = []
        for at, row in enumerate(rows):
            draft = drafts[row]
            language = draft.positive.language or draft.language
            prompt = negative_prompt(draft.query, draft.positive.text, language, self._options.characters)
            requests.append(
                self._request(prompt, draft.provenance.seed + at % copies * 1000, tokens=_DOCUMENT_TOKENS)
            )
        answers = self._asker.ask(
            requests, lambda answer: read_json(answer, NegativeAnswer), "Writing: hard negatives"
        )
        written = list(drafts)
        for row, answer in zip(rows, answers, strict=True):
            if answer is None:
                continue
            text, draft = answer.value.hard_negative_document, written[row]
            if is_in_another(text, draft.positive.language or draft.language, _SURE):
                self._asker.tally.bad["hard negative in another language"] += 1
            else:
                written[row] = _with_negative(draft, text, answer.key)
        return written

    def _request(self, prompt: str, seed: int, *, chat: bool = True, tokens: int | None = None) -> Request:
        return Request(
            model=self._model,
            prompt=prompt,
            chat=chat,
            max_tokens=tokens or self._options.max_tokens,
            temperature=self._options.temperature,
            seed=seed % 2**31,
            stop=None if chat else "\n",
        )

    def _draft(self, task: Task, query: str, key: str) -> Draft:
        slots = {**task.slots, "language": task.language} if self._options.chat else {}
        return Draft(
            query=" ".join(query.split()),
            language=task.language,
            positive=task.source.document,
            group=task.source.group,
            provenance=Provenance(self._generator, self._model, task.template, task.seed, slots, (key,)),
        )

    def _triplet(
        self,
        written: TripletAnswer,
        slots: dict[str, str],
        shown: dict[str, str],
        seed: int,
        keys: tuple[str, ...],
    ) -> Draft:
        language = slots["document_language"]
        positive, negative = written.positive_document, written.hard_negative_document
        return Draft(
            query=" ".join(written.user_query.split()),
            language=slots["language"],
            positive=Document(text_id(positive), positive, language),
            group=text_id(positive),
            provenance=Provenance(self._generator, self._model, BRAINSTORM, seed, shown, keys),
            negatives=(Document(text_id(negative), negative, language),),
        )


def _task_of_plan(lists: Sequence[Sequence[_Invented]], i: int) -> _Invented:
    """The task of a plan: of the list with its own number, or of the next one that has any.

    A list that a later run is the first to get changes no prompt but those of its own plans: the others'
    answers are in the log.
    """
    turn, own = divmod(i, len(lists))
    tasks = next(tasks for tasks in [*lists[own:], *lists[:own]] if tasks)
    return tasks[turn % len(tasks)]


def _chat_query(answer: Answer) -> str:
    return read_json(answer, QueryAnswer).query


def _checked_triplet(written: TripletAnswer, language: str) -> TripletAnswer:
    if normalised(written.positive_document) == normalised(written.hard_negative_document):
        raise BadAnswer("hard negative equals the positive")
    for text in (written.positive_document, written.hard_negative_document):
        if is_in_another(text, language, _SURE):
            raise BadAnswer("document in another language")
    return written


def _with_negative(draft: Draft, text: str, key: str) -> Draft:
    known = {normalised(document.text) for document in (draft.positive, *draft.negatives)}
    if normalised(text) in known:
        return draft
    negative = Document(text_id(text), text, draft.positive.language)
    provenance = replace(draft.provenance, requests=(*draft.provenance.requests, key))
    return replace(draft, negatives=(*draft.negatives, negative), provenance=provenance)
