"""The packed code-point map, read back by the library that will read it."""

import random

from tokenizers.normalizers import Precompiled

from lit_retrofit.quickstart.charsmap import pack_charsmap


def test_every_key_is_replaced_and_everything_else_stays():
    rng = random.Random(0)
    points = rng.sample([p for p in range(1, 0x3000) if not 0xD800 <= p < 0xE000], 1500)
    replacements = {chr(p): chr(rng.randrange(0x61, 0x7B)) * rng.randrange(3) for p in points}
    normaliser = Precompiled(pack_charsmap(replacements))
    for point in range(1, 0x3000):
        character = chr(point)
        assert normaliser.normalize_str(character) == replacements.get(character, character), hex(point)


def test_keys_that_share_a_prefix_and_astral_characters():
    replacements = {"é": "e", "ê": "E", "😀": ":)", "Ａ": "A", "\u200b": " ", "\x01": ""}
    normaliser = Precompiled(pack_charsmap(replacements))
    assert normaliser.normalize_str("Ａé-ê 😀x\u200by\x01") == "Ae-E :)x y"
