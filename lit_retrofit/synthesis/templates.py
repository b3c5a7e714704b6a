"""From a document to what a model is asked: chat instructions, and examples for pre-trained models."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lit_retrofit.synthesis.documents import SourceDocument
from lit_retrofit.synthesis.languages import Language, find_language, known_languages, language_name

DocumentTemplate = Literal["question", "keywords", "crosslingual"]
CROSSLINGUAL = "crosslingual"
DOCUMENT_TEMPLATES = ("question", "keywords", CROSSLINGUAL)

# The slots of E5-Mistral (arXiv 2401.00368) that say something about a query.
LENGTHS = ("less than 5 words", "5 to 15 words", "at least 10 words")
CLARITIES = ("clear", "understandable with some effort", "ambiguous")
DIFFICULTIES = ("high school", "college", "PhD")


@dataclass(frozen=True, slots=True)
class Task:
    """A query that is wanted.

    Attributes:
        source: the document to ask about.
        template: the kind of query.
        language: of the query.
        slots: drawn for it.
        seed: of the draw and of the model's sampling.
    """

    source: SourceDocument
    template: str
    language: str
    slots: Mapping[str, str]
    seed: int


def draw_task(
    source: SourceDocument, template: str, languages: tuple[str, ...] | None, seed: int, copy: int = 0
) -> Task:
    """Draws the slots of one query; they depend on the seed, the document, the template and the copy only.

    Args:
        source: the document.
        template: one of `DOCUMENT_TEMPLATES`.
        languages: that a cross-lingual query may be in, see `other_languages`, of which there must be one.
        seed: of the whole run.
        copy: counts the queries of one document and template.
    """
    own = int.from_bytes(random.Random(f"{seed} {template} {copy} {source.document.id}").randbytes(4), "big")
    rng = random.Random(own)
    slots = {"query_length": rng.choice(LENGTHS), "clarity": rng.choice(CLARITIES)}
    if template != "keywords":
        slots["difficulty"] = rng.choice(DIFFICULTIES)
    language = source.language
    if template == CROSSLINGUAL:
        language = rng.choice(other_languages(source, languages))
    return Task(source, template, language, slots, own)


def other_languages(source: SourceDocument, languages: tuple[str, ...] | None) -> tuple[str, ...]:
    """Of these, or of all known ones, those that are not the document's own."""
    own = find_language(source.language)
    named = languages or tuple(known_languages())
    return tuple(o for o in named if o != source.language and (own is None or find_language(o) is not own))


def chat_prompt(task: Task, characters: int) -> str:
    """An instruction for an instructed model. The answer is a JSON object with the field ``query``."""
    what = {
        "question": "a question that the document answers",
        "keywords": "a search query of keywords, no sentence, with which one would look for the document",
        "crosslingual": "a question that the document answers",
    }[task.template]
    wishes = [
        f"Write it in {language_name(task.language)}, whatever the language of the document.",
        f"Its length: {task.slots['query_length']}. It is {task.slots['clarity']} to a reader.",
        "It makes sense to somebody who has not seen the document: no 'this document', no 'the text'.",
        "It uses words of its own and copies no sentence of the document.",
    ]
    if "difficulty" in task.slots:
        wishes.append(f"Asking it takes {task.slots['difficulty']} level education.")
    return (
        f"Below is a document. Write {what}.\n\n"
        + "".join(f"- {wish}\n" for wish in wishes)
        + '- Answer with a JSON object only: {"query": "..."}\n\n'
        + f"Document:\n{_excerpt(task.source.document.text, characters)}"
    )


def few_shot_prompt(task: Task, characters: int) -> str:
    """A text for a pre-trained model to continue with one line, the query.

    Labels are in the document's language and the query's; the examples too, where the language is known,
    else English ones. A small model keeps to the language that it sees.
    """
    english = known_languages()["en"]
    asked, read = find_language(task.language) or english, find_language(task.source.language) or english
    order = list(range(len(english.examples)))
    random.Random(task.seed).shuffle(order)
    parts = []
    for i in order:
        query = asked.examples[i].keywords if task.template == "keywords" else asked.examples[i].question
        parts.append(_block(read, asked, task.template, read.examples[i].document, query))
    text = _excerpt(task.source.document.text, characters)
    return "\n\n".join([*parts, _block(read, asked, task.template, text, "").rstrip()])


def _block(read: Language, asked: Language, template: str, document: str, query: str) -> str:
    label = asked.keywords if template == "keywords" else asked.question
    return f"{read.document}: {document}\n{label}: {query}"


def negative_prompt(query: str, document: str, language: str, characters: int) -> str:
    """Asks an instructed model for a document that looks like an answer and is none."""
    return (
        "Below are a search query and a document that answers it. Write another document that looks "
        "relevant: the same topic, the same kind of text, some of the same words; but it does not answer "
        "the query.\n\n"
        f"- Write it in {language_name(language)}, about as long as the document, at most 150 words.\n"
        "- It says nothing about the query or about being irrelevant.\n"
        '- Answer with a JSON object only: {"hard_negative_document": "..."}\n\n'
        f"Query: {query}\n\nDocument:\n{_excerpt(document, characters)}"
    )


def _excerpt(text: str, characters: int) -> str:
    """The beginning, on one line, cut at a space where there is one near."""
    line = " ".join(text.split())
    if len(line) <= characters:
        return line
    cut = line[:characters]
    space = cut.rfind(" ")
    return cut[:space] if space > characters * 0.8 else cut


# E5-Mistral's two steps. Nothing is given but the languages: the model invents tasks, then examples.
QUERY_TYPES = ("extremely long-tail", "long-tail", "common")
NUMBERS_OF_WORDS = ("50", "100", "200", "300", "400", "500")


def brainstorm_prompt(count: int) -> str:
    """Step one: a list of retrieval tasks, as a JSON object with the field ``tasks``."""
    return (
        f"Brainstorm {count} different text retrieval tasks that would be useful to real people. Each is one "
        "sentence that says what the query is and what kind of document should be found, for instance "
        "'Given a symptom, find advice of a physician about it' or 'Given a claim, find reports that support "
        "or refute it'. Cover many domains, kinds of queries and kinds of documents.\n\n"
        'Answer with a JSON object only: {"tasks": ["...", "..."]}'
    )


def draw_slots(language: str, document_language: str, seed: int) -> dict[str, str]:
    """The slots of step two."""
    rng = random.Random(seed)
    return {
        "query_type": rng.choice(QUERY_TYPES),
        "query_length": rng.choice(LENGTHS),
        "clarity": rng.choice(CLARITIES),
        "difficulty": rng.choice(DIFFICULTIES),
        "num_words": rng.choice(NUMBERS_OF_WORDS),
        "language": language,
        "document_language": document_language,
    }


def triplet_prompt(task: str, slots: Mapping[str, str]) -> str:
    """Step two: one example of a task, as a JSON object with the fields of `TripletAnswer`."""
    return (
        f"You have been given this retrieval task: {json.dumps(task, ensure_ascii=False)}\n\n"
        "Write one example for it as a JSON object with these fields:\n"
        "- user_query: a query of a user, as the task says\n"
        "- positive_document: a document that answers it\n"
        "- hard_negative_document: a document that looks relevant and answers it less, or not at all\n\n"
        "Please mind:\n"
        f"- The query is {slots['query_type']}, of {slots['query_length']}, {slots['clarity']}.\n"
        f"- The documents have at least {slots['num_words']} words each and do not repeat the query word by "
        "word.\n"
        f"- The query is in {language_name(slots['language'])}, the documents are in "
        f"{language_name(slots['document_language'])}.\n"
        f"- Query and documents take {slots['difficulty']} level education to understand.\n"
        "- Neither document explains why it is relevant or not.\n\n"
        "Answer with the JSON object only."
    )
