import { memoryUsage } from "node:process";
import type { Answer } from "./answer.js";
import type { Call } from "./call.js";
import type { Json } from "./json.js";
import type { JsonSchema, Operation } from "./operation.js";
import { listOf, objectOf, text, textsByKey } from "./operation-docs.js";

/** A number with the labels that tell it from others of its name. */
interface Reading {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** All readings of one name, written as Consul writes it with `telemetry.disable_hostname`. */
interface Metric {
  readonly name: string;
  readonly help: string;
  readonly type: "gauge" | "counter";
  readonly readings: readonly Reading[];
}

const GAUGES: Readonly<Record<string, string>> = {
  "peering.exported_services": "How many services are exported for the peering.",
  "peering.healthy": "Whether the peering is healthy (1) or not (0).",
};

function metricsOf({ host }: Call): readonly Metric[] {
  const readings = host.peerings.metrics();
  const gauges = Object.entries(GAUGES).map(
    ([name, help]): Metric => ({
      name: `consul.${name}`,
      help,
      type: "gauge",
      readings: readings.filter((each) => each.name === name),
    }),
  );
  const { heapUsed, external, rss } = memoryUsage();
  const runtime = (name: string, help: string, value: number): Metric => ({
    name: `consul.runtime.${name}`,
    help,
    type: "gauge",
    readings: [{ labels: {}, value }],
  });
  const incidents = [...host.incidents.counts()].map(([kind, value]) => ({ labels: { kind }, value }));
  return [
    ...gauges,
    runtime("alloc_bytes", "Memory in use by objects of the process.", heapUsed + external),
    runtime("sys_bytes", "Memory that the process has from the system.", rss),
    {
      name: "consul.peerage.incident",
      help: "Refusals by limits, and failures that no caller sees, by their kind, since the start.",
      type: "counter",
      readings: incidents,
    },
  ];
}

/** Gauges of now, and counters since the start; Consul's are those of ten seconds. */
async function metrics(call: Call): Promise<Answer> {
  const { server, query } = call;
  await call.require({ resource: "agent", access: "read", name: server.nodeName });
  const found = metricsOf(call);
  if (query.get("format") === "prometheus" || acceptsPrometheus(call.header("accept") ?? "")) {
    return { text: prometheusText(found), textType: "text/plain; version=0.0.4; charset=utf-8" };
  }
  const ofType = (type: Metric["type"], json: (reading: Reading) => Readonly<Record<string, Json>>): Json =>
    found
      .filter((metric) => metric.type === type)
      .flatMap(({ name, readings }) =>
        readings.map((reading) => ({ Name: name, ...json(reading), Labels: new Map(Object.entries(reading.labels)) })),
      );
  return {
    json: {
      Timestamp: timestamp(server.clock.wall()),
      Gauges: ofType("gauge", ({ value }) => ({ Value: value })),
      Points: [],
      Counters: ofType("counter", ({ value }) => ({ Count: value, Sum: value, Min: 1, Max: 1, Mean: 1, Stddev: 0 })),
      Samples: [],
    },
  };
}

/** As Consul judges it (1.21): scrapers name the format they read, programs that read JSON do not. */
function acceptsPrometheus(accept: string): boolean {
  return accept.split(",").some((offer) => {
    const [type = "", parameter = ""] = offer.split(";").map((part) => part.trim().toLowerCase());
    return type === "application/openmetrics-text" || (type === "text/plain" && parameter === "version=0.4.0");
  });
}

function prometheusText(found: readonly Metric[]): string {
  return found
    .filter(({ readings }) => readings.length > 0)
    .map(({ name, help, type, readings }) => {
      const plain = name.replaceAll(".", "_");
      const lines = readings.map(({ labels, value }) => `${plain}${labelText(labels)} ${value}\n`);
      return `# HELP ${plain} ${help}\n# TYPE ${plain} ${type}\n${lines.join("")}`;
    })
    .join("");
}

function labelText(labels: Readonly<Record<string, string>>): string {
  const pairs = Object.entries(labels).map(([name, value]) => {
    const escaped = value.replaceAll("\\", "\\\\").replaceAll("\n", "\\n").replaceAll('"', '\\"');
    return `${name}="${escaped}"`;
  });
  return pairs.length === 0 ? "" : `{${pairs.sort().join(",")}}`;
}

/** Of whole seconds, as Go writes it: `2026-01-31 12:00:00 +0000 UTC`. */
function timestamp(wall: number): string {
  return `${new Date(wall).toISOString().slice(0, 19).replace("T", " ")} +0000 UTC`;
}

const number: JsonSchema = { type: "number" };

export const metricsOperations: readonly Operation[] = [
  {
    method: "GET",
    pattern: "/v1/agent/metrics",
    run: metrics,
    docs: [
      {
        path: "/v1/agent/metrics",
        id: "readMetrics",
        summary: "Gauges of peerings and of memory, and how often each limit has refused since the start.",
        parameters: [
          {
            name: "format",
            in: "query",
            description: "`prometheus`: the text that Prometheus reads, instead of JSON; also by the header `Accept`.",
          },
        ],
        answer: objectOf({
          Timestamp: text,
          Gauges: listOf(objectOf({ Name: text, Value: number, Labels: textsByKey })),
          Points: listOf(objectOf({})),
          Counters: listOf(
            objectOf({
              Name: text,
              Count: number,
              Sum: number,
              Min: number,
              Max: number,
              Mean: number,
              Stddev: number,
              Labels: textsByKey,
            }),
          ),
          Samples: listOf(objectOf({})),
        }),
      },
    ],
  },
];
