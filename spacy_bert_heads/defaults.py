"""Defaults that stand in several places. (Imported with every pipeline, so without torch.)"""

# A head learns so many times faster than the pretrained encoder below it: `lr_scale` of every layer that is new
HEAD_LR_SCALE = 20.0
# GlobalPointer's scores are far from 0 nearly everywhere, so its layers have further to go
SPANS_LR_SCALE = 40.0

# Tokens of the longest span that GlobalPointer scores, where neither the config nor the data asks for fewer
MAX_SPAN_WIDTH = 64
# Key of `doc.spans`, as of spaCy's spancat
DEFAULT_SPANS_KEY = "sc"

# In place of an encoder's name: multilingual-e5-small, which fetch-encoder gets out of a package
MULTILINGUAL = "multilingual"
