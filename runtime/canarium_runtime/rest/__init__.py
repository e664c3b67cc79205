"""HTTP only: decode, call the service, encode."""
