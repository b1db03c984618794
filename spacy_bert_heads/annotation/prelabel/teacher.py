"""The large language model that is asked, one prompt, and what a run is about to send."""

from dataclasses import dataclass
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence

from ...errors import BertHeadsError
from .endpoint import most_tokens
from .questions import Message

# Prices are of so many tokens.
MILLION = 1_000_000


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
