//! HTTP/2 as an attacker speaks it, frame by frame, at both doors: what is over a limit is cut off, and everybody else
//! is answered meanwhile.

mod support;

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use mcias::wire::proto::v1;
use support::{Connection, Server, trusting};

static SERVER: LazyLock<Server> = LazyLock::new(Server::start);

/// Frames (RFC 9113, section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// Errors (RFC 9113, section 7).
const PROTOCOL_ERROR: u32 = 1;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags][..], &stream.to_be_bytes()[..], payload].concat()
}

/// A text of HPACK without Huffman's code (RFC 7541, section 5.2).
fn text(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut length = text.len();
    if length < 127 {
        bytes.push(length as u8);
    } else {
        bytes.push(127);
        length -= 127;
        while length >= 128 {
            bytes.push((length % 128) as u8 | 128);
            length /= 128;
        }
        bytes.push(length as u8);
    }
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// A header that isn't indexed (RFC 7541, section 6.2.2).
fn header(name: &str, value: &str) -> Vec<u8> {
    [vec![0], text(name), text(value)].concat()
}

/// One of the two doors, as an attacker finds it.
#[derive(Clone, Copy)]
struct Door {
    name: &'static str,
    address: SocketAddr,
    /// Where a body is read.
    reads: &'static str,
    content_type: &'static str,
}

impl Door {
    /// The header block of a request whose body would be read.
    fn request(&self) -> Vec<u8> {
        // POST and https from the table; path and authority by its names (RFC 7541, appendix A).
        let begin = [&[0x83, 0x87, 0x04], &*text(self.reads), &[0x01][..], &*text("localhost")].concat();
        [begin, header("content-type", self.content_type)].concat()
    }

    /// A connection on which the preface has been said.
    fn connect(&self) -> Connection {
        let tls = trusting(&SERVER.text("tls/ca.crt"), &[b"h2"]);
        let mut connection = Connection::open(self.address, tls).unwrap();
        connection.say([&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &*frame(SETTINGS, 0, 0, &[])].concat());
        connection
    }
}

fn doors() -> [Door; 2] {
    let server = &*SERVER;
    let rest = Door {
        name: "REST",
        address: server.door().address().unwrap(),
        reads: "/v1/auth/login",
        content_type: "application/json",
    };
    let grpc = Door {
        name: "gRPC",
        address: server.grpc_address(),
        reads: "/mcias.v1.AuthService/Login",
        content_type: "application/grpc",
    };
    [rest, grpc]
}

/// The frames that come until the server closes, or until `enough`.
fn frames(connection: &mut Connection, mut enough: impl FnMut(u8, u8, &[u8]) -> bool) -> bool {
    let mut unread = Vec::new();
    loop {
        let more = connection.receive_bytes();
        if more.is_empty() {
            return false;
        }
        unread.extend(more);
        while unread.len() >= 9 {
            let length = u32::from_be_bytes([0, unread[0], unread[1], unread[2]]) as usize;
            if unread.len() < 9 + length {
                break;
            }
            let frame: Vec<u8> = unread.drain(..9 + length).collect();
            if enough(frame[3], frame[4], &frame[9..]) {
                return true;
            }
        }
    }
}

/// Says all of it, or as much as the server takes, and insists on being cut off for that reason.
#[track_caller]
fn is_cut_off_after(door: &Door, mut connection: Connection, what: &[u8], because: &[u32]) {
    for some in what.chunks(64 * 1024) {
        if connection.send(some).is_err() {
            break;
        }
    }
    let mut why = None;
    frames(&mut connection, |kind, _, payload| {
        why = (kind == GOAWAY).then(|| u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        // Zero says that it means to close, and that nothing is wrong yet.
        why.is_some_and(|why| why != 0)
    });
    assert!(why.is_some_and(|why| because.contains(&why)), "{}: {why:?}", door.name);
}

/// Asks at both doors, on connections of their own, until the attack is over; and insists on answers.
fn while_others_are_answered(attack: impl FnOnce() + Send) {
    let server = &*SERVER;
    let over = AtomicBool::new(false);
    let (rest, grpc) = (server.client().over_http2(), server.grpc());
    let ask = || {
        rest.get("/v1/health").ok(200);
        server.client().get("/v1/health").ok(200);
        grpc.call("AdminService/Health").message(&v1::HealthRequest {}).ok::<v1::HealthResponse>();
        // And who comes only now is let in.
        server.grpc().call("AdminService/Health").message(&v1::HealthRequest {}).ok::<v1::HealthResponse>();
    };
    std::thread::scope(|scope| {
        let attacker = scope.spawn(|| {
            attack();
            over.store(true, Ordering::SeqCst);
        });
        while !over.load(Ordering::SeqCst) && !attacker.is_finished() {
            ask();
        }
        attacker.join().unwrap_or_else(|e| std::panic::resume_unwind(e));
    });
    ask();
}

fn stream(n: usize) -> u32 {
    2 * n as u32 + 1
}

#[test]
fn streams_that_are_reset_as_soon_as_they_are_opened_end_the_connection() {
    while_others_are_answered(|| {
        for door in doors() {
            let reset = |n| {
                let opened = frame(HEADERS, END_HEADERS | END_STREAM, stream(n), &door.request());
                [opened, frame(RST_STREAM, 0, stream(n), &CANCEL.to_be_bytes())].concat()
            };
            let resets: Vec<u8> = (0..5000).flat_map(reset).collect();
            is_cut_off_after(&door, door.connect(), &resets, &[ENHANCE_YOUR_CALM]);
        }
    });
}

#[test]
fn streams_that_the_server_is_made_to_reset_end_the_connection() {
    while_others_are_answered(|| {
        for door in doors() {
            // Each may be a stream's error: a window that grows by nothing or by too much (RFC 9113, section 6.9), and a
            // body after its end (section 5.1). Some are taken for a connection's, which ends it at once.
            let window = |by: u32| move |stream| frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
            type Spoil = Box<dyn Fn(u32) -> Vec<u8>>;
            let spoils: [(u8, Spoil, &[u32]); 3] = [
                (0, Box::new(window(0)), &[PROTOCOL_ERROR]),
                (0, Box::new(window(0x7fff_ffff)), &[ENHANCE_YOUR_CALM]),
                (END_STREAM, Box::new(|stream| frame(DATA, 0, stream, b"x")), &[ENHANCE_YOUR_CALM, PROTOCOL_ERROR]),
            ];
            for (ends, spoil, because) in spoils {
                let made =
                    |n| [frame(HEADERS, END_HEADERS | ends, stream(n), &door.request()), spoil(stream(n))].concat();
                let resets: Vec<u8> = (0..1000).flat_map(made).collect();
                is_cut_off_after(&door, door.connect(), &resets, because);
            }
        }
    });
}

#[test]
fn headers_without_an_end_end_the_connection() {
    while_others_are_answered(|| {
        for door in doors() {
            for piece in [header("x", &"y".repeat(1000)), vec![]] {
                let begun = frame(HEADERS, END_STREAM, 1, &door.request());
                let piece = frame(CONTINUATION, 0, 1, &piece);
                let endless = [begun, piece.repeat((1 << 20) / piece.len())].concat();
                is_cut_off_after(&door, door.connect(), &endless, &[ENHANCE_YOUR_CALM, PROTOCOL_ERROR]);
            }
        }
    });
}

#[test]
fn a_header_list_over_16_kib_is_refused_and_the_connection_goes_on() {
    let (rest, grpc) = (SERVER.client().over_http2(), SERVER.grpc());
    let large = "x".repeat(17 * 1024);
    for _ in 0..100 {
        assert_eq!(rest.get("/v1/health").header("x-large", &large).try_send().unwrap().status, 431);
        let health = || grpc.call("AdminService/Health").message(&v1::HealthRequest {});
        assert_eq!(health().header("x-large", &large).try_send().unwrap().http, 431);
        rest.get("/v1/health").ok(200);
        health().header("x-large", &large[2048..]).ok::<v1::HealthResponse>();
    }
}

#[test]
fn of_many_streams_at_once_those_over_the_limit_are_refused() {
    while_others_are_answered(|| {
        for door in doors() {
            let mut connection = door.connect();
            // Whose bodies never come.
            let opened = (0..2000).flat_map(|n| frame(HEADERS, END_HEADERS, stream(n), &door.request()));
            let _ = connection.send(opened.collect::<Vec<u8>>());
            let mut refused = 0;
            let said = frames(&mut connection, |kind, _, _| {
                refused += usize::from(kind == RST_STREAM);
                kind == GOAWAY || refused > 1000
            });
            assert!(said, "{}: 2,000 streams at once", door.name);
        }
    });
}

#[test]
fn frames_that_cost_an_answer_or_nothing_keep_nobody_else_waiting() {
    let server = &*SERVER;
    server.client().get("/v1/health").ok(200);
    let before = server.memory_kib("VmRSS");
    while_others_are_answered(|| {
        for door in doors() {
            // None of the answers is read.
            for flood in
                [frame(PING, 0, 0, &[7; 8]), frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 9])]
            {
                let mut connection = door.connect();
                let _ = connection.send(flood.repeat(40_000));
            }
            // Nothing, again and again, into a body that is awaited.
            let mut connection = door.connect();
            connection.say(frame(HEADERS, END_HEADERS, 1, &door.request()));
            let _ = connection.send(frame(DATA, 0, 1, &[]).repeat(200_000));
        }
    });
    let grown = server.memory_kib("VmHWM").saturating_sub(before);
    assert!(grown < 48 * 1024, "{grown} KiB");
}

#[test]
fn answers_that_are_not_taken_keep_nobody_else_waiting() {
    while_others_are_answered(|| {
        for door in doors() {
            let mut connection = door.connect();
            // A window of no bytes for every stream (RFC 9113, section 6.5.2).
            connection.say(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
            for n in 0..100 {
                let opened = frame(HEADERS, END_HEADERS, stream(n), &door.request());
                connection.say([opened, frame(DATA, END_STREAM, stream(n), b"x")].concat());
            }
            let mut answered = 0;
            let all = frames(&mut connection, |kind, _, _| {
                answered += usize::from(kind == HEADERS);
                answered == 100
            });
            assert!(all, "{}: {answered} answers", door.name);
        }
    });
}
