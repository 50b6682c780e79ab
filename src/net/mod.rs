//! What both doors share between the socket and the first line of a handler: listening, TLS, the client's address,
//! rate limits, lanes, the log, and word to the service manager. Knows no route, no method and no operation.

mod activity;
mod connection;
mod hashing;

pub mod bearer;
pub mod bind;
pub mod connections;
pub mod door;
pub mod house;
pub mod lane;
pub mod leftover;
pub mod limit;
pub mod listen;
pub mod log;
pub mod notify;
pub mod peer;
pub mod tls;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also after a panic elsewhere: everything in this room behind a mutex is whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
