// Faults, the policy, and what another policy would have done.

import { call } from "./api";
import { el, find, seconds, shown } from "./dom";
import type { Policy, Settings } from "./types";

interface Result {
  models: { model: string; source: string; median: number | null; silent: number; failed: number; cut: number }[];
  policies: { policy: Policy; first_word: number | null; longest: number | null; unanswered: number; requests: number }[];
}

const CUTS = ["stop", "restart", "resume"];
const FAULT_NAMES: Record<string, string> = {
  stall: "stall: says nothing", cut: "cut: breaks off", "429": "429: too many requests", slow: "slow: late and in small pieces",
};

function slider(name: string, id: string, most: number, step: number): HTMLElement {
  const range = el("input", { id, type: "range", min: "0", max: String(most), step: String(step) });
  const output = el("output", { for: id });
  range.addEventListener("input", () => (output.textContent = Number(range.value) ? seconds(Number(range.value)) : "off"));
  return el("label", {}, name, range, output);
}

// Shows a value, unless the user is just changing it.
function put(field: HTMLInputElement | HTMLSelectElement, value: string): void {
  if (field === document.activeElement) return;
  field.value = value;
  field.dispatchEvent(new Event("input"));
}

export class SettingsView {
  current: Settings | null = null;
  private changing: Promise<void> = Promise.resolve();

  constructor(private readonly failed: (error: unknown) => void, private readonly run: () => string | null) {
    find("whatif").addEventListener("click", () => void this.whatIf());
  }

  show(settings: Settings): void {
    if (!this.current) this.build(settings);
    this.current = settings;
    find("models").textContent = shown(settings.models.map((model) => model.name).join(" → "));
    find("kept").textContent = settings.kept ? "Conversations are kept on this machine." : "Conversations end with the server; nothing is written to the disk.";
    settings.models.forEach((model, index) => {
      put(find<HTMLSelectElement>(`fault-${index}`), model.fault ?? "");
      find<HTMLInputElement>(`once-${index}`).checked = model.once;
    });
    const policy = settings.policy;
    put(find<HTMLInputElement>("p-attempt"), String(policy.attempt_timeout));
    put(find<HTMLInputElement>("p-hedge"), String(policy.hedge ?? 0));
    put(find<HTMLInputElement>("p-first"), String(policy.first_token_by ?? 0));
    put(find<HTMLSelectElement>("p-cut"), policy.on_cut);
  }

  // One change after the other: the last one has to be the last to arrive.
  private change(body: unknown): Promise<void> {
    this.changing = this.changing.then(() => this.send(body));
    return this.changing;
  }

  private async send(body: unknown): Promise<void> {
    try {
      this.show(await call<Settings>("PUT", "settings", body));
    } catch (error) {
      this.failed(error);
    }
  }

  private build(settings: Settings): void {
    find("faults").replaceChildren(
      ...settings.models.map((model, index) => {
        const select = el("select", { id: `fault-${index}` }, el("option", { value: "" }, "no fault"));
        for (const fault of settings.faults) select.append(el("option", { value: fault }, FAULT_NAMES[fault] ?? fault));
        const once = el("input", { id: `once-${index}`, type: "checkbox" });
        const changed = () => void this.change({ faults: [{ model: index, fault: select.value || null, once: once.checked }] });
        select.addEventListener("change", changed);
        once.addEventListener("change", changed);
        return el("fieldset", {}, el("legend", {}, shown(model.name)), el("label", {}, "Fault ", select), el("label", {}, once, " next request only"));
      }),
    );
    const form = find<HTMLFormElement>("policy");
    form.replaceChildren(
      ...(settings.models.length < 2 ? [el("p", {}, "With one model there is no policy. Start the server with --fallback NAME.")] : []),
      slider("Give a model up after", "p-attempt", 30, 0.5),
      slider("Ask a second model after (hedge)", "p-hedge", 10, 0.1),
      slider("Give the turn up without a word after", "p-first", 60, 1),
      el("label", {}, "A reply that breaks off ", el("select", { id: "p-cut" }, ...CUTS.map((each) => el("option", { value: each }, each)))),
    );
    form.onchange = () => void this.change({ policy: this.read() });
  }

  private read(): Policy {
    const value = (id: string) => Number(find<HTMLInputElement>(id).value);
    return {
      attempt_timeout: value("p-attempt"),
      hedge: value("p-hedge") || null,
      first_token_by: value("p-first") || null,
      on_cut: find<HTMLSelectElement>("p-cut").value,
    };
  }

  private async whatIf(): Promise<void> {
    const place = find("whatif-result");
    const run = this.run();
    if (!run) {
      place.replaceChildren(el("p", {}, "There is no turn yet: ask something first."));
      return;
    }
    const base = this.read();
    const others: Policy[] = [
      { ...base, hedge: null },
      ...[0.3, 0.7, 1.5].map((hedge) => ({ ...base, hedge })),
      ...[1, 2, 5].map((attempt_timeout) => ({ ...base, hedge: null, attempt_timeout })),
    ];
    try {
      this.result(place, await call<Result>("POST", "whatif", { runId: run, policies: others }));
    } catch (error) {
      this.failed(error);
    }
  }

  private result(place: HTMLElement, result: Result): void {
    const time = (value: number | null | undefined) => (value == null ? "never" : seconds(value));
    const rows = result.policies.map((each, index) =>
      el(
        "tr",
        {},
        el("th", { scope: "row" }, `${index ? "" : "now: "}${seconds(each.policy.attempt_timeout)} each${each.policy.hedge ? `, hedge after ${seconds(each.policy.hedge)}` : ""}`),
        el("td", {}, time(each.first_word)),
        el("td", {}, time(each.longest)),
        el("td", {}, `${Math.round(100 * each.unanswered)} %`),
        el("td", {}, each.requests.toFixed(2)),
      ),
    );
    const head = ["policy", "first word", "longest wait", "unanswered", "requests"].map((name) => el("th", { scope: "col" }, name));
    const told = result.models.map((model) => {
      const facts = [model.median === null ? "" : `first output after ${seconds(model.median)}`, model.silent ? "silent" : "", model.failed ? "failed" : "", model.cut ? "broke off" : ""];
      return el("li", {}, shown(`${model.model}: ${facts.filter(Boolean).join(", ") || "nothing known"} (${model.source})`));
    });
    place.replaceChildren(
      el("p", {}, "The turn, simulated 100 times with models that behave as recorded:"),
      el("ul", {}, ...told),
      el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows)),
    );
  }
}
