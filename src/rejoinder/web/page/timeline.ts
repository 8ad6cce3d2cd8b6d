// Draws the lanes of a run, while it happens and afterwards. An event moves what it concerns only.

import { el, find, seconds, shown, svg } from "./dom";
import { Lanes, sentence, type Lane } from "./lanes";
import type { TimelineEvent } from "./types";

const NAME = 150; // width of the names
const WIDTH = 320; // of all, at least
const LABEL = 44; // of one time
const EVERY = 100; // milliseconds between two drawings of a turn that runs
const ROW = 22;
const TOP = 18;
const LISTED = 500; // events in the list

interface Row {
  group: SVGElement;
  name: SVGElement;
  bars: SVGElement[];
  drawn: number; // bars that are final at this scale
}

export class TimelineView {
  private lanes = new Lanes();
  private rows = new Map<Lane, Row>();
  private picture = svg("svg", { role: "img" });
  private axis = svg("g");
  private span = 1;
  private asked = false;
  private listed = 0;
  private width = 0; // unknown until the first drawing
  private news = false;
  private clock: { at: number; t: number } | null = null;

  // Nothing is made before there is something to draw.
  private begin(): void {
    this.width = this.space();
    find("timeline").prepend(this.picture);
    new ResizeObserver(() => this.resized()).observe(find("timeline"));
  }

  private space(): number {
    return Math.max(WIDTH, find("timeline").clientWidth);
  }

  private resized(): void {
    if (this.space() === this.width) return;
    this.width = this.space();
    this.rescale();
    this.ask();
  }

  clear(): void {
    this.lanes = new Lanes();
    this.rows = new Map();
    this.span = 1;
    this.listed = 0;
    this.clock = null;
    this.axis = svg("g");
    this.picture.replaceChildren(this.axis);
    find("events").replaceChildren();
    find("numbers").replaceChildren();
    find("why").textContent = "";
    if (this.width) this.ask();
  }

  show(events: TimelineEvent[]): void {
    this.clear();
    for (const event of events) this.take(event);
    this.clock = null;
    this.draw();
  }

  add(event: TimelineEvent): void {
    this.clock = { at: performance.now(), t: event.t };
    this.take(event);
    this.ask();
  }

  // No more events come.
  stop(): void {
    this.clock = null;
    this.ask();
  }

  private take(event: TimelineEvent): void {
    this.lanes.add(event);
    if (event.kind !== "text" || this.lanes.firstWord === event.t) this.news = true;
    if (event.kind === "text" || event.kind === "thinking") return;
    if (this.listed++ < LISTED) find("events").append(el("li", {}, shown(sentence(event))));
  }

  private ask(): void {
    if (this.asked) return;
    this.asked = true;
    setTimeout(() => requestAnimationFrame(() => this.draw()), this.clock && !this.lanes.over ? EVERY : 0);
  }

  private now(): number {
    const running = this.clock && !this.lanes.over ? (performance.now() - this.clock.at) / 1000 : 0;
    return this.lanes.end + running;
  }

  private draw(): void {
    this.asked = false;
    if (!this.width) this.begin();
    const now = this.now();
    const lanes = this.lanes;
    // While a turn runs the scale changes by doubling, so that it seldom does.
    let span = this.span;
    while (span < now) span *= 2;
    if (lanes.over && now > 0) span = Math.max(now * 1.02, 0.05);
    if (span !== this.span) {
      this.span = span;
      this.rescale();
    }
    let placed = false;
    for (const lane of lanes.changed) {
      if (this.rows.has(lane) || lanes.lanes.includes(lane)) {
        placed ||= !this.rows.has(lane);
        this.lane(lane, now);
      }
    }
    for (const lane of lanes.changed) {
      if (lanes.lanes.includes(lane)) continue;
      this.rows.get(lane)?.group.remove();
      this.rows.delete(lane);
      placed = true;
    }
    if (placed) this.place();
    lanes.changed.clear();
    // Open segments grow with the time.
    if (!lanes.over) for (const lane of lanes.lanes) if (lane.segments[lane.segments.length - 1]?.to === null) lanes.changed.add(lane);
    if (this.news) this.words();
    this.news = false;
    if (this.clock && !lanes.over) this.ask();
  }

  private rescale(): void {
    for (const row of this.rows.values()) row.drawn = 0;
    for (const lane of this.lanes.lanes) this.lanes.changed.add(lane);
    this.scale();
  }

  private place(): void {
    this.lanes.lanes.forEach((lane, index) => {
      const place = `translate(0 ${TOP + ROW * index})`;
      const group = this.rows.get(lane)?.group;
      if (group && group.getAttribute("transform") !== place) group.setAttribute("transform", place);
    });
    this.scale();
  }

  private x(t: number): number {
    return NAME + (t / this.span) * (this.width - NAME - 6);
  }

  private scale(): void {
    const height = TOP + ROW * this.lanes.lanes.length + 4;
    this.picture.setAttribute("width", String(this.width));
    this.picture.setAttribute("height", String(height));
    this.axis.replaceChildren();
    const step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100].find((each) => this.span / each <= Math.min(6, (this.width - NAME) / LABEL)) ?? 200;
    for (let t = 0; t <= this.span; t += step) {
      this.axis.append(svg("line", { class: "grid", x1: this.x(t), x2: this.x(t), y1: TOP - 4, y2: height }));
      this.axis.append(svg("text", { class: "axis", x: this.x(t) + 2, y: 10 }, `${Number(t.toFixed(2))} s`));
    }
  }

  private lane(lane: Lane, now: number): void {
    let row = this.rows.get(lane);
    if (!row) {
      const name = svg("text", { x: 0, y: 14 });
      row = { group: svg("g"), name, bars: [], drawn: 0 };
      row.group.append(name);
      this.picture.append(row.group);
      this.rows.set(lane, row);
    }
    const label = shown(lane.why ? `${lane.name} · ${lane.why}` : lane.name);
    const short = label.length > 27 ? `${label.slice(0, 26)}…` : label;
    if (row.name.textContent !== short) row.name.textContent = short;
    for (let index = Math.max(0, row.drawn - 1); index < lane.segments.length; index++) {
      const segment = lane.segments[index]!;
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
      bar.firstElementChild!.textContent = shown(`${label}: ${segment.label}, ${seconds(to - segment.from)}${lane.outcome ? ` (${lane.outcome})` : ""}`);
      if (segment.to !== null) row.drawn = index + 1;
    }
    for (const bar of row.bars.splice(lane.segments.length)) bar.remove();
  }

  private words(): void {
    const why = this.lanes.why();
    const element = find("why");
    if (element.textContent !== shown(why)) {
      element.textContent = shown(why);
      this.picture.setAttribute("aria-label", shown(`Timeline. ${why}`));
    }
    find("numbers").replaceChildren(...this.lanes.facts().flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
  }
}
