"""WordPiece vocabularies learned from texts, for encoders that start from nothing."""

from pathlib import Path
from typing import Any, Iterable, Optional

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece
from tokenizers.trainers import WordPieceTrainer
from transformers import BertTokenizerFast

from ..errors import BertHeadsError

SPECIAL_TOKENS = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
SPECIAL_TOKENS["mask_token"] = "[MASK]"


def learn_wordpieces(texts: Iterable[str], *, vocab_size: int, lowercase: bool) -> Tokenizer:
    """Learn a WordPiece vocabulary. The same texts in the same order give the same vocabulary.

    texts (Iterable[str]): The training texts, read once.
    vocab_size (int): Entries at most, special tokens counted.
    lowercase (bool): Whether to lower-case and strip accents, as uncased BERTs do.
    RETURNS (Tokenizer): A tokenizer as BERT's: Chinese characters stand alone, punctuation is split off.
    RAISES (BertHeadsError): H207 if the texts hold nothing to learn from.

    SOURCE: Wu et al. (2016), section 4.1; Devlin et al. (2019) for the splitting.
    """
    tokenizer = Tokenizer(WordPiece(unk_token=SPECIAL_TOKENS["unk_token"]))
    _set_up(tokenizer, lowercase)
    trainer = WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=list(SPECIAL_TOKENS.values()), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() <= len(SPECIAL_TOKENS):
        raise BertHeadsError("H207")
    return tokenizer


def bert_tokenizer(
    texts: Iterable[str], *, vocab: Optional[Path], vocab_size: int, lowercase: bool, max_length: int
) -> Any:
    """A Hugging Face tokenizer with a vocabulary of its own.

    vocab (Optional[Path]): A `vocab.txt` (one wordpiece a line) or a `tokenizer.json` to read instead of learning.
    RETURNS (BertTokenizerFast): With `model_max_length` set.
    RAISES (BertHeadsError): H208 for a vocabulary that is missing or cannot be read.
    """
    if vocab is None:
        tokenizer = learn_wordpieces(texts, vocab_size=vocab_size, lowercase=lowercase)
    else:
        tokenizer = _read_vocabulary(Path(vocab), lowercase)
    cls, sep = SPECIAL_TOKENS["cls_token"], SPECIAL_TOKENS["sep_token"]
    tokenizer.post_processor = processors.BertProcessing(
        (sep, tokenizer.token_to_id(sep)), (cls, tokenizer.token_to_id(cls))
    )
    return BertTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=max_length, do_lower_case=lowercase, **SPECIAL_TOKENS
    )


def _read_vocabulary(path: Path, lowercase: bool) -> Tokenizer:
    try:
        text = path.read_text(encoding="utf8")
        tokenizer = Tokenizer.from_str(text) if path.suffix == ".json" else _from_lines(text, lowercase)
    except Exception as error:  # tokenizers raises plain Exception for a JSON file of another kind
        raise BertHeadsError("H208", path=path, found=str(error)) from error
    ids = tokenizer.get_vocab().values()
    if len(set(ids)) != max(ids, default=-1) + 1:
        raise BertHeadsError("H208", path=path, found="an entry stands twice or an id is left out")
    missing = [token for token in SPECIAL_TOKENS.values() if tokenizer.token_to_id(token) is None]
    if missing:
        raise BertHeadsError("H208", path=path, found=f"no entry {', '.join(missing)}")
    return tokenizer


def _from_lines(text: str, lowercase: bool) -> Tokenizer:
    pieces = text.rstrip("\n").split("\n")
    vocab = {piece.rstrip("\r"): i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(WordPiece(vocab, unk_token=SPECIAL_TOKENS["unk_token"]))
    _set_up(tokenizer, lowercase)
    return tokenizer


def _set_up(tokenizer: Tokenizer, lowercase: bool) -> None:
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
