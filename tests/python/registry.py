"""Drives a control plane from Python: add, list, watch, remove, health.

Twice over: with stubs generated from proto/, and with nothing but server
reflection. Run it as

    python tests/python/registry.py target/debug/lb-control-plane

or with any other command that starts one, such as `lbctl control-plane`.
"""

import importlib
import pathlib
import subprocess
import sys
import tempfile

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_tools import protoc

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"
TIMEOUT = 20


def generated(channel, folder):
    """Callables and message classes out of generated stubs."""
    files = sorted(str(path.relative_to(PROTO)) for path in PROTO.glob("lb/v1/*.proto"))
    arguments = ["protoc", f"-I{PROTO}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    assert protoc.main(arguments + files) == 0, "protoc refuses the contract"
    sys.path.insert(0, folder)
    modules = {name: importlib.import_module(f"lb.v1.{name}") for name in (
        "config_pb2", "registry_pb2", "fleet_pb2", "registry_pb2_grpc", "fleet_pb2_grpc")}
    stubs = {
        "Registry": modules["registry_pb2_grpc"].RegistryStub(channel),
        "Fleet": modules["fleet_pb2_grpc"].FleetStub(channel),
    }

    def message(name):
        return next(getattr(module, name) for module in modules.values() if hasattr(module, name))

    return message, lambda service, method: getattr(stubs[service], method)


def reflected(channel):
    """The same from the server's own description of itself."""
    database = ProtoReflectionDescriptorDatabase(channel)
    services = database.get_services()
    for service in ("lb.v1.Sync", "lb.v1.Stats", "lb.v1.Registry", "lb.v1.Fleet"):
        assert service in services, f"{service} is not in {services}"
    pool = descriptor_pool.DescriptorPool(database)

    def message(name):
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"lb.v1.{name}"))

    def call(service, method):
        described = pool.FindServiceByName(f"lb.v1.{service}").FindMethodByName(method)
        kind = channel.unary_stream if method == "Watch" else channel.unary_unary
        return kind(
            f"/lb.v1.{service}/{method}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(
                described.output_type).FromString,
        )

    return message, call


def round_trip(message, call, address):
    """Adds a backend, finds it, sees the events, removes it."""
    events = call("Fleet", "Watch")(message("WatchRequest")(), timeout=TIMEOUT)
    request = message("PutRequest")(mode=1)
    request.object.backend.address = address
    request.object.backend.weight = 1
    answer = call("Registry", "Put")(request, timeout=TIMEOUT)
    added = answer.objects[0].backend
    assert answer.changed and answer.revision > 0, answer
    listed = call("Registry", "List")(message("ListRequest")(kind="backend"), timeout=TIMEOUT)
    assert [o.backend.address for o in listed.objects] == [address], listed
    try:
        call("Registry", "Put")(request, timeout=TIMEOUT)
        raise AssertionError("the same backend was added twice")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.ALREADY_EXISTS, error
        assert added.id in error.details(), error.details()
    delete = message("DeleteRequest")(kind="backend", name=added.id)
    removed = call("Registry", "Delete")(delete, timeout=TIMEOUT)
    assert removed.revision > answer.revision, removed
    seen = []
    for event in events:
        seen.append((event.type, event.name))
        if event.type == "object_removed":
            break
    events.cancel()
    assert ("object_changed", added.id) in seen and ("object_removed", added.id) in seen, seen
    return added.id


def main(program):
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [*program, "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir",
             f"{folder}/state", "--exit-with-parent"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            words = server.stdout.readline().split()
            address = next(word.removeprefix("grpc=") for word in words if word.startswith("grpc="))
            with grpc.insecure_channel(address) as channel:
                health = health_pb2_grpc.HealthStub(channel)
                status = health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT).status
                assert status == health_pb2.HealthCheckResponse.SERVING, status
                first = round_trip(*generated(channel, folder), "127.0.0.1:1")
                second = round_trip(*reflected(channel), "127.0.0.1:2")
                assert (first, second) == ("backend1", "backend2"), "an id was used again"
        finally:
            server.terminate()
            assert server.wait(timeout=TIMEOUT) == 0, "the control plane did not stop cleanly"
    print("python: 1 passed, 0 failed")


if __name__ == "__main__":
    main(sys.argv[1:])
