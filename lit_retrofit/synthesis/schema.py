"""What a model must answer, and the reasons for which an answer is turned down."""

from __future__ import annotations

import json
import re
from itertools import islice
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from lit_retrofit.synthesis.answers import Answer
from lit_retrofit.synthesis.languages import example_queries
from lit_retrofit.synthesis.refusals import begins_like_a_refusal, is_clearly_a_refusal

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


_MOST_OBJECTS = 100  # beginnings of an object that are tried in one answer


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


def check_written(answer: Answer) -> str:
    """The answer's text, if there is one and the endpoint does not call it a refusal.

    Raises:
        BadAnswer: empty answer, refusal, half a surrogate pair.
    """
    text = answer.text.strip()
    if answer.finish in ("refusal", "content_filter"):
        raise BadAnswer("refusal")
    if not text:
        raise BadAnswer("empty answer")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadAnswer("half a surrogate pair") from None
    return text


def read_json(answer: Answer, schema: type[Found]) -> Found:
    """Reads the first JSON object of the form that was asked for.

    It may stand in a code fence or after some words; what a reasoning model thinks before is not looked at.

    Raises:
        BadAnswer: empty answer, refusal, truncated JSON, invalid JSON, JSON of another form.
    """
    text = check_written(answer).rpartition("</think>")[2]
    if begins_like_a_refusal(text):
        raise BadAnswer("refusal")
    if text.lstrip().startswith("<think>"):  # it was cut off while it was thinking
        text = ""
    found = _first_of_form(text, schema, truncated=answer.finish == "length")
    for name in schema.model_fields:
        part = getattr(found, name)
        if isinstance(part, str) and is_clearly_a_refusal(part):
            raise BadAnswer("refusal")
    return found


def _first_of_form(text: str, schema: type[Found], *, truncated: bool) -> Found:
    reason = "truncated JSON" if truncated else "no JSON"
    for begin in islice((brace.start() for brace in re.finditer("{", text)), _MOST_OBJECTS):
        try:
            value, _ = json.JSONDecoder(strict=False).raw_decode(text, begin)  # line breaks in texts are fine
        except (ValueError, RecursionError):
            reason = "invalid JSON" if reason == "no JSON" else reason
            continue
        try:
            return schema.model_validate(value)
        except ValidationError:
            reason = "JSON of another form"
    raise BadAnswer(reason)


def read_line(answer: Answer) -> str:
    """The first line that a pre-trained model wrote.

    Raises:
        BadAnswer: empty answer, refusal, a line that was cut off, or one of the examples again.
    """
    lines = check_written(answer).splitlines()
    if len(lines) == 1 and answer.finish == "length":
        raise BadAnswer("truncated line")
    line = lines[0].strip()
    if is_clearly_a_refusal(line):
        raise BadAnswer("refusal")
    if line in example_queries():  # small models like to copy them
        raise BadAnswer("one of the examples again")
    return line
