"""CoNLL-style columns: schemes, separators, columns, and what is broken."""

from pathlib import Path

import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities
from spacy.training.iob_utils import biluo_tags_to_offsets, iob_to_biluo

from spacy_bert_heads.corpus.readers.tag_spans import find_scheme, join_words, read_tags
from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.tags import SCHEMES, TagScheme

from .reading import covered, read, words, write

LABELS = ("PER", "ORG")
NLP = spacy.blank("en")


@st.composite
def spans(draw):
    """Number of tokens, and entities that do not overlap and may touch."""
    cuts = draw(st.lists(st.integers(0, 12), unique=True, max_size=6).map(sorted))
    pairs = [(a, b, draw(st.sampled_from(LABELS))) for a, b in zip(cuts, cuts[1:]) if draw(st.booleans())]
    return (cuts[-1] if cuts else 1) + draw(st.integers(0, 2)), pairs


@given(spans(), st.sampled_from(sorted(SCHEMES)))
@settings(deadline=None)
def test_tags_of_every_scheme_come_back_as_the_same_entities(sentence, scheme: str):
    n_tokens, ents = sentence
    tags = TagScheme(scheme, LABELS)
    names = [tags.tags[number] for number in tags.tags_from_spans(n_tokens, ents)]
    found = read_tags(names, scheme)
    assert found.ents == ents
    assert not (found.unknown or found.broken or found.n_repaired)


@given(st.lists(st.sampled_from(["O", "B-PER", "I-PER", "B-ORG", "I-ORG"]), max_size=8))
@settings(deadline=None)
def test_any_bio_is_read_as_seqeval_and_spacy_read_it(tags):
    found = read_tags(tags, "bio")
    assert [(label, start, end - 1) for start, end, label in found.ents] == get_entities(tags)
    # spaCy takes an I- of another label for the inside of the entity before it, so compare where there is none.
    changes = any(b[0] == "I" and a != "O" and a[2:] != b[2:] for a, b in zip(tags, tags[1:]))
    if not changes:
        text, tokens = join_words(["x"] * len(tags), with_spaces=True)
        offsets = biluo_tags_to_offsets(NLP(text), iob_to_biluo(tags)) if tags else []
        assert [(tokens[start][0], tokens[end - 1][1], label) for start, end, label in found.ents] == offsets
    assert found.n_repaired == sum(tags[start][0] == "I" for start, _, _ in found.ents)


@given(st.lists(st.sampled_from(["O", "B-PER", "M-PER", "E-PER", "S-PER", "M-ORG", "E-ORG", "B-ORG"]), max_size=8))
@settings(deadline=None)
def test_of_broken_sequences_whole_entities_alone_are_known(tags):
    found = read_tags(tags, "bmes")
    taken = set()
    for start, end, label in found.ents:
        roles = [tag[0] for tag in tags[start:end]]
        assert roles == ["S"] or (roles[0] == "B" and roles[-1] == "E" and set(roles[1:-1]) <= {"M"})
        assert {tag[2:] for tag in tags[start:end]} == {label}
        taken.update(range(start, end))
    for start, end, _ in found.unknown:
        taken.update(range(start, end))
    # Nothing that has a tag is said to be outside.
    assert taken == {index for index, tag in enumerate(tags) if tag != "O"}


@pytest.mark.parametrize(
    "sentences, scheme",
    [
        (["B-A I-A O"], "bio"),
        (["B-A B-A"], "bio"),
        (["I-A I-A O I-B"], "iob1"),
        (["I-A B-A O"], "iob1"),
        (["B-A I-A", "O I-A"], "bio"),
        (["B-A I-A L-A U-B"], "biluo"),
        (["B-A I-A E-A S-B"], "bioes"),
        (["B-A M-A E-A S-B"], "bmes"),
        (["O O"], "bio"),
        (["U-A"], "biluo"),
        (["B-A M-A L-A"], "B L M"),
        (["NN O"], "NN"),
        (["B O"], "B"),
    ],
)
def test_scheme_is_recognised_from_all_tags(sentences, scheme: str):
    assert find_scheme(sentence.split() for sentence in sentences) == scheme


@pytest.mark.parametrize("gap", ["\n", "\t\n", " \r\n", "-DOCSTART- -X- O\n", "\n-DOCSTART-\tO\n\n"])
@pytest.mark.parametrize("part", ["\t", " "])
def test_sentences_end_at_blank_lines_and_at_docstart(tmp_path: Path, gap: str, part: str):
    lines = "Apple{0}B-ORG\nopened{0}O\n{1}In{0}O\nParis{0}B-LOC\n".format(part, gap)
    path = write(tmp_path / "a.txt", "-DOCSTART- -X- O\n" + lines)
    (one, other), findings = read(path)
    assert (one.text, covered(one), one.where.line) == ("Apple opened", [("Apple", "ORG")], 2)
    assert (other.text, covered(other)) == ("In Paris", [("Paris", "LOC")])
    assert findings.n_records[path] == 2 and not findings.counts
    assert one.complete and words(one) == ["Apple", "opened"]


def test_columns_are_counted_from_either_end(tmp_path: Path):
    path = write(tmp_path / "a.conll", "1 Apple NNP B-ORG x\n2 Inc NNP I-ORG x\n")
    (annotation,), _ = read(path, "conll", text_column="2", label_column="-2")
    assert covered(annotation) == [("Apple Inc", "ORG")]
    with pytest.raises(BertHeadsError) as info:
        read(path, "conll", label_column="5")
    assert (info.value.code, info.value.path) == ("H132", path)
    with pytest.raises(BertHeadsError, match="H145"):
        read(path, "conll", label_column="tags")


@pytest.mark.parametrize("bad", ["rejects VBZ", "rejects VBZ B-X O", "rejects"])
def test_line_of_other_columns_is_named_and_its_sentence_left_out(tmp_path: Path, bad: str):
    path = write(tmp_path / "a.conll", f"EU NNP B-ORG\n{bad}\nit PRP O\n\nPeter NNP B-PER\n")
    with pytest.raises(BertHeadsError) as info:
        read(path, "conll", scheme="bio")
    assert (info.value.code, info.value.line) == ("H130", 2)
    (annotation,), findings = read(path, "conll", skip_bad=True, scheme="bio")
    assert covered(annotation) == [("Peter", "PER")]
    assert findings.counts == {"H130": 1} and findings.n_records[path] == 2


def test_tokens_may_hold_any_white_space_but_ascii(tmp_path: Path):
    odd = ["a\u00a0b", "\ufe0f", "x\u200by", "z\ufeff", "\u3000", "q\u0085r", "s\u2028t"]
    path = write(tmp_path / "a.conll", "".join(f"{word} B-X\n" for word in odd))
    (annotation,), _ = read(path)
    assert words(annotation) == odd
    assert len(annotation.ents) == len(odd)


def test_entity_cut_by_a_sentence_break_is_one_case_and_unknown(tmp_path: Path):
    path = write(tmp_path / "a.bmes", "在 O\n北 B-LOC\n京 M-LOC\n\n市 M-LOC\n里 E-LOC\n的 O\n人 S-PER\n\n家 M-ORG\n")
    (first, second, third), findings = read(path)
    assert [a.text for a in (first, second, third)] == ["在北京", "市里的人", "家"]
    assert (covered(first), covered(first, "unknown")) == ([], [("北京", "LOC")])
    assert (covered(second), covered(second, "unknown")) == ([("人", "PER")], [("市里", "LOC")])
    assert findings.counts == {"split_entity": 1, "broken_tags": 1}
    assert [case.where.line for case in findings.cases["split_entity"]] == [5]
    assert [case.where.line for case in findings.cases["broken_tags"]] == [10]


def test_unopened_i_of_bio_is_an_entity_and_counted(tmp_path: Path):
    path = write(tmp_path / "a.conll", "A B-X\nb O\nC I-X\nD I-Y\n")
    (annotation,), findings = read(path)
    assert covered(annotation) == [("A", "X"), ("C", "X"), ("D", "Y")]
    assert findings.counts == {"repaired_tags": 2}
    # In IOB1 it is how entities begin.
    (annotation,), findings = read(path, scheme="iob1")
    assert len(annotation.ents) == 3 and not findings.counts


def test_tokens_that_nobody_annotated_stay_unknown(tmp_path: Path):
    (annotation,), _ = read(write(tmp_path / "a.conll", "A B-X\nb -\nc -\nd O\n"))
    assert [tuple(span) for span in annotation.unknown] == [(2, 5, "")]


@pytest.mark.parametrize(
    "lang, column, text",
    [
        ("zh", "我 在 iPhone 15 上", "我在iPhone 15上"),
        ("en", "I have 东京 iPhone 15", "I have 东京 iPhone 15"),
        ("en", "北 京 的 A P P 好", "北京的APP好"),
        ("en", "한 국 사 람", "한 국 사 람"),
        ("ja", "東京 に", "東京に"),
    ],
)
def test_words_are_joined_as_their_language_writes_them(tmp_path: Path, lang: str, column: str, text: str):
    path = write(tmp_path / "a.conll", "".join(f"{word} O\n" for word in column.split()))
    (annotation,), _ = read(path, "conll", lang=lang)
    assert annotation.text == text
    assert words(annotation) == column.split()


def test_tags_that_the_given_scheme_has_not_are_refused(tmp_path: Path):
    path = write(tmp_path / "a.conll", "A B-X\nB M-X\nC E-X\n")
    with pytest.raises(BertHeadsError, match="M-X"):
        read(path, scheme="bio")
    with pytest.raises(BertHeadsError) as info:
        read(path, scheme="bilou")
    assert info.value.code == "H145"


def test_byte_that_is_not_utf8_is_named(tmp_path: Path):
    path = write(tmp_path / "a.conll", b"A B-X\nB\xf0 O\n\nC B-X\n")
    with pytest.raises(BertHeadsError) as info:
        read(path)
    assert (info.value.code, info.value.line) == ("H104", 2)
    (annotation,), findings = read(path, skip_bad=True)
    assert annotation.text == "C" and findings.counts == {"H104": 1}


def test_comments_at_the_head_of_a_sentence_are_counted(tmp_path: Path):
    path = write(tmp_path / "a.conllu", "# text = # a\n#\tO\na\tB-X\n\n# id 7\nb\tO\n")
    (first, second), findings = read(path, "conll")
    assert (first.text, second.text) == ("# a", "b")
    assert findings.counts == {"comment_lines": 2}
