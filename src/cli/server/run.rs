//! The server's life: open the house, open the doors, keep an eye on things, close the doors, close the house.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use super::certificates::Watched;
use super::chores::{Complaint, begin, hourly, look_at_clock, look_at_data_keys, on_a_thread, say_stopped};
use super::pace::Pace;
use super::signals::{Signals, Told};
use crate::cli::VERSION;
use crate::cli::secrets;
use crate::cli::term::Failure;
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::grpc::Grpc;
use crate::limits;
use crate::model::audit::{Occasion, Via};
use crate::net::connections::{Connections, Limits, TimeLimits};
use crate::net::door::{ConnInfo, Protocol};
use crate::net::house::House;
use crate::net::lane::Lanes;
use crate::net::limit::{Limiter, Rate, Rates};
use crate::net::listen;
use crate::net::log::{self, Log};
use crate::net::notify::Notifier;
use crate::net::tls;
use crate::rest::Rest;
use crate::service::{Policy, Service};
use crate::store::{ServerLock, Store};

/// File descriptors that aren't connections: listeners, the database, its readers, the log.
const OTHER_FILES: u64 = 64;
/// How many of the last logins tell which networks are known.
const KNOWN_LOGINS: u32 = 1000;
/// How often the clock is looked at.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(5);
/// How often the certificate files are looked at.
const LOOK_AT_CERTIFICATE: Duration = Duration::from_secs(60);
/// How often a checkpoint is signed, and the parameters of stored hashes are counted.
const HOURLY: Duration = Duration::from_secs(3600);
/// How long, where requests are under way at the end, others are still taken: a load balancer asks `/v1/ready`, is told
/// no, and sends them elsewhere.
const TELL_DRAINING: Duration = Duration::from_secs(1);
/// How long work that nobody waits for any more has to end before the database is closed.
const LAST_WORK: Duration = Duration::from_secs(10);

/// Tells somebody where the server listens: REST, and gRPC if it does.
pub type Announce = Box<dyn FnOnce(SocketAddr, Option<SocketAddr>) -> Result<(), Failure>>;

/// What a life of the server is besides: for `mcias dev`.
#[derive(Default)]
pub struct Besides {
    /// Called once it listens.
    pub listening: Option<Announce>,
    /// Whether the end of standard input ends it, too.
    pub ends_with_stdin: bool,
}

/// Runs the server until a signal ends it.
///
/// # Errors
/// A failure that says what kept it from starting.
pub fn run(config: &Config, besides: Besides) -> Result<(), Failure> {
    limits::no_core_dumps().map_err(|e| Failure::new(format!("core dumps can't be turned off: {e}")))?;
    let notifier = Notifier::from_env().map_err(Failure::new)?;
    let log = log::start(config.log.format, config.log.level).map_err(Failure::new)?;
    let lock = ServerLock::take(&config.database.path)?;
    let house = Arc::new(open(config, lock)?);
    let server = &config.server;
    let doors = Doors {
        certificates: Watched::load(config)?,
        rest: bind("listen_addr", server.listen_addr)?,
        grpc: server.grpc_addr.map(|address| bind("grpc_addr", address)).transpose()?,
        files: limits::raise_open_files(),
    };
    let runtime = runtime(config)?;

    let ended = runtime.block_on(serve(config, &house, doors, &notifier, &log, besides));
    // Tasks hold the house too. Once they are gone this is the last one, and closing the database leaves no WAL file.
    runtime.shutdown_timeout(LAST_WORK);
    say_stopped(&house.service);
    drop(house);
    info!("stopped");
    ended
}

/// Opens the database and what is before it.
fn open(config: &Config, lock: ServerLock) -> Result<House, Failure> {
    let path = &config.database.path;
    if !path.exists() {
        warn!(path = %path.display(), "there is no database yet: making one");
    }
    let clock = Clock::System;
    let master = secrets::master_key(config)?;
    let slots = limits::hashing_slots(config.argon2.slots, config.argon2.memory_kib);
    let policy = Policy::new(config, secrets::blocklist(config)?, slots)?;
    let store = Store::open_and_migrate(path, Occasion { time: clock.millis(), via: Via::Server, ip: None })?;
    let service = Service::open(store, &master, policy, clock, Via::Server)?;
    service.keep(lock);

    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let lanes = Lanes::new(threads * 2, slots, config.argon2.queue as usize);
    let known = service.store().read(|view| view.recent_login_addresses(KNOWN_LOGINS))?;
    for address in known.into_iter().rev().flatten() {
        if let Ok(address) = address.parse() {
            lanes.logged_in(address);
        }
    }
    let limit = &config.rate_limit;
    let rate = |rps, burst| Rate { rps, burst };
    let rates = Rates {
        credential: rate(limit.rps, limit.burst),
        validate: rate(limit.validate_rps, limit.validate_burst),
        api: rate(limit.api_rps, limit.api_burst),
        validate_exempt: limit.validate_exempt.clone(),
    };
    Ok(House {
        service: Arc::new(service),
        lanes,
        limiter: Limiter::new(rates, std::hash::RandomState::new(), Instant::now()),
        trusted_proxies: config.server.trusted_proxies.clone(),
    })
}

fn bind(key: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    let failed = |e: std::io::Error| Failure::new(format!("cannot listen on [server] {key} {address}: {e}"));
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

fn runtime(config: &Config) -> Result<Runtime, Failure> {
    let slots = limits::hashing_slots(config.argon2.slots, config.argon2.memory_kib);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(threads * 2 + slots + 4)
        .enable_all()
        .build()
        .map_err(|e| Failure::new(format!("cannot start the runtime: {e}")))
}

/// What the doors are made of.
struct Doors {
    certificates: Watched,
    rest: TcpListener,
    grpc: Option<TcpListener>,
    /// How many files may be open.
    files: u64,
}

/// From the open doors to the closed ones.
async fn serve(
    config: &Config,
    house: &Arc<House>,
    doors: Doors,
    notifier: &Notifier,
    log: &Log,
    besides: Besides,
) -> Result<(), Failure> {
    let Doors { mut certificates, rest: rest_listener, grpc: grpc_listener, files } = doors;
    let mut signals =
        Signals::new(besides.ends_with_stdin).map_err(|e| Failure::new(format!("cannot listen for signals: {e}")))?;
    let allowed = usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX).max(1);
    let connections = Connections::new(Limits {
        connections: (config.server.max_connections as usize).min(allowed),
        per_client: config.server.max_connections_per_client as usize,
        uncapped: config.server.trusted_proxies.clone(),
        time: TimeLimits::default(),
    });
    let tls = |alpn: &[&[u8]]| {
        tls::server_config(certificates.certificates.clone(), config.server.min_tls, alpn).map_err(Failure::new)
    };
    let (rest_listener, rest_address) = listening(rest_listener)?;
    let rest_tls = tls(&[b"h2", b"http/1.1"])?;
    let grpc = match grpc_listener {
        Some(listener) => Some((listening(listener)?, tls(&[b"h2"])?, Arc::new(Grpc::new(house.clone())?))),
        None => None,
    };

    let mut started = begin(&house.service);
    let rest = Arc::new(Rest::new(house.clone()));
    let door = move |request, from: ConnInfo| {
        let rest = rest.clone();
        async move { rest.handle(request, from.peer).await }
    };
    tokio::spawn(listen::serve(rest_listener, rest_tls, Protocol::Http1, door, connections.clone()));
    info!(version = VERSION, door = "rest", address = %rest_address, "listening");
    let mut grpc_address = None;
    if let Some(((listener, address), tls, grpc)) = grpc {
        let door = move |request, from: ConnInfo| {
            let grpc = grpc.clone();
            async move { grpc.handle(request, from.peer).await }
        };
        tokio::spawn(listen::serve(listener, tls, Protocol::Http2, door, connections.clone()));
        info!(version = VERSION, door = "grpc", %address, "listening");
        grpc_address = Some(address);
    }
    notifier.ready();
    if let Some(listening) = besides.listening {
        listening(rest_address, grpc_address)?;
    }

    let mut complaint = Complaint::default();
    let mut pace = Pace::new(Clock::System.now(), Instant::now());
    let mut clock_tick = every(LOOK_AT_CLOCK);
    let mut certificate_tick = every(LOOK_AT_CERTIFICATE);
    let mut hourly_tick = every(HOURLY);
    let mut watchdog_tick = every(notifier.watchdog_period().map_or(HOURLY, |period| period / 2));
    let count = |house: &Arc<House>| on_a_thread(house, |service| service.count_params_in_use());
    count(house);
    loop {
        tokio::select! {
            _ = clock_tick.tick() => {
                look_at_data_keys(&house.service);
                if look_at_clock(&house.service) && !started {
                    started = begin(&house.service);
                }
                complaint.look_at(&house.service);
                pace.look(Clock::System.now(), Instant::now());
            }
            _ = certificate_tick.tick() => {
                certificates.look(false);
                certificates.warn_of_end(Clock::System.now());
            }
            _ = hourly_tick.tick() => {
                pace.look(Clock::System.now(), Instant::now());
                let may_prune = pace.steady_for(Instant::now()) >= HOURLY;
                on_a_thread(house, move |service| hourly(service, may_prune));
                count(house);
            }
            _ = watchdog_tick.tick() => {
                if house.service.store().read(|view| view.newest_event_time()).is_ok() {
                    notifier.watchdog();
                }
            }
            told = signals.next() => match told {
                Told::End => break,
                Told::Reload => {
                    notifier.reloading();
                    certificates.look(true);
                    reload_level(config, log);
                    notifier.ready();
                }
            },
        }
    }

    house.service.begin_draining();
    info!("draining");
    notifier.stopping();
    let drain = async {
        let told = TELL_DRAINING.min(config.server.drain);
        let begun = Instant::now();
        connections.settle(told).await;
        connections.drain(config.server.drain.saturating_sub(begun.elapsed())).await
    };
    let clean = tokio::select! {
        clean = drain => clean,
        () = signals.end() => false,
    };
    if !clean {
        warn!("requests were still under way when the time to drain was over");
    }
    Ok(())
}

/// A bound listener for the runtime, and where it listens.
fn listening(bound: TcpListener) -> Result<(tokio::net::TcpListener, SocketAddr), Failure> {
    let failed = |e: std::io::Error| Failure::new(format!("cannot listen: {e}"));
    let listener = tokio::net::TcpListener::from_std(bound).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

fn reload_level(config: &Config, log: &Log) {
    match config::load(&config.file) {
        Ok(config) => log.set_level(config.log.level),
        Err(e) => error!(cause = %e, "the configuration can't be read again; the log level stays"),
    }
}

/// A clock that ticks for the first time after a whole period.
fn every(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.reset();
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
