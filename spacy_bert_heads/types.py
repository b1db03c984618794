"""Names for nested values, each level said once.

A Doc is cut into windows, a window holds wordpieces. Counts are written n_docs, n_tokens (spaCy tokens of one Doc),
n_windows (of one Doc), n_pieces (wordpieces, special tokens counted), width (of the encoder).
"""

from typing import Any, Dict, List, Tuple, Union

import numpy
from thinc.types import FloatsXd

# Whole numbers that stay on the CPU, whatever the device: positions, ids, tags
Ints = numpy.ndarray

# First wordpiece and one past the last, special tokens not counted
Window = Tuple[int, int]

# Encoder outputs or their gradients for one Doc, by name: "last_hidden_state" (n_windows, n_pieces, width),
# "pooler_output" (n_windows, width), "hidden_states" (a list, embeddings first, each as last_hidden_state),
# "attentions" (a list, one layer each, (n_windows, n_heads, n_pieces, n_pieces))
NamedArrays = Dict[str, Union[FloatsXd, List[Any]]]

# Tag index of each token of one Doc; -1 where the annotation is missing. Int, (n_tokens,)
TagIds = Ints
