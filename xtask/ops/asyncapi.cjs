// Parses the AsyncAPI document that is named; a diagnostic of any severity but a hint ends with 1.
const { Parser } = require("@asyncapi/parser");
const { readFileSync } = require("node:fs");

new Parser().parse(readFileSync(process.argv[2], "utf8")).then(({ document, diagnostics }) => {
  const severities = ["error", "warning", "information", "hint"];
  const found = diagnostics.filter((one) => severities[one.severity] !== "hint" && !/asyncapi-latest-version/.test(one.code));
  for (const one of found) {
    console.log(`${severities[one.severity]} ${one.path.join(".")}: ${one.message}`);
  }
  process.exitCode = document && found.length === 0 ? 0 : 1;
});
