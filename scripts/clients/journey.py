"""The journey of a user over native gRPC, with nothing but what reflection tells.

usage: journey.py HOST:PORT PRODUCT EMAIL
Prints a JSON list of {step, code, reason, value}; the other clients print the same.
"""

import json
import sys

import grpc
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

address, product, email = sys.argv[1:4]
channel = grpc.insecure_channel(address)
pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
results = []


def method(service, name):
    found = pool.FindServiceByName(service).FindMethodByName(name)
    request = message_factory.GetMessageClass(found.input_type)
    response = message_factory.GetMessageClass(found.output_type)
    kind = channel.unary_stream if found.server_streaming else channel.unary_unary
    return request, kind(f"/{service}/{name}", request.SerializeToString, response.FromString), found.server_streaming


def plain(message):
    return json_format.MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def failure(error):
    status = rpc_status.from_call(error)
    reason = ""
    for detail in status.details if status else []:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            reason = info.reason
    return error.code().name, reason


def step(name, service, rpc, body, token=None):
    request, call, streaming = method(service, rpc)
    metadata = [("x-weft-product", product)]
    if token:
        metadata.append(("authorization", f"Bearer {token}"))
    message, seen = json_format.ParseDict(body, request()), []
    code, reason = "OK", ""
    try:
        answer = call(message, metadata=metadata, timeout=20)
        for part in answer if streaming else [answer]:
            seen.append(plain(part))
    except grpc.RpcError as error:
        code, reason = failure(error)
    value = seen if streaming else (seen[0] if seen else None)
    results.append({"step": name, "code": code, "reason": reason, "value": value})
    return value


AUTH, CHAT = "weft.identity.v1.AuthService", "weft.orchestrator.v1.ChatService"
for name, service, rpc, body, signed_in in json.load(open(__file__.replace("journey.py", "journey.json"))):
    body = {key: email if value == "$EMAIL" else value for key, value in body.items()}
    value = step(name, service, rpc, body, signed_in and token)
    if name == "login":
        token = value["access_token"]
json.dump(results, sys.stdout)
