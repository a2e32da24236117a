//! The harness: namespaces, packets, agents and upstreams.
