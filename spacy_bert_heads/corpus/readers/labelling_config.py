"""The labelling interface of a Label Studio project: which questions it asks, read from XML and written as such."""

import colorsys
import re
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Tuple, cast
from xml.etree import ElementTree

from ...errors import BertHeadsError
from ..writers.label_studio import CHOICES_NAME, LABELS_NAME, TEXT_NAME

TEXT_TAGS = ("Text", "HyperText")
SPAN_TAGS, CHOICE_TAG, ANSWER_TAGS = ("Labels", "HyperTextLabels"), "Choices", ("Label", "Choice")
QUESTION_TAGS = (*SPAN_TAGS, CHOICE_TAG)
# An interface comes with a request or a file; what is larger than these was not made for people.
MAX_CHARACTERS = 2_000_000
MAX_DEPTH = 100
MAX_LABELS = 10_000
CHUNK = 1 << 16
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# A colour of its own for each label: hues a golden section apart are far from all before them.
GOLDEN_SECTION = 0.618034


class Question(NamedTuple):
    """What annotators are asked about a text.

    type (str): As in results: "labels" for spans, "choices" for the text as a whole.
    name (str): What results call the question (`from_name`).
    to_name (str): What they call the text (`to_name`).
    labels (Tuple[str, ...]): The answers.
    exclusive (bool): Whether exactly one of them can be chosen. False of spans.
    """

    type: str
    name: str
    to_name: str
    labels: Tuple[str, ...]
    exclusive: bool = False


class LabellingConfig(NamedTuple):
    """A labelling interface, as far as texts are concerned.

    questions (Tuple[Question, ...]): What is asked, in the order of the page.
    text_name (str): Name of the first text.
    text_key (str): Under which key of a task's `data` it is.
    """

    questions: Tuple[Question, ...]
    text_name: str = TEXT_NAME
    text_key: str = "text"

    @classmethod
    def from_labels(cls, ents: Sequence[str], cats: Sequence[str], exclusive: bool) -> "LabellingConfig":
        """Make an interface with the names that an exported file has.

        ents (Sequence[str]): Labels of entities; none: they are not asked for.
        cats (Sequence[str]): Labels of texts; none: they are not asked for.
        exclusive (bool): Whether exactly one of `cats` holds.
        """
        questions = []
        if ents:
            questions.append(Question("labels", LABELS_NAME, TEXT_NAME, tuple(ents)))
        if cats:
            questions.append(Question("choices", CHOICES_NAME, TEXT_NAME, tuple(cats), exclusive))
        return cls(tuple(questions))

    @classmethod
    def from_xml(cls, xml: str) -> "LabellingConfig":
        """Read an interface, of whatever names and layout.

        xml (str): `label_config` of a project.
        RAISES (BertHeadsError): H540 if it is no XML, has no text, or is larger than any that people work with.
        """
        root = _parse(xml)
        text = next((tag for tag in root.iter() if tag.tag in TEXT_TAGS), None)
        if text is None:
            raise BertHeadsError("H540", found="no tag <Text>")
        return cls(tuple(_questions(root)), text.get("name", ""), text.get("value", "").lstrip("$"))

    def asked(self) -> List[Question]:
        """RETURNS (List[Question]): Those a pipeline answers: the first of each type about the text."""
        first: Dict[str, Question] = {}
        for question in self.questions:
            if question.to_name == self.text_name:
                first.setdefault(question.type, question)
        return list(first.values())

    def to_xml(self, *, words: bool) -> str:
        """Write the interface: entities above the text, categories below it.

        words (bool): Whether marked spans snap to the words that a browser sees, between spaces.
        RETURNS (str): XML for a project's `label_config`.
        RAISES (BertHeadsError): H551 for a label with characters that XML cannot hold, not even escaped.
        """
        for label in (label for question in self.questions for label in question.labels):
            if NOT_XML.search(label):
                raise BertHeadsError("H551", expected="labels of characters that XML can hold", found=repr(label))
        view = ElementTree.Element("View")
        text = ElementTree.Element("Text", name=self.text_name, value=f"${self.text_key}")
        text.set("granularity", "word" if words else "symbol")
        for question in self.questions:
            if question.type == "labels":
                tag = ElementTree.SubElement(view, "Labels", name=question.name, toName=question.to_name)
                for number, label in enumerate(question.labels):
                    ElementTree.SubElement(tag, "Label", value=label, background=_colour(number))
        view.append(text)
        for question in self.questions:
            if question.type == "choices":
                tag = ElementTree.SubElement(view, "Choices", name=question.name, toName=question.to_name)
                tag.set("choice", "single" if question.exclusive else "multiple")
                tag.set("showInline", "true")
                for label in question.labels:
                    ElementTree.SubElement(tag, "Choice", value=label)
        ElementTree.indent(view)
        return ElementTree.tostring(view, encoding="unicode")


def _parse(xml: str) -> ElementTree.Element:
    """Parse XML in time linear in its length, which ends where a limit is passed.

    RAISES (BertHeadsError): H540 for XML that is broken or too large, and for questions within questions, whose labels
        would count for each of them.
    """
    if len(xml) > MAX_CHARACTERS:
        raise BertHeadsError("H540", found=f"{len(xml):,} characters, more than {MAX_CHARACTERS:,}")
    if "<!DOCTYPE" in xml:
        raise BertHeadsError("H540", found="a <!DOCTYPE>, whose entities could be of any size")
    parser: Any = ElementTree.XMLPullParser(("start", "end"))
    depth, n_labels, asking = 0, 0, ""
    root: Any = None
    try:
        for start in range(0, len(xml), CHUNK):
            parser.feed(xml[start : start + CHUNK])
            for event, tag in parser.read_events():
                root = tag if root is None else root
                is_question = tag.tag in QUESTION_TAGS
                if event == "end":
                    depth -= 1
                    asking = "" if is_question else asking
                    continue
                depth += 1
                n_labels += tag.tag in ANSWER_TAGS
                if depth > MAX_DEPTH:
                    raise BertHeadsError("H540", found=f"tags within each other more than {MAX_DEPTH} deep")
                if n_labels > MAX_LABELS:
                    raise BertHeadsError("H540", found=f"more than {MAX_LABELS:,} labels")
                if is_question and asking:
                    raise BertHeadsError("H540", found=f"<{tag.tag}> within <{asking}>")
                asking = tag.tag if is_question else asking
        parser.close()
    except ElementTree.ParseError as error:
        raise BertHeadsError("H540", found=error) from error
    except UnicodeError as error:
        raise BertHeadsError("H540", found=f"text that cannot be encoded ({error})") from error
    return cast(ElementTree.Element, root)


def _questions(root: ElementTree.Element) -> Iterator[Question]:
    for tag in root.iter():
        name, to_name = tag.get("name", ""), tag.get("toName", "")
        if tag.tag in SPAN_TAGS:
            yield Question("labels", name, to_name, _values(tag, "Label"))
        elif tag.tag == CHOICE_TAG and tag.get("perRegion") != "true":
            yield Question("choices", name, to_name, _values(tag, "Choice"), tag.get("choice", "single") == "single")


def _values(tag: ElementTree.Element, name: str) -> Tuple[str, ...]:
    """What results call the answers: by their alias where they have one."""
    return tuple(child.get("alias") or child.get("value") or "" for child in tag.iter(name))


def _colour(number: int) -> str:
    red, green, blue = colorsys.hls_to_rgb(number * GOLDEN_SECTION % 1, 0.6, 0.65)
    return "#{:02x}{:02x}{:02x}".format(*(round(255 * part) for part in (red, green, blue)))
