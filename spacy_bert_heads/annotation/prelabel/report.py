"""What became of the texts that a large language model was asked about."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Dict, Optional

from ...corpus.findings import Findings
from ...corpus.report import render_findings
from ...errors import printable
from .answers import REASONS


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
