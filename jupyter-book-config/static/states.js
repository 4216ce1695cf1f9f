/* One picture with controls, in place of several: the pictures were computed while the book was built, one per state.
   Each has a caption of its values ("query = 10, layer = 2"), from which the controls are made. */
(() => {
  const { whenNear, figureAfter, fold } = window.segeduStills;

  // "query = 10, layer = 2" -> { query: "10", layer: "2" }
  const values_of = (caption) => Object.fromEntries(caption.split(/, (?=[^,=]+ = )/).map((part) => part.split(" = ")));

  // Pictures and captions in the figure, then those of the template: [{picture, values}]
  function collect(figure, template) {
    const states = [];
    for (const child of [...figure.children, ...template.content.children]) {
      const picture = child.matches("img") ? child : child.querySelector("img");
      if (picture) states.push({ element: child, picture, values: null });
      else if (child.matches("p") && child.querySelector("em") && states.length && !states.at(-1).values) {
        Object.assign(states.at(-1), { values: values_of(child.textContent.trim()), caption: child });
      }
    }
    return states.filter((state) => state.values);
  }

  function make(tag, parent, properties) {
    const element = Object.assign(document.createElement(tag), properties);
    parent.append(element);
    return element;
  }

  let count = 0;
  function add_control(form, name, options, chosen, changed) {
    const row = make("div", form, { className: "ex-control" });
    const id = `states-${++count}`;
    make("label", row, { htmlFor: id, textContent: name });
    if (options.every((option) => Number.isFinite(Number(option)))) {
      const slider = make("input", row, { id, type: "range", min: 0, max: options.length - 1, step: 1, value: options.indexOf(chosen) });
      const output = make("output", row, { htmlFor: id, textContent: chosen });
      const show = (option) => { slider.value = options.indexOf(option); output.textContent = option; slider.setAttribute("aria-valuetext", option); };
      slider.addEventListener("input", () => changed(options[slider.value]));
      show(chosen);
      return show;
    }
    const select = make("select", row, { id });
    options.forEach((option) => make("option", select, { value: option, textContent: option }));
    select.addEventListener("change", () => changed(select.value));
    select.value = chosen;
    return (option) => { select.value = option; };
  }

  function show_states(slot) {
    const figure = figureAfter(slot);
    const template = slot.querySelector("template");
    if (!figure || !template) return;
    const states = collect(figure, template);
    const names = Object.keys(states[0].values).filter((name) => new Set(states.map((state) => state.values[name])).size > 1);
    if (!names.length) return;
    const options = (name) => [...new Set(states.map((state) => state.values[name]))].sort((a, b) => a - b || 0);

    const place = make("div", slot, { className: "ex ex-states" });
    const form = make("div", place, { className: "ex-controls", role: "group", ariaLabel: "Controls of the explorer" });
    const frame = make("div", place, { className: "ex-state", tabIndex: 0, role: "group", ariaLabel: "Picture, scrolls where it is wide" });
    // On a telephone the picture scrolls, so that its text can be read; a button shrinks it to the screen (segedu.css).
    const hint = make("p", place, { className: "figure-hint", textContent: "\u2194 Scroll sideways to see the whole picture.", hidden: true });
    const whole = make("button", place, { className: "ex-reset ex-whole", type: "button", textContent: "Show the whole picture" });
    whole.addEventListener("click", () => {
      whole.textContent = frame.classList.toggle("whole") ? "Show the picture at a legible size" : "Show the whole picture";
    });
    new ResizeObserver(() => { hint.hidden = frame.scrollWidth <= frame.clientWidth + 1; }).observe(frame);
    const sentence = make("p", place, { className: "ex-sentence", ariaLive: "polite" });
    let current = states[0];
    const show = {};

    // The state with the new value that has most other values in common with the current one.
    const nearest = (name, option) => {
      const common = (state) => names.filter((each) => each !== name && state.values[each] === current.values[each]).length;
      return states.filter((state) => state.values[name] === option).reduce((best, state) => (common(state) > common(best) ? state : best));
    };
    const update = (state) => {
      current = state;
      frame.replaceChildren(Object.assign(new Image(), { src: state.picture.src, alt: state.picture.alt }));
      const width = Number(state.picture.getAttribute("width"));
      if (width) frame.style.setProperty("--full-width", `${width}px`);
      sentence.textContent = state.picture.alt;
      names.forEach((name) => show[name](state.values[name]));
      // the states that one step of a control leads to are loaded in advance
      for (const name of names) {
        const all = options(name), at = all.indexOf(state.values[name]);
        for (const next of [all[at - 1], all[at + 1]]) if (next !== undefined) new Image().src = nearest(name, next).picture.src;
      }
    };
    for (const name of names) show[name] = add_control(form, name, options(name), current.values[name], (option) => update(nearest(name, option)));
    update(current);

    fold(figure);
  }

  whenNear(".live-states", show_states);
})();
