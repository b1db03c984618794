"""SetFit as its documentation has it: pairs of texts, one epoch, batches of 16, then logistic regression.

Reads a job as JSON from standard input: "encoder", "seed", "train" and "test", lists of text and label. Prints the
accuracy on test and the processor's seconds of training as one JSON line.
"""

import json
import sys
import tempfile
import time

from datasets import Dataset
from setfit import SetFitModel, Trainer, TrainingArguments

job = json.load(sys.stdin)
labels = sorted({label for _, label in job["train"]})


def make_dataset(rows: list) -> Dataset:
    return Dataset.from_dict({"text": [text for text, _ in rows], "label": [labels.index(label) for _, label in rows]})


model = SetFitModel.from_pretrained(job["encoder"])
start = time.process_time()
with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(
        output_dir=folder,
        batch_size=16,
        num_epochs=1,
        seed=job["seed"],
        report_to="none",
        save_strategy="no",
        show_progress_bar=False,
    )
    Trainer(model=model, args=arguments, train_dataset=make_dataset(job["train"])).train()
seconds = time.process_time() - start
found = [labels[int(number)] for number in model.predict([text for text, _ in job["test"]])]
accuracy = sum(label == gold for label, (_, gold) in zip(found, job["test"])) / len(found)
print(json.dumps({"accuracy": round(100 * accuracy, 2), "training_cpu_seconds": round(seconds, 1)}))
