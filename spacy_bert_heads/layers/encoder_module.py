"""The torch side of the encoder: any Hugging Face `AutoModel` encoder, with a pooler in every case."""

import copy
import importlib.util
import json
import logging
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, AutoTokenizer, BertConfig, BertModel
from transformers import logging as transformers_logging

from ..errors import BertHeadsError
from ..files import is_plain_name
from .attention import attention_of_checkpoints
from .wordpiece import bert_tokenizer

logger = logging.getLogger("spacy")

PACKAGE_PREFIX = "package:"
TOKENIZER_CONFIG = "tokenizer_config.json"
# What fills a tensor with random numbers
DRAWS = {torch.Tensor.normal_, torch.Tensor.uniform_}
DRAWS.update(getattr(torch.nn.init, name) for name in ("normal_", "uniform_", "kaiming_normal_", "kaiming_uniform_"))
# Settings by which transformers would import code from the hub
NAMES_CODE = ("auto_map", "attn_implementation", "_attn_implementation", "_attn_implementation_internal")


class NoDraws(TorchFunctionMode):
    """Within it modules are made with zeros in the place of random numbers, which take most of the time and are in
    vain where weights are filled in anyway. Unlike transformers' `no_init_weights` it is for this thread alone.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: Tuple[Any, ...] = (), kwargs: Optional[Dict[str, Any]] = None
    ) -> Any:
        if function in DRAWS:
            # Not left as it is: torch draws truncated distributions again until all numbers are within the bounds
            tensor: Tensor = args[0] if args else (kwargs or {})["tensor"]
            with torch.no_grad():
                return tensor.zero_()
        return function(*args, **(kwargs or {}))


@dataclass
class Encoder:
    """A tokenizer and the module that reads its wordpieces.

    tokenizer (Any): A Hugging Face tokenizer.
    module (EncoderModule): The encoder.
    missing (Sequence[str]): Weights of a pretrained encoder that its files lack.
    """

    tokenizer: Any
    module: "EncoderModule"
    missing: Sequence[str] = ()

    @property
    def has_trained_pooler(self) -> bool:
        """Whether a pretrained encoder came with the weights of a pooler."""
        return self.module.pooler is None and not any(name.startswith("pooler.") for name in self.missing)


class EncoderModule(torch.nn.Module):
    """A Hugging Face encoder whose output always has `pooler_output`.

    transformer (torch.nn.Module): The Hugging Face model.
    pooler (Optional[torch.nn.Module]): BERT's pooler, for models that have none of their own.

    SOURCE: pooling by dense layer and tanh over [CLS]: Devlin et al. (2019), as in `transformers.BertPooler`.
    """

    def __init__(self, transformer: Any) -> None:
        super().__init__()
        self.transformer = transformer
        self.pooler: Optional[torch.nn.Module] = None
        if getattr(transformer, "pooler", None) is None:
            width = transformer.config.hidden_size
            self.pooler = torch.nn.Linear(width, width)
            torch.nn.init.normal_(self.pooler.weight, std=getattr(transformer.config, "initializer_range", 0.02))
            torch.nn.init.zeros_(self.pooler.bias)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        hidden_states: bool = False,
        token_types: Optional[Tensor] = None,
        attentions: bool = False,
    ) -> Dict[str, Any]:
        """Run the encoder.

        input_ids (Tensor): Vocabulary ids. Int64, (n_windows, n_pieces).
        attention_mask (Tensor): 1 for wordpieces, 0 for padding. Int64, (n_windows, n_pieces).
        hidden_states (bool): Whether to return the output of every layer too.
        token_types (Optional[Tensor]): For models that have them; None: all are 0. Int64, (n_windows, n_pieces).
        attentions (bool): Whether to return how much each layer's wordpieces attend to each other. See use_eager.
        RETURNS (Dict[str, Any]): "last_hidden_state", float (n_windows, n_pieces, width); "pooler_output", float
            (n_windows, width); if asked, "hidden_states", a tuple of embeddings and each layer's output, and
            "attentions", a tuple of each layer's weights, float (n_windows, n_heads, n_pieces, n_pieces), of which
            each row sums to 1.
        RAISES (BertHeadsError): H287 for attentions of a model that does not give them in this form.
        """
        # Models without them may not know the arguments
        optional: Dict[str, Any] = {} if token_types is None else {"token_type_ids": token_types}
        if attentions:
            optional["output_attentions"] = True
        output = self.transformer(
            input_ids=input_ids,
            attention_mask=attention_mask,
            output_hidden_states=hidden_states,
            return_dict=True,
            **optional,
        )
        named = {"last_hidden_state": output.last_hidden_state}
        if self.pooler is None:
            named["pooler_output"] = output.pooler_output
        else:
            named["pooler_output"] = torch.tanh(self.pooler(output.last_hidden_state[:, 0]))
        if hidden_states:
            named["hidden_states"] = output.hidden_states
        if attentions:
            n_pieces = input_ids.shape[1]
            layers = output.attentions or ()
            if not layers or any(layer is None or layer.shape[2:] != (n_pieces, n_pieces) for layer in layers):
                raise BertHeadsError("H287", found=self.transformer.config.model_type)
            named["attentions"] = layers
        return named


def load_pretrained(name: str, tokenizer_config: Dict[str, Any], transformer_config: Dict[str, Any]) -> Encoder:
    """Load an encoder with its tokenizer.

    name (str): Folder, `package:IMPORT_NAME/SUBFOLDER`, or an id on the Hugging Face hub.
    tokenizer_config (Dict[str, Any]): Arguments for `AutoTokenizer.from_pretrained`.
    transformer_config (Dict[str, Any]): Settings that replace those of the model's own config.
    RAISES (BertHeadsError): H202 for a missing folder, H203 for one that holds no encoder, H204 for a name the
        hub does not give, H205 for an encoder-decoder, H250 for settings its config does not have, H401 for a
        package that is not installed.
    """
    source = resolve_source(name)
    with named_failures(name, source):
        config, tokenizer = _load_config_and_tokenizer(name, source, tokenizer_config, transformer_config)
        with _quiet_transformers():
            transformer, info = AutoModel.from_pretrained(source, config=config, output_loading_info=True)
    module = EncoderModule(transformer)
    _report_missing_weights(name, module, info["missing_keys"])
    return Encoder(tokenizer, module, info["missing_keys"])


def check_pretrained(name: str, tokenizer_config: Dict[str, Any], transformer_config: Dict[str, Any]) -> None:
    """See that an encoder's config and tokenizer can be loaded. Its weights, the large part, are not read.

    name, tokenizer_config, transformer_config: see load_pretrained, which raises the same errors.
    """
    source = resolve_source(name)
    with named_failures(name, source):
        _load_config_and_tokenizer(name, source, tokenizer_config, transformer_config)


def _load_config_and_tokenizer(
    name: str, source: Union[str, Path], tokenizer_config: Dict[str, Any], transformer_config: Dict[str, Any]
) -> Tuple[Any, Any]:
    config, unused = AutoConfig.from_pretrained(source, return_unused_kwargs=True, **transformer_config)
    if unused:
        raise BertHeadsError("H250", found=", ".join(unused), name=name)
    if config.is_encoder_decoder:
        raise BertHeadsError("H205", found=name, model_type=config.model_type)
    return config, AutoTokenizer.from_pretrained(source, **{"use_fast": True, **tokenizer_config})


@contextmanager
def named_failures(name: str, source: Union[str, Path]) -> Iterator[None]:
    try:
        yield
    except BertHeadsError:
        raise
    except Exception as error:  # each file of an encoder can fail to load in a way of its own
        code = "H203" if isinstance(source, Path) else "H204"
        raise BertHeadsError(code, found=name, reason=str(error).strip().split("\n")[0]) from error


def build_from_scratch(
    texts: Iterable[str],
    *,
    vocab: Optional[Path],
    width: int,
    depth: int,
    heads: int,
    feed_forward_width: int,
    max_length: int,
    vocab_size: int,
    lowercase: bool,
    dropout: float,
) -> Encoder:
    """A BERT with random weights and a WordPiece vocabulary learned from texts or read from a file.

    RAISES (BertHeadsError): H206 if the width is not divisible by the number of heads, H1xx for a bad vocabulary.
    """
    if width % heads:
        raise BertHeadsError("H206", found=width, heads=heads)
    tokenizer = bert_tokenizer(texts, vocab=vocab, vocab_size=vocab_size, lowercase=lowercase, max_length=max_length)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=feed_forward_width,
        max_position_embeddings=max_length,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Encoder(tokenizer, EncoderModule(BertModel(config)))


def rebuild(config: Dict[str, Any], tokenizer_files: Dict[str, bytes]) -> Encoder:
    """The encoder as it was saved, except for its weights, which are to be filled in. Needs neither the hub nor the
    original folder.

    config (Dict[str, Any]): The Hugging Face config.
    tokenizer_files (Dict[str, bytes]): Content of the files that `dump_tokenizer` gave.
    """
    hf_config = rebuild_config(config)
    with NoDraws():
        module = EncoderModule(build_transformer(hf_config))
    return Encoder(rebuild_tokenizer(hf_config, tokenizer_files), module)


def build_transformer(hf_config: Any) -> Any:
    """RETURNS (torch.nn.Module): The model that `AutoModel` has for a config, with random weights in float32.

    `AutoModel.from_config` looks through all models there are first, which takes as long as all else in spacy.load.
    """
    architecture = MODEL_MAPPING.get(type(hf_config), None)
    # A few configs, such as Funnel's, have several
    if isinstance(architecture, type):
        return architecture(hf_config)
    return AutoModel.from_config(hf_config, trust_remote_code=False)


def rebuild_config(config: Dict[str, Any]) -> Any:
    """RETURNS (PretrainedConfig): From what its `to_dict` gave, without settings that name code to be downloaded."""
    config = {name: value for name, value in config.items() if name not in NAMES_CODE}
    return AutoConfig.for_model(config.pop("model_type"), **config)


def rebuild_tokenizer(hf_config: Any, tokenizer_files: Dict[str, bytes]) -> Any:
    """The tokenizer as it was saved; see rebuild.

    RAISES (BertHeadsError): H252 for a file whose name could lead out of the folder that the files are put into.
    """
    for name in tokenizer_files:
        if not is_plain_name(name):
            raise BertHeadsError("H252", found=repr(name)[:200])
    with tempfile.TemporaryDirectory() as folder:
        for name, content in tokenizer_files.items():
            if name.lower() == TOKENIZER_CONFIG:
                content = _without_paths(content)
            (Path(folder) / name).write_bytes(content)
        hf_config.save_pretrained(folder)
        return AutoTokenizer.from_pretrained(folder, use_fast=True, trust_remote_code=False)


def _without_paths(tokenizer_config: bytes) -> bytes:
    """Leave out settings such as `vocab_file`, which name files elsewhere; transformers itself does not save them."""
    settings = json.loads(tokenizer_config)
    kept = {name: value for name, value in settings.items() if not name.endswith("_file") and name not in NAMES_CODE}
    return json.dumps(kept).encode("utf8")


def dump_tokenizer(tokenizer: Any) -> Dict[str, bytes]:
    """The tokenizer's files, by name."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir()) if path.is_file()}


def enable_checkpointing(module: EncoderModule) -> None:
    """Trade time for memory in training: keep each layer's input, compute what is within again when it is needed.

    RAISES (BertHeadsError): H236 if the model cannot.

    SOURCE: Chen et al. (2016).
    """
    if not getattr(module.transformer, "supports_gradient_checkpointing", False):
        raise BertHeadsError("H236", found=module.transformer.config.model_type)
    settings = {"use_reentrant": False, "context_fn": attention_of_checkpoints}
    module.transformer.gradient_checkpointing_enable(settings)


def use_eager(module: EncoderModule) -> None:
    """Compute attention as it is written in formulas. Fused kernels never have the weights that one may ask for."""
    config = copy.deepcopy(module.transformer.config)
    config._attn_implementation = "eager"
    with NoDraws():  # so heads start from the same weights with it as without
        transformer = build_transformer(config)
    transformer.load_state_dict(module.transformer.state_dict())
    module.transformer = transformer


def max_positions(encoder: Encoder) -> int:
    """Wordpieces the encoder can read at once, special tokens counted: the smaller of what its tokenizer and its
    position embeddings allow. RoBERTa-like models number positions from their padding index on, which costs some.
    """
    limits: List[int] = [encoder.tokenizer.model_max_length]
    transformer = encoder.module.transformer
    positions = getattr(transformer.config, "max_position_embeddings", None)
    if positions and positions > 0:
        offset = 0
        for name, module in transformer.named_modules():
            if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
                offset = module.padding_idx + 1
        limits.append(positions - offset)
    return min(limits)


def resolve_source(name: str) -> Union[str, Path]:
    """Where an encoder's name leads: a folder, or a hub id unchanged.

    RAISES (BertHeadsError): H202 if the name is a path that does not exist, H401 if it names a package that is not
        installed.
    """
    if name.startswith(PACKAGE_PREFIX):
        package, _, subfolder = name[len(PACKAGE_PREFIX) :].partition("/")
        try:
            spec = importlib.util.find_spec(package) if package else None
        except ImportError:
            spec = None
        if spec is None or not spec.submodule_search_locations:
            raise BertHeadsError("H401", found=package, name=name)
        folder = Path(next(iter(spec.submodule_search_locations))) / subfolder
        if not folder.is_dir():
            raise BertHeadsError("H202", found=str(folder))
        return folder
    path = Path(name).expanduser()
    if name and path.is_dir():
        return path
    if not name or name.startswith((".", "~")) or path.is_absolute() or name.count("/") > 1 or "\\" in name:
        raise BertHeadsError("H202", found=name)
    return name


def _report_missing_weights(name: str, module: EncoderModule, missing_keys: List[str]) -> None:
    """One log line about a pooler that starts from random weights; a warning about anything else that does."""
    pooler = [key for key in missing_keys if key.startswith("pooler.")]
    others = [key for key in missing_keys if not key.startswith("pooler.")]
    if module.pooler is not None or pooler:
        logger.info("Encoder '%s' has no pooler weights: they start at random and are trained", name)
    if others:
        logger.warning("Encoder '%s' lacks %d weights, which start at random: %s, ...", name, len(others), others[0])


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Silence transformers' own report of missing weights, which counts heads we never use as missing."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
