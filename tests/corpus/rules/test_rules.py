"""Each rule on faults that were seen in public corpora and translators, and on good rows that look like them."""

from __future__ import annotations

import pytest

from xvlm2vec.corpus.rules.batch import Batch, Column
from xvlm2vec.corpus.rules.pairing import unpaired_note
from xvlm2vec.corpus.rules.registry import TEXT_RULES
from xvlm2vec.corpus.rules.scripts import scripts_of_language
from xvlm2vec.corpus.rules.survey import survey

RULES = {rule.name: rule for rule in TEXT_RULES}
LONG = "A man in a blue shirt is standing on a ladder and cleaning a window."
LONG_DE = "Ein Mann in einem blauen Hemd steht auf einer Leiter und putzt ein Fenster."

# rule, English, translation, language, repaired translation (None: it cannot be repaired)
REPAIRED = [
    ("blanks", "A flower.", " Eine  Blume.\r", "de", "Eine Blume."),
    ("blanks", "A flower.", "Eine\tBlume.", "de", "Eine Blume."),
    ("blanks", "A flower.\nRed.", "Eine Blume. \n Rot.\u00a0", "de", "Eine Blume.\nRot."),
    ("encoding", "A green door.", "Eine grÃ¼ne TÃ¼r.", "de", "Eine grüne Tür."),
    ("encoding", "A dog.", "Ð¡Ð¾Ð±Ð°ÐºÐ°.", "ru", "Собака."),
    ("encoding", "A green door.", "Eine gr\ufffdne T\ufffdr.", "de", None),
    ("tokens", "A dog.", "<s>Ein Hund.</s>", "de", "Ein Hund."),
    ("tokens", "A dog.", "▁Ein▁Hund.", "de", "Ein Hund."),
    ("tokens", "A dog.", "deu_Latn Ein Hund.", "de", "Ein Hund."),
    ("tokens", "Doghouses.", "Hun@@ de@@ hütten.", "de", "Hundehütten."),
    ("tokens", "A dog.", "Ein <unk>.", "de", None),
    ("prefix", "A dog.", "#12 - Ein Hund.", "de", "Ein Hund."),
    ("prefix", "A dog.", "Traduction : Un chien.", "fr", "Un chien."),
    ("prefix", "A dog.", 'Here is the translation: "Ein Hund."', "de", "Ein Hund."),
    ("prefix", "A dog.", "German: Ein Hund.", "de", "Ein Hund."),
    ("prefix", "A dog.", "翻译：一只狗。", "zh", "一只狗。"),
    ("entities", "Two men in red jump over a wall.", "1:赤い服の 2:2人の男が 3:壁を越える。", "ja",
     "赤い服の2人の男が壁を越える。"),
    ("entities", "A man rides a horse.", "[/EN#1/people 男の人] が [/EN#2/animals 馬] に乗る。", "ja",
     "男の人 が 馬 に乗る。"),
    ("entities", "A man rides a horse on the beach.", "1 男が 2 浜辺で 3 馬に乗る。", "ja", "男が浜辺で馬に乗る。"),
    ("danda", "A dog.", "एक कुत्ता|", "hi", "एक कुत्ता।"),
    ("punctuation", "A dog.", "Ein Hund..", "de", "Ein Hund."),
    ("punctuation", "A dog.", "一只狗。.", "zh", "一只狗。"),
    ("punctuation", "A dog, a cat.", "Ein Hund,, eine Katze.", "de", "Ein Hund, eine Katze."),
    ("newlines", "Find it.\n", "Finde es.", "de", "Finde es.\n"),
    ("newlines", "First line.\nSecond line.", "Erste Zeile. Zweite Zeile.", "de", None),
    ("code", "A dog.", "一隻狗。", "zh_tw", "一隻狗。"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "english", "text", "code", "mended"), REPAIRED)
def test_what_can_be_repaired_is(name: str, english: str, text: str, code: str, mended: str | None) -> None:
    given = Batch(Column([english]), Column([text]), ["zh-TW" if code == "zh_tw" else code], [code])

    (finding,) = RULES[name].find(given)

    assert finding.text == (mended if mended != text else None)
    assert finding.is_repair is (mended is not None)
    assert finding.code == ("zh-TW" if code == "zh_tw" else None)


FAULTS = [
    ("empty", "A dog.", "\u200b", "de"),
    ("empty", " ", "Ein Hund.", "de"),
    ("null-word", "A dog.", "NULL", "de"),
    ("filler", LONG, "?", "de"),
    ("filler", LONG, "@@", "de"),
    ("filler", LONG, "dfgdfg", "de"),
    ("filler", LONG, "asdfasdf", "fr"),
    ("refusal", LONG, "could not translate", "de"),
    ("refusal", LONG, "Could not translate", "fr"),
    ("refusal", LONG, "Es tut mir leid, das kann ich nicht übersetzen.", "de"),
    ("refusal", LONG, "抱歉，无法翻译这段文字。", "zh"),
    ("refusal", LONG, "इसका अनुवाद नहीं किया जा सकता।", "hi"),
    ("refusal", LONG, "As an AI language model, I cannot see images.", "ru"),
    ("copy", "A flower.", "A flower.", "de"),
    ("copy", LONG, LONG.lower(), "fr"),
    ("copy", LONG, "A man in a blue Hemd is standing on a ladder and cleaning a window.", "de"),
    ("copy", f"Find the picture of this: {LONG}", f"Find the picture of this: {LONG}", "de"),
    ("language", f"Find the picture of this: {LONG}", f"Find the picture of this: {LONG_DE}", "fr"),
    ("script", LONG, "Мужчина в синей рубашке стоит на лестнице.", "de"),
    ("script", LONG, LONG_DE, "ja"),
    ("script", LONG, "一个穿蓝色衬衫的男人站在梯子上擦窗户。", "ja"),
    ("script", "A dog.", "собака бежит", "th"),
    ("language", LONG, "Un homme en chemise bleue est debout sur une échelle et nettoie une fenêtre.", "de"),
    ("language", LONG, "مردی با پیراهن آبی روی نردبان ایستاده و پنجره را تمیز می‌کند.", "ar"),
    ("unknown-words", "The tourist visits the castle.", "El turista *visits el castillo.", "es"),
    ("unknown-words", "The tourist visits the castle.", "El turista #visitar el castillo.", "es"),
    ("repetition", LONG, "Ein Mann steht auf der der der der Leiter.", "de"),
    ("repetition", LONG, "Ein Mann putzt. Ein Mann putzt. Ein Mann putzt. Ein Mann putzt.", "de"),
    ("repetition", LONG, "男人男人男人男人男人男人", "zh"),
    ("numbers", "It was built in 1998.", "Es wurde 1989 gebaut.", "de"),
    ("numbers", "There are 12 birds.", "هناك ١٣ طائرا.", "ar"),
    ("numbers", "Room 504 is on the left.", "Das Zimmer ist links.", "de"),
    ("numbers", "The bus stops here.", "Der Bus 42 hält hier.", "de"),
    ("length", LONG, "Человек.", "ru"),
    ("length", "A dog.", f"{LONG_DE} {LONG_DE}", "de"),
    ("marks", "Find {object} here.", "Finde das hier.", "de"),
    ("marks", "<|image_1|> What is it?", "<|image_1|> Was ist das?", "de"),  # no image in the row
    ("newlines", "One\ntwo\nthree", "Eins\nzwei drei", "de"),
    ("code", "A dog.", "犬。", "jp"),
    ("code", "A dog.", "A hound.", "EN"),
]


@pytest.mark.parametrize(("name", "english", "text", "code"), FAULTS)
def test_what_cannot_be_repaired_is_found(name: str, english: str, text: str, code: str) -> None:
    (finding,) = RULES[name].find(Batch.of([(english, text, code)]))

    assert not finding.is_repair
    assert finding.reason


# Good rows, which no rule may touch.
GOOD = [
    (LONG, LONG_DE, "de"),
    ("Pizza", "Pizza", "it"),
    ("The Beatles", "The Beatles", "es"),
    ("Wi-Fi", "Wi-Fi", "th"),
    ("iPhone 12", "iPhone 12", "zh"),
    ("She waits ... and waits.", "Sie wartet ... und wartet.", "de"),
    ("Really?!", "Wirklich?!", "de"),
    ("Go up to ../home.", "Gehe nach ../home.", "de"),
    ("Ha ha ha ha ha!", "Ha ha ha ha ha!", "de"),
    ("It cost 1,000.50 dollars.", "Es kostete 1.000,50 Dollar.", "de"),
    ("It cost 1,000 dollars.", "Il coûtait 1 000 dollars.", "fr"),
    ("3 dogs", "drei Hunde", "de"),
    ("Two dogs and three cats.", "2匹の犬と3匹の猫。", "ja"),
    ("There are 25 birds.", "هناك ٢٥ طائرا.", "ar"),
    ("It starts at 5 pm.", "Es beginnt um 17 Uhr.", "de"),
    ("On May 3, 2020 it rained.", "2020年5月3日下雨了。", "zh"),
    ("1.5 million people", "150万人", "zh"),
    ("Twenty-five children", "25 Kinder", "de"),
    ('The sign says "could not translate".', "Auf dem Schild steht „konnte nicht übersetzt werden“.", "de"),
    ("Question: What is this?", "Question : Qu'est-ce que c'est ?", "fr"),
    ("Translation: a dog", "Traduction : un chien", "fr"),
    ("1) Open the box.", "1) Öffne die Kiste.", "de"),
    ("Tag it #sunset and #beach.", "Markiere es mit #sunset und #beach.", "de"),
    ("Angst", "Angstschweiß", "de"),
    ("?", "?", "de"),
    ("❤", "❤", "ja"),
    ("First.\nSecond.", "Erstens.\nZweitens.", "de"),
    ("A dog.", "Pas.", "sr-Latn"),
    ("A dog.", "Пас.", "sr"),
    ("Type <b> for bold.", "Für fett <b> eingeben.", "de"),
    ("Dog: a pet", "Hund: ein Haustier", "de"),
    ("x | y", "x | y", "hi"),
    ("Fill in {name} and {date}.", "{date} und {name} eintragen.", "de"),
    ("An octopus", "章鱼", "zh"),
    ("Find the picture that fits this caption: a man", "Find the picture that fits this caption: ሰው", "am"),
    ("Find the picture that fits this caption:\npizza", "Find the picture that fits this caption:\npizza", "sw"),
    ("Find the picture of this: black bread", "Find the picture of this: mkate mweusi", "sw"),
    ("a crossroads", "ett vägskäl", "sv"),
    ("A strength", "Schlacht", "de"),
    ("Long live!", "ビバ！", "ja"),
    ("A laptop. Tap. Tap. Tap.", "Bir dizüstü bilgisayar. Dokunun. Dokunun. Dokunun.", "tr"),
    ("A 50 cent coin.", "Eine Münze zu 0,50 Euro.", "de"),
    ("A caribou, a kind of deer.", "אייל הצפון (שם מדעי: Rangifer tarandus)", "he"),
    ("Add the letter S at the end of the word.", "Lanyut me nukta S iyi leb oding yit kede oto leb me Amerika.", "ach"),
]


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)
def test_no_row_has_no_fault(rule) -> None:
    assert list(rule.find(Batch.of([]))) == []


@pytest.mark.parametrize(("english", "text", "code"), GOOD)
def test_good_rows_are_left_alone(english: str, text: str, code: str) -> None:
    batch = Batch.of([(english, text, code)])

    found = {name: [finding.reason for finding in rule.find(batch)] for name, rule in RULES.items()}

    assert not {name: reasons for name, reasons in found.items() if reasons}


def test_marks_of_an_image_are_put_back() -> None:
    mark = "<|image_1|>\n"
    texts = [f"{mark}Was ist das?", "<|Imagen_1|>\n¿Qué es?", "Was ist das?", "< image_1 > Was?"]
    count = len(texts)
    batch = Batch(Column([f"{mark}What is it?"] * count), Column(texts), ["de"] * count, images=["a.png"] * count)

    mended = {finding.row: finding.text for finding in RULES["marks"].find(batch)}

    assert mended == {1: "<|image_1|>\n¿Qué es?", 2: f"{mark}Was ist das?", 3: "<|image_1|> Was?"}


def test_a_row_is_judged_the_same_alone_and_among_others() -> None:
    rows = [(english, text, code) for _, english, text, code in FAULTS]
    rows += [(english, text, code) for _, english, text, code, _ in REPAIRED] + GOOD
    for rule in TEXT_RULES:
        together = {(finding.row, finding.text, finding.english) for finding in rule.find(Batch.of(rows))}
        alone = {
            (number, finding.text, finding.english)
            for number, row in enumerate(rows)
            for finding in rule.find(Batch.of([row]))
        }
        assert together == alone, rule.name


def test_a_text_may_hold_the_separator_and_letters_beyond_16_bits() -> None:
    batch = Batch.of([("a\0b", "ein\0Hund..", "de"), ("😀 dog", "𝐇𝐮𝐧𝐝 😀..", "de"), ("", "", "de")])

    assert [finding.row for finding in RULES["punctuation"].find(batch)] == [0, 1]
    assert batch.text.letters.tolist() == [7, 0, 0]


def test_scripts_follow_the_code() -> None:
    assert scripts_of_language("sr-Latn") == ("Latin",)
    assert scripts_of_language("zh-Hant-TW") == ("Han", "Bopomofo")
    assert scripts_of_language("xx") == ()


def surveyed(rows: list[tuple[str, str, str, str]]) -> dict[str, list[int]]:
    """Rows (id, English text, translation, language) by the rules of a whole corpus."""
    batch = Batch.of([row[1:] for row in rows])
    found = survey([(batch, [row[0] for row in rows], list(range(len(rows))))], "line")
    return {rule.name: [finding.row for finding in rule.find(batch)] for rule in found.rules()}


def test_what_only_the_corpus_tells() -> None:
    rows = [
        ("a", "A dog runs.", "Ein Hund rennt.", "de"),
        ("a", "A dog runs.", "Un chien court.", "fr"),  # the same text in another language
        ("a", "A dog runs.", "Ein Hund rennt.", "de"),  # again
        ("a", "A red house.", "Ein rotes Haus.", "de"),  # the id of another text
        ("b", "Old stone bridge", "Es ist ein Bild", "de"),
        ("c", "Green apples hanging", "Es ist ein Bild", "de"),
        ("d", "Children playing football", "Es ist ein Bild", "de"),
        ("e", "bank", "Bank", "de"),
        ("f", "bench", "Bank", "de"),
        ("g", "A man rides a bike", "Ein Mann fährt Rad", "de"),
        ("h", "A man riding a bike", "Ein Mann fährt Rad", "de"),
        ("", "no id", "keine Nummer", "de"),
        ("", "no number", "keine", "de"),
    ]

    assert surveyed(rows) == {
        "duplicate-id": [2, 3], "one-text": [4, 5, 6], "shared-text": [7, 8], "duplicate": [2], "pairing": [],
    }  # fmt: skip


def test_shifted_pairs_are_told() -> None:
    texts = ["ab " * (1 + 7 * number % 31) for number in range(200)]
    rows = [(str(number), f"x{text}", f"y{text}", "de") for number, text in enumerate(texts)]
    shifted = [(*row[:2], rows[(number + 1) % 200][2], "de") for number, row in enumerate(rows)]

    assert surveyed(rows)["pairing"] == []
    assert surveyed(shifted)["pairing"] == list(range(192))  # three whole stretches of 64


def test_the_note_names_the_shift() -> None:
    import numpy as np

    lengths = np.log([5.0 + 7 * number % 31 for number in range(64)])

    assert unpaired_note(lengths, lengths) == ""
    assert "2 rows earlier" in unpaired_note(lengths, np.roll(lengths, -2))
