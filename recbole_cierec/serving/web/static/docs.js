"use strict";
// The description in /openapi.json as a page, without scripts of other hosts.

function make(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

const schemas = {};
const resolved = (schema) => (schema && schema.$ref ? schemas[schema.$ref.split("/").pop()] : schema || {});

function kind(schema) {
  const one = resolved(schema);
  if (one.anyOf) return one.anyOf.map(kind).filter((word) => word !== "null").join(" or ");
  if (one.enum) return one.enum.join(" | ");
  if (one.type === "array") return `list of ${kind(one.items)}`;
  if (one.type === "object") return `{${Object.keys(one.properties || {}).join(", ")}}`;
  return one.contentMediaType ? "file" : one.type || "";
}

function limits(schema) {
  const words = [];
  const one = resolved(schema);
  if (one.maximum !== undefined) words.push(`${one.minimum ?? 0} to ${one.maximum}`);
  if (one.maxItems !== undefined) words.push(`at most ${one.maxItems}`);
  if (one.default !== undefined && one.default !== null && one.default !== "") words.push(`default ${one.default}`);
  if (one.description) words.push(one.description);
  return words;
}

function row(list, name, schema, required) {
  const words = [kind(schema), ...(required ? ["required"] : []), ...limits(schema)];
  list.append(make("dt", "", name), make("dd", "", words.filter(Boolean).join("; ")));
}

function operation(path, verb, about) {
  const list = make("dl", "");
  for (const one of about.parameters || []) row(list, one.name, { ...one.schema, description: one.description }, one.required);
  const content = Object.values(about.requestBody?.content || {})[0];
  const body = resolved(content?.schema);
  for (const [name, schema] of Object.entries(body.properties || {})) row(list, name, schema, (body.required || []).includes(name));
  const head = make("p", "", make("span", "verb", verb.toUpperCase()), make("span", "path", path));
  const words = make("p", "quiet", [about.summary, about.description].filter(Boolean).join(". "));
  return make("article", "", head, words, ...(list.children.length ? [list] : []));
}

async function start() {
  const main = document.getElementById("paths");
  const api = await (await fetch("/openapi.json")).json();
  Object.assign(schemas, api.components.schemas);
  main.append(make("p", "", api.info.description.replaceAll("`", "")));
  main.append(make("h2", "", "Example"));
  main.append(make("pre", "", `curl ${location.origin}/api/recommend \\\n  -H 'Content-Type: application/json' -d '{"users": ["u1"], "topk": 5}'\n\ncurl ${location.origin}/api/new_item -F picture=@photo.jpg`));
  main.append(make("h2", "", "Paths"));
  for (const [path, verbs] of Object.entries(api.paths)) {
    for (const [verb, about] of Object.entries(verbs)) main.append(operation(path, verb, about));
  }
}

start();
