"""seq2seq_ner: what annotation means, what is written, learning, saving, and language models in place of a decoder."""

import copy
import math
from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy
import pytest
import spacy
import torch
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example

from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.evaluation.evaluate import evaluate
from spacy_bert_heads.extensions import get_confidence_in
from spacy_bert_heads.layers.text_to_text import score
from spacy_bert_heads.models.generation import name_words

from ..generating import KINDS, make_language_model, text_to_text
from ..making import encoder_module, gradients, initialize_nlp, make_example, make_examples, make_nlp, weights

NAMES = ["anna", "smith", "zebra"]
CITIES = ["london", "new york", "北京"]


def make_generator(
    folder: str, spans_key: Optional[str] = None, *, initialize: bool = True, **settings: Any
) -> Language:
    settings = {"spans_key": spans_key, "beam_width": 3, **settings}
    return make_nlp(folder, ["seq2seq_ner"], settings={"seq2seq_ner": settings}, initialize=initialize)


def make_model(name: str, spans_key: Optional[str] = None, n_beams: int = 1, **settings: Any) -> Language:
    nlp = spacy.blank("en")
    model = text_to_text(name, **settings)
    nlp.add_pipe("seq2seq_ner", config={"model": model, "spans_key": spans_key, "beam_width": n_beams})
    return nlp


def twenty(nlp: Language) -> List[Example]:
    """Sentences in which the same words are entities or not, twice or not at all."""
    examples = []
    for number in range(20):
        name, city = NAMES[number % 3], CITIES[number // 3 % 3]
        text, parts = [
            (f"where is the order of {name} in {city}?", [(name, "PERSON"), (city, "CITY")]),
            (f"cancel {city} {city} please", [(city, "CITY")]),
            (f"{name} is not in {city}", [(name, "PERSON")]),
            (f"refund my order {number}", []),
        ][number % 4]
        ents = [(text.index(part), text.index(part) + len(part), label) for part, label in parts]
        examples.append(make_example(nlp, text, entities=ents))
    return examples


def learn(nlp: Language, examples: List[Example], steps: int, rate: float) -> Dict[str, float]:
    sgd = nlp.create_optimizer()
    sgd.learn_rate = rate
    losses: Dict[str, float] = {}
    for _ in range(steps):
        losses = nlp.update(examples, sgd=sgd, losses={})
    return losses


def found(docs: Any, key: Optional[str] = None) -> List[Any]:
    return [
        [(span.start, span.end, span.label_) for span in (doc.ents if key is None else doc.spans[key])] for doc in docs
    ]


def refused(nlp: Language, reference: Doc) -> BertHeadsError:
    with pytest.raises(BertHeadsError) as error:
        initialize_nlp(nlp, examples=[*make_examples(nlp), Example(nlp.make_doc(reference.text), reference)])
    return error.value


def test_twenty_sentences_are_learned_by_the_decoder(bert_folder: str, tmp_path: Path) -> None:
    nlp = make_generator(bert_folder, initialize=False, model={"width": 32, "heads": 4, "lr_scale": 1.0})
    examples = twenty(nlp)
    initialize_nlp(nlp, examples=examples)
    before = [eg.reference.to_bytes() for eg in examples]
    learn(nlp, examples, 60, 0.008)
    scores = nlp.evaluate(twenty(nlp))
    assert scores["ents_f"] == 1.0 and [eg.reference.to_bytes() for eg in examples] == before
    docs = list(nlp.pipe([eg.text for eg in examples]))
    assert all(0.8 < ent._.confidence <= 1.0 for doc in docs for ent in doc.ents)
    nlp.to_disk(tmp_path / "model")
    loaded = spacy.load(tmp_path / "model")
    assert found(loaded.pipe([eg.text for eg in examples])) == found(docs)
    again = spacy.blank("en").from_config(nlp.config).from_bytes(nlp.to_bytes())
    assert found(again.pipe([eg.text for eg in examples])) == found(docs)
    nlp.replace_listeners("transformer", "seq2seq_ner", ["model.tok2vec"])
    assert found(nlp.pipe([eg.text for eg in examples])) == found(docs)
    nlp.to_disk(tmp_path / "replaced")
    assert found(spacy.load(tmp_path / "replaced").pipe([eg.text for eg in examples])) == found(docs)
    copied = copy.deepcopy(loaded.get_pipe("seq2seq_ner").model)
    assert copied.to_bytes() == loaded.get_pipe("seq2seq_ner").model.to_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_twenty_sentences_are_learned_by_a_language_model(kind: str, tmp_path: Path) -> None:
    nlp = make_model(make_language_model(tmp_path / kind, kind))
    examples = twenty(nlp)
    nlp.initialize(lambda: examples)
    learn(nlp, examples, 250, 0.01)
    assert nlp.evaluate(twenty(nlp))["ents_f"] == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_language_models_load_train_save_and_give_the_same_again(kind: str, tmp_path: Path) -> None:
    name = make_language_model(tmp_path / kind, kind)
    nlp = make_model(name, n_beams=2)
    examples = make_examples(nlp)
    nlp.initialize(lambda: examples)
    first = learn(nlp, examples, 1, 0.01)["seq2seq_ner"]
    assert learn(nlp, examples, 12, 0.01)["seq2seq_ner"] < 0.7 * first
    texts = [*(eg.text for eg in examples), "", " ", "我的 😀 [ | ] </s> <pad>", "order " * 5]
    docs = list(nlp.pipe(texts))
    # Far from the plain copy that stands in where nothing legal is found
    assert any(doc.ents for doc in docs)
    nlp.to_disk(tmp_path / "model")
    for path in (tmp_path / kind).iterdir():
        path.unlink()
    loaded = spacy.load(tmp_path / "model")
    assert found(loaded.pipe(texts)) == found(docs)
    model, other = (pipeline.get_pipe("seq2seq_ner").model.shims[0].module for pipeline in (nlp, loaded))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
    head = loaded.get_pipe("seq2seq_ner")
    ranked = head.nbest([nlp.make_doc(text) for text in texts[:3]], 3)
    for text, readings in zip(texts, ranked):
        for spans, log_probability in readings:
            assert head.log_probabilities([nlp.make_doc(text)], [spans])[0] == pytest.approx(log_probability, abs=1e-3)
    assert head.log_probabilities([nlp.make_doc("new york")], [[(0, 2, "STRANGE")]]) == [-math.inf]


@pytest.mark.parametrize("nested", [False, True])
def test_probabilities_of_all_texts_that_a_language_model_may_write_sum_to_one(nested: bool, tmp_path: Path) -> None:
    from itertools import combinations

    nlp = make_model(make_language_model(tmp_path / "t5", "t5"), spans_key="sc" if nested else None, n_beams=4)
    nlp.initialize(
        lambda: make_examples(nlp),
    )
    head = nlp.get_pipe("seq2seq_ner")
    doc = nlp.make_doc("new york")
    spans = [(i, j, label) for i, j in ((0, 1), (0, 2), (1, 2)) for label in head.labels]
    sets = []
    for size in range(len(spans) + 1 if nested and len(head.labels) < 4 else 3):
        for chosen in combinations(spans, size):
            apart = all(a[1] <= b[0] or b[1] <= a[0] for a, b in combinations(chosen, 2))
            if nested or apart:
                sets.append(list(chosen))
    total = sum(math.exp(value) for value in head.log_probabilities([doc] * len(sets), sets))
    # Of the four nested labels, sets of up to two spans are all that is summed
    assert total == pytest.approx(1.0, abs=1e-3) if not nested else 0.0 < total <= 1.0
    # The same number by the model itself, one step after the other
    markup = head.generator._markup(head.model, head._text(doc, False), *_whole(head, doc), nested)
    (chosen,) = [given for given in sets if given == [(0, 2, head.labels[0])]]
    symbols = markup.write([(0, 2, 0)])
    states = head.model.predict([doc])[0]
    module = head.model.shims[0].module
    expected, ids = 0.0, [module.config.decoder_start_token_id]
    for allowed, symbol in zip(markup.steps(symbols), symbols):
        with torch.no_grad():
            logits = module(
                encoder_outputs=(torch.tensor(states)[None],), decoder_input_ids=torch.tensor([ids])
            ).logits[0, -1]
        expected += float(logits[allowed].log_softmax(0)[allowed.index(symbol)])
        ids.append(symbol)
    with torch.no_grad():
        ours = float(score(module, [torch.tensor(states)], [markup], [symbols])[0])
    assert ours == pytest.approx(expected, abs=1e-4)
    assert head.log_probabilities([doc], [chosen])[0] == pytest.approx(expected, abs=1e-4)


def _whole(head: Any, doc: Doc) -> Any:
    whole = head.generator.split(head.model, doc)
    return whole, whole.windows[0]


def test_a_language_model_reads_long_texts_in_windows(tmp_path: Path) -> None:
    nlp = make_model(make_language_model(tmp_path / "t5", "t5"), window=12, overlap=4)
    nlp.initialize(lambda: make_examples(nlp))
    text = "track Smith in London " * 6 + "x" * 60
    (doc,) = nlp.pipe([text])
    head = nlp.get_pipe("seq2seq_ner")
    whole = head.generator.split(head.model, doc)
    assert len(whole.windows) > 3
    assert all(whole.pieces.bounds[w.stop] - whole.pieces.bounds[w.start] <= 12 for w in whole.windows)
    assert len(head.model.predict([doc])[0]) == sum(
        whole.pieces.bounds[w.stop] - whole.pieces.bounds[w.start] + 1 for w in whole.windows
    )
    nlp.update([make_example(nlp, text, entities=[(6, 11, "PERSON")])])


def test_an_encoder_is_no_language_model(bert_folder: str) -> None:
    nlp = make_model(bert_folder)
    with pytest.raises(BertHeadsError, match=r"\[H715\].*\(bert\).*PointerGenerator"):
        nlp.initialize(lambda: make_examples(nlp))
    with pytest.raises(BertHeadsError, match=r"\[H202\]"):
        broken = make_model("./nowhere")
        broken.initialize(lambda: make_examples(broken))


def test_partial_annotation_is_refused_by_name(bert_folder: str) -> None:
    nlp = make_generator(bert_folder, initialize=False)
    doc = nlp.make_doc("anna is in london")
    doc.set_ents([Span(doc, 0, 1, "PERSON")], missing=[doc[3:4]], default="outside")
    error = refused(nlp, doc)
    assert error.code == "H710" and "'seq2seq_ner'" in str(error) and "'anna is in london'" in str(error)
    answered = nlp.make_doc("smith is in york")
    answered.spans["incorrect_spans"] = [Span(answered, 0, 1, "PERSON")]
    assert refused(make_generator(bert_folder, initialize=False), answered).code == "H710"
    # In training too, for which labels may have been given
    nlp = make_generator(bert_folder)
    with pytest.raises(BertHeadsError, match=r"\[H710\]"):
        nlp.update([Example(nlp.make_doc(doc.text), doc)])
    nested = make_generator(bert_folder, "sc", initialize=False)
    gap = nested.make_doc("anna is in london")
    gap.spans["sc"] = [Span(gap, 0, 1, "PERSON")]
    gap.spans["unknown_spans"] = [gap[2:4]]
    assert refused(nested, gap).code == "H710"


def test_texts_that_nobody_annotated_neither_help_nor_hurt(bert_folder: str) -> None:
    nlp = make_generator(bert_folder)
    bare = make_example(nlp, "where is smith")
    head = nlp.get_pipe("seq2seq_ner")
    losses = []
    for examples in (make_examples(nlp), [*make_examples(nlp), bare, make_example(nlp, "")]):
        losses.append(nlp.update(examples, sgd=False, losses={})["seq2seq_ner"])
        losses.append(gradients(head.model.layers[2].shims[0].module))
        for node in head.model.walk():
            for shim in node.shims:
                shim.module.zero_grad()
    assert losses[0] == pytest.approx(losses[2], rel=1e-4)
    for name, gradient in losses[1].items():
        numpy.testing.assert_allclose(gradient, losses[3][name], atol=1e-4)
    assert nlp.update([bare], sgd=False, losses={})["seq2seq_ner"] == 0.0
    assert nlp.update([], losses={}).get("seq2seq_ner", 0.0) == 0.0


def test_the_loss_is_the_mean_log_probability_of_the_gold_spans(bert_folder: str) -> None:
    for key in (None, "sc"):
        nlp = make_generator(bert_folder, key)
        examples = make_examples(nlp)
        head = nlp.get_pipe("seq2seq_ner")
        gold = found([eg.reference for eg in examples], key)
        values = head.log_probabilities([nlp.make_doc(eg.text) for eg in examples], gold)
        loss = nlp.update(examples, losses={}, drop=0.0)["seq2seq_ner"]
        assert loss == pytest.approx(-sum(values) / 3, rel=1e-4)


def test_what_does_not_fit_tokens_or_labels_is_left_out_with_a_warning(
    bert_folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    nlp = make_generator(bert_folder, initialize=False)
    words = Doc(nlp.vocab, words=["lon", "don", "anna"], spaces=[False, True, False])
    words.set_ents([Span(words, 1, 2, "CITY")], default="outside")
    with caplog.at_level("WARNING", "spacy"):
        initialize_nlp(nlp, examples=[*make_examples(nlp), Example(nlp.make_doc("london anna"), words)])
    assert "[H712] seq2seq_ner: 1 texts" in caplog.text
    strange = make_example(nlp, "anna", entities=[(0, 4, "STRANGE")])
    with caplog.at_level("WARNING", "spacy"):
        assert nlp.update([strange], losses={})["seq2seq_ner"] == 0.0
    assert "[H713]" in caplog.text and "'anna' (STRANGE)" in caplog.text


def test_crossing_spans_are_learned_by_pointing_and_left_out_by_markup(
    bert_folder: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def crossing(nlp: Language) -> List[Example]:
        example = make_example(nlp, "anna smith london", spans={"sc": [(0, 10, "A"), (5, 17, "B")]})
        return [example, make_example(nlp, "anna", spans={"sc": [(0, 4, "A")]})]

    settings = {"width": 16, "heads": 2, "lr_scale": 1.0}
    nlp = make_generator(bert_folder, "sc", initialize=False, model=settings)
    initialize_nlp(nlp, examples=crossing(nlp))
    learn(nlp, crossing(nlp), 40, 0.01)
    assert found([nlp("anna smith london")], "sc") == [[(0, 2, "A"), (1, 3, "B")]]
    written = make_model(make_language_model(tmp_path / "t5", "t5"), "sc")
    with caplog.at_level("WARNING", "spacy"):
        written.initialize(lambda: crossing(written))
    assert "[H714] seq2seq_ner: 1 texts" in caplog.text


def test_entities_on_a_doc_and_blocked_tokens_stay(bert_folder: str) -> None:
    nlp = make_generator(bert_folder)
    for words in (["anna", "smith", "is", "in", "london"], ["london"]):
        doc = nlp.get_pipe("transformer")(Doc(nlp.vocab, words=words))
        doc.set_ents([Span(doc, 0, 1, "MINE")], blocked=[doc[i : i + 1] for i in (1,) if i < len(doc)])
        doc = nlp.get_pipe("seq2seq_ner")(doc)
        assert (doc.ents[0].start, doc.ents[0].end, doc.ents[0].label_) == (0, 1, "MINE")
        assert doc.ents[0]._.confidence is None
        assert all(ent.start >= 2 for ent in doc.ents[1:])


def test_groups_are_replaced_and_scores_are_kept_in_their_order(bert_folder: str) -> None:
    nlp = make_generator(bert_folder, "sc", beam_width=6)
    doc = nlp("anna is in new york")
    first = found([doc], "sc")
    assert found([nlp(doc)], "sc") == first and not doc.ents
    group = doc.spans["sc"]
    values = [get_confidence_in(span, "sc") for span in group]
    numpy.testing.assert_allclose(group.attrs["scores"], values, rtol=1e-6)
    head = nlp.get_pipe("seq2seq_ner")
    (readings,) = head.nbest([doc], 6)
    assert found([doc], "sc")[0] == readings[0].spans
    for span, value in zip(group, values):
        place = (span.start, span.end, span.label_)
        exact = sum(math.exp(reading.log_probability) for reading in readings if place in reading.spans)
        assert value == pytest.approx(exact, abs=1e-5)
    probabilities = head.log_probabilities([doc] * len(readings), [reading.spans for reading in readings])
    numpy.testing.assert_allclose(probabilities, [r.log_probability for r in readings], atol=1e-3)


@pytest.mark.parametrize("key", [None, "sc"])
def test_empty_blank_and_long_texts(bert_folder: str, key: Optional[str]) -> None:
    nlp = make_generator(bert_folder, key, model={"width": 16, "heads": 2, "window": 10, "overlap": 4}, beam_width=1)
    texts = ["", " ", "\n\n", "new york " * 40, "x", "anna  \n smith"]
    together = found(nlp.pipe(texts), key)
    assert together[:3] == [[], [], []]
    assert found((nlp(text) for text in texts), key) == together
    for doc in nlp.pipe(texts):
        for span in doc.ents if key is None else doc.spans[key]:
            assert not span[0].is_space and not span[-1].is_space and 0.0 <= span._.confidence <= 1.0
    assert list(nlp.pipe([])) == []


def test_labels_begin_as_what_their_names_mean(bert_folder: str) -> None:
    assert name_words("CREATIVE_WORK") == ["creative", "work"] and name_words("creativeWork") == ["creative", "work"]
    assert name_words("GPE-2") == ["gpe", "2"] and name_words("地名") == ["地名"] and name_words("##") == ["##"]
    nlp = make_generator(bert_folder)
    head = nlp.get_pipe("seq2seq_ner")
    doc = Doc(nlp.vocab, words=["city"])
    with head.encoded([doc]):
        vectors = head.model.predict([doc])[0]
    row = head.model.layers[2].shims[0].module.labels[head.labels.index("CITY")]
    numpy.testing.assert_allclose(row.detach(), vectors.mean(0), atol=1e-5)


def test_labels_may_be_given_and_must_be_all(bert_folder: str) -> None:
    nlp = make_generator(bert_folder, initialize=False)
    nlp.config["initialize"]["components"]["seq2seq_ner"] = {"labels": ["EXTRA", "PERSON", "CITY"]}
    initialize_nlp(nlp)
    assert nlp.get_pipe("seq2seq_ner").labels == ("EXTRA", "PERSON", "CITY")
    nlp = make_generator(bert_folder, initialize=False)
    nlp.config["initialize"]["components"]["seq2seq_ner"] = {"labels": ["PERSON"]}
    with pytest.raises(BertHeadsError, match=r"\[H301\].*CITY"):
        initialize_nlp(nlp)
    nlp = make_generator(bert_folder, initialize=False)
    with pytest.raises(BertHeadsError, match=r"\[H711\].*doc.ents"):
        initialize_nlp(nlp, examples=[make_example(nlp, "anna", entities=[])])


def test_a_label_that_only_dev_has_counts_as_missed(bert_folder: str) -> None:
    nlp = make_generator(bert_folder)
    scores = nlp.evaluate([make_example(nlp, "anna", entities=[(0, 4, "STRANGE")])])
    assert scores["ents_per_type"]["STRANGE"]["r"] == 0.0


def test_two_heads_do_not_write_to_one_place(bert_folder: str) -> None:
    for key, other in ((None, "bert_ner"), ("sc", "spancat")):
        settings = {"seq2seq_ner": {"spans_key": key}}
        nlp = make_nlp(bert_folder, ["seq2seq_ner"], settings=settings, initialize=False)
        nlp.add_pipe(other)
        with pytest.raises(BertHeadsError, match=rf"\[H365\] 'seq2seq_ner' and '{other}'"):
            initialize_nlp(nlp)


def test_it_learns_beside_other_heads_and_may_be_frozen_and_sourced(bert_folder: str, tmp_path: Path) -> None:
    heads = ["bert_textcat", "bert_ner", "seq2seq_ner"]
    nlp = make_nlp(bert_folder, heads, settings={"seq2seq_ner": {"spans_key": "sc"}})
    before = weights(encoder_module(nlp))
    learn(nlp, make_examples(nlp), 3, 0.001)
    assert any(not torch.equal(tensor, before[name]) for name, tensor in weights(encoder_module(nlp)).items())
    head = nlp.get_pipe("seq2seq_ner")
    kept = head.model.layers[1].shims[0].to_bytes(), head.model.layers[2].shims[0].to_bytes()
    sgd = nlp.create_optimizer()
    nlp.update(make_examples(nlp), sgd=sgd, exclude=["seq2seq_ner"])
    assert kept == (head.model.layers[1].shims[0].to_bytes(), head.model.layers[2].shims[0].to_bytes())
    other = spacy.blank("en")
    for name in ("transformer", "seq2seq_ner"):
        other.add_pipe(name, source=nlp)
    texts = [eg.text for eg in make_examples(nlp)]
    assert found(other.pipe(texts), "sc") == found(nlp.pipe(texts), "sc")


def test_reports_show_it_as_entities_or_as_spans(bert_folder: str, tmp_path: Path) -> None:
    for key in (None, "sc"):
        nlp = make_generator(bert_folder, key)
        nlp.to_disk(tmp_path / "model")
        DocBin(docs=[eg.reference for eg in make_examples(nlp)]).to_disk(tmp_path / "test.spacy")
        evaluation = evaluate(str(tmp_path / "model"), tmp_path / "test.spacy")
        assert (evaluation.entities is not None) == (key is None)
        assert bool(evaluation.spans) == (key is not None)
        assert ("ents_f" if key is None else "spans_sc_f") in evaluation.scores


@pytest.mark.parametrize(
    "settings",
    [
        {"loss_weight": -1.0},
        {"beam_width": 0},
        {"spans_key": "incorrect_spans"},
        {"model": {"window": 10, "overlap": 6}},
        {"model": {"width": 10, "heads": 4}},
        {"model": {"depth": 0}},
    ],
)
def test_wrong_settings_are_refused(bert_folder: str, settings: Dict[str, Any]) -> None:
    with pytest.raises(BertHeadsError) as error:
        make_generator(bert_folder, initialize=False, **settings)
    assert error.value.code in ("H273", "H206", "H261")
