"""A large language model as the first annotator: texts in, tasks for people out, its answers filled in."""
