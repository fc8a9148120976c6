"""The gRPC port of clients."""
