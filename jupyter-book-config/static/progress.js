/* Which pages a reader has marked as read. The marks stay in this browser (localStorage), also for pages that were
   opened from a disk. Nothing is sent anywhere. Without JavaScript or storage, the pages show no marks. */
(() => {
  const KEY = "segedu.read";
  const read = () => {
    try {
      return new Set(JSON.parse(localStorage.getItem(KEY) ?? "[]"));
    } catch {
      return new Set(); // storage is switched off, or holds something else
    }
  };
  const write = (names) => {
    try {
      localStorage.setItem(KEY, JSON.stringify([...names].sort()));
    } catch {
      /* A private window without storage: the marks last until the page is left. */
    }
  };

  /* The name of the page at an address, such as "course/06-unet/sizes"; null outside of this site. */
  const root = new URL(document.documentElement.dataset.content_root ?? "./", location.href);
  const nameOf = (address) => {
    const url = new URL(address, location.href);
    const path = decodeURI(url.pathname), start = decodeURI(root.pathname);
    return url.protocol === root.protocol && path.startsWith(start) ? path.slice(start.length).replace(/\.html$/, "") : null;
  };
  const here = nameOf(location.href) ?? "";
  const isChapterPage = /^course\/\d\d-[^/]+\/(?!index$)/.test(here);

  const element = (tag, text, className = "") => Object.assign(document.createElement(tag), { textContent: text, className });

  /* The button at the end of a chapter's page. */
  const addButton = () => {
    const article = document.querySelector("article.bd-article");
    if (!isChapterPage || !article) return;
    const box = element("div", "", "page-progress");
    const button = element("button", "", "progress-button");
    button.type = "button";
    const show = () => {
      const done = read().has(here);
      button.textContent = done ? "Mark as unread" : "Mark this page as read";
      state.textContent = done ? "\u2713 You have marked this page as read." : "Finished? Your browser remembers your place.";
      button.setAttribute("aria-pressed", String(done));
    };
    const state = element("p", "");
    button.addEventListener("click", () => {
      const names = read();
      if (!names.delete(here)) names.add(here);
      write(names);
      show();
    });
    show();
    box.append(button, state);
    article.append(box);
  };

  /* A tick before each link of a chapter's list of pages that leads to a page that was read. */
  const addTicks = () => {
    const names = read();
    document.querySelectorAll(".read-mark").forEach((mark) => mark.remove());
    document.querySelectorAll("#pages li > p > a, #pages li > a").forEach((link) => {
      if (!names.has(nameOf(link.href))) return;
      const mark = element("span", "\u2713 ", "read-mark");
      mark.setAttribute("aria-label", "read:");
      mark.setAttribute("role", "img");
      link.before(mark);
    });
  };

  const addBars = () => {
    const names = read();
    document.querySelectorAll(".chapter-progress").forEach((slot) => {
      const pages = slot.dataset.pages.split(" ").filter(Boolean);
      const done = pages.filter((name) => names.has(name)).length;
      slot.hidden = done === 0;
      const bar = Object.assign(document.createElement("progress"), { max: pages.length, value: done });
      const words = `${done} of ${pages.length} pages read`;
      bar.setAttribute("aria-label", words);
      slot.replaceChildren(bar, element("span", words));
    });
    document.querySelectorAll(".chapter-map a.chapter-node").forEach((node) => {
      const slot = document.querySelector(`.chapter-progress[data-pages*="course/${node.dataset.chapter}/"]`);
      const pages = slot?.dataset.pages.split(" ") ?? [];
      node.classList.toggle("read", pages.length > 0 && pages.every((name) => names.has(name)));
    });
  };

  /* What the home page says about all chapters, with the next page and a way to begin again. */
  const addSummary = () => {
    const box = document.querySelector(".my-progress");
    if (!box) return;
    const slots = [...document.querySelectorAll(".chapter-progress")];
    const pages = slots.flatMap((slot) => slot.dataset.pages.split(" ").filter(Boolean));
    const names = read();
    const done = pages.filter((name) => names.has(name)).length;
    box.hidden = done === 0;
    const next = pages.find((name) => !names.has(name));
    const reset = element("button", "Forget my progress", "progress-button");
    reset.type = "button";
    reset.addEventListener("click", () => {
      if (!confirm("Forget which pages you have read and your quiz answers, in this browser?")) return;
      Object.keys(localStorage).filter((key) => key.startsWith("segedu.")).forEach((key) => localStorage.removeItem(key));
      update();
    });
    const text = element("p", `You have read ${done} of ${pages.length} pages. `);
    if (next) {
      const link = element("a", "Continue with the next unread page");
      link.href = new URL(`${next}.html`, root).href;
      text.append(link);
    }
    box.replaceChildren(text, reset);
  };

  const update = () => {
    addTicks();
    addBars();
    addSummary();
  };
  document.addEventListener("DOMContentLoaded", () => {
    addButton();
    update();
    /* The back button shows a page as it was left: bring its marks up to date. */
    window.addEventListener("pageshow", (event) => event.persisted && update());
  });
})();
