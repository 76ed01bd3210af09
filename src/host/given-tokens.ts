import { PeeringError } from "../base/errors.js";
import type { Incidents } from "../base/incidents.js";
import { blocksAtMost } from "../token/pem.js";
import type { PeeringToken, TokenCodec } from "../token/token-codec.js";
import type { IdentityLimits } from "../wire/resources.js";

export type TokenLimits = Pick<IdentityLimits, "tokenCharacters" | "addressesPerPeer" | "rootsPerPeer">;

/** Reads peering tokens that callers give, and bounds the addresses of tokens that are made. */
export class GivenTokens {
  readonly #codec: typeof TokenCodec;
  readonly #limits: TokenLimits;
  readonly #incidents: Incidents;

  constructor(codec: typeof TokenCodec, limits: TokenLimits, incidents: Incidents) {
    this.#codec = codec;
    this.#limits = limits;
    this.#incidents = incidents;
  }

  /**
   * The content of a valid token. Its certificates are read one by one, and its addresses dialed one after another, so their number
   * is bounded.
   * @throws {PeeringError} `invalid-token`
   */
  read(text: string): PeeringToken {
    const { tokenCharacters, rootsPerPeer } = this.#limits;
    this.#require(text.length, tokenCharacters, "characters");
    const token = this.#codec.decode(text);
    // One entry may hold any number of them, and a dialer reads all.
    this.#require(Math.max(token.ca.length, blocksAtMost(token.ca)), rootsPerPeer, "certificates");
    this.requireFewAddresses(token);
    this.#codec.validate(token);
    return token;
  }

  /** @throws {PeeringError} `invalid-token` */
  requireFewAddresses(token: Pick<PeeringToken, "manualServerAddresses" | "serverAddresses">): void {
    const { addressesPerPeer: limit } = this.#limits;
    for (const { length } of [token.manualServerAddresses, token.serverAddresses]) {
      this.#require(length, limit, "server addresses");
    }
  }

  #require(count: number, limit: number, what: string): void {
    if (count <= limit) return;
    const fields = { what, count, limit };
    this.#incidents.report("token-too-large", "a peering token was refused: it is over a limit", fields);
    throw new PeeringError("invalid-token", `peering token has too many ${what} (${count} > ${limit})`);
  }
}
