/* What live explorers of both kinds (explorers.js, states.js) share: they start when a reader comes near, and fold the
   still pictures of the figure below them. */
window.segeduStills = {
  // Call `show` for each element that fits the selector, once, when it comes near the window.
  whenNear(selector, show) {
    document.addEventListener("DOMContentLoaded", () => {
      const observer = new IntersectionObserver((entries) => {
        for (const entry of entries) {
          if (!entry.isIntersecting) continue;
          observer.unobserve(entry.target);
          show(entry.target);
        }
      }, { rootMargin: "600px" });
      document.querySelectorAll(selector).forEach((element) => observer.observe(element));
    });
  },

  // The figure of the code cell after an explorer; none where the page has no still pictures.
  figureAfter: (slot) => slot.nextElementSibling && slot.nextElementSibling.querySelector("figure"),

  // Fold what a figure shows without JavaScript; its caption and number stay visible.
  fold(figure) {
    const details = document.createElement("details");
    details.className = "explorer-stills";
    details.append(Object.assign(document.createElement("summary"), { textContent: "Still pictures of some states" }));
    const caption = figure.querySelector("figcaption");
    details.append(...[...figure.childNodes].filter((child) => child !== caption));
    figure.prepend(details);
  },
};
window.addEventListener("beforeprint", () => document.querySelectorAll(".explorer-stills").forEach((each) => { each.open = true; }));
