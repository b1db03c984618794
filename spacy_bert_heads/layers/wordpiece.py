"""WordPiece vocabularies learned from texts, for encoders that start from nothing."""

from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterable, Optional

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece
from tokenizers.trainers import WordPieceTrainer
from transformers import BertTokenizerFast

from ..errors import BertHeadsError

SPECIAL_TOKENS = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
SPECIAL_TOKENS["mask_token"] = "[MASK]"


def learn_wordpieces(texts: Iterable[str], *, vocab_size: int, lowercase: bool) -> Tokenizer:
    """Learn a WordPiece vocabulary. The same texts give the same vocabulary.

    texts (Iterable[str]): The training texts, read once.
    vocab_size (int): Entries at most, special tokens counted.
    lowercase (bool): Whether to lower-case and strip accents, as uncased BERTs do.
    RETURNS (Tokenizer): A tokenizer as BERT's: Chinese characters stand alone, punctuation is split off.
    RAISES (BertHeadsError): H207 if the texts hold nothing to learn from.

    SOURCE: Wu et al. (2016), section 4.1; Devlin et al. (2019) for the splitting.
    """
    learner = _with_vocabulary({}, lowercase)
    words: Counter[str] = Counter()
    for text in texts:
        pieces = learner.pre_tokenizer.pre_tokenize_str(learner.normalizer.normalize_str(text))
        words.update(word for word, _ in pieces)
    if not words:
        raise BertHeadsError("H207")
    # The trainer numbers characters inside words as its hash tables bring them up, and settles ties by number.
    # Named beforehand, as if they were special tokens, they get the same numbers every time.
    inside = sorted({f"##{character}" for word in words for character in word[1:]})
    trainer = WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=[*SPECIAL_TOKENS.values(), *inside], show_progress=False
    )
    learner.train_from_iterator(words.elements(), trainer)
    return _with_vocabulary(learner.get_vocab(), lowercase)


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
        raise BertHeadsError("H208", path=path, found="an entry appears twice or an id is missing")
    missing = [token for token in SPECIAL_TOKENS.values() if tokenizer.token_to_id(token) is None]
    if missing:
        raise BertHeadsError("H208", path=path, found=f"no entry {', '.join(missing)}")
    return tokenizer


def _from_lines(text: str, lowercase: bool) -> Tokenizer:
    pieces = text.rstrip("\n").split("\n")
    return _with_vocabulary({piece.rstrip("\r"): i for i, piece in enumerate(pieces)}, lowercase)


def _with_vocabulary(vocab: Dict[str, int], lowercase: bool) -> Tokenizer:
    """A tokenizer that normalises and splits as BERT's do."""
    tokenizer = Tokenizer(WordPiece(vocab, unk_token=SPECIAL_TOKENS["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer
