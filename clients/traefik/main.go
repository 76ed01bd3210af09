// Drives Traefik's provider of Consul's catalog at an agent. Prints a line for each check.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/rs/zerolog/log"
	ptypes "github.com/traefik/paerser/types"
	"github.com/traefik/traefik/v3/pkg/config/dynamic"
	"github.com/traefik/traefik/v3/pkg/provider/consulcatalog"
	"github.com/traefik/traefik/v3/pkg/safe"
)

func get(path string, into any) error {
	answer, err := http.Get("http://" + os.Getenv("CONSUL_HTTP_ADDR") + path)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	return json.NewDecoder(answer.Body).Decode(into)
}

// The configurations that Traefik gets from now on, until `stop` is called.
func provide(change func(*consulcatalog.Configuration)) (messages <-chan dynamic.Message, stop func(), err error) {
	provider := &consulcatalog.Provider{}
	provider.SetDefaults()
	provider.Endpoint.Address = os.Getenv("CONSUL_HTTP_ADDR")
	provider.RefreshInterval = ptypes.Duration(100 * time.Millisecond)
	change(&provider.Configuration)
	if err := provider.Init(); err != nil {
		return nil, nil, err
	}
	pool := safe.NewPool(context.Background())
	channel := make(chan dynamic.Message, 1_000)
	if err := provider.Provide(channel, pool); err != nil {
		return nil, nil, err
	}
	return channel, pool.Stop, nil
}

// Waits until `good` finds nothing wrong with the newest configuration.
func settles(name string, messages <-chan dynamic.Message, good func(*dynamic.Configuration) string) {
	problem := "no configuration comes"
	// After a rotation, certificates are renewed within 30 seconds.
	deadline := time.After(45 * time.Second)
	for {
		select {
		case <-deadline:
			report(name, problem)
			return
		case message := <-messages:
			problem = good(message.Configuration)
			if problem == "" {
				report(name, "")
				return
			}
		}
	}
}

func discover(name string, change func(*consulcatalog.Configuration), good func(*dynamic.Configuration) string) {
	messages, stop, err := provide(change)
	if err != nil {
		report(name, err.Error())
		return
	}
	defer stop()
	settles(name, messages, good)
}

func servers(service string, expected string) func(*dynamic.Configuration) string {
	return func(found *dynamic.Configuration) string {
		var urls []string
		if one, there := found.HTTP.Services[service]; there && one.LoadBalancer != nil {
			for _, server := range one.LoadBalancer.Servers {
				urls = append(urls, server.URL)
			}
		}
		sort.Strings(urls)
		if joined := strings.Join(urls, " "); joined != expected {
			return fmt.Sprintf("%s at %q, not at %q", service, joined, expected)
		}
		return ""
	}
}

func router(name string, rule string, service string) func(*dynamic.Configuration) string {
	return func(found *dynamic.Configuration) string {
		one, there := found.HTTP.Routers[name]
		if !there {
			return fmt.Sprintf("no router %s", name)
		}
		if one.Rule != rule || one.Service != service {
			return fmt.Sprintf("router %s: %s to %s", name, one.Rule, one.Service)
		}
		return ""
	}
}

// The transport with which Traefik reaches a service of the mesh: who it says it is, and whom it believes.
func transport(service string) func(*dynamic.Configuration) string {
	return func(found *dynamic.Configuration) string {
		var roots struct {
			TrustDomain string
			Roots       []struct{ RootCert string }
		}
		if err := get("/v1/agent/connect/ca/roots", &roots); err != nil {
			return err.Error()
		}
		for _, one := range found.HTTP.ServersTransports {
			expected := fmt.Sprintf("spiffe://%s/ns/default/dc/%s/svc/%s", roots.TrustDomain, os.Getenv("DATACENTER"), service)
			if one.PeerCertURI != expected {
				continue
			}
			pool := x509.NewCertPool()
			for _, root := range one.RootCAs {
				pool.AppendCertsFromPEM([]byte(root))
			}
			if len(one.RootCAs) != len(roots.Roots) || len(one.Certificates) != 1 {
				return fmt.Sprintf("%d roots and %d certificates", len(one.RootCAs), len(one.Certificates))
			}
			pair, err := tls.X509KeyPair([]byte(one.Certificates[0].CertFile), []byte(one.Certificates[0].KeyFile))
			if err != nil {
				return err.Error()
			}
			leaf, err := x509.ParseCertificate(pair.Certificate[0])
			if err != nil {
				return err.Error()
			}
			usages := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: usages}); err != nil {
				return err.Error()
			}
			if len(leaf.URIs) != 1 || !strings.HasSuffix(leaf.URIs[0].Path, "/svc/traefik") {
				return fmt.Sprintf("a certificate for %v", leaf.URIs)
			}
			return ""
		}
		return "no transport to " + service
	}
}

// The first certificate that Traefik is given for itself.
func serial(found *dynamic.Configuration) string {
	for _, one := range found.HTTP.ServersTransports {
		for _, certificate := range one.Certificates {
			if block, _ := pem.Decode([]byte(certificate.CertFile)); block != nil {
				if leaf, err := x509.ParseCertificate(block.Bytes); err == nil {
					return leaf.SerialNumber.String()
				}
			}
		}
	}
	return ""
}

func both(one func(*dynamic.Configuration) string, other func(*dynamic.Configuration) string) func(*dynamic.Configuration) string {
	return func(found *dynamic.Configuration) string {
		if problem := one(found); problem != "" {
			return problem
		}
		return other(found)
	}
}

type object = map[string]any

func register(id string, name string, address string, tags []string, more object) error {
	body := object{"ID": id, "Name": name, "Address": address, "Port": 80, "Tags": tags}
	for key, value := range more {
		body[key] = value
	}
	return put("/v1/agent/service/register", body)
}

func must(err error) {
	if err != nil {
		report("prepares", err.Error())
		os.Exit(1)
	}
}

func main() {
	log.Logger = zerolog.Nop()
	nothing := func(*consulcatalog.Configuration) {}

	must(register("shop-1", "shop", "192.0.2.1", nil, nil))
	// Traefik watches the names of services and the checks: of an instance without a check it does not see that it has gone.
	must(register("shop-2", "shop", "192.0.2.2", nil, object{"Check": object{"CheckID": "shop-2", "TTL": "1h", "Status": "passing"}}))
	discover("finds the instances of a service", nothing, servers("shop", "http://192.0.2.1:80 http://192.0.2.2:80"))
	discover("routes to a service by the default rule", nothing, router("shop", "Host(`shop`)", "shop"))

	tags := []string{"traefik.http.routers.front.rule=PathPrefix(`/front`)", "traefik.http.services.front.loadbalancer.server.port=8080", "blue"}
	must(register("front-1", "front", "192.0.2.3", tags, nil))
	discover("takes rule and port from tags", nothing, both(
		router("front", "PathPrefix(`/front`)", "front"),
		servers("front", "http://192.0.2.3:8080"),
	))
	discover("takes only what its constraint allows", func(conf *consulcatalog.Configuration) {
		conf.Constraints = "Tag(`blue`)"
	}, both(servers("front", "http://192.0.2.3:8080"), servers("shop", "")))
	discover("takes only what is exposed, where nothing is by default", func(conf *consulcatalog.Configuration) {
		conf.ExposedByDefault = false
	}, both(servers("front", ""), servers("shop", "")))
	for _, mode := range []string{"stale", "consistent", "cached"} {
		discover("reads "+mode, func(conf *consulcatalog.Configuration) {
			conf.Stale = mode == "stale"
			conf.RequireConsistent = mode == "consistent"
			conf.Cache = mode == "cached"
		}, servers("shop", "http://192.0.2.1:80 http://192.0.2.2:80"))
	}

	messages, stop, err := provide(func(conf *consulcatalog.Configuration) { conf.Watch = true })
	must(err)
	settles("watches, what is there", messages, servers("shop", "http://192.0.2.1:80 http://192.0.2.2:80"))
	check := object{"Check": object{"CheckID": "shop-3", "TTL": "1h", "Status": "critical"}}
	must(register("shop-3", "shop", "192.0.2.4", nil, check))
	must(register("shop-4", "shop", "192.0.2.5", nil, nil))
	settles("watches, an instance more, but none that is critical", messages, servers("shop", "http://192.0.2.1:80 http://192.0.2.2:80 http://192.0.2.5:80"))
	must(put("/v1/agent/check/pass/shop-3", nil))
	settles("watches, an instance that becomes healthy", messages, servers("shop", "http://192.0.2.1:80 http://192.0.2.2:80 http://192.0.2.4:80 http://192.0.2.5:80"))
	must(put("/v1/agent/check/fail/shop-3", nil))
	settles("watches, one that becomes critical", messages, servers("shop", "http://192.0.2.1:80 http://192.0.2.2:80 http://192.0.2.5:80"))
	must(put("/v1/agent/service/deregister/shop-2", nil))
	settles("watches, one that is removed", messages, servers("shop", "http://192.0.2.1:80 http://192.0.2.5:80"))
	stop()

	connect := []string{"traefik.consulcatalog.connect=true"}
	passing := []object{{"Name": "proxy", "TTL": "1h", "Status": "passing"}}
	sidecar := object{"Connect": object{"SidecarService": object{"Address": "192.0.2.9", "Port": 21_000, "Tags": connect, "Checks": passing}}}
	must(register("mesh-1", "mesh", "192.0.2.6", connect, sidecar))
	discover("leaves services of the mesh out, where it is not aware of it", nothing, both(servers("shop", "http://192.0.2.1:80 http://192.0.2.5:80"), servers("mesh", "")))
	aware, stopAware, err := provide(func(conf *consulcatalog.Configuration) {
		conf.ConnectAware = true
		conf.Watch = true
	})
	must(err)
	var first string
	settles("reaches the mesh by its proxies", aware, both(
		servers("mesh", "https://192.0.2.9:21000"),
		func(found *dynamic.Configuration) string { first = serial(found); return "" },
	))
	// Traefik's own certificate comes again with each configuration.
	discover("is a member of the mesh, whose certificate, key and roots fit", func(conf *consulcatalog.Configuration) {
		conf.ConnectAware = true
	}, transport("mesh"))
	var configuration object
	must(get("/v1/connect/ca/configuration", &configuration))
	must(put("/v1/connect/ca/configuration", object{"Provider": "consul", "Config": object{"PrivateKeyType": "ec", "PrivateKeyBits": 384}}))
	settles("gets another certificate when the authority is rotated", aware, func(found *dynamic.Configuration) string {
		if now := serial(found); now == "" || now == first {
			return "still the certificate " + now
		}
		return transport("mesh")(found)
	})
	stopAware()
}
