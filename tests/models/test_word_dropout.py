"""Word dropout: which wordpieces training hides, and that nothing else is touched."""

import pytest
import torch

from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.layers.encoder_shim import hide_pieces

from ..making import assert_close, encoder_module, gradients, make_config, make_examples, make_nlp, make_tokenizer


def test_about_the_share_is_hidden_and_no_special_token() -> None:
    tokenizer = make_tokenizer()
    pieces = torch.tensor([[2, *range(5, 90), 3, 0, 0]]).repeat(200, 1)
    hidden = hide_pieces(pieces, 0.3, tokenizer)
    changed = hidden != pieces
    assert set(hidden[changed].tolist()) == {tokenizer.unk_token_id}
    assert not changed[:, [0, -3, -2, -1]].any()
    per_place = changed[:, 1:-3].float().mean(0)
    assert 0.27 < float(per_place.mean()) < 0.33 and float(per_place.min()) > 0.1
    assert torch.equal(hide_pieces(pieces, 0.0, tokenizer), pieces)


def test_training_reads_what_is_left_and_prediction_everything(bert_folder: str) -> None:
    nlp = make_nlp(encoder=make_config(bert_folder, word_dropout=0.5), heads=[])
    plain = make_nlp(encoder=make_config(bert_folder), heads=[])
    shim, reference = (pipeline.get_pipe("transformer").model.shims[0] for pipeline in (nlp, plain))
    ids = torch.randint(5, 60, (4, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    torch.manual_seed(3)
    hidden = hide_pieces(ids, 0.5, shim.tokenizer)
    assert not torch.equal(hidden, ids)
    for is_train, read in ((True, hidden), (False, ids)):
        torch.manual_seed(3)
        found = shim.runner(is_train)(ids, mask, None)
        expected = reference.runner(is_train)(read, mask, None)
        for name, output in expected.items():
            assert_close(found[name].detach(), output.detach(), 0)


def test_the_unknown_wordpiece_learns(bert_folder: str) -> None:
    """Without word dropout the characters that a corpus does not have stay at random weights."""
    for share in (0.0, 0.5):
        nlp = make_nlp(encoder=make_config(bert_folder, word_dropout=share))
        nlp.update([eg for eg in make_examples(nlp) if "zebra" not in eg.text], sgd=False)
        tokenizer = nlp.get_pipe("transformer").model.shims[0].tokenizer
        name = "transformer.embeddings.word_embeddings.weight"
        row = gradients(encoder_module(nlp))[name][tokenizer.unk_token_id]
        assert bool(row.abs().sum() > 0) == (share > 0)


def test_mistakes_are_named(bert_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for share in (-0.1, 1.0):
        with pytest.raises(BertHeadsError, match="H273.*word_dropout"):
            make_nlp(encoder=make_config(bert_folder, word_dropout=share), heads=[])
    monkeypatch.setattr("transformers.BertTokenizerFast.unk_token_id", None, raising=False)
    make_nlp(encoder=make_config(bert_folder), heads=[])
    with pytest.raises(BertHeadsError, match="H239.*'bert'"):
        make_nlp(encoder=make_config(bert_folder, word_dropout=0.1), heads=[])
