//! What the server says of the sale and of single buyers, before and after the load.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, StatusCode};
use serde::{Deserialize, Serialize};
use std::time::Duration;

use crate::Error;
use crate::connection::Link;
use crate::reply::quote;
use crate::tally::{Purchase, Tally};
use crate::target::{status_path, user_path};
use crate::users::Users;

/// The most buyers that are looked up after the load.
const SAMPLE: usize = 200;

/// A sale as `GET /api/v1/sale/{saleId}/status` shows it, as far as the verdict needs it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SaleStatus {
    /// Id of the sale.
    pub sale_id: String,
    /// Units left. Signed, so that a server that counts below zero is heard.
    pub remaining_stock: i64,
    /// Units sold.
    pub total_sold: i64,
    /// Whether it sells now.
    pub sale_active: bool,
}

/// What looking a sample of buyers up has shown.
#[derive(Debug, Default)]
pub(crate) struct Lookups {
    /// How many buyers were looked up.
    pub(crate) made: u64,
    /// What was wrong, first of all; `None` if all is well.
    pub(crate) fault: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UserPurchase {
    purchased: bool,
    order_id: Option<String>,
}

/// Asks the server, one question at a time.
pub(crate) struct Clerk<'a> {
    link: Link,
    sale: &'a str,
    timeout: Duration,
}

impl<'a> Clerk<'a> {
    pub(crate) fn new(link: Link, sale: &'a str, timeout: Duration) -> Self {
        Self { link, sale, timeout }
    }

    /// The sale's status now.
    pub(crate) async fn status(&mut self) -> Result<SaleStatus, Error> {
        self.get(status_path(self.sale)).await
    }

    /// Looks up to 200 buyers up, evenly spread over all, and compares what the server shows with what it told them.
    /// Ends at the first fault: it decides.
    pub(crate) async fn look_up(&mut self, tally: &Tally, users: &Users) -> Lookups {
        let mut lookups = Lookups::default();
        for purchase in sample(&tally.purchases) {
            lookups.made += 1;
            let user = users.id(purchase.user);
            lookups.fault = match self.get::<UserPurchase>(user_path(self.sale, &user)).await {
                Err(error) => Some(format!("{user} could not be looked up: {error}")),
                Ok(shown) => {
                    discrepancy(purchase, &shown).map(|what| format!("{user} was told SUCCESS, but {what}"))
                }
            };
            if lookups.fault.is_some() {
                break;
            }
        }
        lookups
    }

    async fn get<T: for<'de> Deserialize<'de>>(&mut self, path: String) -> Result<T, Error> {
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.uri_mut() = path.parse().expect("a percent-encoded path is a uri");
        let answer = match self.link.exchange(request, self.timeout).await {
            Ok(answer) => answer,
            Err(error) => return Err(Error::Unanswered { path, reason: error.to_string() }),
        };
        match answer.status {
            StatusCode::OK => serde_json::from_slice(answer.body).map_err(|error| Error::Unexpected {
                path,
                reason: format!("{error}: {}", quote(answer.body)),
            }),
            // Any server has a 404; only one that knows sales says it in JSON.
            StatusCode::NOT_FOUND if serde_json::from_slice::<serde::de::IgnoredAny>(answer.body).is_ok() => {
                Err(Error::NoSuchSale { sale: self.sale.to_owned() })
            }
            status => {
                let reason = format!("HTTP {}: {}", status.as_u16(), quote(answer.body));
                Err(Error::Unexpected { path, reason })
            }
        }
    }
}

/// Up to `SAMPLE` purchases, evenly spread.
fn sample(purchases: &[Purchase]) -> impl Iterator<Item = &Purchase> {
    let count = purchases.len().min(SAMPLE);
    (0..count).map(move |i| &purchases[i * purchases.len() / count])
}

/// What the server shows of a purchase that differs from what it said, if anything.
fn discrepancy(purchase: &Purchase, shown: &UserPurchase) -> Option<String> {
    let id = |order: Option<&str>| order.map_or_else(|| "none".to_owned(), |id| format!("{id:?}"));
    if !shown.purchased {
        return Some("the server knows of no purchase".to_owned());
    }
    let (told, found) = (purchase.order.as_deref(), shown.order_id.as_deref());
    (told != found).then(|| format!("with order id {}, while the server shows {}", id(told), id(found)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purchase(user: u64, order: &str) -> Purchase {
        Purchase { user, order: Some(order.into()) }
    }

    #[test]
    fn a_sample_is_everybody_or_two_hundred_evenly_spread() {
        let users = |count: u64| {
            let all: Vec<_> = (0..count).map(|user| purchase(user, "o")).collect();
            sample(&all).map(|purchase| purchase.user).collect::<Vec<_>>()
        };
        assert_eq!(users(0), [0; 0]);
        assert_eq!(users(3), [0, 1, 2]);
        let thousand = users(1_000);
        assert_eq!((thousand.len(), thousand[0], thousand[1], thousand[199]), (200, 0, 5, 995));
    }

    #[test]
    fn what_is_shown_must_be_what_was_told() {
        let told = purchase(1, "o-1");
        let shown = |purchased, id: Option<&str>| UserPurchase { purchased, order_id: id.map(str::to_owned) };
        assert_eq!(discrepancy(&told, &shown(true, Some("o-1"))), None);
        for wrong in [shown(false, None), shown(true, Some("o-2")), shown(true, None)] {
            assert!(discrepancy(&told, &wrong).is_some());
        }
    }

    #[test]
    fn a_status_may_hold_more_fields_than_are_needed() {
        let json = r#"{"saleId":"s","name":"n","remainingStock":95,"totalSold":5,"saleActive":true,
            "startsAt":"2026-02-23T03:00:00.000Z","endsAt":"2026-02-23T04:00:00.000Z","status":"ACTIVE","new":{}}"#;
        let status: SaleStatus = serde_json::from_str(json).expect("parses");
        let expected =
            SaleStatus { sale_id: "s".into(), remaining_stock: 95, total_sold: 5, sale_active: true };
        assert_eq!(status, expected);
    }
}
