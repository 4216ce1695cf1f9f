/* The order of search results: a page whose title is the query, then titles that contain it, then the rest. Sphinx puts
   this file at the beginning of the search page's own script. */
const plainTitle = (title) => title.toLowerCase().replace(/^[a-z]?\d+(\.\d+)*\s+/, "").replace(/-/g, "").trim();

var Scorer = {
  /* A result is [page, title, anchor, description, score, file, kind]; a section's title is "Page > Section". */
  score: ([page, title, , , score]) => {
    const query = plainTitle(new URLSearchParams(location.search).get("q") ?? "");
    const parts = title.split(" > ").map(plainTitle);
    const own = parts.at(-1);
    let bonus = 0;
    if (query && own === query) bonus = parts.length === 1 ? 1000 : 600;
    else if (query && own.startsWith(query)) bonus = parts.length === 1 ? 800 : 400;
    else if (query && own.includes(query)) bonus = parts.length === 1 ? 700 : 300;
    /* Chapters before labs, and both before the pages on which one looks things up. */
    const first = /^course\/(\d\d-|background\/)/.test(page) ? 100 : page.startsWith("labs/") ? 50 : 0;
    return score + bonus + first;
  },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};

/* A compound in a query is one word, because all words of a query have to be on a page; see segedu_site/search.py. */
var splitQuery = (query) =>
  query
    .replace(/([\p{L}\p{N}])-(?=[\p{L}\p{N}])/gu, "$1")
    .split(/[^\p{L}\p{N}_]+/gu)
    .filter((word) => word);

/* Excerpts quote the text of the article, without code and without the words of the theme's buttons and menus. */
document.addEventListener("DOMContentLoaded", () => {
  if (typeof Search === "undefined") return;
  Search.htmlToText = (html, anchor) => {
    const page = new DOMParser().parseFromString(html, "text/html");
    const article = page.querySelector("article") ?? page.body;
    const selection = ".headerlink, script, style, pre, details, nav, .lab-buttons, .page-progress, .chapter-map";
    article.querySelectorAll(selection).forEach((part) => part.remove());
    const section = anchor ? article.querySelector(anchor) : null;
    return (section ?? article).textContent;
  };
});
