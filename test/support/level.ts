import { ClassicLevel } from "classic-level";

export interface ChainedBatch {
  _put(key: Uint8Array, value: Uint8Array, options: object): void;
  _write(options: { readonly sync?: boolean }): Promise<void>;
}

/**
 * Writes the batches of every database of this process, for a test to see or to fail them.
 * @param directory - for a database of its own.
 */
export async function batchPrototype(directory: string): Promise<ChainedBatch> {
  const database = new ClassicLevel(directory);
  await database.open();
  const batch = database.batch();
  const prototype: ChainedBatch = Object.getPrototypeOf(batch);
  await batch.close();
  await database.close();
  return prototype;
}
