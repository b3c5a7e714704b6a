"""The log: nothing twice, nothing lost, one writer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lit_retrofit.errors import UserError
from lit_retrofit.synthesis.answers import Answer, AnswerLog, Lost, Request

REQUEST = Request("m", "what", True, 10, 0.5, 7)
ANSWER = Answer(REQUEST.key, 'line\n"two" ü 日本 \ud83d', "stop", 3, 4)


def test_equal_requests_have_equal_keys_and_any_change_another():
    assert REQUEST.key == Request("m", "what", True, 10, 0.5, 7).key
    changes = {"model": "n", "prompt": "w", "chat": False, "max_tokens": 11, "temperature": 0.6, "seed": 8,
               "stop": "\n"}  # fmt: skip
    keys = {replace(REQUEST, **{name: value}).key for name, value in changes.items()}
    assert len(keys) == len(changes) and REQUEST.key not in keys


def test_answers_are_read_back_equal_even_with_half_a_character(tmp_path):
    with AnswerLog(tmp_path / "a.jsonl") as log:
        log.add(ANSWER)
        assert (tmp_path / "a.jsonl").read_bytes().endswith(b"\n")  # on disk before the log is closed
    with AnswerLog(tmp_path / "a.jsonl") as log:
        assert log.get(REQUEST.key) == ANSWER and len(log) == 1 and log.get("other") is None


def test_what_was_lost_is_charged_for_and_is_no_answer(tmp_path):
    for run in range(2):
        with AnswerLog(tmp_path / "a.jsonl") as log:
            if run == 0:
                log.add(ANSWER)
                log.add(Lost("other", 50, 60))
            assert log.charged() == (53, 64) and len(log) == 1 and log.get("other") is None


@pytest.mark.parametrize("torn", [1, 10, -1])
def test_half_a_line_at_the_end_is_cut_off_and_the_rest_kept(tmp_path, torn):
    path = tmp_path / "a.jsonl"
    with AnswerLog(path) as log:
        log.add(ANSWER)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:torn])
    with AnswerLog(path) as log:
        assert len(log) == 1 and path.read_bytes() == whole
        log.add(replace(ANSWER, key="second"))
    with AnswerLog(path) as log:
        assert len(log) == 2


def test_another_line_that_is_none_is_told(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("{}\n")
    with pytest.raises(UserError, match=r"a\.jsonl:1: not an answer"), AnswerLog(path):
        pass
    with pytest.raises(UserError, match=r"a\.jsonl:1: not an answer"), AnswerLog(path):
        pass  # the lock was given back


def test_two_processes_do_not_share_a_log(tmp_path):
    with (
        AnswerLog(tmp_path / "a.jsonl"),
        pytest.raises(UserError, match="another process"),
        AnswerLog(tmp_path / "a.jsonl"),
    ):
        pass
