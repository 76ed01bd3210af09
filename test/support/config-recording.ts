/** An answer without what differs from server to server: indexes, hashes, and what a controller of Consul's says of an entry. */
export function comparable(text: string): unknown {
  try {
    return without(JSON.parse(text));
  } catch {
    return text;
  }
}

const OWN = new Set(["CreateIndex", "ModifyIndex", "Hash", "ContentHash", "consul-virtual"]);

function without(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(without);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([key]) => !OWN.has(key))
      .map(([key, item]) => [key, key === "Status" ? { Conditions: null } : without(item)]),
  );
}

/** Where the entry is that was written. */
export function pathRead(method: string, status: number, body: unknown): string | undefined {
  if (method !== "PUT" || status !== 200 || typeof body !== "object" || body === null) return undefined;
  const fields = new Map<string, unknown>(Object.entries(body));
  const kind = fields.get("Kind") ?? fields.get("kind");
  return `/v1/config/${kind}/${kind === "mesh" ? "mesh" : (fields.get("Name") ?? fields.get("name"))}`;
}
