import com.ecwid.consul.v1.ConsulClient;
import com.ecwid.consul.v1.OperationException;
import com.ecwid.consul.v1.QueryParams;
import com.ecwid.consul.v1.agent.model.NewCheck;
import com.ecwid.consul.v1.agent.model.NewService;
import com.ecwid.consul.v1.catalog.CatalogNodesRequest;
import com.ecwid.consul.v1.catalog.CatalogServiceRequest;
import com.ecwid.consul.v1.catalog.CatalogServicesRequest;
import com.ecwid.consul.v1.catalog.model.CatalogDeregistration;
import com.ecwid.consul.v1.catalog.model.CatalogRegistration;
import com.ecwid.consul.v1.health.HealthChecksForServiceRequest;
import com.ecwid.consul.v1.health.HealthServicesRequest;
import com.ecwid.consul.v1.health.model.HealthService;
import java.util.List;
import java.util.Map;

/** com.ecwid.consul:consul-api, which Spring Cloud Consul used for long. */
final class Ecwid {
  private Ecwid() {}

  static void run(String host, int port) {
    ConsulClient consul = new ConsulClient(host, port);
    HealthServicesRequest passing = HealthServicesRequest.newBuilder().setPassing(true).build();
    Checks.check("ecwid status", () -> {
      Checks.holds(consul.getStatusLeader().getValue().startsWith("127.0.0.1:"), "a leader");
      Checks.equal(consul.getStatusPeers().getValue().size(), 1);
    });
    Checks.check("ecwid agent self and members", () -> {
      Checks.equal(consul.getAgentSelf().getValue().getConfig().getDatacenter(), System.getenv("DATACENTER"));
      Checks.equal(consul.getAgentMembers().getValue().size(), 1);
    });
    Checks.check("ecwid agent service with a TTL, passed, failed, in maintenance, deregistered", () -> {
      NewService service = new NewService();
      service.setId("e-1");
      service.setName("ecwid");
      service.setPort(8080);
      service.setTags(List.of("a"));
      service.setMeta(Map.of("k", "v"));
      NewService.Check check = new NewService.Check();
      check.setTtl("30s");
      service.setCheck(check);
      consul.agentServiceRegister(service);
      Checks.equal(consul.getAgentServices().getValue().get("e-1").getMeta(), Map.of("k", "v"));
      Checks.equal(consul.getHealthServices("ecwid", passing).getValue().size(), 0);
      consul.agentCheckPass("service:e-1", "fine");
      Checks.soon(() -> Checks.equal(consul.getHealthServices("ecwid", passing).getValue().size(), 1));
      Checks.equal(consul.getAgentChecks().getValue().get("service:e-1").getOutput(), "fine");
      consul.agentCheckFail("service:e-1");
      Checks.soon(() -> Checks.equal(consul.getHealthServices("ecwid", passing).getValue().size(), 0));
      consul.agentCheckPass("service:e-1");
      consul.agentServiceSetMaintenance("e-1", true, "tests");
      Checks.soon(() -> Checks.equal(consul.getHealthServices("ecwid", passing).getValue().size(), 0));
      consul.agentServiceSetMaintenance("e-1", false);
      Checks.soon(() -> Checks.equal(consul.getHealthServices("ecwid", passing).getValue().size(), 1));
      consul.agentServiceDeregister("e-1");
      Checks.soon(() -> Checks.equal(
          consul.getHealthServices("ecwid", HealthServicesRequest.newBuilder().build()).getValue().size(), 0));
    });
    Checks.check("ecwid check of the node", () -> {
      NewCheck check = new NewCheck();
      check.setId("e-check");
      check.setName("e-check");
      check.setTtl("30s");
      consul.agentCheckRegister(check);
      consul.agentCheckWarn("e-check");
      Checks.equal(consul.getAgentChecks().getValue().get("e-check").getStatus().name(), "WARNING");
      consul.agentCheckDeregister("e-check");
    });
    Checks.check("ecwid catalog", () -> {
      CatalogRegistration registration = new CatalogRegistration();
      registration.setNode("outside");
      registration.setAddress("192.0.2.1");
      CatalogRegistration.Service service = new CatalogRegistration.Service();
      service.setId("db-1");
      service.setService("db");
      service.setPort(5432);
      registration.setService(service);
      consul.catalogRegister(registration);
      Checks.equal(
          consul.getCatalogService("db", CatalogServiceRequest.newBuilder().build()).getValue().get(0).getServicePort(),
          5432);
      Checks.holds(
          consul.getCatalogNodes(CatalogNodesRequest.newBuilder().build()).getValue().stream()
              .anyMatch(node -> node.getNode().equals("outside")),
          "the node is listed");
      Checks.holds(consul.getCatalogServices(CatalogServicesRequest.newBuilder().build()).getValue().containsKey("db"), "db");
      Checks.equal(consul.getCatalogNode("outside", QueryParams.DEFAULT).getValue().getServices().size(), 1);
      Checks.equal(consul.getCatalogDatacenters().getValue(), List.of(System.getenv("DATACENTER")));
      CatalogDeregistration gone = new CatalogDeregistration();
      gone.setNode("outside");
      consul.catalogDeregister(gone);
    });
    Checks.check("ecwid health by tag and by waiting", () -> {
      List<HealthService> found =
          consul.getHealthServices("web", HealthServicesRequest.newBuilder().setTag("i1").setPassing(true).build()).getValue();
      Checks.equal(found.size(), 1);
      Checks.equal(found.get(0).getService().getPort(), 8001);
      Checks.equal(
          consul.getHealthChecksForService("web", HealthChecksForServiceRequest.newBuilder().build()).getValue().size(), 2);
      Long index = consul.getHealthServices("web", passing).getConsulIndex();
      Checks.holds(index > 0, "an index");
      long before = System.nanoTime();
      consul.getHealthServices("web", HealthServicesRequest.newBuilder().setQueryParams(new QueryParams(1, index)).build());
      Checks.holds(System.nanoTime() - before > 900_000_000L, "it waits");
    });
    Checks.check("ecwid key that is not there", () -> Checks.equal(consul.getKVValue("no/such").getValue(), null));
    Checks.check("ecwid key that is set", () -> {
      Checks.equal(consul.setKVValue("ecwid", "v").getValue(), true);
      Checks.equal(consul.getKVValue("ecwid").getValue().getDecodedValue(), "v");
    });
    Checks.check("ecwid refusal", () -> {
      try {
        consul.agentCheckPass("none");
      } catch (OperationException error) {
        Checks.equal(error.getStatusCode(), 404);
        return;
      }
      throw new AssertionError("it is not refused");
    });
  }
}
