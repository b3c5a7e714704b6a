"""The command from the shell's side: ranks against a plain computation, tables, lines, pipes, mistakes."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from lit_retrofit.cli import main
from lit_retrofit.model.loading import load_encoder
from lit_retrofit.retrieval.embed import embed_texts

TEXTS = [
    f"page {i}{i} tells {word}" for i, word in enumerate(["the", "word", "text", "page", "of", "a", "so"])
]


@pytest.fixture
def words(bert_folder, xlmr_folder, tmp_path):
    rows = [{"id": i, "text": text, "language": ("en", "de")[i % 2]} for i, text in enumerate(TEXTS)]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        "search",
        str(bert_folder),
        "--data",
        str(tmp_path / "corpus.jsonl"),
        "--cache",
        str(tmp_path / "c"),
    ]


def scores(folder, query: str) -> np.ndarray:
    encoder = load_encoder(str(folder))
    embedded = (
        embed_texts(encoder, texts, role) for texts, role in (([query], "query"), (TEXTS, "document"))
    )
    one, corpus = (vectors.double().numpy() for vectors in embedded)
    return corpus @ one[0]


def test_both_models_ranks(words, bert_folder, xlmr_folder, capsys) -> None:
    assert main([*words, "--against", str(xlmr_folder), "--query", "what of 33", "--top", "3", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)  # and nothing but it
    ranks = [
        {str(i): rank for rank, i in enumerate(np.argsort(-scores(folder, "what of 33")), start=1)}
        for folder in (bert_folder, xlmr_folder)
    ]
    assert ranks[0] != ranks[1]
    for side, model in enumerate(shown["models"]):
        assert [ranks[side][hit["id"]] for hit in model["hits"]] == [1, 2, 3]
        assert [hit["other_rank"] for hit in model["hits"]] == [
            ranks[1 - side][h["id"]] for h in model["hits"]
        ]
        best = scores((bert_folder, xlmr_folder)[side], "what of 33")
        assert model["hits"][0]["score"] == pytest.approx(best.max(), abs=1e-5)
        assert model["hits"][0]["text"] == TEXTS[best.argmax()]


def test_tables_beside_each_other_or_below(words, xlmr_folder, capsys, monkeypatch) -> None:
    for width, lines in (("160", 1), ("70", 2)):
        monkeypatch.setenv("COLUMNS", width)
        assert main([*words, "--against", str(xlmr_folder), "--query", "what [b]of[/b] 33"]) == 0
        shown = capsys.readouterr().out
        assert "what [b]of[/b] 33" in shown and "documents are the same" in shown
        assert "[en]" in shown and "[de]" in shown and "#" in shown
        heads = [line for line in shown.splitlines() if "score" in line]
        assert len(heads) == lines and all(line.count("other") == 3 - lines for line in heads)


def test_one_model_has_no_other(words, capsys) -> None:
    assert main([*words, "--query", "what of 33", "--top", "100"]) == 0
    shown = capsys.readouterr().out
    assert "other" not in shown and "#" not in shown
    assert all(text.split()[-1] in shown for text in TEXTS)


def test_queries_from_a_pipe_and_embeddings_from_the_cache(words, capsys, monkeypatch) -> None:
    from lit_retrofit.retrieval import cached

    assert main([*words, "--query", "x"]) == 0
    monkeypatch.setattr(cached, "embed_texts", None)  # the corpus is not embedded again
    monkeypatch.setattr("sys.stdin", io.StringIO("what of 11\n\n  what of 22 \n"))
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["query"] for line in lines] == ["what of 11", "what of 22"]


def test_typed_queries_end_with_an_empty_line_or_ctrl_d(words, capsys, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for end in ("", EOFError()):
        answers = iter(["what of 11", end])

        def typed(prompt: str, answers=answers) -> str:
            answer = next(answers)
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr("builtins.input", typed)
        assert main(words) == 0
        assert capsys.readouterr().out.count("what of 11") == 1


@pytest.mark.parametrize(
    "extra, part",
    [
        (["--top", "0", "--query", "x"], "top is 0"),
        (["--query", " "], "blank"),
        (["--data", "nothing.jsonl", "--query", "x"], "no such file"),
        (["--against", "no/such/model/here", "--query", "x"], "no such model"),
    ],
)
def test_mistakes_get_one_line(words, capsys, extra: list[str], part: str) -> None:
    assert main([*words, *extra]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lit-retrofit")]
    assert len(errors) == 1 and part in errors[0]


def test_queries_and_documents_are_embedded_in_one_precision(words, capsys, monkeypatch) -> None:
    from lit_retrofit.retrieval import cached
    from lit_retrofit.side_by_side import ranking

    asked = []

    def embed(encoder, texts, role, *, precision="fp32", **options):
        asked.append((role, precision))
        return embed_texts(encoder, texts, role, precision=precision, **options)

    for module in (cached, ranking):
        monkeypatch.setattr(module, "embed_texts", embed)
    assert main([*words, "--query", "x", "--precision", "bf16"]) == 0
    assert asked == [("document", "bf16"), ("query", "bf16")]
