"""The annotation loop: what to label next, and learning from the answers."""
