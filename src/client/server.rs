//! Where a server is, as its user says it.

use std::fmt;

/// A server's address: a host, a port, and the path before `/v1` where a proxy puts it below one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    host: String,
    port: u16,
    base: String,
    is_url: bool,
}

impl Server {
    /// Reads an `https` URL, or what stands after its `https://`. Without a port it is 443.
    ///
    /// # Errors
    /// Saying what is wrong with it.
    pub fn parse_url(text: &str) -> Result<Self, String> {
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => rest,
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("http") => {
                return Err("a server is asked over https, never over http".into());
            }
            Some(_) => return Err("it must be a URL that begins with https://".into()),
            None => text,
        };
        let (authority, base) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if base.contains(['?', '#']) || base.bytes().any(|b| !b.is_ascii_graphic()) {
            return Err("its path must be plain, without a query".into());
        }
        let (host, port) = host_and_port(authority)?;
        Ok(Self { host, port: port.unwrap_or(443), base: base.trim_end_matches('/').to_owned(), is_url: true })
    }

    /// Reads `host:port`, as gRPC has it; an `https://` before it is passed over. Without a port it is 443.
    ///
    /// # Errors
    /// Saying what is wrong with it.
    pub fn parse_authority(text: &str) -> Result<Self, String> {
        let server = Self::parse_url(text)?;
        if !server.base.is_empty() {
            return Err("it must be a host and a port: gRPC knows no path before its own".into());
        }
        Ok(Self { is_url: false, ..server })
    }

    /// What to connect to: a name, or an address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path before `/v1`; mostly empty.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Host and port, as in a `Host` header.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// As it was given, a URL or a host and a port, always in the same spelling: what it says is what a token is kept under.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_url {
            return f.write_str(&self.authority());
        }
        write!(f, "https://{}{}", self.authority(), self.base)
    }
}

fn host_and_port(authority: &str) -> Result<(String, Option<u16>), String> {
    let no_port = || "its port must be a number from 1 to 65535".to_owned();
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']').ok_or("it has a '[' without a ']'")?;
            let address: std::net::Ipv6Addr =
                address.parse().map_err(|_| "between '[' and ']' must be an IPv6 address")?;
            match after.strip_prefix(':') {
                None if !after.is_empty() => return Err(no_port()),
                port => (address.to_string(), port),
            }
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host.to_ascii_lowercase(), Some(port)),
            None => (authority.to_ascii_lowercase(), None),
        },
    };
    // An empty port is none (RFC 3986, section 3.2.3).
    let port = match port.filter(|port| !port.is_empty()) {
        Some(digits) => {
            let number = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
            Some(number.filter(|port| *port != 0).ok_or_else(no_port)?)
        }
        None => None,
    };
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._:".contains(&b);
    if host.is_empty() || !host.bytes().all(fits) {
        return Err("it must name a host, as in https://auth.example.com:8443".into());
    }
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_server_has_one_spelling() {
        for (text, shown) in [
            ("https://auth.example.com:8443", "https://auth.example.com:8443"),
            ("HTTPS://Auth.Example.COM:8443/", "https://auth.example.com:8443"),
            ("auth.example.com", "https://auth.example.com:443"),
            ("localhost:8443", "https://localhost:8443"),
            ("https://127.0.0.1:8443", "https://127.0.0.1:8443"),
            ("https://[0:0::1]:8443", "https://[::1]:8443"),
            ("[::1]", "https://[::1]:443"),
            ("https://example.com:/sso/mcias//", "https://example.com:443/sso/mcias"),
        ] {
            assert_eq!(Server::parse_url(text).unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn grpc_is_at_a_host_and_a_port() {
        for (text, shown) in [("auth.example.com:9443", "auth.example.com:9443"), ("https://[::1]:9443/", "[::1]:9443")]
        {
            assert_eq!(Server::parse_authority(text).unwrap().to_string(), shown);
        }
        assert!(Server::parse_authority("auth.example.com:9443/mcias").is_err());
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for (text, why) in [
            ("http://auth.example.com", "never over http"),
            ("ftp://auth.example.com", "begins with https://"),
            ("https://", "name a host"),
            ("", "name a host"),
            ("https://a:0", "port"),
            ("https://a:65536", "port"),
            ("https://a:+1", "port"),
            ("https://a:b", "port"),
            ("https://user:pw@host", "port"),
            ("https://user@host", "name a host"),
            ("https://a b", "name a host"),
            ("https://a/?x", "without a query"),
            ("https://[::1", "']'"),
            ("https://[a]:1", "IPv6"),
            ("https://[::1]x", "port"),
        ] {
            let error = Server::parse_url(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
