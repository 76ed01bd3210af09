import { readGolden } from "../golden/read.js";

/** A command line and what Consul's own program printed for it. */
export interface RecordedCommandLine {
  readonly origin: string;
  readonly args: readonly string[];
  /** Which of the two servers was asked: `a`, `b`, or `nowhere`. */
  readonly server: string;
  readonly exit: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** In the order they were recorded: later ones depend on earlier ones. */
export function recordedCommandLines(version: string): readonly RecordedCommandLine[] {
  return JSON.parse(readGolden(`cli/${version}.json`));
}

/**
 * Intended differences:
 * - the program is called `peerage`, in the help of `peering`, too;
 * - `peering` has two subcommands more: `generate`, an alias (D-49), and `token`; `peering list` has the flag `-detailed`.
 *
 * Differences of other versions of Consul that we do not follow: 1.22 labels `Peer Servers Name` and `Peer Servers
 * Addresses`; 1.15 and 1.13 have no `exported-services`, and say so in their help; 1.13 passes on errors with their
 * `rpc error:` prefix and shows counts instead of `StreamStatus`.
 */
export function asOurs(text: string): string {
  return text.replaceAll("consul peering", "peerage peering");
}

export function withoutOurs(text: string): string {
  return text.replace(/^ {4}(?:generate|token) {2,}.*\n/gm, "").replace(/^ {2}-detailed\n {4}\t.*\n/gm, "");
}

/** Values that are compared by their form alone: ids, certificates, tokens, times, indexes, and where servers listen. */
export function withoutVarying(text: string): string {
  return (
    text
      .replace(/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, "<id>")
      .replace(
        /pem:[0-9a-f]{12}|-----BEGIN CERTIFICATE-----\\n[\w+/=\\]+-----END CERTIFICATE-----\\n/g,
        "<certificate>",
      )
      .replace(/token:[0-9a-f]{12}|[\w+/]{400,}={0,2}/g, "<token>")
      // Whether a heartbeat came before the question is chance.
      .replace(/((?:Last Heartbeat: +|"LastHeartbeat":))(?:<nil>|null|"?\d{4}-\d\d-\d\d[^\n,]*)/g, "$1<time or none>")
      .replace(/\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d*[1-9])?/g, "<time>")
      .replace(/127\.0\.0\.\d+:\d+/g, "<address>")
      .replace(/((?:Create|Modify) ?Index"?: ?)[1-9]\d*/g, "$1<index>")
  );
}
