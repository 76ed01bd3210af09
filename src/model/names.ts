const ASCII = /^[\0-\x7f]*$/;

/**
 * `text` as catalog keys compare it: lower-cased code point by code point, without locale and without the rules that look
 * at neighbouring letters (JavaScript lower-cases a final sigma differently, Consul does not).
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
