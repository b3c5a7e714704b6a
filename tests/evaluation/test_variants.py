import faiss
import numpy as np
import pytest
import torch

from lit_retrofit.errors import UserError
from lit_retrofit.evaluation.variants import Variant, check_variants, compress, parse_variants


@pytest.fixture
def vectors():
    generator = torch.Generator().manual_seed(0)
    queries, corpus = (torch.randn(n, 64, generator=generator) for n in (20, 300))
    return torch.nn.functional.normalize(queries), torch.nn.functional.normalize(corpus)


def test_words_and_names_are_the_same():
    words = ["16", "int8", "binary", "16-int8", "32-binary", "float32"]
    variants = parse_variants(words)
    assert [variant.name for variant in variants] == words
    assert variants[3] == Variant(16, "int8")


@pytest.mark.parametrize("word", ["", "int4", "0", "-5", "256-", "x256", "int8-256", "256 int8"])
def test_other_words_are_refused(word):
    if word == "256-":  # a dimension with nothing behind it is a dimension
        assert parse_variants([word]) == (Variant(256),)
        return
    with pytest.raises(UserError, match="is none; write a dimension"):
        parse_variants([word])
    with pytest.raises(UserError, match="twice"):
        parse_variants(["int8", "int8"])


def test_a_dimension_beyond_the_models_is_refused():
    check_variants([Variant(384)], 384, "m")
    with pytest.raises(UserError, match="'512-int8' keeps 512 numbers, and embeddings of m have 384"):
        check_variants([Variant(None, "int8"), Variant(512, "int8")], 384, "m")


@pytest.mark.parametrize(
    ("word", "size"), [("float32", 4 * 64), ("int8", 64), ("binary", 8), ("12-binary", 2)]
)
def test_bytes_of_an_index(word, size):
    (variant,) = parse_variants([word])
    assert variant.index_bytes(1000, 64) == 1000 * size


def test_a_shorter_embedding_is_a_prefix_of_length_one(vectors):
    queries, _ = compress(Variant(16), *vectors, normalise=True)
    expected = vectors[0][:, :16].numpy()
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(queries.numpy(), expected, atol=1e-6)
    assert compress(Variant(16), *vectors, normalise=False)[1].equal(vectors[1][:, :16])


def test_int8_ranks_as_faiss_own_index(vectors):
    queries, corpus = compress(Variant(None, "int8"), *vectors, normalise=True)
    index = faiss.IndexScalarQuantizer(64, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors[1].numpy())
    index.add(vectors[1].numpy())
    scores, found = index.search(vectors[0].numpy(), 10)
    ours = (queries @ corpus.T).topk(10)
    np.testing.assert_array_equal(ours.indices.numpy(), found)
    np.testing.assert_allclose(ours.values.numpy(), scores, atol=1e-5)
    assert 0 < (corpus - vectors[1]).abs().max() < 0.02


def test_binary_scores_are_those_of_the_hamming_distance(vectors):
    queries, corpus = compress(Variant(None, "binary"), *vectors, normalise=True)
    codes = [np.packbits(part.numpy() > 0, axis=1) for part in vectors]
    index = faiss.IndexBinaryFlat(64)
    index.add(codes[1])
    distances, _ = index.search(codes[0], 300)
    ours = (queries @ corpus.T).sort(descending=True).values
    np.testing.assert_array_equal(64 - 2 * distances, ours.numpy())
