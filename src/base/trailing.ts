/**
 * A text without the run of one character at its end. A pattern such as `0+$` would look at each run of it again and again, which takes
 * as long as the square of the length.
 */
export function withoutTrailing(text: string, character: string): string {
  let end = text.length;
  while (end > 0 && text[end - 1] === character) end--;
  return text.slice(0, end);
}
