//! Whether a form was sent from a page of ours.

use http::{HeaderMap, HeaderName, header};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether a request that changes something comes from our own pages, as far as its browser says.
///
/// A browser's own word (`Sec-Fetch-Site`) decides, where it is sent: no page can set it, and it is right behind
/// a proxy that changes the host. Otherwise the origin has to be the host that was asked. A client that sends
/// neither is no browser that somebody else's page could make use of, or an old one: the token in the form is
/// then what stands between.
pub(crate) fn is_ours(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        return site == "same-origin" || site == "none";
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    match (origin, host) {
        (Some((scheme, authority)), Some(host)) => {
            without_default_port(scheme, authority).eq_ignore_ascii_case(without_default_port(scheme, host))
        }
        // "null" among them: a page without an origin is not ours.
        _ => false,
    }
}

fn without_default_port<'a>(scheme: &str, authority: &'a str) -> &'a str {
    let default = if scheme == "https" { ":443" } else { ":80" };
    authority.strip_suffix(default).unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn is_ours_with(fields: &[(HeaderName, &'static str)]) -> bool {
        let field =
            |(name, value): &(HeaderName, &'static str)| (name.clone(), HeaderValue::from_static(value));
        is_ours(&fields.iter().map(field).collect())
    }

    #[test]
    fn the_word_of_the_browser_decides() {
        let evil = (header::ORIGIN, "https://evil.example");
        for (site, ours) in
            [("same-origin", true), ("none", true), ("same-site", false), ("cross-site", false), ("", false)]
        {
            assert_eq!(is_ours_with(&[(SEC_FETCH_SITE, site)]), ours, "{site}");
            assert_eq!(is_ours_with(&[(SEC_FETCH_SITE, site), evil.clone()]), ours, "{site}");
        }
    }

    #[test]
    fn without_it_the_origin_is_the_host() {
        let from = |origin, host| is_ours_with(&[(header::ORIGIN, origin), (header::HOST, host)]);
        assert!(from("http://127.0.0.1:3000", "127.0.0.1:3000"));
        assert!(
            from("https://sale.example", "Sale.example") && from("https://sale.example", "sale.example:443")
        );
        for origin in [
            "https://evil.example",
            "https://sale.example.evil",
            "https://sale.example:8443",
            "null",
            "",
            "sale.example",
        ] {
            assert!(!from(origin, "sale.example"), "{origin}");
        }
        assert!(!is_ours_with(&[(header::ORIGIN, "https://sale.example")]));
        assert!(is_ours_with(&[]));
    }
}
