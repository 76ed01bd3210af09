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
