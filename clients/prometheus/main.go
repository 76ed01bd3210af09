// Drives Prometheus' discovery at an agent. Prints a line for each check.
package main

import (
	"context"
	"fmt"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/consul"
	"github.com/prometheus/prometheus/discovery/targetgroup"
)

// The discovered targets of each service, newest state.
type state struct {
	updates int
	groups  map[string]*targetgroup.Group
}

func (s *state) targets(service string) []model.LabelSet {
	for _, group := range s.groups {
		if string(group.Labels["__meta_consul_service"]) == service || (len(group.Targets) > 0 && string(group.Targets[0]["__meta_consul_service"]) == service) {
			return group.Targets
		}
	}
	return nil
}

func addresses(targets []model.LabelSet) string {
	var found []string
	for _, target := range targets {
		found = append(found, string(target["__address__"]))
	}
	sort.Strings(found)
	return strings.Join(found, " ")
}

// Discovers with `change` made to the configuration until `good` finds nothing wrong with what is found.
func discover(name string, change func(*consul.SDConfig), good func(*state) string) {
	conf := consul.DefaultSDConfig
	conf.Server = os.Getenv("CONSUL_HTTP_ADDR")
	conf.HTTPClientConfig = config.DefaultHTTPClientConfig
	conf.RefreshInterval = model.Duration(100 * time.Millisecond)
	change(&conf)
	registry := prometheus.NewRegistry()
	refresh := discovery.NewRefreshMetrics(registry)
	metrics := conf.NewDiscovererMetrics(registry, refresh)
	found, err := consul.NewDiscovery(&conf, nil, metrics)
	if err != nil {
		report(name, err.Error())
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	updates := make(chan []*targetgroup.Group)
	go found.Run(ctx, updates)
	now := &state{groups: map[string]*targetgroup.Group{}}
	problem := "nothing is discovered"
	for {
		select {
		case <-ctx.Done():
			report(name, problem)
			return
		case groups := <-updates:
			now.updates++
			for _, group := range groups {
				now.groups[group.Source] = group
			}
			problem = good(now)
			if problem == "" {
				report(name, "")
				return
			}
		}
	}
}

func wants(service string, expected string) func(*state) string {
	return func(now *state) string {
		if found := addresses(now.targets(service)); found != expected {
			return fmt.Sprintf("%s at %q, not at %q", service, found, expected)
		}
		return ""
	}
}

func main() {
	everything := func(*consul.SDConfig) {}
	web := func(conf *consul.SDConfig) { conf.Services = []string{"web"} }
	both := "10.0.0.1:8000 10.1.0.1:8001"
	discover("all services are discovered", everything, wants("web", both))
	discover("a service by name", web, wants("web", both))
	discover("a service by tag", func(conf *consul.SDConfig) {
		web(conf)
		conf.ServiceTags = []string{"v1", "i1"}
	}, wants("web", "10.1.0.1:8001"))
	discover("a service by metadata of its node", func(conf *consul.SDConfig) {
		web(conf)
		conf.NodeMeta = map[string]string{"rack": "r0"}
	}, wants("web", "10.0.0.1:8000"))
	discover("services by a filter of the catalog", func(conf *consul.SDConfig) {
		conf.Filter = `"v1" in ServiceTags`
	}, func(now *state) string {
		if len(now.groups) != 1 {
			return fmt.Sprintf("%d services", len(now.groups))
		}
		return wants("web", both)(now)
	})
	discover("instances by a filter of health", func(conf *consul.SDConfig) {
		web(conf)
		conf.HealthFilter = `Service.Meta.version == "1"`
	}, wants("web", "10.1.0.1:8001"))
	discover("targets have Consul's labels", web, func(now *state) string {
		for _, target := range now.targets("web") {
			if target["__address__"] != "10.0.0.1:8000" {
				continue
			}
			expected := map[string]string{
				"__meta_consul_address":                  "10.0.0.1",
				"__meta_consul_node":                     "node-0",
				"__meta_consul_tags":                     ",v1,i0,",
				"__meta_consul_service_address":          "",
				"__meta_consul_service_port":             "8000",
				"__meta_consul_service_id":               "web-0",
				"__meta_consul_health":                   "passing",
				"__meta_consul_metadata_rack":            "r0",
				"__meta_consul_service_metadata_version": "0",
				"__meta_consul_tagged_address_wan":       "192.0.2.1",
			}
			for label, value := range expected {
				if string(target[model.LabelName(label)]) != value {
					return fmt.Sprintf("%s is %q, not %q", label, target[model.LabelName(label)], value)
				}
			}
			for _, group := range now.groups {
				if string(group.Labels["__meta_consul_dc"]) != os.Getenv("DATACENTER") {
					return "the group has no label of its datacenter"
				}
			}
			return ""
		}
		return "no target 10.0.0.1:8000"
	})
	if err := put("/v1/agent/service/register", map[string]any{"Name": "fresh", "ID": "f1", "Port": 1, "Address": "192.0.2.1"}); err != nil {
		report("changes are discovered", err.Error())
		os.Exit(1)
	}
	step := 1
	discover("changes are discovered", func(conf *consul.SDConfig) { conf.Services = []string{"fresh"} }, func(now *state) string {
		count := len(now.targets("fresh"))
		switch {
		case step == 1 && count == 1:
			step = 2
			if err := put("/v1/agent/service/register", map[string]any{"Name": "fresh", "ID": "f2", "Port": 2, "Address": "192.0.2.2"}); err != nil {
				return err.Error()
			}
			return "the second instance is not seen"
		case step == 2 && count == 2:
			step = 3
			if err := put("/v1/agent/service/deregister/f1", nil); err != nil {
				return err.Error()
			}
			return "the removal is not seen"
		case step == 3:
			return wants("fresh", "192.0.2.2:2")(now)
		}
		return fmt.Sprintf("%d instances in step %d", count, step)
	})
}
