const UUID = /[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/g;
const TIME = /\d{4}-\d\d-\d\dT[\d:.]+Z/g;
const ACCESSOR = /AccessorID '[^']*'/g;
/** Which of several chains is told, and where its circle begins, is chance. */
const CIRCLE = /\[\S+(?: -> \S+)+\]/g;
/** Ours have none. */
const LEFT_OUT = ["Hash"];

/** The answer of a server; values that change each time, or from server to server, are given by their form. */
export function withoutVarying(value: unknown, ids: ReadonlyMap<string, string>): unknown {
  if (typeof value === "string") {
    const named = new Map([...ids].map(([name, id]) => [id, name]));
    return value
      .replace(UUID, (uuid) => (named.has(uuid) ? `{${named.get(uuid)}}` : "<uuid>"))
      .replace(TIME, "<time>")
      .replace(ACCESSOR, "AccessorID '<uuid>'")
      .replace(CIRCLE, "[<circle>]");
  }
  if (Array.isArray(value)) return value.map((item) => withoutVarying(item, ids));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([key]) => !LEFT_OUT.includes(key))
      .map(([key, member]) => [key, /^(?:Create|Modify)Index$/.test(key) ? "<index>" : withoutVarying(member, ids)]),
  );
}
