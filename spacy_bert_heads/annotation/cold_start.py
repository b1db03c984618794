"""The first texts to annotate, where there is no pipeline to ask: those that stand for many others."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import List, Sequence, Tuple

import spacy
from spacy.language import Language
from spacy.util import registry
from thinc.api import Config

from ..corpus.findings import Findings
from ..corpus.report import render_findings
from ..corpus.sampling import EvenSample
from ..corpus.store import hash_text
from ..errors import NothingToAskError
from ..files import Staging, check_not_read, check_writable
from ..project.configs import SCRATCH
from ..training.fit_config import ENCODER_FACTORY, encoder_component, encoder_name, read_config
from .hashes import input_hash
from .prelabel.questions import Question
from .prelabel.tasks import begin_task
from .raw_texts import Record, check_raw, read_annotated, read_raw_texts
from .selection import MOST_TEXTS, choose_typical
from .strategies import RANDOM, TYPICAL
from .vectors import annotate_vectors, read_vectors


@dataclass
class FirstTexts:
    """What was chosen.

    strategy (str): TYPICAL, or RANDOM where there is no pretrained encoder to compare texts with.
    n_read, n_left_out, n_chosen (int): Texts of the file; blank ones, duplicates and excluded ones; tasks.
    """

    strategy: str
    findings: Findings
    n_read: int = 0
    n_left_out: int = 0
    n_chosen: int = 0

    def to_text(self) -> str:
        """RETURNS (str): The report, ready for a terminal."""
        reason = (
            "each stands for a cluster of texts" if self.strategy == TYPICAL else "no pretrained encoder compares them"
        )
        lines = [
            *render_findings(self.findings),
            f"Read {self.n_read} texts; left out: {self.n_left_out}",
            f"Chose {self.n_chosen} texts to begin with by {self.strategy}: {reason}",
        ]
        return "\n".join(lines)


def choose_first_texts(
    source: Path,
    output: Path,
    question: Question,
    *,
    config: Path,
    limit: int,
    exclude: Sequence[Path] = (),
    seed: int = 0,
    skip_bad: bool = False,
) -> FirstTexts:
    """Write empty tasks for texts that nobody has annotated, in Prodigy's format.

    source (Path): As for `suggest`. Of more than 20,000 texts, an even sample of so many is compared.
    output (Path): The file to be written.
    question (Question): What is asked about each text.
    config (Path): Training config, whose encoder compares the texts.
    limit (int): How many texts.
    exclude (Sequence[Path]): Annotated texts that are not to be asked about.
    seed (int): For clusters and draws.
    skip_bad (bool): Count bad records and continue; otherwise stop at the first one.
    RETURNS (FirstTexts): What was chosen.
    RAISES (BertHeadsError): H101 to H107, H138 to H140, H147 or H166 for a bad file; H123 if the output cannot be
        written; H202 to H205 or H401 for an encoder that cannot be loaded; H410 without scikit-learn; H505 if there is
        nothing to ask about.
    """
    check_writable(output.parent)
    check_not_read(output, [source, *exclude])
    check_raw(source)
    nlp = _make_encoder(read_config(config))
    report = FirstTexts(TYPICAL if nlp.pipe_names else RANDOM, Findings(skip_bad=skip_bad))
    records = _sample(source, nlp, exclude, report, seed)
    if not records:
        raise NothingToAskError("H505", path=source, found=report.to_text().split("\n")[-2])
    if nlp.pipe_names:
        chosen = choose_typical(read_vectors(nlp, [text for text, _ in records]), limit, seed)
    else:
        chosen = random.Random(seed).sample(range(len(records)), min(limit, len(records)))
    with Staging() as staging:
        with staging.open(output) as stream:
            for number in chosen:
                text, record = records[number]
                task = begin_task(nlp.make_doc(text), record, question)
                task["meta"]["strategy"] = report.strategy
                stream.write(json.dumps(task, ensure_ascii=False) + "\n")
                report.n_chosen += 1
        staging.commit()
    return report


def _make_encoder(config: Config) -> Language:
    """A pipeline of the tokenizer and the encoder of a config alone; without the encoder if it knows nothing yet."""
    filled = config.interpolate()
    nlp = spacy.blank(filled["nlp"]["lang"])
    nlp.tokenizer = registry.resolve({"tokenizer": filled["nlp"]["tokenizer"]})["tokenizer"](nlp)
    name = encoder_component(config)
    if name is not None and encoder_name(config) != SCRATCH:
        nlp.add_pipe(ENCODER_FACTORY, config={"model": filled["components"][name]["model"]})
        nlp.initialize()
        annotate_vectors(nlp)
    return nlp


def _sample(
    source: Path, nlp: Language, exclude: Sequence[Path], report: FirstTexts, seed: int
) -> List[Tuple[str, Record]]:
    """Texts that may be asked about, each once; an even sample of a large file."""
    seen, edited = set(), set()
    for path in exclude:
        for text, raw in read_annotated(path):
            seen.add(hash_text(text))
            if raw is not None:
                edited.add(raw)
    sample = EvenSample[Tuple[str, Record]](MOST_TEXTS, seed)
    for text, record in read_raw_texts(source, nlp, report.findings):
        report.n_read += 1
        number = hash_text(text)
        if not text.strip() or number in seen or (edited and input_hash(text) in edited):
            report.n_left_out += 1
        else:
            seen.add(number)
            sample.offer((text, record))
    return sample.kept
