import { readGolden } from "../golden/read.js";

/** One line of a session with `intention` commands, in their order. `{id}` is the id that was printed last. */
export type SessionLine = readonly string[];

export interface RecordedSessionLine {
  readonly args: SessionLine;
  readonly exit: number;
  readonly stdout: string;
  readonly stderr: string;
}

export const RECORDED_SESSION = "cli/intention-1.21.4.json";

export function recordedSession(): readonly RecordedSessionLine[] {
  return JSON.parse(readGolden(RECORDED_SESSION));
}

const FILES = "test/golden/cli/intentions";

export const session: readonly SessionLine[] = [
  "intention list",
  "intention create",
  "intention create web",
  "intention create web db api",
  "intention create -allow -deny web db",
  "intention create a/b/c/d db",
  "intention create web a/b/c/d",
  "intention create web db",
  "intention create web db",
  "intention create -deny api db",
  "intention create -meta team=x -meta a=b meta db",
  "intention create -meta team mob db",
  "intention create -deny * db",
  "intention create default/ns db",
  "intention create team/web db",
  "intention create team/default/web db",
  "intention create web* db",
  "intention list",
  "intention get web db",
  "intention get {id}",
  "intention get meta db",
  "intention get nobody db",
  "intention get 3d3b4f9e-0000-0000-0000-000000000000",
  "intention get nope",
  "intention get",
  "intention get a b c",
  "intention create -replace -deny web db",
  "intention get web db",
  "intention create -replace new db",
  "intention check web db",
  "intention check new db",
  "intention check web other",
  "intention check web",
  "intention check team/web db",
  "intention check peer:p/web db",
  "intention match db",
  "intention match -source web",
  "intention match -destination db",
  "intention match -source -destination db",
  "intention match nothing",
  "intention match",
  "intention match a b",
  "intention match team/web",
  `intention create -file ${FILES}/one.json ${FILES}/two.json`,
  `intention create -file ${FILES}/two.json`,
  `intention create -file ${FILES}/permissions.json`,
  `intention create -file ${FILES}/broken.json`,
  `intention create -file ${FILES}/missing.json`,
  "intention create -file",
  "intention get file-one db",
  `config write ${FILES}/entry.json`,
  `config write ${FILES}/http.json`,
  `config write ${FILES}/permitted.json`,
  "intention list",
  "intention match shop",
  "intention match permitted",
  "intention get peer:west/web shop",
  "intention get api permitted",
  "intention create web shop",
  "intention create -replace mob shop",
  "intention check api permitted",
  "intention delete",
  "intention delete a b c",
  "intention delete nope",
  "intention delete web db",
  "intention delete web db",
  "intention get api db",
  "intention delete {id}",
  "intention delete {id}",
  "intention delete peer:west/web shop",
  "intention list -http-addr 127.0.0.1:1",
  "intention check -http-addr 127.0.0.1:1 a b",
  "intention nope",
].map((line) => line.split(" "));

/** The id that a line shows; undefined: none. */
export function idIn(stdout: string): string | undefined {
  return /^ID: +(\S+)$/m.exec(stdout)?.[1];
}
