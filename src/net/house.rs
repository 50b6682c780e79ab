//! What both doors hold: the service, the lanes before it, the limits, and the proxies that are believed.

use std::sync::Arc;

use super::lane::Lanes;
use super::limit::Limiter;
use crate::model::net::Cidr;
use crate::service::Service;

/// The house behind the doors.
pub struct House {
    /// What is served.
    pub service: Arc<Service>,
    /// Where requests wait.
    pub lanes: Lanes,
    /// One client, one budget, whichever door it comes through.
    pub limiter: Limiter,
    /// Networks whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Cidr>,
}
