"""Our CRF against pytorch-crf in the same process, in turn: loss forward and backward, and decoding.

    python benchmarks/crf.py --output benchmarks/crf.json

Times are medians in ms. A token needs at least B * K * K multiply-adds, three times for the loss (forward,
backward, expected transitions); decoding needs as many additions and maxima, two operations for one.
"of_need" is our time over the time that as many operations take in one large matrix product.
"""

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import torch
from environment import write_result
from torchcrf import CRF as PytorchCRF

from spacy_bert_heads.layers.crf.module import ConditionalRandomField
from spacy_bert_heads.layers.crf.spans import SpanPatterns
from spacy_bert_heads.tags import TagScheme

CASES: List[Dict[str, Any]] = [
    {"docs": 32, "tokens": 40, "tags": 9, "scheme": None, "goal_loss": 2.0, "goal_decode": 2.0},
    {"docs": 128, "tokens": 128, "tags": 37, "scheme": None, "goal_loss": 5.0, "goal_decode": 5.0},
    {"docs": 32, "tokens": 200, "tags": 73, "scheme": "bio", "goal_loss": 5.0, "goal_decode": 4.0},
]


def time_in_turn(
    work: Dict[str, Callable[[], Any]], repeats: int, device: torch.device
) -> Tuple[Dict[str, float], Dict[str, float]]:
    """Run all kinds of work once to warm up, then in turn.

    work (Dict[str, Callable[[], Any]]): What to time, by name.
    repeats (int): Number of rounds.
    device (torch.device): Where the work is done.
    RETURNS (Tuple[Dict[str, float], Dict[str, float]]): Median time of each, in ms: by the clock, and of the
        processor, which other programs on the machine disturb less (compare it with --threads 1).
    """
    clock: Dict[str, List[float]] = {name: [] for name in work}
    processor: Dict[str, List[float]] = {name: [] for name in work}
    for round_ in range(repeats + 1):
        for name, run in work.items():
            wait(device)
            start, start_processor = time.perf_counter(), time.process_time()
            run()
            wait(device)
            if round_ > 0:
                clock[name].append((time.perf_counter() - start) * 1e3)
                processor[name].append((time.process_time() - start_processor) * 1e3)
    return medians(clock), medians(processor)


def medians(times: Dict[str, List[float]]) -> Dict[str, float]:
    """RETURNS (Dict[str, float]): Median of each list."""
    return {name: statistics.median(values) for name, values in times.items()}


def wait(device: torch.device) -> None:
    """Wait until the device has done its work; nothing to do on a CPU.

    device (torch.device): The device.
    """
    if device.type == "cuda":
        torch.cuda.synchronize()


def multiply_adds_per_ms(device: torch.device) -> float:
    """RETURNS (float): What a large float32 matrix product reaches on this machine, now."""
    size = 1024
    a, b = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    clock, _ = time_in_turn({"product": lambda: a @ b}, 9, device)
    return size**3 / clock["product"]


def run_case(case: Dict[str, Any], repeats: int, device: torch.device) -> Dict[str, Any]:
    """Time one size.

    case (Dict[str, Any]): One of CASES.
    repeats (int): Number of rounds.
    device (torch.device): Where to run.
    RETURNS (Dict[str, Any]): The case with times, ratios and distances from what is needed.
    """
    torch.manual_seed(0)
    n_docs, n_tokens, n_tags = case["docs"], case["tokens"], case["tags"]
    labels = [f"L{i}" for i in range((n_tags - 1) // 2)]
    tags = TagScheme("bio", labels)
    constraints: Dict[str, Any] = {
        "allowed_transitions": tags.allowed_transitions,
        "allowed_start": tags.allowed_start,
        "allowed_end": tags.allowed_end,
    }
    theirs = PytorchCRF(n_tags, batch_first=True).to(device)
    ours = ConditionalRandomField(n_tags, **(constraints if case["scheme"] else {})).to(device)
    ours.load_state_dict(theirs.state_dict())
    patterns = SpanPatterns(
        torch.tensor(tags.span_tags, device=device), torch.tensor(tags.forbidden_next, device=device)
    )
    emissions = torch.randn(n_docs, n_tokens, n_tags, device=device, requires_grad=True)
    mask = torch.ones(n_docs, n_tokens, dtype=torch.bool, device=device)
    path, _ = ours.viterbi(emissions + 3 * torch.randn_like(emissions), mask)
    allowed = torch.nn.functional.one_hot(path, n_tags).bool()
    allowed |= torch.rand(n_docs, n_tokens, 1, device=device) < 0.5

    mostly_outside = emissions.detach().clone()
    mostly_outside[:, :, 0] += 3
    found = [tags.spans_from_tags(doc) for doc in ours.viterbi(mostly_outside, mask)[0].tolist()]
    numbers = {label: number for number, label in enumerate(labels)}
    spans = torch.tensor([(d, s, e, numbers[name]) for d, doc in enumerate(found) for s, e, name in doc])

    work = {
        "pytorch_crf_loss": lambda: theirs(emissions, path, mask).backward(),
        "loss": lambda: ours.log_likelihood_of_tags(emissions, path, mask).sum().backward(),
        "pytorch_crf_decode": lambda: theirs.decode(emissions, mask),
        "decode": lambda: ours.viterbi(emissions, mask)[0].tolist(),
        "partial_loss": lambda: ours.log_likelihood(emissions, allowed, mask).sum().backward(),
        "span_confidence": lambda: ours.span_log_probability(emissions, mask, spans, patterns).tolist(),
        "marginals": lambda: ours.marginals(emissions, mask),
    }
    ms, processor_ms = time_in_turn(work, repeats, device)
    need = n_docs * n_tokens * n_tags**2 / multiply_adds_per_ms(device)
    return {
        **case,
        "spans": len(spans),
        "ms": {name: round(value, 3) for name, value in ms.items()},
        "processor_ms": {name: round(value, 3) for name, value in processor_ms.items()},
        "times_faster": {
            "loss": round(ms["pytorch_crf_loss"] / ms["loss"], 2),
            "decode": round(ms["pytorch_crf_decode"] / ms["decode"], 2),
        },
        "times_less_processor": {
            "loss": round(processor_ms["pytorch_crf_loss"] / processor_ms["loss"], 2),
            "decode": round(processor_ms["pytorch_crf_decode"] / processor_ms["decode"], 2),
        },
        "partial_over_full": round(ms["partial_loss"] / ms["loss"], 2),
        "confidence_over_decode": round(ms["span_confidence"] / ms["decode"], 2),
        "of_need": {"loss": round(ms["loss"] / (3 * need), 1), "decode": round(ms["decode"] / (2 * need), 1)},
    }


def summary(result: Dict[str, Any]) -> str:
    """RETURNS (str): One case for reading."""
    ms, need = result["ms"], result["of_need"]
    lines = [f"{result['docs']} docs x {result['tokens']} tokens x {result['tags']} tags {result['scheme'] or ''}"]
    for name in ("loss", "decode"):
        lines.append(
            f"  {name:6s} {ms[name]:8.2f} ms, pytorch-crf {ms[f'pytorch_crf_{name}']:8.2f} ms: "
            f"{result['times_faster'][name]:5.1f}x faster (goal {result[f'goal_{name}']:.0f}x), "
            f"{result['times_less_processor'][name]:5.1f}x less processor time, {need[name]:4.0f}x the need"
        )
    lines.append(
        f"  partial labels {result['partial_over_full']:.2f}x the full loss; "
        f"confidence of {result['spans']} entities {result['confidence_over_decode']:.2f}x decoding"
    )
    return "\n".join(lines)


def main() -> None:
    """Run all cases, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    parser.add_argument("--repeats", type=int, default=15, help="rounds, of which the median is taken")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="torch device")
    parser.add_argument("--threads", type=int, help="threads for torch; its own choice if not given")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)

    cases = []
    for case in CASES:
        result = run_case(case, args.repeats, args.device)
        cases.append(result)
        print(summary(result))
    if args.output:
        load = os.getloadavg()[0]
        write_result(args.output, {"device": str(args.device), "load": load, "repeats": args.repeats, "cases": cases})


if __name__ == "__main__":
    main()
