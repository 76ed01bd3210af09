/**
 * Parses JSON that may hold secrets: the text of the engine's own error quotes a piece of it.
 * @throws {TypeError} without that text.
 */
export function unquoted<Value>(parse: () => Value): Value {
  try {
    return parse();
  } catch {
    throw new TypeError("it is not JSON");
  }
}
