/* Figures and other wide content: frames that scroll can be reached by keyboard, and figures can be enlarged. */
(() => {
  const SCROLLING =
    ".figure-frame, .bd-article mjx-container[display], .bd-article div.math, .bd-article pre, " +
    ".bd-article .pst-scrollable-table-container, .bd-article .cell_output .output";

  /* What a reader may not notice to be cut. Lines of code are expected to go on. */
  const HINTS = {
    ".figure-frame": "the whole figure",
    ".pst-scrollable-table-container": "all columns",
    "div.math, mjx-container": "the whole formula",
    ".cell_output :is(pre, .output)": "whole lines",
  };

  const hints = new WeakMap(); /* frame -> its hint */

  /* A formula that is a little too wide for its line is set smaller, down to 80 %. A wider one scrolls. */
  const SMALLEST = 0.8;
  const fitted = new WeakMap(); /* formula -> the width of the line that its size was chosen for */
  const fit = (formula) => {
    fitted.set(formula, formula.clientWidth);
    formula.style.fontSize = "";
    let size = 1;
    while (formula.scrollWidth > formula.clientWidth) { /* again, because the width changes in steps of the font's ex */
      size *= Math.min(formula.clientWidth / formula.scrollWidth, 0.99);
      if (size < SMALLEST) {
        formula.style.fontSize = "";
        return;
      }
      formula.style.fontSize = `${Math.floor(size * 1000) / 10}%`;
    }
  };

  /* Content that is wider than its frame scrolls in it. Only then can a keyboard reach the frame. */
  const update = (frame) => {
    const scrolls = frame.scrollWidth > frame.clientWidth + 1 || frame.scrollHeight > frame.clientHeight + 8;
    if (scrolls === frame.classList.contains("scrolls")) return;
    frame.classList.toggle("scrolls", scrolls);
    const what = Object.keys(HINTS).find((selector) => frame.matches(selector));
    if (scrolls) {
      frame.tabIndex = 0;
      if (!what || frame.scrollWidth <= frame.clientWidth + 1) return;
      const hint = document.createElement("p");
      hint.className = "figure-hint";
      hint.textContent = `\u2194 Scroll sideways to see ${HINTS[what]}.`;
      if (frame.querySelector("table")) frame.before(hint); /* a table may be longer than the screen */
      else (frame.closest("div.math") ?? frame).after(hint);
      hints.set(frame, hint);
      if (what !== ".figure-frame") return;
      frame.setAttribute("role", "group");
      frame.setAttribute("aria-label", "Figure that scrolls sideways");
    } else {
      hints.get(frame)?.remove();
      ["tabindex", "role", "aria-label"].forEach((name) => frame.removeAttribute(name));
    }
  };

  /* One dialog for all figures. It shows the picture itself where the page shows a lighter copy. */
  let dialog = null;
  const makeDialog = () => {
    dialog = document.createElement("dialog");
    dialog.className = "figure-dialog";
    dialog.innerHTML =
      '<form method="dialog"><button type="submit">Close</button></form>' +
      '<div class="figure-dialog-frame" tabindex="0"><img></div><p class="figure-dialog-caption"></p>';
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close(); /* a click beside the content */
    });
    document.body.append(dialog);
  };

  const enlarge = (img, label) => {
    if (!dialog) makeDialog();
    const large = dialog.querySelector("img");
    const full = img.closest("[data-full]");
    large.className = img.className;
    large.alt = img.alt;
    large.src = full ? full.dataset.full : img.src;
    const width = Number(img.getAttribute("width")) || img.naturalWidth;
    large.style.setProperty("--full-width", `${width}px`);
    const caption = img.closest("figure")?.querySelector("figcaption .caption-text");
    dialog.querySelector("p").textContent = caption ? caption.textContent.trim() : "";
    dialog.setAttribute("aria-label", label);
    dialog.querySelector("div").setAttribute("aria-label", `${label}, enlarged`);
    dialog.showModal();
  };

  /* A button beside each picture of a figure; a click on the picture does the same. */
  const addButton = (img) => {
    const number = img.closest("figure").querySelector(".caption-number")?.textContent.trim() || "figure";
    const button = document.createElement("button");
    button.type = "button";
    button.className = "enlarge";
    button.textContent = `Enlarge ${number}`;
    button.addEventListener("click", () => enlarge(img, number));
    img.addEventListener("click", () => enlarge(img, number));
    img.classList.add("can-be-enlarged");
    const frame = img.closest(".figure-frame") || img;
    const place = document.createElement("div");
    place.className = "enlarge-place";
    frame.before(place);
    place.append(button);
  };

  document.addEventListener("DOMContentLoaded", () => {
    const observer = new ResizeObserver((entries) =>
      entries.forEach(({ target }) => {
        if (!target.matches("mjx-container") || fitted.get(target) === target.clientWidth) return update(target);
        requestAnimationFrame(() => { /* a change of size within the observer's own call is an error */
          fit(target);
          update(target);
        });
      })
    );
    document.querySelectorAll(SCROLLING).forEach((frame) => {
      observer.observe(frame);
      frame.querySelectorAll("img").forEach((img) => img.addEventListener("load", () => update(frame)));
    });
    document.querySelectorAll(".bd-article figure img").forEach((img) => {
      if (!img.closest("a")) addButton(img);
    });
  });
})();
