// Messages on the page. Text is appended in blocks, one a line, so that a long answer stays fast.

import { el, shown } from "./dom";
import type { Message, Part, ToolCall } from "./types";

const BLOCK = 2000; // characters after which a line goes on in a new block

export interface Actions {
  edit(message: Message): void;
  retry(message: Message): void;
  branch(message: Message): void;
  timeline(message: Message): void;
  decide(call: string, decision: Decision): void;
}

// What is sent for a call that waits for approval.
export interface Decision {
  approved: boolean;
  always?: boolean;
}

// Text that grows. The first piece of a frame is drawn at once, the others with the next frame.
export class Growing {
  readonly element = el("div", { class: "text" });
  private waiting = "";
  private node: Text | null = null;
  private asked = false;

  add(text: string): void {
    this.waiting += text;
    if (this.asked) return;
    this.asked = true;
    this.draw();
    requestAnimationFrame(() => {
      this.asked = false;
      if (this.waiting) this.draw();
    });
  }

  draw(): void {
    const lines = shown(this.waiting).split("\n");
    this.waiting = "";
    lines.forEach((line, index) => {
      if (index > 0) this.node = null;
      if (!this.node || this.node.length > BLOCK) {
        this.node = document.createTextNode("");
        const last = this.element.lastElementChild;
        const begun = index === 0 && last ? "span" : "div";
        // A line that is very long goes on in the same paragraph of text, in a block of its own.
        this.element.append(el("div", begun === "span" ? { class: "more" } : {}, this.node));
      }
      this.node.appendData(line);
    });
  }
}

function textOf(message: Message): string {
  const content = message.content ?? "";
  return typeof content === "string" ? content : content.map((part) => (part.type === "text" ? part.text : "")).join("\n");
}

function pictures(message: Message): HTMLElement[] {
  if (typeof message.content !== "object") return [];
  return message.content.flatMap((part: Part) => {
    if (part.type !== "image") return [];
    const source = part.source;
    // A picture from another host is named and not fetched.
    if (source.type === "url" && !source.value.startsWith("data:image/")) return [el("p", { class: "note" }, `picture: ${shown(source.value)}`)];
    const url = source.type === "url" ? source.value : `data:${source.mimeType};base64,${source.value}`;
    return [el("img", { src: url, alt: "picture you sent" })];
  });
}

export class MessageView {
  readonly element: HTMLElement;
  readonly text: Growing;
  private readonly body = el("div");
  private thinking: { box: HTMLDetailsElement; text: Growing } | null = null;
  private readonly calls = new Map<string, { box: HTMLDetailsElement; summary: HTMLElement; result: HTMLElement }>();

  constructor(readonly message: Message, private readonly actions: Actions) {
    const mine = message.role === "user";
    this.text = new Growing();
    const buttons = mine
      ? [el("button", { type: "button", click: () => actions.edit(message) }, "Edit")]
      : [
          el("button", { type: "button", click: () => actions.retry(message) }, "Retry"),
          el("button", { type: "button", click: () => actions.timeline(message) }, "Timeline"),
        ];
    buttons.push(el("button", { type: "button", title: "Continue from here in a copy", click: () => actions.branch(message) }, "Branch"));
    this.element = el(
      "article",
      { class: `message ${mine ? "user" : "assistant"}`, "aria-label": mine ? "You" : "Model" },
      this.body,
      this.text.element,
      ...pictures(message),
      el("div", { class: "actions" }, ...buttons),
    );
    this.element.dataset.id = message.id;
    if (message.thinking) this.think(message.thinking);
    const text = textOf(message);
    if (text) {
      this.text.add(text);
      this.text.draw();
    }
    for (const call of message.toolCalls ?? []) this.call(call);
    if (message.metadata?.rejoinder?.interrupted) this.note("stopped here");
  }

  note(text: string): void {
    this.element.insertBefore(el("p", { class: "note" }, text), this.element.lastElementChild);
  }

  think(text: string): void {
    if (!this.thinking) {
      const grown = new Growing();
      const box = el("details", { class: "thinking" }, el("summary", {}, "Thinking"), grown.element);
      this.thinking = { box, text: grown };
      this.body.append(box);
    }
    this.thinking.text.add(text);
  }

  call(call: ToolCall): void {
    const summary = el("summary", {}, shown(call.function.name));
    const result = el("pre", {}, "running");
    const box = el("details", { class: "tool" }, summary, el("pre", {}, shown(call.function.arguments)), result);
    this.calls.set(call.id, { box, summary, result });
    this.element.insertBefore(box, this.element.lastElementChild);
  }

  result(id: string, text: string, failed: boolean): boolean {
    const call = this.calls.get(id);
    if (!call) return false;
    call.box.querySelector(".approval")?.remove();
    call.result.textContent = shown(text);
    call.summary.append(failed ? ": failed" : ": done");
    return true;
  }

  // The call waits until somebody allows or refuses it.
  wait(id: string): boolean {
    const call = this.calls.get(id);
    if (!call || call.box.querySelector(".approval")) return false;
    const button = (name: string, decision: Decision) => {
      const decide = () => {
        buttons.remove();
        call.result.textContent = decision.approved ? "allowed" : "refused";
        this.actions.decide(id, decision);
      };
      return el("button", { type: "button", click: decide }, name);
    };
    const buttons = el(
      "div",
      { class: "approval", role: "group", "aria-label": `Run ${call.summary.textContent ?? ""}?` },
      button("Allow", { approved: true }),
      button("Always allow", { approved: true, always: true }),
      button("Refuse", { approved: false }),
    );
    call.result.textContent = "waits for you";
    call.box.open = true;
    call.box.append(buttons);
    return true;
  }
}
