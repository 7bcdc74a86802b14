"""`xvlm2vec corpus check`, and what kinds of `xvlm2vec corpus` have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xvlm2vec.common.files import write_json
from xvlm2vec.common.languages import comparable_code
from xvlm2vec.corpus.rows import REPORT

from . import console
from .workers import add_workers, load_workers

if TYPE_CHECKING:
    from xvlm2vec.corpus.checking.check import CheckResult
    from xvlm2vec.corpus.checking.chunks import Source
    from xvlm2vec.corpus.readers.records import LineFields
    from xvlm2vec.corpus.scoring.scorer import Scorer

_NULL_WORD = "null-word"
_FIELDS = (
    ("english", "text_en", "the English text"),
    ("text", "text", "the text in another language"),
    ("language", "lang", "that language's code"),
    ("image", "image", "the image's path; it may be missing, empty or null"),
)


def add_kind(
    kinds: Any, name: str, line: str, text: str, example: str, run: Callable[..., int]
) -> argparse.ArgumentParser:
    """Adds a kind of corpus."""
    parser: argparse.ArgumentParser = kinds.add_parser(
        name, help=line, allow_abbrev=False, **console.texts(text, example)
    )
    parser.set_defaults(run=run, kind=name)
    return parser


def add_fields(parser: argparse.ArgumentParser) -> None:
    """Adds the names of the fields of a JSONL file."""
    for name, default, what in _FIELDS:
        parser.add_argument(
            f"--{name}-field", default=default, metavar="NAME", help=f"field of {what} (default {default})"
        )


def line_fields(flags: argparse.Namespace) -> LineFields:
    """The names of the fields of a JSONL file."""
    from xvlm2vec.corpus.readers.records import LineFields

    return LineFields(flags.english_field, flags.text_field, flags.language_field, flags.image_field)


def add_null_words(parser: argparse.ArgumentParser) -> None:
    """Adds what is done with texts such as `nan`."""
    parser.add_argument("--drop-null-words", action="store_true", help="leave out texts such as nan, NULL, N/A and "
                        "None, which are reported in any case and may be real texts")  # fmt: skip


def add_check(kinds: Any) -> None:
    """Adds `xvlm2vec corpus check`."""
    parser = add_kind(
        kinds, "check", "check every row of a corpus, and write it without the bad ones",
        "Judges every row by rules, with or without an output: an English text with one translation is a row, and so "
        "is a line of a JSONL file that cannot be read. Most rules drop a row; some repair it (stray blanks, labels "
        "such as \"Translation:\", doubled punctuation, codes of languages), and some only tell what may be meant. "
        "docs/corpus.md lists them with their precision and recall. Exit code 1 if a row was dropped, else 0.\n\n"
        f"DIR gets the rows that are kept in the form in which they came (kept.jsonl, kept.csv or parallel/), {REPORT} "
        "with place and reason of each bad row, and report.html with examples by rule and language.",
        "xvlm2vec corpus check rows.jsonl --output checked --json counts.json", _check,
    )  # fmt: skip
    parser.add_argument("path", metavar="INPUT", help="a JSONL file with a line per translation, a CSV with a column "
                        "per language, or a corpus (folder of save_to_disk, parquet files, Hub id)")  # fmt: skip
    parser.add_argument("--images", metavar="FOLDER", help="where the images are that a JSONL file or a CSV names "
                        "(default: the file's folder)")  # fmt: skip
    parser.add_argument("--split", default="train", help="which part of a corpus, if it has several (default train)")
    parser.add_argument("--output", "--clean", metavar="DIR", help="where to write; nothing is written without it")
    parser.add_argument("--json", metavar="FILE", help="write the counts as JSON")
    for action, what in (("drop", "drop the row"), ("repair", "repair the row, or drop it if that cannot be done"),
                         ("tell", "only tell, and keep the row")):  # fmt: skip
        parser.add_argument(f"--{action}", type=console.names, default=(), metavar="RULES",
                            help=f"these rules {what}, as blanks,copy")  # fmt: skip
    add_fields(parser)
    add_null_words(parser)
    _add_scoring(parser)
    add_workers(parser, "the same result; they ask the rules that look at a row alone, and read INPUT themselves: for "
                "all it has the same path")  # fmt: skip


def _add_scoring(parser: argparse.ArgumentParser) -> None:
    scoring = parser.add_argument_group("what rows mean", "told, never dropped")
    scoring.add_argument("--score-by", metavar="MODEL", help="compare each translation with its English text by this "
                         "multilingual model, as `xvlm2vec evaluate` takes it (a folder, a Hub id, or "
                         "module:function); calibrated in each language by shuffled pairs")  # fmt: skip
    scoring.add_argument("--suspect", type=_share, default=0.05, metavar="SHARE", help="tell rows if more than this "
                         "share of shuffled pairs are as good; in every language 1 - SHARE of all wrong translations "
                         "are found (default 0.05)")  # fmt: skip
    scoring.add_argument("--back-translate", metavar="MODEL", help="also translate into English again, and compare "
                         "that: a translation or chat model, as `xvlm2vec translate` takes, apertium, or a server's "
                         "address")  # fmt: skip
    scoring.add_argument("--back-server-model", metavar="NAME", help="what that server calls its model")
    scoring.add_argument("--trust-remote-code", action="store_true", help="run code from the model's repository")


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"expected a share between 0 and 1, not {text!r}")
    return share


def _check(flags: argparse.Namespace) -> int:
    from xvlm2vec.corpus.checking.check import check_corpus

    source = _source(flags)
    result = check_corpus(
        source, flags.output, _actions(flags), progress=True, scorer=_scorer(flags), workers=load_workers(flags)
    )
    if flags.json:
        write_json(flags.json, result.as_json())
    console.show("\n".join(_lines(source, result, flags.output)))
    return int(result.kept < result.rows)


def _source(flags: argparse.Namespace) -> Source:
    """What the input is, by its name."""
    from xvlm2vec.corpus.checking.corpora import CorpusSource
    from xvlm2vec.corpus.checking.line_files import CsvSource, JsonlSource

    path = Path(flags.path)
    kind = path.suffix.casefold()
    if kind not in {".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt"} or path.is_dir():
        return CorpusSource(flags.path, flags.split)
    if not path.is_file():
        raise FileNotFoundError(f"there is no folder or file {flags.path}.")
    if flags.images is not None and not Path(flags.images).is_dir():
        raise FileNotFoundError(f"there is no folder of images {flags.images}")
    if kind in {".csv", ".tsv", ".txt"}:
        return CsvSource(path, flags.images)
    return JsonlSource(path, flags.images, line_fields(flags))


def _scorer(flags: argparse.Namespace) -> Scorer | None:
    """What scores rows by their meaning, if that is wanted."""
    if flags.score_by is None:
        if flags.back_translate:
            raise ValueError("--back-translate gives English texts that --score-by compares: name a model there, too.")
        return None
    from xvlm2vec.corpus.scoring.scorer import Scorer
    from xvlm2vec.eval.ranking import Row
    from xvlm2vec.eval.spoken import spoken_languages

    from .encoders import load_encoder
    from .translation_engines import load_back_translator

    encoder = load_encoder(flags.score_by, trust=flags.trust_remote_code)
    spoken = {comparable_code(code): code for code in spoken_languages(encoder)}

    def embed(texts: Sequence[str], language: str) -> Any:
        told = spoken.get(comparable_code(language))
        return encoder.encode_rows([Row(text, language=told) for text in texts], {})

    back = load_back_translator(flags.back_translate, flags.back_server_model) if flags.back_translate else None
    return Scorer(flags.score_by, embed, back, flags.suspect)


def _actions(flags: argparse.Namespace) -> dict[str, Any]:
    from xvlm2vec.corpus.rules.rule import Action

    actions: dict[str, Any] = {_NULL_WORD: Action.DROP} if flags.drop_null_words else {}
    for action in Action:
        for name in getattr(flags, action.value):
            if actions.get(name, action) is not action:
                raise ValueError(f"the rule {name!r} is named twice: it can {actions[name]} or {action}, not both.")
            actions[name] = action
    return actions


def _lines(source: Source, result: CheckResult, folder: str | None) -> list[str]:
    """What the command says."""
    dropped = result.rows - result.kept
    lines = [f"{result.kept:,} rows are kept, {dropped:,} are left out"]
    for title, counts in (("dropped", result.dropped), ("repaired", result.repaired),
                          ("told, which may be meant", result.told), ("languages", result.languages)):  # fmt: skip
        lines += [f"{title}:", *(f"  {count:>9,}  {name}" for name, count in counts.most_common())] if counts else []
    lines += _meanings(result)
    lines += [f"NOT RUN: the rule {rule!r} ({why})" for rule, why in result.not_run.items()]
    lines += [f"FAULT: {_fault(row, source)}" for row in result.faults]
    if dropped > len(result.faults):
        lines.append(f"... and {dropped - len(result.faults):,} more")
    if folder:
        lines.append(f"{folder} holds the kept rows, {REPORT} with what is wrong with the others, and report.html.")
    else:
        lines.append(f"{source.name} {'CANNOT be used as it is' if dropped else 'can be used'}.")
    return lines


def _meanings(result: CheckResult) -> list[str]:
    """What the scores of rows come to."""
    scores = result.scores
    if scores is None:
        return []
    lines = [f"scored by {scores.model}, suspected if more than {scores.threshold:.0%} of shuffled pairs are as good:",
             f"  {'':<12}{'pairs':>9}{'similar':>9}{'shuffled':>9}{'suspected':>11}{'wrong':>7}"]  # fmt: skip
    for code, means in sorted(scores.languages.items(), key=lambda item: -item[1].suspected / item[1].pairs):
        verdict = f"{f'~{means.wrong:.0%}':>7}" if means.is_believed else "  not believed"
        lines.append(f"  {code:<12}{means.pairs:>9,}{means.similarity:>9.2f}{means.shuffled:>9.2f}"
                     f"{means.suspected:>11,}{verdict}")  # fmt: skip
    if scores.unknown:
        lines.append("not believed: too many rows are suspected that are not as bad as shuffled ones, so the model "
                     "hardly knows the language; nothing is told of single rows")  # fmt: skip
    for title, counts in (("not translated back", scores.not_translated), ("nothing to compare with",
                                                                           scores.not_scored)):  # fmt: skip
        lines += [f"{title}: {', '.join(f'{code} {count:,}' for code, count in counts.items())}"] if counts else []
    lines += [f"not translated back from {code}: {why}" for code, why in scores.not_from.items()]
    return lines


def _fault(row: Any, source: Source) -> str:
    """A dropped row; in a corpus with its column."""
    if source.unit != "row":
        return f"{row} [{row.kind}]"
    column = {"image": "image", "marks": "image", "duplicate-id": "id"}.get(row.kind, "translations")
    column = "text_en" if row.problem.startswith("the English text is") else column
    name = ", ".join(filter(None, (f"id {row.id!r}", row.language)))
    return f"Parallel corpus, row {row.row}, column {column!r} ({name}): {row.problem} [{row.kind}]"
