"""How many steps a training will have, which the learning rate's fall to 0 needs to know."""

import random
from itertools import islice
from typing import Callable, Optional

from spacy.language import Language
from spacy.training.loop import create_train_batches
from spacy.util import registry, resolve_dot_names

# The optimizer whose total_steps are counted. (This module is imported with every pipeline, so without torch.)
OPTIMIZER = "spacy_bert_heads.AdamW.v1"


def build_count_steps_v1() -> Callable[[Language], Language]:
    """For [initialize.before_init]: fills in `total_steps` of spacy_bert_heads.AdamW.v1 where it is null.

    Registered as spacy_bert_heads.count_steps.v1. `spacy train` makes its optimizer after the initialisation, from
    the config of the pipeline. The number is put there, and so the config of the trained pipeline has it too.

    RETURNS (Callable[[Language], Language]): The callback.
    """
    return fill_in_total_steps


def fill_in_total_steps(nlp: Language) -> Language:
    """Put the number of steps into the config of a pipeline; see build_count_steps_v1."""
    optimizer = nlp.config["training"]["optimizer"]
    if optimizer.get("@optimizers") == OPTIMIZER and optimizer.get("total_steps") is None:
        optimizer["total_steps"] = count_steps(nlp)
    return nlp


def count_steps(nlp: Language) -> Optional[int]:
    """Steps that `spacy train` will take if patience does not end it, by reading the training corpus once.

    nlp (Language): A pipeline with a full config.
    RETURNS (Optional[int]): The number; for batches made by length about so many. None if nothing limits the
        training, or if the corpus cannot be read, about which spaCy itself complains later.
    """
    config = nlp.config.interpolate()
    training = config["training"]
    # spaCy counts from 0 and stops after the step of the number max_steps
    limit = training["max_steps"] + 1 if training["max_steps"] else None
    if training["max_epochs"] < 1:
        return limit
    state = random.getstate()
    try:
        (corpus,) = resolve_dot_names(config, [training["train_corpus"]])
        batcher = registry.resolve({"batcher": training["batcher"]})["batcher"]
        return sum(1 for _ in islice(create_train_batches(nlp, corpus, batcher, training["max_epochs"]), limit))
    except (OSError, ValueError):
        return None
    finally:
        random.setstate(state)
