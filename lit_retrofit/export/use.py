"""What a model card tells its readers to type, for each format."""

from __future__ import annotations

import json
from typing import Any

_SENTENCE_TRANSFORMERS = """from sentence_transformers import SentenceTransformer

model = SentenceTransformer("DIRECTORY_OR_HUB_NAME")
queries = model.encode_query(["How do I save a document?"])
documents = model.encode_document(["Choose File – Save …", "…"])
print(model.similarity(queries, documents))
"""
_TRANSFORMERS = """import torch
from transformers import AutoModel, AutoTokenizer

model = AutoModel.from_pretrained("DIRECTORY_OR_HUB_NAME").eval()
tokenizer = AutoTokenizer.from_pretrained("DIRECTORY_OR_HUB_NAME")

def embed(texts, prompt, max_length):
    batch = tokenizer([prompt + text for text in texts], padding=True, truncation=True,
                      max_length=max_length, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"]
    {pooling}
    return {vectors}

queries = embed(["How do I save a document?"], {query_prompt}, {query_length})
documents = embed(["Choose File – Save …", "…"], {document_prompt}, {document_length})
print(queries @ documents.T)
"""
_ONNX = """import onnxruntime
from transformers import AutoTokenizer

session = onnxruntime.InferenceSession("DIRECTORY/onnx/model.onnx")
tokenizer = AutoTokenizer.from_pretrained("DIRECTORY")

def embed(texts, prompt, max_length):
    batch = tokenizer([prompt + text for text in texts], padding=True, truncation=True,
                      max_length=max_length, return_tensors="np", return_token_type_ids=False)
    return session.run(["sentence_embedding"], dict(batch))[0]

queries = embed(["How do I save a document?"], {query_prompt}, {query_length})
documents = embed(["Choose File – Save …", "…"], {document_prompt}, {document_length})
print(queries @ documents.T)
"""
_POOLING = {
    "mean": "pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)",
    "cls": "pooled = hidden[:, 0]",
    "last": "pooled = hidden[torch.arange(len(mask)), mask.sum(1) - 1]",
}
_ABOUT = {
    "sentence-transformers": "",
    "transformers": "Pooling and normalisation are not part of the model; `lit_retrofit.json` names them, "
    "the prompts and the lengths.\n",
    "onnx": "Pooling and normalisation are inside the graph: from `input_ids` and `attention_mask` "
    "(texts × tokens, int64) to `sentence_embedding` (texts × {dimension}, float32). Prompts and lengths are "
    "in `lit_retrofit.json`.\n",
}
_CODE = {"sentence-transformers": _SENTENCE_TRANSFORMERS, "transformers": _TRANSFORMERS, "onnx": _ONNX}


def usage(format: str, settings: dict[str, Any]) -> str:
    """The section "Use" of a card.

    Args:
        format: of the export.
        settings: as `embedding_settings` gives them.
    """
    values = {
        "pooling": _POOLING[settings["pooling"]],
        "vectors": "torch.nn.functional.normalize(pooled, dim=-1)" if settings["normalise"] else "pooled",
        "query_prompt": json.dumps(settings["prompts"]["query"], ensure_ascii=False),
        "document_prompt": json.dumps(settings["prompts"]["document"], ensure_ascii=False),
        "query_length": settings["max_lengths"]["query"],
        "document_length": settings["max_lengths"]["document"],
    }
    code = _CODE[format]
    for name, value in values.items():
        code = code.replace("{" + name + "}", str(value))
    about = _ABOUT[format].replace("{dimension}", str(settings["dimension"]))
    return f"## Use\n\n```python\n{code}```\n" + (f"\n{about}" if about else "")
