"""Entities by an encoder-decoder language model that writes the text again, with brackets around its spans."""

from typing import Any, Callable, Iterator, List, NamedTuple, Optional, Sequence, Tuple, cast

import numpy
import torch
from spacy.tokens import Doc
from thinc.api import Model
from thinc.types import Floats2d
from thinc.util import torch2xp, xp2torch

from ..errors import BertHeadsError
from ..layers.head_layers import check_sizes
from ..layers.length_groups import group_by_length
from ..layers.markup import Markup, Pieces, cut_pieces, split_doc
from ..layers.readings import Generated, NumberedSpan, Reading, TokenWindow, combine, join_borders
from ..layers.text_to_text import LanguageModelShim, encode, generate, load_language_model, score
from .generation import GENERATOR, Generator, Target, Text, name_words
from .head_on_vectors import set_n_labels

# Pieces, padding counted, that go through the model at once
MAX_PIECES = 4096
GROUP_COST = 200


class WindowedText(NamedTuple):
    """A Doc in pieces, and its windows."""

    pieces: Pieces
    windows: List[TokenWindow]


def build_text_to_text_v1(
    name: str, window: int = 256, overlap: int = 64, lr_scale: float = 1.0, nO: Optional[int] = None
) -> Model[List[Doc], List[Floats2d]]:
    """Any encoder-decoder of Hugging Face's, such as T5, mT5 or BART. Registered as spacy_bert_heads.TextToText.v1.

    It does not listen to the pipeline's encoder. The text is written again with brackets around its spans, and nothing
    else can be written.

    name (str): Folder, `package:IMPORT_NAME/SUBFOLDER`, or an id on the Hugging Face hub. Read when the model is
        initialised.
    window (int): Pieces of the text that the model reads and writes at once. Longer Docs are cut between tokens.
    overlap (int): Pieces that neighbouring windows share, at most half of the window.
    lr_scale (float): Multiplies the learning rate.
    nO (Optional[int]): Number of labels, if known.
    RETURNS (Model): Docs to the encoder's output, float (n_pieces, width) per Doc, window after window, special tokens
        included. What is made of that comes from the model's Generator.
    RAISES (BertHeadsError): H261 for a window below 1, H273 for an overlap of more than half of it.

    SOURCE: Paolini et al. (2021), arXiv 2101.05779.
    """
    check_sizes(window=window)
    if not 0 <= overlap <= window // 2:
        raise BertHeadsError("H273", name="overlap", found=overlap, expected=f"0 to {window // 2}, half a window")
    return Model(
        "text_to_text",
        _forward,
        init=_init,
        dims={"nO": nO},
        shims=[LanguageModelShim(lr_scale)],
        attrs={GENERATOR: TextToText(name, window, overlap)},
    )


class TextToText(Generator):
    """See Generator.

    name (str), window, overlap (int): See build_text_to_text_v1.
    """

    def __init__(self, name: str, window: int, overlap: int) -> None:
        self.name = name
        self.window = window
        self.overlap = overlap

    def learn_labels(self, model: Model, labels: Sequence[str], read: Callable[[str], Any]) -> None:
        _shim(model).name_brackets([" ".join(name_words(label)) for label in labels])

    def can_say(self, model: Model, text: Text, spans: Sequence[NumberedSpan], nested: bool) -> bool:
        whole = self.split(model, text.doc)
        for window in whole.windows:
            if self._markup(model, text, whole, window, nested).write(_within(spans, window)) is None:
                return False
        # A span that crosses the ends of windows is learned from where it is whole, or not at all
        return True

    def loss(
        self,
        model: Model,
        texts: Sequence[Text],
        outputs: Any,
        spans: Sequence[Target],
        nested: bool,
        weight: float,
        shares: Optional[numpy.ndarray] = None,
    ) -> Tuple[float, Any]:
        shim = _shim(model)
        shim.step_pending()
        shim.module.train()
        d_outputs = [model.ops.alloc2f(*states.shape) for states in outputs]
        known = [i for i, found in enumerate(spans) if found is not None and len(outputs[i])]
        states = {i: xp2torch(outputs[i], device=shim.device).requires_grad_(True) for i in known}
        total = 0.0
        with torch.enable_grad():
            for batch in self._batches(model, texts, known, nested):
                written = [
                    cast(List[int], part.markup.write(_within(cast(Any, spans[part.doc]), part.window)))
                    for part in batch
                ]
                rows = [states[part.doc][part.start : part.stop] for part in batch]
                scores = score(shim.module, rows, [part.markup for part in batch], written)
                if shares is not None:
                    scores = scores * scores.new_tensor([shares[part.doc] for part in batch])
                (-scores.sum() * (weight / len(known))).backward()
                total -= float(scores.detach().sum())
        for i in known:
            if states[i].grad is not None:
                d_outputs[i] = cast(Floats2d, torch2xp(cast(torch.Tensor, states[i].grad)))
        return total / max(1, len(known)), d_outputs

    def log_probabilities(
        self, model: Model, texts: Sequence[Text], outputs: Any, spans: Sequence[Sequence[NumberedSpan]], nested: bool
    ) -> List[float]:
        shim = _for_prediction(model)
        found = [0.0] * len(texts)
        with torch.no_grad():
            for batch in self._batches(model, texts, range(len(texts)), nested):
                written = [part.markup.write(_within(spans[part.doc], part.window)) for part in batch]
                legal = [number for number, symbols in enumerate(written) if symbols is not None]
                for number, symbols in enumerate(written):
                    if symbols is None:
                        found[batch[number].doc] = -numpy.inf
                parts = [batch[number] for number in legal]
                if parts:
                    rows = [xp2torch(outputs[part.doc], device=shim.device)[part.start : part.stop] for part in parts]
                    symbols_of = [cast(List[int], written[number]) for number in legal]
                    values = score(shim.module, rows, [part.markup for part in parts], symbols_of)
                    for part, value in zip(parts, values.tolist()):
                        found[part.doc] += value
        return found

    def readings(self, model: Model, texts: Sequence[Text], outputs: Any, n: int, nested: bool) -> List[Generated]:
        shim = _for_prediction(model)
        found: List[List[Tuple[TokenWindow, List[Reading]]]] = [[] for _ in texts]
        with torch.no_grad():
            for batch in self._batches(model, texts, range(len(texts)), nested):
                rows = [xp2torch(outputs[part.doc], device=shim.device)[part.start : part.stop] for part in batch]
                for part, readings in zip(batch, generate(shim.module, rows, [part.markup for part in batch], n)):
                    found[part.doc].append((part.window, readings))
        return [combine(sorted(windows, key=lambda pair: pair[0].start), n, nested) for windows in found]

    def split(self, model: Model, doc: Doc) -> WindowedText:
        """RETURNS (WindowedText): A Doc in pieces, cut into windows; none of an empty Doc."""
        pieces = split_doc(_shim(model).tokenizer, doc, self.window)
        return WindowedText(pieces, join_borders(cut_pieces(pieces.bounds, self.window, self.overlap)))

    def _markup(self, model: Model, text: Text, whole: WindowedText, window: TokenWindow, nested: bool) -> Markup:
        borders = (window.start, window.stop)
        return Markup.of(whole.pieces, borders, text.free, text.closed, _shim(model).alphabet(nested))

    def _batches(
        self, model: Model, texts: Sequence[Text], docs: Sequence[int], nested: bool
    ) -> Iterator[List["_Part"]]:
        parts: List[_Part] = []
        special = len(_shim(model).special)
        for i in docs:
            whole, start = self.split(model, texts[i].doc), 0
            for window in whole.windows:
                markup = self._markup(model, texts[i], whole, window, nested)
                stop = start + len(markup.pieces) + special
                parts.append(_Part(i, window, start, stop, markup))
                start = stop
        if parts:
            lengths = numpy.array([part.stop - part.start for part in parts], dtype="int64")
            for group in group_by_length(lengths, MAX_PIECES, GROUP_COST):
                yield [parts[number] for number in group]


class _Part(NamedTuple):
    """A window, and where the encoder's output of it is in that of its Doc."""

    doc: int
    window: TokenWindow
    start: int
    stop: int
    markup: Markup


def _within(spans: Sequence[NumberedSpan], window: TokenWindow) -> List[NumberedSpan]:
    return [
        (start - window.start, end - window.start, label)
        for start, end, label in spans
        if window.start <= start and end <= window.stop
    ]


def _shim(model: Model) -> LanguageModelShim:
    shim = cast(LanguageModelShim, model.shims[0])
    if shim.module is None:
        raise BertHeadsError("H215", found=model.name)
    return shim


def _for_prediction(model: Model) -> LanguageModelShim:
    shim = _shim(model)
    shim.step_pending()
    shim.module.eval()
    return shim


def _init(model: Model, X: Optional[List[Doc]] = None, Y: Any = None) -> None:
    set_n_labels(model, Y)
    shim = cast(LanguageModelShim, model.shims[0])
    if shim.module is None:
        shim.set_model(load_language_model(model.attrs[GENERATOR].name), model.get_dim("nO"))


def _forward(
    model: Model, docs: List[Doc], is_train: bool
) -> Tuple[List[Floats2d], Callable[[List[Floats2d]], List[Doc]]]:
    """The encoder's output of each Doc's windows, one after the other."""
    shim = _shim(model)
    shim.step_pending()
    shim.module.train(is_train)
    shim.n_updates += is_train
    generator = cast(TextToText, model.attrs[GENERATOR])
    windows: List[Tuple[int, List[int]]] = []
    for i, doc in enumerate(docs):
        pieces, cuts = generator.split(model, doc)
        for window in cuts:
            ids = pieces.ids[pieces.bounds[window.start] : pieces.bounds[window.stop]]
            windows.append((i, [*shim.special.prefix, *ids, *shim.special.suffix]))
    states: List[torch.Tensor] = [torch.empty(0)] * len(windows)
    if windows:
        lengths = numpy.array([len(ids) for _, ids in windows], dtype="int64")
        with torch.set_grad_enabled(is_train):
            for group in group_by_length(lengths, MAX_PIECES, GROUP_COST):
                found = encode(shim.module, [windows[n][1] for n in group], shim.special.pad, shim.device)
                for number, rows in zip(group, found):
                    states[number] = rows
    width = shim.width
    parts: List[List[torch.Tensor]] = [[] for _ in docs]
    for (i, _), rows in zip(windows, states):
        parts[i].append(rows)
    joined = [torch.cat(rows) if rows else torch.zeros(0, width, device=shim.device) for rows in parts]

    def backprop(d_outputs: List[Floats2d]) -> List[Doc]:
        used = [i for i, rows in enumerate(parts) if rows]
        if used:
            gradients = [xp2torch(d_outputs[i], device=shim.device) for i in used]
            torch.autograd.backward([joined[i] for i in used], gradients)
        return docs

    return [cast(Floats2d, torch2xp(rows.detach())) for rows in joined], backprop
