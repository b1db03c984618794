"""Several text classifiers as one: each learns by itself, and their logits are averaged."""

from typing import Any, Callable, List, Optional, Tuple, cast

import numpy
from spacy.tokens import Doc
from thinc.api import Model
from thinc.types import Floats2d

from ..errors import BertHeadsError
from ..layers.head_layers import check_sizes
from .head_on_vectors import set_n_labels


def build_text_ensemble_v1(
    *members: Model[List[Doc], Floats2d], exclusive_classes: bool, nO: Optional[int] = None
) -> Model[List[Doc], Floats2d]:
    """The mean of the logits of several text classifiers. Registered as spacy_bert_heads.TextEnsemble.v1.

    The more the members differ, in architecture or only in their initial weights, the more the mean gains. It costs as
    much as all members together. Each member has its own loss; with one loss for their mean, the fastest learner would
    leave nothing for the others to learn. spaCy's `replace_listeners` handles one tok2vec per model, so members over a
    shared encoder keep listening to it.

    *members (Model): Classifiers of this package: TextCNN.v1, BagOfNgrams.v1, PooledClassifier.v1 and so on. In a
        config, one block for each, such as `[components.bert_textcat.model.*.cnn]`; the last part is any name.
    exclusive_classes (bool): Whether exactly one label is true, as for every member.
    nO (Optional[int]): Number of labels, if known.
    RETURNS (Model): Docs to logits, float (n_docs, nO). In training (n_classifiers * n_docs, nO), member after member;
        see n_classifiers.
    RAISES (BertHeadsError): H261 for no members, H265 for one of the other kind.
    """
    check_sizes(members=len(members))
    attrs = {"multi_label": not exclusive_classes, "n_classifiers": sum(map(n_classifiers, members))}
    others = [member.name for member in members if member.attrs["multi_label"] == exclusive_classes]
    if others:
        raise BertHeadsError("H265", found=", ".join(others), expected=exclusive_classes)
    return Model("text_ensemble", _forward, init=_init, layers=members, dims={"nO": nO}, attrs=attrs)


def n_classifiers(model: Model) -> int:
    """How many classifiers a model trains, each with a loss of its own. In training it gives the logits of each of
    them for all Docs, one classifier after another; in prediction their mean.

    RETURNS (int): 1 for any model but an ensemble.
    """
    return model.attrs.get("n_classifiers", 1)


def _forward(model: Model, docs: List[Doc], is_train: bool) -> Tuple[Floats2d, Callable[[Floats2d], List]]:
    outputs = [member(docs, is_train) for member in model.layers]
    xp = model.ops.xp
    # In training a member that is an ensemble itself has more rows than the others
    ends = numpy.cumsum([len(Y) for Y, _ in outputs]).tolist()

    def backprop(dY: Floats2d) -> List:
        for dYi, (_, backprop_member) in zip(xp.split(dY, ends[:-1]), outputs):
            backprop_member(dYi)
        return []

    logits = [Y for Y, _ in outputs]
    return cast(Floats2d, xp.concatenate(logits) if is_train else xp.stack(logits).mean(axis=0)), backprop


def _init(model: Model, X: Optional[List[Doc]] = None, Y: Any = None) -> None:
    set_n_labels(model, Y)
    for member in model.layers:
        member.set_dim("nO", model.get_dim("nO"))
        member.initialize(X)
