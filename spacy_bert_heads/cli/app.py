"""The Typer app behind `python -m spacy bert-heads`.

spaCy imports this module for every one of its commands, so it and the modules of the verbs stay light: torch,
transformers and spaCy's pipelines are imported inside functions.

A new verb is a module of its own in this folder, with a function that typer can read, plus a line in VERBS.
"""

from functools import wraps
from importlib import import_module
from typing import Any, Callable, Dict

import typer

from ..errors import BertHeadsError

# Verb -> "module:function". Each function is wrapped in `user_errors` here, so none has to think of it.
VERBS: Dict[str, str] = {
    "init": "spacy_bert_heads.cli.init:init_cli",
    "convert": "spacy_bert_heads.cli.convert:convert_cli",
    "inspect": "spacy_bert_heads.cli.inspect:inspect_cli",
    "export": "spacy_bert_heads.cli.export:export_cli",
    "check-data": "spacy_bert_heads.cli.check_data:check_data_cli",
    "fit-config": "spacy_bert_heads.cli.fit_config:fit_config_cli",
    "fetch-encoder": "spacy_bert_heads.cli.fetch_encoder:fetch_encoder_cli",
    "train": "spacy_bert_heads.cli.train:train_cli",
    "vocab": "spacy_bert_heads.cli.vocab:vocab_cli",
    "prelabel": "spacy_bert_heads.cli.prelabel:prelabel_cli",
    "suggest": "spacy_bert_heads.cli.suggest:suggest_cli",
    "merge": "spacy_bert_heads.cli.merge:merge_cli",
    "loop": "spacy_bert_heads.cli.loop:loop_cli",
    "apply": "spacy_bert_heads.cli.apply:apply_cli",
    "evaluate": "spacy_bert_heads.cli.evaluate:evaluate_cli",
    "calibrate": "spacy_bert_heads.cli.calibrate:calibrate_cli",
    "set-thresholds": "spacy_bert_heads.cli.set_thresholds:set_thresholds_cli",
    "compare": "spacy_bert_heads.cli.compare:compare_cli",
    "find-label-errors": "spacy_bert_heads.cli.find_label_errors:find_label_errors_cli",
    "optimize": "spacy_bert_heads.cli.optimize:optimize_cli",
    "label-studio-push": "spacy_bert_heads.cli.label_studio:label_studio_push_cli",
    "label-studio-pull": "spacy_bert_heads.cli.label_studio:label_studio_pull_cli",
    "serve-label-studio": "spacy_bert_heads.cli.serve_label_studio:serve_label_studio_cli",
    "package": "spacy_bert_heads.cli.package:package_cli",
    "check-package": "spacy_bert_heads.cli.check_package:check_package_cli",
}

# Verbs that read further options themselves, such as --paths.train
READS_OPTIONS = ("train",)
OTHER_OPTIONS: Dict[str, Any] = {"allow_extra_args": True, "ignore_unknown_options": True}

app = typer.Typer(
    name="bert-heads",
    help="One BERT, several heads: convert data, set up a project, check the result.",
    no_args_is_help=True,
)


def user_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a user's mistake into one message on stderr and exit status 1. Other errors keep their traceback.

    function (Callable[..., Any]): A verb.
    RETURNS (Callable[..., Any]): The verb, with the same signature for typer.
    """

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except BertHeadsError as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(1) from error
        except OSError as error:
            # Of the file system it is the user's: a name that is too long, no permission, no space
            if error.filename is None:
                raise
            typer.echo(str(BertHeadsError("H188", path=error.filename, found=error.strerror)), err=True)
            raise typer.Exit(1) from error

    return wrapper


@app.callback()
def _keep_verbs() -> None:
    """One BERT, several heads: convert data, set up a project, check the result."""
    # With a callback, typer keeps the verb even while there is only one of them.


def _add_verb(verb: str, target: str) -> None:
    module, name = target.split(":")
    settings: Dict[str, Any] = OTHER_OPTIONS if verb in READS_OPTIONS else {}
    try:
        function: Callable[..., Any] = getattr(import_module(module), name)
    except ImportError as error:
        # A verb that cannot be imported must not take the rest of `python -m spacy` with it. It says why when it is
        # called, with whatever options.
        function = _broken_verb(verb, error)
        settings = OTHER_OPTIONS
    app.command(verb, context_settings=settings)(user_errors(function))


def _broken_verb(verb: str, error: ImportError) -> Callable[..., Any]:
    def broken(ctx: typer.Context) -> None:
        raise BertHeadsError("H124", found=error, verb=verb)

    return broken


for _verb, _target in VERBS.items():
    _add_verb(_verb, _target)


def _register() -> None:
    try:
        from spacy.cli import app as spacy_app
    except ImportError as error:
        typer.echo(f"bert-heads is not available: {error}", err=True)
    else:
        spacy_app.add_typer(app, name="bert-heads")


_register()
