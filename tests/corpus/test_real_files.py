"""Every public file, with the counts that its folder's README gives and those of a second way of reading it."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Iterator, List, Tuple

import pytest
from seqeval.metrics.sequence_labeling import get_entities

from spacy_bert_heads.corpus.docs import check_annotation, load_tokenizer
from spacy_bert_heads.corpus.readers.formats import find_converter
from spacy_bert_heads.errors import BertHeadsError

from .helpers import get_spans, load_docs, run
from .reading import chosen, covered, read, words

# Files that are no annotations but lists of labels.
LABEL_FILES = ("goemotions/labels.txt", "snips/intent_label.txt", "snips/slot_label.txt", "thucnews/class.txt")
# What `auto` takes the files of a folder for, and their language.
FOLDERS = {
    "cluener2020": ("cluener", "zh"),
    "doccano": ("doccano", "en"),
    "goemotions": ("labelled-lines", "en"),
    "label_studio": ("label-studio", "zh"),
    "nested": ("conll", "de"),
    "prodigy": ("prodigy", "en"),
    "resume_ner": ("conll", "zh"),
    "snips": ("triples", "en"),
    "stsb": ("csv", "en"),
    "thucnews": ("labelled-lines", "zh"),
    "trec6": ("labelled-lines", "en"),
    "wnut17": ("conll", "en"),
}


def list_files(folder: Path) -> List[str]:
    """The files of annotations that the manifest names; of SNIPS those of words."""
    names = [line.split("\t")[0] for line in (folder / "MANIFEST.tsv").read_text("utf8").split("\n")[1:] if line]
    others = [name for name in names if name.startswith("snips/") and not name.endswith("seq.in")]
    return [name for name in names if name not in (*LABEL_FILES, *others)]


def naive_sentences(path: Path, separator: str) -> Iterator[Tuple[List[str], List[str]]]:
    for block in path.read_text("utf8").replace("\n\t\n", "\n\n").split("\n\n"):
        lines = [line for line in block.split("\n") if line.strip()]
        if lines:
            pairs = [line.rsplit(separator, 1) for line in lines]
            yield [word for word, _ in pairs], [tag.strip() for _, tag in pairs]


def test_auto_finds_the_format_of_every_file(shared_data: Path):
    for name in list_files(shared_data):
        expected = "conll" if name.endswith(".conll") else FOLDERS[name.split("/")[0]][0]
        assert find_converter(shared_data / name, "auto").name == expected, name
    for split in ("train", "dev", "test"):
        assert find_converter(shared_data / "snips" / split, "auto").name == "triples"


@pytest.mark.parametrize(
    "name, n_sentences, n_ents",
    [("wnut17train.conll", 3394, 1975), ("emerging.dev.conll", 1009, 836), ("emerging.test.annotated", 1287, 1079)],
)
def test_wnut_sentences_and_entities(shared_data: Path, name: str, n_sentences: int, n_ents: int):
    path = shared_data / "wnut17" / name
    annotations, findings = read(path)
    assert (len(annotations), sum(len(a.ents) for a in annotations)) == (n_sentences, n_ents)
    for annotation, (tokens, tags) in zip(annotations, naive_sentences(path, "\t")):
        assert words(annotation) == tokens
        expected = [(" ".join(tokens[start : end + 1]), label) for label, start, end in get_entities(tags)]
        assert covered(annotation) == expected
    assert not findings.counts and findings.n_records[path] == n_sentences


@pytest.mark.parametrize(
    "split, n_sentences, n_ents", [("train", 3821, 13438), ("dev", 463, 1497), ("test", 477, 1630)]
)
def test_resume_sentences_and_entities_with_the_two_that_are_split(
    shared_data: Path, split: str, n_sentences: int, n_ents: int
):
    path = shared_data / "resume_ner" / f"{split}.char.bmes"
    annotations, findings = read(path)
    n_split = findings.counts["split_entity"]
    assert (len(annotations), sum(len(a.ents) for a in annotations) + n_split) == (n_sentences, n_ents)
    lines = [case.where.line for case in findings.cases.get("split_entity", [])]
    assert lines == ([62392, 64414] if split == "train" else [])
    assert not findings.counts - Counter(split_entity=2)
    # The README counts beginnings.
    assert n_ents == sum(line.split(" ")[-1][:1] in ("B", "S") for line in path.read_text("utf8").split("\n"))
    for annotation, (tokens, tags) in zip(annotations, naive_sentences(path, " ")):
        assert annotation.text == "".join(tokens)
        if not annotation.unknown:
            as_bio = [tag.replace("M-", "I-").replace("E-", "I-").replace("S-", "B-") for tag in tags]
            found = [(label, start, end - 1) for start, end, label in annotation.ents]
            assert found == get_entities(as_bio)


@pytest.mark.parametrize("split, n_texts, n_spans", [("train", 10748, 23971), ("dev", 1343, 3072), ("test", 1345, 0)])
def test_cluener_spans(shared_data: Path, split: str, n_texts: int, n_spans: int):
    path = shared_data / "cluener2020" / f"{split}.json"
    annotations, findings = read(path)
    assert findings.n_records[path] == n_texts
    assert sum(len(a.ents) for a in annotations) == n_spans
    assert findings.counts == ({"no_annotation": n_texts} if split == "test" else {})
    records = [json.loads(line) for line in path.open(encoding="utf8", newline="\n")]
    for annotation, record in zip(annotations, records):
        expected = [
            (form, label) for label, forms in record["label"].items() for form, at in forms.items() for _ in at
        ]
        assert covered(annotation) == expected


@pytest.mark.parametrize("split, n_texts", [("train", 13084), ("dev", 700), ("test", 700)])
def test_snips_intents_and_slots(shared_data: Path, split: str, n_texts: int):
    folder = shared_data / "snips" / split
    annotations, findings = read(folder)
    assert findings.n_records[folder] == len(annotations) == n_texts and not findings.counts
    names = ("seq.in", "seq.out", "label")
    columns = [[line.split() for line in (folder / name).read_text("utf8").split("\n")] for name in names]
    labels = {label for labels in columns[2] for label in labels}
    assert len(labels) == 7
    for annotation, tokens, tags, label in zip(annotations, *columns):
        assert (words(annotation), chosen(annotation), set(annotation.cats)) == (tokens, label, labels)
        assert covered(annotation) == [(" ".join(tokens[a : b + 1]), name) for name, a, b in get_entities(tags)]


@pytest.mark.parametrize("split, n_texts", [("train", 43410), ("dev", 5426), ("test", 5427)])
def test_goemotions_labels(shared_data: Path, split: str, n_texts: int):
    labels = shared_data / "goemotions" / "labels.txt"
    path = shared_data / "goemotions" / f"{split}.tsv"
    annotations, findings = read(path, labels=labels)
    assert len(annotations) == n_texts
    names = labels.read_text("utf8").split("\n")[:28]
    with path.open(encoding="utf8", newline="") as stream:
        rows = list(csv.reader(stream, delimiter="\t"))
    assert [a.text for a in annotations] == [text for text, _, _ in rows]
    expected = [sorted(names[int(number)] for number in numbers.split(",")) for _, numbers, _ in rows]
    assert [sorted(chosen(a)) for a in annotations] == expected
    assert all(set(a.cats) == set(names) for a in annotations)
    if split == "train":
        assert round(100 * sum(len(chosen(a)) > 1 for a in annotations) / n_texts, 1) == 16.4
        assert findings.counts == {"unquoted": 1097}


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("split, n_pairs", [("train", 5749), ("dev", 1500), ("test", 1379)])
def test_stsb_pairs_and_scores(shared_data: Path, lang: str, split: str, n_pairs: int):
    path = shared_data / "stsb" / f"stsb-{lang}-{split}.csv"
    annotations, findings = read(path)
    with path.open(encoding="utf8", newline="") as stream:
        rows = list(csv.reader(stream))
    assert len(annotations) == len(rows) == n_pairs and not findings.counts
    for annotation, (one, other, score) in zip(annotations, rows):
        assert annotation.text[: annotation.second_start - 1] == one
        assert annotation.text[annotation.second_start :] == other
        assert annotation.cats == {"score": float(score)}


@pytest.mark.parametrize(
    "name, n_titles",
    [("train_20k.txt", 20000), ("train_part_33590.txt.gz", 33590), ("dev.txt", 10000), ("test.txt", 10000)],
)
def test_thucnews_titles(shared_data: Path, name: str, n_titles: int):
    labels = shared_data / "thucnews" / "class.txt"
    annotations, findings = read(shared_data / "thucnews" / name, labels=labels)
    counts = Counter(label for a in annotations for label in chosen(a))
    assert len(annotations) == sum(counts.values()) == n_titles and not findings.counts
    assert set(counts) == set(labels.read_text("utf8").split("\n")) == set(annotations[0].cats)
    if name == "train_20k.txt":
        assert set(counts.values()) == {2000}
    if name.endswith(".gz"):
        assert (min(counts.values()), max(counts.values())) == (3304, 3445)


@pytest.mark.parametrize("name, n_texts", [("TREC.train.all", 5452), ("TREC.test.all", 500), ("raw/TREC.test", 500)])
def test_trec_questions(shared_data: Path, name: str, n_texts: int):
    path = shared_data / "trec6" / name
    annotations, findings = read(path)
    pairs = [line.split(" ", 1) for line in path.read_text("utf8").split("\n") if line]
    assert [(chosen(a), a.text) for a in annotations] == [([label], text) for label, text in pairs]
    assert len(annotations) == n_texts
    if name.endswith(".all"):
        assert len(annotations[0].cats) == 6
        assert findings.counts == {"numbered_labels": n_texts}


def test_trec_file_that_is_not_utf8_is_refused_with_its_line(shared_data: Path):
    path = shared_data / "trec6" / "raw" / "TREC.train"
    with pytest.raises(BertHeadsError) as info:
        read(path)
    assert (info.value.code, info.value.line, info.value.found) == ("H104", 66, "0xF0")
    annotations, findings = read(path, skip_bad=True)
    assert len(annotations) == 5451 and findings.counts == {"H104": 1}


@pytest.mark.parametrize(
    "name, n_records, findings",
    [
        ("classification.jsonl", 3, {"numbered_labels": 3}),
        ("labeling.jsonl", 2, {"numbered_labels": 16}),
        ("labeling_text_label.jsonl", 2, {}),
        ("restaurant_reviews_excerpt.jsonl", 12, {"empty_annotation": 1}),
    ],
)
def test_doccano_records(shared_data: Path, name: str, n_records: int, findings):
    path = shared_data / "doccano" / name
    annotations, found = read(path)
    assert found.n_records[path] == n_records and found.counts == findings
    records = [json.loads(line) for line in path.open(encoding="utf8", newline="\n")]
    expected: Counter = Counter()
    for record in records:
        text = record.get("text", record.get("data"))
        for item in record.get("annotations", record.get("labels", record.get("label"))):
            if isinstance(item, dict):
                item = [item.get("start_offset"), item.get("end_offset"), str(item["label"])]
            expected[text, None if item[0] is None else text[item[0] : item[1]], item[2]] += 1
    spans = Counter((a.text, form, label) for a in annotations for form, label in covered(a))
    assert spans + Counter((a.text, None, label) for a in annotations for label in chosen(a)) == expected


@pytest.mark.parametrize(
    "name, n_tasks, n_overlaps",
    [
        ("choices_sentiment.json", 100, 0),
        ("taxonomy.json", 100, 0),
        ("labels_and_relations.json", 100, 3),
        ("zh_labels_relations_trimmed.json", 121, 165),
        ("zh_labels_expenses.json", 160, 1),
    ],
)
def test_label_studio_tasks(shared_data: Path, name: str, n_tasks: int, n_overlaps: int):
    path = shared_data / "label_studio" / name
    annotations, findings = read(path)
    tasks = json.loads(path.read_text("utf8"))
    assert findings.n_records[path] == len(tasks) == n_tasks
    results = [result for task in tasks for one in task["annotations"] for result in one["result"]]
    kinds = Counter(result["type"] for result in results)
    spans = [(result["value"]["text"], *result["value"]["labels"]) for result in results if result["type"] == "labels"]
    assert [pair for a in annotations for pair in covered(a)] == spans
    labels = [
        *(result["value"].get("choices") or result["value"].get("taxonomy") for result in results if "value" in result)
    ]
    expected = Counter("/".join(path) if isinstance(path, list) else path for names in labels for path in names or ())
    assert Counter(label for a in annotations for label in chosen(a)) == expected
    n_drafts = sum(len(task.get("drafts", ())) for task in tasks)
    said = Counter(relations=kinds["relation"], drafts=n_drafts)
    assert findings.counts == +said
    pairs = [(a, b) for x in annotations for i, a in enumerate(x.ents) for b in x.ents[i + 1 :]]
    assert sum(a.start < b.end and b.start < a.end for a, b in pairs) == n_overlaps


def test_label_studio_columns(shared_data: Path):
    path = shared_data / "label_studio" / "ner_conll2003_export.conll"
    annotations, findings = read(path)
    assert (len(annotations), sum(len(a.ents) for a in annotations)) == (100, 172) and not findings.counts


@pytest.mark.parametrize("off_tokens", ["drop", "expand", "split"])
def test_chinese_spans_meet_the_tokens_of_our_pipelines(shared_data: Path, off_tokens: str):
    nlp = load_tokenizer("zh")
    annotations, findings = read(shared_data / "cluener2020" / "dev.json")
    n_off = n_refused = 0
    for annotation in annotations:
        try:
            checked = check_annotation(nlp, annotation, findings, off_tokens)
        except BertHeadsError as error:
            assert error.code == "H113"
            n_refused += 1
            continue
        n_off += checked != annotation
    kinds = {"drop": "spans_dropped", "expand": "spans_expanded", "split": "tokens_split"}
    assert 0 < findings.counts[kinds[off_tokens]] < 0.002 * sum(len(a.ents) for a in annotations)
    assert n_off and n_refused <= 5


CONVERTED = [
    ("resume_ner/test.char.bmes", {}),
    ("snips/dev", {}),
    ("stsb/stsb-zh-dev.csv", {}),
    ("trec6/TREC.test.all", {}),
    ("doccano/restaurant_reviews_excerpt.jsonl", {}),
    ("doccano/labeling_text_label.jsonl", {}),
    ("label_studio/labels_and_relations.json", {"skip_bad": True}),
    ("label_studio/taxonomy.json", {}),
    ("label_studio/zh_labels_relations_trimmed.json", {"skip_bad": True}),
    ("cluener2020/dev.json", {"off_tokens": "split"}),
]


@pytest.mark.parametrize("name, settings", CONVERTED)
def test_files_become_docs_with_all_that_was_read(tmp_path: Path, shared_data: Path, name: str, settings):
    lang = "zh" if "zh" in name else FOLDERS[name.split("/")[0]][1]
    options = {key: shared_data / value if key == "labels" else value for key, value in settings.items()}
    report = run(shared_data / name, tmp_path, split="1,0,0", lang=lang, **options)
    reading = {key: value for key, value in options.items() if key in ("labels", "skip_bad")}
    annotations, _ = read(shared_data / name, lang=lang, **reading)
    (entry,) = report.inputs
    n_refused = sum(count for kind, count in report.findings.counts.items() if kind.startswith("H"))
    assert entry["used"] == len(annotations) - n_refused
    last = {annotation.text: annotation for annotation in annotations}
    docs = {doc.text: doc for doc in load_docs(tmp_path / "train.spacy", lang)}
    assert total(report, "docs") == len(docs) <= len(last)
    n_versions = Counter(annotation.text for annotation in annotations)
    for text, doc in docs.items():
        if n_versions[text] > 1:
            continue
        ends = sorted({start + len(text[start:end].rstrip()) for start, end, _ in last[text].ents})
        assert sorted(end for _, end, _ in get_spans(doc.ents)) == ends
        if "spans_trimmed" not in report.findings.counts:
            assert get_spans(doc.ents) == sorted({tuple(span) for span in last[text].ents})
        assert doc.cats == last[text].cats
        assert doc.user_data.get("second_start") == last[text].second_start


def test_cluener_split_without_labels_is_refused_and_says_why(tmp_path: Path, shared_data: Path):
    with pytest.raises(BertHeadsError, match="nobody has annotated") as info:
        run(shared_data / "cluener2020" / "test.json", tmp_path, lang="zh")
    assert info.value.code == "H117"


# File, language, settings; docs, entities, rejected spans, yes and no of its main category, and findings.
FILES = [
    ("ner_manual__fashion_brands_training.jsonl.gz", "en", 1235, 527, {}),
    ("ner_manual__fashion_brands_eval.jsonl.gz", "en", 500, 238, {}),
    ("relations__bio_ggp.jsonl", "en", 149, 466, {}),
    ("review_ner__restaurant_test.jsonl.gz", "en", 1521, 3179, {}),
    ("ner_manual_corrected__slovak_prod11.jsonl", "sk", 47, 994, {"rejected": 2, "stale_text": 8}),
    ("textcat_binary__docs_issues_training.jsonl.gz", "en", 661, 0, {}),
    ("textcat_binary__docs_issues_eval.jsonl", "en", 500, 0, {}),
    ("textcat_teach_binary__github_issues_DOCUMENTATION.jsonl", "en", 786, 0, {"ignored": 44}),
    (
        "textcat_manual_choice_single__prodigy_hf.jsonl",
        "en",
        17,
        0,
        {"ignored": 2, "rejected": 2, "nothing_chosen": 4},
    ),
    (
        "blocks_spans_and_choice__psynamic_iaa_pia_40_round3.jsonl.gz",
        "en",
        38,
        83,
        {"rejected": 6, "pattern_hits": 3015, "numbered_options": 114, "merged": 76},
    ),
]


def total(report, attribute: str) -> int:
    values = [getattr(counts, attribute) for counts in report.splits.values()]
    return sum(value if isinstance(value, int) else sum(value.values()) for value in values)


@pytest.mark.parametrize("name, lang, n_docs, n_ents, findings", FILES)
def test_counts_are_those_of_the_readme(tmp_path: Path, shared_data: Path, name, lang, n_docs, n_ents, findings):
    report = run(shared_data / "prodigy" / name, tmp_path, lang=lang)
    assert (total(report, "docs"), total(report, "spans")) == (n_docs, n_ents)
    assert report.findings.counts == findings


def test_yes_and_no_of_binary_categories_are_those_of_the_readme(tmp_path: Path, shared_data: Path):
    folder = shared_data / "prodigy"
    for name, yes, no in [
        ("textcat_binary__docs_issues_training.jsonl.gz", 201, 460),
        ("textcat_binary__docs_issues_eval.jsonl", 165, 335),
        ("textcat_teach_binary__github_issues_DOCUMENTATION.jsonl", 261, 525),
    ]:
        report = run(folder / name, tmp_path)
        assert (total(report, "cats"), total(report, "cats_not")) == (yes, no)


def test_numbered_options_of_three_sets_stay_apart(tmp_path: Path, shared_data: Path):
    name = "blocks_spans_and_choice__psynamic_iaa_pia_40_round3.jsonl.gz"
    run(shared_data / "prodigy" / name, tmp_path, split="1,0,0")
    docs = load_docs(tmp_path / "train.spacy")
    assert all(len(doc.cats) == 38 + 50 + 40 for doc in docs)
    assert "Substances: Ketamine" in docs[0].cats


def test_span_off_token_borders_in_the_binary_file_is_refused_or_skipped(tmp_path: Path, shared_data: Path):
    path = shared_data / "prodigy" / "ner_teach_binary__reddit_PRODUCT.jsonl"
    with pytest.raises(BertHeadsError) as info:
        run(path, tmp_path)
    assert (info.value.code, info.value.line) == ("H111", 371)
    report = run(path, tmp_path, split="1,0,0", skip_bad=True)
    # The rows that contradict each other (167, 711, 1577) do not when the answers of their spans are used.
    assert report.findings.counts == {"ignored": 86, "span_ignored": 1, "merged": 31, "H111": 1}
    docs = {doc.text: doc for doc in load_docs(tmp_path / "train.spacy")}
    assert total(report, "docs") == len(docs) == 1682
    line_167 = next(doc for text, doc in docs.items() if (53, 55, "PRODUCT") in get_spans(doc.ents))
    assert (59, 62, "PRODUCT") in get_spans(line_167.spans["incorrect_spans"])


def test_record_on_a_line_of_many_is_named_by_its_number(tmp_path: Path, shared_data: Path):
    path = shared_data / "label_studio" / "labels_and_relations.json"
    with pytest.raises(BertHeadsError) as info:
        run(path, tmp_path)
    tasks = json.loads(path.read_text("utf8"))
    text = tasks[info.value.record - 1]["data"]["text"]
    assert (info.value.code, text) == ("H113", "Elon Musk founded SpaceX and Tesla.")
