/** One thing that was asked of a real server, and of ours again. */
export interface ReplayStep {
  /** Over HTTP. `{name}` in path and body stands for the id that a step before has saved. */
  readonly ask?: { readonly method: string; readonly path: string; readonly body?: unknown };
  /** Over DNS: name and type. */
  readonly dns?: readonly [string, string];
  /** Under which name the `ID` of the answer is kept. */
  readonly save?: string;
  /** The order of lists is random. */
  readonly anyOrder?: boolean;
  /** Names of the headers that count. */
  readonly headers?: readonly string[];
  /** The answer of the real server. */
  readonly answer?: unknown;
  /** The answer of ours, where it is different on purpose, and why. */
  readonly ours?: { readonly answer: unknown; readonly why: string };
}

export interface ReplayTarget {
  readonly http: (
    method: string,
    path: string,
    body: string | undefined,
  ) => Promise<{
    readonly status: number;
    readonly text: string;
    readonly header: (name: string) => string | undefined;
  }>;
  readonly dns: (
    name: string,
    type: string,
  ) => Promise<{ readonly code: string; readonly answers: readonly string[]; readonly additionals: readonly string[] }>;
}

/** Told by forks of Consul alone, or different with each run. */
const LEFT_OUT: ReadonlySet<string> = new Set([
  "CreateIndex",
  "ModifyIndex",
  "Index",
  "IncludeAll",
  "SkipLocalDatacenter",
]);

/** Asks all that is asked, in order, and tells each step with what was answered, in a form that does not depend on the run. */
export async function* replay(
  steps: readonly ReplayStep[],
  target: ReplayTarget,
): AsyncGenerator<readonly [ReplayStep, unknown]> {
  const saved = new Map<string, string>();
  const filled = (text: string): string => text.replace(/\{(\w+)\}/g, (all, name) => saved.get(name) ?? all);
  const normal = (value: unknown, anyOrder: boolean): unknown => {
    if (typeof value === "string") {
      let text = value;
      for (const [name, id] of saved) text = text.replaceAll(id, `{${name}}`);
      return text.replace(/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g, "<uuid>");
    }
    if (Array.isArray(value)) {
      const items = value.map((item) => normal(item, anyOrder));
      return anyOrder ? items.sort((left, right) => (JSON.stringify(left) < JSON.stringify(right) ? -1 : 1)) : items;
    }
    if (typeof value !== "object" || value === null) return value;
    const members = Object.entries(value).filter(([key]) => !LEFT_OUT.has(key));
    const sorted = members.sort(([left], [right]) => (left < right ? -1 : 1));
    return Object.fromEntries(sorted.map(([key, member]) => [key, normal(member, anyOrder)]));
  };
  for (const step of steps) {
    const { ask, dns, save, anyOrder = false, headers = [] } = step;
    if (dns !== undefined) {
      const [name, type] = dns;
      const { code, answers, additionals } = await target.dns(name, type);
      yield [step, { code, answers: answers.toSorted(), additionals: additionals.toSorted() }];
      continue;
    }
    if (ask === undefined) throw new TypeError("a step asks something");
    const body = ask.body === undefined ? undefined : filled(JSON.stringify(ask.body));
    const { status, text, header } = await target.http(ask.method, filled(ask.path), body);
    const parsed = /^[[{"]|^(?:null|true|false)$/.test(text.trim()) ? JSON.parse(text) : text;
    if (save !== undefined) saved.set(save, String(Object(parsed).ID));
    const told = Object.fromEntries(headers.map((name) => [name, header(name) ?? null]));
    yield [step, { status, body: normal(parsed, anyOrder), ...(headers.length > 0 && { headers: told }) }];
  }
}

/** The steps of a recording, one a line; lines that begin with `//` say what follows. */
export function readSteps(text: string): readonly ReplayStep[] {
  const lines = text.split("\n").filter((line) => line !== "" && !line.startsWith("//"));
  return lines.map((line): ReplayStep => JSON.parse(line));
}
