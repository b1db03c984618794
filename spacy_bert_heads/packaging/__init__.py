"""Trained pipelines as packages that pip installs: the wheel, its model card, the proof that it works elsewhere."""
