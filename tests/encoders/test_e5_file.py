"""The file of 4-bit weights: a tiny one is written here, number by number, and read back."""

import importlib.metadata
import itertools
import random
import struct
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BertModel

from spacy_bert_heads.encoders import e5_file
from spacy_bert_heads.encoders.e5_file import find_e5_file, load_e5, read_e5_file
from spacy_bert_heads.encoders.fetch import fetch_encoder
from spacy_bert_heads.errors import BertHeadsError

from ..making import assert_close

PIECES = ["<s>", "<pad>", "</s>", "<unk>", ",", "▁", "▁the", "▁order", "▁or", "der", *"abcdefghijklmnopqrstuvwxyz"]
PIECES += ["▁我", "的", "订单", "～", "<mask>"]
REPLACEMENTS = {"\x07": "", "\u200b": " ", "Ａ": "A", "㎏": "kg"}
WIDTH, LAYERS, HEADS, INNER, POSITIONS, TYPES, SPARE = 32, 2, 4, 64, 16, 2, 3


def tensor_shapes() -> List[Tuple[str, Tuple[int, ...], bool]]:
    """Name, shape, and whether it is quantised."""
    shapes: List[Tuple[str, Tuple[int, ...], bool]] = [
        ("emb.word", (len(PIECES) + SPARE, WIDTH), True),
        ("emb.pos", (POSITIONS, WIDTH), True),
        ("emb.type", (TYPES, WIDTH), False),
        ("emb.ln.w", (WIDTH,), False),
        ("emb.ln.b", (WIDTH,), False),
    ]
    for layer in range(LAYERS):
        for part, n_out, n_in in [
            *((name, WIDTH, WIDTH) for name in ("q", "k", "v", "ao")),
            ("fi", INNER, WIDTH),
            ("fo", WIDTH, INNER),
        ]:
            shapes += [(f"l{layer}.{part}.w", (n_out, n_in), True), (f"l{layer}.{part}.b", (n_out,), False)]
        for part in ("aln", "oln"):
            shapes += [(f"l{layer}.{part}.w", (WIDTH,), False), (f"l{layer}.{part}.b", (WIDTH,), False)]
    return shapes


def make_file(path: Path, seed: int = 0, **changes: Any) -> Dict[str, List[float]]:
    """Write a file, one number after the other.

    RETURNS (Dict[str, List[float]]): The weights of each tensor, dequantised one by one.
    """
    chooser = random.Random(seed)
    head = {"magic": b"E5S1", "version": 1, "block": 32, "eps": 1e-12, "heads": HEADS, **changes}
    out = head["magic"] + struct.pack("<I", head["version"])
    out += struct.pack("<7i", WIDTH, LAYERS, head["heads"], INNER, len(PIECES) + SPARE, POSITIONS, TYPES)
    out += struct.pack("<fi", head["eps"], head["block"])
    blob = [piece.encode("utf8") for piece in PIECES]
    out += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, sum(map(len, blob)))
    out += struct.pack(f"<{len(PIECES) + 1}I", *itertools.accumulate(map(len, blob), initial=0))
    scores = [-(1.0 + len(piece) % 3 + i / 100) for i, piece in enumerate(PIECES)]
    out += struct.pack(f"<{len(PIECES)}f", *scores) + b"".join(blob)
    table = b"".join(struct.pack(f"<IB{len(v)}I", ord(k), len(v), *map(ord, v)) for k, v in REPLACEMENTS.items())
    out += struct.pack("<iI", len(REPLACEMENTS), len(table)) + table
    shapes = tensor_shapes()
    contents, expected = [], {}
    for name, shape, quantised in shapes:
        count, data, values = 1, b"", []
        for size in shape:
            count *= size
        if quantised:
            for _ in range(count // 32):
                scale = float(numpy.float16(chooser.uniform(0.01, 0.1)))
                halves = [chooser.randrange(16) for _ in range(32)]
                data += struct.pack("<e", scale) + bytes(halves[i] + 16 * halves[i + 16] for i in range(16))
                values += [(half - 8) * scale for half in halves]
        else:
            mean = 1.0 if name.endswith("ln.w") else 0.0
            values = [chooser.gauss(mean, 0.1) for _ in range(count)]
            data = struct.pack(f"<{count}f", *values)
        contents.append((name.encode(), int(quantised), count, data))
        expected[name] = values
    place = len(out) + 4 + sum(2 + len(name) + 21 for name, *_ in contents)
    out += struct.pack("<i", len(contents))
    for name, kind, count, data in contents:
        out += struct.pack("<H", len(name)) + name + struct.pack("<BIQQ", kind, count, place, len(data))
        place += len(data)
    path.write_bytes(out + b"".join(data for *_, data in contents))
    return expected


def test_every_weight_is_the_one_that_was_written(tmp_path: Path) -> None:
    expected = make_file(tmp_path / "e5.bin")
    file = read_e5_file(tmp_path / "e5.bin")
    shapes = {name: shape for name, shape, _ in tensor_shapes()}
    names = {
        "emb.pos": "embeddings.position_embeddings.weight",
        "emb.ln.b": "embeddings.LayerNorm.bias",
        "l1.k.w": "encoder.layer.1.attention.self.key.weight",
        "l1.ao.b": "encoder.layer.1.attention.output.dense.bias",
        "l0.fi.w": "encoder.layer.0.intermediate.dense.weight",
        "l0.fo.w": "encoder.layer.0.output.dense.weight",
        "l0.aln.w": "encoder.layer.0.attention.output.LayerNorm.weight",
        "l1.oln.w": "encoder.layer.1.output.LayerNorm.weight",
    }
    for name, ours in names.items():
        assert file.weights[ours].shape == shapes[name]
        assert_close(file.weights[ours].ravel(), expected[name], 1e-6)
    words = file.weights["embeddings.word_embeddings.weight"]
    assert_close(words.ravel(), expected["emb.word"][: len(PIECES) * WIDTH], 1e-6)
    assert len(file.weights) == len(expected)
    assert [piece for piece, _ in file.pieces] == PIECES and file.replacements == REPLACEMENTS
    assert file.settings["layer_norm_eps"] == 1e-12 and file.settings["vocab_size"] == len(PIECES)


def test_the_encoder_is_a_bert_of_those_weights(tmp_path: Path) -> None:
    make_file(tmp_path / "e5.bin")
    encoder = load_e5(tmp_path / "e5.bin")
    assert isinstance(encoder.module.transformer, BertModel) and not encoder.has_trained_pooler
    file = read_e5_file(tmp_path / "e5.bin")
    state = encoder.module.transformer.state_dict()
    assert set(state) == set(file.weights)
    assert all(numpy.array_equal(state[name].numpy(), array) for name, array in file.weights.items())


@pytest.mark.parametrize(
    "text, pieces",
    [
        ("the order", ["▁the", "▁order"]),
        ("  the\u200border\x07 ", ["▁the", "▁order"]),
        ("我的订单～", ["▁我", "的", "订单", "～"]),
        ("Z", ["▁", "Z"]),
        ("㎏", ["▁", "k", "g"]),
        ("", []),
    ],
)
def test_texts_are_read_as_xlm_r_reads_them(tmp_path: Path, text: str, pieces: List[str]) -> None:
    make_file(tmp_path / "e5.bin")
    tokenizer = load_e5(tmp_path / "e5.bin").tokenizer
    encoded = tokenizer(text)
    assert encoded.tokens() == ["<s>", *pieces, "</s>"]
    assert "token_type_ids" not in encoded
    assert tokenizer("the", "or").tokens() == ["<s>", "▁the", "</s>", "</s>", "▁or", "</s>"]
    assert (tokenizer.pad_token_id, tokenizer.mask_token) == (1, "<mask>")


@pytest.mark.parametrize(
    "changes, found",
    [
        ({"magic": b"GGUF"}, "GGUF"),
        ({"version": 2}, "version 1 of the format, found 2"),
        ({"block": 64}, "found 64"),
        ({"eps": float("nan")}, "nan"),
        ({"heads": 3}, "attention heads"),
        ({"heads": 0}, "found 0"),
        ({"heads": -1}, "found -1"),
    ],
)
def test_another_format_is_named(tmp_path: Path, changes: Dict[str, Any], found: str) -> None:
    make_file(tmp_path / "e5.bin", **changes)
    with pytest.raises(BertHeadsError, match="H280") as error:
        read_e5_file(tmp_path / "e5.bin")
    assert found in str(error.value)


def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    make_file(tmp_path / "e5.bin")
    data = (tmp_path / "e5.bin").read_bytes()
    for size in [*range(0, 200), *range(200, len(data), 997), len(data) - 1]:
        (tmp_path / "cut.bin").write_bytes(data[:size])
        with pytest.raises(BertHeadsError, match="H280"):
            read_e5_file(tmp_path / "cut.bin")


def test_a_file_with_wrong_bytes_is_read_or_refused(tmp_path: Path) -> None:
    make_file(tmp_path / "e5.bin")
    data = (tmp_path / "e5.bin").read_bytes()
    directory = data.index(b"emb.word") + 30
    chooser = random.Random(1)
    refused = 0
    for _ in range(400):
        changed = bytearray(data)
        for _ in range(chooser.randint(1, 4)):
            changed[chooser.randrange(min(len(data), directory + 1500))] = chooser.choice((0, 1, 127, 128, 255))
        (tmp_path / "wrong.bin").write_bytes(changed)
        try:
            file = read_e5_file(tmp_path / "wrong.bin")
        except BertHeadsError as error:
            refused += error.code == "H280"
        else:
            assert all(numpy.isfinite(array).all() for array in file.weights.values())
    assert refused > 100


def test_no_file_and_no_wheel_and_another_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BertHeadsError, match="H101"):
        read_e5_file(tmp_path / "none.bin")

    def fake(found: Optional[str]) -> None:
        def version(name: str) -> str:
            if found is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return found

        monkeypatch.setattr(e5_file, "version", version)

    fake(None)
    with pytest.raises(BertHeadsError, match=r"H410.*spacy-bert-heads\[multilingual\]"):
        find_e5_file()
    package = tmp_path / "fake_e5"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(e5_file, "PACKAGE", "fake_e5")
    fake("0.2.9")
    with pytest.raises(BertHeadsError, match="H281.*0.3.0.*0.2.9"):
        find_e5_file()
    fake("0.3.0")
    with pytest.raises(BertHeadsError, match="H280.*nothing"):
        find_e5_file()
    make_file(package / "e5-small-q4.bin")
    with pytest.raises(BertHeadsError, match="H280.*71,622,400 bytes"):
        find_e5_file()
    size = (package / "e5-small-q4.bin").stat().st_size
    monkeypatch.setattr(e5_file, "SIZE", size)
    with pytest.raises(BertHeadsError, match="H280.*SHA-256"):
        find_e5_file()


PAIRS = [
    ("我的订单在哪里？", "Where is my order?"),
    ("我想退款。", "I want a refund."),
    ("今天天气很好。", "The weather is nice today."),
    ("猫在沙发上睡觉。", "The cat is sleeping on the sofa."),
]


@pytest.mark.slow
def test_the_real_wheel(tmp_path: Path) -> None:
    """Weights as a loop over the file's bytes gives them; vectors that know what sentences mean."""
    try:
        path = find_e5_file()
    except BertHeadsError as error:
        pytest.skip(str(error))
    keep = [text for pair in PAIRS for text in pair]
    done = fetch_encoder("multilingual-e5-small", tmp_path / "e5", texts=keep)
    assert (done.pieces_before, done.has_pooler) == (250_002, False)
    assert 10_000 < done.pieces < 20_000 and done.megabytes < 120 < 460 < done.megabytes_before
    assert "MIT" in (tmp_path / "e5" / "SOURCE.md").read_text()
    tokenizer, model = AutoTokenizer.from_pretrained(tmp_path / "e5"), AutoModel.from_pretrained(tmp_path / "e5")
    assert isinstance(model, BertModel)
    # Found by hand: the directory's entry is behind the name's length and the name
    data = path.read_bytes()
    names = {"l7.fo.w": "encoder.layer.7.output.dense", "l0.q.w": "encoder.layer.0.attention.self.query"}
    for name, ours in names.items():
        at = data.index(struct.pack("<H", len(name)) + name.encode()) + 2 + len(name)
        kind, _, offset, _ = struct.unpack_from("<BIQQ", data, at)
        weight = model.get_submodule(ours).weight.detach().numpy().ravel()
        assert kind == 1
        for block in (0, 1, 777, 4607):
            scale, *packed = struct.unpack_from("<e16B", data, offset + 18 * block)
            slow = [(byte % 16 - 8) * scale for byte in packed] + [(byte // 16 - 8) * scale for byte in packed]
            assert_close(weight[32 * block : 32 * block + 32], slow, 0)
    with torch.no_grad():
        inputs = tokenizer([f"query: {text}" for text in keep], padding=True, return_tensors="pt")
        mask = inputs["attention_mask"].unsqueeze(-1)
        vectors = (model(**inputs).last_hidden_state * mask).sum(1) / mask.sum(1)
    vectors = torch.nn.functional.normalize(vectors, dim=-1)
    likeness = vectors[0::2] @ vectors[1::2].T
    assert likeness.argmax(1).tolist() == likeness.argmax(0).tolist() == [0, 1, 2, 3]
    assert float(likeness.diagonal().min()) > 0.85
