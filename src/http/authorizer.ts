import { HttpError } from "./http-error.js";

/** What rules speak of (specification 2.10). */
export type AclResource = "agent" | "intention" | "mesh" | "node" | "operator" | "peering" | "service";

/** One thing a request needs to be allowed. */
export interface Right {
  readonly resource: AclResource;
  /** `write` implies `read`. */
  readonly access: "read" | "write";
  /** The service, node or agent in question; absent for the rules that have no name. */
  readonly name?: string;
  /** Instead of a name: `any`, it is enough to have the right on one name; `all`, on every name. */
  readonly scope?: "any" | "all";
}

/** Who asks. */
export interface Identity {
  /** Public id of the token; undefined for requests without one. */
  readonly accessorId: string | undefined;
}

/** Decides who may do what. */
export interface Authorizer {
  /** What happens where no rule speaks; told in every answer. */
  readonly defaultPolicy: "allow" | "deny";
  /**
   * Whom the token belongs to.
   * @param token - `""` for a request without one.
   * @returns undefined: there is no such token.
   */
  resolve(token: string): Promise<Identity | undefined>;
  /** Synchronous, for it is asked for every item of a list. */
  allowed(identity: Identity, right: Right): boolean;
}

/** Everyone may do everything; tokens are not looked at. */
export const allowAll: Authorizer = {
  defaultPolicy: "allow",
  resolve: async () => ({ accessorId: undefined }),
  allowed: () => true,
};

/** The refusal of a token that does not exist. */
export function unknownToken(): HttpError {
  return new HttpError(403, "ACL not found");
}

/** The refusal that names the missing right, as Consul 1.14 and later word it. */
export function permissionDenied(identity: Identity, right: Right): HttpError {
  const { resource, access, name } = right;
  const permission = `'${resource}:${access}'${name === undefined ? "" : ` on "${name}"`}`;
  return new HttpError(
    403,
    identity.accessorId === undefined
      ? `Permission denied: anonymous token lacks permission ${permission}. ` +
          "The anonymous token is used implicitly when a request does not specify a token."
      : `Permission denied: token with AccessorID '${identity.accessorId}' lacks permission ${permission}`,
  );
}
