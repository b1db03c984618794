"""`bert_textcat` and `bert_textcat_multilabel`: spaCy's text categorizers with Hugging Face's losses.

Labels, `add_label` and most of `initialize` are spaCy's; what differs is here.
"""

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Dict, FrozenSet, Iterable, List, Optional, Set, Tuple, Union, cast

import numpy
import torch
from spacy.language import Language
from spacy.pipeline.textcat import TextCategorizer
from spacy.pipeline.textcat_multilabel import MultiLabel_TextCategorizer
from spacy.tokens import Doc
from spacy.training import Example, validate_examples
from spacy.util import logger
from spacy.vocab import Vocab
from thinc.api import Model
from thinc.types import Floats2d
from thinc.util import torch2xp, xp2torch

from ..errors import BertHeadsError
from ..extensions import CATS_SET_NAME, CHOSEN_NAME
from ..layers.class_losses import BALANCED, LossSettings, exclusive_loss, multilabel_loss
from .base import Head, example_weights
from .fitted import AROUND, FITTED, label_thresholds

if TYPE_CHECKING:

    class _Base(Head, TextCategorizer): ...

else:
    _Base = Head


class TextHead(_Base):
    """What the text heads share: the model gives logits, every Doc is classified, empty ones too."""

    loss_settings: LossSettings
    # Labels that the data has and the component does not, once it has said so
    _warned: FrozenSet[str] = frozenset()

    def _probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _balanced_weights(self, n_true: numpy.ndarray, n_known: numpy.ndarray) -> numpy.ndarray:
        raise NotImplementedError

    def _loss(
        self, logits: torch.Tensor, truths: torch.Tensor, known: torch.Tensor, shares: Optional[torch.Tensor]
    ) -> torch.Tensor:
        raise NotImplementedError

    def predict(self, docs: Iterable[Doc]) -> Floats2d:
        """Probabilities of each label. Float, (n_docs, n_labels)."""
        docs = list(docs)
        if not docs:
            return self.model.ops.alloc2f(0, len(self.labels))
        logits = xp2torch(self.run_model(docs))
        if self.observer is not None:
            self.observer(docs, logits.cpu().numpy())
        return self.to_probabilities(logits)

    def to_probabilities(self, logits: torch.Tensor) -> Floats2d:
        """RETURNS (Floats2d): What `predict` makes of logits, at the head's temperature. Float, (n_docs, n_labels)."""
        return cast(Floats2d, self._probabilities(self._tempered(logits)).cpu().numpy())

    def set_annotations(self, docs: Iterable[Doc], scores: Floats2d) -> None:
        """Write the probabilities, and the labels that are chosen. scores: what `predict` gave for the Docs."""
        docs = list(docs)
        super().set_annotations(docs, scores)
        self._choose(docs, scores)
        self.release(docs)

    def _tempered(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits at the head's temperature."""
        return logits

    def _choose(self, docs: List[Doc], scores: Floats2d) -> None:
        """Write the labels whose probability reaches their thresholds, and those in the set, if there are to be sets.
        Labels of other heads on the Docs stay.
        """
        own = set(self.labels)
        labels = numpy.array(self.labels, dtype=object)
        found = numpy.asarray(scores, dtype="float64").reshape(len(docs), len(labels))
        order = numpy.argsort(-found, axis=1, kind="stable")
        ranked, chosen = labels[order], numpy.take_along_axis(self._chosen(found), order, axis=1)
        written = {CHOSEN_NAME: chosen}
        if self.coverage is not None:
            written[CATS_SET_NAME] = numpy.take_along_axis(found >= self.coverage.threshold, order, axis=1)
        for name, wanted in written.items():
            for doc, row, there in zip(docs, ranked, wanted):
                others = [label for label in doc._.get(name) or () if label not in own]
                doc._.set(name, others + row[there].tolist())

    def _chosen(self, scores: numpy.ndarray) -> numpy.ndarray:
        """Bool, (n_docs, n_labels)."""
        return scores >= label_thresholds(self.cfg, list(self.labels))

    def get_loss(self, examples: Iterable[Example], scores: Floats2d) -> Tuple[float, Floats2d]:  # type: ignore[override]
        """The loss of a batch, a mean as in Hugging Face's models, and its gradient times the head's `loss_weight`.

        examples (Iterable[Example]): The batch. Missing categories neither help nor hurt. Of a Doc with `doc._.silver`
            only this share of its loss counts.
        scores (Floats2d): The model's logits. Float, (n_docs, n_labels).
        RETURNS (Tuple[float, Floats2d]): The loss in nats and its gradient for the logits.
        """
        examples = list(examples)
        validate_examples(examples, f"{type(self).__name__}.get_loss")
        self._validate_categories(examples)
        self._warn_of_unknown(examples)
        logits = xp2torch(scores).detach().requires_grad_(True)
        loss = self.loss_function(examples)(logits)
        if not loss.requires_grad:
            return 0.0, scores * 0
        (loss * self.loss_settings.loss_weight).backward()
        return float(loss.detach()), cast(Floats2d, torch2xp(cast(torch.Tensor, logits.grad)))

    def loss_function(self, examples: List[Example]) -> Callable[[torch.Tensor], torch.Tensor]:
        """The loss of a batch, of which the annotation is read once.

        examples (List[Example]): What is true.
        RETURNS (Callable[[torch.Tensor], torch.Tensor]): Takes logits, float (n_docs, n_labels), and gives their
            loss in nats, without `loss_weight`.
        """
        targets = self._targets(examples)
        weights = example_weights(examples)

        def loss(logits: torch.Tensor) -> torch.Tensor:
            truths, known = (torch.from_numpy(array).to(logits.device) for array in targets)
            return self._loss(logits, truths, known, None if weights is None else logits.new_tensor(weights))

        return loss

    def is_annotated(self, example: Example) -> bool:
        """RETURNS (bool): Whether anything is known of an Example that this head can learn."""
        return bool(self._targets([example])[1].any())

    def count_labels(self, examples: Iterable[Example]) -> numpy.ndarray:
        """RETURNS (numpy.ndarray): Of how many Examples each label is known to hold. Int, (n_labels,)."""
        truths, known = self._targets(list(examples))
        return ((truths > 0.5) & known).sum(axis=0)

    def only_classes(self, examples: Iterable[Example]) -> List[Optional[int]]:
        """RETURNS (List[Optional[int]]): For each Example the number of its class, where exactly one label can hold
        and is known; otherwise None.
        """
        return [None for _ in examples]

    def _unknown_labels(self, example: Example) -> List[str]:
        """Categories that an Example says hold, and that the component cannot learn."""
        return [label for label, value in example.reference.cats.items() if value > 0.5 and label not in self.labels]

    def _warn_of_unknown(self, examples: List[Example]) -> None:
        """Log each label once, with how often the first batch that has it says so: as a warning of spaCy's logger."""
        found = [self._unknown_labels(eg) for eg in examples]
        counts = Counter(label for labels in found for label in labels)
        new = counts.keys() - self._warned
        if new:
            self._warned = self._warned | new
            labels = ", ".join(f"{label} ({counts[label]})" for label in sorted(new))
            n_texts = sum(bool(new.intersection(labels)) for labels in found)
            logger.warning(BertHeadsError("H350", component=self.name, found=n_texts, labels=labels).text)

    def _targets(self, examples: List[Example]) -> Tuple[numpy.ndarray, numpy.ndarray]:
        """Gold values and whether they are known. Float and bool, (n_docs, n_labels)."""
        values = numpy.array(
            [[eg.reference.cats.get(label, numpy.nan) for label in self.labels] for eg in examples], dtype="float32"
        ).reshape(len(examples), len(self.labels))
        known = ~numpy.isnan(values)
        return numpy.where(known, values, numpy.float32(0)), known

    def _set_class_weights(self, get_examples: Callable[[], Iterable[Example]]) -> None:
        """Find the weights of the labels once; they are saved with the component.

        RAISES (BertHeadsError): H320 for weights of labels that there are not.
        """
        given = self.loss_settings.class_weights
        if isinstance(given, dict):
            unknown = set(given) - set(self.labels)
            if unknown:
                raise BertHeadsError("H320", component=self.name, found=", ".join(sorted(unknown)))
            self.cfg["class_weights"] = [given.get(label, 1.0) for label in self.labels]
        elif given == BALANCED:
            n_true = numpy.zeros(len(self.labels))
            n_known = numpy.zeros(len(self.labels))
            for eg in get_examples():
                values, known = self._targets([eg])
                n_true += values[0]
                n_known += known[0]
            weights = self._balanced_weights(n_true, n_known)
            # A label of which nothing is known, or with nothing to weigh against, weighs as much as any
            self.cfg["class_weights"] = numpy.where(numpy.isfinite(weights) & (weights > 0), weights, 1.0).tolist()

    def _class_weights(self, logits: torch.Tensor) -> Optional[torch.Tensor]:
        """Of each label, where the logits are. Float, (n_labels,)."""
        weights = self.cfg.get("class_weights")
        return None if weights is None else logits.new_tensor(weights)

    def _prepare(
        self,
        get_examples: Callable[[], Iterable[Example]],
        labels: Optional[Iterable[str]],
        vocab: Optional[Union[str, Path]],
    ) -> Set[str]:
        """Show the whole corpus to whatever learns a vocabulary from it, and check that there are labels and
        that given ones cover the data.

        RETURNS (Set[str]): All labels there will be.
        RAISES (BertHeadsError): H301 if the data has labels that are not among the given ones, H304 if there are none.
        """
        self.forget_fitted()
        self.learn_vocabulary(get_examples, vocab)
        found = {label for eg in get_examples() for label in eg.reference.cats}
        known = {*(labels or ()), *self.labels}
        if labels is not None and found - known:
            raise BertHeadsError("H301", found=", ".join(sorted(found - known)), component=self.name)
        if not found | known:
            raise BertHeadsError("H304", component=self.name)
        return found | known


def temper_around(logits: torch.Tensor, temperatures: torch.Tensor, threshold: float) -> torch.Tensor:
    """Divide logits by temperatures, but keep the one at a threshold, and so every decision there.

    logits (torch.Tensor): Float, (n_docs, n_labels).
    temperatures (torch.Tensor): Above 0. Float, (n_labels,).
    threshold (float): The probability that stays. With 0 or 1, where there is no decision, it is 0.5.
    RETURNS (torch.Tensor): Float, (n_docs, n_labels).
    """
    middle = math.log(threshold / (1.0 - threshold)) if 0.0 < threshold < 1.0 else 0.0
    return middle + (logits - middle) / temperatures


def check_exclusive(model: Model, exclusive: bool, name: str) -> None:
    """RAISES (BertHeadsError): H217 if a model was made for the other kind of classes."""
    if model.attrs.get("multi_label", not exclusive) == exclusive:
        raise BertHeadsError("H217", found=not exclusive, expected=exclusive, component=name)


class BertTextCategorizer(TextHead, TextCategorizer):
    """Text classification with exclusive classes: softmax and cross-entropy over the pooled [CLS].

    vocab (Vocab): The shared vocabulary.
    model (Model): Docs to logits, such as spacy_bert_heads.PooledClassifier.v1 with exclusive_classes = true.
    name (str): The component's name.
    threshold (float): Where no label reaches this probability, the head abstains: `doc._.cats_chosen` is empty.
        Scorers and `doc.cats` know nothing of it.
    scorer (Optional[Callable]): The scoring method.
    loss (LossSettings): How it learns.
    RAISES (BertHeadsError): H217 if the model was made for classes that are not exclusive; H273 for settings of the
        loss that make no sense.
    """

    def __init__(
        self,
        vocab: Vocab,
        model: Model,
        name: str,
        *,
        threshold: float,
        scorer: Optional[Callable],
        loss: LossSettings,
    ) -> None:
        check_exclusive(model, True, name)
        loss.check()
        super().__init__(vocab, model, name, threshold=threshold, scorer=scorer)
        self.cfg.update(dict.fromkeys(FITTED))
        self.loss_settings = loss

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Optional[Language] = None,
        labels: Optional[Iterable[str]] = None,
        positive_label: Optional[str] = None,
        vocab: Optional[Union[str, Path]] = None,
    ) -> None:
        """As spaCy's `textcat`, and `vocab`: for a private encoder from scratch, see BertEncoder.initialize.

        RAISES (BertHeadsError): H301 if the data has labels that are not among the given ones, H303 if there is one
            label only, H304 if there is none.
        """
        labels = None if labels is None else list(labels)
        all_labels = self._prepare(get_examples, labels, vocab)
        if len(all_labels) < 2:
            raise BertHeadsError("H303", found=", ".join(all_labels), component=self.name)
        super().initialize(get_examples, nlp=nlp, labels=labels, positive_label=positive_label)
        self._set_class_weights(get_examples)

    def only_classes(self, examples: Iterable[Example]) -> List[Optional[int]]:
        truths, known = self._targets(list(examples))
        holds = (truths > 0.5) & known
        return [int(row.argmax()) if row.sum() == 1 else None for row in holds]

    def _probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.softmax(dim=1)

    def _tempered(self, logits: torch.Tensor) -> torch.Tensor:
        return logits if self.temperature is None else logits / cast(float, self.temperature)

    def _chosen(self, scores: numpy.ndarray) -> numpy.ndarray:
        """The best label, unless it is below its threshold."""
        best = scores.argmax(1)[:, None] == numpy.arange(scores.shape[1])
        return best & super()._chosen(scores)

    def _targets(self, examples: List[Example]) -> Tuple[numpy.ndarray, numpy.ndarray]:
        """As the others', but nothing is known of a Doc whose true label the component does not have: that the others
        do not hold says nothing about those that are left.
        """
        truths, known = super()._targets(examples)
        known[[bool(self._unknown_labels(eg)) for eg in examples]] = False
        return truths, known

    def _balanced_weights(self, n_true: numpy.ndarray, n_known: numpy.ndarray) -> numpy.ndarray:
        """All Docs weigh together as much as without weights, and each label as much as any: as scikit-learn's."""
        with numpy.errstate(divide="ignore"):
            return n_true.sum() / (len(n_true) * n_true)

    def _loss(
        self, logits: torch.Tensor, truths: torch.Tensor, known: torch.Tensor, shares: Optional[torch.Tensor]
    ) -> torch.Tensor:
        """-log of the probability that the label is among those the annotation allows, mean over annotated Docs.

        One label known to be true: cross-entropy. None, but some known to be false, as after a reject in a binary
        question: -log(1 - p), p being theirs. A Doc with all labels false allows none and is left out.

        SOURCE: for complementary labels Ishida et al. (2017) ask the question; the likelihood is the plain one.
        """
        true = truths > 0.5
        allowed = torch.where(true.any(dim=1, keepdim=True), true, ~known)
        used = known.any(dim=1) & allowed.any(dim=1)
        if not bool(used.any()):
            return logits.new_zeros(())
        return exclusive_loss(
            logits[used],
            allowed[used],
            weights=self._class_weights(logits),
            label_smoothing=self.loss_settings.label_smoothing,
            focal_gamma=self.loss_settings.focal_gamma,
            shares=None if shares is None else shares[used],
        )


class BertMultiLabelTextCategorizer(TextHead, MultiLabel_TextCategorizer):
    """Text classification with any number of true labels: sigmoid and binary cross-entropy over the pooled [CLS].

    vocab (Vocab): The shared vocabulary.
    model (Model): Docs to logits, such as spacy_bert_heads.PooledClassifier.v1 with exclusive_classes = false.
    name (str): The component's name.
    threshold (float): Probability from which a label is chosen, in `doc._.cats_chosen` and by the scorer.
    scorer (Optional[Callable]): The scoring method.
    loss (LossSettings): How it learns.
    RAISES (BertHeadsError): H217 if the model was made for exclusive classes; H273 for settings of the loss that make
        no sense.
    """

    def __init__(
        self,
        vocab: Vocab,
        model: Model,
        name: str,
        *,
        threshold: float,
        scorer: Optional[Callable],
        loss: LossSettings,
    ) -> None:
        check_exclusive(model, False, name)
        loss.check()
        super().__init__(vocab, model, name, threshold=threshold, scorer=scorer)
        self.cfg.update(dict.fromkeys(FITTED))
        self.loss_settings = loss

    def initialize(  # type: ignore[override]
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Optional[Language] = None,
        labels: Optional[Iterable[str]] = None,
        vocab: Optional[Union[str, Path]] = None,
    ) -> None:
        """As spaCy's `textcat_multilabel`, and `vocab`: see BertTextCategorizer.initialize."""
        labels = None if labels is None else list(labels)
        self._prepare(get_examples, labels, vocab)
        super().initialize(get_examples, nlp=nlp, labels=labels)
        self._set_class_weights(get_examples)

    def _probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.sigmoid()

    def _tempered(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits at the temperature of each label, measured from the threshold: what is above it stays above."""
        if self.temperature is None:
            return logits
        given = cast(Dict[str, float], self.temperature)
        temperatures = logits.new_tensor([given.get(label, 1.0) for label in self.labels])
        return temper_around(logits, temperatures, self.cfg.get(AROUND, 0.5))

    def _balanced_weights(self, n_true: numpy.ndarray, n_known: numpy.ndarray) -> numpy.ndarray:
        """A label weighs as much where it is true as where it is false."""
        with numpy.errstate(divide="ignore", invalid="ignore"):
            return (n_known - n_true) / n_true

    def _loss(
        self, logits: torch.Tensor, truths: torch.Tensor, known: torch.Tensor, shares: Optional[torch.Tensor]
    ) -> torch.Tensor:
        """Binary cross-entropy, mean over the labels that are known."""
        if not bool(known.any()):
            return logits.new_zeros(())
        return multilabel_loss(
            logits,
            truths,
            known,
            weights=self._class_weights(logits),
            label_smoothing=self.loss_settings.label_smoothing,
            focal_gamma=self.loss_settings.focal_gamma,
            shares=shares,
        )
