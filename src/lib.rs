//! MCIAS, an identity and access server. The map: every room, in floor order; a file imports only from floors below.

#![forbid(unsafe_code)]

// Floor 0: words, no I/O.
pub mod error;
pub mod model;
pub mod secret;

// Floor 1: tools; they import floor 0, never each other.
pub mod clock;
pub mod config;
pub mod crypto;
pub mod limits;
pub mod random;
pub mod secretfile;
pub mod store;

// Floor 2: the service; imports floors 0 and 1. Synchronous; no HTTP, no protobuf.
pub mod service;

// Floor 3: the wire; imports floor 0.
pub mod wire;

// Floor 4: the doors; they import floors 0, 2 and 3; rest and grpc may import net, and client imports 0 and 3
// only.
pub mod client;
pub mod grpc;
pub mod net;
pub mod rest;

// Floor 5: the roles; they import anything below.
pub mod cli;

#[cfg(test)]
mod testing;
