//! The bodies of requests: every one is read to its end by somebody; that of a call has to arrive in time, and that of a
//! stream may stay open until the server closes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::{Interval, Sleep, interval, sleep};
use tonic::Status;

use crate::net::house::House;
use crate::net::leftover;
use crate::service::Readiness;

/// How long a body may take to arrive, as in REST.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is looked whether the server drains.
pub(super) const LOOK: Duration = Duration::from_millis(200);

/// A body that isn't left lying, whether somebody wants it or not.
pub(super) struct Tidy(Option<Incoming>);

impl Tidy {
    pub(super) fn new(body: Incoming) -> Self {
        Self(Some(body))
    }
}

impl Body for Tidy {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.0 {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(SizeHint::new, Body::size_hint)
    }
}

impl Drop for Tidy {
    fn drop(&mut self) {
        if let Some(body) = self.0.take() {
            leftover::take_in(body);
        }
    }
}

/// A body that breaks off when its time is over.
pub(super) struct Patient<B = Tidy> {
    body: B,
    end: Pin<Box<Sleep>>,
}

impl<B> Patient<B> {
    pub(super) fn new(body: B) -> Self {
        Self { body, end: Box::pin(sleep(PATIENCE)) }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Patient<B> {
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

/// A body that ends when draining begins: whoever holds a stream open doesn't hold up the end.
pub(super) struct Closing {
    body: Tidy,
    house: Arc<House>,
    look: Interval,
}

impl Closing {
    pub(super) fn new(body: Tidy, house: Arc<House>) -> Self {
        Self { body, house, look: interval(LOOK) }
    }
}

impl Body for Closing {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        while self.look.poll_tick(context).is_ready() {
            if self.house.service.readiness() == Readiness::Draining {
                return Poll::Ready(None);
            }
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::{BodyExt, StreamBody};
    use tokio::time::Instant;
    use tokio_stream::{StreamExt, once, pending};
    use tonic::Code;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_breaks_off_after_30_s() {
        let frame = Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x")));
        let begun = Instant::now();
        let mut body = Patient::new(StreamBody::new(Box::pin(once(frame).chain(pending()))));
        assert!(body.frame().await.unwrap().is_ok());
        let broken = body.frame().await.unwrap().unwrap_err();
        assert_eq!((broken.code(), begun.elapsed()), (Code::InvalidArgument, PATIENCE));
    }
}
