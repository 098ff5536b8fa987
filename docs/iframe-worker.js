// The site's search runs in a Worker, which browsers refuse to pages opened from disk. There, runs the script in a
// hidden frame instead. Zensical would load a package for this from another host; its name makes Zensical leave it out.
if (location.protocol === "file:") {
  window.Worker = class {
    #frame = document.createElement("iframe");
    #loaded;

    constructor(url) {
      this.#frame.hidden = true;
      document.body.append(this.#frame);
      const inner = this.#frame.contentWindow;
      inner.postMessage = data => this.onmessage?.(new MessageEvent("message", { data: structuredClone(data) }));
      const script = inner.document.createElement("script");
      this.#loaded = new Promise((resolve, reject) => {
        script.onload = resolve;
        script.onerror = () => reject(new Error(`cannot load ${url}`));
      });
      script.src = url;
      inner.document.body.append(script);
    }

    postMessage(data) {
      this.#loaded.then(() => {
        this.#frame.contentWindow.onmessage(new MessageEvent("message", { data: structuredClone(data) }));
      });
    }

    terminate() {
      this.#frame.remove();
    }
  };
}
