/* On paper nothing can be unfolded. Answers are unfolded before printing, and late pictures are loaded. */
(() => {
  let folded = [];
  addEventListener("beforeprint", () => {
    document.querySelectorAll("img[loading=lazy]").forEach((img) => (img.loading = "eager"));
    folded = [...document.querySelectorAll(".bd-article details:not([open]):not(.hide)")];
    folded.forEach((details) => (details.open = true));
  });
  addEventListener("afterprint", () => {
    folded.forEach((details) => (details.open = false));
    folded = [];
  });
})();
