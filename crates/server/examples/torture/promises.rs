//! Every promise of one sale, against what its buyers were told.

use std::{collections::HashMap, fs, path::Path};

use anyhow::{Context, Result, ensure};
use flashsale_loadtest::history::{Figures, History, Losses, Records, Told};
use serde::Deserialize;
use serde_json::json;

use crate::{
    crowd::{Attempt, Sale},
    program::{Start, get, post, wait},
    tally::{Broken, Counts},
};

/// Makes a sale that is open.
pub(crate) fn make(url: &str, sale: &Sale) -> Result<()> {
    let body = json!({
        "saleId": sale.id, "name": sale.id, "totalStock": sale.stock,
        "startsAt": "2000-01-01T00:00:00Z", "endsAt": "2099-01-01T00:00:00Z",
    });
    let (status, reply) = post(&format!("{url}/api/v1/admin/sales"), &body)?;
    ensure!(status == 201, "the sale cannot be made: {status} {reply}");
    Ok(())
}

/// What holds in a profile, after a fault.
pub(crate) struct Terms<'a> {
    pub(crate) losses: Losses,
    /// Whether SUCCESS that said that it rests on Redis alone may be lost with Redis.
    pub(crate) redis_lost: bool,
    /// Which answered rejections have to be on record.
    pub(crate) on_record: &'a dyn Fn(&Attempt) -> bool,
    /// What to be asked of the stores themselves; `--sale` is added.
    pub(crate) verify: Start<'a>,
    /// Where the evidence goes when a promise is broken.
    pub(crate) folder: &'a Path,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TrailLine {
    user_id: String,
    event_type: String,
}

fn export(url: &str, sale: &Sale, what: &str) -> Result<String> {
    let (status, text) = get(&format!("{url}/api/v1/admin/sales/{}/{what}", sale.id))?;
    ensure!(status == 200, "the export of {what} was answered {status}: {text}");
    Ok(text)
}

/// Compares a sale with what was told of it. Nobody may be buying.
pub(crate) fn compare(url: &str, sale: &Sale, terms: &Terms<'_>) -> Result<Counts> {
    sale.check_replies()?;
    let status = || get(&format!("{url}/api/v1/sale/{}/status", sale.id));
    let confirmed = |body: &str| {
        serde_json::from_str::<serde_json::Value>(body).is_ok_and(|status| status["reserved"] == 0)
    };
    wait("every reservation has its order", || {
        status().is_ok_and(|(code, body)| code == 200 && confirmed(&body))
    })
    .with_context(|| format!("{:?}", status()))?;
    let mut records = Records { figures: Some(Figures::read(status()?.1.as_bytes())?), orders: None };
    records.read_orders(&export(url, sale, "orders")?)?;
    let trail = await_trail(url, sale, terms)?;
    records.read_places(&trail)?;
    let history = History { stock: sale.stock, calls: calls(sale, terms), records, losses: terms.losses };
    let judged = judge(&history)
        .and_then(|()| compare_trail(sale, &history, &trail, terms))
        .and_then(|()| verify(sale, terms));
    if judged.is_err() {
        keep(terms.folder, sale, &history, &trail)?;
    }
    judged?;
    let attempts = sale.attempts.lock().expect("no panic");
    let count =
        |wanted: fn(&Told) -> bool| attempts.iter().filter(|attempt| wanted(&attempt.told)).count() as u64;
    Ok(Counts {
        acknowledged: count(|told| matches!(told, Told::Bought { .. })),
        unanswered: count(|told| *told == Told::Nothing),
        rejected: count(|told| matches!(told, Told::SoldOut | Told::Holds { .. })),
    })
}

/// The calls, as far as they promise something.
fn calls(sale: &Sale, terms: &Terms<'_>) -> Vec<flashsale_loadtest::history::Call> {
    let mut calls = sale.recorder.calls();
    for call in &mut calls {
        if terms.redis_lost && matches!(call.told, Told::Bought { provisional: true, .. }) {
            call.told = Told::Nothing;
        }
    }
    calls
}

fn judge(history: &History) -> Result<()> {
    let verdict = history.judge();
    let mut broken = verdict.checks.iter().filter(|check| !check.holds);
    let Some(first) = broken.next() else { return Ok(()) };
    let more = broken.map(|check| format!("\n  {}: {}", check.promise, check.figures)).collect::<String>();
    Err(Broken::new(first.promise, format!("{}{more}", first.figures)).into())
}

fn verify(sale: &Sale, terms: &Terms<'_>) -> Result<()> {
    let mut verify = Start {
        arguments: terms.verify.arguments.clone(),
        environment: terms.verify.environment.clone(),
        log: terms.verify.log.clone(),
        bin: terms.verify.bin,
    };
    verify.arguments.extend(["--sale".to_owned(), sale.id.clone()]);
    let (ended, said) = verify.run()?;
    if ended.success() { Ok(()) } else { Err(Broken::new("verify", format!("{ended}\n{said}")).into()) }
}

/// Rejections by user and event that have to be on record.
fn owed(sale: &Sale, terms: &Terms<'_>) -> HashMap<(String, &'static str), u64> {
    let mut owed = HashMap::new();
    for attempt in sale.attempts.lock().expect("no panic").iter().filter(|attempt| (terms.on_record)(attempt))
    {
        let event = match attempt.told {
            Told::SoldOut => "REJECTED_SOLD_OUT",
            Told::Holds { .. } => "REJECTED_DUPLICATE",
            _ => continue,
        };
        *owed.entry((attempt.user.clone(), event)).or_default() += 1;
    }
    owed
}

fn events(trail: &str) -> Result<HashMap<(String, String), u64>> {
    let mut events = HashMap::new();
    for line in trail.lines() {
        let line: TrailLine = serde_json::from_str(line).with_context(|| line.to_owned())?;
        *events.entry((line.user_id, line.event_type)).or_default() += 1;
    }
    Ok(events)
}

/// The trail, when what is owed is there, or will not come.
fn await_trail(url: &str, sale: &Sale, terms: &Terms<'_>) -> Result<String> {
    let owed = owed(sale, terms);
    let mut trail = String::new();
    for _ in 0..100 {
        trail = export(url, sale, "audit")?;
        let events = events(&trail)?;
        let there = |(user, event): &(String, &str)| {
            events.get(&(user.clone(), (*event).to_owned())).copied().unwrap_or(0)
        };
        if owed.iter().all(|(key, &count)| there(key) >= count) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    Ok(trail)
}

/// P6: each order with its attempt and reservation, each rejection that is owed, and nothing that nobody tried.
fn compare_trail(sale: &Sale, history: &History, trail: &str, terms: &Terms<'_>) -> Result<()> {
    let events = events(trail)?;
    let count =
        |user: &str, event: &str| events.get(&(user.to_owned(), event.to_owned())).copied().unwrap_or(0);
    let broken = |story: String| Err(Broken::new("P6", story).into());
    for order in history.records.orders.iter().flatten() {
        let (reserved, confirmed) = (count(&order.user, "RESERVED"), count(&order.user, "CONFIRMED"));
        if reserved < 1 || confirmed < 1 || count(&order.user, "ATTEMPTED") < 1 {
            return broken(format!(
                "of the order of {} there are {reserved} RESERVED, {confirmed} CONFIRMED",
                order.user
            ));
        }
        if terms.losses == Losses::None && (reserved, confirmed) != (1, 1) {
            return broken(format!(
                "the order of {} was RESERVED {reserved} and CONFIRMED {confirmed} times",
                order.user
            ));
        }
    }
    for ((user, event), owed) in owed(sale, terms) {
        let there = count(&user, event);
        if there < owed {
            return broken(format!("{user} was answered {event} {owed} times, and {there} are on record"));
        }
    }
    let mut tried: HashMap<String, u64> = HashMap::new();
    for attempt in sale.attempts.lock().expect("no panic").iter() {
        *tried.entry(attempt.user.clone()).or_default() += 1;
    }
    for ((user, event), count) in &events {
        let tries = tried.get(user).copied().unwrap_or(0);
        if event == "ATTEMPTED" && *count > tries {
            return broken(format!("{user} tried {tries} times, and {count} attempts are on record"));
        }
    }
    Ok(())
}

/// Leaves all that is known.
fn keep(folder: &Path, sale: &Sale, history: &History, trail: &str) -> Result<()> {
    let file = |name: &str| folder.join(format!("{}.{name}", sale.id));
    let mut calls = history.calls.clone();
    calls.sort_by_key(|call| call.sent);
    let lines: Result<Vec<String>, _> = calls.iter().map(serde_json::to_string).collect();
    fs::write(file("calls.ndjson"), lines?.join("\n"))?;
    let orders: Result<Vec<String>, _> =
        history.records.orders.iter().flatten().map(serde_json::to_string).collect();
    fs::write(file("orders.ndjson"), orders?.join("\n"))?;
    fs::write(file("audit.ndjson"), trail)?;
    Ok(())
}
