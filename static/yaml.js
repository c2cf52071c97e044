/** Values as YAML that people go on editing: block style, long texts as they were written. */

const PLAIN = /^[A-Za-z_/][\w ./@+=,-]*$/;
const WORDS = /^(true|false|null|yes|no|on|off|y|n)$/i;

export function toYaml(found) {
  return `${lines(found, "").join("\n")}\n`;
}

function lines(found, indent) {
  if (Array.isArray(found)) return found.flatMap((each) => item(each, indent));
  return Object.entries(found).flatMap(([key, each]) => entry(key, each, indent));
}

function entry(key, found, indent) {
  const name = `${indent}${scalar(key, "")}:`;
  if (isBlock(found)) return [name, ...lines(found, `${indent}  `)];
  return `${name} ${scalar(found, indent)}`.split("\n");
}

function item(found, indent) {
  if (!isBlock(found)) return `${indent}- ${scalar(found, indent)}`.split("\n");
  const [first, ...rest] = lines(found, `${indent}  `);
  return [`${indent}- ${first.slice(indent.length + 2)}`, ...rest];
}

function isBlock(found) {
  return typeof found === "object" && found !== null && Object.keys(found).length > 0;
}

function scalar(found, indent) {
  if (typeof found !== "string") return JSON.stringify(found);
  const isText = found.includes("\n") && !/[^\S\n]\n|\r|^\s|[\x00-\x08\x0b-\x1f]/.test(found);
  if (isText) return literal(found, `${indent}  `);
  return PLAIN.test(found) && !WORDS.test(found) && !/\s$/.test(found) ? found : JSON.stringify(found);
}

/** A text of several lines; the mark says what follows its end. */
function literal(text, indent) {
  const end = /\n*$/.exec(text)[0].length;
  const mark = { 0: "|-", 1: "|" }[end] ?? "|+";
  const shown = end === 0 ? text : text.slice(0, -1);
  return `${mark}\n${shown
    .split("\n")
    .map((line) => (line ? indent + line : ""))
    .join("\n")}`;
}
