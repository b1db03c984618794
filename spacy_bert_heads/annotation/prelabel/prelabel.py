"""Raw texts -> tasks for annotators, filled in by a large language model behind an address.

Three passes over the texts. The first counts what is not in the cache yet. The second asks for that, and each answer
is on disk before the next one is looked at. The third writes the tasks from the cache. So a run that ends, however,
goes on where it was.
"""

import json
import os
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional, Sequence, Set, Tuple

from spacy.language import Language
from spacy.tokens import Doc
from tqdm import tqdm

from ...corpus.docs import load_tokenizer
from ...corpus.findings import Findings, Where
from ...corpus.reading import in_memory_zones
from ...corpus.store import hash_text
from ...corpus.writers.doccano import DoccanoWriter
from ...corpus.writers.label_studio import LabelStudioWriter
from ...corpus.writers.prodigy import ProdigyWriter
from ...errors import BertHeadsError, NothingToAskError
from ...files import Staging, check_not_read, check_writable
from ..hashes import input_hash
from ..label_studio.client import read_token
from ..raw_texts import Record, check_raw, read_annotated, read_raw_texts
from ..strategies import random_number
from .answers import REASONS, Aligned, UnusableError, align, read_answer
from .asking import Asking
from .cache import AnswerCache, Reply, open_cache, prompt_key
from .endpoint import KEY_VARIABLE, ChatEndpoint, most_tokens
from .examples import Examples
from .questions import Question, check_names, read_descriptions
from .report import PrelabelReport
from .tasks import Opinion, build_doc, contents_of, export_doc, join, make_task
from .teacher import Plan, Prompt, Teacher

FORMATS = (ProdigyWriter.name, LabelStudioWriter.name, DoccanoWriter.name)
CHUNK_BYTES = 1 << 20
# What is in a file of tasks once somebody has answered some
ANSWER_MARKS = (b'"answer":', b'"_annotator_id":', b'"annotations":')


def prelabel(
    source: Path,
    output: Path,
    teacher: Teacher,
    *,
    confirm: Callable[[Plan], bool],
    format: str = ProdigyWriter.name,
    lang: str = "en",
    limit: Optional[int] = None,
    exclude: Sequence[Path] = (),
    cache: Optional[Path] = None,
    force: bool = False,
    skip_bad: bool = False,
) -> PrelabelReport:
    """Have a large language model annotate texts, and write its answers as tasks for people.

    Offsets are found here, at the borders of tokens: the model names words. What is not in the text, or was not asked
    for, is counted and left out. Each answer is kept in the cache, so that it is paid for once.

    source (Path): A `.jsonl` file whose lines have a "text", all of whose keys are kept, or a `.txt` file of one text
        a line; plain or gzipped.
    output (Path): The file of tasks.
    teacher (Teacher): Whom to ask, and what.
    confirm (Callable[[Plan], bool]): Asked before a text leaves this machine; not if the endpoint is on it.
    format (str): One of FORMATS.
    lang (str): Language whose tokenizer splits the texts.
    limit (Optional[int]): How many texts, drawn at random: the same ones each time, and with a higher limit others
        besides. None: all.
    exclude (Sequence[Path]): Files of texts that are not to be asked about, in any format that `convert` reads.
    cache (Optional[Path]): File of answers. None: beside the output, by its name and ".answers".
    force (bool): Replace a file of tasks that is there, unless somebody has answered some.
    skip_bad (bool): Count bad records and continue; otherwise stop at the first one.
    RETURNS (PrelabelReport): What became of them.
    RAISES (BertHeadsError): H101 to H107, H138 to H140, H147 or H166 for a bad file; H123 if the output cannot be
        written or is read; H167 for an unknown format; H187 if another process works with the cache; H332, H504, H580
        or H740 to H742 for settings; H505 if there is no text; H743 to H746 if the endpoint does not answer; H747 if
        it was not confirmed; H748 for descriptions; H749 for the cache; H750 or H751 if there is a file of tasks.
    """
    if format not in FORMATS:
        raise BertHeadsError("H167", found=repr(format), expected=", ".join(FORMATS))
    if limit is not None and limit < 1:
        raise BertHeadsError("H504", name="--limit", found=limit, expected="1 or more")
    teacher.check()
    check_raw(source)
    cache = output.with_name(output.name + ".answers") if cache is None else cache
    for path in (output, cache):
        check_writable(path.parent)
        check_not_read(
            path, [source, *exclude, *teacher.examples, *([teacher.descriptions] if teacher.descriptions else [])]
        )
    check_not_read(output, [cache])
    check_replaceable(output, force=force)
    endpoint = ChatEndpoint(teacher.endpoint, teacher.model, read_token(None, KEY_VARIABLE), timeout=teacher.timeout)
    nlp = load_tokenizer(lang)
    examples = Examples(teacher.examples, nlp)
    question = make_question(teacher, examples)
    if teacher.twice and question.instructions() == question.instructions(reverse=True):
        raise BertHeadsError("H504", name="--twice", found="on", expected="several labels or categories to reorder")
    n_examples = examples.choose(ents=bool(question.labels), cats=bool(question.categories))
    report = PrelabelReport(Findings(skip_bad=skip_bad), priced=bool(teacher.price_in or teacher.price_out))
    run = _Run(source, nlp, teacher, question, examples, endpoint, limit, report)
    run.note_excluded(exclude)
    cache.parent.mkdir(parents=True, exist_ok=True)
    with open_cache(cache) as answers:
        plan = run.plan(answers, n_examples if teacher.shots else 0)
        if plan.n_prompts and not plan.is_local and not confirm(plan):
            raise BertHeadsError("H747", found=plan.to_text())
        run.ask(answers, plan.n_prompts)
        report.total_cost = answers.spent()
        with Staging() as staging:
            with staging.open(output) as stream:
                for line in run.lines(answers, format):
                    stream.write(line)
            if not report.n_tasks:
                raise run.no_tasks()
            # Somebody may have begun meanwhile
            check_replaceable(output, force=force)
            staging.commit()
    return report


def make_question(teacher: Teacher, examples: Examples) -> Question:
    """RETURNS (Question): What is asked: labels as they are given, or else as the examples have them."""
    labels = check_names(list(teacher.labels), "--labels")
    categories = check_names(list(teacher.categories), "--categories")
    if not labels and not categories:
        labels, categories = tuple(examples.labels), tuple(examples.categories)
        if not labels and not categories:
            raise BertHeadsError("H740")
    exclusive = not teacher.multiple and (bool(teacher.categories) or examples.exclusive)
    if exclusive and len(categories) == 1:
        raise BertHeadsError("H504", name="--categories", found=categories[0], expected="two or more, or --multiple")
    return Question(labels, categories, exclusive, read_descriptions(teacher.descriptions, [*labels, *categories]))


def check_replaceable(output: Path, *, force: bool) -> None:
    """Refuse to replace tasks that people may be working on.

    output (Path): Where tasks are to be written.
    force (bool): Whether the user says that a file may be replaced.
    RAISES (BertHeadsError): H750 if there is a file, H751 if there are answers in it, whatever the user says.
    """
    if not os.path.lexists(output):
        return
    if not force:
        raise BertHeadsError("H750", path=output)
    if output.is_file():
        tail = b""
        with output.open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                # With the end of the last one, so that no mark is cut in two
                found = next((mark for mark in ANSWER_MARKS if mark in tail + chunk), None)
                if found is not None:
                    raise BertHeadsError("H751", path=output, found=found.decode().strip('":'))
                tail = chunk[-32:]


class _Run:
    """One run over a file of texts."""

    def __init__(
        self,
        source: Path,
        nlp: Language,
        teacher: Teacher,
        question: Question,
        examples: Examples,
        endpoint: ChatEndpoint,
        limit: Optional[int],
        report: PrelabelReport,
    ) -> None:
        self.source = source
        self.nlp = nlp
        self.teacher = teacher
        self.question = question
        self.examples = examples
        self.endpoint = endpoint
        self.limit = limit
        self.report = report
        self.schema = question.schema()
        self._excluded: Set[int] = {hash_text(text) for text in examples.texts}
        self._edited: Set[int] = set()
        self._refused: Set[str] = set()
        self._drawn: Optional[Set[int]] = None
        # Whatever changes an answer is in the prompt or here
        self._key = (teacher.endpoint.rstrip("/"), teacher.model, self.schema)

    def note_excluded(self, paths: Sequence[Path]) -> None:
        """Remember texts that are not to be asked about."""
        for path in paths:
            for text, raw in read_annotated(path):
                self._excluded.add(hash_text(text))
                if raw is not None:
                    self._edited.add(raw)

    def plan(self, answers: AnswerCache, n_examples: int) -> Plan:
        """Count what is to be sent. Only this pass counts the texts, and stops at bad ones."""
        n_texts = n_prompts = most_in = n_used = 0
        for text, _ in self._texts(self.report.findings, self.report):
            n_used += 1
            new = [prompt for prompt in self._prompts(text) if answers.get(prompt.key) is None]
            n_texts += bool(new)
            n_prompts += len(new)
            most_in += sum(most_tokens(prompt.messages) for prompt in new)
            self.report.n_cached += (2 if self.teacher.twice else 1) - len(new)
        if not n_used:
            found = self.report.to_text().split("\n")[-3]
            raise NothingToAskError("H505", path=self.source, found=found)
        return Plan(
            self.endpoint.host,
            self.endpoint.is_local,
            self.endpoint.is_encrypted,
            n_texts,
            n_prompts,
            n_examples,
            most_in,
        )

    def ask(self, answers: AnswerCache, n_prompts: int) -> None:
        """Ask for what is not in the cache, as long as the budget allows it.

        RAISES (BertHeadsError): H743 to H745 if the endpoint cannot be used; H746 if it refuses one prompt after
            the other.
        """
        if not n_prompts:
            return
        asking = Asking(self.teacher, self.endpoint, self.schema, answers, self.report)
        new = (
            prompt for text, _ in self._texts() for prompt in self._prompts(text) if answers.get(prompt.key) is None
        )
        with tqdm(desc="prelabel", total=n_prompts, unit=" prompts", delay=1.0, leave=False, disable=None) as bar:
            asking.run(new, bar.update)
        self._refused = asking.refused

    def no_tasks(self) -> BertHeadsError:
        """RETURNS (BertHeadsError): Why there is nothing to write."""
        report, url = self.report, self.endpoint.url
        if report.n_left and not report.unusable and not report.refused:
            most = max(prompt.most(self.teacher) for text, _ in self._texts() for prompt in self._prompts(text))
            return BertHeadsError("H752", found=self.teacher.budget, most=f"{most:.4f}")
        reasons = [REASONS[why] for why, _ in report.unusable.most_common()] + list(report.refused)
        return BertHeadsError("H746", url=url, found="; ".join(reasons))

    def lines(self, answers: AnswerCache, format: str) -> Iterator[str]:
        """The lines of the file of tasks."""
        provenance = {"model": self.teacher.model, "prompt": self.question.prompt_hash()}
        rated = self._rated(answers)
        if format == ProdigyWriter.name:
            for doc, record, opinion, _ in rated:
                task = make_task(doc, record, self.question, opinion, provenance)
                yield json.dumps(task, ensure_ascii=False) + "\n"
            return
        is_tasks = format == LabelStudioWriter.name
        writer: Any = (LabelStudioWriter if is_tasks else DoccanoWriter)(self.nlp.make_doc)
        contents = contents_of(self.question, self.teacher.model if is_tasks else None)
        docs = (export_doc(doc, record, where, contents, provenance) for doc, record, _, where in rated)
        yield from writer.lines(docs, Findings(skip_bad=True))

    def _rated(self, answers: AnswerCache) -> Iterator[Tuple[Doc, Record, Opinion, Where]]:
        for number, (text, record) in enumerate(in_memory_zones(self.nlp, self._texts()), 1):
            keys = [prompt.key for prompt in self._prompts(text)]
            known = [reply for reply in map(answers.get, keys) if reply is not None]
            if not known:
                self.report.n_left += self._refused.isdisjoint(keys)
                continue
            doc = self.nlp.make_doc(text)
            tokens = [(token.idx, token.idx + len(token)) for token in doc]
            aligned = [found for found in (self._align(reply, text, tokens) for reply in known) if found is not None]
            if not aligned:
                continue
            if self.teacher.twice and len(aligned) == 1:
                # Nobody agrees with it
                aligned.append(Aligned())
            opinion = join(aligned, exclusive=self.question.exclusive)
            report = self.report
            report.n_tasks += 1
            report.n_ents += len(opinion.ents)
            report.n_unsure += len(opinion.unsure) + len(opinion.unsure_cats)
            if opinion.agreement is not None:
                report.agreement = (report.agreement or 0.0) + opinion.agreement
            yield build_doc(doc, opinion), record, opinion, Where(self.source, number)

    def _align(self, reply: Reply, text: str, tokens: List[Tuple[int, int]]) -> Optional[Aligned]:
        try:
            found = align(read_answer(reply.content, self.question), text, tokens, self.question)
        except UnusableError as error:
            self.report.unusable[str(error)] += 1
            return None
        self.report.rejected += found.rejected
        return found

    def _prompts(self, text: str) -> List[Prompt]:
        shots = self.examples.find(text, self.teacher.shots)
        prompts = []
        for reverse in (False, True) if self.teacher.twice else (False,):
            messages = self.question.messages(text, shots, reverse=reverse)
            key = prompt_key(*self._key, messages)
            prompts.append(Prompt(key, messages, self.teacher.max_tokens + len(text) // 4))
        return prompts

    def _texts(
        self, findings: Optional[Findings] = None, report: Optional[PrelabelReport] = None
    ) -> Iterator[Tuple[str, Record]]:
        """The texts to ask about, each once, with the records they are in."""
        findings = Findings(skip_bad=True) if findings is None else findings
        report = PrelabelReport(findings) if report is None else report
        seen: Set[int] = set()
        drawn = self._draw() if self.limit is not None else None
        for text, record in read_raw_texts(self.source, self.nlp, findings):
            report.n_read += 1
            if not text.strip():
                report.n_blank += 1
                continue
            key = hash_text(text)
            if self._is_excluded(text):
                report.n_excluded += 1
            elif key in seen:
                report.n_duplicates += 1
            else:
                seen.add(key)
                if drawn is None or key in drawn:
                    yield text, record

    def _is_excluded(self, text: str) -> bool:
        return hash_text(text) in self._excluded or (bool(self._edited) and input_hash(text) in self._edited)

    def _draw(self) -> Set[int]:
        """Which texts to ask about, where they are not all."""
        if self._drawn is None:
            findings = Findings(skip_bad=self.report.findings.skip_bad)
            keys: Set[int] = set()
            for text, _ in read_raw_texts(self.source, self.nlp, findings):
                if text.strip() and not self._is_excluded(text):
                    keys.add(hash_text(text))
            self._drawn = set(sorted(keys, key=lambda key: (random_number(str(key), 0), key))[: self.limit])
        return self._drawn
