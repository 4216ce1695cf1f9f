"""Explorers that run in the browser: one ES module each, shown by `host.js` on the site and in notebooks."""
