/** An answer whose status is not a success. The message is worded as Consul's own Go client words it. */
export class HttpError extends Error {
  override readonly name = "HttpError";
  readonly status: number;
  /** The body of the answer without the space around it: Consul's errors are plain text. */
  readonly text: string;

  constructor(status: number, text: string) {
    const trimmed = text.trim();
    super(`Unexpected response code: ${status} (${trimmed})`);
    this.status = status;
    this.text = trimmed;
  }
}
