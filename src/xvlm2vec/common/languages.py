"""Languages: one normal form of their codes, and the names that people read."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Language:
    """A language as reports and demos show it.

    Attributes:
        code: Its code, as in the corpus ("de", "pt-BR").
        name: English name ("German", "Portuguese (Brazil)").
        native_name: The language's name for itself ("Deutsch").
        rtl: Whether it is written from right to left.
    """

    code: str
    name: str
    native_name: str
    rtl: bool = False


# code|English name|own name
_NAME_TABLE = (
    "en|English|English;de|German|Deutsch;fr|French|Français;es|Spanish|Español;it|Italian|Italiano;"
    "pt|Portuguese|Português;id|Indonesian|Bahasa Indonesia;tr|Turkish|Türkçe;ru|Russian|Русский;fa|Persian|فارسی;"
    "ar|Arabic|العربية;zh|Chinese|中文;ja|Japanese|日本語;ko|Korean|한국어;nl|Dutch|Nederlands;pl|Polish|Polski;"
    "cs|Czech|Čeština;sk|Slovak|Slovenčina;sl|Slovenian|Slovenščina;hr|Croatian|Hrvatski;sr|Serbian|Српски;"
    "bs|Bosnian|Bosanski;bg|Bulgarian|Български;uk|Ukrainian|Українська;ro|Romanian|Română;hu|Hungarian|Magyar;"
    "el|Greek|Ελληνικά;da|Danish|Dansk;sv|Swedish|Svenska;no|Norwegian|Norsk;fi|Finnish|Suomi;et|Estonian|Eesti;"
    "lv|Latvian|Latviešu;lt|Lithuanian|Lietuvių;he|Hebrew|עברית;hi|Hindi|हिन्दी;bn|Bengali|বাংলা;ur|Urdu|اردو;"
    "ta|Tamil|தமிழ்;te|Telugu|తెలుగు;mr|Marathi|मराठी;gu|Gujarati|ગુજરાતી;pa|Punjabi|ਪੰਜਾਬੀ;ml|Malayalam|മലയാളം;"
    "kn|Kannada|ಕನ್ನಡ;th|Thai|ไทย;vi|Vietnamese|Tiếng Việt;ms|Malay|Bahasa Melayu;fil|Filipino|Filipino;"
    "sw|Swahili|Kiswahili;am|Amharic|አማርኛ;ca|Catalan|Català;eu|Basque|Euskara;gl|Galician|Galego;ga|Irish|Gaeilge;"
    "cy|Welsh|Cymraeg;is|Icelandic|Íslenska;af|Afrikaans|Afrikaans;sq|Albanian|Shqip;mk|Macedonian|Македонски;"
    "ka|Georgian|ქართული;hy|Armenian|Հայերեն;az|Azerbaijani|Azərbaycan;kk|Kazakh|Қазақ тілі;uz|Uzbek|Oʻzbek;"
    "mn|Mongolian|Монгол;ne|Nepali|नेपाली;si|Sinhala|සිංහල;km|Khmer|ខ្មែរ;lo|Lao|ລາວ;my|Burmese|မြန်မာ;"
    "ach|Acholi|Lwo;an|Aragonese|Aragonés;shs|Shuswap|Secwepemctsín;son|Songhay|Soŋay;vec|Venetian|Vèneto;"
    "yue|Cantonese|粵語;ak|Akan|Akan;as|Assamese|অসমীয়া;ast|Asturian|Asturianu;ba|Bashkir|Башҡорт теле;"
    "be|Belarusian|Беларуская;br|Breton|Brezhoneg;ceb|Cebuano|Cebuano;chr|Cherokee|ᏣᎳᎩ;"
    "ckb|Central Kurdish|کوردیی ناوەندی;cv|Chuvash|Чӑваш;dsb|Lower Sorbian|Dolnoserbšćina;eo|Esperanto|Esperanto;"
    "ff|Fulah|Pulaar;fo|Faroese|Føroyskt;fy|Western Frisian|Frysk;gd|Scottish Gaelic|Gàidhlig;ha|Hausa|Hausa;"
    "hsb|Upper Sorbian|Hornjoserbšćina;ig|Igbo|Igbo;iu|Inuktitut|ᐃᓄᒃᑎᑐᑦ;jv|Javanese|Jawa;kab|Kabyle|Taqbaylit;"
    "kok|Konkani|कोंकणी;ku|Kurdish|Kurdî;ky|Kyrgyz|Кыргызча;la|Latin|Latina;lb|Luxembourgish|Lëtzebuergesch;"
    "mg|Malagasy|Malagasy;mi|Māori|Māori;mt|Maltese|Malti;nb|Norwegian Bokmål|Norsk bokmål;"
    "nn|Norwegian Nynorsk|Norsk nynorsk;nso|Northern Sotho|Sesotho sa Leboa;oc|Occitan|Occitan;om|Oromo|Oromoo;"
    "or|Odia|ଓଡ଼ିଆ;pcm|Nigerian Pidgin|Naijíriá Píjin;ps|Pashto|پښتو;qu|Quechua|Runasimi;"
    "quz|Cusco Quechua|Qosqo runasimi;rm|Romansh|Rumantsch;rw|Kinyarwanda|Ikinyarwanda;sa|Sanskrit|संस्कृतम्;"
    "sd|Sindhi|سنڌي;shn|Shan|ၽႃႇသႃႇတႆး;so|Somali|Soomaali;su|Sundanese|Basa Sunda;tg|Tajik|Тоҷикӣ;ti|Tigrinya|ትግርኛ;"
    "tk|Turkmen|Türkmen dili;tn|Tswana|Setswana;to|Tongan|Lea fakatonga;tt|Tatar|Татар;ug|Uyghur|ئۇيغۇرچە;"
    "wa|Walloon|Walon;wo|Wolof|Wolof;xh|Xhosa|IsiXhosa;yi|Yiddish|ייִדיש;yo|Yoruba|Yorùbá;zu|Zulu|IsiZulu"
)
_NAMES = {code: (english, native) for code, english, native in (row.split("|") for row in _NAME_TABLE.split(";"))}
_SCRIPTS = {
    "Arab": "Arabic script", "Cyrl": "Cyrillic", "Deva": "Devanagari", "Hans": "simplified", "Hant": "traditional",
    "Latn": "Latin script",
}  # fmt: skip
_REGIONS = {
    "419": "Latin America", "AR": "Argentina", "AT": "Austria", "AU": "Australia", "BE": "Belgium", "BR": "Brazil",
    "CA": "Canada", "CH": "Switzerland", "CL": "Chile", "CN": "China", "CO": "Colombia", "DE": "Germany",
    "EG": "Egypt", "ES": "Spain", "FR": "France", "GB": "United Kingdom", "HK": "Hong Kong", "IE": "Ireland",
    "IN": "India", "MA": "Morocco", "MX": "Mexico", "NL": "Netherlands", "NZ": "New Zealand", "PE": "Peru",
    "PK": "Pakistan", "PT": "Portugal", "SA": "Saudi Arabia", "SG": "Singapore", "TW": "Taiwan",
    "US": "United States", "ZA": "South Africa",
}  # fmt: skip
_RTL_LANGUAGES = frozenset({"ar", "ckb", "dv", "fa", "he", "ps", "sd", "ug", "ur", "yi"})
_RTL_SCRIPTS = frozenset({"Adlm", "Arab", "Hebr", "Nkoo", "Rohg", "Syrc", "Thaa"})

# Codes of ISO 639-2 and of the usual member of a macrolanguage, each with the one of two letters that BCP 47 wants.
_SHORT_TABLE = (
    "aaraa abkab afraf akaak albsq alssq amham araar arbar argan armhy asmas avaav aveae aymay azeaz azjaz bakba "
    "bambm baqeu belbe benbn bisbi bodbo bosbs brebr bulbg burmy catca cescs chach chece chizh chucu chvcv cmnzh "
    "corkw cosco crecr cymcy czecs danda deude divdv dutnl dzodz ekket ellel engen epoeo estet euseu eweee faofo "
    "fasfa fijfj finfi frafr frefr fryfy fulff geoka gerde glagd glega glggl glvgv greel grngn gujgu hatht hauha "
    "hebhe herhz hinhi hmoho hrvhr hunhu hyehy iboig iceis idoio iiiii ikuiu ileie inaia indid ipkik islis itait "
    "javjv jpnja kalkl kankn kasks katka kaukr kazkk khkmn khmkm kikki kinrw kirky komkv konkg korko kuakj kurku "
    "laolo latla lavlv limli linln litlt ltzlb lublu luglg lvslv macmk mahmh malml maomi marmr mayms mkdmk mlgmg "
    "mltmt monmn mrimi msams myamy nauna navnv nblnr ndend ndong nepne nldnl nnonn nobnb norno npine nyany ocioc "
    "ojioj orior ormom oryor ossos panpa pbups perfa pesfa plipi pltmg polpl porpt pusps quequ quzqu rohrm ronro "
    "rumro runrn rusru sagsg sansa sinsi slksk slosk slvsl smese smosm snasn sndsd somso sotst spaes sqisq srdsc "
    "srpsr sswss sunsu swasw swesv swhsw tahty tamta tattt telte tgktg tgltl thath tibbo tirti tonto tsntn tsots "
    "tuktk turtr twitw uigug ukruk urdur uzbuz uznuz venve vievi volvo welcy wlnwa wolwo xhoxh yddyi yidyi yoryo "
    "zhaza zhozh zsmms zulzu "
)
_SHORT = {entry[:3]: entry[3:] for entry in _SHORT_TABLE.split()}
_RENAMED = {"in": "id", "iw": "he", "ji": "yi", "jw": "jv", "mo": "ro"}
_EXTENDED = frozenset({"ar", "ms", "sw", "uz", "zh"})  # `zh-yue` is `yue`
_TWO_LETTERS = frozenset(_SHORT.values())
# Codes of countries that are often written for the languages spoken there.
_COUNTRIES = {"cn": "zh", "cz": "cs", "dk": "da", "gr": "el", "jp": "ja", "kr": "ko", "tw": "zh-TW", "ua": "uk"}
_AFTER_LANGUAGE = re.compile(
    r"(?P<extended>(?:-[a-z]{3})?)(?P<script>(?:-[a-z]{4})?)(?P<region>(?:-(?:[a-z]{2}|[0-9]{3}))?)"
    r"(?P<rest>(?:-(?:[a-z0-9]{5,8}|[0-9][a-z0-9]{3}))*(?:-[a-wyz0-9](?:-[a-z0-9]{2,8})+)*(?:-x(?:-[a-z0-9]{1,8})+)?)"
)


def normal_code(code: str) -> str:
    """The one form of a language's code, as BCP 47 has it: `pt_br` -> `pt-BR`, `zh-hans` -> `zh-Hans`, `deu` -> `de`.

    Language in small letters, script with a capital, region in capitals, hyphens between; two letters where ISO 639-1
    has them.

    Args:
        code: A code as people write it.

    Raises:
        ValueError: It cannot be the code of a language; names the likely one, if there is any.
    """
    language, *others = code.strip().replace("_", "-").lower().split("-")
    parts = _AFTER_LANGUAGE.fullmatch("".join(f"-{part}" for part in others))
    exists = language in _TWO_LETTERS or language in _RENAMED or re.fullmatch(r"[a-z]{3}", language)
    if not exists or parts is None or (parts["extended"] and language not in _EXTENDED):
        likely = _likely_code(code)
        hint = f"; did you mean {likely!r}?" if likely else ", such as de, pt-BR or zh-Hans"
        raise ValueError(f"{code!r:.40} is no code of a language{hint}")
    language = parts["extended"].lstrip("-") or language
    language = _SHORT.get(language, _RENAMED.get(language, language))
    return f"{language}{parts['script'].title()}{parts['region'].upper()}{parts['rest']}"


def normal_or_same(code: str) -> str:
    """The normal form of a code; what is no code stays as it is. For data that others wrote."""
    try:
        return normal_code(code)
    except ValueError:
        return code


def comparable_code(code: str) -> str:
    """What all spellings of a language's code have in common."""
    return normal_or_same(code).casefold()


def is_among(code: str, wanted: Sequence[str] | None) -> bool:
    """Whether a language is one of those that are wanted, or a region's or script's form of one; None wants all."""
    if wanted is None:
        return True
    key = comparable_code(code)
    return not {key, key.split("-")[0]}.isdisjoint(map(comparable_code, wanted))


def hub_languages(codes: Iterable[str]) -> dict[str, list[str]]:
    """The fields of a card that name languages: the Hub takes bare ones in `language`, all others in `language_bcp47`.

    Args:
        codes: Codes in any spelling.
    """
    codes = list(dict.fromkeys(map(normal_or_same, codes)))
    variants = [code for code in codes if "-" in code]
    bare = list(dict.fromkeys(code.split("-")[0] for code in codes))
    return {"language": bare, **({"language_bcp47": variants} if variants else {})}


def language(code: str) -> Language:
    """Looks a language up; an unknown code stands for its own name.

    Args:
        code: Its code ("pt", "pt-BR", "zh-Hans"), in any spelling.

    Returns:
        The language's names and direction under the code as it was given; its region or script stands in brackets.

    Raises:
        ValueError: If ``code`` is empty.
    """
    if not code:
        raise ValueError("a language code is empty; give an ISO 639 code such as 'de'")
    try:
        base, *parts = normal_code(code).split("-")
    except ValueError:
        return Language(code, code, code)
    scripts = [part for part in parts if len(part) == 4 and part.isalpha()]
    rtl = scripts[0] in _RTL_SCRIPTS if scripts else base in _RTL_LANGUAGES
    if base not in _NAMES:
        return Language(code, code, code, rtl)
    english, native = _NAMES[base]
    if not parts:
        return Language(code, english, native, rtl)
    as_given = code.strip().replace("_", "-").split("-")[-len(parts) :]
    details = ", ".join(
        _SCRIPTS.get(part) or _REGIONS.get(part, given) for part, given in zip(parts, as_given, strict=True)
    )
    return Language(code, f"{english} ({details})", f"{native} ({'-'.join(parts)})", rtl)


def _likely_code(code: str) -> str | None:
    """The code that was meant by an impossible one: a locale's name, a country's code, or a language's name."""
    plain = re.split(r"[.@ ]", code.strip())[0]
    if plain and plain != code.strip():
        try:
            return normal_code(plain)
        except ValueError:
            pass
    key = code.strip().casefold()
    by_name = {name.casefold(): short for short, names in _NAMES.items() for name in names}
    close = difflib.get_close_matches(key, by_name, n=1, cutoff=0.75)
    return _COUNTRIES.get(key) or (by_name[close[0]] if close else None)
