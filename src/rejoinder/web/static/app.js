// Built by scripts/build_page.py from the modules in page/.
"use strict";
(() => {
  // page/api.ts
  var KEY = "rejoinder-token";
  function findToken() {
    const given = location.hash.slice(1);
    if (given.length > 20) {
      sessionStorage.setItem(KEY, given);
      history.replaceState(null, "", location.pathname);
      return given;
    }
    return sessionStorage.getItem(KEY) ?? "";
  }
  var token = findToken();
  var Refused = class extends Error {
  };
  async function send(path, method, body, signal) {
    const headers = { Authorization: `Bearer ${token}` };
    if (body !== void 0) headers["Content-Type"] = "application/json";
    const init = { method, headers };
    if (body !== void 0) init.body = JSON.stringify(body);
    if (signal) init.signal = signal;
    let response;
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
  async function get(path) {
    return (await send(path, "GET")).json();
  }
  async function call(method, path, body) {
    return (await send(path, method, body)).json();
  }
  async function download(path) {
    return (await send(path, "GET")).blob();
  }
  async function* run(body) {
    const response = await send("run", "POST", body);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (; ; ) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) if (line.startsWith("data: ")) yield JSON.parse(line.slice(6));
    }
  }

  // page/dom.ts
  function el(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (typeof value === "function") made.addEventListener(name, value);
      else if (value === true) made.setAttribute(name, "");
      else if (value !== false) made.setAttribute(name, value);
    }
    for (const child of children) if (child) made.append(child);
    return made;
  }
  var SVG = "http://www.w3.org/2000/svg";
  function svg(tag, attributes = {}, text) {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
    if (text !== void 0) made.textContent = text;
    return made;
  }
  function find(id) {
    const found = document.getElementById(id);
    if (!found) throw new Error(`the page has no #${id}`);
    return found;
  }
  var CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
  function shown(text) {
    return text.replace(CONTROLS, (character) => {
      const code = character.charCodeAt(0);
      return code < 32 ? String.fromCharCode(9216 + code) : `⟨${code.toString(16).padStart(4, "0")}⟩`;
    });
  }
  function seconds(value) {
    return value < 0.0995 ? `${Math.round(value * 1e3)} ms` : `${value.toFixed(2)} s`;
  }
  function save(name, content) {
    const url = URL.createObjectURL(content);
    const link = el("a", { href: url, download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 1e4);
  }

  // page/messages.ts
  var BLOCK = 2e3;
  var Growing = class {
    constructor(drawn = () => {
    }) {
      this.drawn = drawn;
    }
    drawn;
    element = el("div", { class: "text" });
    waiting = "";
    node = null;
    asked = false;
    add(text) {
      this.waiting += text;
      if (this.asked) return;
      this.asked = true;
      requestAnimationFrame(() => this.draw());
    }
    draw() {
      this.asked = false;
      const lines = shown(this.waiting).split("\n");
      this.waiting = "";
      lines.forEach((line, index) => {
        if (index > 0) this.node = null;
        if (!this.node || this.node.length > BLOCK) {
          this.node = document.createTextNode("");
          const last = this.element.lastElementChild;
          const begun = index === 0 && last ? "span" : "div";
          this.element.append(el("div", begun === "span" ? { class: "more" } : {}, this.node));
        }
        this.node.appendData(line);
      });
      this.drawn();
    }
  };
  function textOf(message) {
    const content = message.content ?? "";
    return typeof content === "string" ? content : content.map((part) => part.type === "text" ? part.text : "").join("\n");
  }
  function pictures(message) {
    if (typeof message.content !== "object") return [];
    return message.content.flatMap((part) => {
      if (part.type !== "image") return [];
      const source = part.source;
      if (source.type === "url" && !source.value.startsWith("data:image/")) return [el("p", { class: "note" }, `picture: ${shown(source.value)}`)];
      const url = source.type === "url" ? source.value : `data:${source.mimeType};base64,${source.value}`;
      return [el("img", { src: url, alt: "picture you sent" })];
    });
  }
  var MessageView = class {
    constructor(message, actions, drawn) {
      this.message = message;
      const mine = message.role === "user";
      this.text = new Growing(drawn);
      const buttons = mine ? [el("button", { type: "button", click: () => actions.edit(message) }, "Edit")] : [
        el("button", { type: "button", click: () => actions.retry(message) }, "Retry"),
        el("button", { type: "button", click: () => actions.timeline(message) }, "Timeline")
      ];
      buttons.push(el("button", { type: "button", title: "Continue from here in a copy", click: () => actions.branch(message) }, "Branch"));
      this.element = el(
        "article",
        { class: `message ${mine ? "user" : "assistant"}`, "aria-label": mine ? "You" : "Model" },
        this.body,
        this.text.element,
        ...pictures(message),
        el("div", { class: "actions" }, ...buttons)
      );
      this.element.dataset.id = message.id;
      if (message.thinking) this.think(message.thinking);
      const text = textOf(message);
      if (text) {
        this.text.add(text);
        this.text.draw();
      }
      for (const call2 of message.toolCalls ?? []) this.call(call2);
      if (message.metadata?.rejoinder?.interrupted) this.note("stopped here");
    }
    message;
    element;
    text;
    body = el("div");
    thinking = null;
    calls = /* @__PURE__ */ new Map();
    note(text) {
      this.element.insertBefore(el("p", { class: "note" }, text), this.element.lastElementChild);
    }
    think(text) {
      if (!this.thinking) {
        const grown = new Growing();
        const box = el("details", { class: "thinking" }, el("summary", {}, "Thinking"), grown.element);
        this.thinking = { box, text: grown };
        this.body.append(box);
      }
      this.thinking.text.add(text);
    }
    call(call2) {
      const summary = el("summary", {}, shown(call2.function.name));
      const result = el("pre", {}, "running");
      const box = el("details", { class: "tool" }, summary, el("pre", {}, shown(call2.function.arguments)), result);
      this.calls.set(call2.id, { box, summary, result });
      this.element.insertBefore(box, this.element.lastElementChild);
    }
    result(id, text, failed) {
      const call2 = this.calls.get(id);
      if (!call2) return false;
      call2.result.textContent = shown(text);
      call2.summary.append(failed ? ": failed" : ": done");
      return true;
    }
  };

  // page/settings.ts
  var CUTS = ["stop", "restart", "resume"];
  var FAULT_NAMES = {
    stall: "stall: says nothing",
    cut: "cut: breaks off",
    "429": "429: too many requests",
    slow: "slow: late and in small pieces"
  };
  var SettingsView = class {
    constructor(failed, run2) {
      this.failed = failed;
      this.run = run2;
      find("whatif").addEventListener("click", () => void this.whatIf());
    }
    failed;
    run;
    current = null;
    show(settings2) {
      this.current = settings2;
      find("models").textContent = shown(settings2.models.map((model) => model.name).join(" → "));
      find("kept").textContent = settings2.kept ? "Conversations are kept on this machine." : "Conversations end with the server; nothing is written to the disk.";
      this.faults(settings2);
      this.policy(settings2.policy, settings2.models.length);
    }
    async change(body) {
      try {
        this.show(await call("PUT", "settings", body));
      } catch (error) {
        this.failed(error);
      }
    }
    faults(settings2) {
      const focused = document.activeElement?.id;
      find("faults").replaceChildren(
        ...settings2.models.map((model, index) => {
          const select = el("select", { id: `fault-${index}` }, el("option", { value: "" }, "no fault"));
          for (const fault of settings2.faults) select.append(el("option", { value: fault }, FAULT_NAMES[fault] ?? fault));
          select.value = model.fault ?? "";
          const once = el("input", { id: `once-${index}`, type: "checkbox" });
          once.checked = model.once;
          const changed = () => void this.change({ faults: [{ model: index, fault: select.value || null, once: once.checked }] });
          select.addEventListener("change", changed);
          once.addEventListener("change", changed);
          return el("fieldset", {}, el("legend", {}, shown(model.name)), el("label", {}, "Fault ", select), el("label", {}, once, " next request only"));
        })
      );
      if (focused) document.getElementById(focused)?.focus();
    }
    slider(name, id, value, most, step) {
      const range = el("input", { id, type: "range", min: "0", max: String(most), step: String(step) });
      range.value = String(value ?? 0);
      const output = el("output", { for: id }, value ? seconds(value) : "off");
      range.addEventListener("input", () => output.textContent = Number(range.value) ? seconds(Number(range.value)) : "off");
      return el("label", {}, name, range, output);
    }
    policy(policy, models) {
      const form = find("policy");
      const focused = document.activeElement?.id;
      const cut = el("select", { id: "p-cut" }, ...CUTS.map((each) => el("option", { value: each }, each)));
      cut.value = policy.on_cut;
      form.replaceChildren(
        ...models < 2 ? [el("p", {}, "With one model there is no policy. Start the server with --fallback NAME.")] : [],
        this.slider("Give a model up after", "p-attempt", policy.attempt_timeout, 30, 0.5),
        this.slider("Ask a second model after (hedge)", "p-hedge", policy.hedge, 10, 0.1),
        this.slider("Give the turn up without a word after", "p-first", policy.first_token_by, 60, 1),
        el("label", {}, "A reply that breaks off ", cut)
      );
      form.onchange = () => void this.change({ policy: this.read() });
      if (focused?.startsWith("p-")) document.getElementById(focused)?.focus();
    }
    read() {
      const value = (id) => Number(find(id).value);
      return {
        attempt_timeout: value("p-attempt"),
        hedge: value("p-hedge") || null,
        first_token_by: value("p-first") || null,
        on_cut: find("p-cut").value
      };
    }
    async whatIf() {
      const place2 = find("whatif-result");
      const run2 = this.run();
      if (!run2) {
        place2.replaceChildren(el("p", {}, "There is no turn yet: ask something first."));
        return;
      }
      const base = this.read();
      const others = [
        { ...base, hedge: null },
        ...[0.3, 0.7, 1.5].map((hedge) => ({ ...base, hedge })),
        ...[1, 2, 5].map((attempt_timeout) => ({ ...base, hedge: null, attempt_timeout }))
      ];
      try {
        this.result(place2, await call("POST", "whatif", { runId: run2, policies: others }));
      } catch (error) {
        this.failed(error);
      }
    }
    result(place2, result) {
      const time = (value) => value == null ? "never" : seconds(value);
      const rows = result.policies.map(
        (each, index) => el(
          "tr",
          {},
          el("th", { scope: "row" }, `${index ? "" : "now: "}${seconds(each.policy.attempt_timeout)} each${each.policy.hedge ? `, hedge after ${seconds(each.policy.hedge)}` : ""}`),
          el("td", {}, time(each.first_word)),
          el("td", {}, time(each.longest)),
          el("td", {}, `${Math.round(100 * each.unanswered)} %`),
          el("td", {}, each.requests.toFixed(2))
        )
      );
      const head = ["policy", "first word", "longest wait", "unanswered", "requests"].map((name) => el("th", { scope: "col" }, name));
      const told = result.models.map((model) => {
        const facts = [model.median === null ? "" : `first output after ${seconds(model.median)}`, model.silent ? "silent" : "", model.failed ? "failed" : "", model.cut ? "broke off" : ""];
        return el("li", {}, shown(`${model.model}: ${facts.filter(Boolean).join(", ") || "nothing known"} (${model.source})`));
      });
      place2.replaceChildren(
        el("p", {}, "The turn, simulated 100 times with models that behave as recorded:"),
        el("ul", {}, ...told),
        el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows))
      );
    }
  };

  // page/lanes.ts
  var NAMES = {
    ask: "preparing",
    name: "looking the name up",
    connect: "connecting",
    send: "sending",
    wait: "waiting for the server",
    read: "reading, nothing useful yet",
    say: "answering",
    tool: "running",
    lost: "stopped"
  };
  var PAUSE = 0.5;
  var Lanes = class {
    lanes = [];
    numbers = [];
    end = 0;
    over = false;
    firstWord = null;
    retries = 0;
    error = "";
    changed = /* @__PURE__ */ new Set();
    words;
    asks = /* @__PURE__ */ new Map();
    parents = /* @__PURE__ */ new Map();
    attempts = /* @__PURE__ */ new Map();
    tools = /* @__PURE__ */ new Map();
    lastText = 0;
    characters = 0;
    constructor() {
      this.words = this.lane("answer", "", 0);
    }
    lane(name, why, from) {
      const made = { name, why, outcome: "", from, segments: [] };
      this.lanes.push(made);
      this.changed.add(made);
      return made;
    }
    next(attempt, kind, t) {
      const segments = attempt.lane.segments;
      const last = segments[segments.length - 1];
      if (last && last.to === null) last.to = t;
      segments.push({ kind, from: t, to: null, label: NAMES[kind] ?? kind });
      this.changed.add(attempt.lane);
    }
    close(lane, t) {
      const last = lane.segments[lane.segments.length - 1];
      if (last && last.to === null) last.to = t;
      this.changed.add(lane);
    }
    add(event) {
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
          const ask2 = this.asks.get(part);
          if (ask2) ask2[kind] = true;
          return;
        }
        case "end":
          this.finish(event);
          return;
        case "text":
          this.text(t, Number(event["size"]));
          return;
        case "tool": {
          const lane = this.lane(`tool ${String(event["name"])}`, "", t);
          lane.segments.push({ kind: "tool", from: t, to: null, label: NAMES["tool"] });
          this.tools.set(String(event["call"]), lane);
          this.close(this.words, this.lastText || t);
          return;
        }
        case "tool_end": {
          const lane = this.tools.get(String(event["call"]));
          if (lane) {
            this.close(lane, t);
            if (event["failed"]) lane.outcome = "failed";
          }
          return;
        }
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
    begin(event) {
      const { t, part } = event;
      const inside = Number(event["inside"]);
      this.parents.set(part, inside);
      const model = String(event["model"] ?? "");
      if (event["what"] === "ask") {
        this.asks.set(part, { why: String(event["why"]), model, heard: false, lost: false });
        const team = this.attempts.get(inside);
        if (team) {
          this.lanes.splice(this.lanes.indexOf(team.lane), 1);
          this.attempts.delete(inside);
          this.changed.add(team.lane);
        }
        return;
      }
      const ask2 = this.asks.get(inside);
      const number = Number(event["number"] ?? 0);
      const why = [ask2 && ask2.why !== "first" ? ask2.why : "", number ? `retry ${number}` : ""].filter(Boolean).join(", ");
      const lane = this.lane(model, why, t);
      const attempt = {
        lane,
        model,
        ask: inside,
        useful: null,
        sent: null,
        bytes: null,
        connectStart: null,
        connected: null,
        error: "",
        ended: null
      };
      this.attempts.set(part, attempt);
      this.next(attempt, "ask", t);
    }
    finish(event) {
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
    text(t, size) {
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
    stop(t) {
      this.over = true;
      this.close(this.words, this.lastText || t);
      this.words.segments = this.words.segments.filter((segment) => segment.to !== null);
    }
    // One or two sentences: where the time until the first word went.
    why() {
      if (this.firstWord === null) {
        if (this.error) return `No answer after ${seconds(this.end)}: ${this.error}`;
        return this.over ? `No text; the turn took ${seconds(this.end)}.` : "";
      }
      const told = [`First word after ${seconds(this.firstWord)}`];
      const before = [...this.attempts.values()].filter((attempt) => attempt.lane.from < this.firstWord);
      const winner = before.filter((attempt) => attempt.useful !== null && attempt.useful <= this.firstWord + 0.05).pop();
      const reasons = [];
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
      const tool = [...this.tools.values()].find((lane) => lane.from < this.firstWord);
      if (tool) reasons.push("a tool ran first");
      return reasons.length ? `${told[0]}: ${reasons.join("; ")}.` : `${told[0]}.`;
    }
    // The numbers of the turn, for a list.
    facts() {
      const facts = [];
      if (this.firstWord !== null) facts.push(["first word", seconds(this.firstWord)]);
      facts.push(["whole turn", seconds(this.end)]);
      const sum = (name) => this.numbers.reduce((total, each) => total + Number(each[name] ?? 0), 0);
      const prompt = sum("prompt");
      if (this.numbers.length) {
        const about = this.numbers.some((each) => each["estimated"]) ? "about " : "";
        facts.push(["tokens", `${about}${prompt} read, ${sum("completion")} written`]);
        facts.push(["from the cache", prompt ? `${Math.round(100 * sum("cached") / prompt)} %` : "0 %"]);
        const wasted = this.numbers.filter((each) => each["purpose"] !== "reply").length;
        if (wasted) facts.push(["requests nobody heard", String(wasted)]);
        const last = this.numbers[this.numbers.length - 1];
        if (Number(last["speed"]) > 0) facts.push(["speed", `${Number(last["speed"]).toFixed(1)} tokens a second`]);
        const cost = this.numbers.reduce((total, each) => each["cost"] == null ? total : (total ?? 0) + Number(each["cost"]), null);
        if (cost !== null) facts.push(["cost", cost.toPrecision(3)]);
      }
      if (this.retries) facts.push(["retries", String(this.retries)]);
      return facts;
    }
  };
  function sentence(event) {
    const facts = Object.entries(event).filter(([name, value]) => !["t", "part", "kind", "inside"].includes(name) && value !== null && value !== false).map(([name, value]) => `${name} ${typeof value === "number" && !Number.isInteger(value) ? value.toFixed(3) : String(value)}`);
    return `${event.t.toFixed(3)} s  ${event.kind}${event.part ? ` (${event.part})` : ""}${facts.length ? `: ${facts.join(", ")}` : ""}`;
  }

  // page/timeline.ts
  var NAME = 150;
  var WIDTH = 580;
  var ROW = 22;
  var TOP = 18;
  var LISTED = 500;
  var LEGEND = [
    ["ask", "preparing"],
    ["connect", "connecting"],
    ["send", "sending"],
    ["wait", "waiting"],
    ["read", "nothing useful yet"],
    ["say", "answering"],
    ["tool", "tool"],
    ["lost", "not heard"],
    ["bad", "failed"]
  ];
  var TimelineView = class {
    lanes = new Lanes();
    rows = /* @__PURE__ */ new Map();
    picture = svg("svg", { role: "img" });
    axis = svg("g");
    span = 1;
    asked = false;
    listed = 0;
    clock = null;
    constructor() {
      find("timeline").append(this.picture);
      find("timeline").append(
        el("ul", { class: "legend", "aria-hidden": "true" }, ...LEGEND.map(([kind, name]) => el("li", {}, el("i", { class: `s-${kind}` }), name)))
      );
      this.clear();
    }
    clear() {
      this.lanes = new Lanes();
      this.rows = /* @__PURE__ */ new Map();
      this.span = 1;
      this.listed = 0;
      this.clock = null;
      this.axis = svg("g");
      this.picture.replaceChildren(this.axis);
      find("events").replaceChildren();
      find("numbers").replaceChildren();
      find("why").textContent = "";
      this.ask();
    }
    show(events) {
      this.clear();
      for (const event of events) this.take(event);
      this.clock = null;
      this.draw();
    }
    add(event) {
      this.clock = { at: performance.now(), t: event.t };
      this.take(event);
      this.ask();
    }
    // No more events come.
    stop() {
      this.clock = null;
      this.ask();
    }
    take(event) {
      this.lanes.add(event);
      if (event.kind === "text" || event.kind === "thinking") return;
      if (this.listed++ < LISTED) find("events").append(el("li", {}, shown(sentence(event))));
    }
    ask() {
      if (this.asked) return;
      this.asked = true;
      requestAnimationFrame(() => this.draw());
    }
    now() {
      const running = this.clock && !this.lanes.over ? (performance.now() - this.clock.at) / 1e3 : 0;
      return this.lanes.end + running;
    }
    draw() {
      this.asked = false;
      const now = this.now();
      const lanes = this.lanes;
      if (now > this.span || this.rows.size === 0) {
        while (this.span < now) this.span *= 2;
        for (const lane of lanes.lanes) lanes.changed.add(lane);
        this.scale();
      }
      if (lanes.over && now > 0 && now < this.span * 0.98) {
        this.span = Math.max(now, 0.05);
        for (const lane of lanes.lanes) lanes.changed.add(lane);
        this.scale();
      }
      const size = this.rows.size;
      for (const lane of lanes.changed) {
        if (lanes.lanes.includes(lane)) this.lane(lane, now);
        else {
          this.rows.get(lane)?.group.remove();
          this.rows.delete(lane);
        }
      }
      if (this.rows.size !== size) this.place();
      lanes.changed.clear();
      if (!lanes.over) {
        for (const lane of lanes.lanes) if (lane.segments.some((segment) => segment.to === null)) lanes.changed.add(lane);
      }
      this.words();
      if (this.clock && !lanes.over) setTimeout(() => this.ask(), 100);
    }
    place() {
      const height = TOP + ROW * this.lanes.lanes.length + 4;
      this.picture.setAttribute("viewBox", `0 0 ${WIDTH} ${height}`);
      this.lanes.lanes.forEach((lane, index) => this.rows.get(lane)?.group.setAttribute("transform", `translate(0 ${TOP + ROW * index})`));
      this.scale();
    }
    x(t) {
      return NAME + t / this.span * (WIDTH - NAME - 6);
    }
    scale() {
      const height = TOP + ROW * this.lanes.lanes.length + 4;
      this.axis.replaceChildren();
      const step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100].find((each) => this.span / each <= 6) ?? 200;
      for (let t = 0; t <= this.span; t += step) {
        this.axis.append(svg("line", { class: "grid", x1: this.x(t), x2: this.x(t), y1: TOP - 4, y2: height }));
        this.axis.append(svg("text", { class: "axis", x: this.x(t) + 2, y: 10 }, `${Number(t.toFixed(2))} s`));
      }
    }
    lane(lane, now) {
      let row = this.rows.get(lane);
      if (!row) {
        const name = svg("text", { x: 0, y: 14 });
        row = { group: svg("g"), name, bars: [] };
        row.group.append(name);
        this.picture.append(row.group);
        this.rows.set(lane, row);
      }
      const label = shown(lane.why ? `${lane.name} · ${lane.why}` : lane.name);
      row.name.textContent = label.length > 27 ? `${label.slice(0, 26)}…` : label;
      lane.segments.forEach((segment, index) => {
        let bar = row.bars[index];
        if (!bar) {
          bar = svg("rect", { y: 3, height: ROW - 8, rx: 2 });
          bar.append(svg("title"));
          row.bars.push(bar);
          row.group.append(bar);
        }
        const to = segment.to ?? now;
        const bad = lane.outcome && lane.outcome !== "slower, not heard" && lane.outcome !== "stopped" && index === lane.segments.length - 1;
        const lost = lane.outcome === "slower, not heard" && index === lane.segments.length - 1;
        bar.setAttribute("class", `s-${bad ? "bad" : lost ? "lost" : segment.kind}`);
        bar.setAttribute("x", String(this.x(segment.from)));
        bar.setAttribute("width", String(Math.max(1.5, this.x(to) - this.x(segment.from))));
        bar.firstElementChild.textContent = shown(`${label}: ${segment.label}, ${seconds(to - segment.from)}${lane.outcome ? ` (${lane.outcome})` : ""}`);
      });
      for (const bar of row.bars.splice(lane.segments.length)) bar.remove();
    }
    words() {
      const why = this.lanes.why();
      const element = find("why");
      if (element.textContent !== shown(why)) {
        element.textContent = shown(why);
        this.picture.setAttribute("aria-label", shown(`Timeline. ${why}`));
      }
      if (!this.lanes.over) return;
      find("numbers").replaceChildren(...this.lanes.facts().flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
    }
  };

  // page/main.ts
  var LONGEST_TEXT = 1e6;
  var LARGEST_PICTURE = 5e6;
  var MOST_PICTURES = 6;
  var place = find("messages");
  var question = find("question");
  var timeline = new TimelineView();
  var thread = newId("conv");
  var messages = [];
  var views = /* @__PURE__ */ new Map();
  var runs = [];
  var current = null;
  var chosen = null;
  var editing = null;
  var attached = [];
  var follow = true;
  var settings = new SettingsView(problem, () => chosen);
  function newId(kind) {
    return `${kind}_${Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
  }
  function problem(error) {
    find("problem").textContent = error === "" ? "" : shown(error instanceof Error ? error.message : String(error));
  }
  function announce(text) {
    find("status").textContent = text;
  }
  function scroll() {
    if (follow) place.scrollTop = place.scrollHeight;
  }
  function view(message) {
    const made = new MessageView(message, { edit, retry, branch, timeline: showTimeline }, scroll);
    views.set(message.id, made);
    place.append(made.element);
    scroll();
    return made;
  }
  function redraw() {
    place.replaceChildren();
    views = /* @__PURE__ */ new Map();
    for (const message of messages) {
      if (message.role === "tool") toolResult(message);
      else if (message.role === "user" || message.role === "assistant") view(message);
    }
  }
  function toolResult(message) {
    for (const each of views.values()) if (each.result(message.toolCallId, String(message.content ?? ""), Boolean(message.error))) return;
  }
  function lastUser(before) {
    for (let index = before; index >= 0; index--) if (messages[index].role === "user") return index;
    return -1;
  }
  function edit(message) {
    if (current) return problem("Stop the answer first.");
    editing = message;
    find("editing").hidden = false;
    const content = message.content ?? "";
    question.value = typeof content === "string" ? content : content.map((part) => part.type === "text" ? part.text : "").join("");
    attached = typeof content === "string" ? [] : content.filter((part) => part.type === "image");
    drawPictures();
    question.focus();
  }
  function cancelEdit() {
    editing = null;
    find("editing").hidden = true;
    question.value = "";
    attached = [];
    drawPictures();
  }
  function retry(message) {
    if (current) return problem("Stop the answer first.");
    const index = lastUser(messages.indexOf(message));
    if (index < 0) return;
    messages = messages.slice(0, index + 1);
    redraw();
    void go();
  }
  async function branch(message) {
    try {
      show(await call("POST", `conversations/${encodeURIComponent(thread)}/copy`, { item: lastItem(message) }));
      await listConversations();
      announce("You are in a copy of the conversation.");
    } catch (error) {
      problem(error);
    }
  }
  function lastItem(message) {
    const calls = new Set((message.toolCalls ?? []).map((each) => each.id));
    const outputs = messages.filter((each) => each.toolCallId && calls.has(each.toolCallId));
    return (outputs[outputs.length - 1] ?? message).id;
  }
  function showTimeline(message) {
    const found = runs.find((each) => each.messages.includes(message.id) || each.messages.some((id) => aliases[id] === message.id));
    if (!found) return problem("The timeline of this answer is not known: it was made before the server was started.");
    choose(found);
    openPanel("panel", "show-panel", true);
  }
  function choose(facts) {
    chosen = facts.runId;
    if (current?.id !== facts.runId) timeline.show(facts.events);
    for (const each of views.values()) {
      const id = each.message.id;
      each.element.classList.toggle("chosen", facts.messages.some((said) => said === id || aliases[said] === id));
    }
  }
  async function go() {
    problem("");
    const facts = { runId: newId("run"), at: Date.now() / 1e3, messages: [], events: [], recorded: 0 };
    const run2 = { id: facts.runId, stopping: false };
    current = run2;
    runs.push(facts);
    chosen = run2.id;
    timeline.clear();
    find("stop").hidden = false;
    find("send").disabled = true;
    place.classList.add("working");
    announce("Waiting for the model.");
    follow = true;
    const body = {
      threadId: thread,
      runId: run2.id,
      state: null,
      tools: [],
      context: [],
      forwardedProps: {},
      messages: messages.map(({ thinking: _, ...message }) => message)
    };
    const open = new Open(facts);
    try {
      for await (const event of run(body)) open.take(event);
      if (!open.over) problem("The connection to the server broke off; the answer may be incomplete.");
    } catch (error) {
      problem(error instanceof Refused ? error : `The answer could not be read: ${String(error)}`);
    } finally {
      timeline.stop();
      current = null;
      find("stop").hidden = true;
      find("send").disabled = false;
      place.classList.remove("working");
      announce(open.said ? `The model said: ${open.said}` : "The turn is over.");
      await afterwards();
    }
  }
  var Open = class {
    constructor(facts) {
      this.facts = facts;
    }
    facts;
    over = false;
    said = "";
    thinkingFor = null;
    thinking = "";
    assistant(id) {
      const known = views.get(id);
      if (known) return known;
      const waiting = this.thinkingFor;
      this.thinkingFor = null;
      const message = { id, role: "assistant", thinking: this.thinking };
      this.thinking = "";
      messages.push(message);
      this.facts.messages.push(id);
      waiting?.element.remove();
      return view(message);
    }
    take(event) {
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
          return;
        }
        case "REASONING_MESSAGE_CONTENT":
          this.thinkingFor ??= view({ id: newId("thinking"), role: "assistant" });
          this.thinking += event["delta"];
          this.thinkingFor.think(event["delta"]);
          return;
        case "TOOL_CALL_START": {
          const made = this.assistant(event["parentMessageId"]);
          const made_call = { id: event["toolCallId"], type: "function", function: { name: event["toolCallName"], arguments: "" } };
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
          const message = { id: event["messageId"], role: "tool", toolCallId: event["toolCallId"], content: event["content"] };
          if (event["error"]) message.error = event["error"];
          messages.push(message);
          toolResult(message);
          return;
        }
        case "MESSAGES_SNAPSHOT":
          messages = event["messages"].filter((each) => each.role !== "system" && each.role !== "developer");
          redraw();
          return;
        case "CUSTOM":
          if (event["name"] === "rejoinder.timeline") {
            const told = event["value"];
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
          }
          return;
      }
    }
  };
  var aliases = {};
  async function afterwards() {
    try {
      await listConversations();
      settings.show(await get("settings"));
      const known = await get(`conversations/${encodeURIComponent(thread)}`);
      aliases = known.aliases;
      runs = known.runs;
      const facts = runs.find((each) => each.runId === chosen);
      if (facts) choose(facts);
      drawBranches(known);
    } catch (error) {
      problem(error);
    }
  }
  function stop() {
    if (!current || current.stopping) return;
    current.stopping = true;
    call("POST", "stop", { runId: current.id }).catch(problem);
  }
  function show(known) {
    thread = known.threadId;
    aliases = known.aliases;
    runs = known.runs;
    messages = known.messages.filter((message) => message.role !== "system" && message.role !== "developer");
    editing = null;
    find("editing").hidden = true;
    problem("");
    redraw();
    drawBranches(known);
    const last = runs[runs.length - 1];
    chosen = null;
    timeline.clear();
    if (last) choose(last);
    question.focus();
  }
  function drawBranches(known) {
    const box = find("branches");
    box.replaceChildren();
    if (known.tips.length < 2) return;
    box.append("Branches: ");
    known.tips.forEach((tip, index) => {
      const here = tip === known.tip;
      box.append(
        el("button", { type: "button", "aria-current": here ? "true" : "false", disabled: here, click: () => void openThread(`conversations/${encodeURIComponent(thread)}/rewind`, { item: tip }) }, String(index + 1)),
        " "
      );
    });
  }
  async function openThread(path, body) {
    if (current) return problem("Stop the answer first.");
    try {
      show(body ? await call("POST", path, body) : await get(path));
      openPanel("list", "show-list", false);
      await listConversations();
    } catch (error) {
      problem(error);
    }
  }
  function fresh() {
    if (current) return problem("Stop the answer first.");
    show({ threadId: newId("conv"), messages: [], runs: [], aliases: {}, tips: [], tip: null });
    openPanel("list", "show-list", false);
    void listConversations();
  }
  async function listConversations() {
    const words = find("search").value.trim();
    const found = await get(`conversations${words ? `?search=${encodeURIComponent(words)}` : ""}`);
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
          el("button", { type: "button", "aria-label": `Remove ${title}`, click: () => void remove() }, "×")
        );
      })
    );
  }
  async function exportAs(what) {
    problem("");
    try {
      const content = await download(`conversations/${encodeURIComponent(thread)}/${what}`);
      save(what === "export" ? `${thread}.json` : `${thread}-recording.zip`, content);
    } catch (error) {
      problem(error);
    }
  }
  function ask() {
    const text = question.value.trim();
    if (!text && !attached.length || current) return;
    if (text.length > LONGEST_TEXT) return problem(`The message has ${text.length} characters; at most ${LONGEST_TEXT} can be sent.`);
    if (editing) messages = messages.slice(0, messages.indexOf(editing));
    const content = attached.length ? [...text ? [{ type: "text", text }] : [], ...attached] : text;
    const message = { id: newId("user"), role: "user", content };
    const edited = editing !== null;
    messages.push(message);
    cancelEdit();
    if (edited) redraw();
    else view(message);
    void go();
  }
  function drawPictures() {
    find("pictures").replaceChildren(
      ...attached.flatMap((part, index) => {
        if (part.type !== "image" || part.source.type !== "data") return [];
        const remove = () => {
          attached.splice(index, 1);
          drawPictures();
        };
        return [el("li", {}, el("img", { src: `data:${part.source.mimeType};base64,${part.source.value}`, alt: `picture ${index + 1}` }), el("button", { type: "button", "aria-label": `Remove picture ${index + 1}`, click: remove }, "×"))];
      })
    );
  }
  function attach(file) {
    if (!/^image\/(png|jpeg|gif|webp)$/.test(file.type)) return problem(`${file.name || "The picture"}: expected PNG, JPEG, GIF or WebP, got ${file.type || "something else"}.`);
    if (file.size > LARGEST_PICTURE) return problem(`The picture has ${Math.round(file.size / 1e6)} MB; at most ${LARGEST_PICTURE / 1e6} MB can be sent. Make it smaller first.`);
    if (attached.length >= MOST_PICTURES) return problem(`At most ${MOST_PICTURES} pictures can be sent with a message.`);
    const reader = new FileReader();
    reader.onload = () => {
      attached.push({ type: "image", source: { type: "data", mimeType: file.type, value: String(reader.result).split(",", 2)[1] } });
      drawPictures();
    };
    reader.readAsDataURL(file);
  }
  question.addEventListener("paste", (event) => {
    const data = event.clipboardData;
    const files = [...data?.files ?? []];
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
        edit(messages[index]);
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
  place.addEventListener("scroll", () => follow = place.scrollHeight - place.scrollTop - place.clientHeight < 60);
  function openPanel(id, button, open) {
    find(id).classList.toggle("open", open);
    find(button).setAttribute("aria-expanded", String(open));
  }
  for (const [button, id, other, otherButton] of [
    ["show-list", "list", "panel", "show-panel"],
    ["show-panel", "panel", "list", "show-list"]
  ]) {
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
  var searching = 0;
  find("search").addEventListener("input", () => {
    clearTimeout(searching);
    searching = window.setTimeout(() => listConversations().catch(problem), 200);
  });
  async function begin() {
    try {
      settings.show(await get("settings"));
      await listConversations();
      document.body.dataset.ready = "true";
    } catch (error) {
      problem(error);
    }
    question.focus();
  }
  void begin();
})();
