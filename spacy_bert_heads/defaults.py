"""Defaults that stand in several places. (Imported with every pipeline, so without torch.)"""

# A head learns so many times faster than the pretrained encoder below it: `lr_scale` of every layer that is new
HEAD_LR_SCALE = 20.0
