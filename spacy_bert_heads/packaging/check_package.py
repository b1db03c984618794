"""Proof that a packaged pipeline works elsewhere: a fresh virtual environment, pip, no model hub."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from email.parser import Parser
from importlib import metadata
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence
from urllib.parse import unquote, urlparse
from urllib.request import url2pathname
from zipfile import BadZipFile, ZipFile

from ..errors import BertHeadsError, printable
from ..files import write_files

DISTRIBUTION = "spacy-bert-heads"
# Neither a hub nor what it has left on this machine
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
MAX_METADATA_BYTES = 10 << 20
SHOWN_VERSIONS = ("spacy", "spacy-bert-heads", "spacy-transformers", "thinc", "torch", "transformers")

# Runs in the fresh environment, in isolated mode, so it sees neither this project's folder nor its packages
TRIAL = """
import json, sys, time
from importlib import metadata

request = json.load(sys.stdin)
import spacy

start = time.perf_counter()
nlp = spacy.load(request["package"])
loaded = time.perf_counter()
docs = list(nlp.pipe(request["texts"]))
done = time.perf_counter()

def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None

results = [
    {
        "text": doc.text,
        "cats": {label: round(float(score), 4) for label, score in sorted(doc.cats.items(), key=lambda cat: -cat[1])},
        "ents": [
            {"text": ent.text, "label": ent.label_, "start": ent.start_char, "end": ent.end_char} for ent in doc.ents
        ],
    }
    for doc in docs
]
json.dump(
    {
        "package": request["package"],
        "version": nlp.meta["version"],
        "pipeline": nlp.pipe_names,
        "versions": {name: version(name) for name in request["distributions"]},
        "seconds": {"load": round(loaded - start, 2), "annotate": round(done - loaded, 3)},
        "results": results,
    },
    sys.stdout,
)
"""

# A command with its environment and its input in, its output out; raises when the command fails
Run = Callable[[Sequence[str], Dict[str, str], str], str]


@dataclass(frozen=True)
class ModelWheel:
    """A packaged pipeline.

    path (Path): The wheel.
    package (str): Name to import or load it by.
    requirements (List[str]): What pip installs with it.
    """

    path: Path
    package: str
    requirements: List[str]


def check_package(
    wheel: Path,
    texts: Sequence[str],
    *,
    output: Optional[Path],
    constraints: Optional[Path],
    run: Optional[Run] = None,
) -> Dict[str, Any]:
    """Install a packaged pipeline in a fresh virtual environment and try it there without any model hub.

    spacy-bert-heads is built into a wheel from where it was installed from, since no index may have it, and pip
    installs both. pip's own settings (index, certificates, wheel folders) are those of this process.

    wheel (Path): The wheel that `spacy package --build wheel` made.
    texts (Sequence[str]): What to try it on.
    output (Optional[Path]): Where to write the result as JSON.
    constraints (Optional[Path]): Versions that pip keeps to.
    run (Optional[Run]): Runs a command; for tests.
    RETURNS (Dict[str, Any]): Name, versions, seconds, and for each text its categories and entities.
    RAISES (BertHeadsError): H101 for a missing file; H223 if the package does not require spacy-bert-heads; H224 if
        it is no wheel; H225 if the source of spacy-bert-heads is gone; H226 if a command fails.
    """
    run = run or run_command
    model = read_wheel(wheel)
    if not any(_names_us(requirement) for requirement in model.requirements):
        raise BertHeadsError("H223", path=wheel)
    if constraints is not None and not constraints.is_file():
        raise BertHeadsError("H101", path=constraints)
    pinned = [] if constraints is None else ["--constraint", str(constraints.resolve())]
    with tempfile.TemporaryDirectory(prefix="bert-heads-") as name:
        folder = Path(name)
        wheels, python = folder / "wheels", _python(folder / "venv")
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
        environment.update(OFFLINE, HF_HOME=str(folder / "hub"))
        run([sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", str(wheels), find_source()], environment, "")
        run([sys.executable, "-m", "venv", str(folder / "venv")], environment, "")
        install = [str(python), "-m", "pip", "install", "--find-links", str(wheels), *pinned]
        run([*install, str(wheel.resolve())], environment, "")
        request = {"package": model.package, "texts": list(texts), "distributions": SHOWN_VERSIONS}
        result: Dict[str, Any] = json.loads(run([str(python), "-I", "-c", TRIAL], environment, json.dumps(request)))
    if output is not None:
        write_files({output: (json.dumps(result, indent=2, ensure_ascii=False) + "\n").encode("utf8")})
    return result


def to_text(result: Dict[str, Any]) -> str:
    """RETURNS (str): What `check_package` found, as something nice to read."""
    lines = [f"In a fresh environment: nlp = spacy.load({result['package']!r})  # {result['version']}"]
    for entry in result["results"]:
        lines += ["", f"  {entry['text']}"]
        best = list(entry["cats"].items())[:3]
        if best:
            lines.append("    cats  " + "   ".join(f"{label} {score:.2f}" for label, score in best))
        if entry["ents"]:
            width = max(len(ent["label"]) for ent in entry["ents"])
            for i, ent in enumerate(entry["ents"]):
                lines.append(f"    {'ents' if i == 0 else '    '}  {ent['label']:<{width}}  {ent['text']}")
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items() if version)
    seconds = result["seconds"]
    lines += ["", f"With {versions}; loaded in {seconds['load']} s without access to a model hub."]
    return "\n".join(map(printable, lines))


def read_wheel(path: Path) -> ModelWheel:
    """Read name and requirements of a packaged pipeline.

    RAISES (BertHeadsError): H101 if there is no such file, H224 if it is not the wheel of a pipeline.
    """
    if not path.is_file():
        raise BertHeadsError("H101", path=path)
    try:
        with ZipFile(path) as archive:
            names = archive.namelist()
            packages = [name.split("/")[0] for name in names if name.count("/") == 1 and name.endswith("/meta.json")]
            infos = [name for name in names if name.endswith(".dist-info/METADATA")]
            if len(packages) != 1 or len(infos) != 1 or not packages[0].isidentifier():
                raise BertHeadsError("H224", path=path, found="another package")
            if archive.getinfo(infos[0]).file_size > MAX_METADATA_BYTES:
                raise BertHeadsError("H224", path=path, found="more metadata than any package has")
            info = Parser().parsestr(archive.read(infos[0]).decode("utf8"))
    except BadZipFile as error:
        raise BertHeadsError("H224", path=path, found="a file that is not a zip archive") from error
    return ModelWheel(path, packages[0], info.get_all("Requires-Dist") or [])


def find_source(distribution: str = DISTRIBUTION) -> str:
    """What `pip wheel` builds the installed version of a distribution from: its origin as pip noted it (PEP 610).

    RETURNS (str): A local folder or file, a URL, or `name==version` for what came from an index.
    RAISES (BertHeadsError): H225 if that folder or file is gone.
    """
    found = list(metadata.distributions(name=distribution))
    for installed in found:
        note = installed.read_text("direct_url.json")
        if note is not None:
            return _from_direct_url(json.loads(note), distribution)
    for installed in found:
        # Not installed at all but in sys.path, as a source folder is after a build in it
        folder = Path(str(installed.locate_file("")))
        if (folder / "pyproject.toml").is_file():
            return str(folder.resolve())
    return f"{distribution}=={metadata.version(distribution)}"


def _from_direct_url(note: Dict[str, Any], distribution: str) -> str:
    url = note["url"]
    if "vcs_info" in note:
        vcs, commit = note["vcs_info"]["vcs"], note["vcs_info"]["commit_id"]
        source = f"{distribution} @ {vcs}+{url}@{commit}"
        return source + (f"#subdirectory={note['subdirectory']}" if "subdirectory" in note else "")
    parsed = urlparse(url)
    if parsed.scheme != "file":
        return f"{distribution} @ {url}"
    path = Path(url2pathname(unquote(parsed.path) if "%" in parsed.path else parsed.path))
    path = path / note.get("subdirectory", "")
    if not path.exists():
        raise BertHeadsError("H225", found=str(path))
    return str(path)


def _names_us(requirement: str) -> bool:
    name = requirement.split(";")[0].strip()
    for stop in "[(<>=!~ ":
        name = name.split(stop)[0]
    return name.replace("_", "-").replace(".", "-").lower() == DISTRIBUTION


def _python(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def run_command(command: Sequence[str], environment: Dict[str, str], request: str) -> str:
    """Run a command.

    command (Sequence[str]): Program and arguments.
    environment (Dict[str, str]): Its environment.
    request (str): Its input.
    RETURNS (str): Its output.
    RAISES (BertHeadsError): H226 if it fails.
    """
    shown = " ".join("..." if "\n" in part else part for part in command)
    print(f"  {shown}", file=sys.stderr, flush=True)
    done = subprocess.run(
        list(command), env=environment, input=request, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf8"
    )
    if done.returncode != 0:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-15:])
        raise BertHeadsError("H226", found=shown, status=done.returncode, output=tail)
    return done.stdout
