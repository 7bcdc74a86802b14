"""`xvlm2vec translate`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from xvlm2vec.common.files import write_json
from xvlm2vec.common.run_state import RunState
from xvlm2vec.corpus.rows import log_rows
from xvlm2vec.flags import console
from xvlm2vec.flags.translation_engines import add_engines, engine_settings, load_engine

REPORT = "untranslated.json"


def main(arguments: Sequence[str]) -> int:
    """Parses the flags and translates what is not translated yet; exit code 1 if a text could not be."""
    flags = _parser().parse_args(console.with_help(arguments))
    console.set_up()
    from xvlm2vec.corpus.schema import parallel_features, translation_fields
    from xvlm2vec.corpus.stored import load_parallel, write_dataset
    from xvlm2vec.corpus.translation import translate_corpus, translated_rows

    corpus = load_parallel(flags.data, flags.split)
    translator = load_engine(flags)
    run = RunState(flags.output, engine_settings(flags))
    folder = run.folder / "translations"
    outcome = translate_corpus(corpus, translator, flags.languages, folder, progress=True)
    write_dataset(
        lambda: translated_rows(corpus, flags.languages, folder),
        parallel_features(translation_fields(corpus.features)),
        run.folder / "parallel",
    )
    write_json(run.folder / REPORT, outcome.report())
    counts = ", ".join(f"{language} {outcome.translated[language]:,}" for language in flags.languages)
    console.show(f"{run.folder}/parallel: {len(corpus):,} rows; translated texts: {counts}")
    log_rows(outcome.rejected, f"{len(outcome.rejected)} texts could not be translated", run.folder / REPORT)
    return int(bool(outcome.rejected))


def _parser() -> argparse.ArgumentParser:
    parser = console.parser(
        "translate",
        "Translates the English texts of a parallel corpus into the languages that its rows lack: by a translation or "
        "chat model of transformers, a server, Apertium, a word list, or several of them that vote. Each distinct text "
        "is translated once; translations that a row has are kept. Marks of images, line breaks, markup and fields in "
        "braces are taken out before and put back after.\n\nOUTPUT/parallel is the corpus with its translations, for "
        f"distill. Texts that could not be translated are listed in OUTPUT/{REPORT}, and their rows go without; the "
        "exit code is then 1. Refusals and chatter of chat models, and what else the rules of `corpus check` find in "
        "them, count as such. Interrupt it as you like: the same command goes on where it stopped, and asks a server "
        "again for what it failed to give.",
        "xvlm2vec translate data/parallel --model google/madlad400-3b-mt --languages de,fr,ja --output data/more\n"
        "xvlm2vec translate data/parallel --server http://localhost:8000/v1 --server-model qwen3 \\\n"
        "    --languages de,th --output data/more\n"
        "xvlm2vec translate data/parallel --model google/madlad400-3b-mt --apertium --vote me/my-embedder \\\n"
        "    --languages es,ca --output data/more",
    )
    parser.add_argument("data", metavar="PATH_OR_ID", help="a parallel corpus, as corpus makes it; its rows need no "
                        "translations")  # fmt: skip
    parser.add_argument("--split", default="train", help="which part, where there are several (default train)")
    parser.add_argument(
        "--languages", required=True, type=console.language_codes, metavar="CODES",
        help="languages to translate into, such as de,pt-BR,ja",
    )  # fmt: skip
    parser.add_argument("--output", required=True, metavar="DIR", help="where to write")
    add_engines(parser)
    parser.add_argument(
        "--tags", type=console.names, default=(), metavar="CODE=TAG,...",
        help="the translation models' names of languages, such as de=deu_Latn, where they are not found by their codes",
    )  # fmt: skip
    parser.add_argument(
        "--batch-size",
        type=console.positive,
        default=32,
        metavar="N",
        help="texts at a time: in a batch of a model, or asked of a server at once (default 32)",
    )
    parser.add_argument(
        "--num-beams",
        type=console.positive,
        default=1,
        metavar="N",
        help="beams of translation models (default 1: greedy)",
    )
    parser.add_argument("--max-new-tokens", type=console.positive, default=256, metavar="N", help="most tokens of a "
                        "translation; longer ones count as failed (default 256)")  # fmt: skip
    return parser
