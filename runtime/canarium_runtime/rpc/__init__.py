"""The gRPC door: `inference.GRPCInferenceService` of the Open Inference Protocol V2, and `grpc.health.v1`.

Imported only where `CANARIUM_GRPC_PORT` is set: grpcio is an extra (`canarium[grpc]`).
"""
