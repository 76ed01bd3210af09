import { PeeringError } from "../base/errors.js";
import { HilError, type HilNode, parseHil } from "../syntax/hil.js";
import { compileHil, type HilScope } from "../syntax/hil-evaluation.js";
import { RegularExpression } from "../syntax/regular-expression.js";
import type { PreparedQuery, QueriedService } from "./prepared-query.js";

/** A query template that was checked (Consul 1.21). */
export interface CompiledTemplate {
  /** The query that answers to `name`. @throws {PeeringError} `invalid-argument`, `resource-exhausted` */
  render(name: string): PreparedQuery;
}

type Field = (text: string, path: string) => string;

/** A copy in which every text has gone through `field`, in the order in which Consul goes through them. */
function mapped(service: QueriedService, field: Field): QueriedService {
  const { name, datacenters, targets, ignoreCheckIds, near, tags, nodeMeta, serviceMeta, peer, ...rest } = service;
  const list = (texts: readonly string[], path: string): readonly string[] =>
    texts.map((text, index) => field(text, `${path}[${index}]`));
  const map = (texts: Readonly<Record<string, string>>, path: string): Readonly<Record<string, string>> =>
    Object.fromEntries(Object.entries(texts).map(([key, text]) => [key, field(text, `${path}[${key}]`)]));
  return {
    ...rest,
    name: field(name, ".Service"),
    ...(datacenters && { datacenters: list(datacenters, ".Failover.Datacenters") }),
    ...(targets && {
      targets: targets.map((target, index) => ({
        ...(target.peer && { peer: field(target.peer, `.Failover.Targets[${index}].Peer`) }),
        ...(target.datacenter && { datacenter: field(target.datacenter, `.Failover.Targets[${index}].Datacenter`) }),
      })),
    }),
    ...(ignoreCheckIds && { ignoreCheckIds: list(ignoreCheckIds, ".IgnoreCheckIDs") }),
    ...(near && { near: field(near, ".Near") }),
    ...(tags && { tags: list(tags, ".Tags") }),
    ...(nodeMeta && { nodeMeta: map(nodeMeta, ".NodeMeta") }),
    ...(serviceMeta && { serviceMeta: map(serviceMeta, ".ServiceMeta") }),
    ...(peer && { peer: field(peer, ".Peer") }),
  };
}

function refuse(why: string): PeeringError {
  return new PeeringError("invalid-argument", `failed compiling template: ${why}`);
}

/** Characters of all texts of a template: its name, its pattern, and those of the service, keys of metadata included. */
export function templateCharacters({ name, template, service }: PreparedQuery): number {
  let count = name.length + (template?.regexp ?? "").length;
  for (const metadata of [service.nodeMeta, service.serviceMeta]) {
    for (const key of Object.keys(metadata ?? {})) count += key.length;
  }
  mapped(service, (text) => {
    count += text.length;
    return text;
  });
  return count;
}

/**
 * Checks a template, and that it can be rendered for the shortest name it answers to.
 * @param renderedCharacters - of all texts of one rendered query: a short text can ask for a long name thousands of times.
 * @throws {PeeringError} `invalid-argument` with Consul's text.
 */
export function compileTemplate(query: PreparedQuery, renderedCharacters: number): CompiledTemplate {
  const { name: prefix, template, service } = query;
  if (template?.type !== "name_prefix_match") throw refuse(`Bad Template.Type '${template?.type ?? ""}'`);
  const { regexp = "", removeEmptyTags = false } = template;
  const nodes = new Map<string, HilNode>();
  mapped(service, (text, path) => {
    try {
      nodes.set(path, parseHil(text));
    } catch (error) {
      if (error instanceof HilError) throw refuse(`Bad format '${text}' in Service${path}: ${error.message}`);
      throw error;
    }
    return text;
  });
  const pattern = regexp === "" ? undefined : patternOf(regexp);
  const programs = new Map<string, (scope: HilScope) => string>();
  const render = (name: string): QueriedService => {
    const scope = scopeOf(name, prefix, pattern);
    let length = 0;
    const rendered = mapped(service, (text, path) => {
      const node = nodes.get(path);
      if (node === undefined) return text;
      try {
        const program = programs.get(path) ?? compileHil(node, scope);
        programs.set(path, program);
        const value = program(scope);
        length += value.length;
        if (length > renderedCharacters) throw tooLong();
        return value;
      } catch (error) {
        if (!(error instanceof HilError)) throw error;
        throw new PeeringError("invalid-argument", `Bad evaluation for '${text}' in Service${path}: ${error.message}`);
      }
    });
    return removeEmptyTags ? { ...rendered, tags: (rendered.tags ?? []).filter((tag) => tag !== "") } : rendered;
  };
  try {
    render(prefix);
  } catch (error) {
    if (error instanceof PeeringError && error.code === "invalid-argument") throw refuse(error.message);
    throw error;
  }
  return { render: (name) => ({ ...query, service: render(name) }) };
}

function patternOf(regexp: string): RegularExpression {
  try {
    return new RegularExpression(regexp);
  } catch (error) {
    if (error instanceof SyntaxError) throw refuse(`Bad Regexp: ${error.message}`);
    throw error;
  }
}

function scopeOf(name: string, prefix: string, pattern: RegularExpression | undefined): HilScope {
  const matches = pattern?.match(name) ?? [];
  const suffix = name.startsWith(prefix) ? name.slice(prefix.length) : name;
  return {
    variables: new Map([
      ["name.full", name],
      ["name.prefix", prefix],
      ["name.suffix", suffix],
      // Community Edition has no segments.
      ["agent.segment", ""],
    ]),
    functions: new Map([["match", (index: bigint) => (index < 0n ? "" : (matches[Number(index)] ?? ""))]]),
  };
}

function tooLong(): PeeringError {
  return new PeeringError("resource-exhausted", "a query template makes too long a query of a name this long");
}
