//! What makes the load: clients that speak TLS and as much HTTP/1.1 as the answers need.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Barrier;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::Connection;

/// Connections that are kept, and ask as soon as they are answered.
const CONNECTIONS: usize = 32;

/// Who is asked.
#[derive(Clone)]
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    /// How it is known.
    pub tls: Arc<ClientConfig>,
}

/// When to stop asking.
#[derive(Clone, Copy)]
pub enum Until {
    /// When each request was sent once.
    EachOnce,
    /// After this time, beginning anew at the end of the list.
    Passed(Duration),
}

impl Target {
    /// Sends the requests in turn over kept connections, in a closed loop; gives answers a second. Every answer has to
    /// be 200 and to have `"valid":true` in it.
    pub fn rate(&self, requests: &Arc<[Vec<u8>]>, until: Until) -> f64 {
        runtime().block_on(async {
            let shared = Arc::new((AtomicUsize::new(0), AtomicBool::new(false), Barrier::new(CONNECTIONS + 1)));
            let mut clients = Vec::new();
            for _ in 0..CONNECTIONS {
                let (target, requests, shared) = (self.clone(), requests.clone(), shared.clone());
                clients.push(tokio::spawn(async move {
                    let mut stream = target.connect(Ipv4Addr::LOCALHOST).await.unwrap();
                    let (next, stop, ready) = &*shared;
                    let mut buffer = Vec::new();
                    let mut answered = 0_u64;
                    ready.wait().await;
                    while !stop.load(Ordering::Relaxed) {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        if n >= requests.len() && matches!(until, Until::EachOnce) {
                            break;
                        }
                        stream.write_all(&requests[n % requests.len()]).await.unwrap();
                        answer(&mut stream, &mut buffer).await.unwrap();
                        let good = buffer.windows(12).any(|part| part == b"\"valid\":true");
                        assert!(buffer.starts_with(b"HTTP/1.1 200 ") && good, "{}", String::from_utf8_lossy(&buffer));
                        answered += 1;
                    }
                    answered
                }));
            }
            shared.2.wait().await;
            let begun = Instant::now();
            if let Until::Passed(window) = until {
                tokio::time::sleep(window).await;
                shared.1.store(true, Ordering::Relaxed);
            }
            let mut answered = 0;
            for client in clients {
                answered += client.await.unwrap();
            }
            answered as f64 / begun.elapsed().as_secs_f64()
        })
    }

    /// New connections a second, in a closed loop: a whole hand-shake, one request that is answered, and the end.
    pub fn connection_rate(&self, window: Duration) -> f64 {
        runtime().block_on(async {
            let begun = Instant::now();
            let clients: Vec<_> = (0..CONNECTIONS)
                .map(|n| {
                    let target = self.clone();
                    tokio::spawn(async move {
                        let mut buffer = Vec::new();
                        let mut made = 0_u64;
                        while begun.elapsed() < window {
                            let mut stream = target.connect(Ipv4Addr::new(127, 0, 0, 1 + n as u8)).await.unwrap();
                            stream.write_all(b"GET /v1/health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
                            answer(&mut stream, &mut buffer).await.unwrap();
                            assert!(buffer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&buffer));
                            made += 1;
                        }
                        made
                    })
                })
                .collect();
            let mut made = 0;
            for client in clients {
                made += client.await.unwrap();
            }
            made as f64 / begun.elapsed().as_secs_f64()
        })
    }

    /// Sends all of the requests at the same moment, each over a connection of its own from a network (/24) of its own;
    /// gives the statuses.
    pub fn storm(&self, requests: Vec<Vec<u8>>) -> Vec<u16> {
        runtime().block_on(async {
            let ready = Arc::new(Barrier::new(requests.len()));
            let clients: Vec<_> = requests
                .into_iter()
                .zip(0_u32..)
                .map(|(request, n)| {
                    let (target, ready) = (self.clone(), ready.clone());
                    tokio::spawn(async move {
                        let from = Ipv4Addr::from_bits(u32::from(Ipv4Addr::LOCALHOST) + (n << 8));
                        let mut stream = target.connect(from).await.unwrap();
                        ready.wait().await;
                        stream.write_all(&request).await.unwrap();
                        let mut buffer = Vec::new();
                        answer(&mut stream, &mut buffer).await.unwrap();
                        std::str::from_utf8(&buffer[9..12]).unwrap().parse().unwrap()
                    })
                })
                .collect();
            let mut statuses = Vec::new();
            for client in clients {
                statuses.push(client.await.unwrap());
            }
            statuses
        })
    }

    /// Sends requests at a fixed rate, whatever becomes of them, and times each from the moment it was meant to be
    /// sent, in milliseconds: what waits behind a slow answer counts as slow itself.
    pub fn open_loop(&self, requests: &[Vec<u8>], per_second: u32, window: Duration) -> Vec<f64> {
        const CLIENTS: u32 = 16;
        let interval = Duration::from_secs(1) * CLIENTS / per_second;
        let each = (window.as_nanos() / interval.as_nanos()).max(1) as u32;
        let begun = Instant::now() + Duration::from_millis(200);
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|n| {
                    scope.spawn(move || {
                        let mut connection = Connection::open(self.address, self.tls.clone()).unwrap();
                        let mut took = Vec::new();
                        for k in 0..each {
                            let meant = begun + interval * k + interval * n / CLIENTS;
                            std::thread::sleep(meant.saturating_duration_since(Instant::now()));
                            connection.send(&requests[(k * CLIENTS + n) as usize % requests.len()]).unwrap();
                            assert_eq!(connection.receive(false).unwrap().status, 200);
                            took.push(meant.elapsed().as_secs_f64() * 1000.0);
                        }
                        took
                    })
                })
                .collect();
            clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
        })
    }

    async fn connect(&self, from: Ipv4Addr) -> io::Result<TlsStream<TcpStream>> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(IpAddr::V4(from), 0))?;
        let socket = socket.connect(self.address).await?;
        socket.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        TlsConnector::from(self.tls.clone()).connect(name, socket).await
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

/// Reads one whole answer, the only one that is on its way.
async fn answer(stream: &mut TlsStream<TcpStream>, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.clear();
    let mut whole = None;
    while whole.is_none_or(|whole| buffer.len() < whole) {
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        whole = whole.or_else(|| length(buffer));
    }
    Ok(())
}

/// How long the answer is whose head is there.
fn length(buffer: &[u8]) -> Option<usize> {
    let end = buffer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&buffer[..end]).ok()?;
    let (_, value) = head.split_once("content-length: ")?;
    Some(end + value.split("\r\n").next()?.parse::<usize>().ok()?)
}
