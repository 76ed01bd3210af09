import { PeeringError } from "../base/errors.js";

/**
 * Decodes standard base64 strictly, except that line breaks are dropped anywhere. Node's own decoder takes nearly
 * everything.
 *
 * @throws {PeeringError} `invalid-token` with Consul's text: `failed to decode token: illegal base64 data at input byte
 *   <n>`, the offset of the bad character, or of the incomplete last group of four (Consul 1.13 to 1.22).
 */
export function decodeBase64(text: string): Buffer {
  let inGroup = 0;
  let padding = 0;
  for (let index = 0; index < text.length; index++) {
    const character = text.charAt(index);
    if (character === "\r" || character === "\n") continue;
    if (character === "=") {
      if (inGroup < 2 || inGroup + padding === 4) throw illegal(index);
      padding++;
    } else if (!/[A-Za-z0-9+/]/.test(character) || padding > 0) {
      // A character that interrupts a group's padding is reported as a fault of the padding before it.
      throw illegal(padding > 0 && inGroup + padding < 4 ? index - 1 : index);
    } else {
      inGroup = (inGroup + 1) % 4;
    }
  }
  if (inGroup !== 0 && inGroup + padding !== 4) throw illegal(text.length - (padding > 0 ? 0 : inGroup));
  return Buffer.from(text, "base64");
}

function illegal(offset: number): PeeringError {
  return new PeeringError("invalid-token", `failed to decode token: illegal base64 data at input byte ${offset}`);
}
