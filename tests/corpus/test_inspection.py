"""What `.spacy` files hold: counts, texts that occur twice, the page."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import spacy
from spacy.tokens import DocBin, Span

from spacy_bert_heads.corpus.inspection import inspect_corpora
from spacy_bert_heads.errors import BertHeadsError

from .helpers import make_span, run, write_jsonl

NLP = spacy.blank("en")


def make_doc(text: str, label: str = "ORG", **cats: float):
    doc = NLP.make_doc(text)
    doc.set_ents([Span(doc, 0, 1, label)], default="outside")
    doc.cats = cats
    return doc


def write(path: Path, *docs) -> Path:
    DocBin(docs=docs, store_user_data=True).to_disk(path)
    return path


def test_counts_are_those_of_the_conversion(tmp_path: Path):
    records = [{"text": f"Apple {'x ' * i}{i}", "spans": [make_span(0, 5)], "label": f"L{i % 3}"} for i in range(50)]
    report = run(write_jsonl(tmp_path / "in.jsonl", *records), tmp_path / "out")
    inspection = inspect_corpora([tmp_path / "out"])
    assert list(inspection.counts) == ["train", "dev", "test"]
    for name, counts in inspection.counts.items():
        assert counts == report.splits[name]
    assert inspection.to_dict()["corpora"]["dev"]["docs"] == report.splits["dev"].docs


def test_texts_that_occur_again_are_found(tmp_path: Path):
    train = write(tmp_path / "train.spacy", make_doc("Apple fell"), make_doc("apple  FELL"), make_doc("Pear fell"))
    test = write(tmp_path / "test.spacy", make_doc("Pear fell", label="OTHER"), make_doc("Apple fell"))
    findings = inspect_corpora([test, train]).findings
    assert findings.counts == {"repeated_text": 1, "shared_text": 2, "differing_text": 1}
    assert findings.cases["differing_text"][0].where[:2] == (test, 1)


class Checker(HTMLParser):
    """Collects tags, to see that the text brought none of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.tags = set()
        self.links = []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]


def test_page_is_whole_and_escapes_everything(tmp_path: Path):
    evil = "<script>alert(1)</script>"
    docs = [make_doc(f"{evil} & text {i}", label=f"<img{i % 2}>", **{evil: 1.0, '"><b>': 0.25}) for i in range(5)]
    docs[0].spans["incorrect_spans"] = [Span(docs[0], 0, 2, "<iframe>")]
    path = write(tmp_path / "a.spacy", *docs)
    inspect_corpora([path], html=tmp_path / "new" / "page.html", report_path=tmp_path / "report.json")
    page = (tmp_path / "new" / "page.html").read_text(encoding="utf8")
    checker = Checker()
    checker.feed(page)
    assert not checker.tags & {"script", "img", "img0", "img1", "iframe", "link"}
    assert not checker.links and "http" not in re.sub("xmlns", "", page)
    assert "alert(1)" in page and "&lt;script&gt;" in page and "&lt;iframe&gt;" in page
    assert (tmp_path / "report.json").is_file()


def test_examples_show_every_label(tmp_path: Path):
    docs = [make_doc(f"Apple {i}", label="RARE" if i == 77 else "ORG", POS=float(i % 2)) for i in range(100)]
    (examples,) = inspect_corpora([write(tmp_path / "a.spacy", *docs)]).examples.values()
    assert set().union(*(shown.labels for shown in examples)) == {"RARE", "ORG", "POS"}
    assert len(examples) <= 13
    assert [shown.number for shown in examples] == sorted(shown.number for shown in examples)


def test_what_is_no_corpus_is_refused(tmp_path: Path):
    good = write(tmp_path / "good.spacy", make_doc("Apple"))
    bad = tmp_path / "bad.spacy"
    bad.write_bytes(b"no")
    (tmp_path / "folder").mkdir()
    cases = [
        ("H101", [tmp_path / "none.spacy"]),
        ("H101", [tmp_path / "folder"]),
        ("H161", [good, good]),
        ("H310", [write(tmp_path / "empty.spacy")]),
        ("H315", [bad]),
    ]
    for code, paths in cases:
        with pytest.raises(BertHeadsError) as info:
            inspect_corpora(paths, html=tmp_path / "page.html")
        assert info.value.code == code
        assert not (tmp_path / "page.html").exists()


def test_spans_that_overlap_are_counted_and_drawn(tmp_path: Path):
    doc = NLP.make_doc("Anna <script> of New York & Co")
    doc.spans["sc"] = [Span(doc, 0, 7, "A<i>"), Span(doc, 3, 5, "CITY"), Span(doc, 3, 5, "NAME")]
    other = NLP.make_doc("x " * 500)
    other.spans["sc"] = [Span(other, 0, 2, "CITY"), Span(other, 490, 495, "CITY")]
    path = write(tmp_path / "train.spacy", doc, other)
    inspection = inspect_corpora([path], spans_key="sc", html=tmp_path / "page.html")
    assert inspection.to_dict()["corpora"]["train"]["spans"] == {"A<i>": 1, "CITY": 3, "NAME": 1}
    assert "with spans that may overlap" in inspection.to_text()
    page = (tmp_path / "page.html").read_text("utf8")
    checker = Checker()
    checker.feed(page)
    assert not checker.tags & {"script", "i"}
    # In the table of labels, and below its words
    assert len(re.findall(r">\s*CITY\b", page)) >= 2 and "A&lt;i&gt;" in page
    assert inspect_corpora([path]).to_dict()["corpora"]["train"]["spans"] == {}
