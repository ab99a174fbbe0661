"""OpenAI's SDK asks an endpoint for vectors, as its documentation shows. The test compares what it sends with what Ragward sends.

    MODELS_URL=http://127.0.0.1:8090/v1 MODELS_KEY=... MODELS_INPUT='["a text"]' python3 openai_embeddings.py
"""

import json
import os

from openai import OpenAI

TEXTS = json.loads(os.environ["MODELS_INPUT"])
DIMENSIONS = 4

client = OpenAI(base_url=os.environ["MODELS_URL"], api_key=os.environ["MODELS_KEY"], max_retries=0)
answer = client.embeddings.create(model="small", input=TEXTS, dimensions=DIMENSIONS, encoding_format="float")
assert [one.index for one in answer.data] == list(range(len(TEXTS))), answer
assert all(len(one.embedding) == DIMENSIONS for one in answer.data), answer
print("done")
