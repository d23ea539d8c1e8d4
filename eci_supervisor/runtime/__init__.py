"""eci-runtime: an OCI bundle in, a rewritten bundle and runc or crun out."""
