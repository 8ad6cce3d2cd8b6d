// The page: conversations, messages, and the run that is under way.

import { call, download, get, keepToken, run as startRun, Refused } from "./api";
import { el, find, save, shown } from "./dom";
import { MessageView, type Decision } from "./messages";
import { SettingsView } from "./settings";
import { TimelineView } from "./timeline";
import type { Interrupt, Message, Overview, Part, RunEvent, RunFacts, Shown, Summary, TimelineEvent } from "./types";

const LONGEST_TEXT = 1_000_000; // characters of a message
const LARGEST_PICTURE = 5_000_000; // bytes
const MOST_PICTURES = 6;
const OPEN = "rejoinder-thread";

const box = find("messages");
const place = find("thread");
const question = find<HTMLTextAreaElement>("question");
const timeline = new TimelineView();
let thread = newId("conv");
let messages: Message[] = [];
let views = new Map<string, MessageView>();
let runs: RunFacts[] = [];
let current: { id: string; stopping: boolean } | null = null;
let chosen: string | null = null;
let editing: Message | null = null;
let attached: Part[] = [];

const settings = new SettingsView(problem, () => chosen);

function newId(kind: string): string {
  return `${kind}_${Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

function problem(error: unknown): void {
  find("problem").textContent = error === "" ? "" : shown(error instanceof Error ? error.message : String(error));
}

function announce(text: string): void {
  find("status").textContent = text;
}

// -- messages ------------------------------------------------------------------------------------

function view(message: Message): MessageView {
  const made = new MessageView(message, { edit, retry, branch, timeline: showTimeline, decide });
  views.set(message.id, made);
  place.append(made.element);
  return made;
}

function redraw(): void {
  place.replaceChildren();
  views = new Map();
  for (const message of messages) {
    if (message.role === "tool") toolResult(message);
    else if (message.role === "user" || message.role === "assistant") view(message);
  }
}

function toolResult(message: Message): void {
  for (const each of views.values()) if (each.result(message.toolCallId!, String(message.content ?? ""), Boolean(message.error))) return;
}

function lastUser(before: number): number {
  for (let index = before; index >= 0; index--) if (messages[index]!.role === "user") return index;
  return -1;
}

function edit(message: Message): void {
  if (current) return problem("Stop the answer first.");
  editing = message;
  find("editing").hidden = false;
  const content = message.content ?? "";
  question.value = typeof content === "string" ? content : content.map((part) => (part.type === "text" ? part.text : "")).join("");
  attached = typeof content === "string" ? [] : content.filter((part) => part.type === "image");
  drawPictures();
  question.focus();
}

function cancelEdit(): void {
  editing = null;
  find("editing").hidden = true;
  question.value = "";
  attached = [];
  drawPictures();
}

function retry(message: Message): void {
  if (current) return problem("Stop the answer first.");
  const index = lastUser(messages.indexOf(message));
  if (index < 0) return;
  messages = messages.slice(0, index + 1);
  redraw();
  void go();
}

async function branch(message: Message): Promise<void> {
  try {
    show(await call<Shown>("POST", `conversations/${encodeURIComponent(thread)}/copy`, { item: lastItem(message) }));
    await listConversations();
    announce("You are in a copy of the conversation.");
  } catch (error) {
    problem(error);
  }
}

// The id of the last item that a message stands for: a call goes with its output.
function lastItem(message: Message): string {
  const calls = new Set((message.toolCalls ?? []).map((each) => each.id));
  const outputs = messages.filter((each) => each.toolCallId && calls.has(each.toolCallId));
  return (outputs[outputs.length - 1] ?? message).id;
}

function showTimeline(message: Message): void {
  const found = runs.find((each) => each.messages.includes(message.id) || each.messages.some((id) => aliases[id] === message.id));
  if (!found) return problem("The timeline of this answer is not known: it was made before the server was started.");
  choose(found);
  openPanel("panel", "show-panel", true);
}

function choose(facts: RunFacts): void {
  chosen = facts.runId;
  if (current?.id !== facts.runId) timeline.show(facts.events);
  for (const each of views.values()) {
    const id = each.message.id;
    each.element.classList.toggle("chosen", facts.messages.some((said) => said === id || aliases[said] === id));
  }
}

// -- a run ---------------------------------------------------------------------------------------

async function go(resume: object[] = []): Promise<void> {
  problem("");
  waiting.clear();
  const facts: RunFacts = { runId: newId("run"), at: Date.now() / 1000, messages: [], events: [], recorded: 0 };
  const run = { id: facts.runId, stopping: false };
  current = run;
  runs.push(facts);
  chosen = run.id;
  timeline.clear();
  find("stop").hidden = false;
  find<HTMLButtonElement>("send").disabled = true;
  place.classList.add("working");
  announce("Waiting for the model.");
  box.scrollTop = 0; // the end
  const body = {
    threadId: thread, runId: run.id, state: null, tools: [], context: [], forwardedProps: {},
    messages: messages.map(({ thinking: _, ...message }) => message),
    ...(resume.length ? { resume } : {}),
  };
  sessionStorage.setItem(OPEN, thread);
  const open = new Open(facts);
  try {
    for await (const event of startRun(body)) open.take(event);
    if (!open.over) problem("The connection to the server broke off; the answer may be incomplete.");
  } catch (error) {
    problem(error instanceof Refused ? error : `The answer could not be read: ${String(error)}`);
  } finally {
    timeline.stop();
    current = null;
    find("stop").hidden = true;
    find<HTMLButtonElement>("send").disabled = false;
    place.classList.remove("working");
    wait(open.asked);
    if (open.asked.length) announce("The model wants to run a tool: allow or refuse it.");
    else announce(open.said ? `The model said: ${open.said}` : "The turn is over.");
    await afterwards();
  }
}

// -- approval ------------------------------------------------------------------------------------

const waiting = new Map<string, Decision | null>(); // calls, and what was decided about them

function wait(calls: string[]): void {
  for (const id of calls) for (const each of views.values()) if (each.wait(id)) waiting.set(id, null);
}

function decide(call: string, decision: Decision): void {
  waiting.set(call, decision);
  const decided = [...waiting];
  if (decided.some(([, each]) => each === null)) return;
  void go(decided.map(([id, payload]) => ({ interruptId: id, status: "resolved", payload })));
}

// The messages of a run, while it happens.
class Open {
  over = false;
  said = "";
  asked: string[] = []; // calls that wait for approval
  private thinkingFor: MessageView | null = null;
  private thinking = "";

  constructor(private readonly facts: RunFacts) {}

  private assistant(id: string): MessageView {
    const known = views.get(id);
    if (known) return known;
    const waiting = this.thinkingFor;
    this.thinkingFor = null;
    const message: Message = { id, role: "assistant", thinking: this.thinking };
    this.thinking = "";
    messages.push(message);
    this.facts.messages.push(id);
    waiting?.element.remove();
    return view(message);
  }

  take(event: RunEvent): void {
    switch (event.type) {
      case "TEXT_MESSAGE_START":
        this.assistant(event["messageId"]).message.content = "";
        this.said = "";
        return;
      case "TEXT_MESSAGE_CONTENT": {
        const made = this.assistant(event["messageId"]);
        made.message.content = String(made.message.content ?? "") + event["delta"];
        made.text.add(event["delta"]);
        this.said += event["delta"];
        const t = event["metadata"]?.rejoinder?.t;
        if (typeof t === "number" && chosen === this.facts.runId) timeline.add({ t, part: 0, kind: "text", size: event["delta"].length });
        return;
      }
      case "REASONING_MESSAGE_CONTENT":
        this.thinkingFor ??= view({ id: newId("thinking"), role: "assistant" });
        this.thinking += event["delta"];
        this.thinkingFor.think(event["delta"]);
        return;
      case "TOOL_CALL_START": {
        const made = this.assistant(event["parentMessageId"]);
        const made_call = { id: event["toolCallId"], type: "function" as const, function: { name: event["toolCallName"], arguments: "" } };
        (made.message.toolCalls ??= []).push(made_call);
        return;
      }
      case "TOOL_CALL_ARGS":
        for (const each of messages) for (const made of each.toolCalls ?? []) if (made.id === event["toolCallId"]) made.function.arguments += event["delta"];
        return;
      case "TOOL_CALL_END":
        for (const each of messages) for (const made of each.toolCalls ?? []) if (made.id === event["toolCallId"]) views.get(each.id)?.call(made);
        return;
      case "TOOL_CALL_RESULT": {
        const message: Message = { id: event["messageId"], role: "tool", toolCallId: event["toolCallId"], content: event["content"] };
        if (event["error"]) message.error = event["error"];
        messages.push(message);
        toolResult(message);
        return;
      }
      case "MESSAGES_SNAPSHOT":
        messages = event["messages"].filter((each: Message) => each.role !== "system" && each.role !== "developer");
        redraw();
        return;
      case "CUSTOM":
        if (event["name"] === "rejoinder.timeline") {
          const told = event["value"] as TimelineEvent;
          this.facts.events.push(told);
          if (chosen === this.facts.runId) timeline.add(told);
        }
        return;
      case "RUN_ERROR":
        this.over = true;
        problem(event["message"]);
        return;
      case "RUN_FINISHED":
        this.over = true;
        if (event["outcome"]?.type === "cancelled") {
          const last = messages[messages.length - 1];
          if (last?.role === "assistant") views.get(last.id)?.note("stopped here");
        } else if (event["outcome"]?.type === "interrupt") {
          this.asked = event["outcome"].interrupts.map((each: Interrupt) => each.toolCallId ?? each.id);
        }
        return;
    }
  }
}

let aliases: Record<string, string> = {};

async function afterwards(): Promise<void> {
  try {
    const now = await overview(thread);
    settings.show(now.settings);
    const known = now.thread;
    if (!known) return problem(now.problem ?? "");
    aliases = known.aliases;
    runs = known.runs;
    const facts = runs.find((each) => each.runId === chosen);
    if (facts) choose(facts);
    drawBranches(known);
  } catch (error) {
    problem(error);
  }
}

function stop(): void {
  if (!current || current.stopping) return;
  current.stopping = true;
  call("POST", "stop", { runId: current.id }).catch(problem);
}

// -- conversations -------------------------------------------------------------------------------

function show(known: Shown): void {
  thread = known.threadId;
  sessionStorage.setItem(OPEN, thread);
  aliases = known.aliases;
  runs = known.runs;
  messages = known.messages.filter((message) => message.role !== "system" && message.role !== "developer");
  editing = null;
  find("editing").hidden = true;
  problem("");
  redraw();
  waiting.clear();
  wait(known.waiting);
  drawBranches(known);
  const last = runs[runs.length - 1];
  chosen = null;
  timeline.clear();
  if (last) choose(last);
  question.focus();
}

function drawBranches(known: Shown): void {
  const box = find("branches");
  box.replaceChildren();
  if (known.tips.length < 2) return;
  box.append("Branches: ");
  known.tips.forEach((tip, index) => {
    const here = tip === known.tip;
    box.append(
      el("button", { type: "button", "aria-current": here ? "true" : "false", disabled: here, click: () => void openThread(`conversations/${encodeURIComponent(thread)}/rewind`, { item: tip }) }, String(index + 1)),
      " ",
    );
  });
}

async function openThread(path: string, body?: unknown): Promise<void> {
  if (current) return problem("Stop the answer first.");
  try {
    show(body ? await call<Shown>("POST", path, body) : await get<Shown>(path));
    openPanel("list", "show-list", false);
    await listConversations();
  } catch (error) {
    problem(error);
  }
}

function fresh(): void {
  if (current) return problem("Stop the answer first.");
  show({ threadId: newId("conv"), messages: [], runs: [], aliases: {}, tips: [], tip: null, waiting: [] });
  openPanel("list", "show-list", false);
  void listConversations();
}

function searched(): string {
  return `search=${encodeURIComponent(find<HTMLInputElement>("search").value.trim())}`;
}

async function listConversations(): Promise<void> {
  drawConversations(await get<Summary[]>(`conversations?${searched()}`));
}

async function overview(id: string): Promise<Overview> {
  const found = await get<Overview>(`overview?${searched()}&thread=${encodeURIComponent(id)}`);
  drawConversations(found.conversations);
  return found;
}

function drawConversations(found: Summary[]): void {
  find("conversations").replaceChildren(
    ...found.map((each) => {
      const title = shown(each.title.trim() || "no text");
      const remove = async () => {
        if (!confirm(`Remove the conversation “${title}”?`)) return;
        try {
          await call("DELETE", `conversations/${encodeURIComponent(each.id)}`);
          if (each.id === thread) fresh();
          else await listConversations();
        } catch (error) {
          problem(error);
        }
      };
      return el(
        "li",
        {},
        el("button", { type: "button", "aria-current": each.id === thread ? "true" : "false", title: shown(each.excerpt ?? title), click: () => void openThread(`conversations/${encodeURIComponent(each.id)}`) }, title),
        el("button", { type: "button", "aria-label": `Remove ${title}`, click: () => void remove() }, "×"),
      );
    }),
  );
}

async function exportAs(what: "export" | "recording"): Promise<void> {
  problem("");
  try {
    const content = await download(`conversations/${encodeURIComponent(thread)}/${what}`);
    save(what === "export" ? `${thread}.json` : `${thread}-recording.zip`, content);
  } catch (error) {
    problem(error);
  }
}

// -- the question --------------------------------------------------------------------------------

function ask(): void {
  const text = question.value.trim();
  if ((!text && !attached.length) || current) return;
  if (text.length > LONGEST_TEXT) return problem(`The message has ${text.length} characters; at most ${LONGEST_TEXT} can be sent.`);
  if (editing) messages = messages.slice(0, messages.indexOf(editing));
  const content: string | Part[] = attached.length ? [...(text ? [{ type: "text" as const, text }] : []), ...attached] : text;
  const message: Message = { id: newId("user"), role: "user", content };
  const edited = editing !== null;
  messages.push(message);
  cancelEdit();
  if (edited) redraw();
  else view(message);
  void go();
}

function drawPictures(): void {
  find("pictures").replaceChildren(
    ...attached.flatMap((part, index) => {
      if (part.type !== "image" || part.source.type !== "data") return [];
      const remove = () => {
        attached.splice(index, 1);
        drawPictures();
      };
      return [el("li", {}, el("img", { src: `data:${part.source.mimeType};base64,${part.source.value}`, alt: `picture ${index + 1}` }), el("button", { type: "button", "aria-label": `Remove picture ${index + 1}`, click: remove }, "×"))];
    }),
  );
}

function attach(file: File): void {
  if (!/^image\/(png|jpeg|gif|webp)$/.test(file.type)) return problem(`${file.name || "The picture"}: expected PNG, JPEG, GIF or WebP, got ${file.type || "something else"}.`);
  if (file.size > LARGEST_PICTURE) return problem(`The picture has ${Math.round(file.size / 1e6)} MB; at most ${LARGEST_PICTURE / 1e6} MB can be sent. Make it smaller first.`);
  if (attached.length >= MOST_PICTURES) return problem(`At most ${MOST_PICTURES} pictures can be sent with a message.`);
  const reader = new FileReader();
  reader.onload = () => {
    attached.push({ type: "image", source: { type: "data", mimeType: file.type, value: String(reader.result).split(",", 2)[1]! } });
    drawPictures();
  };
  reader.readAsDataURL(file);
}

question.addEventListener("paste", (event) => {
  const data = event.clipboardData;
  const files = [...(data?.files ?? [])];
  if (files.length) {
    event.preventDefault();
    files.forEach(attach);
  } else if ((data?.getData("text/plain").length ?? 0) > LONGEST_TEXT) {
    event.preventDefault();
    problem(`The text has more than ${LONGEST_TEXT} characters and was not pasted.`);
  }
});
question.addEventListener("drop", (event) => {
  if (!event.dataTransfer?.files.length) return;
  event.preventDefault();
  [...event.dataTransfer.files].forEach(attach);
});
question.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    ask();
  } else if (event.key === "ArrowUp" && !question.value) {
    const index = lastUser(messages.length - 1);
    if (index >= 0) {
      event.preventDefault();
      edit(messages[index]!);
    }
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    if (current) stop();
    else if (editing) cancelEdit();
    else {
      openPanel("list", "show-list", false);
      openPanel("panel", "show-panel", false);
    }
  } else if (event.altKey && event.key.toLowerCase() === "n") {
    event.preventDefault();
    fresh();
  }
});

function openPanel(id: string, button: string, open: boolean): void {
  find(id).classList.toggle("open", open);
  find(button).setAttribute("aria-expanded", String(open));
}

for (const [button, id, other, otherButton] of [
  ["show-list", "list", "panel", "show-panel"],
  ["show-panel", "panel", "list", "show-list"],
] as const) {
  find(button).addEventListener("click", () => {
    openPanel(other, otherButton, false);
    openPanel(id, button, !find(id).classList.contains("open"));
  });
}

find("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
find("stop").addEventListener("click", stop);
find("cancel-edit").addEventListener("click", cancelEdit);
find("new").addEventListener("click", fresh);
find("export-json").addEventListener("click", () => void exportAs("export"));
find("export-recording").addEventListener("click", () => void exportAs("recording"));
let searching = 0;
find("search").addEventListener("input", () => {
  clearTimeout(searching);
  searching = window.setTimeout(() => listConversations().catch(problem), 200);
});

async function begin(): Promise<void> {
  question.focus();
  try {
    keepToken();
    // A reload comes back to the conversation that was open; a message that was typed meanwhile begins another one.
    const open = sessionStorage.getItem(OPEN) ?? "";
    const found = await overview(open);
    settings.show(found.settings);
    if (found.thread?.messages.length && !messages.length) show(found.thread);
    document.body.dataset.loaded = "true";
    problem(found.problem ?? "");
  } catch (error) {
    problem(error);
  }
}

// The address of a server that was started again differs behind the # only, which loads no page.
addEventListener("hashchange", () => void begin());

document.body.dataset.ready = "true"; // a question can be asked
// The rest waits until the page is on the screen; behind other tabs it never is.
if (document.hidden) void begin();
else requestAnimationFrame(() => setTimeout(begin));
