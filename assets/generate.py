"""Write the sample data: English and Chinese customer-support messages as Prodigy JSONL.

`python assets/generate.py` rewrites `generated.jsonl` (from `patterns.txt` and `fillers.txt`) and
`handwritten.jsonl` (from `handwritten.txt`) in `en/` and `zh/`, byte for byte the same for the same seed.
Entities are known by construction: a filled-in word carries its label, and offsets are counted at the end.
"""

import argparse
import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Optional

from murmurhash import mrmr

LANGUAGES = ("en", "zh")
INTENTS = (
    "TRACK_ORDER",
    "CANCEL_ORDER",
    "RETURN_REFUND",
    "CHANGE_ADDRESS",
    "PRODUCT_QUESTION",
    "DAMAGED_ITEM",
    "PAYMENT_PROBLEM",
    "ACCOUNT_ACCESS",
)
ENTITIES = ("PRODUCT", "ORDER_ID", "DATE", "MONEY", "PLACE", "PERSON")
PER_INTENT = {"en": 300, "zh": 400}  # one or two texts from each pattern
SEED = 20
HERE = Path(__file__).resolve().parent

# Chances of the optional parts of a message and of each kind of carelessness, between 0 and 1.
CHANCES = {
    "greeting": 0.35,
    "aside_before": 0.12,
    "more": 0.55,
    "more_again": 0.25,
    "aside_after": 0.15,
    "closing": 0.28,
    "signature": 0.12,
    "emoji": 0.06,
    "no_final_mark": 0.3,
    "strong_final_mark": 0.06,
    "typo": 0.14,
}

LETTERS = "ABCDEFGHJKLMNPRSTVWXY"
OPENING_MARKS = ".!?。！？"
CLOSING_MARKS = OPENING_MARKS + ",:;，：；…"
# What a message should not tell twice with other values.
TOPICS = [re.compile(p) for p in (r"\{(ORDER_ID|onum)", r"\{MONEY", r"\{(past|DATE)", r"\{PLACE", r"\{relative")]
MARKUP = re.compile(r"\[([^\]]+)\]\(([A-Z_]+)\)")
WITHIN = re.compile("[A-Za-z0-9]{2}")
EN_SHORT_FORMS = {
    "please": "pls",
    "Please": "Pls",
    "you": "u",
    "your": "ur",
    "Thanks": "Thx",
    "because": "cuz",
    "address": "adress",
    "received": "recieved",
    "and": "&",
    "password": "pw",
    "with": "w",
    "number": "nr",
    "until": "till",
    "really": "rly",
    "tomorrow": "tmrw",
}
ZH_SLIPS = {
    "账": "帐",
    "到哪里": "到那里",
    "登录": "登陆",
    "的时候": "得时候",
    "现在": "现再",
    "已经": "以经",
    "怎么": "咋",
    "什么": "啥",
    "没有": "没",
    "您": "你",
    "再": "在",
    "吗？": "嘛？",
    "不要": "不耀",
    "订单": "定单",
    "应该": "因该",
    "退货": "退或",
    "发货": "发火",
    "快递": "快第",
    "付款": "付宽",
    "地址": "地止",
    "是不是": "是不四",
}


class Segment(NamedTuple):
    """A stretch of text, with a label if it is an entity."""

    text: str
    label: Optional[str] = None


class Span(NamedTuple):
    """An entity in a text: code points, end exclusive."""

    start: int
    end: int
    label: str


@dataclass(frozen=True)
class Message:
    """A text with its intent and entities, before it becomes a Prodigy record."""

    intent: str
    text: str
    spans: list[Span] = field(default_factory=list)


class Dice:
    """Random choices that use `random.random()` alone, whose sequence Python keeps between versions."""

    def __init__(self, seed: str) -> None:
        """Start a sequence of its own for this seed."""
        self._random = random.Random(seed).random

    def below(self, n: int) -> int:
        """A whole number from 0 to n - 1."""
        return int(self._random() * n)

    def pick(self, items: Any) -> Any:
        """One of the items."""
        return items[self.below(len(items))]

    def chance(self, probability: float) -> bool:
        """True as often as the probability says."""
        return self._random() < probability

    def shuffled(self, items: list[Any]) -> list[Any]:
        """The items in another order (Fisher and Yates)."""
        items = list(items)
        for i in range(len(items) - 1, 0, -1):
            j = self.below(i + 1)
            items[i], items[j] = items[j], items[i]
        return items


# --- patterns -------------------------------------------------------------------------------------------

Lists = dict[str, list[str]]


def read_lists(path: Path) -> Lists:
    """Read a file of `[NAME]` headings with one entry a line; `# ` starts a comment."""
    lists: Lists = {}
    for line in path.read_text(encoding="utf8").splitlines():
        if line.startswith("[") and line.endswith("]"):
            entries = lists.setdefault(line[1:-1], [])
        elif line.strip() and not line.startswith("# "):
            entries.append(line)
    return lists


@cache
def parse(pattern: str) -> list[Any]:
    """Parse a pattern into strings, `("ref", name)` and `("choice", [pattern, ...])`."""
    nodes: list[Any] = []
    i = 0
    while i < len(pattern):
        if pattern[i] == "{":
            end = pattern.index("}", i)
            nodes.append(("ref", pattern[i + 1 : end]))
            i = end + 1
        elif pattern[i] == "(":
            end, options = split_choice(pattern, i)
            nodes.append(("choice", options))
            i = end + 1
        else:
            end = next((k for k in range(i, len(pattern)) if pattern[k] in "{("), len(pattern))
            nodes.append(pattern[i:end].replace("\\n", "\n"))
            i = end
    return nodes


def split_choice(pattern: str, start: int) -> tuple[int, list[str]]:
    """Split the `(a|b)` that opens at `start`; a bar inside braces or inner brackets does not count.

    RETURNS (tuple): Position of the closing bracket and the alternatives.
    """
    depth, options = 0, [""]
    for i in range(start, len(pattern)):
        char = pattern[i]
        depth += (char in "({") - (char in ")}")
        if depth == 0:
            return i, options
        if char == "|" and depth == 1:
            options.append("")
        elif i > start:
            options[-1] += char
    raise ValueError(f"Bracket without end in pattern {pattern!r}.")


def expand(pattern: str, lists: Lists, dice: Dice) -> list[Segment]:
    """Make the random choices of a pattern; whatever an upper-case list yields becomes one entity."""
    segments: list[Segment] = []
    for node in parse(pattern):
        if isinstance(node, str):
            segments.append(Segment(node))
        elif node[0] == "choice":
            segments += expand(dice.pick(node[1]), lists, dice)
        else:
            segments += expand_reference(node[1], lists, dice)
    return segments


def expand_reference(name: str, lists: Lists, dice: Dice) -> list[Segment]:
    """Fill in what stands between braces: a list, a range, a mask, inline parts or an article."""
    label = name.split(".")[0]
    if name == "a":
        return [Segment("{a}")]
    if name.startswith("mask:"):
        return [Segment("".join(draw(char, dice) for char in name[5:]))]
    if name.startswith("part:"):
        return [Segment(dice.pick(name[5:].split("|")))]
    if re.fullmatch(r"\d+-\d+", name):
        low, high = name.split("-")
        number = int(low) + dice.below(int(high) - int(low) + 1)
        return [Segment(str(number).zfill(len(low)))]
    inner = expand(dice.pick(lists[name]), lists, dice)
    if label in ENTITIES:
        return [Segment("".join(segment.text for segment in inner), label)]
    return inner


def draw(char: str, dice: Dice) -> str:
    """A random letter for `A`, a random digit for `#`, anything else as it is."""
    return dice.pick(LETTERS) if char == "A" else str(dice.below(10)) if char == "#" else char


# --- messages -------------------------------------------------------------------------------------------


def compose(intent: str, pattern: str, lists: Lists, language: str, dice: Dice) -> list[Segment]:
    """A whole message around one pattern: greeting, further sentences, closing, signature, slips."""
    plan = choose_parts(intent, pattern, lists, dice)
    lines = dice.chance(0.15)
    result: list[Segment] = []
    for i, (kind, part) in enumerate(plan):
        segments = expand(part, lists, dice)
        result += with_capital(with_articles(segments)) if language == "en" else segments
        if i + 1 < len(plan):
            last = "".join(segment.text for segment in segments)[-1]
            result.append(Segment(link(kind, plan[i + 1][0], last, language, lines)))
    return careless(merge(result), language, dice, lists["emoji"])


def choose_parts(intent: str, pattern: str, lists: Lists, dice: Dice) -> list[tuple[str, str]]:
    """The patterns of a message in order, each with its kind: "greeting", "core", "aside", ..."""
    plan = [("core", pattern)]
    for kind, chance in (
        ("aside", "aside_before"),
        ("greeting", "greeting"),
        ("more", "more"),
        ("more", "more_again"),
        ("aside", "aside_after"),
        ("closing", "closing"),
        ("signature", "signature"),
    ):
        if not dice.chance(CHANCES[chance]) or (kind == "greeting" and "您好" in pattern):
            continue
        part = (kind, dice.pick(lists[f"{intent}.more" if kind == "more" else kind]))
        if kind not in ("more", "aside") or not repeats(part[1], [earlier for _, earlier in plan]):
            plan.insert(0 if chance in ("aside_before", "greeting") else len(plan), part)
    return plan


def repeats(part: str, earlier: list[str]) -> bool:
    """Whether a follow-up says again what an earlier part says, so that the two might contradict."""
    said = " ".join(earlier)
    return part in earlier or any(topic.search(part) and topic.search(said) for topic in TOPICS)


def link(kind: str, following: str, last: str, language: str, lines: bool) -> str:
    """What stands between two parts: a mark if the first has none, then a blank or a line break.

    last (str): The last character of the first part.
    lines (bool): Whether greeting, closing and signature stand on lines of their own.
    """
    broken = lines and (kind in ("greeting", "closing") or following in ("closing", "signature"))
    mark = ""
    if last not in CLOSING_MARKS and not (broken and kind == "closing"):
        mark = "," if kind == "closing" else "."
    space = "\n" if broken else " " if language == "en" else ""
    return (mark if language == "en" else mark and "，") + space


def with_articles(segments: list[Segment]) -> list[Segment]:
    """Write "a" or "an" for `{a}`, by the letter that follows."""
    result = []
    for i, segment in enumerate(segments):
        if segment.text == "{a}":
            rest = "".join(later.text for later in segments[i + 1 :]).lstrip()
            vowel = re.match(r"[aeio]|u(?!s|k|ni)", rest, re.IGNORECASE)
            segment = Segment("an" if vowel else "a")
        result.append(segment)
    return result


def with_capital(segments: list[Segment]) -> list[Segment]:
    """Start every sentence with a capital, unless it starts with an entity."""
    result, at_start = [], True
    for segment in segments:
        text = segment.text
        if segment.label is None:
            text = re.sub(r"([.!?] )([a-z])", lambda m: m[1] + m[2].upper(), text)
            if at_start and text.strip():
                text = text[0].upper() + text[1:]
        if text:
            at_start = segment.label is None and bool(re.search(r"[.!?] $", text))
        result.append(Segment(text, segment.label))
    return result


def merge(segments: list[Segment]) -> list[Segment]:
    """Glue neighbouring plain segments together and drop empty ones."""
    result: list[Segment] = []
    for segment in segments:
        if segment.label is None and result and result[-1].label is None:
            result[-1] = Segment(result[-1].text + segment.text)
        elif segment.text:
            result.append(segment)
    return result


# --- slips ----------------------------------------------------------------------------------------------


def careless(segments: list[Segment], language: str, dice: Dice, emoji: list[str]) -> list[Segment]:
    """Write as people type: case, typing mistakes, short forms, missing or doubled marks, emoji."""
    segments = (careless_en if language == "en" else careless_zh)(segments, dice)
    if dice.chance(CHANCES["no_final_mark"]):
        segments = edit_end(segments, lambda text: text.rstrip(".。!！?？"))
    elif dice.chance(CHANCES["strong_final_mark"]):
        segments = edit_end(segments, lambda text: text + text[-1] * 2 if text[-1] in "!?！？" else text)
    if dice.chance(CHANCES["emoji"]):
        segments = [*segments, Segment((" " if language == "en" else "") + dice.pick(emoji))]
    return tidy(merge(segments))


def tidy(segments: list[Segment]) -> list[Segment]:
    """One blank where there are several, and none before a line break or at the end."""
    segments = edit_plain(segments, lambda text: re.sub(r" *\n *", "\n", re.sub(" +", " ", text)))
    if not segments[-1].label:
        segments[-1] = Segment(segments[-1].text.rstrip())
    return [segment for segment in segments if segment.text]


def careless_en(segments: list[Segment], dice: Dice) -> list[Segment]:
    """English slips: all lower or upper case, short forms, no apostrophes, mistyped words."""
    style = dice.below(100)
    if style < 24:
        segments = [Segment(lower(text), label) for text, label in segments]
    elif style < 26:
        segments = [Segment(text.upper(), label) for text, label in segments]
    if dice.chance(0.12):
        segments = edit_plain(segments, lambda text: re.sub(r"[A-Za-z]+", short_form, text))
    if dice.chance(0.1):
        segments = edit_plain(segments, lambda text: re.sub(r"(?<=[A-Za-z])'(?=[a-z])", "", text))
    if dice.chance(CHANCES["typo"]):
        segments = edit_one(segments, r"(?<![A-Za-z'])[A-Za-z]{4,}(?![A-Za-z'])", mistype, dice)
    return segments


def careless_zh(segments: list[Segment], dice: Dice) -> list[Segment]:
    """Chinese slips: wrong or colloquial characters, blanks or ASCII marks for full-width ones."""
    if dice.chance(CHANCES["typo"]):
        slip = "|".join(map(re.escape, ZH_SLIPS))
        segments = edit_one(segments, slip, lambda word, _: ZH_SLIPS[word], dice)
    style = dice.below(100)
    if style < 8:
        segments = edit_plain(segments, lambda text: re.sub("[，。]", " ", text))
    elif style < 14:
        table = str.maketrans("，。？！", ",.?!")
        segments = edit_plain(segments, lambda text: text.translate(table))
    elif style < 22:
        segments = edit_plain(segments, lambda text: text.replace("？", " "))
    return segments


def lower(text: str) -> str:
    """Lower case, letter by letter, so that no letter becomes two."""
    return "".join(char.lower() if len(char.lower()) == 1 else char for char in text)


def short_form(match: re.Match[str]) -> str:
    """The way people write this word in a chat."""
    return EN_SHORT_FORMS.get(match[0], match[0])


def mistype(word: str, dice: Dice) -> str:
    """Drop, double or swap a letter inside a word."""
    i, kind = 1 + dice.below(len(word) - 2), dice.below(3)
    if kind == 0:
        return word[:i] + word[i + 1 :]
    if kind == 1:
        return word[: i + 1] + word[i:]
    return word[:i] + word[i + 1] + word[i] + word[i + 2 :]


def edit_plain(segments: list[Segment], change: Callable[[str], str]) -> list[Segment]:
    """Change the text outside entities."""
    return [s if s.label else Segment(change(s.text)) for s in segments]


def edit_one(segments: list[Segment], pattern: str, change: Callable[[str, Dice], str], dice: Dice) -> list[Segment]:
    """Change one random match of a regular expression outside entities, if there is any."""
    found = [(i, m) for i, s in enumerate(segments) if not s.label for m in re.finditer(pattern, s.text)]
    if not found:
        return segments
    at, match = dice.pick(found)
    text = segments[at].text
    text = text[: match.start()] + change(match[0], dice) + text[match.end() :]
    return [Segment(text) if i == at else segment for i, segment in enumerate(segments)]


def edit_end(segments: list[Segment], change: Callable[[str], str]) -> list[Segment]:
    """Change the last segment, unless it is an entity or blank."""
    if segments[-1].label or not segments[-1].text.strip():
        return segments
    return [*segments[:-1], Segment(change(segments[-1].text))]


# --- data sets ------------------------------------------------------------------------------------------


def generate(lists: Lists, language: str, seed: int, taken: set[str]) -> Iterator[Message]:
    """Different messages, intents in turn, each pattern of an intent about equally often.

    taken (set[str]): Normalised texts that must not come up, such as the handwritten ones. Grows.
    """
    dice = {intent: Dice(f"{seed} {language} {intent}") for intent in INTENTS}
    decks: dict[str, list[str]] = {intent: [] for intent in INTENTS}
    for _ in range(PER_INTENT[language]):
        for intent in INTENTS:
            message = None
            while message is None or normalise(message.text) in taken or is_unfit(message):
                decks[intent] = decks[intent] or dice[intent].shuffled(lists[intent])
                pattern = decks[intent].pop()
                message = assemble(intent, compose(intent, pattern, lists, language, dice[intent]))
            taken.add(normalise(message.text))
            yield message


def is_unfit(message: Message) -> bool:
    """Whether two entities have the same words, as in "from Leeds to Leeds", or one ends within a word or number."""
    values = [message.text[span.start : span.end] for span in message.spans]
    borders = {border for span in message.spans for border in (span.start, span.end)}
    return len(set(values)) < len(values) or any(
        WITHIN.search(message.text[max(0, at - 1) : at + 1]) for at in borders
    )


def assemble(intent: str, segments: list[Segment]) -> Message:
    """Put the segments together and count the offsets of the entities."""
    text, spans = "", []
    for segment in segments:
        if segment.label:
            spans.append(Span(len(text), len(text) + len(segment.text), segment.label))
        text += segment.text
    return Message(intent, text, spans)


def read_handwritten(path: Path) -> Iterator[Message]:
    """Read `INTENT<TAB>text with [words](LABEL)`; `\\n` stands for a line break."""
    for number, line in enumerate(path.read_text(encoding="utf8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        intent, tab, text = line.partition("\t")
        if not tab or intent not in INTENTS:
            raise ValueError(f"{path.name}, line {number}: expected an intent and a tab, found {line[:40]!r}.")
        pieces = MARKUP.split(text.replace("\\n", "\n"))
        segments = [Segment(pieces[0])]
        for words, label, after in zip(pieces[1::3], pieces[2::3], pieces[3::3]):
            if label not in ENTITIES:
                raise ValueError(f"{path.name}, line {number}: unknown label {label!r}.")
            segments += [Segment(words, label), Segment(after)]
        yield assemble(intent, segments)


def normalise(text: str) -> str:
    """The form in which two texts count as the same: lower case, no white space."""
    return "".join(text.lower().split())


# --- Prodigy records ------------------------------------------------------------------------------------


def make_record(message: Message, source: str, nlp: Any = None) -> dict[str, Any]:
    """A Prodigy record of a blocks view: spans and a single choice on the same text.

    nlp (Language): Tokenizer for `tokens`, `token_start` and `token_end`; None leaves them out.
    """
    record: dict[str, Any] = {"text": message.text}
    spans = [span._asdict() for span in message.spans]
    if nlp is not None:
        doc = nlp(message.text)
        record["tokens"] = [
            {"text": t.text, "start": t.idx, "end": t.idx + len(t), "id": t.i, "ws": bool(t.whitespace_)} for t in doc
        ]
        for span in spans:
            tokens = doc.char_span(span["start"], span["end"])
            if tokens is None:
                raise ValueError(f"Entity {span} is not on token borders in {message.text!r}.")
            span.update(token_start=tokens.start, token_end=tokens.end - 1)
    meta = {"source": source}
    return {
        **record,
        "spans": spans,
        "options": [{"id": i, "text": i.replace("_", " ").capitalize()} for i in INTENTS],
        "accept": [message.intent],
        "config": {"choice_style": "single"},
        "answer": "accept",
        "_view_id": "blocks",
        **hashes({"text": message.text, "meta": meta}),
        "meta": meta,
    }


def hashes(task: dict[str, Any]) -> dict[str, int]:
    """Prodigy's hashes of a task as it is loaded, that is, of text and meta before anyone annotates."""
    input_hash = mrmr.hash("text=" + json.dumps(task["text"]))
    meta = {key: value for key, value in task["meta"].items() if key != "source"}  # Prodigy ignores "source"
    core = json.dumps(
        {"text": task["text"], "meta": meta, "_input_hash": input_hash},
        sort_keys=True,
        separators=(",", ":"),
    )
    return {"_input_hash": input_hash, "_task_hash": mrmr.hash(f"{input_hash}{core}")}


def write_jsonl(path: Path, records: list[dict[str, Any]]) -> None:
    """One record a line, UTF-8, Unix line ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n" for record in records]
    path.write_bytes("".join(lines).encode("utf8"))


def build(output: Path, seed: int = SEED) -> dict[str, int]:
    """Write the four files below `output`.

    RETURNS (dict[str, int]): Number of records by file.
    """
    import spacy

    counts = {}
    for language in LANGUAGES:
        source = HERE / language
        lists = {**read_lists(source / "fillers.txt"), **read_lists(source / "patterns.txt")}
        handwritten = list(read_handwritten(source / "handwritten.txt"))
        generated = list(generate(lists, language, seed, {normalise(m.text) for m in handwritten}))
        nlp = spacy.blank("en") if language == "en" else None
        sets = {
            "handwritten": [make_record(message, "handwritten", nlp) for message in handwritten],
            "generated": [make_record(message, "generated") for message in generated],
        }
        for name, records in sets.items():
            write_jsonl(output / language / f"{name}.jsonl", records)
            counts[f"{language}/{name}.jsonl"] = len(records)
    return counts


def main() -> None:
    """Command line: where to write, and the seed."""
    parser = argparse.ArgumentParser(description="Write the sample data.")
    parser.add_argument("--output", type=Path, default=HERE, help="folder for en/ and zh/ (default: beside this)")
    parser.add_argument("--seed", type=int, default=SEED, help="seed of the generated texts")
    arguments = parser.parse_args()
    for name, count in build(arguments.output, arguments.seed).items():
        print(f"{name}: {count} records")


if __name__ == "__main__":
    main()
