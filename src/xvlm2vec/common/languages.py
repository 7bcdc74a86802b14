"""What a person is to be told of a language: its English name, its own name and its direction of writing."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Language:
    """A language as reports and demos show it.

    Attributes:
        code: ISO 639-1 code, as in the corpus ("de").
        name: English name ("German").
        native_name: The language's name for itself ("Deutsch").
        rtl: Whether it is written from right to left.
    """

    code: str
    name: str
    native_name: str
    rtl: bool = False


_KNOWN = {
    language.code: language
    for language in (
        Language("en", "English", "English"),
        Language("de", "German", "Deutsch"),
        Language("fr", "French", "Français"),
        Language("es", "Spanish", "Español"),
        Language("it", "Italian", "Italiano"),
        Language("pt", "Portuguese", "Português"),
        Language("id", "Indonesian", "Bahasa Indonesia"),
        Language("tr", "Turkish", "Türkçe"),
        Language("ru", "Russian", "Русский"),
        Language("fa", "Persian", "فارسی", rtl=True),
        Language("ar", "Arabic", "العربية", rtl=True),
        Language("zh", "Chinese", "中文"),
        Language("ja", "Japanese", "日本語"),
        Language("ko", "Korean", "한국어"),
    )
}

# Languages without an entry above that are nevertheless written from right to left.
_RTL_CODES = frozenset({"ckb", "dv", "he", "ps", "sd", "ug", "ur", "yi"})


def language(code: str) -> Language:
    """Looks a language up; an unknown code stands for its own name.

    Args:
        code: ISO 639-1 or 639-3 code, with or without a region ("pt", "pt-BR").

    Returns:
        The language's names and direction. A regional code keeps itself as ``code`` and takes the rest from
        its language.

    Raises:
        ValueError: If ``code`` is empty.
    """
    if not code:
        raise ValueError("a language code is empty; give an ISO 639 code such as 'de'")
    if code in _KNOWN:
        return _KNOWN[code]
    base = code.replace("_", "-").split("-")[0].lower()
    if base in _KNOWN:
        known = _KNOWN[base]
        return Language(code, f"{known.name} ({code})", known.native_name, known.rtl)
    return Language(code, code, code, base in _RTL_CODES)
