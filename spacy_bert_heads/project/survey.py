"""What annotation files are about: which heads can learn from them, with which labels, in which language."""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Dict, List, Sequence, Set, Tuple

from ..corpus.annotations import Annotation, overlapping
from ..corpus.findings import KINDS, Findings
from ..corpus.readers.formats import AUTO, ReadOptions, find_converter
from ..errors import BertHeadsError
from .configs import TOKEN_HEADS

# Languages that share a script, the most frequent first. The words of a text decide between them. Of the others,
# spaCy's code for several languages is taken.
SCRIPTS: Dict[str, Tuple[str, ...]] = {
    "LATIN": ("en", "de", "es", "fr", "it", "nl", "pt", "sv", "da", "nb", "pl", "cs", "sk", "hu", "tr", "fi", "ro"),
    "CYRILLIC": ("ru", "uk", "bg", "sr"),
    "ARABIC": ("ar", "fa", "ur"),
    "GREEK": ("el",),
    "HEBREW": ("he",),
    "HANGUL": ("ko",),
    "CJK": ("zh",),
    "HIRAGANA": ("ja",),
    "DEVANAGARI": ("hi",),
    "BENGALI": ("bn",),
    "TAMIL": ("ta",),
}
DEFAULT_OPTIONS = ReadOptions()
MANY_LANGUAGES = "xx"
WORD = re.compile(r"[^\W\d_]+")
# Japanese is written in Chinese characters too: so much of it at least is in its own.
KANA_SHARE = 0.1
# As many letters decide about the language.
MAX_LETTERS = 500_000
# Texts that the finished package is tried on.
N_TEXTS = 2
MAX_TEXT = 120
MAX_SHOWN = 8
# A text becomes part of a command in project.yml: no quotes, and nothing that a project file replaces.
SAFE_TEXT = re.compile(r"[^\"'\\$`{}<>|\x00-\x1f\x7f-\x9f]+")


@dataclass(frozen=True)
class Survey:
    """What annotation files are about.

    heads (Tuple[str, ...]): What can be learned from them, in the order of the pipeline.
    lang (str): Language code.
    texts (Tuple[str, ...]): A few short ones of their texts.
    lines (Tuple[str, ...]): What was found, for people.
    """

    heads: Tuple[str, ...]
    lang: str
    texts: Tuple[str, ...]
    lines: Tuple[str, ...]


class _Counts:
    """What the annotations seen so far hold."""

    def __init__(self) -> None:
        self.n = 0
        self.ents: "Counter[str]" = Counter()
        self.cats: "Counter[str]" = Counter()
        self.keys: Set[Tuple[str, ...]] = set()
        self.scored: Set[str] = set()
        self.n_chosen: Set[int] = set()
        self.all_exclusive = True
        self.words: "Counter[str]" = Counter()
        self.n_letters = 0
        self.texts: List[str] = []
        self.n_overlapping = 0

    def add(self, annotation: Annotation) -> None:
        self.n += 1
        for span in (*annotation.ents, *annotation.rejected):
            self.ents[span.label] += 1
        self.n_overlapping += bool(annotation.complete and overlapping(sorted(set(annotation.ents))))
        if annotation.cats:
            for label, value in annotation.cats.items():
                self.cats[label] += value != 0.0
            self.keys.add(tuple(sorted(annotation.cats)))
            self.scored.update(label for label, value in annotation.cats.items() if value not in (0.0, 1.0))
            self.n_chosen.add(sum(value == 1.0 for value in annotation.cats.values()))
            self.all_exclusive = self.all_exclusive and annotation.exclusive
        if self.n_letters < MAX_LETTERS:
            words = WORD.findall(annotation.text[:MAX_LETTERS])
            self.words.update(words)
            self.n_letters += sum(map(len, words))
        text = annotation.text.strip()
        if len(self.texts) < N_TEXTS and len(text) <= MAX_TEXT and SAFE_TEXT.fullmatch(text):
            if text not in self.texts:
                self.texts.append(text)

    def find_heads(self) -> List[str]:
        heads = []
        if self.scored:
            heads.append("regression")
        elif self.cats:
            # Whatever says so itself, or always has one of the same labels
            always_one = len(self.keys) == 1 and self.n_chosen == {1}
            exclusive = len(self.cats) > 1 and (self.all_exclusive or always_one)
            heads.append("textcat" if exclusive else "textcat_multilabel")
        if not self.ents:
            return heads
        return [*heads, "spans" if self.n_overlapping else "ner"]


def survey(paths: Sequence[Path], options: ReadOptions = DEFAULT_OPTIONS, format: str = AUTO) -> Survey:
    """Read annotation files and find out what they are about.

    paths (Sequence[Path]): Annotation files, and folders that are read as a whole.
    options (ReadOptions): What the files do not say about themselves.
    format (str): As for `convert`.
    RETURNS (Survey): Heads, language, and how they were found.
    RAISES (BertHeadsError): H1xx for a file that cannot be read; H117 for one without annotated texts; H173 if there
        are neither entities nor categories in any of them.
    """
    counts, lines = _Counts(), []
    for path in paths:
        findings, before = Findings(skip_bad=True), counts.n
        converter = find_converter(path, format)
        for annotation in converter.read(path, findings, options):
            counts.add(annotation)
        n_used, n_records = counts.n - before, findings.n_records[path]
        if not n_used:
            raise BertHeadsError("H117", path=path, found=findings.describe(path), n_records=n_records)
        lines.append(f"{path}: {converter.name}, {n_used} annotated texts")
        n_bad = sum(count for kind, count in findings.counts.items() if kind not in KINDS)
        if n_bad:
            lines.append(f"  {n_bad} bad records, at which convert stops: correct them, or add --skip-bad there")
    heads = counts.find_heads()
    if not heads:
        raise BertHeadsError("H173", found=", ".join(map(str, paths)))
    for head in heads:
        lines.append(f"{head}: {_show_labels(counts.ents if head in TOKEN_HEADS else counts.cats)}")
    lang, why = guess_language(counts.words)
    lines.append(f"Language: {lang} ({why}); --lang sets another one")
    return Survey(tuple(heads), lang, tuple(counts.texts), tuple(lines))


def guess_language(words: "Counter[str]") -> Tuple[str, str]:
    """Guess a language by its script and, where several languages share it, by their most frequent words.

    words (Counter[str]): The words of texts; a Chinese "word" is as long as its sentence.
    RETURNS (Tuple[str, str]): spaCy's code, and the reason for it.
    """
    scripts: "Counter[str]" = Counter()
    for word, count in words.items():
        # In scripts without spaces, each character counts as a word
        has_no_spaces = _script(word[0]) in ("CJK", "HIRAGANA")
        for char in word if has_no_spaces else word[0]:
            scripts[_script(char)] += count
    if not scripts:
        return MANY_LANGUAGES, "no letters found"
    if scripts["HIRAGANA"] > KANA_SHARE * scripts["CJK"]:
        scripts["HIRAGANA"] += scripts.pop("CJK", 0)
    script = scripts.most_common(1)[0][0]
    langs = SCRIPTS.get(script, (MANY_LANGUAGES,))
    name = {"CJK": "Chinese", "HIRAGANA": "Japanese"}.get(script, script.capitalize())
    if len(langs) == 1:
        return langs[0], f"{name} script"
    shares = {lang: _stop_share(lang, words) for lang in langs}
    best = max(shares, key=lambda lang: shares[lang])
    if not shares[best]:
        return langs[0], f"{name} script; no word tells which language"
    return best, f"{name} script, and {shares[best]:.0%} of the words are frequent ones of this language"


def _stop_share(lang: str, words: "Counter[str]") -> float:
    stop_words = import_module(f"spacy.lang.{lang}.stop_words").STOP_WORDS
    return sum(count for word, count in words.items() if word.lower() in stop_words) / words.total()


@lru_cache(maxsize=10_000)
def _script(char: str) -> str:
    name = unicodedata.name(char, "").split(" ")[0].split("-")[0]
    return "HIRAGANA" if name == "KATAKANA" else name


def _show_labels(labels: "Counter[str]") -> str:
    shown = [f"{label} ({count})" for label, count in labels.most_common(MAX_SHOWN)]
    more = f" and {len(labels) - MAX_SHOWN} more" if len(labels) > MAX_SHOWN else ""
    return f"{len(labels)} label{'s' if len(labels) > 1 else ''}: {', '.join(shown)}{more}"
