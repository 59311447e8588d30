// Runs code in Pyodide, as the side of a comparison; see nativedriver.py.
//
// node pyodidedriver.mjs FOLDER [fresh | keep | SNAPSHOT]; with `keep`, {"save": path} writes a
// snapshot of Pyodide's memory (an option that it does not document), from which SNAPSHOT goes on.
import { createRequire } from "node:module";
import { readFileSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [folder, how = "fresh"] = process.argv.slice(2);
const found = createRequire(`${folder}/`).resolve("pyodide/pyodide.mjs");
const { loadPyodide } = await import(pathToFileURL(found));
const options = {};
if (how === "keep") options._makeSnapshot = true;
else if (how !== "fresh") options._loadSnapshot = readFileSync(how);
const pyodide = await loadPyodide(options);
let text = "";
pyodide.setStderr({ batched: () => {} });
pyodide.setStdout({ batched: (line) => (text += line + "\n") });

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  text = "";
  let answer;
  try {
    if (asked.packages) {
      const silent = { messageCallback: () => {}, errorCallback: () => {} };
      const had = await pyodide.loadPackage(asked.packages, silent);
      if (had.length === 0) throw new Error(`${asked.packages} cannot be loaded`);
      answer = { text: "" };
    } else if (asked.save) {
      writeFileSync(asked.save, pyodide.makeMemorySnapshot());
      answer = { text: "" };
    } else {
      pyodide.runPython(asked.code);
      answer = { text };
    }
  } catch (error) {
    answer = { error: String(error).slice(-500) };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
