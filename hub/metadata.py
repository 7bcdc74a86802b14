"""What the Hub refuses in the metadata of a card, told before anything is exported; the Hub has the last word."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from xvlm2vec.common.languages import normal_code

_LICENSE_NAMES = (
    "afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0 "
    "bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 "
    "cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 "
    "cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 "
    "cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 "
    "etalab-2.0 eupl-1.1 eupl-1.2 fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 gpl-3.0 grok2-community "
    "h-research intel-research isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 "
    "lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openmdw-1.0 openrail openrail++ osl-3.0 other pddl "
    "postgresql unknown unlicense wtfpl zlib"
)
_LICENSES = frozenset(_LICENSE_NAMES.split())
"""What the Hub names when it refuses another license (in 2026)."""
_NO_LANGUAGES = frozenset({"code", "multilingual"})
"""What it takes beside codes of languages."""


def metadata_problems(languages: Iterable[str], license: str | None) -> list[str]:
    """What the Hub would refuse, with what to write instead.

    Args:
        languages: Codes as a card has them; those with a region or a script are fine.
        license: Identifier of a license.
    """
    problems = []
    for code in languages:
        try:
            if code not in _NO_LANGUAGES:
                normal_code(code)
        except ValueError as error:
            problems.append(f"language: {error}")
    if license is not None and license not in _LICENSES:
        close = difflib.get_close_matches(license.lower(), _LICENSES, n=1)
        hint = f"did you mean {close[0]!r}? Else write 'other'" if close else "write 'other'"
        problems.append(f"license: {license!r} is not on the Hub's list; {hint}, and name it in the description")
    return problems
