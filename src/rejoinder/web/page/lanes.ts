// A timeline as lanes and segments: what happened when, and why the first word was late. No DOM here.

import { seconds } from "./dom";
import type { TimelineEvent } from "./types";

export interface Segment {
  kind: string;
  from: number;
  to: number | null;
  label: string;
}

export interface Lane {
  name: string;
  why: string;
  outcome: string;
  from: number;
  segments: Segment[];
}

interface Attempt {
  lane: Lane;
  model: string;
  ask: number;
  useful: number | null;
  sent: number | null;
  bytes: number | null;
  connectStart: number | null;
  connected: number | null;
  error: string;
  ended: number | null;
}

const NAMES: Record<string, string> = {
  ask: "preparing", name: "looking the name up", connect: "connecting", send: "sending",
  wait: "waiting for the server", read: "reading, nothing useful yet", say: "answering", tool: "running", lost: "stopped",
};
const PAUSE = 0.5; // seconds without text that are drawn as a gap

export class Lanes {
  readonly lanes: Lane[] = [];
  readonly numbers: Record<string, unknown>[] = [];
  end = 0;
  over = false;
  firstWord: number | null = null;
  retries = 0;
  error = "";
  changed = new Set<Lane>();
  private readonly words: Lane;
  private readonly asks = new Map<number, { why: string; model: string; heard: boolean; lost: boolean }>();
  private readonly parents = new Map<number, number>();
  private readonly attempts = new Map<number, Attempt>();
  private readonly tools = new Map<string, Lane>();
  private readonly free = new Map<string, Lane[]>();
  private loading = 0;
  private lastText = 0;
  private characters = 0;

  constructor() {
    this.words = this.lane("answer", "", 0);
  }

  private lane(name: string, why: string, from: number): Lane {
    const made: Lane = { name, why, outcome: "", from, segments: [] };
    this.lanes.push(made);
    this.changed.add(made);
    return made;
  }

  private next(attempt: Attempt, kind: string, t: number): void {
    const segments = attempt.lane.segments;
    const last = segments[segments.length - 1];
    if (last && last.to === null) last.to = t;
    segments.push({ kind, from: t, to: null, label: NAMES[kind] ?? kind });
    this.changed.add(attempt.lane);
  }

  private close(lane: Lane, t: number): void {
    const last = lane.segments[lane.segments.length - 1];
    if (last && last.to === null) last.to = t;
    this.changed.add(lane);
  }

  add(event: TimelineEvent): void {
    const { t, kind, part } = event;
    this.end = Math.max(this.end, t);
    const attempt = this.attempts.get(part);
    switch (kind) {
      case "begin":
        this.begin(event);
        return;
      case "connect":
        if (attempt) {
          attempt.connectStart = t;
          this.next(attempt, "connect", t);
        }
        return;
      case "connected":
        if (attempt) {
          attempt.connected = t;
          this.next(attempt, "send", t);
          const segment = attempt.lane.segments[attempt.lane.segments.length - 2];
          if (segment) segment.label = event["reused"] ? "connection was open already" : "connecting";
        }
        return;
      case "sent":
        if (attempt) {
          attempt.sent = t;
          this.next(attempt, "wait", t);
        }
        return;
      case "bytes":
        if (attempt) {
          attempt.bytes = t;
          if (attempt.useful === null) this.next(attempt, "read", t);
        }
        return;
      case "useful":
        if (attempt) {
          attempt.useful = t;
          this.next(attempt, "say", t);
        }
        return;
      case "fault":
        if (attempt) attempt.lane.why = `${attempt.lane.why} fault: ${String(event["fault"])}`.trim();
        return;
      case "retry":
        this.retries += 1;
        return;
      case "heard":
      case "lost": {
        const ask = this.asks.get(part);
        if (ask) ask[kind] = true;
        return;
      }
      case "end":
        this.finish(event);
        return;
      case "text":
        this.text(t, Number(event["size"]));
        if (event["until"] !== undefined) {
          this.lastText = Number(event["until"]);
          this.end = Math.max(this.end, this.lastText);
        }
        return;
      case "tool": {
        const name = `tool ${String(event["name"])}`;
        // Tools that do not overlap share a lane.
        const free = this.free.get(name)?.pop();
        const lane = free ?? this.lane(name, "", t);
        this.changed.add(lane);
        lane.segments.push({ kind: "tool", from: t, to: null, label: NAMES["tool"]! });
        this.tools.set(String(event["call"]), lane);
        this.close(this.words, this.lastText || t);
        return;
      }
      case "tool_end": {
        const lane = this.tools.get(String(event["call"]));
        if (lane) {
          this.close(lane, t);
          const free = this.free.get(lane.name) ?? [];
          free.push(lane);
          this.free.set(lane.name, free);
          if (event["failed"]) lane.outcome = "failed";
        }
        return;
      }
      case "loaded":
        this.loading = Number(event["took"]);
        this.lane("loading the model", "", t - this.loading).segments.push({ kind: "ask", from: t - this.loading, to: t, label: "loading" });
        return;
      case "metrics":
        this.numbers.push(event);
        return;
      case "error":
        this.error = String(event["error"]);
        this.stop(t);
        return;
      case "done":
        this.stop(t);
        return;
    }
  }

  private begin(event: TimelineEvent): void {
    const { t, part } = event;
    const inside = Number(event["inside"]);
    this.parents.set(part, inside);
    const model = String(event["model"] ?? "");
    if (event["what"] === "ask") {
      this.asks.set(part, { why: String(event["why"]), model, heard: false, lost: false });
      const team = this.attempts.get(inside);
      if (team) {
        // The team itself is no lane of its own: its members are.
        this.lanes.splice(this.lanes.indexOf(team.lane), 1);
        this.attempts.delete(inside);
        this.changed.add(team.lane);
      }
      return;
    }
    const ask = this.asks.get(inside);
    const number = Number(event["number"] ?? 0);
    const why = [ask && ask.why !== "first" ? ask.why : "", number ? `retry ${number}` : ""].filter(Boolean).join(", ");
    const lane = this.lane(model, why, t);
    const attempt: Attempt = {
      lane, model, ask: inside, useful: null, sent: null, bytes: null, connectStart: null, connected: null, error: "", ended: null,
    };
    this.attempts.set(part, attempt);
    this.next(attempt, "ask", t);
  }

  private finish(event: TimelineEvent): void {
    const attempt = this.attempts.get(event.part);
    if (!attempt) return;
    attempt.ended = event.t;
    this.close(attempt.lane, event.t);
    if (event["outcome"] === "failed") {
      attempt.error = attempt.lane.outcome = String(event["error"]);
    } else if (event["outcome"] === "cancelled") {
      attempt.lane.outcome = this.asks.get(attempt.ask)?.lost ? "slower, not heard" : "stopped";
    }
  }

  private text(t: number, size: number): void {
    if (this.firstWord === null) this.firstWord = t;
    this.characters += size;
    const last = this.words.segments[this.words.segments.length - 1];
    if (!last || last.to !== null || t - this.lastText > PAUSE) {
      if (last && last.to === null) last.to = this.lastText;
      this.words.segments.push({ kind: "say", from: t, to: null, label: "text" });
    }
    this.lastText = t;
    this.changed.add(this.words);
  }

  private stop(t: number): void {
    this.over = true;
    this.close(this.words, this.lastText || t);
    this.words.segments = this.words.segments.filter((segment) => segment.to !== null);
  }

  // One or two sentences: where the time until the first word went.
  why(): string {
    if (this.firstWord === null) {
      if (this.error) return `No answer after ${seconds(this.end)}: ${this.error}`;
      return this.over ? `No text; the turn took ${seconds(this.end)}.` : "";
    }
    const told: string[] = [`First word after ${seconds(this.firstWord)}`];
    const before = [...this.attempts.values()].filter((attempt) => attempt.lane.from < this.firstWord!);
    const winner = before.filter((attempt) => attempt.useful !== null && attempt.useful <= this.firstWord! + 0.05).pop();
    const reasons: string[] = this.loading ? [`${seconds(this.loading)} loading the model`] : [];
    for (const attempt of before) {
      if (attempt === winner) continue;
      if (attempt.error) reasons.push(`${attempt.model} failed after ${seconds((attempt.ended ?? this.end) - attempt.lane.from)}`);
      else if (winner && attempt.useful === null) reasons.push(`${attempt.model} was silent for ${seconds((attempt.ended ?? this.firstWord) - attempt.lane.from)}`);
    }
    if (winner) {
      if (winner.lane.why) reasons.push(`${winner.model} (${winner.lane.why}) was asked at ${seconds(winner.lane.from)}`);
      if (winner.connectStart !== null && winner.connected !== null && winner.connected - winner.connectStart > 0.02)
        reasons.push(`${seconds(winner.connected - winner.connectStart)} connecting`);
      const start = winner.sent ?? winner.lane.from;
      if (winner.useful !== null && winner.useful > start) reasons.push(`${seconds(winner.useful - start)} waiting for ${winner.model}`);
    }
    const tool = [...this.tools.values()].find((lane) => lane.from < this.firstWord!);
    if (tool) reasons.push("a tool ran first");
    return reasons.length ? `${told[0]}: ${reasons.join("; ")}.` : `${told[0]}.`;
  }

  // The numbers of the turn, for a list.
  facts(): [string, string][] {
    const facts: [string, string][] = [];
    if (this.firstWord !== null) facts.push(["first word", seconds(this.firstWord)]);
    facts.push(["whole turn", seconds(this.end)]);
    const sum = (name: string) => this.numbers.reduce((total, each) => total + Number(each[name] ?? 0), 0);
    const prompt = sum("prompt");
    if (this.numbers.length) {
      const about = this.numbers.some((each) => each["estimated"]) ? "about " : "";
      facts.push(["tokens", `${about}${prompt} read, ${sum("completion")} written`]);
      facts.push(["from the cache", prompt ? `${Math.round((100 * sum("cached")) / prompt)} %` : "0 %"]);
      const wasted = this.numbers.filter((each) => each["purpose"] !== "reply").length;
      if (wasted) facts.push(["requests nobody heard", String(wasted)]);
      const last = this.numbers[this.numbers.length - 1]!;
      if (Number(last["speed"]) > 0) facts.push(["speed", `${Number(last["speed"]).toFixed(1)} tokens a second`]);
      const priced = this.numbers.filter((each) => each["cost"] != null);
      const unknown = priced.length < this.numbers.length;
      if (priced.length) facts.push(["cost", `${unknown ? "at least " : ""}${dollars(sum("cost"))}`]);
      else facts.push(["cost", "the price is not known"]);
    }
    if (this.retries) facts.push(["retries", String(this.retries)]);
    return facts;
  }
}

function dollars(value: number): string {
  return `$${value >= 1 ? value.toFixed(2) : Number(value.toPrecision(2)).toFixed(value < 0.001 ? 6 : 4)}`;
}

// An event as one line.
export function sentence(event: TimelineEvent): string {
  const facts = Object.entries(event)
    .filter(([name, value]) => !["t", "part", "kind", "inside"].includes(name) && value !== null && value !== false)
    .map(([name, value]) => `${name} ${typeof value === "number" && !Number.isInteger(value) ? value.toFixed(3) : String(value)}`);
  return `${event.t.toFixed(3)} s  ${event.kind}${event.part ? ` (${event.part})` : ""}${facts.length ? `: ${facts.join(", ")}` : ""}`;
}
