"""Few annotated texts: each is predicted by a pipeline that learned from others, so that none need be set aside."""

from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from spacy.language import Language
from spacy.tokens import Doc, DocBin
from spacy.training import Example
from spacy.vocab import Vocab
from thinc.api import Config

from ..corpus.doc_bins import read_docs
from ..extensions import UNCERTAINTY_NAMES
from ..factory_names import SPANS_FACTORIES
from .folds import NER_FACTORY, FoldSettings, assign_folds, begin_doc, run_folds
from .handover import Trust, find_mistakes, rate_doubts
from .heads import TEXTCAT_FACTORIES, find_heads
from .suggest import make_view_scorer
from .tasks import asked_heads, default_view

N_FOLDS = 3
# What `doc.user_data` says of a predicted text: whether a mistake is in it, and how unsure of it the pipeline was
WRONG, DOUBT = "wrong", "doubt"
# Factories of heads, and where the report of `merge` counts their labels
KINDS_OF_LABELS = (
    (TEXTCAT_FACTORIES, ("cats", "cats_not")),
    ((NER_FACTORY, *SPANS_FACTORIES), ("spans", "rejected")),
)
# Large values of a Doc that nobody asks for again
NOT_KEPT = ("trf_data", *UNCERTAINTY_NAMES)


def cross_validate(
    corpus: Path,
    folder: Path,
    settings: FoldSettings,
    *,
    view: Optional[str],
    strategy: Optional[str],
    say: Callable[[str], Any],
) -> None:
    """Train a pipeline for each fold, on all other folds, and keep what it predicts for that fold.

    Killed and called again, it goes on where it was. In the end only the predictions are left.

    corpus (Path): Annotated texts, a `.spacy` file.
    folder (Path): For the predictions, a `.spacy` file for each fold.
    settings (FoldSettings): How.
    view (Optional[str]): How annotators are asked, one of tasks.VIEWS. None: about all that the heads predict.
    strategy (Optional[str]): How doubts are measured, as for make_view_scorer.
    say (Callable[[str], Any]): Takes what is to be shown.
    RAISES (BertHeadsError): H631 if there are fewer different texts than folds; whatever fit-config, train and
        make_view_scorer find wrong.
    """
    docs = list(read_docs(corpus, Vocab()))
    numbers = assign_folds(docs, settings.folds, settings.seed)

    def answer(nlp: Language, chosen: List[int]) -> bytes:
        predicted = _predict(nlp, [docs[number] for number in chosen], view, strategy)
        return DocBin(store_user_data=True, docs=predicted).to_bytes()

    for _ in run_folds(docs, numbers, folder, settings, suffix=".spacy", answer=answer, say=say):
        pass


def name_labels(config: Config, counts: Dict[str, Any]) -> Config:
    """Name the labels of the heads, so that those are known too that all texts with them have in the same fold.

    config (Config): A training config, which is changed. Labels that it names already stay.
    counts (Dict[str, Any]): Labels of a split, as in the report of `merge`.
    RETURNS (Config): The same config.
    """
    components = config.setdefault("initialize", {}).setdefault("components", {})
    for name, component in config["components"].items():
        for factories, kinds in KINDS_OF_LABELS:
            labels = sorted({label for kind in kinds for label in counts[kind]})
            if labels and component.get("factory") in factories:
                components.setdefault(name, {}).setdefault("labels", labels)
    return config


def _predict(nlp: Language, docs: List[Doc], view: Optional[str], strategy: Optional[str]) -> List[Doc]:
    heads = find_heads(nlp)
    view = view or default_view(heads)
    scorer = make_view_scorer(nlp, view, strategy)
    examples = [Example(begin_doc(nlp, doc), doc) for doc in docs]
    asked = [head.name for head in asked_heads(heads, view) if head is not None]
    predicted, wrong, doubts = find_mistakes(scorer, examples, asked)
    for doc, mistaken, doubt in zip(predicted, wrong, doubts):
        for name in NOT_KEPT:
            doc.user_data.pop(("._.", name, None, None), None)  # type: ignore[call-overload]
        doc.user_data.update({WRONG: mistaken, DOUBT: doubt})
    return predicted


def read_predicted(folder: Path, vocab: Vocab) -> List[Doc]:
    """RETURNS (List[Doc]): What cross_validate has kept, fold by fold."""
    return [
        doc
        for path in sorted(folder.glob("fold-*.spacy"))
        for doc in DocBin(store_user_data=True).from_disk(path).get_docs(vocab)
    ]


def read_predicted_examples(corpus: Path, folder: Path, vocab: Vocab) -> List[Example]:
    """RETURNS (List[Example]): The same, with the annotation. No two texts of `corpus` may be the same."""
    annotated = {doc.text: doc for doc in read_docs(corpus, vocab)}
    return [Example(doc, annotated[doc.text]) for doc in read_predicted(folder, vocab)]


def read_trust(folder: Path) -> Trust:
    """RETURNS (Trust): How well the doubts about the texts that cross_validate has kept find the mistakes in them."""
    kept = [doc.user_data for doc in read_predicted(folder, Vocab())]
    return rate_doubts([data[WRONG] for data in kept], [data[DOUBT] for data in kept])
