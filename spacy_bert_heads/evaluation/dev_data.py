"""Annotated texts to fit a trained pipeline to: never those on which it is to be tested."""

import re
import shlex
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import srsly
from spacy.language import Language
from spacy.training import Example

from ..corpus.readers.formats import AUTO, ReadOptions
from ..errors import BertHeadsError
from .evaluate import read_examples

PROJECT_FILE = "project.yml"
MAX_PROJECT_BYTES = 1 << 20
# How far above the data a project file is looked for
N_FOLDERS = 4
TEST_WORDS = {"test", "tests", "testset", "testing"}
DEV_WORDS = {"dev", "devel", "val", "valid", "validation"}


def read_dev(
    nlp: Language,
    path: Path,
    *,
    format: str = AUTO,
    options: Optional[ReadOptions] = None,
    off_tokens: str = "error",
    skip_bad: bool = False,
) -> List[Example]:
    """Read annotated texts to fit to.

    nlp (Language): The pipeline.
    path (Path): A `.spacy` file, a folder of them, or a file of any format that `convert` reads.
    format, options, off_tokens, skip_bad: See evaluation.evaluate.evaluate.
    RETURNS (List[Example]): Gold annotation and Docs without any.
    RAISES (BertHeadsError): H1xx or H315 if the data cannot be read, H601 if it is named as test data, H602 if there
        is none.
    """
    if not path.exists():
        raise BertHeadsError("H101", path=path)
    why = find_test_name(nlp, path)
    if why:
        raise BertHeadsError("H601", path=path, found=why)
    try:
        examples = list(read_examples(nlp, path, format, options or ReadOptions(), off_tokens, skip_bad))
    except BertHeadsError as error:
        if error.code not in ("H117", "H162"):
            raise
        raise BertHeadsError("H602", path=path, found="none") from error
    if not examples:
        raise BertHeadsError("H602", path=path, found="none")
    return examples


def find_test_name(nlp: Language, path: Path) -> str:
    """See whether somebody calls a file the test data: its own name or its folder's, the pipeline's config, or the
    `--test` of a command in the project file that belongs to it.

    nlp (Language): The pipeline.
    path (Path): The file, or a folder of files.
    RETURNS (str): Who does; "" for nobody.
    """
    words = set(re.findall("[a-z]+", path.name.lower()))
    if words & TEST_WORDS and not words & DEV_WORDS:
        return f"its name is {path.name!r}"
    if path.absolute().parent.name.lower() in TEST_WORDS:
        return f"its folder is {path.absolute().parent.name!r}"
    for given in _config_tests(nlp):
        if _is_same(given, path):
            return f"the pipeline's config names {str(given)!r} as test"
    for folder in dict.fromkeys([Path.cwd(), *path.resolve().parents[:N_FOLDERS]]):
        for given in _project_tests(folder / PROJECT_FILE):
            if _is_same(given, path):
                return f"a command in {folder / PROJECT_FILE} names it after --test"
    return ""


def _config_tests(nlp: Language) -> Iterator[Path]:
    config: Any = nlp.config
    for section, *keys in (("paths", "test"), ("corpora", "test", "path")):
        value = config.get(section)
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, str) and not value.startswith("${"):
            yield Path(value)


def _project_tests(path: Path) -> Iterator[Path]:
    try:
        if path.stat().st_size > MAX_PROJECT_BYTES:
            return
        project = srsly.read_yaml(path)
    except Exception:  # none, or one that nobody can read
        return
    if not isinstance(project, dict) or not isinstance(project.get("commands"), list):
        return
    found = project.get("vars")
    variables: Dict[str, Any] = found if isinstance(found, dict) else {}
    for command in project["commands"]:
        script = command.get("script") if isinstance(command, dict) else None
        for line in script if isinstance(script, list) else ():
            try:
                words = shlex.split(_fill(str(line), variables))
            except ValueError:
                continue
            for option, value in zip(words, words[1:]):
                if option == "--test":
                    yield path.parent / value


def _fill(line: str, variables: Dict[str, Any]) -> str:
    return re.sub(r"\$\{vars\.(\w+)\}", lambda match: str(variables.get(match[1], match[0])), line)


def _is_same(one: Path, other: Path) -> bool:
    """Whether two paths are one file, or files of the same content."""
    try:
        if one.resolve() == other.resolve():
            return True
        if not (one.is_file() and other.is_file()) or one.stat().st_size != other.stat().st_size:
            return False
        return one.read_bytes() == other.read_bytes()
    except (OSError, ValueError):
        return False
