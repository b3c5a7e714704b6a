"""What a model must answer, and the reasons for which an answer is turned down."""

from __future__ import annotations

import json
import re
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from lit_retrofit.synthesis.answers import Answer
from lit_retrofit.synthesis.languages import example_queries

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class BadAnswer(Exception):
    """An answer that cannot be used; the message is the reason, under which it is counted."""


class Schema(BaseModel):
    """A JSON object; fields that nobody asked for are ignored, a number where a text belongs is not."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class QueryAnswer(Schema):
    """A query for a given document."""

    query: Text


class NegativeAnswer(Schema):
    """A document that looks like an answer and is none."""

    hard_negative_document: Text


class TasksAnswer(Schema):
    """Step one of the brainstorm: descriptions of retrieval tasks."""

    tasks: list[Text]


class TripletAnswer(Schema):
    """Step two: an example of a task."""

    user_query: Text
    positive_document: Text
    hard_negative_document: Text


Found = TypeVar("Found", bound=Schema)

# How instructed models begin when they decline, in the languages of `languages.json`.
_REFUSAL = re.compile(
    r"^\W*(i['’]?m sorry|i am sorry|sorry,|i can ?not |i can['’]t |i am unable|i['’]m unable|as an ai\b|"
    r"es tut mir leid|als ki\b|lo siento|como (modelo|una? ia)\b|je suis désolé|désolé,|en tant qu['’]ia\b|"
    r"mi dispiace|desculpe|sinto muito|извините|к сожалению, я не|простите|"
    r"抱歉|对不起|很抱歉|作为(一个)?(人工智能|ai)|申し訳|すみませんが|죄송|üzgünüm|maalesef|عذر|آسف)",
    re.IGNORECASE,
)


def check_written(answer: Answer) -> str:
    """The answer's text, if there is one and it is no refusal.

    Raises:
        BadAnswer: empty answer, refusal, half a surrogate pair.
    """
    text = answer.text.strip()
    if answer.finish in ("refusal", "content_filter") or _REFUSAL.match(text):
        raise BadAnswer("refusal")
    if not text:
        raise BadAnswer("empty answer")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadAnswer("half a surrogate pair") from None
    return text


def read_json(answer: Answer, schema: type[Found]) -> Found:
    """Reads the first JSON object of an answer, which may stand in a code fence or after some words.

    Raises:
        BadAnswer: empty answer, refusal, truncated JSON, invalid JSON, JSON of another form.
    """
    text = check_written(answer)
    begin = text.find("{")
    if begin < 0:
        raise BadAnswer("truncated JSON" if answer.finish == "length" else "no JSON")
    try:
        value, _ = json.JSONDecoder(strict=False).raw_decode(text, begin)  # line breaks inside texts are fine
    except (ValueError, RecursionError):
        raise BadAnswer("truncated JSON" if answer.finish == "length" else "invalid JSON") from None
    try:
        found = schema.model_validate(value)
    except ValidationError:
        raise BadAnswer("JSON of another form") from None
    for name in schema.model_fields:
        part = getattr(found, name)
        if isinstance(part, str) and _REFUSAL.match(part):
            raise BadAnswer("refusal")
    return found


def read_line(answer: Answer) -> str:
    """The first line that a pre-trained model wrote.

    Raises:
        BadAnswer: empty answer, refusal, a line that was cut off, or one of the examples again.
    """
    lines = check_written(answer).splitlines()
    if len(lines) == 1 and answer.finish == "length":
        raise BadAnswer("truncated line")
    line = lines[0].strip()
    if line in example_queries():  # small models like to copy them
        raise BadAnswer("one of the examples again")
    return line
