"""Several prompts at once, within a budget; each answer is kept when it comes."""

from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Callable, Dict, Iterator, Set

from ...errors import BertHeadsError
from .cache import AnswerCache, Reply
from .endpoint import ChatEndpoint, RefusedError
from .report import PrelabelReport
from .teacher import Prompt, Teacher

# After so many prompts without an answer, one after the other, the endpoint is not asked any more.
MAX_IN_A_ROW = 5
# Why prompts were refused: so many reasons are named.
MAX_REASONS = 20


class Asking:
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
