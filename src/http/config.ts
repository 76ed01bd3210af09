import type { Operation } from "./routes.js";

export const configOperations: readonly Operation[] = [];
