/* Long docstrings in quoted code of the library are folded to their first line, and a button unfolds them.
   Without JavaScript, on paper and in copied code they are whole. */
document.addEventListener("DOMContentLoaded", () => {
  const SHORT = 3; /* lines that stay as they are */

  /* Spans of one docstring, which Pygments writes one per line. */
  const docstrings = (pre) => {
    const groups = [];
    let last = null;
    pre.querySelectorAll(".sd").forEach((span) => {
      const between = last && document.createRange();
      if (between) {
        between.setStartAfter(last);
        between.setEndBefore(span);
      }
      if (between && between.toString().trim() === "") groups.at(-1).push(span);
      else groups.push([span]);
      last = span;
    });
    return groups;
  };

  const fold = ([first, ...others]) => {
    if (others.length < SHORT || others.some((span) => span.parentNode !== first.parentNode)) return;
    const rest = document.createElement("span");
    rest.className = "docstring-rest";
    rest.hidden = true;
    const range = document.createRange();
    range.setStartAfter(first);
    range.setEndAfter(others.at(-1));
    rest.append(range.extractContents());
    const button = document.createElement("button");
    button.type = "button";
    button.className = "unfold";
    button.textContent = `\u2026 ${others.length} more lines`;
    button.addEventListener("click", () => {
      rest.hidden = false;
      button.remove();
    });
    first.after(button, rest);
  };

  document.querySelectorAll(".quoted-from").forEach((source) => {
    const block = source.previousElementSibling;
    block?.querySelectorAll("pre").forEach((pre) => docstrings(pre).forEach(fold));
  });
  document.addEventListener(
    "click",
    (event) => {
      if (!event.target.closest(".copybtn")) return;
      const block = event.target.closest(".highlight");
      block?.querySelectorAll(".unfold").forEach((button) => button.click());
    },
    true,
  );
});
