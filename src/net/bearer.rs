//! The token that a request carries, in the one form there is of it (RFC 6750, section 2.1).

use hyper::header::{AUTHORIZATION, HeaderMap};

use crate::secret::BearerToken;

/// The token of the one `Authorization` header: scheme in any case, one space, no space after (RFC 6750, 2.1).
pub fn bearer(headers: &HeaderMap) -> Option<BearerToken> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let fits = scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && !token.contains([' ', '\t', ',']);
    fits.then(|| BearerToken::new(token.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_well_formed_authorization_header_counts() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, value.parse().unwrap());
            }
            bearer(&headers).map(|token| token.expose().to_owned())
        };
        assert_eq!(read(&["Bearer a.b.c"]).as_deref(), Some("a.b.c"));
        assert_eq!(read(&["bEARER a.b.c"]).as_deref(), Some("a.b.c"));
        for bad in [
            &["Bearer  a.b.c"][..],
            &["Bearer\ta.b.c"],
            &["Bearer a.b.c d"],
            &["Bearer "],
            &["Bearer"],
            &["Basic a.b.c"],
            &["a.b.c"],
            &["Bearer a.b.c", "Bearer a.b.c"],
            &["Bearer a,b"],
            &[],
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
