"""A corpus on disk, and an endpoint on loopback that answers as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

DOCUMENTS = {
    "en": [
        "Removes the filter from the selected cells, so that all rows of the sheet are visible once more.",
        "A chart shows the numbers of a table as columns, lines or circles. Insert it from the menu.",
        "The spelling checker underlines words that are not in the dictionary of the language.",
    ],
    "de": [
        "Entfernt den Filter von den ausgewählten Zellen, sodass wieder alle Zeilen sichtbar sind.",
        "Ein Diagramm zeigt die Zahlen einer Tabelle als Säulen, Linien oder Kreise im Dokument.",
        "Die Rechtschreibprüfung unterstreicht Wörter, die nicht im Wörterbuch der Sprache stehen.",
    ],
}


@pytest.fixture
def corpus(tmp_path):
    """Six documents in two languages."""
    file = tmp_path / "corpus.jsonl"
    rows = [
        {"_id": f"{language}{i}", "text": text, "language": language}
        for language, texts in DOCUMENTS.items()
        for i, text in enumerate(texts)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def completion(text: str | None, finish: str = "stop", **message: Any) -> dict[str, Any]:
    """A response of the protocol."""
    return {
        "id": "x", "object": "chat.completion", "created": 0, "model": "m",
        "choices": [{"index": 0, "finish_reason": finish, "text": text,
                     "message": {"role": "assistant", "content": text, **message}}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
    }  # fmt: skip


QUERIES = {
    "filter from": "How can I get back the rows that I can no longer see?",
    "A chart": "Is there a way to draw my figures as a picture?",
    "spelling": "Why do some of my words have a red line below?",
    "den Filter": "Warum fehlen in meiner Tabelle auf einmal so viele Einträge?",
    "Ein Diagramm": "Kann ich meine Werte auch als Bild darstellen lassen?",
    "Rechtschreib": "Was bedeutet die rote Linie unter manchen Begriffen?",
}


def written(body: dict[str, Any]) -> str:
    """A query of its own for each document, in its language."""
    prompt = body["messages"][0]["content"].rsplit("Document:", 1)[1]
    return next(query for words, query in QUERIES.items() if words in prompt)


def good(number: int, body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
    return 200, {}, completion(json.dumps({"query": written(body)}))


Behaviour = Callable[[int, dict[str, Any]], tuple[int, dict[str, str], Any]]


class FakeEndpoint:
    """Counts requests; ``behave`` turns (number, body) into (status, headers, body). Status 0 hangs up."""

    completion, good, written = staticmethod(completion), staticmethod(good), staticmethod(written)

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.behave: Behaviour = good
        self.lock = threading.Lock()
        self.url = ""

    def answer(self, body: dict[str, Any], headers: dict[str, str]) -> tuple[int, dict[str, str], Any]:
        with self.lock:
            self.bodies.append(body)
            self.headers.append(headers)
            number = len(self.bodies)
        return self.behave(number, body)


@pytest.fixture
def fake(monkeypatch) -> Iterator[FakeEndpoint]:
    """An endpoint on loopback. Waits between retries are none."""
    monkeypatch.setattr("lit_retrofit.synthesis.generators.retries._FIRST_WAIT", 0.001)
    state = FakeEndpoint()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, headers, response = state.answer(
                body | {"path": self.path}, {n.lower(): v for n, v in self.headers.items()}
            )
            if not status:
                self.close_connection = True
                return
            content = response if isinstance(response, bytes) else json.dumps(response).encode()
            try:
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                pass  # the client gave up

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    yield state
    server.shutdown()
    server.server_close()
