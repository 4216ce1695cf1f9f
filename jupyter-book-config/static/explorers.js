/* Puts live explorers into pages. Each lies in _static/explorers/NAME.js as a text, because on file:// a page may load a
   classic script but not a module; it is loaded when the reader comes near. The still pictures are folded below. */
(() => {
  const texts = new Map();
  window.segeduExplorers = { add: (name, text) => texts.set(name, text), shown: new Map() };

  const root = document.documentElement.dataset.content_root || "";
  const load = (name) =>
    new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = `${root}_static/explorers/${name}.js`;
      script.onload = () => resolve(import(URL.createObjectURL(new Blob([texts.get(name)], { type: "text/javascript" }))));
      script.onerror = () => reject(new Error(`_static/explorers/${name}.js could not be loaded`));
      document.head.append(script);
    });

  let host;
  async function show(slot) {
    const name = slot.dataset.explorer;
    try {
      host = host || load("host");
      const [{ mount }, explorer] = await Promise.all([host, load(name)]);
      const place = document.createElement("div");
      slot.replaceChildren(place);
      const state = mount(place, explorer, JSON.parse(slot.dataset.start || "{}"));
      fold(slot.nextElementSibling);
      window.segeduExplorers.shown.set(name, { state, explorer });
    } catch (error) {
      // the still pictures stay; the reader learns why nothing moves
      slot.textContent = `The live explorer could not be started (${error.message}). The still pictures below show some of its states.`;
    }
  }

  // Fold what the figure shows without JavaScript; its caption and number stay visible.
  function fold(cell) {
    const figure = cell && cell.querySelector("figure");
    if (!figure) return;
    const details = document.createElement("details");
    details.className = "explorer-stills";
    details.append(Object.assign(document.createElement("summary"), { textContent: "Still pictures of some states" }));
    const caption = figure.querySelector("figcaption");
    details.append(...[...figure.childNodes].filter((child) => child !== caption));
    figure.prepend(details);
  }

  document.addEventListener("DOMContentLoaded", () => {
    const observer = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        observer.unobserve(entry.target);
        show(entry.target);
      }
    }, { rootMargin: "600px" });
    document.querySelectorAll(".live-explorer").forEach((slot) => observer.observe(slot));
    window.addEventListener("beforeprint", () => document.querySelectorAll(".explorer-stills").forEach((each) => { each.open = true; }));
  });
})();
