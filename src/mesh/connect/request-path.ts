/**
 * The path and query of a request as they are judged and handed on, so that a path cannot be written in another way that a
 * permission does not see: without dot segments, backslashes and the escapes of characters that need none, as Envoy normalises them.
 * Undefined: it is no target of a request.
 */
export function normalizedTarget(target: string): { readonly path: string; readonly query: string } | undefined {
  if (target === "*") return { path: "*", query: "" };
  const beginning = /^[a-z][a-z0-9+.-]*:\/\/[^/?#]*/i.exec(target)?.[0] ?? "";
  const rest = target.slice(beginning.length).replace(/#.*$/s, "");
  const mark = rest.indexOf("?");
  const given = mark < 0 ? rest : rest.slice(0, mark);
  const query = mark < 0 ? "" : rest.slice(mark);
  // A whole URL may have no path; any other target begins with one.
  if (!given.startsWith("/") && !(beginning !== "" && given === "")) return undefined;
  const plain = given.replace(/%([0-9a-f]{2})/gi, (escaped, hex: string) => {
    const character = String.fromCharCode(Number.parseInt(hex, 16));
    return /[A-Za-z0-9._~-]/.test(character) ? character : escaped.toUpperCase();
  });
  const segments: string[] = [];
  const parts = plain.replaceAll("\\", "/").split("/").slice(1);
  for (const [index, part] of parts.entries()) {
    const isLast = index === parts.length - 1;
    if (part === "..") segments.pop();
    else if (part !== ".") segments.push(part);
    if (isLast && (part === "." || part === "..")) segments.push("");
  }
  return { path: `/${segments.join("/")}`, query };
}
