"""A fresh process: import spaCy, load a pipeline, read one text. Takes PIPELINE, TEXT, THREADS; prints a JSON line."""

import json
import os
import resource
import sys
import time

pipeline, text, threads = sys.argv[1:]
os.environ["OMP_NUM_THREADS"] = threads
# transformers imports scikit-learn where there is one, which takes as long as loading a pipeline
sys.modules["sklearn"] = None  # type: ignore[assignment]

start = time.perf_counter()
import spacy  # noqa: E402

imported = time.perf_counter()
nlp = spacy.load(pipeline)
loaded = time.perf_counter()
doc = nlp(text)
end = time.perf_counter()

peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(
    json.dumps(
        {
            "import_seconds": imported - start,
            "load_seconds": loaded - imported,
            "first_text_seconds": end - loaded,
            "load_and_first_text_seconds": end - imported,
            "peak_mib": peak / 2**20,
        }
    )
)
