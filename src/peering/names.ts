import { PeeringError } from "../base/errors.js";
import { metadataProblem } from "../syntax/metadata.js";
import { isLabel } from "../syntax/names.js";

/**
 * Checks a name for a new peering: a lower-case DNS label of 1 to 63 characters (Consul 1.14.4 and later).
 * @throws {PeeringError} `invalid-name`, with Consul's text.
 */
export function validatePeerName(name: string): void {
  if (isLabel(name)) return;
  throw new PeeringError(
    "invalid-name",
    `${name} is not a valid peer name: a valid peering name must consist of lower case alphanumeric characters or '-', ` +
      "and must start and end with an alphanumeric character",
  );
}

/** Checks the metadata of a peering. @throws {PeeringError} `invalid-argument`, with Consul's text. */
export function validatePeeringMeta(meta: Readonly<Record<string, string>>): void {
  const problem = metadataProblem(meta);
  if (problem !== undefined) throw new PeeringError("invalid-argument", `meta tags failed validation: ${problem}`);
}
