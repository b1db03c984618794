"""Words with tags in JSON, fastText's lines, and the training JSON of spaCy 2 and NER Annotator."""

import json
from pathlib import Path

import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities
from spacy.tokens import Doc, Span
from spacy.training import docs_to_json

from spacy_bert_heads.errors import BertHeadsError

from .helpers import write_jsonl
from .reading import chosen, covered, read, words, write

NLP = spacy.blank("en")
NLP.add_pipe("sentencizer")
TAGS = ["O", "B-PER", "I-PER", "B-LOC"]


@given(st.lists(st.lists(st.sampled_from(TAGS), min_size=1, max_size=6), min_size=1, max_size=4), st.booleans())
@settings(deadline=None, max_examples=40)
def test_tags_are_read_as_seqeval_reads_them(tmp_path_factory, sentences, are_numbers: bool):
    folder = tmp_path_factory.mktemp("tokens")
    sentences.append(["B-PER", "O"])
    rows = [
        {
            "tokens": [f"w{i}" for i in range(len(tags))],
            "ner_tags": [TAGS.index(tag) for tag in tags] if are_numbers else tags,
        }
        for tags in sentences
    ]
    options = {"labels": write(folder / "labels.txt", "\n".join(TAGS))} if are_numbers else {}
    for path in (write_jsonl(folder / "a.jsonl", *rows), write(folder / "a.json", json.dumps(rows, indent=1))):
        annotations, _ = read(path, scheme="bio", **options)
        for annotation, tags, row in zip(annotations, sentences, rows, strict=True):
            expected = [(" ".join(row["tokens"][a : b + 1]), label) for label, a, b in get_entities(tags)]
            assert (words(annotation), covered(annotation)) == (row["tokens"], expected)


def test_keys_can_be_chosen_and_numbers_need_names(tmp_path: Path):
    record = {"words": ["a", "b"], "pos": ["X", "Y"], "labels": ["O", "O"], "fine": ["B-Z", "O"]}
    path = write_jsonl(tmp_path / "a.jsonl", record)
    assert covered(read(path, label_column="fine")[0][0]) == [("a", "Z")]
    path = write_jsonl(tmp_path / "b.jsonl", {"tokens": ["a", "b"], "tags": [3, 0]})
    with pytest.raises(BertHeadsError, match="--labels") as info:
        read(path)
    assert info.value.code == "H156"


NAMES = st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True)


@given(st.lists(st.tuples(NAMES, st.sampled_from(["x y", "z"])), min_size=1))
@settings(deadline=None, max_examples=40)
def test_fasttext_lines_come_back(tmp_path_factory, rows):
    lines = "".join("".join(f"__label__{name} " for name in names) + text + "\n" for names, text in rows)
    path = write(tmp_path_factory.mktemp("fasttext") / "a.txt", lines)
    annotations, findings = read(path)
    assert [(sorted(chosen(a)), a.text) for a in annotations] == [(sorted(names), text) for names, text in rows]
    assert all(a.exclusive == all(len(names) == 1 for names, _ in rows) for a in annotations)
    assert {label for a in annotations for label in a.cats} == {name for names, _ in rows for name in names}
    assert not findings.counts


def test_fasttext_lines_without_label_or_text(tmp_path: Path):
    path = write(tmp_path / "a.txt", "__label__a,b\tx\nno label\n__label__c\n__label__c y\n")
    annotations, findings = read(path, "fasttext", skip_bad=True)
    assert [(chosen(a), a.text) for a in annotations] == [(["a,b"], "x"), (["c"], "y")]
    assert findings.counts == {"no_label": 1, "H107": 1}


@given(st.lists(st.sampled_from(TAGS), min_size=1, max_size=6))
@settings(deadline=None, max_examples=40)
def test_marks_of_opennlp_are_read_as_seqeval_reads_tags(tmp_path_factory, tags):
    ents = {start: (label, end) for label, start, end in get_entities(tags)}
    parts = []
    for index in range(len(tags)):
        parts += [f"<START:{ents[index][0]}>"] if index in ents else []
        parts.append(f"w{index}")
        parts += ["<END>"] if any(end == index for _, end in ents.values()) else []
    path = write(tmp_path_factory.mktemp("opennlp") / "a.txt", " ".join(parts) + "\n")
    (annotation,), findings = read(path, "opennlp")
    assert words(annotation) == [f"w{index}" for index in range(len(tags))]
    expected = [(" ".join(f"w{i}" for i in range(start, end + 1)), label) for start, (label, end) in ents.items()]
    assert covered(annotation) == expected and not findings.counts


@pytest.mark.parametrize("bad", ["<START:X> a", "a <END>", "<START:X> <END> a", "<START:X> a <START:Y> b <END> <END>"])
def test_marks_that_do_not_fit_are_bad_lines(tmp_path: Path, bad: str):
    path = write(tmp_path / "a.txt", f"<START> a <END>\n{bad}\nb <START:X> c <END>\n")
    with pytest.raises(BertHeadsError) as info:
        read(path)
    assert (info.value.code, info.value.line) == ("H136", 2)
    annotations, findings = read(path, skip_bad=True)
    assert [covered(a) for a in annotations] == [[("a", "ENTITY")], [("c", "X")]]
    assert findings.counts == {"H136": 1, "unnamed_label": 1}


def make_doc(text: str, *ents, cats=None) -> Doc:
    doc = NLP(text)
    doc.set_ents([Span(doc, start, end, label) for start, end, label in ents])
    doc.cats = cats or {}
    return doc


def test_what_spacy_writes_for_spacy_2_comes_back(tmp_path: Path):
    docs = [
        make_doc("Anna Lee  lives in Oslo.", (0, 2, "PER"), (5, 6, "LOC"), cats={"A": 1.0, "B": 0.0}),
        make_doc("Nothing here", cats={"A": 0.0, "B": 1.0}),
    ]
    for sentence in (docs, docs[:1]):
        path = write(tmp_path / "a.json", json.dumps([docs_to_json(doc, n) for n, doc in enumerate(sentence)]))
        annotations, findings = read(path)
        for annotation, doc in zip(annotations, sentence, strict=True):
            assert (annotation.text, annotation.cats, annotation.complete) == (doc.text, doc.cats, True)
            assert covered(annotation) == [(ent.text, ent.label_) for ent in doc.ents]
            assert words(annotation) == [token.text for token in doc]
        assert not findings.counts


def test_spacy_2_tokens_without_tags_are_unknown_and_broken_paragraphs_skipped(tmp_path: Path):
    good = {"sentences": [{"tokens": [{"orth": "a", "ner": "U-X"}, {"orth": "b", "ner": "-"}, {"orth": "c"}]}]}
    bad = {"raw": "zz", "sentences": [{"tokens": [{"orth": "a", "ner": "O"}]}]}
    path = write(tmp_path / "a.json", json.dumps([{"id": 0, "paragraphs": [good, bad, {"sentences": 3}, good]}]))
    annotations, findings = read(path, skip_bad=True)
    assert [covered(annotation) for annotation in annotations] == [[("a", "X")]] * 2
    assert covered(annotations[0], "unknown") == [("b c", "")]
    assert findings.counts == {"H116": 1, "H136": 1} and findings.n_records[path] == 4


def test_ner_annotator_is_streamed_pair_by_pair(tmp_path: Path):
    pairs = [[f"Anna {n} lives", {"entities": [[0, 4, "PER"]]}] for n in range(5_000)]
    content = {"classes": ["PER"], "annotations": [None, *pairs]}
    for text in (json.dumps(content), json.dumps({"annotations": content["annotations"], "classes": []}, indent=1)):
        path = write(tmp_path / "a.json", text)
        annotations, findings = read(path)
        assert [annotation.text for annotation in annotations] == [text for text, _ in pairs]
        assert covered(annotations[-1]) == [("Anna", "PER")] and findings.counts == {"no_annotation": 1}
    path = write(tmp_path / "b.json", json.dumps(content)[:-10])
    with pytest.raises(BertHeadsError) as info:
        read(path)
    assert info.value.code == "H146"


@pytest.mark.parametrize(
    "values, settings, is_told",
    [([0, 1, 2], {}, True), ([0, 1, 1], {}, False), ([0, 2, 2.5], {}, False), ([0, 1, 2], {"kind": "score"}, False)],
)
def test_numbers_of_classes_in_categories_are_told(tmp_path: Path, values, settings, is_told: bool):
    rows = [{"text": f"text {n}", "cats": {"A": value, "B": 0}} for n, value in enumerate(values)]
    _, findings = read(write_jsonl(tmp_path / "a.jsonl", *rows), **settings)
    assert bool(findings.counts["numbered_cats"]) == is_told


@pytest.mark.parametrize("mark", ["|", ";"])
def test_labels_are_taken_apart_where_each_occurs_elsewhere(tmp_path: Path, mark: str):
    cells = [f"a{mark}b", "b", "a", f"c{mark} a", f"b{mark}c"]
    content = "text,label\n" + "".join(f"x{n},{cell}\n" for n, cell in enumerate(cells))
    annotations, findings = read(write(tmp_path / "a.csv", content))
    assert [sorted(chosen(a)) for a in annotations] == [["a", "b"], ["b"], ["a"], ["a", "c"], ["b", "c"]]
    assert findings.counts == {"labels_split": 3} and not annotations[0].exclusive
    content = f"text,label\nx,arts{mark}crafts\ny,b\n"
    annotations, findings = read(write(tmp_path / "b.csv", content))
    assert chosen(annotations[0]) == [f"arts{mark}crafts"] and findings.counts == {"separator_in_label": 1}
    assert sorted(chosen(read(tmp_path / "b.csv", label_separator=mark)[0][0])) == ["arts", "crafts"]


@pytest.mark.parametrize("cells, is_split", [(["a,b", "b", "a"], True), (["a, b", "b, c", "a", "c"], False)])
def test_commas_part_labels_where_each_occurs_alone(tmp_path: Path, cells, is_split: bool):
    content = "text\tlabel\n" + "".join(f"x{n}\t{cell}\n" for n, cell in enumerate(cells))
    annotations, findings = read(write(tmp_path / "a.tsv", content))
    assert sorted(chosen(annotations[0])) == (["a", "b"] if is_split else [cells[0]])
    n_joined = sum("," in cell for cell in cells)
    assert findings.counts == {"labels_split" if is_split else "separator_in_label": n_joined}
