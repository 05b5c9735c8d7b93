//! What the server says of the sale and of single buyers, before and after the load.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, StatusCode};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::connection::{Link, Unanswered};
use crate::reply::quote;
use crate::tally::Tally;
use crate::target::{status_path, user_path};
use crate::users::Users;

/// The most buyers that are looked up after the load, and the most of those who say that they had bought before.
const SAMPLE: usize = 200;
/// The longest that looking up each of the two samples may take.
const LOOKING_UP: Duration = Duration::from_secs(5);
/// How often a question is asked: a GET changes nothing, and a connection may end, or a server be busy, by chance.
const TRIES: u32 = 5;
/// The pause before a question is asked again; twice as long each time.
const PAUSE: Duration = Duration::from_millis(100);

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
    /// All units, sold or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_stock: Option<i64>,
    /// The life of the sale between two resets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Whether it was paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// `UPCOMING`, `ACTIVE` or `ENDED`, by the clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

/// What looking users up has shown.
#[derive(Debug, Default)]
pub(crate) struct Lookups {
    /// Of those who were told SUCCESS.
    pub(crate) buyers: Sample,
    /// Of those who were told to hold a purchase that this run has not seen.
    pub(crate) claimants: Sample,
}

/// What looking some users up has shown.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    /// How many were to be looked up.
    pub(crate) wanted: u64,
    /// How many were, before the time was over or something was wrong.
    pub(crate) made: u64,
    /// What the server shows that it did not say; `None` if all is well.
    pub(crate) fault: Option<String>,
    /// Why the others could not be looked up.
    pub(crate) doubt: Option<String>,
}

/// A user, and the order id that the server told them.
type Told<'a> = (u64, Option<&'a str>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UserPurchase {
    purchased: bool,
    order_id: Option<String>,
}

/// Asks the server, one question at a time.
pub(crate) struct Clerk {
    link: Link,
    sale: String,
    timeout: Duration,
}

impl Clerk {
    pub(crate) fn new(link: Link, sale: &str, timeout: Duration) -> Self {
        Self { link, sale: sale.to_owned(), timeout }
    }

    /// The sale's status now.
    pub(crate) async fn status(&mut self) -> Result<SaleStatus, Error> {
        let path = status_path(&self.sale);
        let status: SaleStatus = self.get(&path, self.timeout).await?;
        if status.sale_id != self.sale {
            let reason = format!("it is of the sale {:?}", status.sale_id);
            return Err(Error::Unexpected { path, reason });
        }
        Ok(status)
    }

    /// Looks up to 200 buyers up, evenly spread over all, and up to 200 who are said to have bought before, and compares
    /// what the server shows with what it told them. Takes a few seconds at most.
    pub(crate) async fn look_up(&mut self, tally: &Tally, users: &Users) -> Lookups {
        let buyers = tally.purchases.iter().map(|one| (one.user, one.order.as_deref()));
        let buyers: Vec<Told<'_>> = spread(buyers).collect();
        let mut claimants: Vec<Told<'_>> =
            tally.claims.iter().map(|(user, one)| (*user, one.order.as_deref())).collect();
        if !claimants.is_empty() {
            let bought: HashSet<u64> = tally.purchases.iter().map(|one| one.user).collect();
            claimants.retain(|(user, _)| !bought.contains(user));
            claimants.sort_unstable();
        }
        let claimants: Vec<_> = spread(claimants.into_iter()).collect();
        Lookups {
            buyers: self.look_up_some(&buyers, users, "SUCCESS").await,
            claimants: self.look_up_some(&claimants, users, "ALREADY_PURCHASED").await,
        }
    }

    /// Ends at the first fault: it decides.
    async fn look_up_some(&mut self, told: &[Told<'_>], users: &Users, word: &str) -> Sample {
        let deadline = Instant::now() + LOOKING_UP;
        let mut sample = Sample { wanted: told.len() as u64, ..Sample::default() };
        for (user, order) in told {
            let left = deadline.saturating_duration_since(Instant::now());
            let user = users.id(*user);
            match self.get(&user_path(&self.sale, &user), self.timeout.min(left)).await {
                Err(_) if Instant::now() >= deadline => {
                    let late = || format!("nobody could be looked up within {LOOKING_UP:?}");
                    sample.doubt = (sample.made == 0).then(late);
                    break;
                }
                Err(error) => sample.doubt = Some(format!("{user} could not be looked up: {error}")),
                Ok(shown) => {
                    sample.made += 1;
                    sample.fault =
                        discrepancy(*order, &shown).map(|what| format!("{user} was told {word}, but {what}"));
                }
            }
            if sample.doubt.is_some() || sample.fault.is_some() {
                break;
            }
        }
        sample
    }

    /// Asks, and asks again while that may help and there is time.
    async fn get<T: for<'de> Deserialize<'de>>(&mut self, path: &str, timeout: Duration) -> Result<T, Error> {
        let deadline = Instant::now() + timeout;
        let mut pause = PAUSE;
        let mut tries = 1;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (error, may_help) = match self.ask(path, left).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            if !may_help || tries == TRIES || Instant::now() + pause >= deadline {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            (pause, tries) = (pause * 2, tries + 1);
        }
    }

    /// Asks once. An error comes with whether asking again may help.
    async fn ask<T: for<'de> Deserialize<'de>>(
        &mut self,
        path: &str,
        timeout: Duration,
    ) -> Result<T, (Error, bool)> {
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.uri_mut() = path.parse().expect("a percent-encoded path is a uri");
        let path = || path.to_owned();
        let answer = self.link.exchange(request, timeout).await.map_err(|error| {
            let may_help = !matches!(error, Unanswered::TooLong);
            (Error::Unanswered { path: path(), reason: error.to_string() }, may_help)
        })?;
        match answer.status {
            StatusCode::OK => serde_json::from_slice(answer.body).map_err(|error| {
                (
                    Error::Unexpected { path: path(), reason: format!("{error}: {}", quote(answer.body)) },
                    false,
                )
            }),
            // Any server has a 404; only one that knows sales says it in JSON.
            StatusCode::NOT_FOUND if serde_json::from_slice::<serde::de::IgnoredAny>(answer.body).is_ok() => {
                Err((Error::NoSuchSale { sale: self.sale.clone() }, false))
            }
            status => {
                let reason = format!("HTTP {}: {}", status.as_u16(), quote(answer.body));
                Err((Error::Unexpected { path: path(), reason }, status == StatusCode::SERVICE_UNAVAILABLE))
            }
        }
    }
}

/// Up to `SAMPLE` of them, evenly spread.
fn spread<T>(all: impl ExactSizeIterator<Item = T>) -> impl Iterator<Item = T> {
    let (total, count) = (all.len(), all.len().min(SAMPLE));
    let mut wanted = (0..count).map(move |i| i * total / count).peekable();
    all.enumerate().filter_map(move |(at, one)| wanted.next_if_eq(&at).map(|_| one))
}

/// What the server shows of a purchase that differs from the order id that it told, if anything.
fn discrepancy(told: Option<&str>, shown: &UserPurchase) -> Option<String> {
    let id = |order: Option<&str>| order.map_or_else(|| "none".to_owned(), |id| format!("{id:?}"));
    if !shown.purchased {
        return Some("the server knows of no purchase".to_owned());
    }
    let found = shown.order_id.as_deref();
    (told != found).then(|| format!("with order id {}, while the server shows {}", id(told), id(found)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_everybody_or_two_hundred_evenly_spread() {
        let users = |count: u64| spread((0..count).collect::<Vec<u64>>().into_iter()).collect::<Vec<_>>();
        assert_eq!(users(0), [0; 0]);
        assert_eq!(users(3), [0, 1, 2]);
        let thousand = users(1_000);
        assert_eq!((thousand.len(), thousand[0], thousand[1], thousand[199]), (200, 0, 5, 995));
    }

    #[test]
    fn what_is_shown_must_be_what_was_told() {
        let told = Some("o-1");
        let shown = |purchased, id: Option<&str>| UserPurchase { purchased, order_id: id.map(str::to_owned) };
        assert_eq!(discrepancy(told, &shown(true, Some("o-1"))), None);
        for wrong in [shown(false, None), shown(true, Some("o-2")), shown(true, None)] {
            assert!(discrepancy(told, &wrong).is_some());
        }
    }

    #[test]
    fn a_status_may_hold_more_fields_than_are_needed() {
        let json = r#"{"saleId":"s","name":"n","remainingStock":95,"totalSold":5,"saleActive":true,
            "startsAt":"2026-02-23T03:00:00.000Z","endsAt":"2026-02-23T04:00:00.000Z","status":"ACTIVE","new":{}}"#;
        let status: SaleStatus = serde_json::from_str(json).expect("parses");
        let expected = SaleStatus {
            sale_id: "s".into(),
            remaining_stock: 95,
            total_sold: 5,
            sale_active: true,
            total_stock: None,
            epoch: None,
            paused: None,
            status: Some("ACTIVE".into()),
        };
        assert_eq!(status, expected);
    }
}
