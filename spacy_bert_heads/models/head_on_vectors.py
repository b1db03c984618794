"""What every architecture of a head is made of: whatever gives vectors at `model.tok2vec`, and a layer on top."""

from typing import Any, Callable, List, Optional, Tuple

from spacy.tokens import Doc
from thinc.api import Model


def forward(model: Model, docs: List[Doc], is_train: bool) -> Tuple[Any, Callable[[Any], Any]]:
    """tok2vec and head; a CRF takes part through loss and decoding only, which belong to the component."""
    tok2vec, head = model.layers[:2]
    X, bp_tok2vec = tok2vec(docs, is_train)
    Y, bp_head = head(X, is_train)
    return Y, lambda dY: bp_tok2vec(bp_head(dY))


def forward_tokens(model: Model, docs: List[Doc], is_train: bool) -> Tuple[Any, Callable[[Any], Any]]:
    """As forward, for token vectors, which spaCy's own tok2vecs cannot make of Docs that are all empty."""
    if any(len(doc) for doc in docs):
        return forward(model, docs, is_train)
    head = model.layers[1]
    return head([model.ops.alloc2f(0, head.get_dim("nI")) for _ in docs], is_train)


def init(model: Model, X: Optional[List[Doc]] = None, Y: Any = None) -> None:
    """Sizes from below (the vectors' width) and above (the labels)."""
    set_n_labels(model, Y)
    tok2vec, head = model.layers[:2]
    tok2vec.initialize(X)
    head.set_dim("nI", tok2vec.get_dim("nO"))
    for layer in model.layers[1:]:
        layer.set_dim("nO", model.get_dim("nO"))
        layer.initialize()


def set_n_labels(model: Model, Y: Any) -> None:
    """Dim nO, unless the component has set it, as seen in Y."""
    if model.has_dim("nO") is None and Y is not None:
        model.set_dim("nO", Y.shape[1])
