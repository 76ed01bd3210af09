// Starts servers with consul/sdk's testutil, as Go programs do that bring a Consul up in their tests, and peers two of them.
//
// testutil runs the first `consul` in PATH. To run these tests against Peerage, put a script of that name first:
//
//	mkdir -p /tmp/bin && printf '#!/bin/sh\nexec node %s/dist/cli/main.js "$@"\n' "$PWD" > /tmp/bin/consul
//	chmod +x /tmp/bin/consul
//	cd clients/go-testutil && PATH=/tmp/bin:$PATH go test -count=1 ./...
//
// Without the script they run against the real one. Both must pass.
package gotestutil

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/consul/sdk/testutil"
	"github.com/hashicorp/consul/sdk/testutil/retry"
)

func start(t *testing.T, configure testutil.ServerConfigCallback) (*testutil.TestServer, *api.Client) {
	t.Helper()
	var server *testutil.TestServer
	// testutil waits for two seconds, which is little on a busy machine, and has its callers try again.
	var err error
	for attempt := 0; attempt < 10; attempt++ {
		server, err = testutil.NewTestServerConfigT(t, func(config *testutil.TestServerConfig) {
			// Nothing here needs them, and their defaults may be taken by other tests.
			config.Ports.HTTPS = -1
			config.Ports.GRPC = -1
			if configure != nil {
				configure(config)
			}
		})
		if err == nil {
			break
		}
	}
	if err != nil {
		t.Fatalf("the server did not start: %v", err)
	}
	t.Cleanup(func() {
		// Consul ends with 1 where it is told not to leave its cluster when it is interrupted, as testutil tells it.
		if err := server.Stop(); err != nil && err.Error() != "exit status 1" {
			t.Errorf("the server did not stop well: %v", err)
		}
	})
	client, err := api.NewClient(&api.Config{
		Address: server.HTTPAddr,
		Token:   server.Config.ACL.Tokens.InitialManagement,
	})
	if err != nil {
		t.Fatal(err)
	}
	return server, client
}

// wait is what long-running tests wait for before they use a server.
func wait(t *testing.T, server *testutil.TestServer) {
	t.Helper()
	server.WaitForLeader(t)
	server.WaitForVoting(t)
	server.WaitForSerfCheck(t)
	server.WaitForActiveCARoot(t)
	server.WaitForServiceIntentions(t)
}

func within(t *testing.T, what func(r *retry.R)) {
	t.Helper()
	retry.RunWith(&retry.Timer{Timeout: 30 * time.Second, Wait: 100 * time.Millisecond}, t, what)
}

func datacenter(name string) testutil.ServerConfigCallback {
	return func(config *testutil.TestServerConfig) { config.Datacenter = name }
}

func TestServerIsWhatItsConfigurationSays(t *testing.T) {
	server, client := start(t, func(config *testutil.TestServerConfig) {
		config.Datacenter = "dc7"
		config.NodeMeta = map[string]string{"rack": "r1"}
	})
	wait(t, server)
	self, err := client.Agent().Self()
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{
		"Datacenter": "dc7",
		"NodeName":   server.Config.NodeName,
		"NodeID":     server.Config.NodeID,
		"Server":     true,
	} {
		if got := self["Config"][key]; got != want {
			t.Errorf("Config.%s is %v, not %v", key, got, want)
		}
	}
	if got := self["Meta"]["rack"]; got != "r1" {
		t.Errorf("Meta.rack is %v", got)
	}
	leader, err := client.Status().Leader()
	if err != nil || leader == "" {
		t.Errorf("leader %q: %v", leader, err)
	}
	nodes, _, err := client.Catalog().Nodes(nil)
	if err != nil || len(nodes) != 1 || nodes[0].ID != server.Config.NodeID || nodes[0].Meta["rack"] != "r1" {
		t.Errorf("nodes %+v: %v", nodes, err)
	}
}

func TestServicesAndChecksAreRegistered(t *testing.T) {
	server, client := start(t, nil)
	wait(t, server)
	server.AddAddressableService(t, "redis", testutil.HealthPassing, "127.0.0.1", 6379, []string{"primary"})
	server.AddService(t, "db", testutil.HealthCritical, nil)
	server.AddCheck(t, "service:redis-extra", "redis", testutil.HealthWarning)
	redis, _, err := client.Health().Service("redis", "primary", false, nil)
	if err != nil || len(redis) != 1 {
		t.Fatalf("redis %+v: %v", redis, err)
	}
	if status := redis[0].Checks.AggregatedStatus(); status != api.HealthWarning || redis[0].Service.Port != 6379 {
		t.Errorf("redis is %s at %d", status, redis[0].Service.Port)
	}
	passing, _, err := client.Health().Service("db", "", true, nil)
	if err != nil || len(passing) != 0 {
		t.Errorf("db passes: %+v: %v", passing, err)
	}
	if err := client.Agent().UpdateTTL("service:db", "up again", api.HealthPassing); err != nil {
		t.Fatal(err)
	}
	// The agent tells the catalog of it a moment later.
	within(t, func(r *retry.R) {
		checks, _, err := client.Health().Checks("db", nil)
		if err != nil || len(checks) != 1 || checks[0].Status != api.HealthPassing || checks[0].Output != "up again" {
			r.Fatalf("checks %+v: %v", checks, err)
		}
	})
}

func TestTwoServersPeer(t *testing.T) {
	east, eastClient := start(t, datacenter("east"))
	west, westClient := start(t, datacenter("west"))
	wait(t, east)
	wait(t, west)
	if err := eastClient.Agent().ServiceRegister(&api.AgentServiceRegistration{
		Name:  "web",
		Port:  8080,
		Tags:  []string{"v1"},
		Check: &api.AgentServiceCheck{CheckID: "web-ttl", TTL: "10m", Status: api.HealthPassing},
	}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := eastClient.ConfigEntries().Set(&api.ExportedServicesConfigEntry{
		Name:     "default",
		Services: []api.ExportedService{{Name: "web", Consumers: []api.ServiceConsumer{{Peer: "to-west"}}}},
	}, nil); err != nil {
		t.Fatal(err)
	}
	token, _, err := eastClient.Peerings().GenerateToken(t.Context(), api.PeeringGenerateTokenRequest{PeerName: "to-west"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	// Consul answers 500 while its own certificates are being made.
	within(t, func(r *retry.R) {
		if _, _, err := westClient.Peerings().Establish(t.Context(), api.PeeringEstablishRequest{
			PeerName:     "to-east",
			PeeringToken: token.PeeringToken,
		}, nil); err != nil {
			r.Fatal(err)
		}
	})
	imported := func(r *retry.R, want string) {
		entries, _, err := westClient.Health().Service("web", "", false, &api.QueryOptions{Peer: "to-east"})
		if err != nil || len(entries) != 1 {
			r.Fatalf("web of east: %+v: %v", entries, err)
		}
		status := entries[0].Checks.AggregatedStatus()
		if status != want || entries[0].Service.Port != 8080 || entries[0].Node.Node != east.Config.NodeName {
			r.Fatalf("web of east is %s: %+v", status, entries[0])
		}
	}
	within(t, func(r *retry.R) { imported(r, api.HealthPassing) })
	if err := eastClient.Agent().FailTTL("web-ttl", "down"); err != nil {
		t.Fatal(err)
	}
	within(t, func(r *retry.R) { imported(r, api.HealthCritical) })
	peering, _, err := westClient.Peerings().Read(t.Context(), "to-east", nil)
	if err != nil || peering == nil || peering.State != api.PeeringStateActive {
		t.Errorf("peering %+v: %v", peering, err)
	}
}

func TestTokensOfTheConfigurationAreTaken(t *testing.T) {
	const management = "8c5e3d9a-1f7b-4a42-9d54-1f0d2c3b4a59"
	server, client := start(t, func(config *testutil.TestServerConfig) {
		config.PrimaryDatacenter = "dc1"
		config.Datacenter = "dc1"
		config.ACL.Enabled = true
		config.ACL.DefaultPolicy = "deny"
		config.ACL.Tokens.InitialManagement = management
	})
	server.WaitForLeader(t)
	within(t, func(r *retry.R) {
		if err := client.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "web"}); err != nil {
			r.Fatal(err)
		}
	})
	for token, want := range map[string]int{"": http.StatusForbidden, management: http.StatusOK} {
		request, err := http.NewRequest(http.MethodPut, "http://"+server.HTTPAddr+"/v1/agent/service/register",
			strings.NewReader(`{"Name":"api"}`))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("X-Consul-Token", token)
		response, err := server.HTTPClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("token %q is answered %d, not %d", token, response.StatusCode, want)
		}
	}
}

func TestUnknownKeysAreRefused(t *testing.T) {
	path := t.TempDir() + "/config.json"
	if err := writeJSON(path, map[string]any{"data_dir": t.TempDir(), "ports": map[string]any{"htp": 1}}); err != nil {
		t.Fatal(err)
	}
	output, err := exec.Command("consul", "agent", "-config-file", path).CombinedOutput()
	if err == nil || !strings.Contains(string(output), "invalid config key ports.htp") {
		t.Errorf("%v: %s", err, output)
	}
}

func writeJSON(path string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}
