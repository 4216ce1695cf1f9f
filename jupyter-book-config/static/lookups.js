/* Tables of the class "look-up": one filter per page above the first of them, and sorting by any column. */
document.addEventListener("DOMContentLoaded", () => {
  const tables = [...document.querySelectorAll("article table.look-up")];
  if (!tables.length) return;
  const rowsOf = (table) => [...table.tBodies].flatMap((body) => [...body.rows]);

  /* Numbers are sorted as numbers, with the thousands commas and the text after them ignored. */
  const value = (row, column) => (row.cells[column]?.textContent ?? "").trim();
  const number = (text) => (/^[-\d]/.test(text) ? parseFloat(text.replace(/,/g, "")) : NaN);
  const compare = (a, b) => {
    const [x, y] = [number(a), number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en", { numeric: true }) : x - y;
  };

  const sort = (table, column) => {
    const heads = [...table.tHead.rows[0].cells];
    const descending = heads[column].getAttribute("aria-sort") === "ascending";
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
    const body = table.tBodies[0];
    const sign = descending ? -1 : 1;
    const rows = [...body.rows].sort((a, b) => sign * compare(value(a, column), value(b, column)));
    body.append(...rows);
  };

  tables.forEach((table) => {
    [...(table.tHead?.rows[0]?.cells ?? [])].forEach((head, column) => {
      const label = head.textContent.trim();
      if (!label) return;
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: label });
      button.title = `Sort by ${label}`;
      button.addEventListener("click", () => sort(table, column));
      head.replaceChildren(button);
    });
  });

  const tools = document.createElement("div");
  tools.className = "look-up-tools";
  const input = Object.assign(document.createElement("input"), { type: "search", id: "look-up-filter" });
  input.placeholder = "a word, or several";
  input.autocomplete = "off";
  const label = Object.assign(document.createElement("label"), { htmlFor: input.id, textContent: "Filter the rows:" });
  const count = document.createElement("output");
  count.setAttribute("aria-live", "polite");
  tools.append(label, input, count);

  /* A row stays if it contains every word of the filter. "U-Net" and "unet" are the same word. */
  const plain = (text) => text.toLowerCase().replace(/-/g, "");
  const filter = () => {
    const words = plain(input.value).split(/\s+/).filter(Boolean);
    let shown = 0, all = 0;
    tables.forEach((table) => {
      let here = 0;
      rowsOf(table).forEach((row) => {
        const text = plain(row.textContent);
        row.hidden = !words.every((word) => text.includes(word));
        here += !row.hidden;
        all += 1;
      });
      shown += here;
      table.hidden = here === 0 && words.length > 0;
    });
    count.textContent = words.length ? `${shown} of ${all} rows` : `${all} rows`;
  };
  input.addEventListener("input", filter);
  const first = tables[0].closest(".pst-scrollable-table-container") ?? tables[0];
  first.before(tools);
  filter();

  /* A link to a row that the filter hides shows it again. */
  window.addEventListener("hashchange", () => {
    if (document.getElementById(decodeURIComponent(location.hash.slice(1)))?.closest("tr")?.hidden) {
      input.value = "";
      filter();
    }
  });
});
