// A client of AG-UI that nobody here wrote, with the events checked against its schemas.
//     node agui_client.mjs FOLDER URL TOKEN       FOLDER: node_modules
import { createRequire } from "node:module";
const [folder, url, token] = process.argv.slice(2);
const require = createRequire(`${folder}/`);
const { HttpAgent } = require("@ag-ui/client");
const { EventSchemas } = require("@ag-ui/core/schemas");

const agent = new HttpAgent({
  url,
  threadId: "thread-1",
  headers: { Authorization: `Bearer ${token}` },
  initialMessages: [{ id: "u1", role: "user", content: "How is the weather in Paris?" }],
});
const kinds = [];
const subscriber = {
  onEvent({ event }) {
    EventSchemas.parse(event);
    kinds.push(event.type);
  },
};
const first = await agent.runAgent({ runId: "run-1" }, subscriber);
agent.addMessage({ id: "u2", role: "user", content: "Where do I live?" });
const theirs = { name: "locate", description: "Where the user lives", parameters: { type: "object", properties: {} } };
await agent.runAgent({ runId: "run-2", tools: [theirs] }, subscriber);
const asked = agent.messages.at(-1).toolCalls;
agent.addMessage({ id: "t1", role: "tool", toolCallId: asked[0].id, content: "Rome" });
await agent.runAgent({ runId: "run-3", tools: [theirs] }, subscriber);
agent.addMessage({ id: "u3", role: "user", content: "Book a table" });
let outcome;
const watch = { ...subscriber, onRunFinishedEvent: ({ event }) => void (outcome = event.outcome) };
await agent.runAgent({ runId: "run-4" }, watch);
const interrupts = outcome.interrupts;
const resume = interrupts.map(({ id }) => ({ interruptId: id, status: "resolved", payload: { approved: true } }));
await agent.runAgent({ runId: "run-5", resume }, subscriber);
console.log(JSON.stringify({ kinds, messages: agent.messages, added: first.newMessages.length, interrupts }));
