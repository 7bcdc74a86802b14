"""`xvlm2vec corpus`."""

from __future__ import annotations

import argparse
import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xvlm2vec.common.files import write_json
from xvlm2vec.common.run_state import RunState
from xvlm2vec.corpus.rows import ENGLISH, REPORT, log_rows
from xvlm2vec.flags import console
from xvlm2vec.flags.corpus_check import add_check, add_fields, add_kind, add_null_words, line_fields
from xvlm2vec.flags.corpus_contamination import add_contamination
from xvlm2vec.flags.corpus_mix import add_mix
from xvlm2vec.flags.corpus_push import add_push
from xvlm2vec.flags.corpus_read import add_read
from xvlm2vec.flags.corpus_stats import add_stats

if TYPE_CHECKING:
    from datasets import Features

    from xvlm2vec.corpus.benchmark import Benchmark
    from xvlm2vec.corpus.parallel_csv import TextCorpus
    from xvlm2vec.hub.dataset_export import BenchmarkCard

logger = logging.getLogger(__name__)

ALL = "all"
EMOJI_MIX = {"c": 0.15, "i2t": 0.25, "t2i": 0.25, "vqa": 0.2, "vg": 0.15}


def main(arguments: Sequence[str]) -> int:
    """Parses the flags and makes or checks a corpus."""
    flags = _parser().parse_args(console.with_help(arguments))
    console.set_up()
    run: Callable[[argparse.Namespace], int] = flags.run
    return run(flags)


def _parser() -> argparse.ArgumentParser:
    parser = console.parser(
        "corpus",
        "Makes what training and evaluation read: a parallel corpus (for distill), English pairs (for contrast) and a "
        "benchmark (for evaluate).",
        "xvlm2vec corpus csv texts.csv --images images --output data",
    )
    kinds = parser.add_subparsers(title="kinds", required=True, metavar="KIND")
    _add_csv(kinds)
    _add_jsonl(kinds)
    add_read(kinds)
    _add_emoji(kinds)
    add_check(kinds)
    add_contamination(kinds)
    add_stats(kinds)
    add_mix(kinds)
    add_push(kinds)
    _add_build(kinds)
    _add_build_languages(kinds)
    return parser


def _add_csv(kinds: Any) -> None:
    parser = add_kind(
        kinds, "csv", "from a CSV with a column per language, and a folder of images",
        "Reads a CSV whose first line is `image,en,de,fr`, with your languages: `image` is a path below the folder of "
        "images and may be empty; a column `id` is taken if there is one. Writes parallel/ (each text alone and "
        "with its image), pairs/ (English text and image) and benchmark/ (held-out rows: images by text and "
        "texts by image, in every language). English alone will do: `xvlm2vec translate` adds languages "
        f"to parallel/.\n\nRows that cannot be used are left out and listed in {REPORT} with their lines.",
        "xvlm2vec corpus csv texts.csv --images images --output data --test-rows 200", _csv,
    )  # fmt: skip
    parser.add_argument("csv", metavar="FILE", help="the CSV: UTF-8, columns separated by comma, semicolon or tab")
    parser.add_argument("--images", metavar="FOLDER", help="where the images are; needed if there is a column image")
    parser.add_argument("--output", required=True, metavar="DIR", help="where to write")
    parser.add_argument(
        "--test-rows", type=int, metavar="N",
        help="rows held out for the benchmark, of those with an image and all languages; 0 for none (default: a "
        "tenth, at most 500)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the draw of these rows (default 0)")
    add_null_words(parser)


def _add_jsonl(kinds: Any) -> None:
    parser = add_kind(
        kinds, "jsonl", "from JSONL files with a line per language, and a folder of images",
        "Reads files whose lines hold an English text, the same text in another language, that language's code, and "
        "perhaps an image's path below the folder of images. Lines with the same English text and image become "
        "one row of parallel/, with all their translations: distillation passes the image once for all of them.\n\n"
        "Lines that cannot be used, and a second, different translation into one language, are left out and listed in "
        f"{REPORT} with their numbers.",
        "xvlm2vec corpus jsonl it.jsonl de.jsonl --images images --output data", _jsonl,
    )  # fmt: skip
    parser.add_argument("files", nargs="+", metavar="FILE", help="JSONL in UTF-8: a JSON object in each line")
    parser.add_argument("--images", metavar="FOLDER", help="where the images are; needed if lines name images")
    parser.add_argument("--output", required=True, metavar="DIR", help="where to write")
    add_fields(parser)
    console.add_old_name(parser, "--picture-field", "--image-field", metavar="NAME")
    add_null_words(parser)


def _add_emoji(kinds: Any) -> None:
    parser = add_kind(
        kinds, "emoji", "the built-in emoji world: scenes made by a seed, names in 99 languages",
        "Writes the emoji world into files: parallel/ (instructions, captions and questions with their translations), "
        "pairs/ (English queries and answers, with images) and benchmark/ (five tasks in every language, on unseen "
        "combinations).\n\n14 languages have instructions and questions; the others have names and captions, behind "
        "English instructions where they need any. They are not in benchmark/: `evaluate --benchmark emoji-languages` "
        "scores every language on unseen combinations, in both drawing styles.",
        "xvlm2vec corpus emoji --languages de,ja --rows 5000 --output data/emoji", _emoji,
    )  # fmt: skip
    parser.add_argument("--output", required=True, metavar="DIR", help="where to write")
    parser.add_argument("--concepts", type=console.positive, default=300, metavar="N", help="emoji (default 300)")
    parser.add_argument("--image-size", type=console.positive, default=48, metavar="N", help="pixels (default 48)")
    parser.add_argument(
        "--rows", type=console.positive, default=10_000, metavar="N", help="in parallel/ and pairs/ (default 10000)"
    )
    parser.add_argument(
        "--test-rows", type=console.positive, default=1000, metavar="N", help="most per task (default 1000)"
    )
    parser.add_argument(
        "--languages", type=console.names, metavar="CODES",
        help="languages to teach, such as de,sw,yo; all: every language that there is (default: "
        "de,fr,es,it,pt,id,ru,fa,ar,zh,ja; tr and ko are evaluated only)",
    )  # fmt: skip
    parser.add_argument("--style", default="noto", metavar="NAME", help="who drew the emoji, noto or twitter: train on "
                        "one, test on the other (default noto)")  # fmt: skip
    parser.add_argument("--batch-size", type=console.positive, default=64, metavar="N", help="pairs/ holds blocks of "
                        "so many rows of one task, full of hard negatives: train with --no-shuffle and this batch "
                        "size (default 64)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of everything that is drawn (default 0)")


def _add_build(kinds: Any) -> None:
    parser = add_kind(
        kinds, "build-emoji", "rebuild the table of the emoji world from the font",
        "Builds the table that ships with this package: needs Noto Color Emoji and `pip install 'xvlm2vec[world]'`.",
        "xvlm2vec corpus build-emoji /usr/share/fonts/truetype/noto/NotoColorEmoji.ttf --output emoji.parquet", _build,
    )  # fmt: skip
    parser.add_argument("font", metavar="FONT", help="path of NotoColorEmoji.ttf")
    parser.add_argument("--output", default="emoji.parquet", metavar="FILE", help="(default emoji.parquet)")


def _add_build_languages(kinds: Any) -> None:
    parser = add_kind(
        kinds, "build-emoji-languages", "rebuild the emoji world's further names and its second drawing style",
        "Builds the files that ship beside the table of the emoji world, from four packages of npm:\n\n"
        "npm install cldr-annotations-full@48.2.0 cldr-annotations-derived-full@48.2.0 cldr-misc-full@48.2.0 "
        "emoji-datasource-twitter@16.0.0",
        "xvlm2vec corpus build-emoji-languages node_modules --output data", _build_languages,
    )  # fmt: skip
    parser.add_argument("modules", metavar="FOLDER", help="the folder node_modules")
    parser.add_argument("--output", required=True, metavar="DIR", help="where to write")


def _csv(flags: argparse.Namespace) -> int:
    from xvlm2vec.corpus import captions
    from xvlm2vec.corpus.parallel_csv import read_csv
    from xvlm2vec.corpus.schema import parallel_features
    from xvlm2vec.hub.dataset_export import BenchmarkCard

    corpus = read_csv(flags.csv, flags.images, progress=True, drop_null_words=flags.drop_null_words)
    settings = {"csv_sha256": _sha256(flags.csv), "test_rows": flags.test_rows, "seed": flags.seed}
    run = _begin(flags, corpus, flags.csv, settings, f"of {len(corpus.rejected) + len(corpus.rows)} rows")
    if corpus.languages == (ENGLISH,):
        logger.warning("%s has no language beside English; `xvlm2vec translate` gives parallel/ its others.", flags.csv)
    wanted = min(500, len(corpus.rows) // 10) if flags.test_rows is None else flags.test_rows
    train, test, joined = captions.hold_out(corpus.rows, corpus.languages, wanted, flags.seed)
    if wanted and joined:
        logger.info("%d rows share an image or a text with another row; they stay in training together.", joined)
    if len(test) < wanted:
        logger.warning(
            "Only %d rows can be held out: the others lack an image or a language, or share a text or an image.",
            len(test),
        )
    pairs = sum(row.image is not None for row in train)
    _write_rows(run, "parallel", parallel_features(), lambda: captions.parallel_examples(train))
    if pairs:
        _write_rows(run, "pairs", captions.pair_features(), lambda: captions.pair_examples(train))
    if len(test) > 1:
        description = "Images by text and texts by image, in several languages."
        card = BenchmarkCard(name=Path(flags.csv).stem, description=description)
        _write_benchmark(run, lambda: captions.caption_benchmark(test, corpus.languages), card)
    console.show(
        f"{run.folder}: {len(corpus.rows)} rows in {', '.join(corpus.languages)}; {len(train)} for training "
        f"({pairs} with an image), {len(test)} held out; {len(corpus.rejected)} left out"
    )
    return 0


def _jsonl(flags: argparse.Namespace) -> int:
    from xvlm2vec.corpus.readers.layouts import LAYOUTS
    from xvlm2vec.corpus.readers.reading import read_corpus
    from xvlm2vec.corpus.readers.records import ReadOptions

    entries = LAYOUTS["jsonl"].read([Path(path) for path in flags.files], ReadOptions(line_fields(flags)))
    result = read_corpus(entries, flags.output, flags.images, drop_null_words=flags.drop_null_words)
    bad, report = result.bad.total(), Path(flags.output) / REPORT
    log_rows(result.faults, f"{bad} lines are left out", report)
    languages = ", ".join((ENGLISH, *(code for code, _ in result.languages.most_common())))
    console.show(
        f"{flags.output}: {result.rows} rows in {languages} ({result.images} with an image); {bad} lines left out"
    )
    return 0


def _begin(flags: argparse.Namespace, corpus: TextCorpus, name: str, settings: dict[str, Any], what: str) -> RunState:
    """Opens the output folder of a corpus that was read from files, and reports what is left out of it."""
    if not corpus.rows:
        first = "; ".join(f"line {row.line}: {row.problem}" for row in corpus.rejected[:5])
        raise ValueError(f"{name} has no row that can be used{': ' + first if first else ': there is none'}.")
    if flags.drop_null_words:
        settings["drop_null_words"] = True
    run = RunState(flags.output, {"corpus": flags.kind, "images": flags.images, **settings})
    write_json(run.folder / REPORT, corpus.report())
    log_rows(corpus.rejected, f"{len(corpus.rejected)} {what} are left out", run.folder / REPORT)
    log_rows(corpus.doubtful, f"{len(corpus.doubtful)} texts may not be what they should", run.folder / REPORT)
    return run


def _write_rows(run: RunState, name: str, features: Features, examples: Callable[[], Any]) -> None:
    from xvlm2vec.corpus.stored import write_dataset

    run.run(name, lambda: write_dataset(examples, features, run.folder / name))


def _write_benchmark(run: RunState, make: Callable[[], Benchmark], card: BenchmarkCard) -> None:
    from xvlm2vec.hub.dataset_export import export_benchmark

    def export() -> None:
        benchmark = make()
        export_benchmark(benchmark.tasks, benchmark.images, run.folder / "benchmark", card, benchmark.templates)

    run.run("benchmark", export)


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _emoji(flags: argparse.Namespace) -> int:
    from xvlm2vec.corpus.captions import pair_features
    from xvlm2vec.corpus.emoji.benchmark import emoji_benchmark
    from xvlm2vec.corpus.emoji.text import all_languages
    from xvlm2vec.corpus.emoji.training import contrastive_rows, parallel_rows, rendered
    from xvlm2vec.corpus.emoji.world import STYLES, teaching_world
    from xvlm2vec.corpus.schema import parallel_features
    from xvlm2vec.flags.emoji import benchmark_card

    taught = all_languages()[1:] if flags.languages == (ALL,) else flags.languages
    world = teaching_world(
        taught, known=all_languages(), concepts=flags.concepts, image_size=flags.image_size, seed=flags.seed,
        style=flags.style,
    )  # fmt: skip
    settings = {name: value for name, value in vars(flags).items() if name not in {"run", "kind", "output"}}
    if flags.style == STYLES[0]:
        del settings["style"]  # folders of earlier versions have none
    run = RunState(flags.output, {"corpus": "emoji", **settings})
    rows = parallel_rows(world, rows=flags.rows, seed=flags.seed)
    pairs = contrastive_rows(world, EMOJI_MIX, flags.rows, flags.batch_size, flags.seed)
    logger.info("Writing %s", run.folder)
    _write_rows(run, "parallel", parallel_features(), lambda: rendered(rows))
    _write_rows(run, "pairs", pair_features(), lambda: rendered(pairs))
    _write_benchmark(run, lambda: emoji_benchmark(world, "test", rows=flags.test_rows), benchmark_card(flags.style))
    console.show(f"{run.folder}: {flags.rows} parallel rows, {flags.rows} pairs, a benchmark in "
                 f"{', '.join(world.config.languages)}")  # fmt: skip
    return 0


def _build(flags: argparse.Namespace) -> int:
    from xvlm2vec.corpus.emoji.build import build_emoji_table

    build_emoji_table(Path(flags.font), Path(flags.output))
    console.show(f"Wrote {flags.output} ({Path(flags.output).stat().st_size} bytes)")
    return 0


def _build_languages(flags: argparse.Namespace) -> int:
    from xvlm2vec.corpus.emoji.build_languages import build_languages

    build_languages(Path(flags.modules), Path(flags.output))
    console.show(f"Wrote {flags.output}")
    return 0
