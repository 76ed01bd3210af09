import { setImmediate } from "node:timers/promises";

/** How many turns others get until `work` is over. @throws its reason where it fails. */
export async function turnsDuring(work: Promise<unknown>): Promise<number> {
  let isOver = false;
  const over = work.finally(() => {
    isOver = true;
  });
  // Awaited below; until then a failure is nobody's.
  over.catch(() => {});
  let turns = 0;
  for (; !isOver; turns++) await setImmediate();
  await over;
  return turns;
}
