"""A LangChain chain that all users share. Each call says who asks, and the model gets only what this user may see.

It needs `pip install "./clients/python[langchain]"` and the program `ragward`; no key, and no network. In place of a
model there is a function that returns its prompt, so the output shows what reached it.
"""

from __future__ import annotations

from langchain_core.documents import Document
from langchain_core.prompt_values import PromptValue
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough

from handbook import COLLECTION, QUESTION, served
from ragward import Identity
from ragward.langchain import RagwardRetriever


def titles(documents: list[Document]) -> str:
    """Write the documents for the prompt: here their titles alone, to keep the output short."""
    return "\n".join(f"- {document.metadata['title']}" for document in documents)


def echo(prompt: PromptValue) -> str:
    """Stand in for a model."""
    return prompt.to_string()


def main() -> None:
    """Ask as two people."""
    prompt = ChatPromptTemplate.from_template("Answer from these pages:\n{pages}\nQuestion: {question}")
    with served() as url:
        retriever = RagwardRetriever(collection=COLLECTION, url=url, k=5)
        chain = {"pages": retriever | titles, "question": RunnablePassthrough()} | prompt | echo
        for user in ("user:anne", "user:bob"):
            who = Identity.user(user)  # with access tokens: Identity.bearer(token)
            print(f"== {user}\n{chain.invoke(QUESTION, {'configurable': {'ragward_identity': who}})}\n")
        retriever.close()


if __name__ == "__main__":
    main()
