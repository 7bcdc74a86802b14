"""The benchmarks as data: which files each has, what their columns mean, in which languages, under which license.

`reading.read_benchmark` reads every entry; `layouts` has the few forms of rows that they share. The layouts
are those of the published files, read from the data sets' own pages and loaders; `docs/benchmarks.md` names them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Layout:
    """One kind of files of a benchmark.

    Attributes:
        task: Name of the task; its instructions bear the same name.
        reader: How rows become queries and candidates; one of `layouts.READERS`.
        files: Where the files lie, the first pattern with a match counting; `{dataset}` and `{language}` stand for the
            names below, `*` for anything.
        columns: What the columns are called that the reader needs.
        datasets: Names of the data sets.
        languages: Codes as the file names spell them; none if the rows tell, or if there is only English.
        images: Folders below which the images lie that rows name.
        drop_copies: Whether a candidate that a list names twice counts once. Without it a doubled gold candidate is an
            error.
    """

    task: str
    reader: str
    files: tuple[str, ...]
    columns: Mapping[str, str] = field(default_factory=lambda: _NONE)
    datasets: tuple[str, ...] = ("default",)
    languages: tuple[str, ...] = ()
    images: tuple[str, ...] = ("",)
    drop_copies: bool = False


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        name: Name in results.
        layouts: Its files.
        source: Where the data is published.
        license: What the publisher says of it.
        hub: Hub id of the data set, if its files can be had there as they are needed.
        parallel: Whether row numbers name the same item in every language.
        instructions: Whether ours are used; otherwise texts are embedded as they are.
        codes: What the files' spellings of languages stand for, where they are no ISO codes.
    """

    name: str
    layouts: tuple[Layout, ...]
    source: str
    license: str
    hub: str | None = None
    parallel: bool = False
    instructions: bool = True
    codes: Mapping[str, str] = field(default_factory=lambda: _NONE)


_MMEB_COLUMNS = MappingProxyType(
    {"text": "qry_text", "image_path": "qry_img_path", "texts": "tgt_text", "images": "tgt_img_path"}
)
_MMEB_SETS: Mapping[str, tuple[str, ...]] = {
    "c": ("ImageNet-1K", "N24News", "HatefulMemes", "VOC2007", "SUN397", "Place365", "ImageNet-A", "ImageNet-R",
          "ObjectNet", "Country211"),
    "vqa": ("OK-VQA", "A-OKVQA", "DocVQA", "InfographicsVQA", "ChartQA", "Visual7W", "ScienceQA", "VizWiz", "GQA",
            "TextVQA"),
    "retrieval": ("VisDial", "CIRR", "VisualNews_t2i", "VisualNews_i2t", "MSCOCO_t2i", "MSCOCO_i2t", "NIGHTS", "WebQA",
                  "FashionIQ", "Wiki-SS-NQ", "OVEN", "EDIS"),
    "vg": ("MSCOCO", "RefCOCO", "RefCOCO-Matching", "Visual7W-Pointing"),
}  # fmt: skip

# English names of languages, as CVQA, VisR-Bench and MERIT spell them.
LANGUAGE_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "Amharic": "am", "Arabic": "ar", "Bengali": "bn", "Breton": "br", "Bulgarian": "bg", "Chinese": "zh",
        "Croatian": "hr", "Czech": "cs", "Dutch": "nl", "Egyptian_Arabic": "arz", "English": "en", "Filipino": "fil",
        "Finnish": "fi", "French": "fr", "German": "de", "Hindi": "hi", "Igbo": "ig", "Indonesian": "id",
        "Irish": "ga", "Italian": "it", "Japanese": "ja", "Javanese": "jv", "Kinyarwanda": "rw", "Korean": "ko",
        "Malay": "ms", "Marathi": "mr", "Minangkabau": "min", "Mongolian": "mn", "Norwegian": "no", "Oromo": "om",
        "Portuguese": "pt", "Romanian": "ro", "Russian": "ru", "Sinhala": "si", "Slovenian": "sl", "Spanish": "es",
        "Sundanese": "su", "Swahili": "sw", "Swedish": "sv", "Tamil": "ta", "Telugu": "te", "Thai": "th",
        "Urdu": "ur", "Vietnamese": "vi",
    }
)  # fmt: skip

ENTRIES: Mapping[str, Benchmark] = {
    "mmeb": Benchmark(
        "MMEB",
        tuple(
            Layout(
                task, "lists", ("{dataset}/test-*.parquet", "{dataset}/test.parquet"), _MMEB_COLUMNS, datasets,
                images=("images", "eval_images", ""), drop_copies=True,
            )
            for task, datasets in _MMEB_SETS.items()
        ),
        source="https://huggingface.co/datasets/TIGER-Lab/MMEB-eval",
        license="Apache-2.0",
        hub="TIGER-Lab/MMEB-eval",
        instructions=False,
    ),
    "xtd10": Benchmark(
        "XTD10",
        (
            Layout(
                "retrieval", "parallel_captions", ("xtd.json", "data/xtd.json"),
                {"images": "images", "captions": "captions"}, ("xtd",), images=("images", "train2014", "val2014", ""),
            ),
        ),
        source="https://github.com/gregor-ge/Babel-ImageNet (data/xtd.json), 800 images of COCO train2014 and 200 of "
        "val2014",
        license="captions: that of github.com/adobe-research/Cross-lingual-Test-Dataset-XTD10; images: COCO's terms",
        parallel=True,
        codes={"jp": "ja", "kr": "ko", "cn": "zh"},
    ),
    "babel-imagenet": Benchmark(
        "Babel-ImageNet",
        (
            Layout(
                "c", "classes", ("babel_imagenet-298.json", "data/babel_imagenet-298.json", "babel_imagenet.json"),
                {}, ("imagenet-1k-val",), images=("val",),
            ),
        ),
        source="https://github.com/gregor-ge/Babel-ImageNet, images of the ImageNet-1k validation set",
        license="labels: the repository's license and BabelNet's non-commercial one; images: ImageNet's terms",
        parallel=True,
    ),
    "maxm": Benchmark(
        "MaXM",
        (
            Layout(
                "vqa", "answers", ("data/{language}-*.parquet", "{language}-*.parquet", "{language}.parquet"),
                {"text": "question", "image": "image", "answers": "answers"}, ("maxm",),
                ("en", "fr", "hi", "iw", "ro", "th", "zh"),
            ),
        ),
        source="https://huggingface.co/datasets/floschne/maxm",
        license="see https://github.com/google-research-datasets/maxm",
        hub="floschne/maxm",
        codes={"iw": "he"},
    ),
    "cvqa": Benchmark(
        "CVQA",
        tuple(
            Layout(
                "vqa", "lists", ("data/test-*.parquet", "test-*.parquet"),
                {"text": f"{prefix}Question", "image": "image", "texts": f"{prefix}Options", "gold": "Label",
                 "language": "Subset"}, (dataset,),
            )
            for dataset, prefix in (("local", ""), ("translated", "Translated "))
        ),
        source="https://huggingface.co/datasets/afaji/cvqa",
        license="each image has its own, in the column License",
        hub="afaji/cvqa",
        codes=LANGUAGE_NAMES,
    ),
    "visr-bench": Benchmark(
        "VisR-Bench",
        tuple(
            Layout(
                "page", "pages", ("QA/{dataset}_QA.json", "{dataset}_QA.json"),
                {"document": "file_name", "pages": "all_page_images", "questions": "qa_list", "text": "question",
                 "gold": "page_index", "language": "detected_language"}, datasets,
                images=(folder, f"VisR-Bench/{folder}"),
            )
            for datasets, folder in ((("figure", "table", "text"), "Multimodal"), (("multilingual",), "Multilingual"))
        ),
        source="https://huggingface.co/datasets/puar-playground/VisR-Bench (pages), "
        "https://github.com/puar-playground/VisR-Bench (QA)",
        license="MIT",
        codes=LANGUAGE_NAMES,
    ),
    "merit": Benchmark(
        "MERIT",
        (
            Layout(
                "product", "products", ("queries-test.json",),
                {"catalogue": "data/test-*.parquet", "id": "idx", "image": "image", "title": "title",
                 "language": "language", "text": "query instruction", "query": "query", "golds": "pos_candidate"},
                ("merit",),
            ),
        ),
        source="https://huggingface.co/datasets/WeiChow/merit",
        license="Apache-2.0",
        hub="WeiChow/merit",
        codes=LANGUAGE_NAMES,
    ),
    "rsicd": Benchmark(
        "RSICD",
        (
            Layout(
                "retrieval", "captions", ("data/test-*.parquet", "test-*.parquet"),
                {"image": "image", "captions": "captions"}, ("rsicd",),
            ),
        ),
        source="https://huggingface.co/datasets/arampacha/rsicd",
        license="not stated",
        hub="arampacha/rsicd",
    ),
    "tuxpaint": Benchmark(
        "Tux Paint",
        (Layout("retrieval", "stamps", ("**/*.txt", "**/*.png"), datasets=("stamps", "symbols", "drawings")),),
        source="https://packages.debian.org/tuxpaint-stamps-default (`xvlm2vec data tuxpaint`)",
        license="GPL-2",
        parallel=True,
    ),
    "gcompris": Benchmark(
        "GCompris",
        (Layout("retrieval", "gcompris", ("rcc/lang.rcc",), datasets=("words", "sentences")),),
        source="https://packages.debian.org/gcompris-qt-data (`xvlm2vec data gcompris`)",
        license="words' images: CC-BY-SA-3.0; others: a license for each, in the package's copyright file",
        parallel=True,
    ),
}  # fmt: skip
