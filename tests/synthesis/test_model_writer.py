"""What models are asked, and what becomes of their answers: a generator of a few lines answers."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from lit_retrofit.data.formats import read_records
from lit_retrofit.data.records import Document
from lit_retrofit.errors import UserError
from lit_retrofit.synthesis import synthesize as command
from lit_retrofit.synthesis.answers import Answer, Failure
from lit_retrofit.synthesis.documents import DocumentOptions, SourceDocument
from lit_retrofit.synthesis.filters import FilterOptions
from lit_retrofit.synthesis.languages import known_languages, language_name
from lit_retrofit.synthesis.model_writer import BrainstormOptions, PromptOptions
from lit_retrofit.synthesis.templates import chat_prompt, draw_task, few_shot_prompt

SENTENCES = {
    "English": "Everybody who has ever planted a pear tree knows that patience is needed, number",
    "German": "Wer schon einmal einen Birnbaum gepflanzt hat, der weiß, dass man Geduld braucht, Nummer",
    "Japanese": "梨の木を植えたことがある人なら誰でも忍耐が必要なことを知っています、番号",
}


class Model:
    """Answers by what the prompt asks for; keeps the requests."""

    retried = 0
    version = "first"

    def __init__(self):
        self.requests = []
        self.swapped = False  # hard negatives are in the wrong language
        self.failing = None  # the request of this number is not answered

    def generate(self, requests, stopped):
        for request in requests:
            self.requests.append(request)
            if len(self.requests) == self.failing:
                yield Failure(request.key, "down")
                continue
            yield Answer(request.key, json.dumps(self.answer(request.prompt)), "stop", 10, 5)

    def answer(self, prompt):
        number = len(self.requests)
        if "Brainstorm" in prompt:
            return {"tasks": [f"Given a thing {number}-{i}, find its description" for i in range(20)]}
        if "hard_negative_document" in prompt and "user_query" not in prompt:
            language = "German" if ("German" in prompt) != self.swapped else "English"
            return {"hard_negative_document": f"{SENTENCES[language]} {number} 123"}
        if "user_query" in prompt:
            inside = prompt.split("The query is in ")[1]
            asked, documents = inside.split(",")[0], inside.split("the documents are in ")[1].split(".")[0]
            wrong = SENTENCES["German" if documents == "English" else "English"]
            return {
                "user_query": f"{SENTENCES[asked]} {number} {number * 7919}",
                "positive_document": (wrong if number % 10 == 0 else SENTENCES[documents])
                + f" {number} yes.",
                "hard_negative_document": f"{SENTENCES[documents]} {number} no.",
            }
        language = prompt.split("Write it in ")[1].split(",")[0]
        return {"query": f"{SENTENCES.get(language, 'x')} {number} {number * 7919}?"}


@pytest.fixture
def model(monkeypatch):
    model = Model()
    monkeypatch.setattr(command, "LocalModel", lambda name, options: model)
    return model


def run(corpus, tmp_path, **options):
    output = tmp_path / "out.jsonl"
    options = {"filters": FilterOptions(near_duplicate=1.0)} | options
    summary = command.synthesize(corpus, output=output, generator="local", model="m", **options)
    return summary, read_records(output)[0]


def test_brainstorm_takes_two_steps_and_draws_all_slots(model, tmp_path):
    options = BrainstormOptions(records=60, languages=("en", "de"), document_languages=("en", "ja"))
    summary, records = run(None, tmp_path, templates=["brainstorm"], brainstorm=options,
                           prompt=PromptOptions(attempts=1))  # fmt: skip
    assert len(model.requests) == 3 + 60
    bad = summary.asked.bad_answers["document in another language"]
    assert 0 < bad < 12 and len(records) == 60 - bad
    seen = Counter()
    for record in records:
        made = json.loads(record.provenance)
        slots = made["slots"]
        seen.update(f"{name}={value}" for name, value in slots.items() if name != "task")
        assert (
            record.language == slots["language"]
            and record.positives[0].language == slots["document_language"]
        )
        assert len(record.negatives) == 1 and len(made["requests"]) == 2
        prompt = next(r.prompt for r in model.requests if r.key == made["requests"][1])
        for value in (slots["query_type"], slots["query_length"], slots["clarity"], slots["difficulty"],
                      slots["num_words"], slots["task"], language_name(slots["language"])):  # fmt: skip
            assert value in prompt
    assert len(seen) == 3 + 3 + 3 + 3 + 6 + 2 + 2  # every value of every slot was drawn


def test_cross_lingual_queries_are_in_another_language_of_those_named(model, corpus, tmp_path):
    _, records = run(str(corpus), tmp_path, templates=["crosslingual"],
                           query_languages=["de", "en", "ja"], queries=4)  # fmt: skip
    assert len(records) > 12
    assert all(record.language != record.positives[0].language for record in records)
    assert {record.language for record in records} == {"de", "en", "ja"}


def test_a_list_of_tasks_that_comes_late_changes_the_prompts_of_its_own_plans_only(model, tmp_path):
    options = {"templates": ["brainstorm"], "brainstorm": BrainstormOptions(60, ("en", "de"))}
    model.failing = 2  # of the three that ask for tasks
    summary, _ = run(None, tmp_path, **options)
    assert len(model.requests) == 63 and summary.asked.failed == {"down": 1}
    earlier = {request.prompt for request in model.requests[3:]}
    assert len(earlier) == 60  # the plans of the missing list took tasks of another
    summary, _ = run(None, tmp_path, overwrite=True, **options)
    (tasks, *asked) = model.requests[63:]
    assert "Brainstorm 20" in tasks.prompt and len(asked) == 20 and summary.asked.from_log == 42
    assert all("thing 64-" in request.prompt and request.prompt not in earlier for request in asked)
    assert len({request.prompt for request in asked}) == 20


def test_answers_of_other_weights_under_the_same_name_are_not_taken(model, corpus, tmp_path):
    _, records = run(str(corpus), tmp_path)
    assert json.loads(records[0].provenance)["model"] == "m@first"
    summary, _ = run(str(corpus), tmp_path, overwrite=True)
    assert len(model.requests) == 6 and summary.asked.from_log == 6
    model.version = "second"
    summary, records = run(str(corpus), tmp_path, overwrite=True)
    assert len(model.requests) == 12 and summary.asked.from_log == 0
    assert json.loads(records[0].provenance)["model"] == "m@second"


def test_documents_in_the_only_language_of_the_queries_are_left_out_and_counted(model, corpus, tmp_path):
    options = {"templates": ["crosslingual"], "query_languages": ["de"]}
    summary, records = run(str(corpus), tmp_path, **options)
    assert len(model.requests) == 3 and {record.positives[0].language for record in records} == {"en"}
    assert summary.left_out == {"crosslingual: in the only language of query_languages": 3}
    both = {**options, "templates": ["question", "crosslingual"], "overwrite": True}
    assert run(str(corpus), tmp_path, **both)[0].templates == {"crosslingual": 3, "question": 6}
    german = {**options, "overwrite": True, "documents": DocumentOptions(languages=("de",))}
    before = len(model.requests)
    with pytest.raises(UserError, match=r"names no language but the documents' own \(de\)"):
        run(str(corpus), tmp_path, **german)
    assert len(model.requests) == before  # told before anything is paid for


def test_hard_negatives_are_asked_for_what_the_filters_keep_only(model, corpus, tmp_path):
    _, records = run(
        str(corpus), tmp_path, hard_negatives=2, filters=FilterOptions(per_language=2, near_duplicate=1.0)
    )
    asked = [request for request in model.requests if "hard_negative_document" in request.prompt]
    assert len(records) == 4 and len(asked) == 8 and len({request.key for request in asked}) == 8
    for record in records:
        assert len(record.negatives) == 2
        made = json.loads(record.provenance)
        about = [r for r in asked if r.key in made["requests"]]
        assert len(about) == 2 and all(record.query in request.prompt for request in about)


def test_hard_negatives_in_another_language_than_their_document_are_not_taken(model, corpus, tmp_path):
    model.swapped = True
    summary, records = run(str(corpus), tmp_path, hard_negatives=1)
    assert summary.asked.bad_answers == {"hard negative in another language": 6}
    assert len(records) == 6 and not any(record.negatives for record in records)


def test_what_needs_an_instructed_model_says_so(model, corpus, tmp_path):
    for options in ({"templates": ["brainstorm"]}, {"hard_negatives": 1}):
        with pytest.raises(UserError, match="instructed model"):
            run(str(corpus), tmp_path, prompt=PromptOptions(chat=False, attempts=1), **options)
    assert not model.requests  # told before anything is paid for


SOURCE = SourceDocument(Document("d", "Ein Satz über Filter. " * 30, "de"), None, "", "d")


def test_slots_hang_on_the_seed_the_document_the_template_and_the_copy_only():
    task = draw_task(SOURCE, "question", None, 0)
    assert task == draw_task(SOURCE, "question", None, 0)
    others = [draw_task(SOURCE, "question", None, 1), draw_task(SOURCE, "question", None, 0, copy=1),
              draw_task(SOURCE, "keywords", None, 0)]  # fmt: skip
    assert len({task.seed, *(other.seed for other in others)}) == 4


def test_prompts_hold_the_beginning_of_the_document_and_examples_in_both_languages():
    task = draw_task(SOURCE, "crosslingual", ("ja", "de"), 0)
    assert task.language == "ja" and "Write it in Japanese" in chat_prompt(task, 100)
    shown = chat_prompt(task, 100).split("Document:\n")[1]
    assert len(shown) <= 100 and SOURCE.document.text.startswith(shown)
    text = few_shot_prompt(task, 100)
    assert text.count("Dokument: ") == 4 and text.count("質問: ") == 3 and text.endswith("質問:")
    for example in known_languages()["ja"].examples:
        assert example.question in text and example.keywords not in text


def test_every_language_has_the_same_examples_and_patterns_with_one_gap():
    for language in known_languages().values():
        assert len(language.examples) == 3 and len(language.questions) == 4
        assert all(pattern.count("{}") == 1 for pattern in language.questions)
