"""Texts that say nothing: empty ones, words for missing values, refusals of translators, and filler."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from xvlm2vec.common.texts import is_blank
from xvlm2vec.corpus.texts import NULL_WORDS

from .batch import Batch
from .rule import Finding, shown

# "Could not translate" and its kin: what people and models write in the place of a translation, in small letters.
REFUSALS = (
    "could not translate", "couldn't translate", "could not be translated", "cannot translate", "can't translate",
    "cannot be translated", "unable to translate", "not able to translate", "translation not available",
    "translation unavailable", "no translation available", "no translation found", "translation failed",
    "translation error", "untranslatable", "as an ai language model", "as a language model", "as an ai assistant",
    "i cannot assist", "i can't assist", "i can't help with", "i cannot help with", "i cannot fulfill",
    "i can't fulfill", "please provide the text", "provide the text you",
    "konnte nicht übersetzt werden", "konnte nicht übersetzen", "kann nicht übersetzt werden",
    "kann ich nicht übersetzen", "nicht übersetzbar", "keine übersetzung", "als ki-sprachmodell", "als sprachmodell",
    "n'a pas pu être traduit", "impossible de traduire", "ne peut pas être traduit", "traduction non disponible",
    "traduction indisponible", "je ne peux pas traduire", "en tant que modèle de langage", "pas de traduction",
    "no se pudo traducir", "no se puede traducir", "no puedo traducir", "traducción no disponible", "sin traducción",
    "como modelo de lenguaje",
    "impossibile tradurre", "non posso tradurre", "non è possibile tradurre", "traduzione non disponibile",
    "come modello linguistico",
    "não foi possível traduzir", "não é possível traduzir", "não posso traduzir", "tradução não disponível",
    "tradução indisponível", "como modelo de linguagem",
    "kon niet worden vertaald", "kan niet vertalen", "kan niet worden vertaald", "geen vertaling beschikbaar",
    "kunde inte översättas", "kan inte översätta", "kunne ikke oversættes", "kunne ikke oversettes",
    "ei voitu kääntää", "nie można przetłumaczyć", "nie mogę przetłumaczyć", "brak tłumaczenia", "nelze přeložit",
    "nemohu přeložit", "nepodarilo sa preložiť", "nem sikerült lefordítani", "nem tudom lefordítani",
    "nu s-a putut traduce", "nu pot traduce",
    "çevrilemedi", "çeviremiyorum", "çeviri mevcut değil", "tidak dapat menerjemahkan", "tidak bisa menerjemahkan",
    "tidak dapat diterjemahkan", "terjemahan tidak tersedia", "không thể dịch", "không dịch được", "haiwezi kutafsiri",
    "не удалось перевести", "не могу перевести", "невозможно перевести", "перевод недоступен", "как языковая модель",
    "не вдалося перекласти", "не можу перекласти", "не може да се преведе", "δεν μπορώ να μεταφράσω",
    "δεν ήταν δυνατή η μετάφραση",
    "无法翻译", "無法翻譯", "不能翻译", "未能翻译", "翻译失败", "翻譯失敗", "作为语言模型", "作为ai",
    "作为一个人工智能", "翻訳できません", "翻訳できない", "翻訳不可", "翻訳に失敗", "言語モデルとして",
    "번역할 수 없", "번역 불가", "번역 실패", "언어 모델로서", "تعذرت الترجمة", "تعذر ترجمة",
    "لا يمكن ترجمة", "لا أستطيع ترجمة", "لا يمكنني ترجمة", "ترجمه نشد", "قابل ترجمه نیست",
    "نمی‌توانم ترجمه", "ترجمہ نہیں", "לא ניתן לתרגם", "לא הצלחתי לתרגם",
    "अनुवाद नहीं किया जा सक", "अनुवाद नहीं कर सक", "अनुवाद उपलब्ध नहीं", "অনুবাদ করা যায়নি", "அனுவாதிக்க முடியவில்லை",
    "மொழிபெயர்க்க முடிய", "అనువదించలే", "ไม่สามารถแปล", "แปลไม่ได้",
)  # fmt: skip
_SPOKEN_OF = re.compile(r"translat|language model|\bAI\b|assist|can(?:no|')t help", re.IGNORECASE)

# No vowel, and none of the consonants that stand for one in some languages.
_CONSONANTS = re.compile(r"[bcdfghjkmnpqstvwxz]{5,}")
_KEYS = re.compile(r"(?:asdf|sdfg|dfgh|fghj|ghjk|hjkl|qwer|wert(?=\W|\Z|[yzu])|zxcv|xcvb|cvbn|jkl;)")


def emptied(batch: Batch) -> Iterator[Finding]:
    """English texts and translations without any character that can be seen."""
    for row, (english, text) in enumerate(zip(batch.english.texts, batch.text.texts, strict=True)):
        if is_blank(visible(english)):
            yield Finding(row, "the English text is empty")
        elif is_blank(visible(text)):
            yield Finding(row, "the translation is empty")


def visible(text: str) -> str:
    """A short text without invisible characters; a longer one as it is."""
    is_short = len(text) < 8 and not text.isascii()
    return "".join(sign for sign in text if unicodedata.category(sign) != "Cf") if is_short else text


def null_words(batch: Batch) -> Iterator[Finding]:
    """Words by which programs write that there is no value, such as `nan`, which may be real texts."""
    for side, column in batch.sides():
        for row, text in enumerate(column.texts):
            if len(text) < 12 and text.strip().casefold() in NULL_WORDS:
                where = "the English text" if side == "english" else f"the text in {batch.codes[row]!r}"
                yield Finding(row, f"{where} is {text!r}")


def refusals(batch: Batch) -> Iterator[Finding]:
    """Sentences that say that there is no translation, unless the source speaks of such things itself."""
    folded, seen = batch.text.folded, set()
    for phrase in REFUSALS:
        for row in folded.rows_with_any(phrase):
            if row not in seen and not _SPOKEN_OF.search(batch.english.texts[row]):
                seen.add(row)
                yield Finding(row, f"no translation but a refusal: {shown(batch.text.texts[row])}")


def filler(batch: Batch) -> Iterator[Finding]:
    """Translations without a letter or digit, or of keys struck at random, of sources that have words."""
    sources = batch.english.letters
    for row in ((batch.text.letters == 0) & (sources >= 3)).nonzero()[0].tolist():
        text = batch.text.texts[row]
        if not is_blank(text) and not any(map(str.isalnum, text)):
            yield Finding(row, f"no letters: {shown(text)}")
    short = (batch.text.lengths <= 24) & (batch.text.scripts[:, 0] >= 5) & (sources >= 3)
    for row in short.nonzero()[0].tolist():
        text = batch.text.texts[row].strip().casefold()
        if " " in text or text in batch.english.texts[row].casefold():
            continue
        if _CONSONANTS.fullmatch(text) or _KEYS.search(text):
            yield Finding(row, f"letters at random: {shown(text)}")
