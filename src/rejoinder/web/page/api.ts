// Requests to the server. The token comes from behind the # of the address.

import type { RunEvent } from "./types";

const KEY = "rejoinder-token";

let token = "";

function given(): string {
  return location.hash.length > 20 ? location.hash.slice(1) : "";
}

// Takes the token out of the address, and keeps it for a reload of this tab.
export function keepToken(): void {
  if (!given()) return;
  token = given();
  sessionStorage.setItem(KEY, token);
  history.replaceState(null, "", location.pathname);
}

export class Refused extends Error {}

async function send(path: string, method: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
  token ||= given() || (sessionStorage.getItem(KEY) ?? "");
  const headers: Record<string, string> = { Authorization: `Bearer ${token}` };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const init: RequestInit = { method, headers };
  if (body !== undefined) init.body = JSON.stringify(body);
  if (signal) init.signal = signal;
  let response: Response;
  try {
    response = await fetch(`/api/${path}`, init);
  } catch {
    throw new Refused("The server does not answer. Start it again with rejoinder web, and open the address it prints.");
  }
  if (!response.ok) {
    const told = await response.json().catch(() => null);
    throw new Refused(told?.error ?? `The server answered ${response.status}.`);
  }
  return response;
}

export async function get<T>(path: string): Promise<T> {
  return (await send(path, "GET")).json();
}

export async function call<T>(method: string, path: string, body?: unknown): Promise<T> {
  return (await send(path, method, body)).json();
}

export async function download(path: string): Promise<Blob> {
  return (await send(path, "GET")).blob();
}

// The events of a run, as they arrive.
export async function* run(body: unknown): AsyncGenerator<RunEvent> {
  const response = await send("run", "POST", body);
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read().catch(() => {
      throw new Refused("The connection to the server broke off; the answer may be incomplete.");
    });
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop()!;
    for (const line of lines) if (line.startsWith("data: ")) yield JSON.parse(line.slice(6));
  }
}
