/** The option that everything has that goes on, or waits, until its caller has had enough. */
export interface Abortable {
  /** Ends it: a watch quietly, any other call with the reason of the signal. Default: it goes on until it is done. */
  readonly signal?: AbortSignal;
}

/** The signal of a call, or one that never aborts. */
export function signalOf({ signal }: Abortable): AbortSignal {
  return signal ?? new AbortController().signal;
}

/** The value of a promise. @throws as the promise, or `signal.reason` when aborted before. */
export async function unlessAborted<Value>(promise: Promise<Value>, { signal }: Abortable): Promise<Value> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort);
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
