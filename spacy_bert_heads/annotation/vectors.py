"""One vector for each Doc, to tell texts that are alike; taken from the encoder's outputs while they are there."""

from typing import Any, Callable, List, Sequence

import numpy
from spacy.language import Language
from spacy.tokens import Doc
from spacy_transformers.data_classes import FullTransformerBatch, TransformerData
from spacy_transformers.pipeline_component import Transformer
from tqdm import tqdm

from ..errors import BertHeadsError

KEY = "spacy_bert_heads.vector"
READ_AT_ONCE = 64


def has_vectors(nlp: Language) -> bool:
    """RETURNS (bool): Whether the pipeline has an encoder that the heads share; see annotate_vectors."""
    return any(isinstance(pipe, Transformer) for _, pipe in nlp.pipeline)


def annotate_vectors(nlp: Language) -> None:
    """Have the shared encoder leave a vector on each Doc, in addition to its outputs.

    nlp (Language): The pipeline.
    RAISES (BertHeadsError): H503 if it has no encoder that the heads share.
    """
    encoders = [pipe for _, pipe in nlp.pipeline if isinstance(pipe, Transformer)]
    if not encoders:
        raise BertHeadsError("H503")
    encoder: Any = encoders[0]
    others: Callable[[List[Doc], FullTransformerBatch], None] = encoder.set_extra_annotations

    def annotate(docs: List[Doc], outputs: FullTransformerBatch) -> None:
        others(docs, outputs)
        for doc, data in zip(docs, outputs.doc_data):
            doc.user_data[KEY] = mean_vector(data)

    encoder.set_extra_annotations = annotate


def read_vectors(nlp: Language, texts: Sequence[str]) -> numpy.ndarray:
    """Have the encoder alone read texts.

    nlp (Language): A pipeline whose encoder leaves vectors; see annotate_vectors.
    texts (Sequence[str]): The texts.
    RETURNS (numpy.ndarray): One vector for each text. Float32, (n_texts, width).
    """
    rows = []
    bar = tqdm(total=len(texts), desc="comparing", unit=" texts", delay=1.0, leave=False, disable=None)
    encoders = [name for name, pipe in nlp.pipeline if isinstance(pipe, Transformer)]
    with bar, nlp.memory_zone(), nlp.select_pipes(enable=encoders):
        for doc in nlp.pipe(texts, batch_size=READ_AT_ONCE):
            rows.append(get_vector(doc).copy())
            doc._.trf_data = None  # no head here lets go of it
            bar.update()
    return numpy.array(rows, dtype="float32")


def get_vector(doc: Doc) -> numpy.ndarray:
    """RETURNS (numpy.ndarray): What `annotate_vectors` had the encoder leave. Float32, (width,)."""
    return doc.user_data[KEY]


def mean_vector(data: TransformerData) -> numpy.ndarray:
    """The mean over the wordpieces of a Doc's tokens, brought to length 1, so that distance means angle.

    Not the pooled [CLS]: where no text head learned to use it, it says little about a text.

    data (TransformerData): The outputs for one Doc.
    RETURNS (numpy.ndarray): Zeros for a Doc without wordpieces. Float32, (width,).

    SOURCE: Reimers and Gurevych (2019), Sentence-BERT: the mean beats [CLS].
    """
    output: Any = data.model_output
    rows: Any = data.align.dataXd
    hidden = output.last_hidden_state
    pieces = hidden.reshape(-1, hidden.shape[-1])[rows.reshape(-1)]
    pieces = numpy.asarray(pieces.get() if hasattr(pieces, "get") else pieces, dtype="float32")
    if not len(pieces):
        return numpy.zeros(hidden.shape[-1], dtype="float32")
    mean = pieces.mean(axis=0)
    return mean / max(float(numpy.linalg.norm(mean)), 1e-12)
