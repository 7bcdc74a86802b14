"""What mteb's own repository wants to know of a benchmark beside its data: where it comes from, and how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class TaskFacts:
    """One benchmark, in the words that mteb has for it.

    Attributes:
        title: Its name, as names of classes in Python hold it.
        description: What is retrieved, in a sentence.
        reference: Address of the paper.
        year: When its texts were written.
        domains: Of mteb's list.
        subtypes: Of mteb's list.
        license: Of mteb's list; what differs by image is "multiple".
        annotators: Who made it, of mteb's list.
        creation: How its texts came to be, of mteb's list.
        key: Key of the paper in BibTeX.
        citation: Fields of the paper in BibTeX.
    """

    title: str
    description: str
    reference: str
    year: int
    domains: tuple[str, ...]
    subtypes: tuple[str, ...]
    license: str
    annotators: str
    creation: str
    key: str
    citation: Mapping[str, str]

    @property
    def bibtex(self) -> str:
        """The entry as mteb's test of citations wants it: fields in their order, a comma behind each."""
        fields = "".join(f"  {name} = {{{value}}},\n" for name, value in sorted(self.citation.items()))
        return f"@article{{{self.key},\n{fields}}}"


def _arxiv(number: str, title: str, author: str) -> dict[str, str]:
    year = f"20{number[:2]}"
    return {"author": author, "journal": f"arXiv preprint arXiv:{number}", "title": title, "year": year}


FACTS: Mapping[str, TaskFacts] = {
    "xtd10": TaskFacts(
        "XTD10",
        "Retrieve an image of COCO by a caption in one of 11 languages, or a caption by its image.",
        "https://arxiv.org/abs/2012.05107",
        2020,
        ("Encyclopaedic", "Written"),
        ("Image Text Retrieval",),
        "not specified",
        "human-annotated",
        "human-translated",
        "aggarwal2020towards",
        _arxiv(
            "2012.05107", "Towards Zero-shot Cross-lingual Image Retrieval", "Aggarwal, Pranav and Kale, Ajinkya"
        ),
    ),
    "babel-imagenet": TaskFacts(
        "BabelImageNet",
        "Name an image of ImageNet in one of 298 languages, by the class names that BabelNet has there.",
        "https://arxiv.org/abs/2306.08658",
        2023,
        ("Encyclopaedic",),
        ("Object recognition",),
        "not specified",
        "derived",
        "found",
        "geigle2023babel",
        _arxiv(
            "2306.08658",
            "{Babel-ImageNet}: Massively Multilingual Evaluation of Vision-and-Language Representations",
            'Geigle, Gregor and Timofte, Radu and Glava{\\v{s}}, Goran',
        ),
    ),
    "maxm": TaskFacts(
        "MaXM",
        "Answer a question about an image in one of seven languages, among all answers in that language.",
        "https://arxiv.org/abs/2209.05401",
        2022,
        ("Encyclopaedic", "Written"),
        ("Question answering",),
        "not specified",
        "human-annotated",
        "machine-translated and verified",
        "changpinyo2022maxm",
        _arxiv(
            "2209.05401",
            "{MaXM}: Towards Multilingual Visual Question Answering",
            "Changpinyo, Soravit and Xue, Linting and Yarom, Michal and Thapliyal, Ashish V. and Szpektor, Idan and "
            "Amelot, Julien and Chen, Xi and Soricut, Radu",
        ),
    ),
    "cvqa": TaskFacts(
        "CVQA",
        "Choose the answer to a question about an image from a culture, in the language of that culture.",
        "https://arxiv.org/abs/2406.05967",
        2024,
        ("Encyclopaedic", "Written"),
        ("Question answering",),
        "multiple",
        "human-annotated",
        "created",
        "romero2024cvqa",
        _arxiv(
            "2406.05967",
            "{CVQA}: Culturally-diverse Multilingual Visual Question Answering Benchmark",
            "Romero, David and others",
        ),
    ),
    "visr-bench": TaskFacts(
        "VisRBench",
        "Find the page of a long document that answers a question, among the pages of that document.",
        "https://arxiv.org/abs/2508.07493",
        2025,
        ("Academic", "Web"),
        ("Question answering",),
        "mit",
        "LM-generated",
        "LM-generated and verified",
        "chen2025visrbench",
        _arxiv(
            "2508.07493",
            "{VisR-Bench}: An Empirical Study on Visual Retrieval-Augmented Generation for Multilingual Long Document "
            "Understanding",
            "Chen, Jian and others",
        ),
    ),
    "mmeb": TaskFacts(
        "MMEB",
        "Choose the right candidate for an instruction with an image, a text or both.",
        "https://arxiv.org/abs/2410.05160",
        2024,
        ("Encyclopaedic", "Written"),
        ("Image Text Retrieval",),
        "apache-2.0",
        "derived",
        "multiple",
        "jiang2024vlm2vec",
        _arxiv(
            "2410.05160",
            "{VLM2Vec}: Training Vision-Language Models for Massive Multimodal Embedding Tasks",
            "Jiang, Ziyan and Meng, Rui and Yang, Xinyi and Yavuz, Semih and Zhou, Yingbo and Chen, Wenhu",
        ),
    ),
    "mmmeb": TaskFacts(
        "MMMEB",
        "Choose the right candidate for an instruction in one of five languages, with an image, a text or both.",
        "https://arxiv.org/abs/2503.09313",
        2025,
        ("Encyclopaedic", "Written"),
        ("Image Text Retrieval",),
        "not specified",
        "derived",
        "machine-translated",
        "musacchio2025xvlm2vec",
        _arxiv(
            "2503.09313",
            "{xVLM2Vec}: Adapting {LVLM}-based embedding models to multilinguality using Self-Knowledge Distillation",
            "Musacchio, Elio and Siciliani, Lucia and Basile, Pierpaolo and Semeraro, Giovanni",
        ),
    ),
}  # fmt: skip
"""By the names of `eval.benchmarks`. MERIT is not among them: its queries hold several images, and mteb's rows one."""
