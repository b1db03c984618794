"""A text head that begins with what its encoder knows already, before everything learns together.

The vectors of a pretrained encoder tell texts apart before any training, but a new head is random, and with few texts
the training is over before it has caught up. So, where there are few, the encoder first learns which of them belong
together, since pairs of texts say more than texts, and then the head is fitted to the texts' vectors.
"""

import random
from collections import defaultdict
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from typing import Any, Callable, Dict, Iterable, Iterator, List, Tuple, cast

import numpy
import torch
from spacy.language import Language
from spacy.training import Example
from spacy.util import logger, minibatch, registry, resolve_dot_names
from thinc.util import torch2xp, xp2torch
from tqdm import tqdm

from ..corpus.sampling import EvenSample
from ..layers.contrastive import contrastive_loss
from ..pipeline.textcat import TextHead
from .count_steps import OPTIMIZER
from .fit_config import SCRATCH_ARCHITECTURE

CLASSIFIER = "pooled_classifier"
# Texts whose vectors a head is fitted to, at most
MOST_TEXTS = 2000
# Texts for each label, the median over the labels, up to which a head gets a start; with more it needs none
FEW = 64
# Times each text is compared, and texts compared, at most
EPOCHS, MOST_COMPARED = 10, 6000
PAIRS = 16
# How freely weights grow in the fit, as scikit-learn's C, for vectors whose mean length is 1
FREEDOM = 10.0
LBFGS_STEPS = 200
READ_AT_ONCE = 64
_PAUSED: ContextVar[bool] = ContextVar("no_head_start", default=False)


def build_head_start_v1() -> Callable[[Language], Language]:
    """For [initialize.after_init]: fits new text heads to the vectors of an encoder that is pretrained. Registered as
    spacy_bert_heads.head_start.v1.

    A head gets it if half of its labels have 64 texts or fewer. Where classes are exclusive, the encoder first learns
    with a contrastive loss over pairs of texts (Tunstall et al. 2022, SetFit, with the loss of Khosla et al. 2020).
    Then each enabled text head of PooledClassifier.v1 gets the weights that minimise its own loss plus a penalty, over
    the vectors of 2,000 training texts at most: logistic regression, or with `bert_regression` ridge regression. Heads
    and encoders that are frozen, or that come from another pipeline, stay as they are; so does an encoder from
    scratch, which knows nothing yet.

    RETURNS (Callable[[Language], Language]): The callback.
    """
    return give_head_start


def give_head_start(nlp: Language) -> Language:
    """Fit the text heads of a pipeline that has just been initialised; see build_head_start_v1."""
    if _PAUSED.get():
        return nlp
    heads: List[Any] = [pipe for name, pipe in nlp.pipeline if _can_be_fitted(nlp, name, pipe)]
    if not heads:
        return nlp
    seed = nlp.config.interpolate()["training"]["seed"] or 0
    examples, n_texts = _read_corpus(nlp, seed)
    for head in heads:
        known = [eg for eg in examples if head.is_annotated(eg)]
        if len(known) > 1 and numpy.median(head.count_labels(known)) * n_texts / len(examples) <= FEW:
            _contrast(nlp, head, known, seed)
            fit_head(head, known)
            logger.info("Head start: %s is fitted to %d texts", head.name, len(known))
    return nlp


@contextmanager
def no_head_start() -> Iterator[None]:
    """Within it nothing is fitted: for those who initialise a pipeline only to see whether it can be."""
    token = _PAUSED.set(True)
    try:
        yield
    finally:
        _PAUSED.reset(token)


def fit_head(head: Any, examples: List[Example]) -> None:
    """Replace the weights of a text head by those that fit the vectors of texts best.

    head (Any): A text head of PooledClassifier.v1.
    examples (List[Example]): Annotated for this head.
    """
    vectors = torch.cat([xp2torch(found) for found in _vectors(head, examples)]).float()
    module = head.model.get_ref("output_layer").shims[0].module
    if module.standardizer is not None:
        module.standardizer.take(vectors)
        vectors = module.standardizer.eval()(vectors)
    length = vectors.norm(dim=1).mean().clamp(min=1e-6)
    vectors = vectors / length
    weight = torch.zeros_like(module.linear.weight).requires_grad_(True)
    bias = torch.zeros_like(module.linear.bias).requires_grad_(True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=LBFGS_STEPS, line_search_fn="strong_wolfe")
    loss_function = head.loss_function(examples)

    def loss() -> Any:
        optimizer.zero_grad()
        total = loss_function(vectors @ weight.T + bias)
        total = total + weight.square().sum() / (2.0 * FREEDOM * len(examples))
        total.backward()
        return total

    optimizer.step(loss)
    with torch.no_grad():
        module.linear.weight.copy_(weight / length)
        module.linear.bias.copy_(bias)


def _can_be_fitted(nlp: Language, name: str, pipe: Any) -> bool:
    """Whether a component is a head of a linear layer over an encoder that is pretrained."""
    if not isinstance(pipe, TextHead) or pipe.model.name != CLASSIFIER:
        return False
    names = [name] if pipe.encoder is None else [name, pipe.encoder.name]
    return all(SCRATCH_ARCHITECTURE not in str(nlp.config["components"].get(name)) for name in names)


def _read_corpus(nlp: Language, seed: int) -> Tuple[List[Example], int]:
    """An even sample of the training corpus, and how many texts that has. Empty if it cannot be read, about which
    spaCy itself complains later.
    """
    config = nlp.config.interpolate()
    training = config["training"]
    sample: EvenSample[Example] = EvenSample(MOST_TEXTS, seed)
    # A streamed one may have no end
    most = MOST_TEXTS if training["max_epochs"] < 0 else None
    try:
        (corpus,) = resolve_dot_names(config, [training["train_corpus"]])
        for eg in islice(corpus(nlp), most):
            sample.offer(eg)
    except (OSError, ValueError):
        return [], 0
    return sample.kept, sample.seen


def _vectors(head: Any, examples: Iterable[Example]) -> Iterator[Any]:
    """What a head's linear layer reads, in batches. Float, (n_docs, width)."""
    for batch in minibatch(examples, READ_AT_ONCE):
        docs = [eg.predicted for eg in batch]
        with head.encoded(docs):
            yield head.model.get_ref("tok2vec").predict(docs)


def _contrast(nlp: Language, head: Any, examples: List[Example], seed: int) -> None:
    """Teach a head's encoder which texts belong together, if their classes exclude each other."""
    enabled = [pipe for _, pipe in nlp.pipeline]
    if head.encoder is not None and head.encoder not in enabled:
        return
    groups: Dict[int, List[Example]] = defaultdict(list)
    for eg, label in zip(examples, head.only_classes(examples)):
        if label is not None:
            groups[label].append(eg)
    n_texts = sum(map(len, groups.values()))
    if len(groups) < 2:
        return
    draw = random.Random(seed)
    n_steps = -(-min(EPOCHS * n_texts, MOST_COMPARED) // (2 * PAIRS))
    sgd = _make_optimizer(nlp, n_steps)
    tok2vec = head.model.get_ref("tok2vec")
    batches = _draw_pairs(groups, draw)
    for _ in tqdm(range(n_steps), desc="head start", unit=" steps", delay=1.0, leave=False, disable=None):
        batch = next(batches)
        chosen = [eg for _, eg in batch]
        if head.encoder is not None:
            head.encoder.update(chosen, sgd=sgd)
        vectors, backprop = tok2vec.begin_update([eg.predicted for eg in chosen])
        leaf = xp2torch(vectors).detach().requires_grad_(True)
        contrastive_loss(leaf, torch.tensor([label for label, _ in batch], device=leaf.device)).backward()
        backprop(torch2xp(cast(torch.Tensor, leaf.grad)))
        head.finish_update(sgd)
        sgd.step_schedules()
    logger.info("Head start: %d texts compared for %s, %d at a time, %d steps", n_texts, head.name, 2 * PAIRS, n_steps)


def _draw_pairs(groups: Dict[int, List[Example]], draw: random.Random) -> Iterator[List[Tuple[int, Example]]]:
    """Batches in which each text has another one of its class. Over and over, in a new order each time."""
    waiting: List[List[Tuple[int, Example]]] = []
    while True:
        pairs = []
        for label, group in groups.items():
            order = draw.sample(group, len(group))
            # The odd one out gets a text that another one has, too, or, if it is alone, itself with another dropout
            order += draw.sample(group, 1) if len(order) % 2 else []
            pairs += [[(label, first), (label, second)] for first, second in zip(order[::2], order[1::2])]
        draw.shuffle(pairs)
        waiting += pairs
        while len(waiting) >= PAIRS:
            yield [text for pair in waiting[:PAIRS] for text in pair]
            waiting = waiting[PAIRS:]


def _make_optimizer(nlp: Language, n_steps: int) -> Any:
    """The one of the training, for a short training before it."""
    settings = dict(nlp.config.interpolate()["training"]["optimizer"])
    if settings["@optimizers"] == OPTIMIZER:
        settings["total_steps"] = n_steps
    return registry.resolve({"optimizer": settings})["optimizer"]
