"""span._.confidence, n-best readings and uncertainty, against sums over every tag path."""

import copy
import itertools
import json
import math
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import numpy
import pytest
import spacy
import torch
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span

from spacy_bert_heads import extensions
from spacy_bert_heads.tags import SCHEMES, TagScheme

from ..making import crf_module, head_module, make_nlp

TEXT = "Anna in New York"
# A scheme means our own CRF
DECODERS: List[Dict[str, Any]] = [*({"scheme": scheme} for scheme in SCHEMES), {"crf": "pytorch-crf"}, {"crf": None}]
Entities = List[Tuple[int, int, str]]


def make_unsure(folder: str, seed: int = 0, settings: Optional[Dict[str, Any]] = None, **model: Any) -> Language:
    """A head of random weights, large enough for entities and small enough for doubt."""
    ner = {"model": {"lstm_width": 8, **model}, **(settings or {})}
    nlp = make_nlp(folder, ["bert_ner"], settings={"bert_ner": ner})
    torch.manual_seed(seed)
    linear = head_module(nlp, "bert_ner").linear
    torch.nn.init.normal_(linear.weight, std=3.0)
    linear.bias.data[0] = -1.0
    if crf_module(nlp) is not None:
        for parameter in crf_module(nlp).parameters():
            torch.nn.init.normal_(parameter, std=0.7)
    return nlp


@pytest.fixture(scope="module")
def nlp(bert_folder: str) -> Language:
    return make_unsure(bert_folder)


def triples(doc: Doc) -> Entities:
    return [(ent.start, ent.end, ent.label_) for ent in doc.ents]


def trimmed(doc: Doc, spans: Entities) -> Entities:
    found = []
    for start, end, label in spans:
        words = [i for i in range(start, end) if not doc[i].is_space]
        if words:
            found.append((words[0], words[-1] + 1, label))
    return found


def spelled(scheme: TagScheme, path: Tuple[int, ...]) -> Entities:
    """Entities that a path spells as the scheme does, whatever else is on it."""
    found = []
    for start in range(len(path)):
        for end in range(start + 1, len(path) + 1):
            for label in scheme.labels:
                tags = scheme.tags_from_spans(len(path), [(start, end, label)])
                longer = end < len(path) and scheme.extends_from(tags[end - 1])[path[end]]
                if list(path[start:end]) == tags[start:end] and not longer:
                    found.append((start, end, label))
    return found


def every_path(nlp: Language, doc: Doc) -> Iterator[Tuple[Tuple[int, ...], float]]:
    """Every legal path and its probability: scores added up one by one."""
    ner: Any = nlp.get_pipe("bert_ner")
    scheme = TagScheme(ner.model.attrs["scheme"], ner.labels)
    (emissions,) = ner.model.predict([doc])
    crf, n_tags = crf_module(nlp), len(scheme.tags)
    start = end = numpy.zeros(n_tags)
    step = numpy.zeros((n_tags, n_tags))
    if crf is not None:
        start, end, step = (p.detach().double().numpy() for p in crf.parameters())
        assert [name for name, _ in crf.named_parameters()] == ["start_transitions", "end_transitions", "transitions"]
    follows, constrained = scheme.allowed_transitions, getattr(crf, "legal", None) is not None
    paths, scores = [], []
    for path in itertools.product(range(n_tags), repeat=len(doc)):
        legal = scheme.allowed_start[path[0]] and scheme.allowed_end[path[-1]]
        legal = legal and all(follows[i][j] for i, j in zip(path, path[1:]))
        if legal or not constrained:
            score = sum(float(emissions[t, tag]) for t, tag in enumerate(path)) + start[path[0]] + end[path[-1]]
            paths.append(path)
            scores.append(score + sum(step[i, j] for i, j in zip(path, path[1:])))
    probabilities = numpy.exp(numpy.array(scores) - numpy.max(scores))
    yield from zip(paths, probabilities / probabilities.sum())


def scheme_of(nlp: Language) -> TagScheme:
    ner: Any = nlp.get_pipe("bert_ner")
    return TagScheme(ner.model.attrs["scheme"], ner.labels)


@pytest.mark.parametrize("decoder", DECODERS, ids=str)
def test_confidence_is_the_share_of_all_paths_that_have_the_entity(bert_folder: str, decoder: Dict[str, Any]) -> None:
    nlp = make_unsure(bert_folder, **decoder)
    docs = list(nlp.pipe([TEXT, "", "Smith", "track 42 zebra", "london york"]))
    scheme, n_checked = scheme_of(nlp), 0
    for doc in docs:
        assert len(doc._.ents_confidence) == len(doc.ents)
        paths = [] if not len(doc) else [(spelled(scheme, path), p) for path, p in every_path(nlp, doc)]
        for ent, (start, end, label), confidence in zip(doc.ents, triples(doc), doc._.ents_confidence):
            expected = sum(p for found, p in paths if (start, end, label) in found)
            assert type(confidence) is float and confidence == ent._.confidence
            assert confidence == pytest.approx(expected, abs=1e-5)
            n_checked += 0.01 < confidence < 0.99
    assert n_checked >= 2


def test_white_space_around_an_entity_does_not_count(bert_folder: str) -> None:
    """Tags over white space differ, the entity is the same: their probabilities add up."""
    for seed in range(12):
        nlp = make_unsure(bert_folder, seed)
        doc = nlp(Doc(nlp.vocab, words=[" ", "York", "\n", "anna"]))
        paths = [(trimmed(doc, scheme_of(nlp).spans_from_tags(path)), p) for path, p in every_path(nlp, doc)]
        if any(ent.start == 1 for ent in doc.ents):
            break
    else:
        pytest.fail("no entity beside white space")
    for ent, confidence in zip(triples(doc), doc._.ents_confidence):
        assert confidence == pytest.approx(sum(p for found, p in paths if ent in found), abs=1e-5)


def test_confidence_is_conditional_on_entities_already_there_and_those_have_none(bert_folder: str) -> None:
    n_checked = 0
    for seed in range(6):
        nlp = make_unsure(bert_folder, seed)
        doc = nlp.make_doc(TEXT)
        doc.set_ents([Span(doc, 2, 3, "CITY"), Span(doc, 0, 1, "PLANET")], default="missing")
        nlp(doc)
        given = [
            (found, p)
            for found, p in ((spelled(scheme_of(nlp), path), p) for path, p in every_path(nlp, doc))
            if (2, 3, "CITY") in found and all(end <= 0 or start >= 1 for start, end, _ in found)
        ]
        for ent, confidence in zip(triples(doc), doc._.ents_confidence):
            if ent in [(2, 3, "CITY"), (0, 1, "PLANET")]:
                assert confidence is None
            else:
                share = sum(p for found, p in given if ent in found) / sum(p for _, p in given)
                assert confidence == pytest.approx(share, abs=1e-5)
                n_checked += 1
    assert n_checked


def with_confidence(nlp: Language) -> Doc:
    """A Doc without the encoder's arrays, which other tests save."""
    doc = nlp(TEXT)
    assert doc.ents
    del doc.user_data[("._.", "trf_data", None, None)]
    return doc


def test_confidence_survives_bytes_docbin_pickle_copy_and_json(nlp: Language) -> None:
    doc = with_confidence(nlp)
    ents, expected = triples(doc), doc._.ents_confidence
    docbin = DocBin(store_user_data=True, docs=[doc])
    again = DocBin().from_bytes(docbin.to_bytes())
    copies = [
        Doc(nlp.vocab).from_bytes(doc.to_bytes()),
        *again.get_docs(nlp.vocab),
        *pickle.loads(pickle.dumps([doc])),
        doc.copy(),
        Doc(nlp.vocab).from_json(doc.to_json(underscore=["confidence"])),
        Doc(nlp.vocab).from_bytes(Doc(nlp.vocab).from_bytes(doc.to_bytes()).to_bytes()),
    ]
    for other in copies:
        assert triples(other) == ents and other._.ents_confidence == expected
        assert [ent._.confidence for ent in other.ents] == expected
    (plain,) = DocBin(docs=[doc]).get_docs(nlp.vocab)
    assert plain._.ents_confidence == [None] * len(ents)


def test_the_encoders_arrays_do_not_hinder_saving(nlp: Language) -> None:
    doc = nlp(TEXT)
    (again,) = DocBin(store_user_data=True, docs=[doc]).get_docs(nlp.vocab)
    assert again._.ents_confidence == doc._.ents_confidence == pickle.loads(pickle.dumps(doc))._.ents_confidence


@pytest.mark.slow
@pytest.mark.parametrize("how", ["pickle", "docbin", "bytes"])
def test_confidence_is_there_in_a_process_that_only_reads_docs(nlp: Language, tmp_path: Path, how: str) -> None:
    doc = with_confidence(nlp)
    path = tmp_path / "doc"
    if how == "pickle":
        path.write_bytes(pickle.dumps(doc))
        read = f"import pickle; doc = pickle.load(open({str(path)!r}, 'rb'))"
    elif how == "docbin":
        DocBin(store_user_data=True, docs=[doc]).to_disk(path)
        read = "import spacy; from spacy.tokens import DocBin; nlp = spacy.blank('en'); "
        read += f"(doc,) = DocBin().from_disk({str(path)!r}).get_docs(nlp.vocab)"
    else:
        path.write_bytes(doc.to_bytes())
        read = "import spacy; from spacy.tokens import Doc; import spacy_bert_heads.extensions; "
        read += f"doc = Doc(spacy.blank('en').vocab).from_bytes(open({str(path)!r}, 'rb').read())"
    code = f"{read}; import json; print(json.dumps(doc._.ents_confidence))"
    output = subprocess.run([sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, check=True).stdout
    assert json.loads(output.splitlines()[-1]) == doc._.ents_confidence


def test_a_changed_span_has_no_confidence(nlp: Language) -> None:
    doc = nlp(TEXT)
    ent = doc.ents[0]
    assert ent._.confidence is not None
    assert Span(doc, ent.start, ent.end, "ORG")._.confidence is None
    assert doc[ent.start : ent.end]._.confidence is None
    others = [
        Span(doc, start, end, ent.label_)
        for start in range(len(doc))
        for end in range(start + 1, len(doc) + 1)
        if (start, end) != (ent.start, ent.end)
    ]
    kept = {(e.start, e.end) for e in doc.ents}
    assert all(span._.confidence is None for span in others if (span.start, span.end) not in kept)
    doc.ents = [Span(doc, ent.start, ent.end, "ORG")]
    assert doc._.ents_confidence == [None]
    assert Span(doc, ent.start, ent.end, ent.label_)._.confidence == ent._.confidence


def test_predicting_again_keeps_what_it_set_and_forgets_what_is_gone(nlp: Language) -> None:
    doc = nlp(TEXT)
    ents, confidence = triples(doc), doc._.ents_confidence
    nlp(doc)
    assert (triples(doc), doc._.ents_confidence) == (ents, confidence)
    first = doc.ents[0]
    doc.ents = [Span(doc, first.start, first.end, "ORG")]
    nlp(doc)
    assert doc.ents[0].label_ == "ORG" and doc[first.start : first.end]._.confidence is None
    doc.ents = [Span(doc, *ents[0])]
    assert doc._.ents_confidence == [None]


def test_confidence_moves_with_the_text(nlp: Language) -> None:
    doc = with_confidence(nlp)
    joined = Doc.from_docs([doc, doc])
    assert joined._.ents_confidence == doc._.ents_confidence * 2
    part = doc[doc.ents[0].start :].as_doc(copy_user_data=True)
    assert part._.ents_confidence == doc._.ents_confidence
    with doc.retokenize() as retokenizer:
        retokenizer.split(doc[3], ["Y", "ork"], heads=[doc[0], doc[0]])
    assert doc._.ents_confidence == joined._.ents_confidence[: len(doc.ents)]


def test_confidence_can_be_set_by_hand(nlp: Language) -> None:
    doc = spacy.blank("en")(TEXT)
    doc.ents = [Span(doc, 0, 1, "PERSON")]
    assert doc._.ents_confidence == [None]
    doc.ents[0]._.confidence = 0.5
    assert doc._.ents_confidence == [0.5] and doc[0:1]._.confidence is None
    doc.ents[0]._.confidence = None
    assert doc._.ents_confidence == [None] and not doc.user_data
    assert extensions.get_ents_confidence(doc) == [None]


def test_weaker_entities_are_dropped(bert_folder: str, nlp: Language) -> None:
    texts = [TEXT, "london york smith", "track 42 zebra anna", "my order"]
    all_of_them = [(ent.text, c) for doc in nlp.pipe(texts) for ent, c in zip(doc.ents, doc._.ents_confidence)]
    limit = sorted(c for _, c in all_of_them)[len(all_of_them) // 2]
    strict = make_unsure(bert_folder, settings={"min_confidence": limit})
    kept = [(ent.text, c) for doc in strict.pipe(texts) for ent, c in zip(doc.ents, doc._.ents_confidence)]
    assert kept == [(text, c) for text, c in all_of_them if c >= limit]
    assert 0 < len(kept) < len(all_of_them)
    saved = spacy.blank("en").from_config(strict.config).from_bytes(strict.to_bytes())
    assert saved.get_pipe("bert_ner").min_confidence == limit  # type: ignore[attr-defined]


def test_a_doc_without_a_single_entity_has_an_empty_list(nlp: Language) -> None:
    assert nlp("")._.ents_confidence == []


@pytest.mark.parametrize("decoder", DECODERS, ids=str)
def test_nbest_readings_are_the_best_of_all_paths(bert_folder: str, decoder: Dict[str, Any]) -> None:
    nlp = make_unsure(bert_folder, **decoder)
    ner: Any = nlp.get_pipe("bert_ner")
    docs = list(nlp.pipe(["new york 42", "", "anna"]))
    found = ner.nbest(docs, 7)
    assert found[1] == [([], 0.0)]
    for doc, readings in zip(docs, found):
        if len(doc):
            ranked = sorted(every_path(nlp, doc), key=lambda pair: -pair[1])
            assert len(readings) == min(7, len(ranked))
            for (ents, log_probability), (path, p) in zip(readings, ranked):
                assert ents == scheme_of(nlp).spans_from_tags(path)
                assert log_probability == pytest.approx(math.log(p), abs=1e-5)
            assert readings[0].ents == triples(doc)
    assert ner.nbest([], 3) == [] and ner.nbest(docs, 0) == [[], [], []]


def test_nbest_ignores_entities_on_the_doc_unless_asked(nlp: Language) -> None:
    ner: Any = nlp.get_pipe("bert_ner")
    plain = nlp(TEXT)
    doc = nlp.make_doc(TEXT)
    doc.set_ents([Span(doc, 2, 3, "PERSON")], default="missing")
    nlp(doc)
    (ours,), (theirs,) = ner.nbest([doc], 4), ner.nbest([plain], 4)
    assert ours == theirs and (2, 3, "PERSON") not in ours[0].ents
    (kept,) = ner.nbest([doc], 4, keep_preset=True)
    assert all((2, 3, "PERSON") in ents for ents, _ in kept)
    assert triples(doc) == kept[0].ents


@pytest.mark.parametrize("decoder", DECODERS, ids=str)
def test_uncertainty_is_that_of_all_paths(bert_folder: str, decoder: Dict[str, Any]) -> None:
    nlp = make_unsure(bert_folder, **decoder)
    ner: Any = nlp.get_pipe("bert_ner")
    docs = list(nlp.pipe(["new york 42", "", "anna"]))
    ner.annotates_uncertainty = True
    annotated = list(nlp.pipe([doc.text for doc in docs]))
    for doc, other, found in zip(docs, annotated, ner.uncertainty(docs)):
        entropies, best_marginals, log_probability = found
        assert all(numpy.array_equal(a, b) for a, b in zip(found, other._.ents_uncertainty))
        assert doc._.ents_uncertainty is None
        assert entropies.shape == best_marginals.shape == (len(doc),)
        if not len(doc):
            assert (log_probability, found.mean_log_probability) == (0.0, 0.0)
            continue
        paths = list(every_path(nlp, doc))
        assert log_probability == pytest.approx(math.log(max(p for _, p in paths)), abs=1e-5)
        assert found.mean_log_probability == pytest.approx(log_probability / len(doc))
        for t in range(len(doc)):
            shares = numpy.zeros(len(ner.tags))
            for path, p in paths:
                shares[path[t]] += p
            expected = -sum(share * math.log(share) for share in shares if share > 0)
            assert entropies[t] == pytest.approx(expected, abs=1e-5)
            assert best_marginals[t] == pytest.approx(shares.max(), abs=1e-5)
    assert ner.uncertainty([]) == []


def test_a_long_doc_beside_short_ones_has_the_confidence_it_has_alone(nlp: Language) -> None:
    texts = [" ".join(["new york 42 anna zebra"] * 60), "anna", TEXT]
    for doc, text in zip(nlp.pipe(texts), texts):
        alone = nlp(text)
        assert triples(alone) == triples(doc)
        assert alone._.ents_confidence == pytest.approx(doc._.ents_confidence, abs=1e-5)


def test_a_copied_component_and_a_pickled_pipeline_still_know_confidence(nlp: Language) -> None:
    other = pickle.loads(pickle.dumps(nlp))
    assert other(TEXT)._.ents_confidence == pytest.approx(nlp(TEXT)._.ents_confidence)
    assert copy.deepcopy(nlp.get_pipe("bert_ner").skipped).counts == {}  # type: ignore[attr-defined]


def overlapping_doc() -> Doc:
    """The same words in doc.ents, twice in one group with two labels, and in another group."""
    doc = spacy.blank("en")(TEXT)
    york = Span(doc, 2, 4, "CITY")
    doc.ents = [york]
    doc.spans["sc"] = [york, Span(doc, 2, 4, "GPE"), Span(doc, 2, 3, "ADJ")]
    doc.spans["other"] = [york]
    york._.confidence = 0.5
    extensions.set_group_confidence(doc, "sc", doc.spans["sc"], [0.25, 0.75, 0.125])
    extensions.set_group_confidence(doc, "other", doc.spans["other"], [1.0])
    return doc


def confidence_by_place(doc: Doc) -> Dict[str, List[Optional[float]]]:
    found = {key: [extensions.get_confidence_in(span, key) for span in doc.spans[key]] for key in ("sc", "other")}
    return {**found, "ents": doc._.ents_confidence}


def test_labels_and_groups_on_the_same_words_keep_their_own_confidence() -> None:
    doc = overlapping_doc()
    expected = {"sc": [0.25, 0.75, 0.125], "other": [1.0], "ents": [0.5]}
    assert confidence_by_place(doc) == expected
    assert doc.ents[0]._.confidence == 0.5 and Span(doc, 2, 4, "GPE")._.confidence == 0.75
    copies = [
        Doc(doc.vocab).from_bytes(doc.to_bytes()),
        *DocBin(store_user_data=True, docs=[doc]).get_docs(doc.vocab),
        *pickle.loads(pickle.dumps([doc])),
        doc.copy(),
        Doc(doc.vocab).from_bytes(Doc(doc.vocab).from_bytes(doc.to_bytes()).to_bytes()),
    ]
    for other in copies:
        assert confidence_by_place(other) == expected
    again = Doc(doc.vocab).from_json(doc.to_json(underscore=["confidence"]))
    assert confidence_by_place(again) == expected
    joined = Doc.from_docs([doc, doc])
    assert joined._.ents_confidence == [0.5, 0.5]
    assert extensions.get_confidence_in(Span(joined, 6, 8, "GPE"), "sc") == 0.75


def test_one_place_is_forgotten_and_the_others_stay() -> None:
    doc = overlapping_doc()
    extensions.forget_confidence(doc, keep=[])
    assert confidence_by_place(doc) == {"sc": [0.25, 0.75, 0.125], "other": [1.0], "ents": [None]}
    assert doc.ents[0]._.confidence == 0.25  # of the first group that has it
    extensions.forget_confidence(doc, keep=[Span(doc, 2, 4, "GPE")], place="sc")
    assert confidence_by_place(doc)["sc"] == [None, 0.75, None]
    extensions.set_group_confidence(doc, "sc", [doc.spans["sc"][0]], [0.0])
    assert confidence_by_place(doc) == {"sc": [0.0, None, None], "other": [1.0], "ents": [None]}
    doc.ents[0]._.confidence = None
    assert confidence_by_place(doc) == {"sc": [None] * 3, "other": [None], "ents": [None]} and not doc.user_data


def test_bert_ner_leaves_the_confidence_of_groups(nlp: Language) -> None:
    doc = nlp.make_doc(TEXT)
    doc.spans["sc"] = [Span(doc, start, end, "X") for start in range(4) for end in range(start + 1, 5)]
    values = [number / 10 for number in range(10)]
    extensions.set_group_confidence(doc, "sc", doc.spans["sc"], values)
    for _ in range(2):
        nlp(doc)
        assert doc.ents and None not in doc._.ents_confidence
        assert [span._.confidence for span in doc.spans["sc"]] == values


def test_what_an_older_version_stored_is_read() -> None:
    doc = spacy.blank("en")(TEXT)
    doc.ents = [Span(doc, 0, 1, "PERSON")]
    doc.user_data[("._.", "confidence", 0, 4)] = ["PERSON", 0.5]  # type: ignore[index]
    assert doc._.ents_confidence == [0.5]
    extensions.set_group_confidence(doc, "sc", [doc.ents[0]], [0.25])
    assert doc._.ents_confidence == [0.5] and extensions.get_confidence_in(doc.ents[0], "sc") == 0.25
