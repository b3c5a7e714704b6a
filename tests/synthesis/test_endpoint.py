"""Against an endpoint on loopback: everything that one may answer, and that nothing is lost or told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import httpx
import pytest

from lit_retrofit.cli import main
from lit_retrofit.data.formats import read_records
from lit_retrofit.errors import Interrupted, UserError
from lit_retrofit.synthesis.answers import Request
from lit_retrofit.synthesis.asking import Signals
from lit_retrofit.synthesis.generators.connection import EndpointOptions
from lit_retrofit.synthesis.generators.endpoint import Endpoint, _was_sent
from lit_retrofit.synthesis.generators.retries import may_pass_later, seconds_to_wait
from lit_retrofit.synthesis.model_writer import PromptOptions
from lit_retrofit.synthesis.spending import Prices, Purse
from lit_retrofit.synthesis.synthesize import synthesize


@pytest.fixture
def ask(fake, corpus, tmp_path):
    """Runs the command against the endpoint."""

    def call(*, endpoint=None, attempts=1, name="out.jsonl", **options):
        settings = {"retries": 2, "concurrency": 2, "timeout": 5.0} | (endpoint or {})
        return synthesize(
            str(corpus), output=tmp_path / name, generator="endpoint", model="m",
            endpoint=EndpointOptions(url=fake.url, **settings), prompt=PromptOptions(attempts=attempts),
            **options,
        )  # fmt: skip

    return call


def test_every_document_gets_a_record_with_its_provenance(ask, fake, tmp_path):
    summary = ask()
    records = read_records(tmp_path / "out.jsonl")[0]
    assert len(records) == 6 == len(fake.bodies) and summary.kept == {"de": 3, "en": 3}
    log = [json.loads(line) for line in (tmp_path / "out.answers.jsonl").read_text().splitlines()]
    by_key = {answer["key"]: json.loads(answer["text"])["query"] for answer in log}
    for record in records:
        made = json.loads(record.provenance)
        assert (made["generator"], made["model"], made["template"]) == ("endpoint", "m", "question")
        assert by_key[made["requests"][0]] == record.query
        body = next(b for b in fake.bodies if b["seed"] == made["seed"] % 2**31)
        assert record.positives[0].text in body["messages"][0]["content"]
        assert made["slots"]["query_length"] in body["messages"][0]["content"]
        assert record.group == record.positives[0].id
    assert summary.asked.input_tokens == 600 and summary.asked.output_tokens == 60


def test_busy_and_broken_servers_are_asked_again(ask, fake):
    faults = {1: (429, {"Retry-After-Ms": "5"}, {}), 2: (500, {}, b"oops"), 4: (503, {}, {})}
    fake.behave = lambda number, body: faults.get(number) or fake.good(number, body)
    summary = ask()
    assert len(fake.bodies) == 9 and summary.asked.retried == 3
    assert sum(summary.kept.values()) == 6 and not summary.asked.failed


def test_what_is_never_answered_is_counted_and_asked_by_the_next_run_only(ask, fake):
    fake.behave = lambda n, body: (500, {}, {}) if "spelling" in str(body["messages"]) else fake.good(n, body)
    summary = ask()
    assert summary.asked.failed == {"status 500": 1} and sum(summary.kept.values()) == 5
    before = len(fake.bodies)
    fake.behave = fake.good
    again = ask(overwrite=True)
    assert len(fake.bodies) == before + 1 and sum(again.kept.values()) == 6
    assert again.asked.from_log == 5 and again.asked.requests == 1


def test_a_time_out_is_told_as_such(ask, fake):
    def slow(number, body):
        if "chart" in body["messages"][0]["content"]:
            time.sleep(2.0)
        return fake.good(number, body)

    fake.behave = slow
    summary = ask(endpoint={"timeout": 0.8, "retries": 0})
    assert summary.asked.failed == {"time-out": 1}


def test_what_a_model_thinks_is_no_answer(ask, fake):
    fake.behave = lambda n, body: (200, {}, fake.completion(
        '<think>Perhaps {"query": "no"}, or {a}?</think>Here {it} is: {"query": "' + fake.written(body) + '"}'
    ))  # fmt: skip
    summary = ask()
    assert sum(summary.kept.values()) == 6 and not summary.asked.bad_answers


BAD = {
    "still thinking": ('<think>Perhaps {"query": "What else is there?"}', "length", "truncated JSON"),
    "broken": ('{"query": "What', "stop", "invalid JSON"),
    "truncated": ('{"query": "What is the best', "length", "truncated JSON"),
    "no json": ("What is a filter?", "stop", "no JSON"),
    "other form": ('{"question": "What is it?"}', "stop", "JSON of another form"),
    "number": ('{"query": 7}', "stop", "JSON of another form"),
    "blank": ('{"query": "  "}', "stop", "JSON of another form"),
    "half a pair": ('{"query": "\\ud83d what"}', "stop", "JSON of another form"),
    "empty": ("", "stop", "empty answer"),
    "null": (None, "stop", "empty answer"),
    "refusal": ("I'm sorry, but I can't help with that.", "stop", "refusal"),
    "refusal in json": ('{"query": "As an AI language model, I cannot"}', "stop", "refusal"),
    "filtered": ("", "content_filter", "refusal"),
    "deep": ('{"query": ' + "[" * 100_000, "stop", "invalid JSON"),
}


@pytest.mark.parametrize("case", BAD)
def test_unusable_answers_are_counted_kept_and_asked_anew(ask, fake, tmp_path, case):
    text, finish, reason = BAD[case]
    bad = (200, {}, fake.completion(text, finish))

    def behave(number, body):
        return bad if number <= 6 and "chart" in body["messages"][0]["content"] else fake.good(number, body)

    fake.behave = behave
    summary = ask(attempts=2, endpoint={"concurrency": 1})
    assert summary.asked.bad_answers == {reason: 1}
    assert sum(summary.kept.values()) == 6  # the second attempt was good
    assert len((tmp_path / "out.answers.jsonl").read_text().splitlines()) == 7  # the bad one was paid, too


def test_fenced_json_and_line_breaks_in_texts_are_read(ask, fake):
    fake.behave = lambda n, body: (
        200, {}, fake.completion('Sure!\n```json\n{"query": "' + fake.written(body) + '\n"}\n```'),
    )  # fmt: skip
    assert sum(ask().kept.values()) == 6


def test_an_answer_in_another_language_is_dropped(ask, fake):
    english = {"query": "How can all of the hidden rows of a sheet be shown once again, please?"}
    fake.behave = lambda n, body: (
        (200, {}, fake.completion(json.dumps(english)))
        if "Zellen" in str(body["messages"])
        else fake.good(n, body)
    )
    summary = ask()
    assert summary.dropped["wrong language"].count == 1 and summary.kept == {"de": 2, "en": 3}


@pytest.mark.parametrize(("status", "asked"), [(400, 3), (401, 1), (403, 1), (404, 1), (422, 3)])
def test_what_is_refused_from_the_beginning_stops_with_one_line(ask, fake, status, asked):
    fake.behave = lambda n, body: (status, {}, {"error": {"message": "no\nsuch thing"}})
    with pytest.raises(UserError, match=f"status {status} .*no such thing") as caught:
        ask(endpoint={"concurrency": 1})
    assert len(fake.bodies) == asked and "\n" not in str(caught.value)


@pytest.mark.parametrize("status", [400, 403])
def test_one_document_that_is_refused_stands_in_nobodys_way(ask, fake, status):
    def behave(number, body):
        refused = number > 1 and "Zellen" in str(body["messages"])
        return (status, {}, {"error": {"message": "filtered"}}) if refused else fake.good(number, body)

    fake.behave = behave
    summary = ask(endpoint={"concurrency": 1})
    assert summary.asked.failed == {f"status {status}": 1} and sum(summary.kept.values()) == 5
    again = ask(endpoint={"concurrency": 1}, overwrite=True)  # the only request is one that is refused
    assert len(fake.bodies) == 7 and sum(again.kept.values()) == 5


def test_refusals_one_after_another_are_no_endpoint_that_is_down(ask, fake):
    fake.behave = lambda n, body: fake.good(n, body) if n in (1, 30) else (400, {}, {})
    summary = ask(endpoint={"concurrency": 1}, queries=5)
    assert len(fake.bodies) == 30 and summary.asked.failed == {"status 400": 28}


@pytest.mark.parametrize(
    "usage", [None, {}, {"prompt_tokens": 5}, {"prompt_tokens": None, "completion_tokens": 7}]
)
def test_tokens_that_a_server_does_not_count_are_taken_at_most(ask, fake, usage):
    fake.behave = lambda n, body: (200, {}, fake.completion(json.dumps({"query": fake.written(body)})) | {
        "usage": usage})  # fmt: skip
    summary = ask()
    most = sum(len(body["messages"][0]["content"].encode()) + 64 for body in fake.bodies)
    counted = usage or {}
    assert sum(summary.kept.values()) == 6 and not summary.asked.failed
    assert summary.asked.input_tokens == (30 if counted.get("prompt_tokens") else most)
    assert summary.asked.output_tokens == (42 if counted.get("completion_tokens") else 6 * 128)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"choices": []}', b'{"choices": [{}]}'])
def test_what_is_no_response_of_the_protocol_is_a_failure(ask, fake, body):
    fake.behave = lambda n, asked: (200, {}, body) if n == 1 else fake.good(n, asked)
    summary = ask(endpoint={"concurrency": 1})
    assert summary.asked.failed == {"no response of the protocol": 1} and sum(summary.kept.values()) == 5


def test_an_endpoint_that_is_down_ends_the_run_and_keeps_what_was_answered(ask, fake, tmp_path):
    fake.behave = lambda n, body: fake.good(n, body) if n == 1 else (500, {}, {})
    with pytest.raises(UserError, match="requests failed one after another, the last one with 'status 500'"):
        ask(endpoint={"retries": 0, "concurrency": 1}, queries=3)
    assert len(fake.bodies) == 9
    assert len((tmp_path / "out.answers.jsonl").read_text().splitlines()) == 1
    assert not (tmp_path / "out.jsonl").exists()


def test_nobody_listens(ask, corpus, tmp_path):
    with pytest.raises(UserError, match="no record is left: no connection 6"):
        synthesize(
            str(corpus), output=tmp_path / "o.jsonl", generator="endpoint", model="m",
            endpoint=EndpointOptions(url="http://127.0.0.1:9/v1", retries=0),
            prices=Prices(input=1000.0, output=1000.0, limit=1.0),  # nothing was sent, so nothing is spent
        )  # fmt: skip


def test_the_limit_is_never_passed_and_what_was_paid_is_written(ask, fake):
    dear = {
        "input": 1000.0,
        "output": 1000.0,
    }  # an answer costs 0.11, and a request could cost ten times that
    summary = ask(prices=Prices(**dear, limit=1.0))
    most = max(len(body["messages"][0]["content"].encode()) + 64 + 128 for body in fake.bodies) / 1000
    cost = 0.11 * len(fake.bodies)
    assert 0 < summary.asked.beyond_limit == 6 - len(fake.bodies) < 6
    assert summary.asked.cost == pytest.approx(cost) and cost <= 1.0 < cost + 1.1 * most
    assert sum(summary.kept.values()) == len(fake.bodies)
    more = ask(prices=Prices(**dear, limit=30.0), overwrite=True)
    assert len(fake.bodies) == 6 and more.asked.beyond_limit == 0
    assert more.asked.cost == pytest.approx(0.66)  # earlier runs are counted


def test_the_pace_is_kept(ask, fake):
    started = time.monotonic()
    ask(endpoint={"requests_per_minute": 1200})
    assert time.monotonic() - started >= 5 * 0.05


def test_requests_sent_again_keep_the_pace_too(ask, fake):
    fake.behave = lambda n, body: (429, {"Retry-After": "0"}, {}) if n <= 4 else fake.good(n, body)
    started = time.monotonic()
    summary = ask(endpoint={"requests_per_minute": 1200, "retries": 6})
    assert len(fake.bodies) == 10 and summary.asked.retried == 4
    assert time.monotonic() - started >= 9 * 0.05


@pytest.mark.parametrize(
    ("fault", "status"),
    [("time-out", 200), ("broken connection", 0), ("status 502", 502), ("status 504", 504),
     ("status 524", 524)],
)  # fmt: skip
def test_requests_without_an_answer_are_held_against_the_limit_in_this_run_and_the_next(
    ask, fake, fault, status
):
    fake.behave = lambda n, body: time.sleep(1.0 if fault == "time-out" else 0.0) or (status, {}, {})
    dear = Prices(input=1000.0, output=1000.0, limit=1.0)  # enough for one request, not for two
    for spent in (f"{fault} 1, spending limit 5", "spending limit 6"):
        with pytest.raises(UserError, match=f"no record is left: {spent}"):
            ask(endpoint={"timeout": 0.2, "retries": 3, "concurrency": 1}, prices=dear)
        assert len(fake.bodies) == 1


def test_a_request_is_not_sent_again_after_a_signal(fake):
    fake.behave = lambda n, body: (500, {"Retry-After": "30"}, {})
    endpoint = Endpoint(EndpointOptions(url=fake.url, retries=5), Purse(Prices()))
    started = time.monotonic()
    results = list(
        endpoint.generate([Request("m", "Document: A chart", True, 9, 0.0, 0)], lambda: bool(fake.bodies))
    )
    assert len(fake.bodies) == 1 and results == []  # neither an answer nor a failure
    assert time.monotonic() - started < 10  # the endpoint said 30 seconds


def test_requests_that_wait_when_a_signal_comes_are_no_failures(ask, fake, monkeypatch):
    fake.behave = lambda n, body: (429, {"Retry-After": "30"}, {})
    monkeypatch.setattr(Signals, "stopped", lambda self: len(fake.bodies) >= 8)
    with pytest.raises(Interrupted, match="0 answers are kept"):  # not: 8 requests failed one after another
        ask(endpoint={"concurrency": 8}, queries=2)


@pytest.mark.parametrize(
    ("cause", "sent"),
    [(httpx.ConnectError, False), (httpx.ConnectTimeout, False), (httpx.PoolTimeout, False),
     (httpx.ReadTimeout, True), (httpx.ReadError, True), (httpx.RemoteProtocolError, True)],
)  # fmt: skip
def test_a_connection_that_was_never_made_is_not_charged(cause, sent):
    error = ConnectionError()
    error.__cause__ = cause("")
    assert _was_sent(error) is sent


@pytest.mark.parametrize(
    ("headers", "attempt", "seconds"),
    [({}, 0, 0.001), ({}, 3, 0.008), ({"retry-after": "7"}, 2, 7.0), ({"retry-after-ms": "250"}, 0, 0.25),
     ({"retry-after": "soon"}, 1, 0.002), ({"retry-after": "86400"}, 0, 600.0),
     ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0, 0.0)],
)  # fmt: skip
def test_waits_double_or_are_as_long_as_the_endpoint_says(fake, headers, attempt, seconds):
    assert seconds_to_wait(attempt, headers) == pytest.approx(seconds)


def test_a_date_to_come_back_at_is_understood():
    later = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=90), usegmt=True)
    assert 85 < seconds_to_wait(0, {"retry-after": later}) <= 90


def test_the_endpoint_may_say_whether_to_ask_again():
    assert not may_pass_later(500, {"x-should-retry": "false"}) and may_pass_later(
        400, {"x-should-retry": "true"}
    )


def test_a_pre_trained_model_gets_examples_and_a_line_is_taken(fake, corpus, tmp_path):
    fake.behave = lambda n, body: (200, {}, fake.completion(f"number {n} of what there is to ask\nDocument:"))
    synthesize(
        str(corpus), output=tmp_path / "o.jsonl", generator="endpoint", model="m",
        endpoint=EndpointOptions(url=fake.url), prompt=PromptOptions(chat=False, characters=40),
    )  # fmt: skip
    german = next(body for body in fake.bodies if body["prompt"].rstrip().endswith("Frage:"))
    assert german["path"].endswith("/v1/completions") and german["stop"] == "\n"
    assert german["prompt"].count("Dokument: ") == 4 and german["prompt"].count("Frage: ") == 3
    queries = {record.query for record in read_records(tmp_path / "o.jsonl")[0]}
    assert queries and queries <= {f"number {n} of what there is to ask" for n in range(1, 7)}


def test_an_example_copied_from_the_prompt_is_no_query(fake, corpus, tmp_path):
    fake.behave = lambda n, body: (
        200, {}, fake.completion(body["prompt"].split("\n\n")[0].rsplit(": ", 1)[1] + "\n"),
    )  # fmt: skip
    with pytest.raises(UserError, match="no record is left: one of the examples again 12"):
        synthesize(
            str(corpus), output=tmp_path / "o.jsonl", generator="endpoint", model="m",
            endpoint=EndpointOptions(url=fake.url), prompt=PromptOptions(chat=False),
        )  # fmt: skip


SECRET = "sk-very-secret-0123456789"


def test_the_key_is_sent_and_stands_nowhere_else(fake, corpus, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("MY_KEY", SECRET)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai-alone")
    words = ["synthesize", str(corpus), "--output", str(tmp_path / "o.jsonl"), "--generator", "endpoint",
             "--model", "m", "--endpoint.url", fake.url, "--endpoint.key_variable", "MY_KEY",
             "--endpoint.concurrency", "1"]  # fmt: skip

    def echo(number, body):
        if number > 1:
            return 401, {}, {"error": {"message": f"Incorrect API key provided: {SECRET}"}}
        return 200, {}, fake.completion(json.dumps({"query": f"What is the secret of {SECRET} here?"}))

    fake.behave = echo
    assert main(words) == 2
    fake.behave = fake.good
    assert main(words) == 0
    assert {headers["authorization"] for headers in fake.headers} == {f"Bearer {SECRET}"}
    said = "".join(capfd.readouterr())
    assert "Incorrect API key provided: ***" in said and SECRET not in said
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("key", [SECRET, "AIzaVerySecret0123456789"])
def test_a_key_in_place_of_its_variables_name_is_not_told(fake, corpus, tmp_path, capfd, key):
    words = ["synthesize", str(corpus), "--output", str(tmp_path / "o.jsonl"), "--generator", "endpoint",
             "--model", "m", "--endpoint.url", fake.url, "--endpoint.key_variable", key]  # fmt: skip
    assert main(words) == 2
    said = "".join(capfd.readouterr())
    assert "endpoint.key_variable" in said and key not in said and not fake.bodies


def test_openais_key_goes_to_openai_only(ask, fake, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    ask()
    assert all(SECRET not in str(headers) for headers in fake.headers)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_goes_on_without_asking_twice(fake, corpus, tmp_path, number):
    words = [sys.executable, "-c", "import sys; from lit_retrofit.cli import main; sys.exit(main())",
             "synthesize", str(corpus), "--output", str(tmp_path / "o.jsonl"), "--generator", "endpoint",
             "--model", "m", "--endpoint.url", fake.url, "--endpoint.concurrency", "1"]  # fmt: skip
    log = tmp_path / "o.answers.jsonl"

    def behave(n, body):
        if n == 4:  # three answers are on disk, the fourth is under way
            while len(log.read_bytes().splitlines()) < 3:
                time.sleep(0.01)
            os.kill(process.pid, number)
            time.sleep(0.3)
        return fake.good(n, body)

    fake.behave = behave
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    kept = 3 if number == signal.SIGKILL else 4  # what is under way is awaited, but for a kill
    assert len(log.read_text().splitlines()) == kept and not (tmp_path / "o.jsonl").exists()
    if number != signal.SIGKILL:
        assert f"{kept} answers are kept in {log}; the same command goes on" in " ".join(said.split())
    fake.behave, before = fake.good, len(fake.bodies)
    assert main(words[3:]) == 0
    assert len(fake.bodies) - before == 6 - kept
    asked = [body["messages"][0]["content"] for body in fake.bodies]
    assert len(set(asked)) == 6 and len(asked) == (7 if number == signal.SIGKILL else 6)
    assert len(read_records(tmp_path / "o.jsonl")[0]) == 6
