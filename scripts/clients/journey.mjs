// The journey of a user from a browser's point of view: plain JSON, or grpc-web by the public packages.
//
// usage: journey.mjs json|grpc-web|grpc-web-text|connect-web EDGE_URL PRODUCT EMAIL
// Prints a JSON list of {step, code, reason, value}; the other clients print the same.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { createFileRegistry, fromBinary, fromJson, toBinary, toJson } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";

const [mode, edge, product, email] = process.argv.slice(2);
const here = new URL(".", import.meta.url).pathname;
const built = execFileSync(`${here}node_modules/.bin/buf`, ["build", "-o", "-#format=binpb"], { cwd: `${here}../../proto`, maxBuffer: 1 << 24 });
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, built));
const HTTP = {
  Register: ["POST", "/api/v1/auth/register"],
  Login: ["POST", "/api/v1/auth/login"],
  GetMe: ["GET", "/api/v1/auth/me"],
  Chat: ["POST", "/api/v1/chat"],
  StreamChat: ["POST", "/api/v1/chat/stream"],
};
const CODES = ["OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
  "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"];
const plain = (schema, message) => toJson(schema, message, { registry, useProtoFieldName: true, alwaysEmitImplicit: true });
const headers = (token) => ({ "x-weft-product": product, ...(token ? { authorization: `Bearer ${token}` } : {}) });

// google.rpc.Status and ErrorInfo, by hand: field 3 of Status is a list of Any; field 1 of ErrorInfo is the reason.
function fields(bytes) {
  const found = [];
  let at = 0;
  const varint = () => { let value = 0, shift = 0, byte; do { byte = bytes[at++]; value += (byte & 127) * 2 ** shift; shift += 7; } while (byte & 128); return value; };
  while (at < bytes.length) {
    const tag = varint();
    if ((tag & 7) === 2) { const size = varint(); found.push([tag >> 3, bytes.subarray(at, at + size)]); at += size; } else found.push([tag >> 3, varint()]);
  }
  return found;
}
function reasonOf(base64) {
  if (!base64) return "";
  for (const [number, any] of fields(Buffer.from(base64, "base64"))) {
    if (number !== 3) continue;
    const parts = new Map(fields(any));
    if (String(parts.get(1)).endsWith("ErrorInfo") || Buffer.from(parts.get(1)).toString().endsWith("ErrorInfo")) return Buffer.from(new Map(fields(parts.get(2))).get(1)).toString();
  }
  return "";
}

async function json(service, rpc, body, token) {
  const bound = HTTP[rpc.name];
  if (!bound) return { code: null };
  const [method, path] = bound;
  const answer = await fetch(edge + path, {
    method, headers: { ...headers(token), ...(method === "POST" ? { "content-type": "application/json" } : {}) },
    body: method === "POST" ? JSON.stringify(body) : undefined,
  });
  const text = await answer.text();
  if (!answer.ok) {
    const { error } = JSON.parse(text);
    return { code: error.status, reason: error.code.toUpperCase(), seen: [] };
  }
  if (rpc.methodKind === "unary") return { code: "OK", reason: "", seen: [JSON.parse(text)] };
  const seen = [];
  let code = "OK", reason = "";
  for (const event of text.split("\n\n")) {
    const lines = event.split("\n");
    const data = lines.filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart()).join("\n");
    if (!data) continue;
    if (lines.some((line) => line.trim() === "event: error")) {
      const { error } = JSON.parse(data);
      code = error.status; reason = error.code.toUpperCase();
    } else seen.push(JSON.parse(data));
  }
  return { code, reason, seen };
}

async function connectWeb(service, rpc, body, token) {
  const client = createClient(service, createGrpcWebTransport({ baseUrl: edge }));
  const seen = [];
  try {
    const request = fromJson(rpc.input, body, { registry });
    const answer = client[rpc.localName](request, { headers: headers(token), timeoutMs: 20000 });
    if (rpc.methodKind === "unary") seen.push(plain(rpc.output, await answer));
    else for await (const part of answer) seen.push(plain(rpc.output, part));
    return { code: "OK", reason: "", seen };
  } catch (error) {
    const known = ConnectError.from(error);
    return { code: CODES[known.code] ?? Code[known.code], reason: reasonOf(known.metadata.get("grpc-status-details-bin")), seen };
  }
}

async function grpcWeb(service, rpc, body, token, format) {
  const require = createRequire(import.meta.url);
  globalThis.XMLHttpRequest ??= require("xhr2");
  const { GrpcWebClientBase, MethodDescriptor, MethodType } = require("grpc-web");
  const unary = rpc.methodKind === "unary";
  const descriptor = new MethodDescriptor(`/${service.typeName}/${rpc.name}`, unary ? MethodType.UNARY : MethodType.SERVER_STREAMING,
    Object, Object, (message) => toBinary(rpc.input, message), (bytes) => fromBinary(rpc.output, new Uint8Array(bytes)));
  const client = new GrpcWebClientBase({ format });
  const request = fromJson(rpc.input, body, { registry });
  const address = `${edge}/${service.typeName}/${rpc.name}`;
  const seen = [];
  return new Promise((resolve) => {
    const failed = (error) => resolve({ code: CODES[error.code], reason: reasonOf(error.metadata?.["grpc-status-details-bin"]), seen });
    if (unary) {
      client.rpcCall(address, request, headers(token), descriptor, (error, answer) => {
        if (error) failed(error);
        else resolve({ code: "OK", reason: "", seen: [plain(rpc.output, answer)] });
      });
      return;
    }
    const stream = client.serverStreaming(address, request, headers(token), descriptor);
    stream.on("data", (answer) => seen.push(plain(rpc.output, answer)));
    stream.on("error", failed);
    stream.on("end", () => resolve({ code: "OK", reason: "", seen }));
  });
}

const results = [];
let token;
for (const [name, typeName, rpcName, template, signedIn] of JSON.parse(readFileSync(`${here}journey.json`))) {
  const service = registry.getService(typeName);
  const rpc = service.methods.find((method) => method.name === rpcName);
  const body = Object.fromEntries(Object.entries(template).map(([key, value]) => [key, value === "$EMAIL" ? email : value]));
  const call = { json, "connect-web": connectWeb, "grpc-web": grpcWeb, "grpc-web-text": grpcWeb }[mode];
  const { code, reason, seen } = await call(service, rpc, body, signedIn && token, mode === "grpc-web-text" ? "text" : "binary");
  if (code === null) continue;
  const value = rpc.methodKind === "unary" ? (seen[0] ?? null) : seen;
  results.push({ step: name, code, reason, value });
  if (name === "login") token = value.access_token;
}
process.stdout.write(JSON.stringify(results));
