"""In place of the suite's own conftest.py, which starts containers: the servers are the program `consul` in PATH."""

import collections
import json
import re
import socket
import subprocess
import time
import uuid

import pytest
import requests

import consul.check

ConsulInstance = collections.namedtuple("ConsulInstance", ["container", "port", "version"])

# What the suite expects of the containers it starts: an agent at the usual port of its own machine.
_USUAL = re.compile(r":8500\b")


def _free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _agent(tmp_path, monkeypatch, acl_token=None):
    http, dns, grpc, server, lan, wan = _free_ports(6)
    config = {
        "node_name": "py-consul",
        "node_id": str(uuid.uuid4()),
        "bootstrap": True,
        "server": True,
        "data_dir": str(tmp_path / "data"),
        "bind_addr": "127.0.0.1",
        "ports": {"http": http, "dns": dns, "grpc_tls": grpc, "server": server, "serf_lan": lan, "serf_wan": wan},
        "performance": {"raft_multiplier": 1},
        "connect": {"enabled": True},
        "enable_script_checks": True,
    }
    if acl_token is not None:
        config["primary_datacenter"] = "dc1"
        config["acl"] = {"enabled": True, "tokens": {"initial_management": acl_token}}
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config))
    log = open(tmp_path / "log", "wb")
    process = subprocess.Popen(["consul", "agent", "-config-file", str(file)], stdout=log, stderr=log)
    try:
        base = f"http://127.0.0.1:{http}/v1"
        headers = {} if acl_token is None else {"X-Consul-Token": acl_token}
        deadline = time.time() + 30
        while True:
            try:
                roots = requests.get(f"{base}/connect/ca/roots", headers=headers, timeout=2)
                nodes = requests.get(f"{base}/catalog/nodes", headers=headers, timeout=2)
                if roots.ok and roots.json()["Roots"] and nodes.ok and nodes.json():
                    break
            except (requests.RequestException, ValueError):
                pass
            if time.time() > deadline or process.poll() is not None:
                raise RuntimeError(f"the agent does not start: {(tmp_path / 'log').read_text()[-2000:]}")
            time.sleep(0.1)
        version = requests.get(f"{base}/agent/self", headers=headers, timeout=2).json()["Config"]["Version"]
        original = consul.check.Check.http.__func__
        monkeypatch.setattr(
            consul.check.Check,
            "http",
            classmethod(lambda cls, url, *args, **kwargs: original(cls, _USUAL.sub(f":{http}", url), *args, **kwargs)),
        )
        yield ConsulInstance(process, http, version)
    finally:
        process.kill()
        process.wait()
        log.close()


@pytest.fixture
def consul_instance(tmp_path, monkeypatch):
    yield from _agent(tmp_path, monkeypatch)


@pytest.fixture
def acl_consul_instance(tmp_path, monkeypatch):
    token = uuid.uuid4().hex
    for instance in _agent(tmp_path, monkeypatch, token):
        yield instance, token


@pytest.fixture
def consul_port(consul_instance):
    return consul_instance.port, consul_instance.version


def pytest_runtest_logreport(report):
    """A line for each test, its name without colons."""
    name = report.nodeid.removeprefix("tests/").replace("::", " ")
    if report.when == "call" and report.passed:
        print(f"\nok {name}")
    elif report.failed:
        said = str(report.longrepr).strip().splitlines()
        reason = " ".join(line[1:].strip() for line in said if line.startswith("E "))
        print(f"\nnot ok {name}: {reason[:600]}")
