// The search runs in a worker, which browsers refuse to pages that are opened from files. There, the
// same script runs in a hidden frame of the page instead.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    #frame = document.createElement("iframe");
    #waiting = [];
    #ready = false;

    constructor(url) {
      super();
      this.onmessage = this.onerror = this.onmessageerror = null;
      this.#frame.hidden = true;
      document.documentElement.append(this.#frame);
      const inner = this.#frame.contentWindow;
      inner.postMessage = (data) => this.#tell(new MessageEvent("message", { data }));
      const script = inner.document.createElement("script");
      script.src = url;
      script.onerror = () => this.#tell(new ErrorEvent("error", { message: `cannot load ${url}`, cancelable: true }));
      script.onload = () => {
        this.#ready = true;
        this.#waiting.splice(0).forEach((data) => this.postMessage(data));
      };
      inner.document.body.append(script);
    }

    #tell(event) {
      // As from a worker: later, never while the caller runs.
      setTimeout(() => {
        this.dispatchEvent(event);
        this[`on${event.type}`]?.(event);
      });
    }

    postMessage(data) {
      if (!this.#ready) {
        this.#waiting.push(data);
        return;
      }
      const inner = this.#frame.contentWindow;
      setTimeout(() => inner?.dispatchEvent(new inner.MessageEvent("message", { data })));
    }

    terminate() {
      this.#frame.remove();
    }
  };
}
