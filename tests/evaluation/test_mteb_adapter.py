"""nDCG@10 is the one that mteb and sentence-transformers compute, on the same run."""

import json
from types import SimpleNamespace

import mteb
import numpy as np
import pytest
from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores
from mteb.abstasks import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.results import TaskResult
from mteb.types import PromptType

from lit_retrofit.data.records import Document, Query, RetrievalSet
from lit_retrofit.errors import UserError
from lit_retrofit.evaluation import mteb_adapter
from lit_retrofit.evaluation.measures import evaluate_embeddings
from lit_retrofit.evaluation.mteb_adapter import MtebEncoder, model_meta
from lit_retrofit.evaluation.reranking import rerank_embeddings
from lit_retrofit.evaluation.tasks import split_tasks
from lit_retrofit.model.loading import load_encoder
from lit_retrofit.retrieval.embed import embed_texts

WORDS = ["alpha", "beta", "gamma", "delta", "kappa", "lambda", "sigma", "page", "text", "word", "the"]


@pytest.fixture(scope="module")
def texts():
    """300 documents of random words, 40 queries, judgements of three grades."""
    rng = np.random.default_rng(0)

    def text(length):
        return " ".join(rng.choice(WORDS, length)) + f" {rng.integers(10**6)}"

    corpus = {f"d{number}": text(6) for number in range(300)}
    queries = {f"q{number}": text(3) for number in range(40)}
    qrels = {
        query: {str(id): int(rng.integers(0, 4)) for id in rng.choice(list(corpus), 60, replace=False)}
        for query in queries
    }
    return corpus, queries, qrels


@pytest.fixture(scope="module")
def encoder(bert_folder):
    return load_encoder(str(bert_folder)).eval()


def make_set(corpus, queries, qrels):
    return RetrievalSet(
        "set",
        tuple(Query(id, text) for id, text in queries.items()),
        tuple(Document(id, text) for id, text in corpus.items()),
        qrels,
    )


def embed_set(encoder, corpus, queries):
    sides = ((queries, "query"), (corpus, "document"))
    return [embed_texts(encoder, list(of.values()), role) for of, role in sides]


def ours(encoder, corpus, queries, qrels):
    vectors = embed_set(encoder, corpus, queries)
    (result,) = evaluate_embeddings(make_set(corpus, queries, qrels), *vectors)
    return result.scores


def make_task(kind, corpus, queries, qrels, top_ranked=None):
    class LocalTask(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name=f"Local{kind}",
            description="A local task.",
            dataset={"path": "local/none", "revision": "1"},
            type=kind,
            category="t2t",
            modalities=["text"],
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
            prompt={"query": "Find the page"},
        )

        def load_data(self, **_):
            self.corpus, self.queries = {"test": corpus}, {"test": queries}
            self.relevant_docs = {"test": qrels}
            if top_ranked:
                self.top_ranked = {"test": top_ranked}
            self.data_loaded = True

    return LocalTask()


def adapter(encoder, **options):
    prompts = options.get("prompts", {})
    meta = model_meta(encoder, "m", prompts=prompts, precision="fp32", name="our/model")
    return MtebEncoder(encoder, meta, **options)


def test_graded_ndcg_equals_mtebs(encoder, texts, tmp_path):
    task = make_task("Retrieval", *texts)
    found = mteb.evaluate(
        adapter(encoder),
        task,
        cache=mteb.ResultCache(tmp_path),
        prediction_folder=tmp_path / "runs",
        co2_tracker=False,
    )
    (scores,) = found.task_results[0].scores["test"]
    expected = ours(encoder, *texts)
    assert 0.05 < expected["nDCG@10"] < 0.9
    # mteb rounds its means to five digits, ...
    assert expected["nDCG@10"] == pytest.approx(scores["ndcg_at_10"], abs=5.1e-6)
    assert expected["Recall@100"] == pytest.approx(scores["recall_at_100"], abs=5.1e-6)
    assert expected["MRR@10"] == pytest.approx(scores["mrr_at_10"], abs=5.1e-6)
    # ... and its scores of single queries, out of the run that it wrote, are whole
    (run,) = (tmp_path / "runs").rglob("*.json")
    predicted = json.loads(run.read_text())["default"]["test"]
    single = calculate_retrieval_scores(predicted, texts[2], [10]).all_scores
    assert expected["nDCG@10"] == pytest.approx(
        np.mean([q["ndcg_cut_10"] for q in single.values()]), abs=1e-6
    )


def test_results_are_mtebs_own_files(encoder, texts, tmp_path):
    task = make_task("Retrieval", *texts)
    mteb.evaluate(adapter(encoder), task, cache=mteb.ResultCache(tmp_path), co2_tracker=False)
    (path,) = (tmp_path / "results" / "our__model").glob("*/LocalRetrieval.json")
    assert TaskResult.from_disk(path).task_name == "LocalRetrieval"
    assert json.loads((path.parent / "model_meta.json").read_text())["name"] == "our/model"
    # another prompt is another revision: nothing is taken from the cache of the first
    other = adapter(encoder, prompts={"Retrieval-query": "find: "})
    assert other.mteb_model_meta.revision != path.parent.name


def test_binary_ndcg_equals_sentence_transformers(encoder, texts, bert_folder):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    corpus, queries, qrels = texts
    relevant = {query: {id for id, grade in of.items() if grade > 1} for query, of in qrels.items()}
    evaluator = InformationRetrievalEvaluator(
        queries, corpus, relevant, ndcg_at_k=[10], mrr_at_k=[10], precision_recall_at_k=[100], write_csv=False
    )
    theirs = evaluator(SentenceTransformer(str(bert_folder), device="cpu"))
    expected = ours(encoder, corpus, queries, {q: dict.fromkeys(ids, 1) for q, ids in relevant.items()})
    assert expected["nDCG@10"] == pytest.approx(theirs["cosine_ndcg@10"], abs=1e-6)
    assert expected["MRR@10"] == pytest.approx(theirs["cosine_mrr@10"], abs=1e-6)
    assert expected["Recall@100"] == pytest.approx(theirs["cosine_recall@100"], abs=1e-6)


def test_reranking_equals_mtebs(encoder, texts, tmp_path):
    corpus, queries, qrels = texts
    candidates = {query: tuple(list(corpus)[n : n + 120]) for n, query in enumerate(queries)}
    task = make_task("Reranking", corpus, queries, qrels, {q: list(ids) for q, ids in candidates.items()})
    found = mteb.evaluate(adapter(encoder), task, cache=None, co2_tracker=False)
    (scores,) = found.task_results[0].scores["test"]
    retrieval_set = make_set(corpus, queries, qrels)
    vectors = embed_set(encoder, corpus, queries)
    (result,) = rerank_embeddings(retrieval_set, split_tasks(retrieval_set), candidates, *vectors)
    assert result.scores["nDCG@10"] == pytest.approx(scores["ndcg_at_10"], abs=5.1e-6)
    assert result.scores["MAP"] == pytest.approx(scores["map_at_1000"], abs=5.1e-6)


def spied(encoder, monkeypatch):
    """The prompts of each call that embeds texts."""
    prompts = []

    def embed(encoder, texts, role, **_):
        prompts.append(encoder.tokenizer.prompts[role])
        return embed_texts(encoder, texts, role)

    monkeypatch.setattr(mteb_adapter, "embed_texts", embed)
    return prompts


def test_roles_have_their_prompts(encoder, texts, monkeypatch):
    prompts = spied(encoder, monkeypatch)
    mteb.evaluate(adapter(encoder), make_task("Retrieval", *texts), cache=None, co2_tracker=False)
    assert sorted(prompts) == ["passage: ", "query: "]


@pytest.mark.parametrize(
    ("prompts", "query", "document", "neither"),
    [
        ({}, "query: ", "passage: ", "query: "),
        ({"Retrieval": "r: "}, "r: ", "r: ", "r: "),
        ({"Retrieval-query": "rq: ", "query": "q: "}, "rq: ", "passage: ", "q: "),
        ({"query": "Instruct: {task}\nQuery: "}, "Instruct: Find the page\nQuery: ", "passage: ", None),
    ],
)
def test_the_most_specific_prompt_is_taken(encoder, texts, prompts, query, document, neither):
    metadata = make_task("Retrieval", *texts).metadata
    ours = adapter(encoder, prompts=prompts)
    assert ours.prompt_for(metadata, PromptType.query) == query
    assert ours.prompt_for(metadata, PromptType.document) == document
    if neither is not None:
        assert ours.prompt_for(metadata, None) == neither


def test_prompts_and_names_that_mteb_does_not_have(encoder):
    with pytest.raises(UserError, match="prompts: one of SciFakt is nothing mteb has; write a task's"):
        adapter(encoder, prompts={"SciFakt": "x"})
    with pytest.raises(UserError, match="name: 'mine' is none for mteb; write owner/model"):
        model_meta(encoder, "m", prompts={}, precision="fp32", name="mine")
    named = model_meta(encoder, "runs/quick start/fit", prompts={}, precision="fp32").name
    assert named == "local/quick-start-fit"
    hub = model_meta(encoder, "intfloat/multilingual-e5-small", prompts={}, precision="fp32").name
    assert hub == "intfloat/multilingual-e5-small"


def test_embeddings_are_those_of_the_order_asked(encoder, texts, tmp_path):
    metadata = make_task("Retrieval", *texts).metadata
    batches = [{"text": ["alpha", "beta page"]}, {"text": ["alpha", "gamma"]}]
    expected = embed_texts(encoder, ["alpha", "beta page", "alpha", "gamma"], "query").numpy()
    for cache in (None, tmp_path / "cache", tmp_path / "cache"):
        found = adapter(encoder, cache=cache).encode(
            batches, task_metadata=metadata, prompt_type=PromptType.query
        )
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_of_two_encoders_each_embeds_its_role(two_encoders_run, bert_folder, xlmr_folder, tmp_path):
    both = load_encoder(str(two_encoders_run))
    model, texts = adapter(both, cache=tmp_path), ["page", "the word"]
    task = SimpleNamespace(name="T", type="Retrieval", prompt=None)
    for kind, folder in (
        (PromptType.query, bert_folder),
        (PromptType.document, xlmr_folder),
        (None, bert_folder),
    ):
        found = model.encode([{"text": texts}], task_metadata=task, prompt_type=kind)
        role = "document" if kind == PromptType.document else "query"
        expected = embed_texts(load_encoder(str(folder)), texts, role)
        assert np.allclose(found, expected, atol=1e-6), kind
    alone = model_meta(load_encoder(str(bert_folder)), "m", prompts={}, precision="fp32", name="our/model")
    assert model.mteb_model_meta.revision != alone.revision
