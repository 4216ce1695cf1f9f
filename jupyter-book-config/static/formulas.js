/* Copied formulas are TeX: a formula is drawn, so a selection would otherwise hold nothing in its place. */
document.addEventListener("copy", (event) => {
  const selection = document.getSelection();
  if (!event.clipboardData || selection.isCollapsed) return;
  const range = selection.getRangeAt(0);
  const around = (node) => (node.nodeType === Node.ELEMENT_NODE ? node : node.parentElement).closest("mjx-container");
  const [first, last] = [around(range.startContainer), around(range.endContainer)];
  if (first) range.setStartBefore(first); /* a part of a formula has no TeX, so the whole formula is copied */
  if (last) range.setEndAfter(last);
  const copied = range.cloneContents();
  const formulas = copied.querySelectorAll("mjx-container[data-tex]");
  if (!formulas.length) return;
  formulas.forEach((formula) => {
    const mark = formula.hasAttribute("display") ? "$$" : "$";
    formula.replaceWith(`${mark}${formula.dataset.tex}${mark}`);
  });
  const holder = document.createElement("div");
  holder.append(copied);
  event.clipboardData.setData("text/plain", holder.textContent);
  event.clipboardData.setData("text/html", holder.innerHTML);
  event.preventDefault();
});
