//! What is left of a request's body that nobody reads: taken in and thrown away beside the answer. Left lying it would
//! have its stream reset, and what is still on its way there would be a fault of its sender's, who is cut off for so
//! many of them.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

/// How much of it. More than that, and the connection is closed on it.
const MOST: usize = 256 << 20;
/// How long that may take: as long as a body that is wanted.
const PATIENCE: Duration = Duration::from_secs(30);

/// Takes it in.
pub fn take_in(mut body: Incoming) {
    if body.is_end_stream() {
        return;
    }
    let all = async move {
        let mut left = MOST;
        while let Some(Ok(frame)) = body.frame().await {
            left = match left.checked_sub(frame.data_ref().map_or(0, |data| data.len())) {
                Some(left) => left,
                None => break,
            };
        }
    };
    tokio::spawn(tokio::time::timeout(PATIENCE, all));
}
