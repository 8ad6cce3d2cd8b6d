// What the server and the page exchange: AG-UI 1.0, and events of our own in CUSTOM events.

export type Part =
  | { type: "text"; text: string }
  | { type: "image"; source: { type: "data"; value: string; mimeType: string } | { type: "url"; value: string } };

export interface ToolCall {
  id: string;
  type: "function";
  function: { name: string; arguments: string };
}

export interface Message {
  id: string;
  role: string;
  content?: string | Part[];
  toolCalls?: ToolCall[];
  toolCallId?: string;
  error?: string;
  thinking?: string;
  metadata?: { rejoinder?: { interrupted?: boolean } };
}

export interface TimelineEvent {
  t: number;
  part: number;
  kind: string;
  [fact: string]: unknown;
}

export interface RunFacts {
  runId: string;
  at: number;
  messages: string[];
  events: TimelineEvent[];
  recorded: number;
}

export interface Shown {
  threadId: string;
  messages: Message[];
  runs: RunFacts[];
  aliases: Record<string, string>;
  tips: string[];
  tip: string | null;
  waiting: string[];
}

export interface Summary {
  id: string;
  title: string;
  excerpt?: string;
}

export interface Policy {
  attempt_timeout: number;
  hedge: number | null;
  on_cut: string;
  first_token_by: number | null;
}

export interface Interrupt {
  id: string;
  reason: string;
  toolCallId?: string;
}

export interface Overview {
  settings: Settings;
  conversations: Summary[];
  thread?: Shown;
  problem?: string; // why that conversation cannot be shown
}

export interface Settings {
  models: { name: string; local: boolean; fault: string | null; once: boolean }[];
  policy: Policy;
  faults: string[];
  tools: string[];
  kept: boolean;
}

export type RunEvent = { type: string } & Record<string, any>;
