/** Something that works until it is closed: by `close()`, or by `await using`, which does the same. Closing again is a no-op. */
export interface Closable extends AsyncDisposable {
  /** Resolves when nothing of it runs any more. */
  close(): Promise<void>;
}
