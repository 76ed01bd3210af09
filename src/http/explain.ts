import { intentionWarnings } from "../host/intention-warnings.js";
import type { ConnectionExplanation, ConnectionStep } from "../model/connection-explanation.js";
import type { Answer } from "./answer.js";
import type { Call } from "./call.js";
import { badRequest, HttpRefusal } from "./http-refusal.js";
import { intendedByDefault } from "./intentions.js";
import type { JsonSchema, Operation, ParameterDoc } from "./operation.js";
import { listOf, objectOf, orNull, text, texts } from "./operation-docs.js";

// Why a connection of the mesh works, or does not, which Consul has nothing for.

async function connection(call: Call): Promise<Answer> {
  const { server, query } = call;
  const given = (name: string): string => query.get(name) ?? "";
  const [source, destination, peer, sourcePeer] = ["source", "destination", "peer", "source-peer"].map(given);
  if (!source || !destination) throw badRequest("Both source and destination are required");
  // It tells of the peering, of gateways and of addresses that no service owns.
  await call.require({ resource: "operator", access: "read" });
  if (!sourcePeer) await call.require({ resource: "service", access: "read", name: source });
  if (!peer) {
    await call.require({ resource: "service", access: "read", name: destination });
    await call.require({ resource: "intention", access: "read", name: destination });
  }
  if (server.explainConnection === undefined) {
    throw new HttpRefusal(501, "Connections of the mesh are not explained by this program.");
  }
  const path = given("path");
  const method = given("method");
  const explanation = await server.explainConnection({
    source,
    destination,
    ...(peer && { peer }),
    ...(sourcePeer && { sourcePeer }),
    ...(path !== "" && { path }),
    ...(method !== "" && { method }),
    defaultIntention: intendedByDefault(server) ? "allow" : "deny",
  });
  return { json: explanationJson(explanation) };
}

async function intentions(call: Call): Promise<Answer> {
  await call.require({ resource: "operator", access: "read" });
  const access = await call.access();
  const byDefault = intendedByDefault(call.server) ? "allow" : "deny";
  const warnings = await intentionWarnings(call.host, { byDefault });
  const shown = warnings.filter(({ service }) => access.may({ resource: "intention", access: "read", name: service }));
  return {
    json: shown.map(({ type, service, peer, text: said }) => ({
      Type: type,
      Service: service,
      Peer: peer,
      Text: said,
    })),
    filtered: shown.length < warnings.length,
  };
}

function explanationJson({ source, destination, steps, failed, hints }: ConnectionExplanation) {
  return {
    Source: { Service: source.service, Peer: source.peer },
    Destination: { Service: destination.service, Peer: destination.peer },
    Steps: steps.map(stepJson),
    Failed: failed === undefined ? null : stepJson(failed),
    Hints: [...hints],
  };
}

function stepJson({ part, result, place, text: said, remedy }: ConnectionStep) {
  return { Part: part, Result: result, Place: place, Text: said, Remedy: remedy };
}

const end: JsonSchema = objectOf({ Service: text, Peer: text });
const stepSchema: JsonSchema = objectOf({ Part: text, Result: text, Place: text, Text: text, Remedy: text });
const parameter = (name: string, description: string): ParameterDoc => ({ name, in: "query", description });

export const explainOperations: readonly Operation[] = [
  {
    method: "GET",
    pattern: "/v1/internal/peerage/explain/connection",
    run: connection,
    docs: [
      {
        path: "/v1/internal/peerage/explain/connection",
        id: "explainConnection",
        summary:
          "Whether a service reaches another through the mesh, step by step, and the first thing that keeps it from it.",
        parameters: [
          parameter("source", "The service that calls."),
          parameter("destination", "The service that is called."),
          parameter("peer", "The peering that the destination belongs to; default: this cluster."),
          parameter("source-peer", "The peering that the source belongs to; default: this cluster."),
          parameter("path", "The path of a request, for intentions with permissions."),
          parameter("method", "The method of that request; default `GET`."),
        ],
        answer: objectOf({
          Source: end,
          Destination: end,
          Steps: listOf(stepSchema),
          Failed: orNull(stepSchema),
          Hints: texts,
        }),
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/internal/peerage/explain/intentions",
    run: intentions,
    docs: [
      {
        path: "/v1/internal/peerage/explain/intentions",
        id: "listIntentionWarnings",
        summary:
          "Intentions that let in all callers of a peer, or none, in a way that is seldom meant; for all exported services of the mesh.",
        parameters: [],
        answer: listOf(objectOf({ Type: text, Service: text, Peer: text, Text: text })),
      },
    ],
  },
];
