/* Puts live explorers into pages. Each lies in _static/explorers/NAME.js as a text, because on file:// a page may load a
   classic script but not a module; it is loaded when the reader comes near. The still pictures are folded below. */
(() => {
  const { whenNear, figureAfter, fold } = window.segeduStills;
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
      const figure = figureAfter(slot);
      if (figure) fold(figure);
      window.segeduExplorers.shown.set(name, { state, explorer });
    } catch (error) {
      // the still pictures stay; the reader learns why nothing moves
      slot.textContent = `The live explorer could not be started (${error.message}). The still pictures below show some of its states.`;
    }
  }

  whenNear(".live-explorer", show);
})();
