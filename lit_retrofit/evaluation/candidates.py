"""Which documents each query's reranking chooses from."""

from __future__ import annotations

from pathlib import Path

from lit_retrofit.data.hub_retrieval import Candidates
from lit_retrofit.data.rows import read_lines
from lit_retrofit.errors import UserError


def read_candidates(path: Path) -> Candidates:
    """Reads a TREC run: ``query Q0 document rank score tag`` on each line; ranks and scores are not used.

    Args:
        path: the file; ``evaluate`` writes such files, and any retrieval tool does.

    Returns:
        Query id → the documents to choose from.

    Raises:
        UserError: there is no such file, it is empty, or a line has not six columns.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a TREC run with the documents to rerank")
    found: dict[str, list[str]] = {}
    for line, text in read_lines(path):
        columns = text.split()
        if not columns:
            continue
        if len(columns) != 6:
            raise UserError(
                f"{path}:{line}: {len(columns)} columns; a TREC run has six: query Q0 document rank score tag"
            )
        found.setdefault(columns[0], []).append(columns[2])
    if not found:
        raise UserError(f"{path}: no candidates in it; give a TREC run with the documents to rerank")
    return {query: tuple(dict.fromkeys(documents)) for query, documents in found.items()}
