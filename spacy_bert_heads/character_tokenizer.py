"""A tokenizer for languages written without spaces: one token for each character, words kept whole or not."""

import re
from typing import Callable, List, Sequence, Tuple

from spacy.language import Language
from spacy.tokens import Doc
from spacy.util import DummyTokenizer
from spacy.vocab import Vocab

# A word in Latin letters, a number with its decimals, or any other character that is not white space.
TOKEN = re.compile(r"[A-Za-z\u00c0-\u024f]+|[0-9]+(?:[.,][0-9]+)*|\S")
CHARACTER_TOKENIZER = "spacy_bert_heads.CharacterTokenizer.v1"


class CharacterTokenizer(DummyTokenizer):
    """Makes a token of each character, but keeps words in Latin letters and numbers whole.

    Chinese and Japanese entities can begin and end at any character, where a word segmenter may see no boundary.

    vocab (Vocab): The shared vocabulary.
    whole_words (bool): Whether to keep words and numbers whole. If not, each letter, digit and space is a token as
        well: networks without wordpieces know rare words by their letters, and the ends of clauses by spaces.
    """

    def __init__(self, vocab: Vocab, whole_words: bool = True) -> None:
        self.vocab = vocab
        self.whole_words = whole_words

    def __call__(self, text: str) -> Doc:
        """Tokenize a text.

        text (str): Any text.
        RETURNS (Doc): Its tokens; white space as spaCy has it, so that `doc.text` is the text.
        """
        if not self.whole_words:
            return Doc(self.vocab, words=list(text), spaces=[False] * len(text))
        words, spaces = words_and_spaces(text, [match.span() for match in TOKEN.finditer(text)])
        return Doc(self.vocab, words=words, spaces=spaces)


def make_character_tokenizer(whole_words: bool = True) -> Callable[[Language], CharacterTokenizer]:
    """RETURNS (Callable[[Language], CharacterTokenizer]): Called by spaCy to make the tokenizer of a pipeline."""

    def make(nlp: Language) -> CharacterTokenizer:
        return CharacterTokenizer(nlp.vocab, whole_words)

    return make


def words_and_spaces(text: str, tokens: Sequence[Tuple[int, int]]) -> Tuple[List[str], List[bool]]:
    """What a Doc is made of.

    text (str): The text.
    tokens (Sequence[Tuple[int, int]]): Start and end of each token, in order. Between them is white space only.
    RETURNS (Tuple[List[str], List[bool]]): The words, and whether a space follows each. White space beyond that is
        a word of its own, as in spaCy.
    """
    words: List[str] = []
    spaces: List[bool] = []
    position = 0
    for start, end in [*tokens, (len(text), len(text))]:
        if start > position:
            gap = text[position:start]
            if words and gap[0] == " ":
                spaces[-1] = True
                gap = gap[1:]
            if gap:
                words.append(gap)
                spaces.append(False)
        if end > start:
            words.append(text[start:end])
            spaces.append(False)
        position = end
    return words, spaces
