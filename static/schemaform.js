/**
 * A form out of a JSON Schema of arguments: a control per property, or JSON where the schema says too little.
 *
 * schemaForm(schema) -> { node, read() }; read() gives the arguments, without what was left as it is, or throws.
 */

import { check, field, h, select } from "./dom.js";

export function schemaForm(schema) {
  const properties = Object.entries(schema?.properties ?? {});
  if (!properties.length) return jsonForm(schema);
  const needed = new Set(schema.required ?? []);
  const controls = properties.map(([name, each]) => [name, controlOf(name, each, needed.has(name))]);
  return {
    node: h(
      "div",
      { class: "form" },
      controls.map(([, control]) => control.node),
    ),
    read() {
      const given = {};
      for (const [name, control] of controls) {
        const found = control.read();
        if (found !== undefined) given[name] = found;
      }
      return given;
    },
  };
}

/** Anything: most often nothing. */
function jsonForm(schema) {
  if (schema === null || schema === undefined || schema.type === "null") {
    return { node: h("p", {}, h("small", {}, "It takes no arguments.")), read: () => null };
  }
  const area = h("textarea", { class: "code", rows: 5, spellcheck: "false", value: "{}" });
  return { node: h("div", { class: "form" }, field("Arguments as JSON", area)), read: () => parsed("Arguments", area.value) };
}

function controlOf(name, schema, isNeeded) {
  const hint = [
    schema.description,
    schema.default === undefined || schema.default === null ? "" : `default: ${JSON.stringify(schema.default)}`,
  ]
    .filter(Boolean)
    .join(" · ");
  const label = isNeeded ? `${name} (needed)` : name;
  const types = [schema.type ?? []].flat();
  if (schema.enum) return choice(label, hint, schema, isNeeded);
  if (types.includes("boolean")) return flag(name, hint, schema);
  if (types.includes("integer") || types.includes("number")) return number(label, hint, schema, isNeeded, types);
  if (types.includes("string")) return text(label, hint, schema, isNeeded, types);
  return json(label, hint, schema, isNeeded);
}

function choice(label, hint, schema, isNeeded) {
  const options = schema.enum.map((each) => [JSON.stringify(each), String(each)]);
  const control = select(isNeeded ? options : [["", "–"], ...options], schema.default === undefined ? "" : JSON.stringify(schema.default));
  return { node: field(label, control, hint), read: () => (control.value ? JSON.parse(control.value) : undefined) };
}

function flag(name, hint, schema) {
  const made = check(name, { checked: schema.default === true });
  return {
    node: h("div", { class: "field" }, made.node, hint ? h("small", {}, hint) : null),
    read: () => (made.box.checked === (schema.default === true) ? undefined : made.box.checked),
  };
}

function number(label, hint, schema, isNeeded, types) {
  const control = h("input", {
    type: "number",
    min: schema.minimum,
    max: schema.maximum,
    step: types.includes("number") ? "any" : 1,
    required: isNeeded,
    value: schema.default ?? "",
  });
  return {
    node: field(label, control, hint),
    read: () => (control.value === "" || control.value === String(schema.default) ? undefined : Number(control.value)),
  };
}

function text(label, hint, schema, isNeeded, types) {
  const control = h("input", { required: isNeeded, minlength: schema.minLength, maxlength: schema.maxLength, value: schema.default ?? "" });
  const isLeft = () => control.value === (schema.default ?? "") && !(isNeeded && !types.includes("null"));
  return { node: field(label, control, hint), read: () => (isLeft() ? undefined : control.value) };
}

function json(label, hint, schema, isNeeded) {
  const start = schema.default === undefined ? "" : JSON.stringify(schema.default);
  const control = h("input", { class: "mono", required: isNeeded, value: start });
  return {
    node: field(label, control, `${hint ? `${hint} · ` : ""}as JSON`),
    read: () => (control.value === start && !isNeeded ? undefined : parsed(label, control.value)),
  };
}

function parsed(label, text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(`${label}: this is no JSON.`);
  }
}
