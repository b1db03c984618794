"""The one way our heads learn from a batch."""

from typing import Any, Dict, Iterable, Optional

from spacy.training import Example, validate_examples
from thinc.api import Optimizer, set_dropout_rate


def update_head(
    head: Any,
    examples: Iterable[Example],
    *,
    drop: float,
    sgd: Optional[Optimizer],
    losses: Optional[Dict[str, float]],
) -> Dict[str, float]:
    """Forward pass, loss, backward pass. As spaCy's components do it, but a batch of empty Docs counts as well.

    head (Any): A component with `model` and `get_loss`.
    examples (Iterable[Example]): The batch.
    drop (float): The head's dropout.
    sgd (Optional[Optimizer]): Steps the head at once.
    losses (Optional[Dict[str, float]]): Gets the loss under the component's name.
    RETURNS (Dict[str, float]): The losses.
    """
    examples = list(examples)
    validate_examples(examples, f"{type(head).__name__}.update")
    losses = {} if losses is None else losses
    losses.setdefault(head.name, 0.0)
    if not examples:
        return losses
    set_dropout_rate(head.model, drop)
    scores, backprop = head.model.begin_update([eg.predicted for eg in examples])
    loss, d_scores = head.get_loss(examples, scores)
    backprop(d_scores)
    if sgd not in (None, False):
        head.finish_update(sgd)
    losses[head.name] += loss
    return losses
