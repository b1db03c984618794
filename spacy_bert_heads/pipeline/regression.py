"""`bert_regression`: numbers in `doc.cats` in place of categories, as BertForSequenceClassification learns them."""

import math
from numbers import Real
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Optional, Union

import numpy
import torch
from spacy.language import Language
from spacy.pipeline.textcat_multilabel import MultiLabel_TextCategorizer
from spacy.tokens import Doc
from spacy.training import Example
from spacy.vocab import Vocab
from thinc.api import Model
from thinc.types import Floats2d

from ..errors import BertHeadsError
from ..layers.class_losses import LossSettings
from .textcat import TextHead, check_exclusive


class BertRegressor(TextHead, MultiLabel_TextCategorizer):
    """One or several numbers per text, by mean squared error over whatever the head makes of a Doc.

    vocab (Vocab): The shared vocabulary.
    model (Model): Docs to numbers, such as spacy_bert_heads.PooledClassifier.v1 with exclusive_classes = false.
    name (str): The component's name.
    loss_weight (float): Weight of this head's loss beside those of the other heads.
    scorer (Optional[Callable]): The scoring method.
    RAISES (BertHeadsError): H217 if the model was made for exclusive classes, H273 for a negative weight.
    """

    def __init__(
        self, vocab: Vocab, model: Model, name: str, *, loss_weight: float, scorer: Optional[Callable]
    ) -> None:
        check_exclusive(model, False, name)
        loss = LossSettings(class_weights=None, label_smoothing=0.0, focal_gamma=0.0, loss_weight=loss_weight)
        loss.check()
        super().__init__(vocab, model, name, threshold=0.0, scorer=scorer)
        self.loss_settings = loss

    def initialize(  # type: ignore[override]
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Optional[Language] = None,
        labels: Optional[Iterable[str]] = None,
        vocab: Optional[Union[str, Path]] = None,
    ) -> None:
        """As spaCy's `textcat_multilabel`, the labels being the names of the targets. vocab: for a private encoder
        from scratch, see BertEncoder.initialize.

        RAISES (BertHeadsError): H301 if the data has targets that are not among the given ones, H304 if there are
            none, H305 if one is not a finite number.
        """
        labels = None if labels is None else list(labels)
        self._prepare(get_examples, labels, vocab)
        self._validate_categories(get_examples())
        super().initialize(get_examples, nlp=nlp, labels=labels)

    def score(self, examples: Iterable[Example], **kwargs: Any) -> Dict[str, Any]:
        """Score a batch of predicted and gold Docs.

        RAISES (BertHeadsError): H305 if a gold target is not a finite number.
        """
        examples = list(examples)
        self._validate_categories(examples)
        return super().score(examples, **kwargs)

    def _validate_categories(self, examples: Iterable[Example]) -> None:
        for eg in examples:
            for label, value in eg.reference.cats.items():
                if not isinstance(value, Real) or not math.isfinite(value):
                    text = eg.reference.text[:60]
                    raise BertHeadsError("H305", found=repr(value), label=label, component=self.name, text=text)

    def count_labels(self, examples: Iterable[Example]) -> numpy.ndarray:
        """RETURNS (numpy.ndarray): Of how many Examples each number is known. Int, (n_labels,)."""
        return self._targets(list(examples))[1].sum(axis=0)

    def _unknown_labels(self, example: Example) -> List[str]:
        return [label for label in example.reference.cats if label not in self.labels]

    def _probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """The numbers as they are."""
        return logits

    def _choose(self, docs: List[Doc], scores: Floats2d) -> None:
        """Numbers are no labels to choose from."""

    def _loss(
        self, logits: torch.Tensor, truths: torch.Tensor, known: torch.Tensor, shares: Optional[torch.Tensor]
    ) -> torch.Tensor:
        """Mean squared error over the targets that are known."""
        if not bool(known.any()):
            return logits.new_zeros(())
        losses = (logits - truths).square()
        return (losses if shares is None else losses * shares[:, None])[known].mean()
