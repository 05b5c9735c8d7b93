//! Style sheets, scripts and icon: compressed once, named by their content and so cacheable for ever. They are embedded,
//! but for the shop's own theme, which is read at the start.

use std::io::Write;
use std::sync::LazyLock;

use axum::body::Bytes;
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

/// A new content has a new name, so a copy never grows old.
const FOREVER: &str = "public, max-age=31536000, immutable";

/// For a file whose address other people write into their pages, and which so has to stay.
const A_WHILE: &str = "public, max-age=300, stale-while-revalidate=86400";

const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    vec![
        Asset::new("app", "css", CSS, include_bytes!("../../assets/app.css")),
        Asset::new("store", "js", JAVASCRIPT, include_bytes!("../../assets/store.js")),
        Asset::new("console", "css", CSS, include_bytes!("../../assets/console.css")),
        Asset::new("console", "js", JAVASCRIPT, include_bytes!("../../assets/console.js")),
        Asset::new("favicon", "svg", "image/svg+xml", include_bytes!("../../assets/favicon.svg")),
        Asset::new("frame", "js", JAVASCRIPT, include_bytes!("../../assets/frame.js")),
        Asset::new("widget", "js", JAVASCRIPT, include_bytes!("../../assets/widget.js")),
        Asset::new("example", "css", CSS, include_bytes!("../../assets/example.css")),
    ]
});

/// A file that pages refer to.
pub(crate) struct Asset {
    /// As templates name it: `app.css`.
    plain_name: String,
    /// As browsers ask for it: `/assets/app-0123456789abcdef.css`.
    url: String,
    content_type: &'static str,
    bytes: Bytes,
    gzipped: Bytes,
    /// Content hash: hex of the first 8 bytes of SHA-256.
    hash: String,
}

impl Asset {
    fn new(stem: &str, extension: &str, content_type: &'static str, bytes: &'static [u8]) -> Self {
        Self::of(stem, extension, content_type, Bytes::from_static(bytes))
    }

    /// The shop's own style sheet.
    pub(crate) fn theme(css: String) -> Self {
        Self::of("theme", "css", CSS, css.into())
    }

    fn of(stem: &str, extension: &str, content_type: &'static str, bytes: Bytes) -> Self {
        let hash: String = Sha256::digest(&bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Self {
            plain_name: format!("{stem}.{extension}"),
            url: format!("/assets/{stem}-{hash}.{extension}"),
            content_type,
            gzipped: gzip(&bytes, Compression::best()).into(),
            bytes,
            hash,
        }
    }

    /// Where browsers find it.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The name with the content hash, without `/assets/`.
    pub(crate) fn name(&self) -> &str {
        self.url.trim_start_matches("/assets/")
    }

    /// The body: compressed if the client takes gzip.
    fn body(&self, gzip: bool) -> Bytes {
        if gzip { self.gzipped.clone() } else { self.bytes.clone() }
    }

    /// One for each encoding, since a strong tag names exact bytes.
    fn etag(&self, gzip: bool) -> String {
        let encoding = if gzip { "-gzip" } else { "" };
        format!("\"{}{encoding}\"", self.hash)
    }
}

/// The asset of that hashed name, such as `app-0123456789abcdef.css`.
pub(crate) fn lookup(name: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.name() == name)
}

/// Where browsers find the asset that templates call `plain_name`, such as `app.css`.
pub(crate) fn url(plain_name: &str) -> &'static str {
    let asset = ASSETS.iter().find(|asset| asset.plain_name == plain_name);
    &asset.expect("templates refer to embedded assets only, and a test renders each of them").url
}

/// The embedded asset of that name, as this request would have it; `None` when there is none.
pub(crate) fn serve(name: &str, request: &HeaderMap) -> Option<Response> {
    Some(lookup(name)?.reply(request, FOREVER))
}

/// `widget.js`, at an address that stays while its content may change.
pub(crate) fn widget(request: &HeaderMap) -> Response {
    let asset = ASSETS.iter().find(|asset| asset.plain_name == "widget.js");
    asset.expect("it is in the list above").reply(request, A_WHILE)
}

impl Asset {
    /// The asset for ever, if that is its hashed name.
    pub(crate) fn serve(&self, name: &str, request: &HeaderMap) -> Option<Response> {
        (self.name() == name).then(|| self.reply(request, FOREVER))
    }

    fn reply(&self, request: &HeaderMap, cache: &'static str) -> Response {
        let gzip = accepts_gzip(request);
        let etag = self.etag(gzip);
        let caching = [
            (CACHE_CONTROL, HeaderValue::from_static(cache)),
            (VARY, HeaderValue::from_static("accept-encoding")),
            (ETAG, HeaderValue::try_from(&etag).expect("a tag is hex and quotes")),
        ];
        if is_known(request, &etag) {
            return (StatusCode::NOT_MODIFIED, caching).into_response();
        }
        let mut response = (caching, self.body(gzip)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}

/// Whether `Accept-Encoding` names gzip, and not to refuse it.
pub(crate) fn accepts_gzip(request: &HeaderMap) -> bool {
    list(request, &ACCEPT_ENCODING).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let refused = weight.trim().strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0_f32));
        name.trim().eq_ignore_ascii_case("gzip") && !refused
    })
}

/// Whether the client holds that very content; tags compare weakly (RFC 9110, section 13.1.2).
fn is_known(request: &HeaderMap, etag: &str) -> bool {
    list(request, &IF_NONE_MATCH).any(|known| known == "*" || known.trim_start_matches("W/") == etag)
}

/// The elements of a header that is a comma-separated list, over all its lines.
fn list<'a>(request: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> + use<'a> {
    let lines = request.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

pub(crate) fn gzip(bytes: &[u8], level: Compression) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), level);
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory takes every write")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_of(plain_name: &str) -> &'static str {
        url(plain_name).strip_prefix("/assets/").unwrap()
    }

    async fn get(name: &str, request: &[(HeaderName, &'static str)]) -> (StatusCode, HeaderMap, Vec<u8>) {
        let request = request.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        let response = serve(name, &request.collect()).unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        (parts.status, parts.headers, body.to_vec())
    }

    fn gunzip(bytes: &[u8]) -> Vec<u8> {
        let mut decoder = flate2::write::GzDecoder::new(Vec::new());
        decoder.write_all(bytes).unwrap();
        decoder.finish().unwrap()
    }

    #[test]
    fn an_url_has_the_content_hash_and_leads_to_the_asset() {
        for asset in ASSETS.iter() {
            assert_eq!(asset.hash.len(), 16);
            assert!(asset.url.contains(&asset.hash));
            let found = lookup(name_of(&asset.plain_name)).unwrap();
            assert_eq!(found.body(false), asset.bytes);
        }
        assert!(lookup("app.css").is_none() && lookup("app-0000000000000000.css").is_none());
    }

    #[tokio::test]
    async fn it_is_cacheable_for_ever_and_typed() {
        let (status, headers, body) = get(name_of("app.css"), &[]).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(headers[CACHE_CONTROL], FOREVER);
        assert_eq!(headers[CONTENT_TYPE], "text/css; charset=utf-8");
        assert_eq!(headers[VARY], "accept-encoding");
        assert!(!headers.contains_key(CONTENT_ENCODING));
        assert_eq!(body, include_bytes!("../../assets/app.css"));
    }

    #[tokio::test]
    async fn a_client_that_takes_gzip_gets_it() {
        let (_, headers, body) = get(name_of("app.css"), &[(ACCEPT_ENCODING, "br, gzip;q=0.8")]).await;
        assert_eq!(headers[CONTENT_ENCODING], "gzip");
        assert_eq!(gunzip(&body), include_bytes!("../../assets/app.css"));
        for refusing in ["br", "gzip;q=0", "gzip; q=0.000", "identity"] {
            let (_, headers, _) = get(name_of("app.css"), &[(ACCEPT_ENCODING, refusing)]).await;
            assert!(!headers.contains_key(CONTENT_ENCODING), "{refusing}");
        }
    }

    #[tokio::test]
    async fn a_known_tag_is_answered_without_a_body() {
        let name = name_of("store.js");
        let hash = &lookup(name).unwrap().hash;
        let leak = |text: String| -> &'static str { text.leak() };
        for known in [format!("\"{hash}\""), format!("\"x\", W/\"{hash}\""), "*".to_owned()] {
            let (status, headers, body) = get(name, &[(IF_NONE_MATCH, leak(known))]).await;
            assert_eq!(status, StatusCode::NOT_MODIFIED);
            assert!(body.is_empty() && headers.contains_key(ETAG) && headers.contains_key(CACHE_CONTROL));
        }
        // The tag of the compressed bytes is another one.
        let known = [(IF_NONE_MATCH, leak(format!("\"{hash}-gzip\"")))];
        assert_eq!(get(name, &known).await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn a_theme_is_served_by_its_own_name_alone() {
        let theme = Asset::theme(":root { --accent: red }".to_owned());
        assert!(theme.url().starts_with("/assets/theme-") && theme.url().ends_with(".css"));
        let reply = theme.serve(theme.name(), &HeaderMap::new()).unwrap();
        assert_eq!(
            (reply.headers()[CACHE_CONTROL].as_bytes(), reply.headers()[CONTENT_TYPE].as_bytes()),
            (FOREVER.as_bytes(), CSS.as_bytes())
        );
        assert!(theme.serve("theme.css", &HeaderMap::new()).is_none());
        assert!(serve(theme.name(), &HeaderMap::new()).is_none());
    }

    #[test]
    fn the_widgets_address_stays_so_its_copies_do_not() {
        let reply = widget(&HeaderMap::new());
        assert_eq!(reply.headers()[CACHE_CONTROL], A_WHILE);
    }

    #[test]
    fn an_unknown_name_is_not_found() {
        for name in ["app.css", "../Cargo.toml", ""] {
            assert!(serve(name, &HeaderMap::new()).is_none());
        }
    }

    #[test]
    fn style_and_script_leave_room_in_the_first_view() {
        let first = ["app.css", "store.js", "favicon.svg"].map(name_of);
        let sent: usize = first.iter().map(|name| lookup(name).unwrap().gzipped.len()).sum();
        assert!(sent < 9_000, "style, script and icon take {sent} bytes of the 14 KB");
    }
}
