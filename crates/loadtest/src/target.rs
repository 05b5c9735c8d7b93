//! Where the server is, and how the paths of its endpoints are written.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::thread;
use std::time::Duration;

use hyper::Uri;
use hyper::header::HeaderValue;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::Error;

/// Where purchases go.
pub(crate) const PURCHASE_PATH: &str = "/api/v1/sale/purchase";

/// A server that accepted a connection.
#[derive(Debug)]
pub(crate) struct Target {
    /// The address that accepted it, so that a name like `localhost` is looked up once and not per connection.
    pub(crate) address: SocketAddr,
    /// Value of the `Host` header.
    pub(crate) host: HeaderValue,
}

impl Target {
    /// Looks the host up and keeps its first address that accepts a connection, all within `timeout`.
    pub(crate) async fn find(url: &str, timeout: Duration) -> Result<Self, Error> {
        let base = Base::parse(url)?;
        let host = HeaderValue::from_str(&base.authority)
            .expect("an authority that parsed holds visible ASCII only");
        let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {timeout:?}"));
        let found = tokio::time::timeout(timeout, base.accepting()).await.unwrap_or_else(|_| Err(late()));
        match found {
            Ok(address) => Ok(Self { address, host }),
            Err(source) => Err(Error::Connect { authority: base.authority, source }),
        }
    }
}

/// A base url, taken apart.
#[derive(Debug, PartialEq)]
pub(crate) struct Base {
    pub(crate) authority: String,
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Base {
    pub(crate) fn parse(url: &str) -> Result<Self, Error> {
        let refuse = |reason: &str| Error::Url { url: url.to_owned(), reason: reason.to_owned() };
        let uri: Uri = url.parse().map_err(|error| refuse(&format!("does not parse: {error}")))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some(_) => return Err(refuse("must begin with http:// (no other scheme is spoken)")),
            None => return Err(refuse("must begin with http://")),
        }
        let authority = uri.authority().ok_or_else(|| refuse("has no host"))?;
        if authority.as_str().contains('@') {
            return Err(refuse("must not hold a user or password"));
        }
        if uri.path() != "/" || uri.query().is_some() {
            return Err(refuse("must end after the port: the paths are known"));
        }
        // A port that is there but out of range reads as none; it must not become 80 in silence.
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            None if authority.as_str().len() == authority.host().len() => 80,
            None => return Err(refuse("has a port that is no port")),
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(refuse("has no host"));
        }
        Ok(Self { authority: authority.as_str().to_owned(), host, port })
    }

    /// The first address that accepts a connection.
    async fn accepting(&self) -> io::Result<SocketAddr> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for address in look_up(self.host.clone(), self.port).await? {
            match TcpStream::connect(address).await {
                Ok(_) => return Ok(address),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// Looks a host up, on a thread that nobody waits for: for one of the runtime's, the program would wait at its end as
/// long as the resolver takes.
async fn look_up(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    let (told, found) = oneshot::channel();
    thread::Builder::new().spawn(move || {
        let addresses = (host.as_str(), port).to_socket_addrs().map(Vec::from_iter);
        // Whoever asked may have given up.
        let _ = told.send(addresses);
    })?;
    found.await.map_err(io::Error::other)?
}

/// Path of a sale's status.
pub(crate) fn status_path(sale: &str) -> String {
    format!("/api/v1/sale/{}/status", segment(sale))
}

/// Path of what a user has bought in a sale.
pub(crate) fn user_path(sale: &str, user: &str) -> String {
    format!("/api/v1/sale/{}/user/{}/purchase", segment(sale), segment(user))
}

/// Percent-encodes all but the unreserved characters of RFC 3986, so that an id stays one path segment.
fn segment(id: &str) -> String {
    let mut encoded = String::with_capacity(id.len());
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(url: &str) -> (String, u16) {
        let base = Base::parse(url).expect("parses");
        (base.host, base.port)
    }

    #[test]
    fn a_base_url_is_scheme_host_and_port() {
        assert_eq!(base("http://127.0.0.1:3000"), ("127.0.0.1".into(), 3000));
        assert_eq!(base("http://127.0.0.1:3000/"), ("127.0.0.1".into(), 3000));
        assert_eq!(base("http://shop.example"), ("shop.example".into(), 80));
        assert_eq!(base("http://[::1]:3000"), ("::1".into(), 3000));
        assert_eq!(base("http://[::1]"), ("::1".into(), 80));
    }

    #[test]
    fn any_other_url_is_refused_with_its_reason() {
        for (url, reason) in [
            ("https://shop.example", "no other scheme"),
            ("127.0.0.1:3000", "must begin with http://"),
            ("/sale", "must begin with http://"),
            ("http://me:secret@shop.example", "user or password"),
            ("http://shop.example/api/v1", "must end after the port"),
            ("http://shop.example:99999", "no port"),
            ("http://:3000", "has no host"),
            // The fuzzer's.
            ("http://[]/", "has no host"),
            ("not a url", "does not parse"),
            ("", "does not parse"),
        ] {
            let error = Base::parse(url).expect_err(url).to_string();
            assert!(error.contains(reason), "{url}: {error}");
        }
    }

    #[tokio::test]
    async fn an_address_that_never_answers_is_given_up_in_time() {
        // The time-out was for requests only: the first connect waited for as long as the system does.
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let listener = socket.listen(1).expect("it listens");
        let address = listener.local_addr().expect("an address");
        // Nobody accepts: when the queue is full, the system lets further connects wait.
        let mut queue = Vec::new();
        while let Ok(connected) =
            tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await
        {
            queue.push(connected.expect("a place in the queue"));
            assert!(queue.len() < 1_000, "the queue never fills");
        }
        let url = format!("http://{address}");
        let found = Target::find(&url, Duration::from_millis(100));
        let found = tokio::time::timeout(Duration::from_secs(10), found).await.expect("it gives up");
        let error = found.expect_err("nobody answers").to_string();
        assert!(error.contains("no connection within 100ms"), "{error}");
    }

    #[test]
    fn ids_stay_one_path_segment() {
        assert_eq!(status_path("sale_1"), "/api/v1/sale/sale_1/status");
        assert_eq!(user_path("a/b", "ü ?#%"), "/api/v1/sale/a%2Fb/user/%C3%BC%20%3F%23%25/purchase");
        assert_eq!(segment("Az09-._~"), "Az09-._~");
    }
}
