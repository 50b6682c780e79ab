//! What goes over the wire, said once for server and client: the operations, the error table, the JSON
//! shapes and the messages.

pub mod answers;
pub mod fault;
pub mod inputs;
pub mod json;
pub mod ops;
pub mod outputs;
pub mod proto;
pub mod requests;
