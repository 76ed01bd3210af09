import { PeeringError } from "../base/errors.js";

/** The resources of rules. The endpoints here ask for only some of these rights. */
export type AclResource =
  | "acl"
  | "agent"
  | "event"
  | "identity"
  | "intention"
  | "key"
  | "keyring"
  | "mesh"
  | "node"
  | "operator"
  | "peering"
  | "query"
  | "service"
  | "session";

/** One thing a request needs to be allowed. */
export interface Right {
  readonly resource: AclResource;
  /** `write` implies `read`. */
  readonly access: "read" | "write";
  /** The service, node or agent in question; absent for the rules that have no name. */
  readonly name?: string;
  /**
   * Instead of a name: `any`, it is enough to have the right on one name; `all`, on every name; `granted`, as `any`, but a
   * rule must grant it: the default policy does not count.
   */
  readonly scope?: "any" | "all" | "granted";
}

/** The caller. */
export interface Identity {
  /** Public id of the token; undefined for requests without one. */
  readonly accessorId: string | undefined;
}

/** Decides the rights of callers. */
export interface Authorizer {
  /** The policy where no rule applies; part of every answer. */
  readonly defaultPolicy: "allow" | "deny";
  /**
   * Another number after any change of the rights of any token, or of which tokens there are, as from then on. Answers are kept
   * for callers who ask the same again while it is the same. Undefined: none are, for rights may change at any time.
   */
  readonly revision?: number | undefined;
  /**
   * Whom the token belongs to.
   * @param token - `""` for a request without one.
   * @returns undefined: there is no such token. The same object each time, as long as the rights of the token do not
   *   change: reads of one identity that ask, or wait, for the same at the same time share their answer.
   */
  resolve(token: string): Promise<Identity | undefined>;
  /**
   * Synchronous, for it is asked for every item of a list.
   * @throws {PeeringError} `permission-denied`: the identity is no longer known.
   */
  allowed(identity: Identity, right: Right): boolean;
}

const ANYONE: Identity = { accessorId: undefined };

/** Everyone may do everything; tokens are not looked at. */
export const allowAll: Authorizer = {
  defaultPolicy: "allow",
  revision: 0,
  resolve: async () => ANYONE,
  allowed: () => true,
};

/** The rights to write something, of which every write that is served takes one. */
const WRITES: readonly Right[] = [
  ...(["mesh", "operator", "peering"] as const).map((resource): Right => ({ resource, access: "write" })),
  ...(["agent", "intention", "node", "query", "service"] as const).map(
    (resource): Right => ({ resource, access: "write", scope: "any" }),
  ),
];

/** Which records of one cluster a caller may read. */
export interface ReadableNames {
  service(name: string): boolean;
  node(name: string): boolean;
}

/** The rights of one caller. */
export class Access {
  readonly identity: Identity;
  readonly #authorizer: Authorizer;

  private constructor(authorizer: Authorizer, identity: Identity) {
    this.#authorizer = authorizer;
    this.identity = identity;
  }

  /**
   * That of the holder of a token.
   * @param token - `""` for a request without one.
   * @throws {PeeringError} `permission-denied`: `ACL not found`, there is no such token.
   */
  static of(authorizer: Authorizer, token: string): Promise<Access> {
    return authorizer.resolve(token).then((identity) => {
      if (identity === undefined) throw new PeeringError("permission-denied", "ACL not found");
      return new Access(authorizer, identity);
    });
  }

  may(right: Right): boolean {
    return this.#authorizer.allowed(this.identity, right);
  }

  /** @throws {PeeringError} `permission-denied`, with Consul's text, which names the missing right. */
  require(right: Right): void {
    if (!this.may(right)) throw permissionDenied(this.identity, right);
  }

  /** @throws {PeeringError} `permission-denied`: there is nothing that the caller may write. */
  requireWrite(): void {
    if (WRITES.some((right) => this.may(right))) return;
    throw new PeeringError("permission-denied", `Permission denied: ${nameOf(this.identity)} may write nothing`);
  }

  /**
   * Which records may be read, of our own data or of a peer's. Every answer with records is filtered by this.
   * Our rules do not cover names of other clusters: imports, with their nodes, are shown to identities that may write any
   * service of ours, as the proxies of the mesh may, or may read all services and all nodes.
   * @param peer - `""` for our own.
   */
  readable(peer: string): ReadableNames {
    if (peer === "") {
      return {
        service: (name) => this.may({ resource: "service", access: "read", name }),
        node: (name) => this.may({ resource: "node", access: "read", name }),
      };
    }
    // By a rule: a caller that may not read some of our services would else read all of a peer's wherever the default is to allow.
    const mesh = this.may({ resource: "service", access: "write", scope: "granted" });
    const services = mesh || this.may({ resource: "service", access: "read", scope: "all" });
    const nodes = mesh || this.may({ resource: "node", access: "read", scope: "all" });
    return { service: () => services, node: () => nodes };
  }
}

/** The refusal that names the missing right, as Consul 1.14 and later word it. */
function permissionDenied(identity: Identity, right: Right): PeeringError {
  const { resource, access, name } = right;
  const permission = `'${resource}:${access}'${name === undefined ? "" : ` on "${name}"`}`;
  const hint =
    identity.accessorId === undefined
      ? ". The anonymous token is used implicitly when a request does not specify a token."
      : "";
  return new PeeringError(
    "permission-denied",
    `Permission denied: ${nameOf(identity)} lacks permission ${permission}${hint}`,
  );
}

function nameOf({ accessorId }: Identity): string {
  return accessorId === undefined ? "anonymous token" : `token with AccessorID '${accessorId}'`;
}
