//! MCIAS, an identity and access server. The map: every room, in floor order; a file imports only from floors below.

#![forbid(unsafe_code)]

// Floor 0: words, no I/O.
pub mod error;
pub mod model;
pub mod secret;

// Floor 1: tools; they import floor 0, never each other.
pub mod clock;
pub mod random;
pub mod store;
