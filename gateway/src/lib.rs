//! The edge: JSON, gRPC, grpc-web and SSE in, gRPC out
mod transcode;
