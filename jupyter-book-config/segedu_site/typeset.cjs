/* Typesets formulas with MathJax for maths.py, which starts this script once per build.

   Argument: the folder of the npm package `mathjax`, version 3. Each line of the input is a request in JSON:
   {"tex": "x^2", "display": false}. Each line of the output is its answer: {"html": ..., "glyphs": {id: path}}.
   The SVG of a formula refers to its glyphs by id, so a page needs each glyph only once. */
const path = require("node:path");
const readline = require("node:readline");

const es5 = path.join(path.resolve(process.argv[2]), "es5");
const REFERENCE = /xlink:href="#([^"]+)"/g;

async function main() {
  const MathJax = await require(path.join(es5, "node-main.js")).init({
    loader: {
      load: ["input/tex", "output/svg", "adaptors/liteDOM", "a11y/assistive-mml"],
      paths: { mathjax: es5 },
      versionWarnings: false,
    },
    tex: { packages: { "[-]": ["noundefined"] } }, // an unknown macro is an error, and not red text
    svg: { fontCache: "global" },
  });
  const adaptor = MathJax.startup.adaptor;
  const known = {};
  const glyph = (id) => {
    if (!(id in known)) {
      const defs = MathJax.startup.output.fontCache.getCache();
      adaptor.childNodes(defs).forEach((node) => {
        known[adaptor.getAttribute(node, "id")] = adaptor.getAttribute(node, "d");
      });
    }
    return known[id];
  };
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { tex, display } = JSON.parse(line);
    const html = adaptor.outerHTML(await MathJax.tex2svgPromise(tex, { display }));
    const ids = [...html.matchAll(REFERENCE)].map((found) => found[1]);
    const glyphs = Object.fromEntries(ids.map((id) => [id, glyph(id)]));
    process.stdout.write(`${JSON.stringify({ html, glyphs })}\n`);
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
