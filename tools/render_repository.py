"""Writes the files of this repository that come from the package's templates: configs, project.yml, a table.

python tools/render_repository.py
"""

from hashlib import md5
from pathlib import Path
from typing import Dict

from spacy_bert_heads.project.configs import config_name, default_encoder, render_config
from spacy_bert_heads.project.init import SAMPLE_TEXTS
from spacy_bert_heads.project.project_file import Track, render_project

REPOSITORY_HEADER = (
    "Rendered from spacy_bert_heads/project/templates/{template}, so that this repository and the projects of",
    "`spacy bert-heads init` cannot drift apart. To change it, change the template and run",
    "`python tools/render_repository.py`; a test compares them.",
)
# Between these the page holds what `command_table` makes
PROJECT_PAGE = "docs/reference/project.md"
PROJECT_MARKERS = ("<!-- project.yml: rendered, do not edit -->\n", "\n<!-- project.yml: end -->")


def repository_files(root: Path) -> Dict[str, str]:
    """The repository's own rendered files.

    root (Path): The repository, whose assets are listed with their checksums.
    RETURNS (Dict[str, str]): Path to content.
    """
    header = [line.format(template="config.cfg.jinja") for line in REPOSITORY_HEADER]
    files: Dict[str, str] = {}
    for lang in ("en", "zh"):
        for heads in (
            ["textcat", "ner"],
            ["ner"],
            ["textcat"],
            ["textcat_multilabel"],
            ["regression"],
            ["spans"],
            ["seq2seq"],
        ):
            path = f"configs/{config_name(heads, lang)}"
            files[path] = render_config(lang, heads, default_encoder(lang), path=path, header=header)
    files["project.yml"] = render_project(
        [_repository_track(lang) for lang in ("en", "zh")],
        title="Customer support: intent and entities from one BERT",
        description=(
            "Learns the intent of a message and the entities in it, in English (`all`) or Chinese (`zh`), and ends "
            "with a pipeline package that pip installs. Trained on generated messages, tested on messages written by "
            "hand."
        ),
        header=[line.format(template="project.yml.jinja") for line in REPOSITORY_HEADER],
        assets=[
            {
                "dest": f"assets/{lang}/{name}.jsonl",
                "checksum": md5((root / "assets" / lang / f"{name}.jsonl").read_bytes()).hexdigest(),
                "description": f"{language} messages {how} (CC0, see assets/README.md)",
            }
            for lang, language in (("en", "English"), ("zh", "Chinese"))
            for name, how in (("generated", "from a generator"), ("handwritten", "written by hand"))
        ],
    )
    return files


def command_table(project: str) -> str:
    """RETURNS (str): The commands and workflows of a project file as Markdown."""
    import srsly

    parsed = srsly.yaml_loads(project)
    rows = [f"| `{command['name']}` | {command['help']} |" for command in parsed["commands"]]
    flows = [
        f"| `{name}` | {' → '.join(f'`{step}`' for step in steps)} |" for name, steps in parsed["workflows"].items()
    ]
    return "\n".join(
        ["| command | what comes out |", "|---|---|", *rows, "", "| workflow | commands |", "|---|---|", *flows]
    )


def _repository_track(lang: str) -> Track:
    english = lang == "en"
    return Track(
        workflow="all" if english else "zh",
        title="English, a pretrained encoder" if english else "Chinese, a multilingual encoder",
        lang=lang,
        config=f"configs/{config_name(['textcat', 'ner'], lang)}",
        inputs=(f"assets/{lang}/generated.jsonl",),
        test=f"assets/{lang}/handwritten.jsonl",
        encoder=default_encoder(lang),
        epochs=0,
        texts=SAMPLE_TEXTS[lang],
        prefix="" if english else f"{lang}_",
        suffix="" if english else f"-{lang}",
        constraints="constraints.txt",
        debug_data=True,
    )


def _write_repository(root: Path) -> None:
    files = repository_files(root)
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, encoding="utf8")
    start, end = PROJECT_MARKERS
    before, rest = (root / PROJECT_PAGE).read_text(encoding="utf8").split(start)
    page = before + start + command_table(files["project.yml"]) + end + rest.split(end)[1]
    (root / PROJECT_PAGE).write_text(page, encoding="utf8")


if __name__ == "__main__":
    _write_repository(Path(__file__).parents[1])
