"""A plain Hugging Face folder: backbone and tokenizer, and beside them how texts become vectors.

transformers knows nothing of pooling, prompts and lengths per role; ``lit_retrofit.json`` says them, for this
tool and for whoever embeds by hand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lit_retrofit.model.encoder import Encoder

SETTINGS = "lit_retrofit.json"


def save_plain_folder(encoder: Encoder, folder: Path) -> None:
    """Writes the folder. The encoder's adapters are merged by it: do not use the encoder after.

    Args:
        encoder: the model.
        folder: made where needed.
    """
    encoder.merged_backbone().save_pretrained(folder)
    encoder.tokenizer.backend.save_pretrained(folder)
    settings = embedding_settings(encoder)
    (folder / SETTINGS).write_text(
        json.dumps(settings, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def embedding_settings(encoder: Encoder) -> dict[str, Any]:
    """Pooling, normalisation, and per role the prompt and the number of tokens."""
    return {
        "format": 1,
        "dimension": encoder.dimension,
        "pooling": encoder.options.pooling,
        "normalise": encoder.normalise,
        "prompts": dict(encoder.tokenizer.prompts),
        "max_lengths": dict(encoder.tokenizer.max_lengths),
    }
