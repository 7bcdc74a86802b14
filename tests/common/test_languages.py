"""One form of codes of languages, and their names."""

from __future__ import annotations

import pytest

from xvlm2vec.common.languages import hub_languages, is_among, language, normal_code


@pytest.mark.parametrize(
    ("code", "normal"),
    [
        ("de", "de"), ("DE", "de"), ("deu", "de"), ("ger", "de"), ("pt-BR", "pt-BR"), ("pt_br", "pt-BR"),
        ("zh-Hans", "zh-Hans"), ("ZH_HANS", "zh-Hans"), ("zh_TW", "zh-TW"), ("zh-hant-tw", "zh-Hant-TW"),
        ("sr-Latn", "sr-Latn"), ("srp_latn", "sr-Latn"), ("es-419", "es-419"), ("iw", "he"), ("fil", "fil"),
        ("arz", "arz"), ("zh-yue", "yue"), ("cmn-Hans", "zh-Hans"), ("de-1996", "de-1996"), ("mul", "mul"),
        ("en-x-mine", "en-x-mine"), (" fr ", "fr"),
    ],
)  # fmt: skip
def test_normal_code(code: str, normal: str) -> None:
    assert normal_code(code) == normal
    assert normal_code(normal) == normal


@pytest.mark.parametrize(
    ("code", "likely"),
    [
        ("jp", "ja"), ("Deutsch", "de"), ("italian", "it"), ("Portugese", "pt"), ("pt_BR.UTF-8", "pt-BR"),
        ("cz", "cs"), ("", None), ("xx", None), ("d", None), ("de-", None), ("zh-TW-Hant", None), ("eng-deu", None),
    ],
)  # fmt: skip
def test_impossible_codes_are_told_with_the_likely_one(code: str, likely: str | None) -> None:
    with pytest.raises(ValueError, match="is no code of a language") as error:
        normal_code(code)
    assert (f"did you mean {likely!r}" in str(error.value)) == (likely is not None)


def test_a_selection_takes_regions_with_their_language() -> None:
    assert is_among("pt-BR", ["pt"])
    assert is_among("zh-TW", ["zh_tw"])
    assert is_among("es-Mexico", ["es-Mexico"])
    assert not is_among("pt", ["pt-BR"])
    assert is_among("anything", None)


def test_names_of_regions_and_scripts() -> None:
    assert [language(code).name for code in ("pt-BR", "zh-Hans", "sr-Latn", "zh_TW", "es-Mexico", "xx")] == [
        "Portuguese (Brazil)", "Chinese (simplified)", "Serbian (Latin script)", "Chinese (Taiwan)",
        "Spanish (Mexico)", "xx",
    ]  # fmt: skip
    assert language("zh-Hant").native_name != language("zh-Hans").native_name
    assert language("ar").rtl
    assert language("pa-Arab").rtl
    assert not language("ar-Latn").rtl
    assert language("zh_TW").code == "zh_TW"


def test_cards_name_bare_languages_and_variants() -> None:
    assert hub_languages(["en", "pt_BR", "zh-Hans", "zh-TW"]) == {
        "language": ["en", "pt", "zh"],
        "language_bcp47": ["pt-BR", "zh-Hans", "zh-TW"],
    }
    assert hub_languages(["en", "de"]) == {"language": ["en", "de"]}
