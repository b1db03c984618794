"""Raw texts -> tasks for annotators: those from which the pipeline would learn most, predictions filled in."""

import json
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Iterator, List, Optional, Sequence, Set, Tuple

from spacy.language import Language
from tqdm import tqdm

from ..corpus.findings import Findings
from ..corpus.reading import ZONE
from ..corpus.report import render_findings
from ..corpus.sampling import EvenSample
from ..errors import BertHeadsError, NothingToAskError
from ..files import Staging, check_not_read, check_writable
from ..pipeline_io import load_pipeline
from .handover import Trust, measure_trust
from .hashes import input_hash
from .heads import Heads, find_heads
from .merge import list_spacy_files
from .raw_texts import Record, check_raw, is_readable, read_annotated, read_raw_texts
from .selection import MOST_TEXTS, Selection, can_cluster, check_selection
from .strategies import RANDOM, TYPICAL, Scorer, default_strategy, make_scorer
from .tasks import BINARY_VIEWS, TaskMaker, asked_heads, default_view
from .vectors import annotate_vectors, get_vector, has_vectors, read_vectors

# What a text was when it came before
EXCLUDED, READ = range(2)
NO_CLUSTERS = "None of them as a typical text, for which scikit-learn is needed (the extra `diverse`)"


@dataclass
class SuggestReport:
    """What became of the raw texts.

    strategy (str): By which they were ordered.
    view (str): How annotators are asked.
    n_read (int): Texts in the source.
    n_blank (int): Without a word.
    n_excluded (int): That were annotated before.
    n_duplicates (int): That came before in the source.
    n_nothing (int): In which there is nothing to ask about, such as no entity for a yes or no.
    n_texts (int): That were chosen.
    n_random, n_typical (int): Of these, drawn at random, and chosen as typical ones.
    n_tasks (int): That were written.
    highest (float): Score of the text most worth annotating.
    lowest (float): Score of the chosen one least worth it.
    findings (Findings): Bad records passed over.
    trust (Optional[Trust]): How far the pipeline itself was asked. None: it alone, or not at all.
    lacks_clusters (bool): Whether there are no typical texts for want of scikit-learn.
    """

    strategy: str
    findings: Findings
    view: str
    n_read: int = 0
    n_blank: int = 0
    n_excluded: int = 0
    n_duplicates: int = 0
    n_nothing: int = 0
    n_texts: int = 0
    n_random: int = 0
    n_typical: int = 0
    n_tasks: int = 0
    highest: float = float("-inf")
    lowest: float = float("inf")
    trust: Optional[Trust] = None
    lacks_clusters: bool = False

    def to_text(self) -> str:
        """RETURNS (str): The report, ready for a terminal. Its last line says what was written."""
        drawn = f", {self.n_random} of them drawn at random" if self.n_random else ""
        lines = [
            *render_findings(self.findings),
            self.read_line(),
            f"Chose {self.n_texts} texts by {self.strategy}{drawn}; scores {self.highest:.4f} to {self.lowest:.4f}",
            *([] if self.trust is None else [f"Of them {self.n_typical} as typical texts: {self.trust.to_text()}"]),
            *([NO_CLUSTERS] if self.lacks_clusters else []),
            f"Asking by the view {self.view}",
            f"Wrote {self.n_tasks} tasks",
        ]
        return "\n".join(lines)

    def read_line(self) -> str:
        """RETURNS (str): The line about what was read."""
        left_out = {
            "annotated before": self.n_excluded,
            "duplicates": self.n_duplicates,
            "blank": self.n_blank,
            "nothing to ask about": self.n_nothing,
        }
        said = ", ".join(f"{count} {name}" for name, count in left_out.items() if count)
        return f"Read {self.n_read} texts" + (f"; left out: {said}" if said else "")


def suggest(
    model: str,
    source: Path,
    output: Path,
    *,
    view: Optional[str] = None,
    strategy: Optional[str] = None,
    limit: Optional[int] = None,
    labels: Optional[Sequence[str]] = None,
    components: Sequence[str] = (),
    exclude: Sequence[Path] = (),
    dev: Optional[Path] = None,
    trust: Optional[Trust] = None,
    held_out: Sequence[Path] = (),
    diverse: bool = False,
    random_share: float = 0.0,
    seed: int = 0,
    skip_bad: bool = False,
) -> SuggestReport:
    """Write the tasks that are worth most, best first.

    Each text passes through the pipeline once, however many there are, and memory does not grow with their number.
    Where typical ones are chosen, the encoder reads those of `exclude` too, 20,000 of them at most.
    Besides what TaskMaker says, each task has a `priority`, the score of its text, and in `meta` the strategy that
    chose it ("random" if it was drawn, "typical" if it is one).

    model (str): Folder or package of a trained pipeline.
    source (Path): A `.jsonl` file whose lines have a "text", all of whose keys are kept, or a `.txt` file of one text
        a line; plain or gzipped.
    output (Path): The file to be written.
    view (Optional[str]): One of tasks.VIEWS. None: that which asks about all heads at once.
    strategy (Optional[str]): Key of STRATEGIES or "random". None: the one for the heads that the view asks about,
        and, with a limit, typical texts beside it: the fewer, the more mistakes its doubts find in `dev`; see Trust.
        Typical ones need an encoder that the heads share, scikit-learn, and a view that is no yes or no.
    limit (Optional[int]): How many texts. None: all.
    labels (Optional[Sequence[str]]): To ask about; None: all.
    components (Sequence[str]): Which heads to take where there are several of a kind.
    exclude (Sequence[Path]): Files, in any format that `convert` reads, whose texts are not to be asked about again;
        in a file of Prodigy's all of them, whatever the answer.
    dev (Optional[Path]): Annotated texts that the pipeline did not learn from, likewise; they are excluded, too.
    trust (Optional[Trust]): How good the pipeline's doubts are, if that is known. None: `dev` says it.
    held_out (Sequence[Path]): More texts to exclude. Unlike those of `exclude`, they stand for no others.
    diverse (bool): Choose texts that are not alike; see Selection.
    random_share (float): So much of the limit is drawn at random; see Selection.
    seed (int): For what is drawn.
    skip_bad (bool): Count bad records and continue; otherwise stop at the first one.
    RETURNS (SuggestReport): What became of the texts.
    RAISES (BertHeadsError): H101 to H107, H138 to H140, H147 or H166 for a bad file; H123 if the output cannot be
        written or is read; H227 if the pipeline cannot be loaded; H500 to H506 and H560 to H563 for settings that do
        not fit it; H505 if there is nothing to write.
    """
    check_writable(output.parent)
    apart = [*([] if dev is None else list_spacy_files(dev)), *held_out]
    check_not_read(output, [source, *exclude, *apart])
    check_raw(source)
    check_selection(limit, diverse=diverse, random_share=random_share)
    nlp = load_pipeline(model)
    heads = find_heads(nlp, components)
    spans_key = None if heads.spans is None else heads.spans.spans_key
    view = view or default_view(heads)
    maker = TaskMaker(nlp, view, labels=labels, components=components)
    scorer = make_view_scorer(nlp, view, strategy, components=components, seed=seed)
    report = SuggestReport(scorer.strategy, Findings(skip_bad=skip_bad), view)
    wants_typical = strategy is None and limit is not None and view not in BINARY_VIEWS and has_vectors(nlp)
    report.lacks_clusters = wants_typical and not can_cluster()
    if wants_typical and can_cluster():
        asked = [head.name for head in asked_heads(heads, view) if head is not None]
        if trust is None:
            trust = Trust() if dev is None else measure_trust(scorer, dev, asked, spans_key)
        report.trust = trust
    typical_share = 0.0 if report.trust is None else report.trust.typical_share
    selection = Selection(limit, diverse=diverse, random_share=random_share, typical_share=typical_share, seed=seed)
    if selection.compares:
        annotate_vectors(nlp)
    _, edited = _note_excluded(selection, apart, spans_key, seed)
    annotated, more = _note_excluded(selection, exclude, spans_key, seed)
    edited |= more
    if selection.chooses_typical and annotated:
        selection.cover(read_vectors(nlp, [text for text in annotated if is_readable(nlp, text)]))
    with Staging() as staging:
        texts = _new_texts(source, nlp, selection, edited, report)
        _score_all(texts, scorer, maker, selection, report)
        try:
            with staging.open(output) as stream:
                for chosen in selection.chosen():
                    report.n_texts += 1
                    report.n_random += chosen.way == RANDOM
                    report.n_typical += chosen.way == TYPICAL
                    report.highest = max(report.highest, chosen.score)
                    report.lowest = min(report.lowest, chosen.score)
                    for task in chosen.tasks:
                        report.n_tasks += 1
                        task["meta"]["strategy"] = chosen.way or scorer.strategy
                        stream.write(json.dumps(task, ensure_ascii=False) + "\n")
        finally:
            selection.close()
        if not report.n_texts:
            raise NothingToAskError("H505", path=source, found=report.read_line())
        staging.commit()
    return report


def make_view_scorer(
    nlp: Language, view: str, strategy: Optional[str], *, components: Sequence[str] = (), seed: int = 0
) -> Scorer:
    """The scorer for an interface: its default strategy is that for the heads that are asked about.

    nlp (Language): The pipeline.
    view (str): One of tasks.VIEWS.
    strategy (Optional[str]): Key of STRATEGIES or "random", even one for other heads; None for the default.
    components (Sequence[str]): Which heads to take where there are several of a kind.
    seed (int): For "random".
    RETURNS (Scorer): To be called with texts.
    RAISES (BertHeadsError): H500 to H502, or H560; see make_scorer and find_heads.
    """
    heads = find_heads(nlp, components)
    asked = asked_heads(heads, view)
    if strategy is None:
        strategy = default_strategy(asked)
    # What the view does not ask about can still say how useful a text is
    finders = asked if asked.finder is not None else heads
    heads = Heads(finders.ner, heads.textcat, finders.spans)
    return make_scorer(nlp, strategy, heads, seed=seed)


def _score_all(
    texts: Iterator[Tuple[str, Record]], scorer: Scorer, maker: TaskMaker, selection: Selection, report: SuggestReport
) -> None:
    number = 0
    with tqdm(desc="suggest", unit=" texts", delay=1.0, leave=False, disable=None) as bar:
        for first in texts:
            # Without it, the vocabulary would grow with every new word
            with scorer.nlp.memory_zone():
                zone = chain((first,), islice(texts, ZONE - 1))
                for doc, score, record in scorer.pipe(zone, as_tuples=True):
                    bar.update()
                    number += 1
                    if score != score:
                        raise BertHeadsError("H506", found=doc.text[:60])
                    # There `meta.score` is the probability of what is asked about
                    meta = {} if maker.view in BINARY_VIEWS else {"score": round(score, 4)}
                    tasks = maker.make(doc, meta=meta, record=record)
                    for task in tasks:
                        task["priority"] = score
                        task["meta"] = dict(task.get("meta") or {})
                    if tasks:
                        vector = get_vector(doc) if selection.compares else None
                        selection.add(number, doc.text, score, tasks, vector)
                    report.n_nothing += not tasks


def _new_texts(
    source: Path, nlp: Language, selection: Selection, edited: Set[int], report: SuggestReport
) -> Iterator[Tuple[str, Record]]:
    """Texts that nobody was asked about yet, each once, with the records they are in."""
    for text, record in read_raw_texts(source, nlp, report.findings):
        report.n_read += 1
        if not text.strip():
            report.n_blank += 1
            continue
        before = EXCLUDED if edited and input_hash(text) in edited else selection.note_text(text, READ)
        if before is None:
            yield text, record
        elif before == EXCLUDED:
            report.n_excluded += 1
        else:
            report.n_duplicates += 1


def _note_excluded(
    selection: Selection, paths: Sequence[Path], spans_key: Optional[str], seed: int
) -> Tuple[List[str], Set[int]]:
    """Remember texts that were annotated before.

    spans_key (Optional[str]): Where spans that may overlap are in the Docs of a corpus.
    seed (int): For the sample.
    RETURNS (Tuple[List[str], Set[int]]): An even sample of those that were not remembered yet; and input hashes of
        texts that an annotator has edited, by which the raw ones are known.
    """
    sample = EvenSample[str](MOST_TEXTS, seed)
    edited: Set[int] = set()
    for path in paths:
        for text, raw in read_annotated(path, spans_key):
            if selection.note_text(text, EXCLUDED) is None:
                sample.offer(text)
            if raw is not None:
                edited.add(raw)
    return sample.kept, edited
