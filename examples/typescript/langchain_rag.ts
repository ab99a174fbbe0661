/**
 * A chain of LangChain.js that two people share. The model is a stand-in, which answers with the context that reached it, so the
 * output shows what each person's answer may rest on. It needs the server of `quickstart.ts`, no key, and no other network:
 *
 *     npm run langchain_rag --prefix examples/typescript
 */
import { SimpleChatModel } from "@langchain/core/language_models/chat_models";
import type { BaseMessage } from "@langchain/core/messages";
import { StringOutputParser } from "@langchain/core/output_parsers";
import { ChatPromptTemplate } from "@langchain/core/prompts";
import { RunnablePassthrough, RunnableSequence } from "@langchain/core/runnables";
import type { DocumentInterface } from "@langchain/core/documents";

import { Identity } from "ragward";
import { RagwardRetriever } from "ragward/langchain";

/** Echoes what it is asked. */
class EchoModel extends SimpleChatModel {
  override _llmType(): string {
    return "echo";
  }

  override async _call(messages: BaseMessage[]): Promise<string> {
    return messages.map((message) => message.text).join("\n");
  }
}

const retriever = new RagwardRetriever({ collection: "handbook", k: 2 });
const titles = (documents: DocumentInterface[]): string =>
  documents.map(({ id, metadata }) => `${metadata["title"]} (${id})`).join("\n");
const chain = RunnableSequence.from([
  { context: retriever.pipe(titles), question: new RunnablePassthrough<string>() },
  ChatPromptTemplate.fromTemplate("Question: {question}\nContext:\n{context}"),
  new EchoModel({}),
  new StringOutputParser(),
]);

// Both ask at the same time, through the one chain.
const people = ["user:anne", "user:bob"];
const answers = await Promise.all(people.map((user) =>
  chain.invoke("pay bands", { configurable: { ragwardIdentity: Identity.user(user) } })));
for (const [index, user] of people.entries()) {
  console.log(`${user}\n${answers[index]}\n`);
}
