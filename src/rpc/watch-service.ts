import { PeeringError, toldText } from "../base/errors.js";
import { Code, ConnectError, connectError, type HandlerContext, type ServiceImpl } from "../transport/connect.js";
import type { WatchService } from "../wire/gen/peerage/watch/v1/watch_pb.js";
import { RpcCall, type RpcServer } from "./rpc-call.js";
import { watchImports } from "./watch-imports.js";
import { watchPeerings } from "./watch-peerings.js";

/** The watch service over a host. Failures have the matching codes of gRPC. */
export function watchService(server: RpcServer): ServiceImpl<typeof WatchService> {
  const method = <Request, Response>(run: (request: Request, call: RpcCall) => AsyncIterable<Response>) =>
    async function* (request: Request, context: HandlerContext): AsyncGenerator<Response, void, undefined> {
      try {
        yield* run(request, new RpcCall(server, context));
      } catch (error) {
        throw watchError(error);
      }
    };
  return {
    watchPeerings: method(({ name }, call) => watchPeerings(call, name)),
    watchImportedServices: method(({ peer, service }, call) => watchImports(call, peer, service)),
  };
}

function watchError(error: unknown): ConnectError {
  if (error instanceof ConnectError) return error;
  const denied = error instanceof PeeringError && error.code === "permission-denied" && error.status === undefined;
  return denied ? new ConnectError(toldText(error.message), Code.PermissionDenied) : connectError(error);
}
