"""How instructed models decline, in the languages of `languages.json`."""

from __future__ import annotations

import re

_BEGINNING = re.compile(
    r"^\W*(i['’]?m sorry|i am sorry|sorry,|i can ?not |i can['’]t |i am unable|i['’]m unable|as an ai\b|"
    r"es tut mir leid|als ki\b|lo siento|como (modelo|una? ia)\b|je suis désolé|désolé,|en tant qu['’]ia\b|"
    r"mi dispiace|desculpe|sinto muito|извините|к сожалению, я не|простите|"
    r"抱歉|对不起|很抱歉|作为(一个)?(人工智能|ai)|申し訳|すみませんが|죄송|üzgünüm|maalesef|عذر|آسف)",
    re.IGNORECASE,
)
# What no person says who begins so: the model names itself, or what it was asked for.
_CLEARLY = re.compile(
    # English
    r"language model|\bai (?:model|assistant|system)\b|\bas an ai,? i\b|"
    r"(?:can['’]?t|can ?not|unable to) (?:help|assist)(?: you)?(?: with (?:that|this|your)\b|\W*$)|"
    r"(?:fulfil|fulfill|comply with) (?:that|this|your)\b|"
    r"(?:query|question) (?:for|about|based on|from) (?:this|the (?:given|provided)) (?:document|text)|"
    # German
    r"sprachmodell|ki-(?:modell|assistent|system)|als ki,? (?:kann|darf|bin|habe) ich\b|"
    r"(?:dabei|damit) (?:leider )?nicht (?:weiter)?helfen|dieser? anfrage (?:leider )?nicht|"
    r"frage (?:zu|für) diese[mn] (?:dokument|text|inhalt)|"
    # Spanish and Portuguese
    r"modelo de (?:lenguaje|linguagem|ia)|asistente (?:virtual|de ia)|como una? ia,? no\b|"
    r"no puedo ayudar(?:te|le)?(?: con (?:eso|esto|esa|esta)\b|\W*$)|"
    r"(?:cumplir con|atender) (?:esa|esta|tu|su) |"
    r"(?:consulta|pregunta|pergunta) (?:para|sobre) este (?:documento|texto|contenido|conteúdo)|"
    r"assistente (?:virtual|de ia)|não posso (?:te |lhe )?ajud(?:ar|á-lo)(?: com (?:isso|esse|essa)\b|\W*$)|"
    # French
    r"modèle (?:de langage|linguistique)|assistant (?:virtuel|ia)\b|en tant qu['’]ia,? je\b|"
    r"(?:peux|puis) pas (?:vous |t['’])?aider(?: (?:avec|à|sur) (?:cela|ça|cette|votre)\b|\W*$)|"
    r"(?:requête|question) (?:pour|sur) ce (?:document|texte|contenu)|"
    # Italian
    r"modello (?:linguistico|di linguaggio)|non posso aiutar(?:ti|la)|soddisfare (?:questa|la tua) richiesta|"
    r"(?:domanda|query) (?:per|su) questo (?:documento|testo)|"
    # Russian
    r"языковая модель|как (?:ии|искусственный интеллект),? я\b|(?:с этим|в этом) помочь|"
    r"помочь (?:вам )?(?:с этим|в этом)|выполнить (?:этот|ваш) запрос|"
    r"(?:запрос|вопрос) (?:по|для|к) эт\w+ (?:документ|текст)|"
    # Chinese
    r"语言模型|人工智能助手|作为(?:一个)?(?:人工智能|ai)[，,]?我|"
    r"(?:无法|不能)(?:为[您你])?(?:协助|满足|帮助|提供|回答|完成)"
    r"(?:[您你]的?|这个|该)?(?:请求|要求|帮助|协助|问题)|"
    r"(?:为|根据)(?:这|该|此)(?:篇|个|份)?(?:文档|文本|文章)|"
    # Japanese
    r"言語モデル|ai(?:アシスタント|として)|(?:お手伝い|お答え)(?:することは|は)?できません|"
    r"(?:リクエスト|ご要望|ご依頼)に.{0,6}(?:できません|かねます)|"
    # Korean
    r"언어 모델|ai(?:로서| 어시스턴트)|도와드릴 수 없|요청.{0,14}수 없|"
    # Turkish
    r"dil modeli|yapay zek[aâ] (?:olarak|asistan|model)|bu konuda (?:size )?yardım|"
    # Arabic
    r"نموذج لغ|ذكاء اصطناعي|(?:مساعدتك|المساعدة) في (?:هذا|ذلك|هذه)|هذا الطلب",
    re.IGNORECASE,
)
_LOOKED_AT = 200  # characters: a document may well speak of language models further down


def begins_like_a_refusal(text: str) -> bool:
    """Whether a text begins as those do with which models decline; people begin queries so, too."""
    return bool(_BEGINNING.match(text))


def is_clearly_a_refusal(text: str) -> bool:
    """Whether a text also says that a model declines: that it is one, or will not do this task.

    A query taken for a refusal is lost, and was paid for; a refusal that is not seen meets the filters.
    """
    return begins_like_a_refusal(text) and bool(_CLEARLY.search(text[:_LOOKED_AT]))
