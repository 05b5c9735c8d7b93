//! What must hold of the console's queries and forms, for any bytes; see `crate::fuzzing`.

use axum::extract::Query;
use flashsale_core::{
    clock::Timestamp,
    ids::Epoch,
    sale::{NewSale, Window},
};
use http::{HeaderValue, Uri};

use super::{Fields, PATH, form, records::Asked, sign_in};
use crate::{
    http::{fuzzing::new_sale, pages::Visitor},
    web::moment,
};

/// The query of a page. What leads to the next page of a search asks for the same, from a place on.
pub fn query(data: &[u8]) {
    let asked = |query: &[u8]| {
        let uri = Uri::try_from([&b"/console/sales/a/audit?"[..], query].concat()).ok()?;
        let _ = Query::<Visitor>::try_from_uri(&uri);
        Query::<Asked>::try_from_uri(&uri).ok().map(|Query(asked)| asked)
    };
    let Some(first) = asked(data) else { return };
    let next = first.on(42);
    let second = asked(next.as_bytes()).expect("a link of ours leads on");
    assert!(next == "before=42" || next.ends_with("&before=42"), "{next}");
    assert_eq!(second.on(7), first.on(7), "the same search");
    assert_eq!(second.is_search(), first.is_search());
}

/// Where a sign-in leads to: a page of the console, which no header and no browser takes for another site's.
pub fn way_on(data: &[u8]) {
    let Ok(next) = std::str::from_utf8(data) else { return };
    let safe = sign_in::safe(next);
    assert!(safe == next || safe == PATH);
    assert!(safe == PATH || safe.starts_with("/console/") || safe.starts_with("/console?"), "{safe}");
    assert!(!safe.contains(['\\', '\r', '\n', ' ', '\t']), "{safe:?}");
    HeaderValue::try_from(safe).expect("it goes into a header");
}

/// The form of a sale, as a browser sends it: made of it is a sale that keeps to the rules, or there is a complaint.
pub fn form(data: &[u8]) {
    let fields = Fields(form_urlencoded::parse(data).into_owned().collect());
    let mut typed = form::typed(&fields);
    match form::request(&mut typed) {
        Some(request) => {
            if let Err(invalid) = new_sale(request) {
                assert!(form::complain(&mut typed, &invalid), "{} has a field", invalid.field);
            }
        }
        None => assert!(typed.fields.iter().any(|field| field.error.is_some()), "a refusal says why"),
    }
    let mut typed = form::typed(&fields);
    if form::change(&mut typed).is_none() {
        assert!(typed.fields.iter().any(|field| field.error.is_some()), "a refusal says why");
    }
}

/// A date and a time as they are typed; and, as a name, a form that nobody changed, which then changes nothing.
pub fn field(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(ms) = moment::from_field(text) {
        let kept = Timestamp::from_millis(ms).as_millis();
        let shown = moment::for_field(kept);
        assert_eq!(moment::from_field(&shown), Some(kept.div_euclid(1_000) * 1_000), "{text:?} as {shown}");
    }
    let at = Timestamp::from_millis;
    let window = Window::new(at(1_771_815_600_000), at(1_771_815_601_234)).expect("a second and a bit");
    let Ok(new) = NewSale::new("made".parse().expect("an id"), text.to_owned(), 1, window) else { return };
    let sale = new.open(Epoch(1));
    let sent = form::of(&sale).fields.into_iter().flat_map(|field| {
        let was = field.was.unwrap_or_default();
        [(format!("was.{}", field.name), was), (field.name.to_owned(), field.value)]
    });
    let mut typed = form::typed(&Fields(sent.collect()));
    let change = form::change(&mut typed).expect("nothing is wrong with what was not typed");
    assert_eq!(sale.changed(&change).as_ref(), Ok(&sale));
}
