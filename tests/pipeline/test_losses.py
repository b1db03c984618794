"""Settings of the heads' losses: class weights, smoothing, focal loss, weights between heads."""

from pathlib import Path
from typing import Any, Dict, List

import numpy
import pytest
import spacy
import torch
from sklearn.utils.class_weight import compute_class_weight
from spacy.language import Language
from spacy.training import Example
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from spacy_bert_heads.errors import BertHeadsError

from ..making import crf_module, encoder_module, gradients, head_module, make_example, make_examples, make_nlp

LABELS = ["CANCEL", "TRACK"]
# TRACK is rare
TRUTHS = [0, 0, 0, 1, 0]


def make_unbalanced(nlp: Language) -> List[Example]:
    return [
        make_example(nlp, f"order {i}", cats={name: float(k == truth) for k, name in enumerate(LABELS)})
        for i, truth in enumerate(TRUTHS)
    ]


def make_head(bert_folder: str, head: str, **settings: Any) -> Language:
    nlp = make_nlp(bert_folder, [head], settings={head: settings}, initialize=False)
    spacy.util.fix_random_seed(0)
    nlp.initialize(lambda: make_unbalanced(nlp))
    return nlp


def make_logits() -> torch.Tensor:
    return torch.randn(len(TRUTHS), 2, generator=torch.Generator().manual_seed(0))


def loss_of(nlp: Language, head: str, logits: torch.Tensor) -> float:
    return float(nlp.get_pipe(head).get_loss(make_unbalanced(nlp), logits.numpy())[0])  # type: ignore[attr-defined]


def test_balanced_weights_are_scikit_learns(bert_folder: str, tmp_path: Path) -> None:
    nlp = make_head(bert_folder, "bert_textcat", class_weights="balanced", label_smoothing=0.1)
    weights = compute_class_weight("balanced", classes=numpy.array([0, 1]), y=numpy.array(TRUTHS))
    logits = make_logits()
    expected = cross_entropy(
        logits, torch.tensor(TRUTHS), weight=torch.tensor(weights, dtype=torch.float32), label_smoothing=0.1
    )
    assert loss_of(nlp, "bert_textcat", logits) == pytest.approx(float(expected), rel=1e-5)
    # They are the component's from then on
    nlp.to_disk(tmp_path / "nlp")
    assert loss_of(spacy.load(tmp_path / "nlp"), "bert_textcat", logits) == pytest.approx(float(expected), rel=1e-5)


def test_balanced_weights_of_many_labels_weigh_true_against_false(bert_folder: str) -> None:
    nlp = make_head(bert_folder, "bert_textcat_multilabel", class_weights="balanced")
    logits = make_logits()
    truths = torch.nn.functional.one_hot(torch.tensor(TRUTHS), 2).float()
    expected = binary_cross_entropy_with_logits(logits, truths, pos_weight=torch.tensor([1 / 4, 4 / 1]))
    assert loss_of(nlp, "bert_textcat_multilabel", logits) == pytest.approx(float(expected), rel=1e-5)


def test_weights_can_be_given(bert_folder: str) -> None:
    nlp = make_head(bert_folder, "bert_textcat", class_weights={"TRACK": 5.0})
    logits = make_logits()
    expected = cross_entropy(logits, torch.tensor(TRUTHS), weight=torch.tensor([1.0, 5.0]))
    assert loss_of(nlp, "bert_textcat", logits) == pytest.approx(float(expected), rel=1e-5)
    config = nlp.config["components"]["bert_textcat"]
    assert config["class_weights"] == {"TRACK": 5.0}


@pytest.mark.parametrize(
    ("head", "settings", "code"),
    [
        ("bert_textcat", {"class_weights": {"NEVER": 1.0}}, "H320"),
        ("bert_textcat", {"class_weights": "ballanced"}, "H273"),
        ("bert_textcat_multilabel", {"class_weights": {"TRACK": -1.0}}, "H273"),
        ("bert_textcat_multilabel", {"label_smoothing": 1.0}, "H273"),
        ("bert_textcat", {"focal_gamma": -1.0}, "H273"),
        ("bert_textcat", {"loss_weight": -1.0}, "H273"),
        ("bert_ner", {"loss_weight": -1.0}, "H273"),
        ("bert_spans", {"loss_weight": -1.0}, "H273"),
    ],
)
def test_settings_that_make_no_sense_are_named(
    bert_folder: str, head: str, settings: Dict[str, Any], code: str
) -> None:
    with pytest.raises(BertHeadsError, match=code):
        make_head(bert_folder, head, **settings)


@pytest.mark.parametrize("crf", ["constrained", "pytorch-crf", None])
def test_a_heads_weight_multiplies_its_gradients_and_not_its_loss(bert_folder: str, crf: Any) -> None:
    found = []
    for textcat, ner in ((1.0, 0.0), (0.0, 1.0), (3.0, 0.5)):
        settings: Dict[str, Any] = {
            "bert_textcat": {"loss_weight": textcat},
            "bert_ner": {"loss_weight": ner, "model": {"lstm_width": 8, "crf": crf}},
        }
        nlp = make_nlp(bert_folder, settings=settings)
        losses = nlp.update(make_examples(nlp), sgd=False)
        nlp.get_pipe("transformer")._finish_pending()  # type: ignore[attr-defined]
        modules = {"encoder": encoder_module(nlp), "tagger": head_module(nlp, "bert_ner")}
        if crf is not None:
            modules["crf"] = crf_module(nlp)
        grads = {f"{part}.{n}": g for part, module in modules.items() for n, g in gradients(module).items()}
        found.append((losses, grads))
    (one, of_textcat), (two, of_ner), (both, of_both) = found
    for head in ("bert_textcat", "bert_ner"):
        assert one[head] == pytest.approx(two[head]) == pytest.approx(both[head])
    for name, gradient in of_both.items():
        expected = sum(weight * grads[name] for weight, grads in ((3.0, of_textcat), (0.5, of_ner)) if name in grads)
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)
