"""bert_ner: labels, gold tags, preset entities, learning."""

from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import pytest
import spacy
import torch
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example

from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.tags import SCHEMES, UNKNOWN, TagScheme

from ..making import (
    crf_module,
    gold_tags,
    gradients,
    head_module,
    initialize_nlp,
    make_example,
    make_examples,
    make_nlp,
    make_scratch_config,
    make_texts,
)

SCHEME = TagScheme("bio", ["PERSON", "CITY"])


def trained(folder: str, **model: Any) -> Language:
    nlp = make_nlp(folder, ["bert_ner"], settings={"bert_ner": {"model": {"lstm_width": 8, **model}}})
    sgd = nlp.create_optimizer()
    sgd.learn_rate = 0.002
    for _ in range(40):
        nlp.update(make_examples(nlp), sgd=sgd)
    return nlp


@pytest.fixture(scope="module")
def nlp(bert_folder: str) -> Language:
    return trained(bert_folder)


def spans(doc: Doc) -> List[Tuple[str, str]]:
    return [(ent.text, ent.label_) for ent in doc.ents]


def force(nlp: Language, tag: str) -> None:
    """Let the head say one tag for every token, whatever it reads."""
    tags = nlp.get_pipe("bert_ner").tags  # type: ignore[attr-defined]
    linear = head_module(nlp, "bert_ner").linear
    torch.nn.init.zeros_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    linear.bias.data[tags.index(tag)] = 50.0


MODELS: List[Dict[str, Any]] = [
    {},
    {"crf": "pytorch-crf"},
    {"crf": None},
    {"lstm_width": None},
    {"lstm_width": None, "crf": None},
    *({"scheme": scheme} for scheme in SCHEMES),
    {"scheme": "bmes", "crf": None},
]


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_three_examples_are_overfitted_with_and_without_lstm_and_crf_in_any_scheme(
    bert_folder: str, model: Dict[str, Any]
) -> None:
    nlp = trained(bert_folder, **model)
    examples = make_examples(nlp)
    before = [eg.reference.to_bytes() for eg in examples]
    scores = nlp.evaluate(examples)
    assert scores["ents_f"] == 1.0
    assert set(scores["ents_per_type"]) == {"PERSON", "CITY"}
    assert [eg.reference.to_bytes() for eg in examples] == before
    assert nlp.evaluate(examples)["ents_f"] == 1.0


SHAPES = {
    "@architectures": "spacy.MultiHashEmbed.v2",
    "width": 8,
    "attrs": ["SHAPE"],
    "rows": [50],
    "include_static_vectors": False,
}


@pytest.mark.parametrize("features", [None, SHAPES])
def test_features_tell_apart_what_the_encoder_lowercases(features: Any, tmp_path: Path) -> None:
    """With word shapes beside its vectors the head sees a capital letter, without it cannot."""
    settings = {"bert_ner": {"model": {"lstm_width": 8, "features": features}}}
    nlp = make_nlp(encoder=make_scratch_config(), heads=["bert_ner"], settings=settings, initialize=False)
    entities = {"cancel Smith in london": [(7, 12, "PERSON")], "cancel smith in london": []}
    examples = [make_example(nlp, text, entities=ents) for text, ents in entities.items()]
    initialize_nlp(nlp, examples=examples)
    sgd = nlp.create_optimizer()
    sgd.learn_rate = 0.01
    for _ in range(60):
        nlp.update(examples, sgd=sgd)
    found = [[(ent.start, ent.end) for ent in doc.ents] for doc in nlp.pipe(entities)]
    assert found == ([[(1, 2)], []] if features else [found[0]] * 2)
    nlp.to_disk(tmp_path)
    again = spacy.load(tmp_path)
    again.replace_listeners("transformer", "bert_ner", ["model.tok2vec"])
    assert [[(ent.start, ent.end) for ent in doc.ents] for doc in again.pipe([*entities, ""])] == [*found, []]


def test_labels_come_from_the_data_or_are_given(bert_folder: str) -> None:
    assert make_nlp(bert_folder).get_pipe("bert_ner").labels == ("PERSON", "CITY")
    nlp = make_nlp(bert_folder, initialize=False)
    nlp.config["initialize"]["components"]["bert_ner"] = {"labels": ["CITY", "ORG", "PERSON"]}
    initialize_nlp(nlp)
    ner = nlp.get_pipe("bert_ner")
    assert ner.labels == ("CITY", "ORG", "PERSON") and ner.label_data == ["CITY", "ORG", "PERSON"]
    assert ner.model.get_dim("nO") == len(ner.tags) == 7
    nlp = make_nlp(bert_folder, initialize=False)
    nlp.config["initialize"]["components"]["bert_ner"] = {"labels": ["CITY"]}
    with pytest.raises(BertHeadsError) as error:
        initialize_nlp(nlp)
    assert (error.value.code, error.value.found) == ("H301", "PERSON")


def test_settings_of_the_component_have_defaults_and_are_saved(bert_folder: str) -> None:
    ner: Any = make_nlp(bert_folder, ["bert_ner"]).get_pipe("bert_ner")
    assert (ner.min_confidence, ner.incorrect_spans_key) == (0.0, "incorrect_spans")
    given = {"min_confidence": 0.25, "incorrect_spans_key": None}
    nlp = make_nlp(bert_folder, ["bert_ner"], settings={"bert_ner": given})
    again = spacy.blank("en").from_config(nlp.config).from_bytes(nlp.to_bytes())
    for pipeline in (nlp, again):
        ner = pipeline.get_pipe("bert_ner")
        assert {name: getattr(ner, name) for name in given} == given


def test_a_setting_given_while_loading_takes_effect(bert_folder: str, tmp_path: Path) -> None:
    make_nlp(bert_folder, ["bert_ner"]).to_disk(tmp_path)
    nlp = spacy.load(tmp_path, config={"components": {"bert_ner": {"min_confidence": 0.5}}})
    assert nlp.get_pipe("bert_ner").min_confidence == 0.5  # type: ignore[attr-defined]


def test_data_without_entities_cannot_be_learned(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder, ["bert_ner"], initialize=False)
    with pytest.raises(BertHeadsError) as error:
        initialize_nlp(nlp, examples=[make_example(nlp, "where is my order", entities=[])])
    assert error.value.code == "H302"


def test_a_label_can_be_added_before_initialisation_and_not_after(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder, ["bert_ner"], initialize=False)
    ner = nlp.get_pipe("bert_ner")
    assert (ner.add_label("ORG"), ner.add_label("ORG")) == (1, 0)
    initialize_nlp(nlp)
    assert ner.labels == ("ORG", "PERSON", "CITY")
    assert ner.add_label("CITY") == 0
    with pytest.raises(ValueError, match="E922"):
        ner.add_label("NEW")
    with pytest.raises(ValueError, match="E187"):
        ner.add_label(5)  # type: ignore[arg-type]


def test_labels_added_by_hand_count_as_given(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder, ["bert_ner"], initialize=False)
    nlp.get_pipe("bert_ner").add_label("CITY")
    nlp.config["initialize"]["components"]["bert_ner"] = {"labels": ["PERSON"]}
    initialize_nlp(nlp)
    assert nlp.get_pipe("bert_ner").labels == ("CITY", "PERSON")


def make_pair(words: List[str], reference: Doc) -> Example:
    spaces = [reference.text[len(" ".join(words[: i + 1])) :].startswith(" ") for i in range(len(words))]
    return Example(Doc(reference.vocab, words=words, spaces=spaces), reference)


def test_gold_tags_follow_the_predicted_tokens(nlp: Language) -> None:
    eg = make_example(nlp, "Anna Smith in New York", entities=[(0, 10, "PERSON"), (14, 22, "CITY")])
    assert gold_tags(eg, SCHEME).tolist() == [1, 2, 0, 3, 4]
    merged = Example(Doc(nlp.vocab, words=["Anna Smith", "in", "New", "York"]), eg.reference)
    assert gold_tags(merged, SCHEME).tolist() == [1, 0, 3, 4]
    split = Example(
        Doc(nlp.vocab, words=["An", "na", "Smith", "in", "New", "York"], spaces=[False, *[True] * 4, False]),
        eg.reference,
    )
    assert gold_tags(split, SCHEME).tolist() == [1, 2, 2, 0, 3, 4]
    across = Example(Doc(nlp.vocab, words=["Anna", "Smith in", "New", "York"]), eg.reference)
    tags = gold_tags(across, SCHEME).tolist()
    assert tags[1] == UNKNOWN and tags[2:] == [3, 4]


def test_missing_and_unknown_annotation_is_marked_missing(nlp: Language) -> None:
    words = ["Anna", "Smith", "in", "Paris"]
    reference = Doc(nlp.vocab, words=words)
    assert gold_tags(Example(Doc(nlp.vocab, words=words), reference), SCHEME).tolist() == [UNKNOWN] * 4
    reference.set_ents([Span(reference, 0, 2, "PERSON")], missing=[reference[2:3]], default="outside")
    assert gold_tags(Example(Doc(nlp.vocab, words=words), reference), SCHEME).tolist() == [1, 2, UNKNOWN, 0]
    merged = Doc(nlp.vocab, words=["Anna Smith", "in", "Paris"])
    assert gold_tags(Example(merged, reference), SCHEME).tolist() == [1, UNKNOWN, 0]
    reference.set_ents([Span(reference, 3, 4, "PLANET")], default="outside")
    assert gold_tags(Example(Doc(nlp.vocab, words=words), reference), SCHEME).tolist() == [0, 0, 0, UNKNOWN]
    reference.set_ents([], blocked=[reference[0:1]], default="outside")
    assert gold_tags(Example(Doc(nlp.vocab, words=words), reference), SCHEME).tolist() == [0, 0, 0, 0]
    assert gold_tags(Example(Doc(nlp.vocab), Doc(nlp.vocab)), SCHEME).tolist() == []


@pytest.mark.parametrize("crf", ["constrained", "pytorch-crf", None])
def test_docs_without_entity_annotation_neither_help_nor_hurt(bert_folder: str, crf: Optional[str]) -> None:
    nlp = make_nlp(bert_folder, ["bert_ner"], settings={"bert_ner": {"model": {"lstm_width": 8, "crf": crf}}})
    examples, found = make_examples(nlp), []
    for batch in (examples, [make_example(nlp, "Anna is in London"), *examples, make_example(nlp, "")]):
        losses = nlp.update(batch, sgd=False)
        found.append((losses["bert_ner"], gradients(head_module(nlp, "bert_ner"))))
        head_module(nlp, "bert_ner").zero_grad()
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-5)
    for name, gradient in found[0][1].items():
        assert gradient.abs().sum() > 0 and (gradient - found[1][1][name]).abs().max() < 1e-5
    assert nlp.update([make_example(nlp, "Anna is in London")], sgd=False)["bert_ner"] == 0.0


def test_the_constrained_crf_learns_from_docs_annotated_in_part(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder, ["bert_ner"])
    doc = nlp.make_doc("track Smith in London")
    doc.set_ents([doc.char_span(6, 11, "PERSON")], missing=[doc[2:]], default="outside")
    sgd = nlp.create_optimizer()
    sgd.learn_rate = 0.005
    losses = [nlp.update([Example(nlp.make_doc(doc.text), doc)], sgd=sgd)["bert_ner"] for _ in range(25)]
    assert losses[-1] < 0.1 < losses[0]
    assert spans(nlp("track Smith in London"))[0] == ("Smith", "PERSON")


def test_a_text_without_entities_is_annotation_too(nlp: Language, bert_folder: str) -> None:
    fresh = make_nlp(bert_folder, ["bert_ner"])
    assert fresh.update([make_example(fresh, "Anna is in London", entities=[])], sgd=False)["bert_ner"] > 0


def preset(
    nlp: Language, text: str, ents: Sequence[Tuple[int, int, str]], blocked: Sequence[Tuple[int, int]] = ()
) -> Doc:
    doc = nlp.make_doc(text)
    doc.set_ents(
        [Span(doc, start, end, label) for start, end, label in ents],
        blocked=[doc[start:end] for start, end in blocked],
        default="missing",
    )
    return nlp(doc)


def test_preset_entities_stay_and_the_rest_is_predicted(nlp: Language) -> None:
    assert spans(nlp("track Smith in London")) == [("Smith", "PERSON"), ("London", "CITY")]
    doc = preset(nlp, "track Smith in London", [(2, 4, "PLACE")])
    assert spans(doc) == [("Smith", "PERSON"), ("in London", "PLACE")]
    doc = preset(nlp, "track Smith in London", [(0, 1, "VERB"), (3, 4, "ORG")])
    assert spans(doc) == [("track", "VERB"), ("Smith", "PERSON"), ("London", "ORG")]
    with_ids = nlp.make_doc("track Smith in London")
    with_ids.ents = [Span(with_ids, 1, 2, "PERSON", kb_id="Q1", span_id="S1")]
    (smith, _) = nlp(with_ids).ents
    assert (smith.kb_id_, smith.id_) == ("Q1", "S1")


def test_no_entity_is_predicted_over_blocked_tokens(nlp: Language) -> None:
    doc = preset(nlp, "track Smith in London", [], blocked=[(1, 2)])
    assert spans(doc) == [("London", "CITY")]
    assert [token.ent_iob_ for token in doc] == ["O", "B", "O", "B"] and doc[1].ent_type_ == ""
    assert spans(nlp(doc)) == [("London", "CITY")]


@pytest.mark.parametrize("crf", ["constrained", "pytorch-crf", None])
def test_an_entity_never_grows_over_a_preset_one(bert_folder: str, crf: Optional[str]) -> None:
    nlp = make_nlp(bert_folder, ["bert_ner"], settings={"bert_ner": {"model": {"lstm_width": 8, "crf": crf}}})
    force(nlp, "I-PERSON")
    assert spans(preset(nlp, "the order is here", [(1, 2, "X")])) == [
        ("the", "PERSON"),
        ("order", "X"),
        ("is here", "PERSON"),
    ]


@pytest.mark.parametrize("crf", ["constrained", None])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_predicting_again_changes_nothing(bert_folder: str, scheme: str, crf: Optional[str]) -> None:
    nlp = make_nlp(bert_folder, ["bert_ner"], settings={"bert_ner": {"model": {"crf": crf, "scheme": scheme}}})
    torch.nn.init.normal_(head_module(nlp, "bert_ner").linear.weight, std=2.0)
    if crf:
        torch.nn.init.normal_(crf_module(nlp).transitions, std=2.0)
    count = 0
    for text in [*make_texts(20), " track  Smith \n in London ", ""]:
        doc = nlp(text)
        first = [(ent.start, ent.end, ent.label_) for ent in doc.ents]
        count += len(first)
        assert [(ent.start, ent.end, ent.label_) for ent in nlp(doc).ents] == first
    assert count > 20


def test_every_token_is_marked_as_read(nlp: Language) -> None:
    doc = nlp("where is my order")
    assert doc.has_annotation("ENT_IOB") and [token.ent_iob_ for token in doc] == ["O"] * 4


def test_no_entity_begins_or_ends_on_white_space(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder, ["bert_ner"])
    force(nlp, "I-CITY")
    assert nlp("\n\t").ents == ()
    assert spans(nlp("\n the  order \n")) == [("the  order", "CITY")]


def test_tokenisation_that_differs_from_gold_can_be_learned(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder, ["bert_ner"], initialize=False)
    words = ["track", "Sm", "ith", "in", "Lon", "don"]
    spaces = [True, False, True, True, False, False]
    reference = Doc(nlp.vocab, words=words, spaces=spaces, ents=["O", "B-PERSON", "I-PERSON", "O", "B-CITY", "I-CITY"])
    example = Example(nlp.make_doc(reference.text), reference)
    initialize_nlp(nlp, examples=[example])
    sgd = nlp.create_optimizer()
    sgd.learn_rate = 0.005
    for _ in range(40):
        losses = nlp.update([example], sgd=sgd)
    assert losses["bert_ner"] < 0.1
    assert spans(nlp(reference.text)) == [("Smith", "PERSON"), ("London", "CITY")]
    assert nlp.evaluate([example])["ents_f"] == 1.0
