//! `grpc.health.v1.Health`: serving is what `/v1/ready` says.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_server};

use super::body::LOOK;
use super::status;
use crate::error::Error;
use crate::net::house::House;
use crate::service::Readiness;
use crate::wire::proto::SERVICES;

/// The health of a house.
pub(super) struct Health {
    house: Arc<House>,
}

impl Health {
    pub(super) fn new(house: Arc<House>) -> Self {
        Self { house }
    }
}

fn is_known(service: &str) -> bool {
    service.is_empty() || SERVICES.contains(&service)
}

fn serving(house: &House) -> ServingStatus {
    match house.service.readiness() {
        Readiness::Ready => ServingStatus::Serving,
        Readiness::ClockBehind | Readiness::ReadOnly | Readiness::LockedOut | Readiness::Draining => {
            ServingStatus::NotServing
        }
    }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if !is_known(&request.get_ref().service) {
            return Err(status::of_error(&Error::not_found("there is no such service")));
        }
        Ok(Response::new(HealthCheckResponse { status: serving(&self.house).into() }))
    }

    type WatchStream = Pin<Box<dyn tokio_stream::Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let house = self.house.clone();
        let known = is_known(&request.get_ref().service);
        let (told, stream) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut last = None;
            loop {
                let draining = house.service.readiness() == Readiness::Draining;
                // Of a service that isn't there the protocol says so, and goes on.
                let now = if known || draining { serving(&house) } else { ServingStatus::ServiceUnknown };
                if last != Some(now) {
                    last = Some(now);
                    if told.send(Ok(HealthCheckResponse { status: now.into() })).await.is_err() {
                        return;
                    }
                }
                if draining {
                    return;
                }
                tokio::select! {
                    () = told.closed() => return,
                    () = tokio::time::sleep(LOOK) => {}
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}
