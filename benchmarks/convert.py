"""Seconds and memory of `bert-heads convert`, beside `spacy convert` on the same CoNLL file, in turn.

    python benchmarks/convert.py --data FOLDER --output benchmarks/convert.json
    python benchmarks/convert.py --data FOLDER --lines 1000000

Both read the train file of WNUT-17 (`wnut17/wnut17train.conll`), repeated until it has the lines asked for; a number
is put on the first word of each sentence, so that no two texts are the same. Each runs in a process of its own, whose
whole time counts, that of importing too, which is given apart. Sentences are not grouped into longer Docs (`-n 1`).
"""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List

from environment import add_common_arguments, data_folder, write_result

SOURCE = "wnut17train.conll"


def main() -> None:
    """Measure and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser, "convert.json")
    parser.add_argument("--lines", type=int, default=200_000, help="Lines of the CoNLL file")
    parser.add_argument("--repeats", type=int, default=3, help="How often each command runs")
    args = parser.parse_args()
    source = data_folder(args, "wnut17") / SOURCE
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "theirs").mkdir()
        n_lines = make_file(source, folder / "in.conll", args.lines)
        spacy = [sys.executable, "-m", "spacy"]
        both = ["convert", str(folder / "in.conll")]
        commands = {
            "import": [*spacy, "bert-heads", "convert", "--help"],
            "bert-heads convert": [*spacy, "bert-heads", *both, str(folder / "ours"), "--split", "1,0,0"],
            "spacy convert": [*spacy, *both, str(folder / "theirs"), "-c", "conll", "-n", "1"],
        }
        figures = time_in_turn(commands, args.repeats)
    ours, theirs = (figures[name]["seconds"] for name in ("bert-heads convert", "spacy convert"))
    for name in ("bert-heads convert", "spacy convert"):
        figures[name]["lines_per_second"] = round(n_lines / figures[name]["seconds"])
    write_result(args.output, {"lines": n_lines, "runs": figures, "ours_over_spacy": ours / theirs})


def make_file(source: Path, target: Path, n_lines: int) -> int:
    """Write a CoNLL file of different sentences.

    source (Path): Sentences, with a tab between word and tag.
    target (Path): Where to write.
    n_lines (int): Lines to write; the last sentence is finished.
    RETURNS (int): Lines written.
    """
    lines = [line.strip() for line in source.read_text(encoding="utf8").split("\n")]
    written, before = 0, ""
    with target.open("w", encoding="utf8") as stream:
        for number, line in enumerate(itertools.cycle([*lines, ""])):
            starts = not before
            if starts and (not line or written >= n_lines):
                if written >= n_lines:
                    break
                continue
            stream.write(f"{number}{line}\n" if starts else f"{line}\n")
            written += 1
            before = line
    return written


def time_in_turn(commands: Dict[str, List[str]], repeats: int) -> Dict[str, Dict[str, Any]]:
    """Run commands in turn.

    commands (Dict[str, List[str]]): By name.
    repeats (int): Number of rounds.
    RETURNS (Dict[str, Dict[str, Any]]): Of each the median of seconds by the clock and of the processor, and the most
        memory of any round in MB.
    """
    runs: Dict[str, List[Dict[str, float]]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            runs[name].append(run(command))
    return {
        name: {
            "seconds": statistics.median(one["seconds"] for one in all_),
            "processor_seconds": statistics.median(one["processor_seconds"] for one in all_),
            "peak_mb": max(one["peak_mb"] for one in all_),
        }
        for name, all_ in runs.items()
    }


def run(command: List[str]) -> Dict[str, float]:
    """RETURNS (Dict[str, float]): Seconds and memory of one command, which must succeed."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "seconds": seconds,
        "processor_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss * unit / 2**20,
    }


if __name__ == "__main__":
    main()
