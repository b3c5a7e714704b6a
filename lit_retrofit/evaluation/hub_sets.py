"""Benchmarks on the hub that can be named: where they are, at which commit, in which languages.

All are in mteb's own layout (see `lit_retrofit.data.hub_retrieval`), at the commits that mteb 2.26 measures,
so that figures are comparable with published ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class HubTask:
    """A data set on the hub.

    Attributes:
        path: ``org/name``.
        revision: a commit.
        languages: subset → language of its texts, where each language has a corpus of its own; empty for a
            single English set.
        split: of the judgements.
        reranking: it comes with the candidates to rerank.
    """

    path: str
    revision: str
    languages: Mapping[str, str] = field(default_factory=dict)
    split: str = "test"
    reranking: bool = False


@dataclass(frozen=True)
class Belebele:
    """Parallel passages and questions, a configuration per language: every pair of languages is a task."""

    name: str
    path: str
    revision: str
    languages: tuple[str, ...]
    pivot: str = "eng_Latn"


def _same(codes: str) -> dict[str, str]:
    return {code: code for code in codes.split()}


_MIRACL_LANGUAGES = _same("ar bn de en es fa fi fr hi id ja ko ru sw te th yo zh")
_MLDR_LANGUAGES = _same("ar de en es fr hi it ja ko pt ru th zh")
_NANO_LANGUAGES = _same("ar de en es fr it ja ko no pt sv")
_WIKIPEDIA_LANGUAGES = _same("bg bn cs da de en fa fi hi it nl no pt ro sr sv")
_TYDI_LANGUAGES = {
    "arabic": "ar",
    "bengali": "bn",
    "english": "en",
    "finnish": "fi",
    "indonesian": "id",
    "japanese": "ja",
    "korean": "ko",
    "russian": "ru",
    "swahili": "sw",
    "telugu": "te",
    "thai": "th",
}

_BELEBELE_LANGUAGES = """
    acm_Arab afr_Latn als_Latn amh_Ethi apc_Arab arb_Arab arb_Latn ars_Arab ary_Arab arz_Arab asm_Beng
    azj_Latn bam_Latn ben_Beng ben_Latn bod_Tibt bul_Cyrl cat_Latn ceb_Latn ces_Latn ckb_Arab dan_Latn
    deu_Latn ell_Grek eng_Latn est_Latn eus_Latn fin_Latn fra_Latn fuv_Latn gaz_Latn grn_Latn guj_Gujr
    hat_Latn hau_Latn heb_Hebr hin_Deva hin_Latn hrv_Latn hun_Latn hye_Armn ibo_Latn ilo_Latn ind_Latn
    isl_Latn ita_Latn jav_Latn jpn_Jpan kac_Latn kan_Knda kat_Geor kaz_Cyrl kea_Latn khk_Cyrl khm_Khmr
    kin_Latn kir_Cyrl kor_Hang lao_Laoo lin_Latn lit_Latn lug_Latn luo_Latn lvs_Latn mal_Mlym mar_Deva
    mkd_Cyrl mlt_Latn mri_Latn mya_Mymr nld_Latn nob_Latn npi_Deva npi_Latn nso_Latn nya_Latn ory_Orya
    pan_Guru pbt_Arab pes_Arab plt_Latn pol_Latn por_Latn ron_Latn rus_Cyrl shn_Mymr sin_Latn sin_Sinh
    slk_Latn slv_Latn sna_Latn snd_Arab som_Latn sot_Latn spa_Latn srp_Cyrl ssw_Latn sun_Latn swe_Latn
    swh_Latn tam_Taml tel_Telu tgk_Cyrl tgl_Latn tha_Thai tir_Ethi tsn_Latn tso_Latn tur_Latn ukr_Cyrl
    urd_Arab urd_Latn uzn_Latn vie_Latn war_Latn wol_Latn xho_Latn yor_Latn zho_Hans zho_Hant zsm_Latn
    zul_Latn
"""

SETS = {
    "miracl": HubTask(
        "mteb/MIRACLRetrieval", "9c09abc13478308c27598f350e31d8f06b9b5481", _MIRACL_LANGUAGES, "dev"
    ),
    "miracl-hard": HubTask(  # 250 documents per query, pooled from three systems: what MTEB measures
        "mteb/MIRACLRetrievalHardNegatives",
        "d7d94fa4b946cec4a27c84653aa0cf6b33f74a3c",
        _MIRACL_LANGUAGES,
        "dev",
    ),
    "mrtydi": HubTask("mteb/mrtidy", "fc24a3ce8f09746410daee3d5cd823ff7a0675b7", _TYDI_LANGUAGES),
    "mldr": HubTask(
        "mteb/MultiLongDocRetrieval", "837028901907a7d419b4ab906f28e011ce1cc824", _MLDR_LANGUAGES
    ),
    "miracl-reranking": HubTask(
        "mteb/MIRACLReranking",
        "d11a14c74e8bd448cedab0c1d9a720040535f228",
        _MIRACL_LANGUAGES,
        "dev",
        reranking=True,
    ),
    "wikipedia-reranking": HubTask(
        "mteb/WikipediaRerankingMultilingual",
        "803771c366038ed587b21e3d8fe25f8f73134fad",
        _WIKIPEDIA_LANGUAGES,
        reranking=True,
    ),
    "beir-arguana": HubTask("mteb/arguana", "c22ab2a51041ffd869aaddef7af8d8215647e41a"),
    "beir-climate-fever": HubTask("mteb/climate-fever", "47f2ac6acb640fc46020b02a5b59fdda04d39380"),
    "beir-dbpedia": HubTask("mteb/dbpedia", "c0f706b76e590d620bd6618b3ca8efdd34e2d659"),
    "beir-fever": HubTask("mteb/fever", "bea83ef9e8fb933d90a2f1d5515737465d613e12"),
    "beir-fiqa": HubTask("mteb/fiqa", "27a168819829fe9bcd655c2df245fb19452e8e06"),
    "beir-hotpotqa": HubTask("mteb/hotpotqa", "ab518f4d6fcca38d87c25209f94beba119d02014"),
    "beir-msmarco": HubTask("mteb/msmarco", "c5a29a104738b98a9e76336939199e264163d4a0", split="dev"),
    "beir-nfcorpus": HubTask("mteb/nfcorpus", "ec0fa4fe99da2ff19ca1214b7966684033a58814"),
    "beir-nq": HubTask("mteb/nq", "b774495ed302d8c44a3a7ea25c90dbce03968f31"),
    "beir-quora": HubTask("mteb/quora", "e4e08e0b7dbe3c8700f0daef558ff32256715259"),
    "beir-scidocs": HubTask("mteb/scidocs", "f8c2fcf00f625baaa80f62ec5bd9e1fff3b8ae88"),
    "beir-scifact": HubTask("mteb/scifact", "d56462d0e63a25450459c4f213e49ffdb866f7f9"),
    "beir-touche2020": HubTask("mteb/touche2020", "a34f9a33db75fa0cbb21bb5cfc3dae8dc8bec93f"),
    "beir-trec-covid": HubTask("mteb/trec-covid", "bb9466bac8153a0349341eb1b22e06409e78ef4e"),
    "nano-arguana": HubTask(
        "mteb/NanoArguAnaRetrieval", "63ac9f026e8f6b85dc0622f3d630ed7a1758e9ec", split="train"
    ),
    "nano-climatefever": HubTask(
        "mteb/NanoClimateFeverRetrieval", "ccb5552bc17e87afe0f9479fb4346898213a71db", split="train"
    ),
    "nano-dbpedia": HubTask(
        "mteb/NanoDBPediaRetrieval", "2d088f80d7a640eac0be5c66408d68c3f782baa1", split="train"
    ),
    "nano-fever": HubTask(
        "mteb/NanoFEVERRetrieval", "a6490dfeed0f13c2a052e39c6ddaeb6086afd4a8", split="train"
    ),
    "nano-fiqa2018": HubTask(
        "mteb/NanoFiQA2018Retrieval", "ede84da4793cd2d4e61bba0dd08fc58de90f3681", split="train"
    ),
    "nano-hotpotqa": HubTask(
        "mteb/NanoHotpotQARetrieval", "a38a2615f29adba8b47a42905031aa9c137d8fae", split="train"
    ),
    "nano-msmarco": HubTask(
        "mteb/NanoMSMARCORetrieval", "5a5aa0c3df65d6883d85c8f5cdc88e679633595e", split="train"
    ),
    "nano-nfcorpus": HubTask(
        "mteb/NanoNFCorpusRetrieval", "2eec9d63140fb9af7c75ad0fdbf6350aaf20e94e", split="train"
    ),
    "nano-nq": HubTask("mteb/NanoNQRetrieval", "e3973b405feb9e94d07fd971d690d24d7f45264a", split="train"),
    "nano-quora": HubTask(
        "mteb/NanoQuoraRetrieval", "3ee153e5710da83a7f35df0cb1db4a0ad036072a", split="train"
    ),
    "nano-scidocs": HubTask(
        "mteb/NanoSCIDOCSRetrieval", "cf39b8741a6f2e984d0b8f4796b2dd5bb65390f9", split="train"
    ),
    "nano-scifact": HubTask(
        "mteb/NanoSciFactRetrieval", "8c5f7bbe90bb865f46c67710221afa7d9096251b", split="train"
    ),
    "nano-touche2020": HubTask(
        "mteb/NanoTouche2020Retrieval", "ff81c0caff8b6febe1495eae9f2ca3eddad074b8", split="train"
    ),
    "nanomulti-arguana": HubTask(
        "mteb/MultilingualNanoArguAnaRetrieval", "c0b2a891577e87141baf768b28e7acb997ac5680", _NANO_LANGUAGES
    ),
    "nanomulti-climatefever": HubTask(
        "mteb/MultilingualNanoClimateFeverRetrieval",
        "2fe8eb61630d248dc0bd1a13e4b7f6406b4a3e2a",
        _NANO_LANGUAGES,
    ),
    "nanomulti-dbpedia": HubTask(
        "mteb/MultilingualNanoDBPediaRetrieval", "d190b64f4888205f70b5bfdd4fdf806100139dd0", _NANO_LANGUAGES
    ),
    "nanomulti-fever": HubTask(
        "mteb/MultilingualNanoFEVERRetrieval", "58c0c39b5718de4c64ba115e30ae830f25fc6c62", _NANO_LANGUAGES
    ),
    "nanomulti-fiqa2018": HubTask(
        "mteb/MultilingualNanoFiQA2018Retrieval", "6af7d1d165dab5c41840440ee33373d3a459483a", _NANO_LANGUAGES
    ),
    "nanomulti-hotpotqa": HubTask(
        "mteb/MultilingualNanoHotpotQARetrieval", "d226781cb805c360229d14c2efa8672d11226075", _NANO_LANGUAGES
    ),
    "nanomulti-msmarco": HubTask(
        "mteb/MultilingualNanoMSMARCORetrieval", "f579311c703483afcec3062f58fe69e9f0813843", _NANO_LANGUAGES
    ),
    "nanomulti-nfcorpus": HubTask(
        "mteb/MultilingualNanoNFCorpusRetrieval", "4484b487f178125827f7dda052f1b2f5673548d6", _NANO_LANGUAGES
    ),
    "nanomulti-nq": HubTask(
        "mteb/MultilingualNanoNQRetrieval", "4104e3376fe243f0bd4845e204b01c0fc3f7d1d7", _NANO_LANGUAGES
    ),
    "nanomulti-quora": HubTask(
        "mteb/MultilingualNanoQuoraRetrieval", "eb9418faade7449e869be388846f287aa3535b64", _NANO_LANGUAGES
    ),
    "nanomulti-scidocs": HubTask(
        "mteb/MultilingualNanoSCIDOCSRetrieval", "06cff48c8ebea5f46e3effa29573fc22a5b9d8fc", _NANO_LANGUAGES
    ),
    "nanomulti-scifact": HubTask(
        "mteb/MultilingualNanoSciFactRetrieval", "3e75543b8006c013ec14d36a17dd3010eb139f72", _NANO_LANGUAGES
    ),
    "nanomulti-touche2020": HubTask(
        "mteb/MultilingualNanoTouche2020Retrieval",
        "cc244b553d65a88fb66d913907146fe4c33aef29",
        _NANO_LANGUAGES,
    ),
}
"""Name → data set."""

COLLECTIONS = {
    "beir": tuple(name for name in SETS if name.startswith("beir-")),
    "nanobeir": tuple(name for name in SETS if name.startswith("nano-")),
    "nanobeir-multilingual": tuple(name for name in SETS if name.startswith("nanomulti-")),
}
"""Name → data sets that are measured one after the other. BEIR is without CQADupStack (twelve forums)."""

BELEBELE = Belebele(
    "belebele",
    "mteb/belebele",
    "979a211276faa22f671e69d096634193567cfd05",
    tuple(_same(_BELEBELE_LANGUAGES)),
)
