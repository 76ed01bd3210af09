const ASCII = /^[\0-\x7f]*$/;

/**
 * `text` as names of records, services, nodes and peerings are compared: lower-cased code point by code point, without
 * locale and without the rules that look at neighbouring letters (JavaScript lower-cases a final sigma differently, Consul
 * does not).
 */
export function lowerCase(text: string): string {
  if (ASCII.test(text)) return text.toLowerCase();
  let lower = "";
  for (const character of text) lower += character === "\u0130" ? "i" : character.toLowerCase();
  return lower;
}

/** Whether DNS can carry the name: labels of 1 to 63 bytes, at most 255 in all. */
export function isDomainName(name: string): boolean {
  if (name === ".") return true;
  const labels = (name.endsWith(".") ? name.slice(0, -1) : name).split(".");
  const sizes = labels.map((label) => Buffer.byteLength(label));
  return sizes.every((size) => size > 0 && size < 64) && sizes.reduce((sum, size) => sum + size + 1, 1) <= 255;
}

const LABEL = /^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?$/;

/** Whether it is one lower-case label of DNS: 1 to 63 letters, digits and hyphens, without a hyphen at either end. */
export function isLabel(text: string): boolean {
  return text.length <= 63 && LABEL.test(text);
}
