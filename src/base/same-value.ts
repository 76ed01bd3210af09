/** Deep equality of what consists of plain values; a member that is undefined is none. Stops at the first difference. */
export function sameValue(left: unknown, right: unknown): boolean {
  if (left === right) return true;
  if (typeof left !== "object" || typeof right !== "object" || left === null || right === null) return false;
  if (Array.isArray(left) || Array.isArray(right)) {
    return (
      Array.isArray(left) &&
      Array.isArray(right) &&
      left.length === right.length &&
      left.every((element: unknown, index) => sameValue(element, right[index]))
    );
  }
  return sameMembers(new Map(Object.entries(left)), new Map(Object.entries(right)));
}

function sameMembers(left: ReadonlyMap<string, unknown>, right: ReadonlyMap<string, unknown>): boolean {
  for (const [key, value] of left) if (!sameValue(value, right.get(key))) return false;
  for (const [key, value] of right) if (value !== undefined && !left.has(key)) return false;
  return true;
}
