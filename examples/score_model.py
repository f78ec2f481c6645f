"""Which of two models predicts a text better: python examples/score_model.py CHALLENGER CHAMPION TEXT.txt

The text's paragraphs are the documents. A model is a Hugging Face folder, a name on the hub, or "demo".
"""

import sys
from pathlib import Path

import prosemill

challenger, champion, path = sys.argv[1:]
documents = [part for part in Path(path).read_text(encoding="utf-8").split("\n\n") if part.strip()]
one, other = (prosemill.score(model, documents) for model in (challenger, champion))
for name, scores in ((challenger, one), (champion, other)):
    print(f"{name}: {scores.bits_per_byte:.3f} bits per byte, perplexity {scores.perplexity:.1f}")
decided = prosemill.decide(one.nats, other.nats, one.size_bytes)
print(f"{decided.decision}: {decided.reason}")
