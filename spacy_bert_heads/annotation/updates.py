"""Learning from answers while they come in."""

import logging
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Set, Tuple

from spacy.language import Language
from spacy.training import Example
from spacy.util import minibatch

from ..corpus.annotations import Annotation, merge
from ..corpus.docs import build_doc, check_annotation
from ..corpus.findings import Findings, Where
from ..corpus.readers.prodigy import limit_to_shown, read_record
from ..errors import BertHeadsError
from ..training.optimizer import CONSTANT, build_adamw_v1
from .heads import find_heads
from .tasks import SPANS_VIEWS

logger = logging.getLogger("spacy")

# A tenth of what BERT is fine-tuned with: a session has few answers, and the pipeline is to keep what it knows.
LEARN_RATE = 5e-6
BATCH_SIZE = 32
# Where messages say that an answer comes from; its line is its number in the session.
ANSWERS = Path("answers")


class Learner:
    """Lets the heads of a pipeline learn from answered Prodigy tasks, together with the encoder they share.

    What an answer says is read as from a file: an accept or reject in a binary view says something about one span or
    label and nothing about the rest. Other components are left as they are, but those that read the same encoder have
    to live with what it learns.

    nlp (Language): The pipeline. Its weights change.
    learn_rate (float): Of the encoder; heads learn faster by their own factors.
    components (Sequence[str]): Which heads learn where the pipeline has several of a kind; otherwise the first.
    RAISES (BertHeadsError): H560 if a component is no head.

    findings (Findings): What was left out and why, bad answers included.
    """

    def __init__(self, nlp: Language, *, learn_rate: float = LEARN_RATE, components: Sequence[str] = ()) -> None:
        self.nlp = nlp
        self.findings = Findings(skip_bad=True)
        found = find_heads(nlp, components)
        self._heads = [head.name for head in found if head]
        self._found = found
        self._encoders = [name for name in nlp.pipe_names if _listening(nlp, name) & {*self._heads}]
        self._excluded = [name for name in nlp.pipe_names if name not in self._heads + self._encoders]
        self._optimizer = build_adamw_v1(learn_rate, warmup=0, decay=CONSTANT)
        self._n_answers = 0

    def update(self, answers: Iterable[Mapping[str, Any]]) -> float:
        """Learn from some answers. Bad ones are logged and left out.

        answers (Iterable[Mapping[str, Any]]): Tasks with their answers.
        RETURNS (float): The losses of the heads in nats, a mean over batches. 0 if nothing could be learned.
        """
        losses: List[float] = []
        for batch in minibatch(self._read(answers), BATCH_SIZE):
            found: Dict[str, float] = self.nlp.update(batch, sgd=self._optimizer, losses={}, exclude=self._excluded)
            losses.append(sum(found[name] for name in self._heads))
            # An encoder also waits for heads that do not learn, and the optimizer for the next batch
            for name in self._encoders:
                self.nlp.get_pipe(name).finish_update(self._optimizer)  # type: ignore[attr-defined]
            self._optimizer.step_schedules()
        return sum(losses) / len(losses) if losses else 0.0

    def _read(self, answers: Iterable[Mapping[str, Any]]) -> List[Example]:
        versions: Dict[Tuple[str, Optional[str]], List[Annotation]] = {}
        for answer in answers:
            self._n_answers += 1
            where = Where(ANSWERS, self._n_answers)
            asked = self._found.spans if answer.get("_view_id") in SPANS_VIEWS else self._found.finder
            labels, key = (asked.labels, asked.spans_key) if asked else ((), None)
            overlaps = key is not None
            try:
                annotation = read_record(dict(answer), where, self.findings)
                annotation = limit_to_shown(
                    annotation, dict(answer), frozenset(labels), self.findings, overlaps=overlaps
                )
                annotation = check_annotation(
                    self.nlp, annotation, self.findings, off_tokens="drop", overlaps=overlaps
                )
            except BertHeadsError as error:
                logger.warning("%s", error)
                self.findings.bad(error)
                continue
            if not annotation.is_empty:
                versions.setdefault((annotation.text, key), []).append(annotation)
        docs = []
        for (_, key), found in versions.items():
            annotation = merge(found, self.findings, overlaps=key is not None)
            docs.append(build_doc(self.nlp, annotation, self.findings, spans_key=key))
        return [Example(self.nlp.make_doc(doc.text), doc) for doc in docs]


def _listening(nlp: Language, name: str) -> Set[str]:
    return set(getattr(nlp.get_pipe(name), "listening_components", ()))
