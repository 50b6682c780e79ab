//! A request's body that has to arrive in time.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::Status;

/// How long a body may take to arrive, as in REST.
const PATIENCE: Duration = Duration::from_secs(30);

/// A body that breaks off when its time is over.
pub(super) struct Patient {
    body: Incoming,
    end: Pin<Box<Sleep>>,
}

impl Patient {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, end: Box::pin(sleep(PATIENCE)) }
    }
}

impl Body for Patient {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.end.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(Status::invalid_argument("the message took longer than 30 s"))));
        }
        let frame = Pin::new(&mut self.body).poll_frame(context);
        frame.map_err(|_| Status::invalid_argument("the message broke off"))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
