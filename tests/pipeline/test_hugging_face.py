"""The numbers of a pipeline against plain Hugging Face, pytorch-crf and torch, given the same weights."""

from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy
import pytest
import torch
from spacy.language import Language
from spacy.training import Example
from thinc.api import SGD, Adam, Optimizer
from torchcrf import CRF
from transformers import AutoModel, BertForSequenceClassification, BertForTokenClassification

from spacy_bert_heads.tags import TagScheme

from ..making import (
    TRAINING,
    assert_close,
    assert_gradients_close,
    crf_module,
    encoder_module,
    gold_tags,
    gradients,
    head_module,
    hf_inputs,
    make_examples,
    make_nlp,
)

PLAIN_NER = {"model": {"lstm_width": None, "crf": None}}
CRF_NER = {"model": {"lstm_width": 8, "lstm_depth": 2, "crf": "pytorch-crf"}}
TEXTS = [text for text, _, _ in TRAINING]
CATS = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
IGNORED = -100


class Reference(torch.nn.Module):
    """BERT and heads in plain Hugging Face and torch, one optional head of each kind."""

    def __init__(self, nlp: Language, folder: str) -> None:
        super().__init__()
        self.bert = AutoModel.from_pretrained(folder).eval()
        self.bert.load_state_dict(encoder_module(nlp).transformer.state_dict())
        self.bert.config.num_labels = 2
        self.heads = torch.nn.ModuleDict()
        for name in nlp.pipe_names[1:]:
            head = head_module(nlp, name)
            modules = torch.nn.ModuleDict({"linear": torch.nn.Linear(*reversed(head.linear.weight.shape))})
            if getattr(head, "lstm", None) is not None:
                modules["lstm"] = torch.nn.LSTM(16, 4, num_layers=2, bidirectional=True, batch_first=True)
            modules.load_state_dict(head.state_dict())
            self.heads[name] = modules
        self.crf = None
        if "bert_ner" in nlp.pipe_names and crf_module(nlp) is not None:
            crf = crf_module(nlp)
            self.crf = CRF(crf.num_tags, batch_first=True)
            self.crf.load_state_dict(crf.state_dict())

    def sequence_model(self, name: str) -> BertForSequenceClassification:
        self.bert.config.problem_type = (
            "single_label_classification" if name == "bert_textcat" else "multi_label_classification"
        )
        model = BertForSequenceClassification(self.bert.config).eval()
        model.bert, model.classifier = self.bert, self.heads[name]["linear"]
        return model

    def token_model(self) -> BertForTokenClassification:
        linear = self.heads["bert_ner"]["linear"]
        self.bert.config.num_labels = linear.out_features
        model = BertForTokenClassification(self.bert.config).eval()
        model.bert, model.classifier = self.bert, linear
        self.bert.config.num_labels = 2
        return model

    def loss(self, nlp: Language) -> torch.Tensor:
        """The sum of the heads' losses, each as Hugging Face or pytorch-crf compute it."""
        inputs = hf_inputs(nlp, TEXTS)
        losses = []
        for name in self.heads:
            if name == "bert_ner" and self.crf is None:
                losses.append(self.token_model()(**inputs, labels=piece_labels(nlp)).loss)
            elif name == "bert_ner":
                losses.append(self.crf_loss(nlp, inputs))
            else:
                gold = CATS.argmax(1) if name == "bert_textcat" else CATS
                losses.append(self.sequence_model(name)(**inputs, labels=gold).loss)
        return torch.stack(losses).sum()

    def emissions(self, nlp: Language, inputs: Any) -> List[torch.Tensor]:
        hidden = self.bert(**inputs).last_hidden_state
        head, emissions = self.heads["bert_ner"], []
        for i, first in enumerate(first_pieces(nlp)):
            vectors = head["lstm"](hidden[i, first].unsqueeze(0))[0]
            emissions.append(head["linear"](vectors))
        return emissions

    def crf_loss(self, nlp: Language, inputs: Any) -> torch.Tensor:
        assert self.crf is not None
        tags = [torch.tensor(tags).unsqueeze(0) for tags in gold_bio(nlp)]
        return -sum(self.crf(e, t) for e, t in zip(self.emissions(nlp, inputs), tags)) / len(tags)


def first_pieces(nlp: Language) -> List[List[int]]:
    """For each token of each text the first wordpiece that shares a character with it, by brute force."""
    found = []
    for text in TEXTS:
        offsets = (
            nlp.get_pipe("transformer").model.shims[0].tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        )
        found.append(
            [
                next(i for i, (a, b) in enumerate(offsets) if max(a, token.idx) < min(b, token.idx + len(token)))
                for token in nlp.make_doc(text)
            ]
        )
    return found


def gold_bio(nlp: Language) -> List[List[int]]:
    tags = nlp.get_pipe("bert_ner").tags  # type: ignore[attr-defined]
    rows = []
    for eg in make_examples(nlp):
        row = [f"{t.ent_iob_}-{t.ent_type_}" if t.ent_type_ else "O" for t in eg.reference]
        rows.append([tags.index(tag) for tag in row])
    return rows


def piece_labels(nlp: Language) -> torch.Tensor:
    labels = torch.full_like(hf_inputs(nlp, TEXTS)["input_ids"], IGNORED)
    for row, (first, tags) in enumerate(zip(first_pieces(nlp), gold_bio(nlp))):
        labels[row, first] = torch.tensor(tags)
    return labels


def make_pair(folder: str, heads: Sequence[str], ner: Optional[Dict[str, Any]] = None) -> Tuple[Language, Reference]:
    nlp = make_nlp(folder, heads, settings={"bert_ner": ner or PLAIN_NER})
    for name in heads:  # away from their small initial values
        for parameter in head_module(nlp, name).parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return nlp, Reference(nlp, folder)


def assert_same_gradients(nlp: Language, reference: Reference) -> None:
    assert_gradients_close(encoder_module(nlp).transformer, reference.bert)
    for name in nlp.pipe_names[1:]:
        assert_gradients_close(head_module(nlp, name), reference.heads[name])
    if reference.crf is not None:
        assert_gradients_close(crf_module(nlp), reference.crf)


@pytest.mark.parametrize("head", ["bert_textcat", "bert_textcat_multilabel"])
def test_logits_equal_bert_for_sequence_classification(bert_folder: str, head: str) -> None:
    nlp, reference = make_pair(bert_folder, [head])
    docs = list(nlp.pipe(TEXTS))
    logits = reference.sequence_model(head)(**hf_inputs(nlp, TEXTS)).logits
    assert_close(nlp.get_pipe(head).model.predict(docs), logits)
    probabilities = logits.softmax(1) if head == "bert_textcat" else logits.sigmoid()
    assert_close([list(doc.cats.values()) for doc in docs], probabilities)


def test_logits_equal_bert_for_token_classification(bert_folder: str) -> None:
    nlp, reference = make_pair(bert_folder, ["bert_ner"])
    logits = reference.token_model()(**hf_inputs(nlp, TEXTS)).logits
    ours = nlp.get_pipe("bert_ner").model.predict(list(nlp.pipe(TEXTS)))
    for row, first in enumerate(first_pieces(nlp)):
        assert_close(ours[row], logits[row, first])


def test_emissions_and_paths_equal_those_of_torch_lstm_and_pytorch_crf(bert_folder: str) -> None:
    nlp, reference = make_pair(bert_folder, ["bert_ner"], CRF_NER)
    docs = list(nlp.pipe(TEXTS))
    theirs = reference.emissions(nlp, hf_inputs(nlp, TEXTS))
    for ours, emissions in zip(nlp.get_pipe("bert_ner").model.predict(docs), theirs):
        assert_close(ours, emissions[0])
    assert reference.crf is not None
    fresh = [nlp.get_pipe("transformer")(nlp.make_doc(text)) for text in TEXTS]
    paths = [prediction.tags.tolist() for prediction in nlp.get_pipe("bert_ner").predict(fresh)]
    assert paths == [reference.crf.decode(emissions)[0] for emissions in theirs]


@pytest.mark.parametrize(
    "heads, ner",
    [
        (["bert_textcat"], None),
        (["bert_textcat_multilabel"], None),
        (["bert_ner"], None),
        (["bert_ner"], CRF_NER),
        (["bert_textcat", "bert_ner"], None),
        (["bert_ner", "bert_textcat_multilabel", "bert_textcat"], CRF_NER),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "crf" if value else "plain",
)
def test_one_step_gives_hugging_faces_loss_and_gradients(bert_folder: str, heads: List[str], ner: Any) -> None:
    nlp, reference = make_pair(bert_folder, heads, ner)
    losses = nlp.update(make_examples(nlp), sgd=False)
    loss = reference.loss(nlp)
    loss.backward()
    assert sum(losses[head] for head in heads) == pytest.approx(float(loss.detach()), abs=1e-5)
    assert_same_gradients(nlp, reference)


def update_with_optimizer(nlp: Language, optimizer: Optimizer) -> None:
    nlp.update(make_examples(nlp), sgd=optimizer)


def update_as_spacy_train(nlp: Language, optimizer: Optimizer) -> None:
    """What spacy.training.loop.train_while_improving does in a step, accumulate_gradient = 1."""
    nlp.update(make_examples(nlp), sgd=False)
    for _, component in nlp.pipeline:
        component.finish_update(optimizer)  # type: ignore[attr-defined]
    optimizer.step_schedules()


def sgd_step(state: Dict[str, Any], name: str, parameter: torch.Tensor, rate: float) -> None:
    parameter -= rate * parameter.grad  # type: ignore[operator]


def adam_step(state: Dict[str, Any], name: str, parameter: torch.Tensor, rate: float) -> None:
    """thinc's Adam, which differs from torch's in where eps stands."""
    gradient = parameter.grad
    m, v, step = state.get(name, (0.0, 0.0, 0))
    m, v, step = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2, step + 1  # type: ignore[operator]
    state[name] = m, v, step
    parameter -= rate * (1 - 0.999**step) ** 0.5 / (1 - 0.9**step) * m / (v.sqrt() + 1e-8)


@pytest.mark.parametrize("update", [update_with_optimizer, update_as_spacy_train])
@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_weights_after_three_steps_equal_those_of_a_torch_loop(bert_folder: str, update: Callable, rule: str) -> None:
    nlp, reference = make_pair(bert_folder, ["bert_textcat", "bert_ner"], CRF_NER)
    rate = 0.01 if rule == "sgd" else 1e-3
    make = SGD if rule == "sgd" else Adam
    optimizer = make(rate, L2=0.0, grad_clip=0.0, use_averages=False)
    state: Dict[str, Any] = {}
    for _ in range(3):
        update(nlp, optimizer)
        reference.zero_grad()
        reference.loss(nlp).backward()
        with torch.no_grad():
            for name, parameter in reference.named_parameters():
                if parameter.grad is not None:
                    scale = 1.0 if name.startswith("bert.") else 20.0
                    (sgd_step if rule == "sgd" else adam_step)(state, name, parameter, rate * scale)
    ours = {f"bert.{n}": p for n, p in encoder_module(nlp).transformer.named_parameters()}
    for head in ("bert_textcat", "bert_ner"):
        ours.update({f"heads.{head}.{n}": p for n, p in head_module(nlp, head).named_parameters()})
    crf = crf_module(nlp)
    ours.update({f"crf.{n}": p for n, p in crf.named_parameters()})
    expected = dict(reference.named_parameters())
    assert set(ours) == set(expected)
    for name, parameter in expected.items():
        # the gradient of a key's bias is zero but for rounding, which Adam blows up
        if not (rule == "adam" and name.endswith("key.bias")):
            assert_close(ours[name], parameter, 1e-5 if rule == "sgd" else 1e-4)


def test_missing_tags_are_left_out_as_hugging_faces_ignored_index_is(bert_folder: str) -> None:
    nlp, reference = make_pair(bert_folder, ["bert_ner"])
    examples = make_examples(nlp)
    examples[1].reference.set_ents([], missing=[examples[1].reference[1:4]], default="unmodified")
    losses = nlp.update(examples, sgd=False)
    labels = piece_labels(nlp)
    labels[1, first_pieces(nlp)[1][1:4]] = IGNORED
    loss = reference.token_model()(**hf_inputs(nlp, TEXTS), labels=labels).loss
    loss.backward()
    assert losses["bert_ner"] == pytest.approx(float(loss.detach()), abs=1e-5)
    assert_same_gradients(nlp, reference)


class Legal(torch.nn.Module):
    """Scores as they are where a scheme allows the step, so low that it never happens elsewhere."""

    def __init__(self, legal: Any) -> None:
        super().__init__()
        self.illegal = ~torch.tensor(legal)

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        return scores.masked_fill(self.illegal, -1e4)


@pytest.mark.parametrize("scheme", ["bio", "bmes"])
def test_the_constrained_crf_is_pytorch_crf_without_illegal_steps(bert_folder: str, scheme: str) -> None:
    settings = {"model": {"lstm_width": 8, "lstm_depth": 2, "crf": "constrained", "scheme": scheme}}
    nlp, reference = make_pair(bert_folder, ["bert_ner"], settings)
    tags = TagScheme(scheme, nlp.get_pipe("bert_ner").labels)  # type: ignore[attr-defined]
    legal = {
        "start_transitions": tags.allowed_start,
        "end_transitions": tags.allowed_end,
        "transitions": tags.allowed_transitions,
    }
    for name, allowed in legal.items():
        torch.nn.utils.parametrize.register_parametrization(reference.crf, name, Legal(allowed))
    losses = nlp.update(make_examples(nlp), sgd=False)
    inputs = hf_inputs(nlp, TEXTS)
    gold = [torch.tensor([gold_tags(eg, tags).tolist()]) for eg in make_examples(nlp)]
    pairs = zip(reference.emissions(nlp, inputs), gold)
    loss = -sum(reference.crf(emissions, row) for emissions, row in pairs) / len(gold)
    loss.backward()
    assert losses["bert_ner"] == pytest.approx(float(loss.detach()), abs=1e-4)
    assert_gradients_close(encoder_module(nlp).transformer, reference.bert, 2e-5)
    assert_gradients_close(head_module(nlp, "bert_ner"), reference.heads["bert_ner"], 2e-5)
    found = gradients(crf_module(nlp))
    for name in legal:
        assert_close(found[name], reference.crf.parametrizations[name].original.grad, 2e-5)


def reject_only(nlp: Language, cats: List[Dict[str, float]]) -> List[Example]:
    return [Example.from_dict(nlp.make_doc(text), {"cats": c}) for text, c in zip(TEXTS, cats)]


def test_rejected_exclusive_label_costs_minus_log_of_one_minus_its_probability(bert_folder: str) -> None:
    nlp, reference = make_pair(bert_folder, ["bert_textcat"])
    losses = nlp.update(reject_only(nlp, [{"TRACK": 0.0}, {"CANCEL": 1.0, "TRACK": 0.0}, {}]), sgd=False)
    probabilities = reference.sequence_model("bert_textcat")(**hf_inputs(nlp, TEXTS)).logits.softmax(1)
    loss = -(torch.log(1 - probabilities[0, 1]) + torch.log(probabilities[1, 0])) / 2
    loss.backward()
    assert losses["bert_textcat"] == pytest.approx(float(loss.detach()), abs=1e-5)
    assert_same_gradients(nlp, reference)


def test_missing_labels_are_left_out_of_binary_cross_entropy(bert_folder: str) -> None:
    nlp, reference = make_pair(bert_folder, ["bert_textcat_multilabel"])
    cats = [{"TRACK": 0.0}, {"CANCEL": 1.0, "TRACK": 1.0}, {}]
    losses = nlp.update(reject_only(nlp, cats), sgd=False)
    logits = reference.sequence_model("bert_textcat_multilabel")(**hf_inputs(nlp, TEXTS)).logits
    known = torch.stack([logits[0, 1], logits[1, 0], logits[1, 1]])
    loss = torch.nn.functional.binary_cross_entropy_with_logits(known, torch.tensor([0.0, 1.0, 1.0]))
    loss.backward()
    assert losses["bert_textcat_multilabel"] == pytest.approx(float(loss.detach()), abs=1e-5)
    assert_same_gradients(nlp, reference)
    assert numpy.isfinite(losses["bert_textcat_multilabel"])
