"""A new project that runs as it stands: project file, config, a few sample annotations, a README."""

from pathlib import Path
from typing import List, Optional, Sequence

from ..errors import BertHeadsError
from ..files import write_files
from .configs import config_name, default_encoder, encoder_settings, read_template, render, render_config
from .project_file import Track, render_project

# Languages of the sample annotations: sample_LANG.jsonl, and numbers_LANG.jsonl for regression
SAMPLES = ("en", "zh")
SAMPLE_TEXTS = {
    "en": (
        "Where is my order BK-2093? I bought it on Monday.",
        "The headphones from last week hiss, I want my money back.",
    ),
    "zh": ("我周一买的订单BK-2093到哪了？", "上周买的水壶漏水，我要退款。"),
}


def write_project(
    directory: Path, *, lang: str, heads: Sequence[str], encoder: Optional[str], force: bool
) -> List[Path]:
    """Write a project that runs as it stands: project file, configs, a few sample annotations, a README.

    directory (Path): Where to. It is made if it is missing.
    lang (str): Language code.
    heads (Sequence[str]): As `parse_heads` returns them.
    encoder (Optional[str]): Name for BertEncoder.v1, or "scratch". None: `default_encoder`.
    force (bool): Whether to write into a folder that holds something, over files of the same names.
    RETURNS (List[Path]): What was written.
    RAISES (BertHeadsError): H119 if spaCy has no such language; H123 if a file cannot be written; H220 if the folder
        is not empty.
    """
    if directory.is_file():
        raise BertHeadsError("H123", path=directory, found="there is a file of this name")
    if not force and directory.is_dir() and any(directory.iterdir()):
        raise BertHeadsError("H220", path=directory)
    encoder = encoder or default_encoder(lang)
    kind = "numbers" if "regression" in heads else "sample"
    sample = f"{kind}_{lang if lang in SAMPLES else 'en'}.jsonl"
    config = f"configs/{config_name(heads, lang)}"
    track = Track(
        workflow="all",
        title=f"{' and '.join(heads)} ({lang})",
        lang=lang,
        config=config,
        inputs=("assets/annotations.jsonl",),
        test=None,
        encoder=encoder,
        epochs=encoder_settings(encoder, heads)["epochs"],
        texts=SAMPLE_TEXTS.get(lang, SAMPLE_TEXTS["en"]),
        has_loop=list(heads) != ["regression"],
    )
    description = (
        f"assets/annotations.jsonl holds a few records in {'spaCy' if kind == 'numbers' else 'Prodigy'}'s format, "
        "enough to see every step run, but far too few to learn from: replace them with your own."
    )
    project = render_project(
        [track], title=f"{' + '.join(heads)} on one BERT", description=description, split="0.6,0.2,0.2"
    )
    readme = render("README.md.jinja", track=track, heads=list(heads), sample_is_english=lang not in SAMPLES)
    contents = {
        "project.yml": project,
        config: render_config(lang, heads, encoder, path=config),
        "assets/annotations.jsonl": read_template(sample),
        "README.md": readme,
        ".gitignore": "project.lock\ncorpus/\ntraining/\nmetrics/\npackages/\nloop/\n",
    }
    write_files({directory / name: content.encode("utf8") for name, content in contents.items()})
    return [directory / name for name in contents]
