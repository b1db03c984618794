"""The thinc shim of an encoder-decoder language model, and its losses and readings of windows of text."""

import inspect
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple, cast

import srsly
import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from thinc.api import get_torch_default_device
from torch import Tensor
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig
from transformers.modeling_outputs import BaseModelOutput

from ..errors import BertHeadsError
from .encoder_module import dump_tokenizer, named_failures, rebuild_config, rebuild_tokenizer, resolve_source
from .markup import Alphabet, Markup, Place
from .readings import Reading, in_order
from .special_tokens import SpecialTokens
from .torch_shim import TorchShim, prepare_process


class LanguageModel(NamedTuple):
    """A model and its tokenizer.

    module (Any): One of Hugging Face's, for sequences to sequences.
    tokenizer (Any): A fast one.
    """

    module: Any
    tokenizer: Any


def load_language_model(name: str) -> LanguageModel:
    """Load an encoder-decoder with its tokenizer.

    name (str): Folder, `package:IMPORT_NAME/SUBFOLDER`, or an id on the Hugging Face hub.
    RAISES (BertHeadsError): H202 for a missing folder, H203 for one that holds no model, H204 for a name the hub does
        not give, H401 for a package that is not installed, H715 for a model that is no encoder-decoder, H716 for a
        tokenizer that is not fast.
    """
    source = resolve_source(name)
    with named_failures(name, source):
        config = AutoConfig.from_pretrained(source)
        if not config.is_encoder_decoder:
            raise BertHeadsError("H715", found=name, model_type=config.model_type)
        tokenizer = AutoTokenizer.from_pretrained(source, use_fast=True)
        if not tokenizer.is_fast:
            raise BertHeadsError("H716", found=name)
        return LanguageModel(AutoModelForSeq2SeqLM.from_pretrained(source, config=config), tokenizer)


class LanguageModelShim(TorchShim):
    """Holds an encoder-decoder once there is one, and saves it with its tokenizer. Its vocabulary ends with an opening
    bracket and one closing bracket for each label, which no text is ever cut into.
    """

    def __init__(self, lr_scale: float) -> None:
        super().__init__(_never_built, lr_scale)
        self.tokenizer: Any = None
        self.special = SpecialTokens([], [], 0)
        self.n_labels = 0

    def set_model(self, found: LanguageModel, n_labels: int) -> None:
        """Take a model, give it brackets and move it to the current device.

        found (LanguageModel): It.
        n_labels (int): Number of labels.
        """
        old = found.module.get_input_embeddings().num_embeddings
        resize = found.module.resize_token_embeddings
        # To draw the new rows as transformers would takes long, and they are set to something better
        optional = {"mean_resizing": False} if "mean_resizing" in inspect.signature(resize).parameters else {}
        resize(old + 1 + n_labels, **optional)
        self._take(found, n_labels)

    def _take(self, found: LanguageModel, n_labels: int) -> None:
        prepare_process()
        # What checkpoints bring along for summaries, such as "no three words twice", would forbid to copy a text
        found.module.generation_config = GenerationConfig()
        self._model = found.module.to(get_torch_default_device())
        self.tokenizer = found.tokenizer
        self.special = SpecialTokens.of(found.tokenizer)
        self.n_labels = n_labels

    @property
    def width(self) -> int:
        """RETURNS (int): Width of the encoder's output."""
        return int(self._model.config.hidden_size)

    def alphabet(self, nested: bool) -> Alphabet:
        """RETURNS (Alphabet): The brackets, and what ends a text."""
        opening = self._model.get_input_embeddings().num_embeddings - 1 - self.n_labels
        end = self._model.config.eos_token_id
        return Alphabet(opening, self.n_labels, end[0] if isinstance(end, list) else end, nested)

    def name_brackets(self, labels: Sequence[str]) -> None:
        """Have the vectors of brackets begin as the mean of those of what they would be written as.

        labels (Sequence[str]): Names of the labels, as words.
        """
        alphabet = self.alphabet(False)
        written = {alphabet.opening: "[", **{alphabet.closing(i): f"| {name} ]" for i, name in enumerate(labels)}}
        tables = {table.weight.data_ptr(): table for table in self._tables()}
        for symbol, text in written.items():
            pieces = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            for table in tables.values():
                if pieces:
                    table.weight.data[symbol] = table.weight.data[pieces].mean(0)

    def _tables(self) -> List[Any]:
        tables = [self._model.get_input_embeddings(), self._model.get_output_embeddings()]
        return [table for table in tables if table is not None]

    def to_bytes(self) -> bytes:
        self.step_pending()
        msg: Dict[str, Any] = {"config": None, "tokenizer": None, "n_labels": 0, "state": None}
        if self._model is not None:
            msg["config"] = self._model.config.to_dict()
            msg["tokenizer"] = dump_tokenizer(self.tokenizer)
            msg["n_labels"] = self.n_labels
            state, aliases = self._model.state_dict(), _aliases(self._model)
            kept = {name: tensor.cpu().contiguous() for name, tensor in state.items() if name not in aliases}
            msg["state"] = save_safetensors(kept)
        return srsly.msgpack_dumps(msg)

    def from_bytes(self, bytes_data: bytes) -> "LanguageModelShim":
        self.step_pending()
        msg = srsly.msgpack_loads(bytes_data)
        if msg["state"] is not None:
            config = rebuild_config(msg["config"])
            tokenizer = rebuild_tokenizer(config, msg["tokenizer"])
            module = AutoModelForSeq2SeqLM.from_config(config, trust_remote_code=False)
            module.tie_weights()
            missing, unexpected = module.load_state_dict(load_safetensors(msg["state"]), strict=False)
            if unexpected or set(missing) - _aliases(module):
                raise RuntimeError(f"weights of {type(module).__name__} do not fit: {[*unexpected, *missing]}")
            self._take(LanguageModel(module, tokenizer), msg["n_labels"])
        return self


def _never_built(**cfg: Any) -> torch.nn.Module:
    raise NotImplementedError("a language model is loaded, not built")


def _aliases(module: torch.nn.Module) -> "set[str]":
    """Names of weights that are the same as one with an earlier name."""
    seen: Dict[Tuple[Any, ...], str] = {}
    found = set()
    for name, tensor in module.state_dict().items():
        if not tensor.numel():
            continue
        key = (tensor.data_ptr(), tuple(tensor.shape))
        if key in seen:
            found.add(name)
        seen.setdefault(key, name)
    return found


def encode(module: Any, ids: Sequence[Sequence[int]], pad: int, device: torch.device) -> List[Tensor]:
    """RETURNS (List[Tensor]): The encoder's output of each window. Float, (n_pieces, width)."""
    padded, mask = _pad(ids, pad, device)
    states = module.get_encoder()(input_ids=padded, attention_mask=mask, return_dict=True).last_hidden_state
    return [rows[: len(window)] for rows, window in zip(states, ids)]


def score(
    module: Any, states: Sequence[Tensor], markups: Sequence[Markup], written: Sequence[Sequence[int]]
) -> Tensor:
    """Log-probabilities of symbols that are legal, among all that are.

    states (Sequence[Tensor]): What `encode` gave.
    markups (Sequence[Markup]): What is legal in each window.
    written (Sequence[Sequence[int]]): What is written of each.
    RETURNS (Tensor): Nats. Float, (n_windows,).
    """
    device = states[0].device
    pad = module.config.pad_token_id or 0
    targets, known = _pad(written, pad, device)
    starts = targets.new_full((len(written), 1), module.config.decoder_start_token_id)
    padded, mask = _stack(states)
    logits = module(
        encoder_outputs=BaseModelOutput(last_hidden_state=cast(Any, padded)),
        attention_mask=mask,
        decoder_input_ids=torch.cat((starts, targets[:, :-1]), dim=1),
        use_cache=False,
        return_dict=True,
    ).logits.float()
    allowed = [markup.steps(symbols) for markup, symbols in zip(markups, written)]
    most = max(len(step) for steps in allowed for step in steps)
    n_steps = targets.shape[1]
    # Only what is legal is looked at: of a copied piece inside a word there is nothing to choose
    choices = torch.zeros(len(written), n_steps, most, dtype=torch.int64)
    right = torch.zeros(len(written), n_steps, dtype=torch.int64)
    n_choices = torch.ones(len(written), n_steps, dtype=torch.int64)
    for row, (steps, symbols) in enumerate(zip(allowed, written)):
        for number, (step, symbol) in enumerate(zip(steps, symbols)):
            choices[row, number, : len(step)] = torch.tensor(step)
            right[row, number] = step.index(symbol)
            n_choices[row, number] = len(step)
    choices, right, n_choices = choices.to(device), right.to(device), n_choices.to(device)
    chosen = logits.gather(2, choices)
    chosen = chosen.masked_fill(torch.arange(most, device=device) >= n_choices[..., None], -torch.inf)
    values = chosen.log_softmax(2).gather(2, right[..., None]).squeeze(2)
    return values.masked_fill(known == 0, 0.0).sum(1)


def generate(module: Any, states: Sequence[Tensor], markups: Sequence[Markup], n: int) -> List[List[Reading]]:
    """The best readings of each window that a beam of width n finds, with exact probabilities, best first.

    states (Sequence[Tensor]): What `encode` gave.
    markups (Sequence[Markup]): What is legal in each window.
    n (int): Width of the beam. 1: the greedy reading alone.
    """
    places = [_Places(markup) for markup in markups]
    padded, mask = _stack(states)
    longest = max(len(markup.pieces) + 2 * markup.most + 1 for markup in markups)
    settings = GenerationConfig(
        max_new_tokens=longest,
        num_beams=n,
        num_return_sequences=n,
        do_sample=False,
        **({"length_penalty": 0.0, "early_stopping": True} if n > 1 else {}),
        renormalize_logits=True,
        use_cache=True,
        decoder_start_token_id=module.config.decoder_start_token_id,
        bos_token_id=module.config.bos_token_id,
        eos_token_id=markups[0].alphabet.end,
        pad_token_id=module.config.pad_token_id or 0,
    )
    sequences = module.generate(
        encoder_outputs=BaseModelOutput(last_hidden_state=cast(Any, padded)),
        attention_mask=mask,
        generation_config=settings,
        prefix_allowed_tokens_fn=lambda row, prefix: places[row].allowed(prefix.tolist()[1:]),
    )
    rows: List[int] = []
    written: List[List[int]] = []
    for number, sequence in enumerate(sequences.tolist()):
        symbols = sequence[1:]
        end = markups[0].alphabet.end
        # The end may also be what fills up shorter ones
        symbols = symbols[: _end_of(markups[number // n], symbols, end)]
        if (number // n, symbols) not in zip(rows, written) and markups[number // n].read(symbols) is not None:
            rows.append(number // n)
            written.append(symbols)
    for row in set(range(len(markups))) - set(rows):
        # Weights that are no numbers choose nothing legal
        rows.append(row)
        written.append(markups[row].write([]) or [])
    readings: List[List[Reading]] = [[] for _ in markups]
    values = score(module, [states[row] for row in rows], [markups[row] for row in rows], written).tolist()
    for row, symbols, value in zip(rows, written, values):
        readings[row].append(Reading(in_order(markups[row].read(symbols) or ()), value))
    for found in readings:
        found.sort(key=lambda reading: -reading.log_probability)
    return readings


def _end_of(markup: Markup, symbols: Sequence[int], end: int) -> int:
    """Symbols up to the end one; a piece of the text may be the same as it, but never the last."""
    n_pieces = 0
    for number, symbol in enumerate(symbols):
        if n_pieces == len(markup.pieces) and symbol == end:
            return number + 1
        n_pieces += not 0 <= symbol - markup.alphabet.opening <= markup.alphabet.n_labels
    return len(symbols)


class _Places:
    """Where prefixes lead. Each is asked for when all but its last symbol have been."""

    def __init__(self, markup: Markup) -> None:
        self.markup = markup
        self.known: Dict[Tuple[int, ...], Any] = {}

    def allowed(self, prefix: Sequence[int]) -> List[int]:
        place = self._find(tuple(prefix))
        # Beams that are over, or that had to take something illegal for want of anything else
        return [self.markup.alphabet.end] if place is None else self.markup.allowed(place)

    def _find(self, prefix: Tuple[int, ...]) -> Any:
        if not prefix:
            return Place()
        if prefix not in self.known:
            before = self._find(prefix[:-1])
            is_legal = before is not None and prefix[-1] in self.markup.allowed(before)
            self.known[prefix] = self.markup.follow(before, prefix[-1]) if is_legal else None
        return self.known[prefix]


def _pad(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> Tuple[Tensor, Tensor]:
    tensors = [torch.tensor(row, dtype=torch.int64) for row in rows]
    padded = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=pad)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in tensors], batch_first=True)
    return padded.to(device), mask.to(device)


def _stack(states: Sequence[Tensor]) -> Tuple[Tensor, Tensor]:
    padded = torch.nn.utils.rnn.pad_sequence(list(states), batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence(
        [torch.ones(len(rows), dtype=torch.int64, device=padded.device) for rows in states], batch_first=True
    )
    return padded, mask
