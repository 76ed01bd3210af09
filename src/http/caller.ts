import { Access, type Authorizer, type Identity, type Right } from "../access/authorizer.js";
import type { BodySender } from "./body.js";
import type { CallAllowance } from "./call-limits.js";

/**
 * Who makes a call, over whichever protocol: the token, the rights that it has, those that the call has required, and what the
 * call may hold.
 */
export class Caller implements BodySender {
  /** `""`: none. */
  readonly token: string;
  readonly allowance: CallAllowance;
  readonly #authorizer: Authorizer;
  readonly #required: Right[] = [];
  #access: Promise<Access> | undefined;
  #identity: Identity | undefined;

  constructor(authorizer: Authorizer, token: string, allowance: CallAllowance) {
    this.#authorizer = authorizer;
    this.token = token;
    this.allowance = allowance;
  }

  /** Whose token it is; undefined before {@link access} was asked for. */
  get identity(): Identity | undefined {
    return this.#identity;
  }

  /** The rights of the caller, looked up once. @throws {PeeringError} `permission-denied`: `ACL not found`. */
  access(): Promise<Access> {
    this.#access ??= Access.of(this.#authorizer, this.token).then((access) => {
      this.#identity = access.identity;
      return access;
    });
    return this.#access;
  }

  /** The rights of the caller now, looked up again. @throws {PeeringError} `permission-denied`: `ACL not found`. */
  accessNow(): Promise<Access> {
    this.#access = undefined;
    return this.access();
  }

  /** @throws {PeeringError} `permission-denied`, which names the missing right. */
  async require(right: Right): Promise<void> {
    const access = await this.access();
    access.require(right);
    this.#required.push(right);
  }

  /** @throws {PeeringError} `permission-denied`: there is nothing that the caller may write. */
  async requireWrite(): Promise<void> {
    (await this.access()).requireWrite();
  }

  /** Looks again at whom the token belongs to, and at the rights that were required. @throws {PeeringError} as `require`. */
  async confirm(): Promise<void> {
    if (this.#access === undefined) return;
    const access = await this.accessNow();
    for (const right of this.#required) access.require(right);
  }
}
