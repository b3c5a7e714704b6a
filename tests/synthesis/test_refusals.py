"""What is a refusal, and what begins like one and is a query."""

from __future__ import annotations

import json

import pytest

from lit_retrofit.synthesis.answers import Answer
from lit_retrofit.synthesis.schema import BadAnswer, NegativeAnswer, QueryAnswer, read_json, read_line

QUERIES = [
    "I can't open my file, what now?",
    "I cannot log in to my account after the update",
    "Sorry, how do I get the hidden rows back?",
    "I'm sorry for your loss: what does one write on a card",
    "I can't help my dog with its itching, what can I do?",
    "As an AI engineer, which books should I read?",
    "I am unable to print from the tablet",
    "Es tut mir leid: wie schreibt man das förmlich?",
    "Als KI-Entwickler in Österreich arbeiten, welches Visum?",
    "Lo siento en inglés, ¿cómo se dice?",
    "Désolé, comment puis-je annuler ma commande ?",
    "Je suis désolé ou je regrette, quelle différence ?",
    "Mi dispiace: come si dice in tedesco?",
    "Desculpe, como faço para cancelar a assinatura?",
    "Простите, где находится ближайшая аптека?",
    "Извините, как открыть файл без программы?",
    "抱歉，请问怎么恢复隐藏的行？",
    "对不起用英语怎么说",
    "すみませんが、駅への行き方を教えてください",
    "申し訳ございませんの使い方",
    "죄송하지만 가까운 약국이 어디에 있나요?",
    "Üzgünüm demenin kibar yolları nelerdir?",
    "Maalesef telefonum açılmıyor, ne yapmalıyım?",
    "عذر الغياب عن العمل كيف يكتب؟",
]
REFUSALS = [
    "I'm sorry, but I can't help with that.",
    "I cannot assist with your request as it may be harmful.",
    "I’m sorry, but I can’t fulfill this request.",
    "I can't write a query for this document.",
    "As an AI language model, I cannot",
    "As an AI, I do not have opinions.",
    "Es tut mir leid, dabei kann ich dir nicht helfen. Ich bin ein Sprachmodell.",
    "Als KI kann ich diese Anfrage nicht beantworten.",
    "Lo siento, pero no puedo ayudarte con eso.",
    "Como modelo de lenguaje, no tengo opiniones.",
    "Je suis désolé, mais je ne peux pas vous aider.",
    "En tant qu'IA, je ne peux pas répondre.",
    "Mi dispiace, ma non posso aiutarti con questo.",
    "Desculpe, mas não posso ajudar com isso.",
    "Извините, но я не могу помочь с этим.",
    "К сожалению, я не могу выполнить этот запрос.",
    "很抱歉，我无法提供帮助。",
    "作为一个人工智能，我没有个人观点。",
    "申し訳ありませんが、お手伝いできません。",
    "죄송하지만 도와드릴 수 없습니다.",
    "Üzgünüm, bu konuda yardımcı olamam.",
    "عذراً، لا أستطيع مساعدتك في هذا الطلب.",
]


def answer(text: str) -> Answer:
    return Answer("key", text, "stop", 1, 1)


@pytest.mark.parametrize("text", QUERIES)
def test_queries_that_begin_like_a_refusal_are_kept(text):
    assert read_json(answer(json.dumps({"query": text})), QueryAnswer).query == text
    assert read_line(answer(f"{text}\nDocument:")) == text


@pytest.mark.parametrize("text", REFUSALS)
def test_refusals_are_told_inside_the_json_and_without_any(text):
    for written in (text, json.dumps({"query": text})):
        with pytest.raises(BadAnswer, match="refusal"):
            read_json(answer(written), QueryAnswer)
    with pytest.raises(BadAnswer, match="refusal"):
        read_line(answer(text))


def test_a_document_may_begin_with_an_excuse_and_speak_of_models_further_down():
    text = (
        "I'm sorry, but the shop is closed today. " + "We open again on Monday. " * 10 + "No language model."
    )
    written = answer(json.dumps({"hard_negative_document": text}))
    assert read_json(written, NegativeAnswer).hard_negative_document == text


@pytest.mark.parametrize("text", QUERIES[:2])
def test_an_answer_without_json_that_begins_so_is_a_refusal(text):
    with pytest.raises(BadAnswer, match="refusal"):
        read_json(answer(text), QueryAnswer)
