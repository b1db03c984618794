"""Raw texts -> tasks for annotators, filled in by a large language model behind an address.

Three passes over the texts. The first counts what is not in the cache yet. The second asks for that, and each answer
is on disk before the next one is looked at. The third writes the tasks from the cache. So a run that ends, however,
goes on where it was.
"""

import json
import os
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from spacy.language import Language
from spacy.tokens import Doc
from tqdm import tqdm

from ...corpus.docs import load_tokenizer
from ...corpus.findings import Findings, Where
from ...corpus.reading import in_memory_zones
from ...corpus.report import render_findings
from ...corpus.store import hash_text
from ...corpus.writers.doccano import DoccanoWriter
from ...corpus.writers.label_studio import LabelStudioWriter
from ...corpus.writers.prodigy import ProdigyWriter
from ...errors import BertHeadsError, NothingToAskError, printable
from ...files import Staging, check_not_read, check_writable
from ..hashes import input_hash
from ..label_studio.client import read_token
from ..raw_texts import Record, check_raw, read_annotated, read_raw_texts
from ..strategies import random_number
from .answers import REASONS, Aligned, UnusableError, align, read_answer
from .cache import AnswerCache, Reply, open_cache, prompt_key
from .endpoint import KEY_VARIABLE, ChatEndpoint, RefusedError, most_tokens
from .examples import Examples
from .questions import Message, Question, check_names, read_descriptions
from .tasks import Opinion, build_doc, contents_of, export_doc, join, make_task

FORMATS = (ProdigyWriter.name, LabelStudioWriter.name, DoccanoWriter.name)
# Prices are of so many tokens.
MILLION = 1_000_000
# After so many prompts without an answer, one after the other, the endpoint is not asked any more.
MAX_IN_A_ROW = 5
# Why prompts were refused: so many reasons are named.
MAX_REASONS = 20
CHUNK_BYTES = 1 << 20
# What is in a file of tasks once somebody has answered some
ANSWER_MARKS = (b'"answer":', b'"_annotator_id":', b'"annotations":')


@dataclass(frozen=True)
class Teacher:
    """A large language model, and what it is asked.

    endpoint (str): Address, such as "http://127.0.0.1:8000/v1".
    model (str): Name of the model there.
    labels (Sequence[str]): Of entities. None given: those of the examples.
    categories (Sequence[str]): Of texts. None given: those of the examples.
    multiple (bool): Whether several categories may hold for a text, or none.
    descriptions (Optional[Path]): What they mean; see questions.read_descriptions.
    examples (Sequence[Path]): Annotated texts to show; see examples.Examples.
    shots (int): How many of them with each text.
    twice (bool): Ask twice, with labels and examples in another order, to see where the answers agree.
    max_tokens (int): The most tokens of an answer; to a long text it may have a quarter of its characters more.
    timeout (float): Seconds in which an answer must be complete.
    concurrency (int): How many answers are waited for at once.
    price_in, price_out (float): Of a million tokens of prompts, and of answers.
    budget (Optional[float]): The most that all answers in the cache may cost. None: no limit.
    """

    endpoint: str
    model: str
    labels: Sequence[str] = ()
    categories: Sequence[str] = ()
    multiple: bool = False
    descriptions: Optional[Path] = None
    examples: Sequence[Path] = ()
    shots: int = 5
    twice: bool = False
    max_tokens: int = 2048
    timeout: float = 120.0
    concurrency: int = 4
    price_in: float = 0.0
    price_out: float = 0.0
    budget: Optional[float] = None

    def check(self) -> None:
        """RAISES (BertHeadsError): H504 for a setting that makes no sense; H740 for nothing to ask."""
        limits = {
            "--shots": (self.shots, 0),
            "--concurrency": (self.concurrency, 1),
            "--max-tokens": (self.max_tokens, 1),
            "--price-in": (self.price_in, 0),
            "--price-out": (self.price_out, 0),
        }
        for name, (value, least) in limits.items():
            if not least <= value < float("inf"):
                raise BertHeadsError("H504", name=name, found=value, expected=f"{least} or more")
        if not 0 < self.timeout < float("inf"):
            raise BertHeadsError("H504", name="--timeout", found=self.timeout, expected="seconds above 0")
        if self.budget is not None and not 0 < self.budget < float("inf"):
            raise BertHeadsError("H504", name="--budget", found=self.budget, expected="more than 0")
        if self.budget is not None and not self.price_in and not self.price_out:
            raise BertHeadsError("H504", name="--budget", found="on", expected="--price-in and --price-out beside it")
        if not (self.labels or self.categories or self.examples):
            raise BertHeadsError("H740")

    def cost(self, tokens_in: int, tokens_out: int) -> float:
        """RETURNS (float): What so many tokens cost."""
        return (tokens_in * self.price_in + tokens_out * self.price_out) / MILLION


class Plan(NamedTuple):
    """What a run is about to send.

    host (str): Where to.
    is_local (bool): Whether that is this machine.
    is_encrypted (bool): Whether nobody can read it on its way.
    n_texts (int): How many texts, those that are sent twice once.
    n_prompts (int): How many prompts.
    n_examples (int): How many annotated texts there are to be sent along.
    most_in (int): Tokens of all prompts, at most.
    """

    host: str
    is_local: bool
    is_encrypted: bool
    n_texts: int
    n_prompts: int
    n_examples: int
    most_in: int

    def to_text(self) -> str:
        """RETURNS (str): What is to be confirmed."""
        also = f", each with some of {self.n_examples:,} annotated texts," if self.n_examples else ""
        open_way = "" if self.is_encrypted else ", not encrypted"
        size = f"{self.n_prompts:,} prompts, at most {self.most_in:,} tokens"
        return f"{self.n_texts:,} texts{also} would be sent to {self.host}{open_way} ({size})"


class Prompt(NamedTuple):
    """A prompt, with the key of its answer in the cache."""

    key: str
    messages: List[Message]
    max_tokens: int

    def most(self, teacher: Teacher) -> float:
        """RETURNS (float): The most that its answer can cost."""
        return teacher.cost(most_tokens(self.messages), self.max_tokens)


@dataclass
class PrelabelReport:
    """What became of the texts and the answers.

    n_read, n_blank, n_excluded, n_duplicates (int): Texts in the source; without a word; annotated before, or among
        the examples; that came before in the source.
    n_asked, n_cached (int): Prompts that were answered now, and that had been before.
    tokens_in, tokens_out (int): Of the answers that were asked for now.
    n_estimated (int): Of them, those whose tokens the endpoint did not count.
    cost (float): Theirs.
    total_cost (float): Of all answers in the cache.
    priced (bool): Whether there are prices.
    n_left (int): Texts without an answer, since the budget is spent.
    refused (Dict[str, int]): Why the endpoint gave no answer, and for how many prompts.
    unusable (Counter[str]): Texts whose answers are none, by reason.
    n_ents (int): Entities that are filled in.
    rejected (Counter[str]): What is not, by reason.
    n_unsure (int): Entities and categories about which two answers disagree.
    agreement (float): Sum of how far two answers agree, over all texts.
    n_tasks (int): That were written.
    findings (Findings): Bad records passed over.
    """

    findings: Findings
    n_read: int = 0
    n_blank: int = 0
    n_excluded: int = 0
    n_duplicates: int = 0
    n_asked: int = 0
    n_cached: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    n_estimated: int = 0
    cost: float = 0.0
    total_cost: float = 0.0
    priced: bool = False
    n_left: int = 0
    refused: Dict[str, int] = field(default_factory=dict)
    unusable: "Counter[str]" = field(default_factory=Counter)
    n_ents: int = 0
    rejected: "Counter[str]" = field(default_factory=Counter)
    n_unsure: int = 0
    agreement: Optional[float] = None
    n_tasks: int = 0

    def to_text(self) -> str:
        """RETURNS (str): The report, ready for a terminal. Its last line says what was written."""
        left_out = {
            "annotated before": self.n_excluded,
            "duplicates": self.n_duplicates,
            "blank": self.n_blank,
        }
        said = ", ".join(f"{count:,} {name}" for name, count in left_out.items() if count)
        price = f", cost {self.cost:.4f} (all answers in the cache: {self.total_cost:.4f})" if self.priced else ""
        tokens = f"{self.tokens_in:,} tokens in, {self.tokens_out:,} out"
        estimated = f", those of {self.n_estimated:,} answers estimated" if self.n_estimated else ""
        lines = [
            *render_findings(self.findings),
            f"Read {self.n_read:,} texts" + (f"; left out: {said}" if said else ""),
            f"Asked for {self.n_asked:,} answers: {tokens}{estimated}{price}; {self.n_cached:,} were in the cache",
        ]
        lines += [f"  {count:,} prompts refused: {printable(why)}" for why, count in self.refused.items()]
        lines += [f"  {count:,} {REASONS[why]}, left out" for why, count in self.unusable.most_common()]
        lines += [f"  {count:,} {REASONS[why]}" for why, count in self.rejected.most_common()]
        if self.agreement is not None and self.n_tasks:
            mean = self.agreement / self.n_tasks
            lines.append(f"Two answers agree by {mean:.2f} on average; {self.n_unsure:,} of their parts are unsure")
        if self.n_left:
            lines.append(f"The budget is spent: {self.n_left:,} texts have no answer yet. Run again with a higher one")
        lines.append(f"Wrote {self.n_tasks:,} tasks with {self.n_ents:,} entities")
        return "\n".join(lines)


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
        asking = _Asking(self.teacher, self.endpoint, self.schema, answers, self.report)
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


class _Asking:
    """Asks several prompts at once, and keeps each answer when it comes."""

    def __init__(
        self,
        teacher: Teacher,
        endpoint: ChatEndpoint,
        schema: Dict[str, Any],
        answers: AnswerCache,
        report: PrelabelReport,
    ) -> None:
        self.teacher = teacher
        self.endpoint = endpoint
        self.schema = schema
        self.answers = answers
        self.report = report
        self._spent = answers.spent()
        self.refused: Set[str] = set()
        self._waiting: "Dict[Future[Reply], Prompt]" = {}
        self._in_a_row = 0

    def run(self, prompts: Iterator[Prompt], done: Callable[[], Any]) -> None:
        """Ask until there are no more prompts, or no more money."""
        prompt = next(prompts, None)
        with ThreadPoolExecutor(self.teacher.concurrency, thread_name_prefix="prelabel") as pool:
            try:
                while prompt is not None or self._waiting:
                    # One alone, until it is known what the endpoint understands
                    width = self.teacher.concurrency if self.endpoint.settled else 1
                    while prompt is not None and len(self._waiting) < width and self._can_pay(prompt):
                        work = pool.submit(self.endpoint.ask, prompt.messages, self.schema, prompt.max_tokens)
                        self._waiting[work] = prompt
                        prompt = next(prompts, None)
                    if not self._waiting:
                        return
                    for work in wait(self._waiting, return_when=FIRST_COMPLETED).done:
                        self._take(work)
                        done()
            except BaseException:
                # What is on its way is paid for, so it is waited for and kept
                self.endpoint.stop()
                for work in wait(self._waiting).done:
                    self._keep(work, self._waiting[work])
                raise

    def _can_pay(self, prompt: Prompt) -> bool:
        """Whether it cannot go beyond the budget, whatever all answers that are waited for will cost."""
        if self.teacher.budget is None:
            return True
        held = sum(other.most(self.teacher) for other in self._waiting.values())
        return self._spent + held + prompt.most(self.teacher) <= self.teacher.budget

    def _take(self, work: "Future[Reply]") -> None:
        prompt = self._waiting.pop(work)
        error = work.exception()
        if isinstance(error, RefusedError):
            why = str(error)
            if why not in self.report.refused and len(self.report.refused) >= MAX_REASONS:
                why = "other reasons"
            self.refused.add(prompt.key)
            self.report.refused[why] = self.report.refused.get(why, 0) + 1
            self._in_a_row += 1
            if self._in_a_row >= MAX_IN_A_ROW:
                raise BertHeadsError("H746", url=self.endpoint.url, found=why)
        elif error is not None:
            raise error
        else:
            self._in_a_row = 0
            self._keep(work, prompt)

    def _keep(self, work: "Future[Reply]", prompt: Prompt) -> None:
        if work.exception() is not None:
            return
        reply = work.result()
        cost = self.teacher.cost(reply.tokens_in, reply.tokens_out)
        self.answers.put(prompt.key, reply, cost)
        self._spent += cost
        report = self.report
        report.n_asked += 1
        report.tokens_in += reply.tokens_in
        report.tokens_out += reply.tokens_out
        report.n_estimated += reply.estimated
        report.cost += cost
