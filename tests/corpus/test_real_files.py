"""Every public Prodigy file, with the counts that its folder's README gives."""

from pathlib import Path

import pytest

from spacy_bert_heads.errors import BertHeadsError

from .helpers import get_spans, load_docs, run

# File, language, settings; docs, entities, rejected spans, yes and no of its main category, and findings.
FILES = [
    ("ner_manual__fashion_brands_training.jsonl.gz", "en", 1235, 527, {}),
    ("ner_manual__fashion_brands_eval.jsonl.gz", "en", 500, 238, {}),
    ("relations__bio_ggp.jsonl", "en", 149, 466, {}),
    ("review_ner__restaurant_test.jsonl.gz", "en", 1521, 3179, {}),
    ("ner_manual_corrected__slovak_prod11.jsonl", "sk", 47, 994, {"rejected": 2}),
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


@pytest.mark.parametrize("folder", ["doccano", "label_studio"])
def test_files_of_other_tools_are_not_taken_for_prodigy(tmp_path: Path, shared_data: Path, folder: str):
    for path in sorted((shared_data / folder).iterdir()):
        with pytest.raises(BertHeadsError):
            run(path, tmp_path)
