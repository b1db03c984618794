"""What the tokens of a corpus show about it: a tokenizer of another language, and texts far longer than the rest."""

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Optional

from spacy.tokens import Doc

from .counts import middle_and_longest

LETTERS = re.compile(r"[^\W\d_]+")
KANA = re.compile("[\u3041-\u30ff\uff66-\uff9f]+")
# Letters of languages that put no spaces between words, by the language to pass
UNSPACED = {
    "zh": re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"),
    "ja": KANA,
    "th": re.compile("[\u0e01-\u0e5b]+"),
}
NAMES = {"zh": "Chinese", "ja": "Japanese", "th": "Thai"}
# Such letters in the average token of a text that is split into words, at most
WORD_LENGTH = {"zh": 3.0, "ja": 3.0, "th": 8.0}
# Japanese texts have Chinese characters too: from this share of kana on they are Japanese
KANA_SHARE = 0.1
# A text is long from so many tokens on, if that is so many times the middle length
LONG, TIMES = 2000, 20


@dataclass
class ScriptCounts:
    """Letters of texts, and of scripts without spaces between words.

    letters (int): All letters.
    unspaced (Counter[str]): Letters of such scripts, by language.
    tokens (int): Tokens that have one of these.
    """

    letters: int = 0
    unspaced: "Counter[str]" = field(default_factory=Counter)
    tokens: int = 0

    def add(self, doc: Doc) -> None:
        """Count one Doc, as a tokenizer or its file splits it."""
        text = doc.text
        self.letters += sum(map(len, LETTERS.findall(text)))
        found = {lang: sum(map(len, pattern.findall(text))) for lang, pattern in UNSPACED.items()}
        if any(found.values()):
            self.unspaced.update(found)
            self.tokens += sum(any(pattern.search(token.text) for pattern in UNSPACED.values()) for token in doc)

    def warning(self) -> Optional[str]:
        """RETURNS (Optional[str]): That most letters are of a language whose words the tokenizer does not split, and
        which. None if there is no such thing."""
        total = sum(self.unspaced.values())
        if not total or total <= self.letters / 2:
            return None
        lang = max(self.unspaced, key=lambda known: self.unspaced[known])
        if lang == "zh" and self.unspaced["ja"] >= KANA_SHARE * total:
            lang = "ja"
        if total / self.tokens <= WORD_LENGTH[lang]:
            return None
        return (
            f"most letters are {NAMES[lang]}, but a token has {total / self.tokens:.1f} of them on average: the "
            f"tokenizer does not split these words. Use that of the language: --lang {lang}, or lang under [nlp]"
        )


def long_texts_warning(lengths: "Counter[int]") -> Optional[str]:
    """Tell of texts that are far longer than the others.

    lengths (Counter[int]): Docs by their number of tokens.
    RETURNS (Optional[str]): How many there are, how long, and what to do. None if there are none.
    """
    middle, longest = middle_and_longest(lengths)
    long = {length: n for length, n in lengths.items() if length >= max(LONG, TIMES * max(1, middle))}
    if not long:
        return None
    share = sum(length * n for length, n in long.items()) / sum(length * n for length, n in lengths.items())
    return (
        f"{sum(long.values())} texts have {min(long):,} to {longest:,} tokens, where the middle length is {middle:,}: "
        f"{share:.0%} of all tokens. They decide how much time and memory training takes; split them, for instance "
        "at paragraphs"
    )
