import numpy as np
import pytest

from lit_retrofit.data.records import Document, Query, RetrievalSet
from lit_retrofit.report.sample import SampledText, draw_sample
from lit_retrofit.report.space import picture, project, structure

LANGUAGES = ("de", "en", "ja")


def data(pages=10):
    corpus = [Document(f"p{n}@{name}", f"page {n} {name}", name) for n in range(pages) for name in LANGUAGES]
    queries, qrels = [], {}
    for n in range(pages):
        for name in LANGUAGES:
            queries.append(Query(f"q{n}@{name}", f"query {n} {name}", name))
            qrels[f"q{n}@{name}"] = {f"p{n}@{other}": 1 for other in LANGUAGES}
    return RetrievalSet("set", tuple(queries), tuple(corpus), qrels)


def test_the_sample_joins_versions_of_a_page_and_takes_languages_in_turn():
    sample = draw_sample(data(), 14)
    assert len(sample) == 12  # a fourth page of four texts would be too many
    for page in range(3):
        query, *documents = [text for text in sample if text.page == page]
        assert (query.role, query.language) == ("query", LANGUAGES[page])
        assert [text.language for text in documents] == list(LANGUAGES)
        assert {text.text.split()[1] for text in (query, *documents)} == {query.text.split()[1]}
    assert draw_sample(data(), 14) == sample
    assert draw_sample(data(), 14, seed=1) != sample
    assert draw_sample(data(), 3) == ()
    assert len({text.text for text in draw_sample(data(), 999)}) == 40  # no page twice


def make(seed=0, pages=6):
    sample = draw_sample(data(pages), 999)
    return sample, np.random.default_rng(seed).normal(size=(len(sample), 8)).astype(np.float32)


def test_the_projection_is_the_first_two_principal_components():
    _, embeddings = make()
    points, share = project(embeddings)
    centred = embeddings.astype(float) - embeddings.astype(float).mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    expected = centred @ vectors[:, [-1, -2]]
    assert np.abs(points) == pytest.approx(np.abs(expected), abs=1e-9)
    assert share == pytest.approx(values[-2:].sum() / values.sum())


def test_the_picture_is_the_same_each_time_and_under_rotation():
    sample, embeddings = make()
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))[0].astype(np.float32)
    names = ("before", "after")
    first = picture(sample, names, embeddings, embeddings)
    assert first == picture(sample, names, embeddings, embeddings)
    turned = picture(sample, names, embeddings, 3 * embeddings @ rotation)
    for panel in (first.panels[1], turned.panels[1]):
        for dot, other in zip(first.panels[0].dots, panel.dots, strict=True):
            assert (dot.text, dot.x, dot.y) == (
                other.text,
                *(pytest.approx(v, abs=0.11) for v in (other.x, other.y)),
            )
    assert turned.panels[1].structure.by_language == pytest.approx(first.panels[0].structure.by_language)


def test_models_of_different_dimension_are_drawn():
    sample, embeddings = make()
    found = picture(sample, ("before", "after"), embeddings, embeddings[:, :3])
    assert len(found.panels[1].dots) == found.texts == len(sample)
    assert all(0 <= v <= 340 for panel in found.panels for dot in panel.dots for v in (dot.x, dot.y))
    assert found.pages == len(found.panels[0].links) == 6


def test_figures_of_the_whole_space():
    sample, embeddings = make()
    found = structure(sample, embeddings, 0.5)
    documents = [
        (t, v.astype(float)) for t, v in zip(sample, embeddings, strict=True) if t.role == "document"
    ]
    same_page, same_language = [], []
    for i, (text, vector) in enumerate(documents):
        for other, second in documents[:i]:
            cosine = vector @ second / np.linalg.norm(vector) / np.linalg.norm(second)
            if text.page == other.page and text.language != other.language:
                same_page.append(cosine)
            if text.page != other.page and text.language == other.language:
                same_language.append(cosine)
    assert found.same_page == pytest.approx(np.mean(same_page))
    assert found.same_language == pytest.approx(np.mean(same_language))
    vectors = np.array([vector for _, vector in documents])
    means = {n: np.mean([v for t, v in documents if t.language == n], axis=0) for n in LANGUAGES}
    rest = np.sum([(vector - means[text.language]) ** 2 for text, vector in documents])
    assert found.by_language == pytest.approx(1 - rest / ((vectors - vectors.mean(axis=0)) ** 2).sum())


def test_texts_that_are_all_alike_do_not_end_the_page():
    sample = tuple(SampledText("document", "x", "de", page) for page in range(4))
    same = np.ones((4, 5), np.float32)
    found = picture(sample, ("before", "after"), same, same)
    assert found.panels[0].structure.same_page is None
    assert {(dot.x, dot.y) for dot in found.panels[1].dots} == {(170.0, 170.0)}


def test_languages_beyond_the_colours_share_one():
    sample = tuple(SampledText("document", "x", f"l{n:02}", n) for n in range(10))
    rows = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    colours = picture(sample, ("before", "after"), rows, rows).languages
    assert sorted(colours.values()) == [0, 0, 1, 2, 3, 4, 5, 6, 7, 8]
