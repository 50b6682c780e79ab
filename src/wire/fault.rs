//! THE error table: kind, code word, HTTP status, gRPC status. The server reads it one way, the clients the other.

use crate::error::Kind;

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// Ours.
    pub kind: Kind,
    /// The word for programs.
    pub code: &'static str,
    /// The HTTP status (RFC 9110, section 15).
    pub http: u16,
    /// The gRPC status code.
    pub grpc: i32,
}

const fn row(kind: Kind, code: &'static str, http: u16, grpc: i32) -> Fault {
    Fault { kind, code, http, grpc }
}

/// Every kind. Where two share a status, the one a client reads back comes first.
pub const TABLE: &[Fault] = &[
    row(Kind::InvalidRequest, "invalid_request", 400, 3),
    row(Kind::Unauthorized, "unauthorized", 401, 16),
    row(Kind::Forbidden, "forbidden", 403, 7),
    row(Kind::NotFound, "not_found", 404, 5),
    row(Kind::MethodNotAllowed, "method_not_allowed", 405, 12),
    row(Kind::Conflict, "conflict", 409, 9),
    row(Kind::NameTaken, "conflict", 409, 6),
    row(Kind::PayloadTooLarge, "payload_too_large", 413, 8),
    row(Kind::UnsupportedMediaType, "unsupported_media_type", 415, 3),
    row(Kind::RateLimited, "rate_limited", 429, 8),
    row(Kind::Internal, "internal", 500, 13),
    row(Kind::Unavailable, "unavailable", 503, 14),
    row(Kind::DeadlineExceeded, "deadline_exceeded", 504, 4),
    row(Kind::Unimplemented, "unimplemented", 501, 12),
];

/// The row of a kind.
pub fn of(kind: Kind) -> &'static Fault {
    TABLE.iter().find(|row| row.kind == kind).unwrap_or(&TABLE[INTERNAL])
}

/// The kind that an HTTP answer means: by its code word, else by its status.
pub fn from_http(status: u16, code: Option<&str>) -> Kind {
    let by_code = TABLE.iter().find(|row| row.http == status && code.is_none_or(|code| code == row.code));
    by_code.or_else(|| TABLE.iter().find(|row| row.http == status)).map_or(Kind::Internal, |row| row.kind)
}

/// The kind that a gRPC status means: by its code word, else by its number.
pub fn from_grpc(status: i32, code: Option<&str>) -> Kind {
    let by_code = TABLE.iter().find(|row| row.grpc == status && code.is_none_or(|code| code == row.code));
    by_code.or_else(|| TABLE.iter().find(|row| row.grpc == status)).map_or(Kind::Internal, |row| row.kind)
}

const INTERNAL: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_row_and_is_read_back() {
        assert_eq!(TABLE[INTERNAL].kind, Kind::Internal);
        for row in TABLE {
            assert_eq!(of(row.kind).kind, row.kind, "{row:?}");
            let back = from_http(row.http, Some(row.code));
            assert_eq!(of(back).code, row.code, "{row:?}");
            assert_eq!(from_grpc(row.grpc, Some(row.code)), row.kind, "{row:?}");
        }
        assert_eq!(from_grpc(8, None), Kind::PayloadTooLarge);
        assert_eq!(from_grpc(2, Some("unknown")), Kind::Internal);
        assert_eq!(from_http(429, None), Kind::RateLimited);
        assert_eq!(from_http(418, None), Kind::Internal);
    }
}
