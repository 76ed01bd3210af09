import type { DescMessage, MessageInitShape } from "@bufbuild/protobuf";

// The runtime of the generated messages.
export {
  create,
  type DescMessage,
  fromBinary,
  type MessageInitShape as MessageInit,
  toBinary,
} from "@bufbuild/protobuf";
export { BinaryWriter } from "@bufbuild/protobuf/wire";
export { type Any, AnySchema, anyPack } from "@bufbuild/protobuf/wkt";

/** The fields of a message, each of which may be left out: a {@link MessageInitShape} that is no message itself, and can be spread. */
export type MessageFields<Desc extends DescMessage> = Exclude<MessageInitShape<Desc>, { readonly $typeName: string }>;
