"""A plain Hugging Face folder: backbone and tokenizer, and beside them how texts become vectors.

transformers knows nothing of pooling, prompts and lengths per role; ``lit_retrofit.json`` says them, for this
tool and for whoever embeds by hand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lit_retrofit.model.dual import Encoders
    from lit_retrofit.model.encoder import Encoder
    from lit_retrofit.model.tokenizer import Role

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


def embedding_settings(encoder: Encoders) -> dict[str, Any]:
    """Pooling (of two encoders that of queries), normalisation, and per role the prompt and the tokens."""
    roles: tuple[Role, ...] = ("query", "document")
    return {
        "format": 1,
        "dimension": encoder.dimension,
        "pooling": encoder.of("query").options.pooling,
        "normalise": encoder.normalise,
        "prompts": {role: encoder.of(role).tokenizer.prompts[role] for role in roles},
        "max_lengths": {role: encoder.of(role).tokenizer.max_lengths[role] for role in roles},
    }
