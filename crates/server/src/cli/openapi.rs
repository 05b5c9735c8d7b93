//! `flashsale openapi`.

pub(super) fn document() -> String {
    crate::http::openapi::pretty()
}
