"""Which annotated texts a large language model is shown beside a text: those that are most like it."""

from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any, List, Sequence, Set

from spacy.language import Language

from ...corpus.annotations import Annotation, merge
from ...corpus.findings import Findings
from ...corpus.readers.formats import AUTO, ReadOptions
from ...corpus.reading import in_memory_zones, read_files
from ...corpus.store import TextStore
from ...errors import BertHeadsError
from ..merge import list_spacy_files
from .questions import Shot

# Of more annotated texts than these the first are used.
MAX_EXAMPLES = 5000
# Languages whose words have no spaces between them
UNSPACED = ("zh", "ja", "th")


class Examples:
    """Annotated texts, to be shown as examples.

    paths (Sequence[Path]): Files of any format that `convert` reads, and folders of `.spacy` files. A file that is
        given twice is read once.
    nlp (Language): Tokenizes their texts.
    RAISES (BertHeadsError): H410 if scikit-learn is missing; H1xx for a bad file.

    labels, categories (List[str]): What they have, the most frequent first.
    exclusive (bool): Whether every text with categories has exactly one that holds.
    texts (Set[str]): All texts in the files.
    """

    def __init__(self, paths: Sequence[Path], nlp: Language) -> None:
        self._vectorizer: Any = _import_vectorizer()(**_vectorizer_settings(str(nlp.lang))) if paths else None
        self._nlp = nlp
        self.texts: Set[str] = set()
        self.exclusive = True
        self._annotations: List[Annotation] = []
        self._shots: List[Shot] = []
        self._vectors: Any = None
        files = {path.resolve(): path for given in paths for path in list_spacy_files(given)}
        findings = Findings(skip_bad=True)
        with closing(TextStore()) as store:
            options = ReadOptions(lang=str(nlp.lang), only_answered=True)
            read_files(
                store,
                nlp,
                list(files.values()),
                role=0,
                format=AUTO,
                options=options,
                off_tokens="drop",
                findings=findings,
            )
            for stored in in_memory_zones(nlp, store.texts()):
                annotation = merge(stored.records, findings)
                if annotation.silver is not None:
                    continue
                self.texts.add(annotation.text)
                if len(self._annotations) < MAX_EXAMPLES:
                    self._annotations.append(annotation)
        holding = [[name for name, value in one.cats.items() if value == 1.0] for one in self._annotations if one.cats]
        self.exclusive = all(len(names) == 1 for names in holding)
        self.labels = _names(ent.label for one in self._annotations for ent in one.ents)
        self.categories = _names(name for one in self._annotations for name in sorted(one.cats))

    def choose(self, *, ents: bool, cats: bool) -> int:
        """Keep those that answer the whole question.

        ents (bool): Whether entities are asked about.
        cats (bool): Whether categories are.
        RETURNS (int): How many there are.
        """
        used = [one for one in self._annotations if (one.complete and not one.unknown) or not ents]
        used = [one for one in used if one.cats or not cats]
        self._shots = [self._to_shot(one) for one in used]
        if self._shots:
            try:
                self._vectors = self._vectorizer.fit_transform(shot.text for shot in self._shots)
            except ValueError:  # no word in any of them
                self._shots = []
        return len(self._shots)

    def find(self, text: str, n: int) -> List[Shot]:
        """The examples most like a text.

        text (str): The text.
        n (int): How many.
        RETURNS (List[Shot]): The most similar one last, where models look most. The text itself is none of them.
        """
        if not self._shots or not n:
            return []
        similarities = (self._vectors @ self._vectorizer.transform([text]).T).toarray()[:, 0]
        order = (-similarities).argsort(kind="stable")[: n + 1]
        chosen = [self._shots[number] for number in order if self._shots[number].text != text][:n]
        return chosen[::-1]

    def _to_shot(self, annotation: Annotation) -> Shot:
        text, entities = annotation.text, []
        doc = self._nlp.make_doc(text)
        starts, ends = {token.idx for token in doc}, {token.idx + len(token) for token in doc}
        for start, end, label in annotation.ents:
            words, number, position = text[start:end], 1, text.find(text[start:end])
            while position < start:
                # As `align` counts them
                number += position in starts and position + len(words) in ends
                position = text.find(words, position + 1)
            entities.append((words, label, number))
        holding = tuple(name for name, value in annotation.cats.items() if value == 1.0)
        return Shot(text, tuple(entities), holding)


def _names(names: Any) -> List[str]:
    return [name for name, _ in Counter(names).most_common()]


def _vectorizer_settings(lang: str) -> Any:
    if lang in UNSPACED:
        return {"analyzer": "char", "ngram_range": (1, 3), "sublinear_tf": True}
    return {"token_pattern": r"(?u)\b\w+\b", "ngram_range": (1, 2), "sublinear_tf": True}


def _import_vectorizer() -> Any:
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError as error:
        raise BertHeadsError("H410", found="scikit-learn", extra="diverse") from error
    return TfidfVectorizer
