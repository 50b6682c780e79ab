"""A gRPC client that has no file of ours: it learns the services by reflection, and uses them with grpcio.

What it is asked is in ASKED: address, ca_file, username, password.
"""

import json
import os

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

asked = json.loads(os.environ["ASKED"])
with open(asked["ca_file"], "rb") as file:
    credentials = grpc.ssl_channel_credentials(file.read())
port = asked["address"].rsplit(":", 1)[1]
channel = grpc.secure_channel(f"localhost:{port}", credentials)
grpc.channel_ready_future(channel).result(timeout=30)

database = ProtoReflectionDescriptorDatabase(channel)
services = set(database.get_services())
expected = {f"mcias.v1.{name}Service" for name in ["Admin", "Auth", "Token", "Account", "Credential", "Audit"]}
assert expected <= services, services
pool = DescriptorPool(database)


def call(name, members, token=None, timeout=30):
    """Calls a method; gives its answer as JSON has it."""
    service, method = name.split("/")
    found = pool.FindServiceByName(f"mcias.v1.{service}").FindMethodByName(method)
    stub = channel.unary_unary(
        f"/mcias.v1.{name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=GetMessageClass(found.output_type).FromString,
    )
    message = json_format.ParseDict(members, GetMessageClass(found.input_type)())
    metadata = [("authorization", f"Bearer {token}")] if token else []
    return json_format.MessageToDict(stub(message, metadata=metadata, timeout=timeout), preserving_proto_field_name=True)


def refused(status, code, name, members, token=None, timeout=30):
    """Insists on an error."""
    try:
        answer = call(name, members, token, timeout)
    except grpc.RpcError as error:
        trailers = dict(error.trailing_metadata())
        told = (error.code(), trailers.get("mcias-code"))
        assert told == (status, code), (name, told, error.details())
        assert error.details()
    else:
        raise AssertionError(f"{name} answered {answer}")


login = {"username": asked["username"], "password": asked["password"]}
token = call("AuthService/Login", login)["token"]
me = call("AuthService/WhoAmI", {}, token)
assert me["account"]["username"] == asked["username"] and me["token_roles"] == ["admin"], me
assert call("TokenService/ValidateToken", {"token": token})["valid"]
assert call("TokenService/ValidateToken", {"token": "no token"}) == {}

program = {"username": "from-python", "account_type": "ACCOUNT_TYPE_SYSTEM"}
account = call("AccountService/CreateAccount", program, token)["account"]
assert account["status"] == "ACCOUNT_STATUS_ACTIVE", account
events = call("AuditService/ListEvents", {"page_size": 1}, token)["events"]
assert events[0]["type"] == "account_created" and events[0]["details"] == {"account_type": "system"}, events

refused(grpc.StatusCode.ALREADY_EXISTS, "conflict", "AccountService/CreateAccount", program, token)
refused(grpc.StatusCode.UNAUTHENTICATED, "unauthorized", "AuthService/WhoAmI", {})
refused(grpc.StatusCode.UNAUTHENTICATED, "unauthorized", "AuthService/Login", login | {"password": "wrong"})
refused(grpc.StatusCode.INVALID_ARGUMENT, "invalid_request", "AccountService/UpdateAccount", {"id": account["id"]}, token)
refused(grpc.StatusCode.NOT_FOUND, "not_found", "AccountService/GetAccount", {"id": "nobody"}, token)
# Whoever sends far too much still reads why not.
large = login | {"password": "x" * 3_000_000}
for _ in range(5):
    refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "payload_too_large", "AuthService/Login", large)

health = health_pb2_grpc.HealthStub(channel)
serving = health_pb2.HealthCheckResponse.SERVING
assert health.Check(health_pb2.HealthCheckRequest()).status == serving
watch = health.Watch(health_pb2.HealthCheckRequest(service="mcias.v1.AuthService"))
assert next(watch).status == serving
watch.cancel()

call("AuthService/Logout", {}, token)
refused(grpc.StatusCode.UNAUTHENTICATED, "unauthorized", "AuthService/WhoAmI", {}, token)
print(f"grpcio {grpc.__version__}: learns the services by reflection, logs in, is refused as it should be")
