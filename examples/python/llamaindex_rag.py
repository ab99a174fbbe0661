"""A LlamaIndex query engine that all users share. Each call says who asks, and the model gets only what this user may see.

It needs `pip install "./clients/python[llama-index]"` and the program `ragward`; no key, and no network. In place of
a model there is LlamaIndex's own stand-in, which returns its prompt, so the output shows what reached it.
"""

from __future__ import annotations

from llama_index.core import PromptTemplate, get_response_synthesizer
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine

from handbook import COLLECTION, QUESTION, served
from ragward import Identity, acting_as
from ragward.llama_index import RagwardRetriever

PROMPT = PromptTemplate("Answer from these pages:\n{context_str}\nQuestion: {query_str}")


def main() -> None:
    """Ask as two people."""
    with served() as url:
        retriever = RagwardRetriever(COLLECTION, url=url, k=5)
        engine = RetrieverQueryEngine(retriever, get_response_synthesizer(llm=MockLLM(), text_qa_template=PROMPT))
        for user in ("user:anne", "user:bob"):
            # LlamaIndex passes no arguments on to a retriever, so the identity goes around the call.
            with acting_as(Identity.user(user)):  # with access tokens: Identity.bearer(token)
                answer = str(engine.query(QUESTION))
            # Titles alone, to keep the output short.
            pages = [line for line in answer.splitlines() if line.startswith(("title:", "Question:"))]
            print(f"== {user}", *pages, sep="\n", end="\n\n")
        retriever.close()


if __name__ == "__main__":
    main()
