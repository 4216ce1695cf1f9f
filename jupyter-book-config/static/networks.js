/* Networks in the page: loads onnxruntime-web and the exported networks, when a reader needs them.

   A page that is opened from a folder (file://) may load classic scripts and nothing else. So each large file is a
   script that hands base64 text of gzipped data to `segeduNetworks.receive`, and the module of the runtime is imported
   from a blob. Nothing is requested from another host. */
(() => {
  if (window.segeduNetworks) return; // Jupyter Book 1 loads every script twice
  const folder = new URL("networks/", document.currentScript.src);
  const received = new Map(); // name of a data script -> its contents
  const demonstrations = new Map(); // name -> function that starts a demonstration
  const loading = new Map(); // promises, so that two demonstrations of a page share their downloads

  function once(key, make) {
    if (!loading.has(key)) loading.set(key, make());
    return loading.get(key);
  }

  /** Load a data script of _static/networks, and return what it hands over. */
  function data(name, version) {
    return once(`data ${name}`, () => new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = new URL(`${name}.js?v=${version}`, folder);
      script.onload = () => (received.has(name) ? resolve(received.get(name)) : reject(new Error(`${name}.js is empty`)));
      script.onerror = () => reject(new Error(`the file ${name}.js could not be loaded`));
      document.head.append(script);
    }));
  }

  function fromBase64(base64) {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
    const text = atob(base64), bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return bytes;
  }

  /** Bytes of base64 text of gzipped data. */
  async function unpack(base64) {
    if (!window.DecompressionStream) throw new Error("this browser has no DecompressionStream, which unpacks the files");
    const stream = new Blob([fromBase64(base64)]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  /** The module of onnxruntime-web, ready to create sessions. */
  function runtime(version) {
    return once("runtime", async () => {
      if (!window.WebAssembly) throw new Error("this browser has no WebAssembly, which runs the network");
      const files = await data("onnxruntime-web", version);
      const [module, wasm] = await Promise.all([unpack(files.module), unpack(files.wasm)]);
      const address = URL.createObjectURL(new Blob([module], { type: "text/javascript" }));
      const ort = await import(address);
      URL.revokeObjectURL(address);
      // More threads need headers that a static host does not send, and a page in a folder has none.
      Object.assign(ort.env.wasm, { numThreads: 1, wasmBinary: wasm.buffer });
      return ort;
    });
  }

  /** The exported network: `about`, its metadata; `ort`; and a session for each of the given files. */
  function network(settings, files) {
    return once(`network ${settings.weights}`, async () => {
      const [ort, parts] = await Promise.all([runtime(settings.runtimeVersion), data(settings.weights, settings.version)]);
      const sessions = {};
      for (const file of files) {
        sessions[file] = await ort.InferenceSession.create(await unpack(parts[file]), { executionProviders: ["wasm"] });
      }
      return { about: parts.about, ort, sessions };
    });
  }

  /** The demonstration replaces its figure, so it takes over the figure's number and the links that lead to it. */
  function takeNumber(element) {
    const figure = element.querySelector(":scope > figure"), number = figure?.querySelector(".caption-number");
    const summary = element.querySelector(".network-summary");
    if (number) summary.prepend(`${number.textContent.trim()}. `);
    if (!figure?.id) return;
    summary.id = figure.id;
    figure.removeAttribute("id");
  }

  /** Prepare one mount: a button starts the demonstration, and so does scrolling to it. */
  function mount(element) {
    const settings = JSON.parse(element.dataset.settings);
    const start = demonstrations.get(settings.name);
    if (!start || element.querySelector(".network-start")) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "network-start";
    button.textContent = `Start (loads ${settings.megabytes} MB from this site)`;
    const status = document.createElement("p");
    status.className = "network-status";
    status.setAttribute("role", "status");
    element.querySelector(".network-summary").after(button, status);

    async function begin() {
      if (element.dataset.state) return;
      element.dataset.state = "loading";
      element.dataset.startedAt = performance.now();
      button.setAttribute("aria-disabled", "true"); // a button that is disabled would lose the focus of a keyboard
      status.textContent = `Loading the network and its runtime (${settings.megabytes} MB) …`;
      try {
        await start(element, settings);
        element.dataset.state = "ready";
        element.dataset.readyAt = performance.now();
        takeNumber(element);
        if (document.activeElement === button) element.querySelector(".network-stage")?.focus({ preventScroll: true });
        button.remove();
        status.remove();
      } catch (error) {
        element.querySelector(".network-app")?.remove();
        element.dataset.state = "failed";
        button.remove();
        status.textContent = `The network cannot run in this browser: ${error.message}. The figure below shows what it does.`;
      }
    }

    button.addEventListener("click", begin);
    // Readers who save data, and pages that say so, start it themselves.
    if (settings.onTouch || navigator.connection?.saveData) return;
    const observer = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      observer.disconnect();
      begin();
    }, { threshold: 0.2 });
    observer.observe(element);
  }

  window.segeduNetworks = {
    receive: (name, contents) => received.set(name, contents),
    register: (name, start) => demonstrations.set(name, start),
    data, network,
  };
  document.addEventListener("DOMContentLoaded", () => document.querySelectorAll(".network").forEach(mount));
})();
