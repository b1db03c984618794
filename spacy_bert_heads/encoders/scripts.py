"""Which scripts languages are written in, and which ones a text uses."""

import unicodedata
from functools import lru_cache
from typing import Dict, FrozenSet, Iterable, List

from ..errors import BertHeadsError

# The first word of a letter's name in Unicode names its script
COMMON = "COMMON"
OTHER_SCRIPTS: Dict[str, List[str]] = {
    "am ti": ["ETHIOPIC"],
    "ar fa ps sd ug ur": ["ARABIC"],
    "as bn": ["BENGALI"],
    "be bg kk ky mk mn ru tt uk": ["CYRILLIC"],
    "bo": ["TIBETAN"],
    "el grc": ["GREEK"],
    "gu": ["GUJARATI"],
    "he yi": ["HEBREW"],
    "hi mr ne sa": ["DEVANAGARI"],
    "hy": ["ARMENIAN"],
    "ja": ["CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "IDEOGRAPHIC"],
    "ka": ["GEORGIAN"],
    "km": ["KHMER"],
    "kn": ["KANNADA"],
    "ko": ["HANGUL"],
    "lo": ["LAO"],
    "ml": ["MALAYALAM"],
    "my": ["MYANMAR"],
    "or": ["ORIYA"],
    "pa": ["GURMUKHI"],
    "si": ["SINHALA"],
    "sr uz": ["CYRILLIC", "LATIN"],
    "ta": ["TAMIL"],
    "te": ["TELUGU"],
    "th": ["THAI"],
    "zh yue": ["CJK", "BOPOMOFO", "IDEOGRAPHIC"],
}
LATIN = (
    "af az ca cs cy da de en eo es et eu fi fr ga gl hr hu id is it la lb lt lv ms mt nb nl nn no pl pt ro sk sl so "
    "sq sv sw tl tr vi"
)
SCRIPTS: Dict[str, List[str]] = {
    language: scripts
    for languages, scripts in {**OTHER_SCRIPTS, LATIN: ["LATIN"]}.items()
    for language in languages.split()
}


def scripts_of_languages(languages: Iterable[str]) -> FrozenSet[str]:
    """RETURNS (FrozenSet[str]): The scripts of languages given by their codes.

    RAISES (BertHeadsError): H283 for an unknown code.
    """
    scripts: List[str] = []
    for language in languages:
        if language not in SCRIPTS:
            raise BertHeadsError("H283", found=repr(language), expected=", ".join(sorted(SCRIPTS)))
        scripts += SCRIPTS[language]
    return frozenset(scripts)


def scripts_of_text(text: str) -> FrozenSet[str]:
    """RETURNS (FrozenSet[str]): The scripts of its letters; COMMON alone if it has none."""
    return frozenset(map(_script, filter(str.isalpha, text))) or frozenset([COMMON])


@lru_cache(maxsize=100_000)
def _script(letter: str) -> str:
    # Full-width Latin letters and the like are what NFKC makes of them
    plain = unicodedata.normalize("NFKC", letter)[:1] or letter
    return (unicodedata.name(plain, "") or "OTHER").split()[0]
