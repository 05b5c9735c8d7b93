//! The widget: a sale in a frame on somebody else's page, the script that puts it there, and an example of such a page.

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    response::Response,
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;

use super::{
    App, Problem,
    pages::{Desk, Keep, view},
};
use crate::web;

/// Who may show a sale in a frame (`--embed-origins`).
pub(crate) struct Embed {
    origins: String,
    policy: HeaderValue,
}

impl Embed {
    /// Of origins such as `https://shop.example`; `*` alone is everybody, `none` alone is nobody.
    ///
    /// # Errors
    /// When `*` or `none` does not stand alone.
    pub(crate) fn new(origins: &[HeaderValue]) -> Result<Self, &'static str> {
        let origins: Vec<_> = origins.iter().filter_map(|origin| origin.to_str().ok()).collect();
        let ancestors = match origins.as_slice() {
            [] | ["none"] => "'none'".to_owned(),
            ["*"] => "*".to_owned(),
            named if named.iter().any(|origin| ["*", "none"].contains(origin)) => {
                return Err("embed-origins: * and none are all and no origins, so they must stand alone");
            }
            // The example page is our own.
            named => format!("'self' {}", named.join(" ")),
        };
        let policy = HeaderValue::try_from(web::frame_policy(&ancestors));
        Ok(Self {
            origins: origins.join(" "),
            policy: policy.map_err(|_| "embed-origins: not what a header can carry")?,
        })
    }

    /// As they were set, separated by spaces.
    pub(super) fn origins(&self) -> &str {
        &self.origins
    }

    /// The `Content-Security-Policy` of a page in a frame.
    pub(super) fn policy(&self) -> HeaderValue {
        self.policy.clone()
    }

    fn is_forbidden(&self) -> bool {
        ["", "none"].contains(&self.origins.as_str())
    }
}

/// `GET /widget.js`: puts the frame where its `<script>` stands.
pub(crate) async fn script(headers: HeaderMap) -> Response {
    web::assets::widget(&headers)
}

/// Which sale the example is to show.
#[derive(Deserialize)]
pub(crate) struct Shown {
    sale: Option<String>,
}

/// `GET /widget`: how it looks on somebody else's page, and the line that puts it there.
pub(crate) async fn example(
    State(app): State<App>,
    desk: Desk,
    query: Result<Query<Shown>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let shown = async {
        let Query(Shown { sale }) =
            query.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
        if app.embed.is_forbidden() {
            return Err(Problem::new(StatusCode::NOT_FOUND, "Frames are forbidden here (embed-origins)"));
        }
        let sale = match sale {
            Some(sale) => Some(sale),
            None => web::pages::foremost(app.sales.statuses().await?.iter().map(view).collect()),
        };
        Ok(web::pages::example(sale.as_deref().unwrap_or("sale_1"), &origin(&headers)))
    };
    let html = match shown.await {
        Ok(html) => html,
        Err(problem) => return desk.answer(problem),
    };
    let mut page = desk.page(StatusCode::OK, Keep::Nobody, html);
    let policy = HeaderValue::from_static(web::EXAMPLE_POLICY);
    page.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    page
}

/// Where this shop is, as the visitor sees it.
fn origin(headers: &HeaderMap) -> String {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let scheme = if text("x-forwarded-proto") == Some("https") { "https" } else { "http" };
    format!("{scheme}://{}", text("host").unwrap_or("shop.example"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(origins: &[&'static str]) -> Result<String, &'static str> {
        let origins: Vec<_> = origins.iter().map(|origin| HeaderValue::from_static(origin)).collect();
        Ok(Embed::new(&origins)?.policy().to_str().unwrap().to_owned())
    }

    #[test]
    fn the_policy_names_who_may_frame_a_sale() {
        for (origins, ancestors) in [
            (&["*"][..], "frame-ancestors *"),
            (&["none"], "frame-ancestors 'none'"),
            (
                &["https://a.example", "https://b.example"],
                "frame-ancestors 'self' https://a.example https://b.example",
            ),
        ] {
            let policy = policy(origins).unwrap();
            assert!(policy.ends_with(ancestors), "{policy}");
            assert!(policy.contains("script-src 'self';") && !policy.contains("unsafe"));
        }
    }

    #[test]
    fn all_and_none_stand_alone() {
        for origins in [["*", "https://a.example"], ["https://a.example", "none"]] {
            assert!(policy(&origins).unwrap_err().contains("stand alone"));
        }
    }
}
