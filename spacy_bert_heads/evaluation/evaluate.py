"""All scores of a trained pipeline on one file of annotated texts."""

from pathlib import Path
from typing import Any, Dict, List, Tuple

import srsly
from spacy.training import Corpus
from spacy.util import fix_random_seed

from ..corpus.doc_bins import read_doc_bins
from ..errors import BertHeadsError, printable
from ..files import write_files
from ..pipeline_io import load_pipeline

# Score, and what people call it; those that the pipeline has are shown
SHOWN = {
    "cats_acc": "categories, accuracy",
    "cats_micro_f": "categories, micro F",
    "cats_macro_f": "categories, macro F",
    "cats_pearson": "numbers, Pearson",
    "cats_spearman": "numbers, Spearman",
    "ents_p": "entities, precision",
    "ents_r": "entities, recall",
    "ents_f": "entities, F",
}


def evaluate(model: str, data: Path, output: Path) -> Dict[str, Any]:
    """Score a trained pipeline and write down everything the scorers said.

    Unlike `spacy evaluate` it keeps every score, such as the accuracy of exclusive categories.

    model (str): Folder or package of the pipeline.
    data (Path): A `.spacy` file, or a folder of them.
    output (Path): Where to write the scores as JSON.
    RETURNS (Dict[str, Any]): The scores.
    RAISES (BertHeadsError): H101 or H315 if the data cannot be read, H227 if the pipeline cannot, H310 if there is
        no text.
    """
    if not any(len(doc_bin) for doc_bin in read_doc_bins(data)):
        raise BertHeadsError("H310", path=data)
    nlp = load_pipeline(model)
    fix_random_seed()
    examples = list(Corpus(data)(nlp))
    scores: Dict[str, Any] = {"docs": len(examples), **nlp.evaluate(examples)}
    write_files({output: (srsly.json_dumps(scores, indent=2) + "\n").encode("utf8")})
    return scores


def to_text(scores: Dict[str, Any]) -> str:
    """RETURNS (str): The main scores as a table for a terminal."""
    from wasabi import table

    rows: List[Tuple[str, str]] = [
        (title, f"{100 * scores[key]:.1f}") for key, title in SHOWN.items() if scores.get(key) is not None
    ]
    if scores.get("cats_rmse") is not None:
        rows.append(("numbers, RMSE", f"{scores['cats_rmse']:.3f}"))
    support = scores.get("cats_support") or {}
    for kind, key in (("category", "cats_f_per_type"), ("entity", "ents_per_type")):
        for label, score in sorted((scores.get(key) or {}).items()):
            texts = f" ({support[label]} texts)" if key == "cats_f_per_type" and label in support else ""
            rows.append((f"{kind} {printable(label)}, F{texts}", f"{100 * score['f']:.1f}"))
    for label, score in sorted((scores.get("cats_per_target") or {}).items()):
        pearson = "-" if score["pearson"] is None else f"{100 * score['pearson']:.1f}"
        rows.append((f"number {printable(label)}, Pearson ({score['support']} texts)", pearson))
    return str(table([*rows, ("words/s", f"{scores['speed']:.0f}")], aligns=("l", "r")))

