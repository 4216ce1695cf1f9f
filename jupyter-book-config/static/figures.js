/* A figure that is wider than the screen scrolls in its frame: keyboards can reach the frame, and a line says so. */
document.addEventListener("DOMContentLoaded", () => {
  const update = (frame) => {
    const scrolls = frame.scrollWidth > frame.clientWidth + 1;
    if (scrolls === frame.hasAttribute("tabindex")) return;
    if (scrolls) {
      const hint = document.createElement("p");
      hint.className = "figure-hint";
      hint.textContent = "\u2194 Scroll sideways to see the whole figure.";
      frame.after(hint);
      frame.tabIndex = 0;
      frame.setAttribute("role", "region");
      frame.setAttribute("aria-label", "Figure that scrolls sideways");
    } else {
      frame.nextElementSibling.remove();
      ["tabindex", "role", "aria-label"].forEach((name) => frame.removeAttribute(name));
    }
  };
  const observer = new ResizeObserver((entries) => entries.forEach((entry) => update(entry.target)));
  document.querySelectorAll(".figure-frame").forEach((frame) => {
    observer.observe(frame);
    frame.querySelectorAll("img").forEach((img) => img.addEventListener("load", () => update(frame)));
  });
});
