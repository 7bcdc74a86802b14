"""Precision and recall of the rules of `xvlm2vec corpus check` on 2,000 labelled rows in ten languages.

    python benchmarks/corpus_rules.py --json benchmarks/results/corpus_rules.json --page docs/corpus.md

Half of the rows are good: sentences put together from phrases, and rows of `HARD` that look like faults. In the other
half a fault is planted, of one rule each. An alarm of a rule is wrong on a good row, and on one whose fault another
rule repairs before; of a row with another fault nothing is said, as it is dropped in any case. The corpus of the emoji
world, in which nothing is planted, gives the share of good rows that are dropped.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from corpus_texts import LANGUAGES, choose, joined, numbered, sentence

from xvlm2vec.corpus.checking.check import check_corpus
from xvlm2vec.corpus.checking.line_files import JsonlSource
from xvlm2vec.corpus.emoji.training import parallel_rows
from xvlm2vec.corpus.emoji.world import teaching_world
from xvlm2vec.corpus.rules.registry import IMAGE, TEXT_RULES
from xvlm2vec.corpus.rules.rule import Action, Rule
from xvlm2vec.corpus.rules.survey import Survey

ROWS = 2_000
REPAIRING = {"blanks", "encoding", "tokens", "prefix", "entities", "danda", "punctuation", "marks", "newlines"}
NEIGHBOURS = dict(zip(LANGUAGES, ("fr", "es", "de", "tr", "fr", "de", "ru", "ar", "ja", "zh"), strict=True))
"""The language that stands in the place of another one."""
REFUSALS = {
    "de": "Das konnte nicht übersetzt werden.", "fr": "Désolé, impossible de traduire ce texte.",
    "es": "Lo siento, no se puede traducir.", "pt": "Desculpe, não é possível traduzir.", "tr": "Bu metin çevrilemedi.",
    "ru": "Не удалось перевести этот текст.", "ar": "عذرا، لا يمكن ترجمة هذا النص.",
    "hi": "क्षमा करें, इसका अनुवाद नहीं किया जा सकता।", "zh": "抱歉，无法翻译。",
    "ja": "申し訳ありませんが、翻訳できません。",
}  # fmt: skip
LABELS = {"de": "Übersetzung: ", "fr": "Traduction : ", "es": "Traducción: ", "pt": "Tradução: ", "tr": "Çeviri: ",
          "ru": "Перевод: ", "ar": "الترجمة: ", "hi": "अनुवाद: ", "zh": "翻译：", "ja": "翻訳："}  # fmt: skip
# Good rows that look like faults: English and translations, language by language.
HARD = [
    ("Pizza", dict.fromkeys(("de", "fr", "es", "pt", "tr"), "Pizza")),
    ("The Rolling Stones", dict.fromkeys(LANGUAGES, "The Rolling Stones")),
    ("Taxi", dict.fromkeys(("de", "fr", "es"), "Taxi")),
    ("iPhone 15", dict.fromkeys(LANGUAGES, "iPhone 15")),
    (
        "Ha ha ha ha ha!",
        {"de": "Ha ha ha ha ha!", "ja": "はははははははは！", "zh": "哈哈哈哈哈哈哈哈！", "ru": "Ха ха ха ха ха!"},
    ),
    ("Wait ...", {"de": "Warte ...", "fr": "Attends ...", "es": "Espera ...", "pt": "Espere ...", "ru": "Подожди ..."}),
    (
        "Really?!",
        {"de": "Wirklich?!", "fr": "Vraiment ?!", "es": "¿¡De verdad!?", "zh": "真的吗？！", "ja": "本当に？！"},
    ),
    (
        "The train leaves at 5 pm.",
        {
            "de": "Der Zug fährt um 17 Uhr ab.",
            "fr": "Le train part à 17 heures.",
            "ja": "電車は17時に出発します。",
            "zh": "火车17点出发。",
        },
    ),
    (
        "On 3 May 2020 it was raining.",
        {"zh": "2020年5月3日下雨了。", "ja": "2020年5月3日は雨でした。", "de": "Am 3. Mai 2020 regnete es."},
    ),
    (
        "1.5 million people live here.",
        {
            "zh": "这里住着150万人。",
            "ja": "ここには150万人が住んでいる。",
            "de": "Hier leben 1,5 Millionen Menschen.",
            "ru": "Здесь живёт 1,5 миллиона человек.",
        },
    ),
    (
        "The house costs 250,000 euros.",
        {
            "de": "Das Haus kostet 250.000 Euro.",
            "fr": "La maison coûte 250 000 euros.",
            "es": "La casa cuesta 250.000 euros.",
            "ru": "Дом стоит 250 000 евро.",
            "ar": "ثمن المنزل ٢٥٠٬٠٠٠ يورو.",
            "hi": "घर की कीमत 2,50,000 यूरो है।",
        },
    ),
    (
        "Two dogs and three cats are playing.",
        {"ja": "2匹の犬と3匹の猫が遊んでいる。", "zh": "2只狗和3只猫在玩耍。", "de": "2 Hunde und 3 Katzen spielen."},
    ),
    ("3 dogs are sleeping.", {"de": "Drei Hunde schlafen.", "fr": "Trois chiens dorment.", "ru": "Три собаки спят."}),
    (
        "There are twenty-five children.",
        {"de": "Es sind 25 Kinder da.", "tr": "25 çocuk var.", "ja": "25人の子どもがいる。"},
    ),
    (
        "Question: What is in the picture?",
        {
            "fr": "Question : Qu'y a-t-il sur l'image ?",
            "de": "Frage: Was ist auf dem Bild?",
            "es": "Pregunta: ¿Qué hay en la imagen?",
        },
    ),
    ("1) Open the box.", {"de": "1) Öffne die Kiste.", "fr": "1) Ouvre la boîte.", "zh": "1) 打开盒子。"}),
    (
        "The screen says: could not translate.",
        {
            "de": "Auf dem Bildschirm steht: konnte nicht übersetzt werden.",
            "fr": "L'écran affiche : impossible de traduire.",
        },
    ),
    ("First line.\nSecond line.", {"de": "Erste Zeile.\nZweite Zeile.", "ja": "一行目。\n二行目。"}),
    ("Choose {name} or {date}.", {"de": "Wähle {name} oder {date}.", "ja": "{date}か{name}を選んでください。"}),
    (
        "My favourite hashtags are #sunset and #beach.",
        {
            "de": "Meine liebsten Hashtags sind #sunset und #beach.",
            "pt": "Minhas hashtags favoritas são #sunset e #beach.",
        },
    ),
    ("OK", dict.fromkeys(LANGUAGES, "OK")),
    ("12:30", dict.fromkeys(LANGUAGES, "12:30")),
    ("An octopus", {"zh": "章鱼", "ja": "タコ", "de": "Ein Krake"}),
    ("dandelion", {"fr": "pissenlit", "zh": "蒲公英", "de": "Löwenzahn", "ru": "одуванчик"}),
    (
        "He studies at the Massachusetts Institute of Technology.",
        {"zh": "他在麻省理工学院学习。", "ru": "Он учится в Massachusetts Institute of Technology."},
    ),
    ("No, no, no!", {"de": "Nein, nein, nein!", "fr": "Non, non, non !", "ru": "Нет, нет, нет!"}),
    ("Good luck with the exam tomorrow!", {"tr": "Yarınki sınavda başarılar!", "zh": "祝你明天考试顺利！"}),
    ('He whispers: "Come here."', {"de": "Er flüstert: „Komm her.“", "fr": "Il murmure : « Viens ici. »"}),
    ("none of them", {"de": "keiner von ihnen", "fr": "aucun d'eux"}),
    ("A quiz about Angst and Schadenfreude", {"de": "Ein Quiz über Angst und Schadenfreude"}),
]


@dataclass
class Row:
    """A labelled row: the rule whose fault is planted, or an empty string for a good one."""

    english: str
    text: str
    code: str
    rule: str = ""
    name: str = ""
    original: str = ""


Plant = Callable[[Row, random.Random], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where the numbers go")
    parser.add_argument("--page", type=Path, help="docs/corpus.md, whose tables are written")
    parser.add_argument("--misses", action="store_true", help="show the rows that are judged wrongly")
    flags = parser.parse_args()
    rows = labelled_rows()
    content = {
        "name": "corpus_rules",
        "rows": len(rows),
        "languages": list(LANGUAGES),
        "seed": 0,
        **measure(rows, flags.misses),
        "emoji_world": emoji_world(),
    }
    print(json.dumps(content, indent=1))
    if flags.json:
        flags.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if flags.page:
        write_tables(flags.page, content)


def write_tables(page: Path, content: dict[str, Any]) -> None:
    """Puts the table of all rules and that of their precision and recall between the marks of a page."""
    rules = (*TEXT_RULES, Rule(IMAGE, "images that are missing or cannot be read", lambda batch: ()), *Survey().rules())
    lines = ["| rule | finds | does |", "|---|---|---|"]
    lines += [f"| `{rule.name}` | {rule.what} | {'repairs' if rule.action is Action.REPAIR else f'{rule.action}s'} |"
              for rule in rules]  # fmt: skip
    quality = ["| rule | planted | found | wrong alarms | precision | recall |", "|---|---:|---:|---:|---:|---:|"]
    for rule, row in content["rules"].items():
        shares = f"{row['precision']:.2f} | {row['recall']:.2f}"
        quality.append(f"| `{rule}` | {row['planted']} | {row['found']} | {row['wrong']} | {shares} |")
    world = content["emoji_world"]
    quality += [
        "",
        f"Of the {content['good_rows']:,} good rows {content['good_rows_found']} are found by a rule that drops or "
        f"repairs. Of the emoji world's {world['rows']:,} rows, in which nothing is planted, "
        f"{world['rows'] - world['kept']} are dropped ({world['share_dropped']:.2%}).",
    ]
    text = page.read_text(encoding="utf-8")
    for name, rows in (("rules", lines), ("quality", quality)):
        start, end = f"<!-- {name}: written by benchmarks/corpus_rules.py -->", f"<!-- end of {name} -->"
        before, _, rest = text.partition(start)
        text = f"{before}{start}\n" + "\n".join(rows) + f"\n{end}{rest.partition(end)[2]}"
    page.write_text(text, encoding="utf-8")


def labelled_rows() -> list[Row]:
    """The labelled set, the same one in every run."""
    draw = random.Random(0)
    rows = [Row(english, text, code) for english, texts in HARD for code, text in texts.items()]
    faults = ROWS // 2
    rows += [good_row(draw, number) for number in range(ROWS - faults - len(rows))]
    planters = list(PLANTERS.items())
    for number in range(faults - SHIFTED):
        rule, plant = planters[number % len(planters)]
        row = good_row(draw, number // len(planters))
        row.rule, row.original = rule, row.text
        plant(row, draw)
        rows.append(row)
    draw.shuffle(rows)
    for number, row in enumerate(rows):
        row.name = row.name or f"row-{number}"
    return [*rows, *shifted_rows(draw)]


def good_row(draw: random.Random, number: int) -> Row:
    code = LANGUAGES[number % len(LANGUAGES)]
    choices = [choose(draw) for _ in range(draw.choice((1, 1, 2)))]
    english, text = ([sentence(side, choice) for choice in choices] for side in ("en", code))
    if not draw.randrange(6):
        bus, times = draw.randrange(10, 900), draw.randrange(11, 40)
        english, text = [*english, numbered("en", bus, times)], [*text, numbered(code, bus, times)]
    return Row(joined("en", english), joined(code, text), code)


SHIFTED = 128
"""Rows of one language that belong to the row before them, as if a line had been lost in one file of two."""


def shifted_rows(draw: random.Random) -> list[Row]:
    rows = []
    for number in range(SHIFTED + 1):
        choices = [choose(draw) for _ in range(draw.randrange(1, 5))]
        english, text = (joined(side, [sentence(side, choice) for choice in choices]) for side in ("en", "de"))
        rows.append(Row(english, text, "de", "pairing", f"shifted-{number}"))
    return [Row(row.english, after.text, row.code, row.rule, row.name) for row, after in pairwise(rows)]


def put_text(make: Callable[[Row, random.Random], str]) -> Plant:
    """A fault that gives the translation another text."""

    def plant(row: Row, draw: random.Random) -> None:
        row.text = make(row, draw)

    return plant


def other_sentence(code: str, row: Row, draw: random.Random) -> str:
    """A text of about the row's size in another language."""
    return joined(code, [sentence(code, choose(draw)) for _ in range(row.english.count("."))])


def plant_numbers(row: Row, draw: random.Random) -> None:
    bus, times = draw.randrange(10, 900), draw.randrange(11, 40)
    row.english = joined("en", [row.english, numbered("en", bus, times)])
    row.text = joined(row.code, [row.text, numbered(row.code, bus + draw.choice((1, 10, 100)), times)])


def plant_entities(row: Row, draw: random.Random) -> None:
    choice = choose(draw)
    row.english, row.text = sentence("en", choice), sentence(row.code, choice)
    row.original = row.text
    parts = (
        row.text.split(" ")
        if " " in row.text
        else [row.text[start : start + 4] for start in range(0, len(row.text), 4)]
    )
    numbered_parts = [f"{number}:{part}" for number, part in enumerate(parts[:4], 1)]
    row.text = " ".join([*numbered_parts, *parts[4:]])


def plant_marks(row: Row, draw: random.Random) -> None:
    row.english = f"{row.english} {{name}}"
    row.original, row.text = f"{row.text} {{name}}", f"{row.text} {draw.choice(('{nombre}', '{ name}', ''))}".strip()


def plant_newlines(row: Row, draw: random.Random) -> None:
    row.english, row.text = (
        f"{row.english}\n{sentence('en', choose(draw))}",
        f"{row.text} {other_sentence(row.code, row, draw)}",
    )


def plant_one_text(row: Row, draw: random.Random) -> None:
    row.text = {code: sentence(code, (0, 1, 2, 3)) for code in LANGUAGES}[row.code]


def plant_id(row: Row, draw: random.Random) -> None:
    row.name = "the-same"


def plant_language(row: Row, draw: random.Random) -> None:
    """Another language; where it has another script, that is the fault."""
    row.text = other_sentence(NEIGHBOURS[row.code], row, draw)
    row.rule = "language" if row.code in {"de", "fr", "es", "pt", "tr"} else "script"


def misread(row: Row, draw: random.Random) -> str:
    return f"{row.text} {'Grüße' if row.text.isascii() else ''}".strip().encode().decode("latin-1")


def stray(row: Row, draw: random.Random) -> str:
    return draw.choice((f" {row.text}", f"{row.text}\r", f"{row.text[:4]}\t{row.text[4:]} "))


def refused(row: Row, draw: random.Random) -> str:
    return draw.choice((REFUSALS[row.code], "could not translate", "Translation not available"))


def in_other_script(row: Row, draw: random.Random) -> str:
    return other_sentence("ru" if row.code in {"ar", "hi", "zh", "ja"} else "ar", row, draw)


def repeated(row: Row, draw: random.Random) -> str:
    if row.code in {"zh", "ja"}:
        return row.text[:6] + row.text[3:6] * 6
    words = row.text.rstrip(".।").split(" ")
    return " ".join([*words[:-2], *words[-2:] * draw.randrange(4, 7)])


PLANTERS: dict[str, Plant] = {
    "blanks": put_text(stray),
    "encoding": put_text(misread),
    "tokens": put_text(
        lambda row, draw: draw.choice((f"{row.text}</s>", f"<pad> {row.text}", f"__{row.code}__ {row.text}"))
    ),
    "prefix": put_text(lambda row, draw: draw.choice((LABELS[row.code], f"#{draw.randrange(99)} - ")) + row.text),
    "entities": plant_entities,
    "danda": lambda row, draw: plant_danda(row, draw),
    "punctuation": put_text(lambda row, draw: row.text + row.text[-1]),
    "marks": plant_marks,
    "newlines": plant_newlines,
    "empty": put_text(lambda row, draw: draw.choice(("", " ", "\u200b"))),
    "null-word": put_text(lambda row, draw: draw.choice(("nan", "NULL", "N/A", "None"))),
    "filler": put_text(lambda row, draw: draw.choice(("?", "@@", "...", "dfgdfg", "asdfasdf", "-"))),
    "refusal": put_text(refused),
    "copy": put_text(lambda row, draw: draw.choice((row.english, row.english.lower()))),
    "script": put_text(in_other_script),
    "language": plant_language,
    "unknown-words": put_text(
        lambda row, draw: f"{row.text.rstrip('.।。')} *{draw.choice(('waiting', 'sleeping', 'photo'))}."
    ),
    "repetition": put_text(repeated),
    "numbers": plant_numbers,
    "length": put_text(
        lambda row, draw: (
            row.text.split(" ")[0][:6]
            if draw.randrange(2)
            else joined(row.code, [row.text, *(other_sentence(row.code, row, draw) for _ in range(4))])
        )
    ),
    "one-text": plant_one_text,
    "duplicate-id": plant_id,
}


def plant_danda(row: Row, draw: random.Random) -> None:
    choice = choose(draw)
    row.english, row.original, row.code = sentence("en", choice), sentence("hi", choice), "hi"
    row.text = row.original.replace("।", "|")


def measure(rows: list[Row], misses: bool) -> dict[str, Any]:
    """Precision and recall by rule, recall by language, and the good rows that any rule would drop or repair."""
    found = {
        **judged(rows, repair=False),
        **{rule: places for rule, places in judged(rows, repair=True).items() if rule not in REPAIRING},
    }
    table, languages = {}, defaultdict(Counter)
    for rule in [*PLANTERS, "pairing"]:
        planted = {place for place, row in enumerate(rows) if row.rule == rule}
        if rule == "duplicate-id":  # the first one is no repetition
            planted.remove(min(planted))
        fair = {place for place, row in enumerate(rows) if not row.rule or (row.rule in REPAIRING and row.rule != rule)}
        hits, wrong = found[rule] & planted, found[rule] & fair
        table[rule] = {
            "planted": len(planted),
            "found": len(hits),
            "wrong": len(wrong),
            "precision": round(len(hits) / max(1, len(hits | wrong)), 3),
            "recall": round(len(hits) / len(planted), 3),
        }
        if misses:
            for place in sorted((planted - hits) | wrong):
                print(rule, "MISSED" if place in planted else "WRONG", rows[place])
        for place in planted:
            languages[rows[place].code].update(planted=1, found=int(place in hits))
    good = {place for place, row in enumerate(rows) if not row.rule}
    alarms = set().union(*(found[rule] for rule in PLANTERS if rule != "null-word"))
    return {
        "good_rows": len(good),
        "good_rows_found": len(good & alarms),
        "rules": table,
        "languages": {code: dict(counts) for code, counts in sorted(languages.items())},
    }


def judged(rows: list[Row], repair: bool) -> dict[str, set[int]]:
    """The rows that each rule finds when it only tells.

    Args:
        rows: The rows.
        repair: Whether the rules that repair do so, as they do before the others judge.
    """
    names = [name for name in (*PLANTERS, "pairing") if not (repair and name in REPAIRING)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        lines = ({"id": row.name, "text_en": row.english, "text": row.text, "lang": row.code} for row in rows)
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
        check_corpus(JsonlSource(path), folder, dict.fromkeys(names, Action.TELL))
        report = json.loads((Path(folder) / "bad-rows.json").read_text(encoding="utf-8"))
    found: defaultdict[str, set[int]] = defaultdict(set)
    for row in report["doubtful"]:
        found[row["kind"]].add(row["line"] - 1)
    return found


def emoji_world() -> dict[str, Any]:
    """What the check drops of a corpus without faults."""
    world = teaching_world(None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        with open(path, "w", encoding="utf-8") as file:
            for row in parallel_rows(world, rows=5_000, seed=0):
                for item in row["translations"]:
                    line = {"text_en": row["text_en"], "text": item["text"], "lang": item["lang"]}
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
        result = check_corpus(JsonlSource(path), Path(folder))
        report = json.loads((Path(folder) / "bad-rows.json").read_text(encoding="utf-8"))
    print(*report["bad_rows"][:20], sep="\n")
    return {**result.as_json(), "share_dropped": round(1 - result.kept / result.rows, 5)}


if __name__ == "__main__":
    main()
