"""What stands in two files of the repository is the same in both."""

import re
import sys
from importlib.metadata import metadata
from pathlib import Path
from typing import Any, Dict, List

import pytest
import srsly
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from spacy_bert_heads import __version__

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
FORMS = sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml"))


def read_pyproject() -> Dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))


def declared_pythons() -> List[str]:
    prefix = "Programming Language :: Python :: "
    versions = [line[len(prefix) :] for line in read_pyproject()["project"]["classifiers"] if line.startswith(prefix)]
    return sorted((version for version in versions if version.startswith("3.")), key=Version)


def test_the_changelog_begins_with_what_is_not_released() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf8")
    headings = re.findall(r"^## (.*)$", changelog, flags=re.M)
    released = [Version(heading.split()[0]) for heading in headings if "Unreleased" not in heading]
    assert released == sorted(set(released), reverse=True)
    version = Version(__version__)
    if version.is_devrelease:  # of the version that comes next, whose changes stand under Unreleased
        assert headings[0] == "[Unreleased]" and len(headings) == len(released) + 1
        assert version > released[0] and version.release != released[0].release
    else:
        assert version == released[0] and len(headings) == len(released)


def test_the_python_versions_are_the_same_everywhere() -> None:
    project, tool, pythons = read_pyproject()["project"], read_pyproject()["tool"], declared_pythons()
    allowed = SpecifierSet(project["requires-python"])
    assert [minor for minor in range(50) if f"3.{minor}.0" in allowed] == [int(v[2:]) for v in pythons]
    assert tool["mypy"]["python_version"] == pythons[0]
    assert tool["ruff"]["target-version"] == "py" + pythons[0].replace(".", "")
    jobs = srsly.read_yaml(GITHUB / "workflows" / "ci.yml")["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == [pythons[0], pythons[-1]]
    assert {step["with"]["python-version"] for step in jobs["docs"]["steps"] if "with" in step} <= set(pythons)


def test_spacy_allows_the_python_versions_we_declare() -> None:
    allowed = SpecifierSet(metadata("spacy")["Requires-Python"])
    assert all(f"{version}.0" in allowed for version in declared_pythons())


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_issue_templates_can_be_read(path: Path) -> None:
    form = srsly.read_yaml(path)
    if path.name != "config.yml":
        assert form["name"] and form["description"]
        ids = [field["id"] for field in form["body"] if field["type"] != "markdown"]
        assert ids and len(ids) == len(set(ids))


def test_the_workflow_runs_what_is_in_the_repository() -> None:
    workflow = srsly.read_yaml(GITHUB / "workflows" / "ci.yml")
    scripts = [step.get("run", "") for job in workflow["jobs"].values() for step in job["steps"]]
    paths = [path for script in scripts for path in re.findall(r"(?:tests|tools)/[\w/]+\.py", script)]
    assert paths and all((ROOT / path).is_file() for path in paths)
