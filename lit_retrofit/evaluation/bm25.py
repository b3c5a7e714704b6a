"""BM25, the lexical baseline, with one tokenisation that is fair to every script."""

from __future__ import annotations

import re
import unicodedata

import bm25s
import numpy as np
import torch

from lit_retrofit.data.records import RetrievalSet
from lit_retrofit.evaluation.measures import DEPTH, TaskResult, measure_task, own_documents
from lit_retrofit.evaluation.tasks import LanguageTask

# Scripts that write words without spaces between them, or (Hangul) glue particles to them.
_CJK = "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_HANGUL = "\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff"
_THAI = "\u0e00-\u0e7f"
_RUNS = re.compile(f"[{_CJK}]+|[{_HANGUL}]+|[{_THAI}]+|[^{_CJK}{_HANGUL}{_THAI}]+")
_CUT = re.compile(f"[{_CJK}{_HANGUL}{_THAI}]")


class _WordCharacters(dict[int, int]):
    """Code point → itself if it belongs to a word, else a space; filled as characters are met.

    Marks belong to words: a regular expression's word class would cut Devanagari at its vowel signs.
    """

    def __missing__(self, code: int) -> int:
        self[code] = code if unicodedata.category(chr(code))[0] in "LNM" else ord(" ")
        return self[code]


_WORD_CHARACTERS = _WordCharacters()


def tokenize(text: str) -> list[str]:
    """Lower-case Unicode words; runs of Han and kana, of Hangul and of Thai as character bigrams.

    No stop words and no stemmer, so that no language has an advantage. Text is normalised (NFKC)
    first: full-width and half-width forms are equal.
    """
    # Turkish İ lower-cases to i and a combining dot, which would keep it apart from a plain i.
    text = unicodedata.normalize("NFKC", text).lower().replace("i\u0307", "i")
    tokens: list[str] = []
    for word in text.translate(_WORD_CHARACTERS).split():
        for run in _RUNS.findall(word):
            tokens.extend(_bigrams(run) if _CUT.match(run) else (run,))
    return tokens


def _bigrams(run: str) -> list[str]:
    return [run[i : i + 2] for i in range(len(run) - 1)] or [run]


def rank_bm25(retrieval_set: RetrievalSet, task: LanguageTask, k: int = DEPTH) -> TaskResult:
    """Ranks and measures a task by BM25 (Lucene's variant, k1 1.5, b 0.75) over its restricted corpus.

    Documents that share no term with the query are not ranked; ties go to the earlier document. A
    document with the query's own id is treated as in ``evaluate_embeddings``.

    Args:
        retrieval_set: the whole set.
        task: one of its tasks.
        k: depth of the ranking, at least 100.
    """
    corpus = [tokenize(retrieval_set.corpus[index].text) for index in task.document_indices]
    queries = [tokenize(retrieval_set.queries[index].text) for index in task.query_indices]
    own = own_documents(retrieval_set)[list(task.query_indices)].tolist()
    depth = min(k, len(corpus))
    indices = np.full((len(queries), depth), -1, dtype=np.int64)
    scores = np.full((len(queries), depth), -np.inf, dtype=np.float32)
    if any(corpus):  # an index over no terms cannot be built, and would find nothing
        index = bm25s.BM25(method="lucene", backend="numpy")
        index.index(corpus, show_progress=False)
        position = {document: column for column, document in enumerate(task.document_indices)}
        for row, tokens in enumerate(queries):
            ids = index.get_tokens_ids(tokens)
            all_scores = index.get_scores_from_ids(ids) if ids else np.zeros(len(corpus), np.float32)
            if own[row] in position:
                all_scores[position[own[row]]] = 0
            best = _top(all_scores, depth)
            indices[row, : len(best)] = best
            scores[row, : len(best)] = all_scores[best]
    return measure_task(retrieval_set, task, torch.from_numpy(indices), torch.from_numpy(scores))


def _top(scores: np.ndarray, k: int) -> np.ndarray:
    """Positions of the k largest positive scores, best first, ties by the smaller position."""
    matched = np.flatnonzero(scores > 0)
    if len(matched) > k:
        least = np.partition(scores[matched], len(matched) - k)[len(matched) - k]
        matched = matched[scores[matched] >= least]
    return matched[np.argsort(-scores[matched], kind="stable")][:k]
