"""A training config fitted to a corpus: its encoder, and a learning rate that reaches 0 with the last epoch."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Optional, Tuple

from spacy.util import get_lang_class
from spacy.vocab import Vocab
from thinc.api import Config

from ..corpus.doc_bins import read_doc_bins, read_docs
from ..encoders.folders import is_encoder_folder
from ..encoders.traits import Traits, find_traits
from ..errors import BertHeadsError
from ..files import write_files
from ..project.configs import HEADS, MANY, MULTILINGUAL, SCRATCH, factory_of, render_config, suitable_epochs
from .count_steps import OPTIMIZER

ENCODER_FACTORY = "bert_encoder"
SCRATCH_ARCHITECTURE = "spacy_bert_heads.BertFromScratch.v1"
HEAD_FACTORIES = {factory_of(head): head for head in HEADS}
POOLED_LISTENER = "spacy_bert_heads.PooledListener.v1"
CLASSIFIER = "spacy_bert_heads.PooledClassifier.v1"
# Where vectors of texts lie closer together than this, per dimension, a head learns little from them as they are, and
# the encoder has farther to go
CROWDED = 0.15
MANY_IF_CROWDED = 2250
CROWDED_REASON = "the encoder's vectors of texts lie close together"
# Encoders as narrow as this bear larger steps; where vectors lie close together, still larger ones
NARROW, NARROW_RATE, CROWDED_RATE = 512, 1e-4, 2e-4
# From this share of all weights on, vectors of wordpieces stay as they are: most of them belong to words that are not
# in the corpus, and a step with all of them takes longer
MANY_EMBEDDINGS = 0.4


@dataclass(frozen=True)
class Fit:
    """What `fit_config` decided.

    docs (int): Texts in the train split.
    steps (int): Steps of the whole training.
    eval_frequency (int): Steps from one evaluation to the next.
    encoder (str): The encoder's name, or "scratch".
    notes (Tuple[str, ...]): What was changed for this encoder, and why.
    """

    docs: int
    steps: int
    eval_frequency: int
    encoder: str
    notes: Tuple[str, ...] = ()


def fit_config(
    config_path: Path,
    output: Path,
    *,
    train: Path,
    dev: Optional[Path],
    encoder: Optional[str],
    epochs: Optional[int],
    seed: Optional[int],
    evaluations: int,
    fetched: Optional[Path] = None,
) -> Fit:
    """Write a copy of a training config that is ready for one corpus.

    All other settings stay as they are, so what was changed by hand is kept. An encoder that is given and is on this
    machine is looked at: without a trained pooler, text heads read the mean of the wordpieces; where its vectors of
    texts lie close together, they are standardized, and 0 epochs are more. If it is not the config's, a narrow one
    gets a higher rate, and embeddings that are a large part of it are frozen.

    config_path (Path): A training config, such as configs/joint.cfg.
    output (Path): Where to write the copy.
    train (Path): The train split, a `.spacy` file or a folder of them; its size decides the number of steps.
    dev (Optional[Path]): The dev split. None: as in the config.
    encoder (Optional[str]): Name for BertEncoder.v1, "scratch", or "multilingual" for what is in the folder `fetched`;
        where this is not the config's, learning rates go with it. None: as in the config.
    epochs (Optional[int]): Times over the train split. 0: as many as suit the encoder and the size of the split. None:
        as in the config.
    seed (Optional[int]): None: as in the config.
    evaluations (int): Evaluations on the dev split, evenly spaced, the last one at the end.
    fetched (Optional[Path]): The folder that fetch-encoder was to write. If there is no encoder in it, "multilingual"
        is "scratch".
    RETURNS (Fit): What was decided.
    RAISES (BertHeadsError): H101 or H315 if the train split cannot be read; H221 if the config cannot; H222 if an
        encoder is given and there is none in the pipeline; H228 for fewer than 0 epochs; H229 if the config does
        not use its paths to the splits; H202 to H205, H250 or H401 if the encoder cannot be loaded; H290 for
        "multilingual" without a folder.
    """
    config = read_config(config_path)
    notes: List[str] = []
    docs = sum(len(doc_bin) for doc_bin in read_doc_bins(train))
    try:
        training = config["training"]
        config["paths"]["train"] = str(train)
        if dev is not None:
            config["paths"]["dev"] = str(dev)
        if seed is not None:
            config["system"]["seed"] = seed
        if encoder == MULTILINGUAL:
            encoder, notes = _choose_fetched(fetched)
        traits = None
        if encoder is not None:
            is_new = encoder != encoder_name(config)
            set_encoder(config, encoder, config_path)
            if encoder != SCRATCH:
                traits = find_traits(encoder, read_train_texts(train))
            if traits is not None:
                notes += _suit_heads(config, traits) + (_suit_training(config, traits) if is_new else [])
        if epochs is None:
            epochs = int(training["max_epochs"])
        elif epochs == 0:
            many = MANY_IF_CROWDED if traits is not None and _is_crowded(traits) else MANY
            epochs = suitable_epochs(encoder_name(config), _list_heads(config), docs, many)
        if epochs < 1:
            raise BertHeadsError("H228", path=config_path, found=epochs)
        fit = _plan(docs, int(training["batcher"]["size"]), epochs, evaluations, encoder_name(config), notes)
        training.update(max_epochs=epochs, max_steps=fit.steps - 1, eval_frequency=fit.eval_frequency, patience=0)
        if training["optimizer"]["@optimizers"] != OPTIMIZER:
            raise BertHeadsError("H221", path=config_path, found=f"its optimizer is not {OPTIMIZER}")
        # A number, since nlp.create_optimizer() does not fill in variables
        training["optimizer"]["total_steps"] = fit.steps
    except (KeyError, TypeError) as error:
        raise BertHeadsError("H221", path=config_path, found=f"{type(error).__name__} {error}") from error
    _check_encoder(config)
    given = {"train": train, "dev": dev}
    check_overrides(config, [f"paths.{name}" for name, path in given.items() if path is not None], config_path)
    comment = f"# Fitted to {train.as_posix()} from {config_path.as_posix()}, which is the file to change,\n"
    comment += "# by `python -m spacy bert-heads fit-config`.\n"
    comment += "".join(f"# {note}.\n" for note in notes) + "\n"
    write_files({output: (comment + config.to_str(interpolate=False)).encode("utf8")})
    return fit


def read_config(path: Path) -> Config:
    """Read a training config, variables as they stand.

    RAISES (BertHeadsError): H101 if there is no such file, H221 if it is not a config, or one of a language that spaCy
        does not know.
    """
    if not path.is_file():
        raise BertHeadsError("H101", path=path)
    try:
        config = Config().from_disk(path, interpolate=False)
        check_language(config, path)
        return config
    except ValueError as error:
        if isinstance(error, BertHeadsError):
            raise
        raise BertHeadsError("H221", path=path, found=str(error).strip().splitlines()[0]) from error


def check_language(config: Config, path: Path) -> None:
    """RAISES (BertHeadsError): H221 if a config names no language that spaCy knows."""
    lang = config.interpolate().get("nlp", {}).get("lang")
    try:
        get_lang_class(str(lang))
    except ImportError as error:
        raise BertHeadsError("H221", path=path, found=f"no language {lang!r} under [nlp]") from error


def _plan(docs: int, batch_size: int, epochs: int, evaluations: int, encoder: str, notes: List[str]) -> Fit:
    """spaCy counts steps from 0 and evaluates at multiples of eval_frequency; the last of them ends the training."""
    last_step = math.ceil(docs / batch_size) * epochs - 1
    eval_frequency = max(1, last_step // max(1, evaluations))
    # A last step of 0 would be no limit
    steps = max(1, last_step // eval_frequency * eval_frequency) + 1
    return Fit(docs, steps, eval_frequency, encoder, tuple(notes))


def check_overrides(config: Config, names: Iterable[str], path: Path) -> None:
    """Refuse to set what is under [paths] for the rest of the config, and of no use there.

    config (Config): A training config, variables as they stand.
    names (Iterable[str]): Settings to be replaced, by their names with dots. Only those of [paths] are looked at.
    path (Path): The config's file, for the error.
    RAISES (BertHeadsError): H229 for a path that nothing in the config refers to.
    """
    text = config.to_str(interpolate=False)
    for name in names:
        # Also within a longer value, such as "${paths.corpus}/train.spacy"
        if name.startswith("paths.") and f"${{{name}}}" not in text:
            raise BertHeadsError("H229", path=path, found=name)


def set_encoder(config: Config, encoder: str, path: Path) -> None:
    """Put another encoder into a config, with the learning rates and dropout that suit it.

    config (Config): A training config, variables as they stand.
    encoder (str): Name for BertEncoder.v1, or "scratch". The one that is there already changes nothing.
    path (Path): The config's file, for the error.
    RAISES (BertHeadsError): H221 if the config lacks what every training config has; H222 if there is no encoder in
        the pipeline.
    """
    try:
        _set_encoder(config, encoder, path)
    except (KeyError, TypeError) as error:
        raise BertHeadsError("H221", path=path, found=f"{type(error).__name__} {error}") from error


def _set_encoder(config: Config, encoder: str, path: Path) -> None:
    name = encoder_component(config)
    if name is None:
        raise BertHeadsError("H222", path=path)
    if encoder != encoder_name(config):
        _swap_encoder(config, name, encoder)


def _check_encoder(config: Config) -> None:
    name = encoder_component(config)
    if name is not None and encoder_name(config) != SCRATCH:
        from ..layers.encoder_module import check_pretrained  # brings torch along

        model = config.interpolate()["components"][name]["model"]
        check_pretrained(str(model["name"]), model.get("tokenizer_config", {}), model.get("transformer_config", {}))


def _swap_encoder(config: Config, name: str, encoder: str) -> None:
    """Put in another encoder, with the rates that suit it, from the config we would render for it."""
    components: Dict[str, Any] = config["components"]
    heads = {key: HEAD_FACTORIES[c["factory"]] for key, c in components.items() if c.get("factory") in HEAD_FACTORIES}
    model = Config().from_str(render_config(config["nlp"]["lang"], _list_heads(config), encoder), interpolate=False)
    is_scratch = components[name]["model"]["@architectures"] == SCRATCH_ARCHITECTURE
    # Heads, or whoever else, may read them
    exposed = {key: components[name]["model"].get(key, False) for key in ("hidden_states", "attentions")}
    config["paths"].pop("encoder", None)
    if encoder != SCRATCH:
        config["paths"]["encoder"] = encoder
    if is_scratch or encoder == SCRATCH:
        components[name]["model"] = {**model["components"]["transformer"]["model"], **exposed}
    else:
        components[name]["model"]["name"] = "${paths.encoder}"
    config["training"]["optimizer"]["learn_rate"] = model["training"]["optimizer"]["learn_rate"]
    config["training"]["dropout"] = model["training"]["dropout"]
    for key, head in heads.items():
        wanted = model["components"][factory_of(head)]["model"]
        scale, learning = wanted["lr_scale"], components[key]["model"]
        # Of a pretrained encoder, _suit finds out how to pool
        if encoder == SCRATCH and learning.get("tok2vec", {}).get("@architectures") == POOLED_LISTENER:
            learning["tok2vec"]["pooling"] = wanted["tok2vec"]["pooling"]
        # What a head and its listener learn, if they learn anything
        for block in (learning, learning.get("tok2vec", {})):
            if "lr_scale" in block:
                block["lr_scale"] = scale


def _list_heads(config: Config) -> List[str]:
    """RETURNS (List[str]): The heads that a config has, as `init` names them."""
    found = {HEAD_FACTORIES.get(str(component.get("factory"))) for component in config["components"].values()}
    return [head for head in HEADS if head in found] or ["ner"]


def _choose_fetched(fetched: Optional[Path]) -> Tuple[str, List[str]]:
    """RETURNS (Tuple[str, List[str]]): The encoder to take for "multilingual", and what is to be said about it."""
    if fetched is None:
        raise BertHeadsError("H290", found=MULTILINGUAL)
    if is_encoder_folder(fetched):
        return fetched.as_posix(), []
    return SCRATCH, [f"the encoder = scratch: there is none in {fetched.as_posix()}, see fetch-encoder"]


def _is_crowded(traits: Traits) -> bool:
    return traits.deviation < CROWDED


def _suit_heads(config: Config, traits: Traits) -> List[str]:
    """Set what heads need to learn from an encoder. RETURNS (List[str]): What was set and why, for people to read."""
    models = [c["model"] for c in config["components"].values() if c.get("factory") in HEAD_FACTORIES]
    pooled = [m for m in models if m.get("tok2vec", {}).get("@architectures") == POOLED_LISTENER]
    notes = []
    untrained = [model["tok2vec"] for model in pooled if model["tok2vec"]["pooling"] == "pooler"]
    if untrained and traits.pooling != "pooler":
        for listener in untrained:
            listener["pooling"] = traits.pooling
        notes.append(f'pooling = "{traits.pooling}": the encoder has no trained pooler')
    plain = [
        model
        for model in pooled
        if model["tok2vec"]["pooling"] not in ("pooler", "cls")
        and model["@architectures"] == CLASSIFIER
        and not model.get("standardize")
    ]
    if plain and _is_crowded(traits):
        for model in plain:
            model["standardize"] = True
        notes.append(f"standardize = true: {CROWDED_REASON}, with a deviation of {traits.deviation:.2f}")
    return notes


def _suit_training(config: Config, traits: Traits) -> List[str]:
    """Set what suits an encoder that is new in this config. RETURNS (List[str]): What was set and why."""
    optimizer = config["training"]["optimizer"]
    notes = []
    rate = CROWDED_RATE if _is_crowded(traits) else NARROW_RATE
    if traits.width <= NARROW and optimizer["learn_rate"] < rate:
        optimizer["learn_rate"] = rate
        reason = f", and {CROWDED_REASON}" if _is_crowded(traits) else ""
        notes.append(f"learn_rate = {rate:g}: the encoder is only {traits.width} wide{reason}")
    if traits.embeddings >= MANY_EMBEDDINGS and not optimizer["freeze_embeddings"]:
        optimizer["freeze_embeddings"] = True
        notes.append(f"freeze_embeddings = true: they are {traits.embeddings:.0%} of the encoder")
    return notes


def read_train_texts(train: Path) -> Iterator[str]:
    """RETURNS (Iterator[str]): The texts of a split, a `.spacy` file or a folder of them."""
    return (doc.text for doc in read_docs(train, Vocab()))


def encoder_component(config: Config) -> Optional[str]:
    """RETURNS (Optional[str]): Name of the encoder's component in a config. None: there is none."""
    components: Dict[str, Any] = config["components"]
    found = [name for name, component in components.items() if component.get("factory") == ENCODER_FACTORY]
    return found[0] if found else None


def encoder_name(config: Config) -> str:
    """RETURNS (str): The encoder in a config: its name for BertEncoder.v1, "scratch", or "none"."""
    name = encoder_component(config)
    if name is None:
        return "none"
    model = config["components"][name]["model"]
    if model["@architectures"] == SCRATCH_ARCHITECTURE:
        return SCRATCH
    return str(config.interpolate()["components"][name]["model"]["name"])
