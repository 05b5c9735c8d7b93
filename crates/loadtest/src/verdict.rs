//! Whether the promises were kept, judged by nothing but replies.

use std::collections::HashMap;

use serde::Serialize;

use crate::sale::{Lookups, SaleStatus};
use crate::tally::Tally;
use crate::users::Users;

/// The judgement of a run.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Verdict {
    /// Whether every check holds.
    pub passed: bool,
    /// One for each promise that can be seen from outside, in order.
    pub checks: Vec<Check>,
    /// What a reader should know that breaks nothing, such as other buyers.
    pub notes: Vec<String>,
}

/// One promise, held or broken.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Check {
    /// `P1` to `P5` as the design numbers them, or `Answered`.
    pub promise: &'static str,
    /// The promise in words.
    pub name: &'static str,
    /// Whether it was kept. What could not be checked counts as not kept.
    pub holds: bool,
    /// The figures that show it, or what is wrong.
    pub figures: String,
}

impl Check {
    pub(crate) fn new(promise: &'static str, name: &'static str, faults: &[String], figures: String) -> Self {
        let holds = faults.is_empty();
        let figures = if holds { figures } else { faults.join("; ") };
        Self { promise, name, holds, figures }
    }
}

/// All that a run has seen.
pub(crate) struct Evidence<'a> {
    pub(crate) before: &'a SaleStatus,
    /// Or why it could not be read.
    pub(crate) after: Result<&'a SaleStatus, &'a String>,
    pub(crate) tally: &'a Tally,
    pub(crate) lookups: &'a Lookups,
    pub(crate) users: &'a Users,
}

impl Evidence<'_> {
    pub(crate) fn judge(&self) -> Verdict {
        let checks = vec![
            self.never_oversold(),
            self.one_per_user(),
            self.success_is_recorded(),
            self.stock_is_conserved(),
            self.first_come_first_served(),
            self.every_attempt_answered(),
        ];
        Verdict { passed: checks.iter().all(|check| check.holds), checks, notes: self.notes() }
    }

    fn never_oversold(&self) -> Check {
        let (before, success) = (self.before, self.success());
        let mut faults = Vec::new();
        if success > before.remaining_stock.max(0) {
            faults.push(format!("{success} SUCCESS, but only {} units were left", before.remaining_stock));
        }
        match self.after {
            Err(reason) => faults.push(unknown_after(reason)),
            Ok(after) => {
                let (taken, stock) = (before.remaining_stock - after.remaining_stock, stock(before));
                if taken < success {
                    faults.push(format!("{success} SUCCESS, but the stock fell by {taken}"));
                }
                if after.remaining_stock < 0 {
                    faults.push(format!("{} units remain", after.remaining_stock));
                }
                if after.total_sold > stock {
                    faults.push(format!("totalSold is {} of a stock of {stock}", after.total_sold));
                }
            }
        }
        faults.extend(self.order_id_faults());
        let left = self.after.map_or(0, |after| after.remaining_stock);
        let figures = format!(
            "{success} SUCCESS of {} units, {left} left; {} order ids, all distinct",
            before.remaining_stock,
            self.tally.purchases.len(),
        );
        Check::new("P1", "Never oversold", &faults, figures)
    }

    /// What is wrong with the order ids that came with SUCCESS.
    fn order_id_faults(&self) -> Vec<String> {
        let purchases = &self.tally.purchases;
        let mut faults = Vec::new();
        let mut buyers: HashMap<&str, u64> = HashMap::with_capacity(purchases.len());
        let mut shared = Repeats::default();
        let mut missing = Repeats::default();
        for purchase in purchases {
            match purchase.order.as_deref() {
                None => missing.see(|| self.users.id(purchase.user)),
                Some(order) => {
                    if let Some(first) = buyers.insert(order, purchase.user) {
                        let (first, second) = (self.users.id(first), self.users.id(purchase.user));
                        shared.see(|| format!("{order} to {first} and to {second}"));
                    }
                }
            }
        }
        faults.extend(shared.fault("order ids were given again"));
        faults.extend(missing.fault("SUCCESS had no order id"));
        faults
    }

    fn one_per_user(&self) -> Check {
        let tally = self.tally;
        let mut bought: HashMap<u64, Option<&str>> = HashMap::with_capacity(tally.purchases.len());
        let mut twice = Repeats::default();
        for purchase in &tally.purchases {
            if bought.insert(purchase.user, purchase.order.as_deref()).is_some() {
                twice.see(|| self.users.id(purchase.user));
            }
        }
        let mut wrong = Repeats::default();
        for (user, claimed) in &tally.claims {
            match bought.get(user) {
                Some(order) if *order != claimed.as_deref() => wrong.see(|| self.users.id(*user)),
                _ => {}
            }
        }
        let mut faults = Vec::new();
        faults.extend(twice.fault("SUCCESS went to a user who had one already"));
        faults.extend(
            wrong.fault("users were told ALREADY_PURCHASED with an order id other than their SUCCESS had"),
        );
        if let Some(user) = tally.torn_claim {
            let user = self.users.id(user);
            faults.push(format!("{user} was told ALREADY_PURCHASED with different order ids"));
        }
        let figures = format!(
            "{} SUCCESS to {} users; {} ALREADY_PURCHASED, with the order id of the SUCCESS wherever that was seen",
            tally.counts.success,
            bought.len(),
            tally.counts.already_purchased,
        );
        Check::new("P2", "One per user", &faults, figures)
    }

    fn success_is_recorded(&self) -> Check {
        let faults: Vec<_> = self.lookups.fault.iter().cloned().collect();
        let figures = format!(
            "{} of {} buyers looked up, all found with their order",
            self.lookups.made,
            self.success()
        );
        Check::new("P3", "SUCCESS means recorded", &faults, figures)
    }

    fn stock_is_conserved(&self) -> Check {
        let before = self.before;
        let sum = |status: &SaleStatus| {
            format!("{} remaining + {} sold = {}", status.remaining_stock, status.total_sold, stock(status))
        };
        let (faults, figures) = match self.after {
            Err(reason) => (vec![unknown_after(reason)], String::new()),
            Ok(after) if stock(after) != stock(before) => {
                (vec![format!("before {}, after {}", sum(before), sum(after))], String::new())
            }
            Ok(after) => (vec![], format!("{} before and after", sum(after))),
        };
        Check::new("P4", "Stock is conserved", &faults, figures)
    }

    fn first_come_first_served(&self) -> Check {
        let tally = self.tally;
        let mut faults = Vec::new();
        // Both instants err on the server's side: sent is taken before sending, arrived after the last byte.
        if let (Some(sold_out), Some(sent)) = (tally.first_sold_out, tally.last_success_sent)
            && sold_out < sent
        {
            let gap = (sent - sold_out).as_secs_f64() * 1_000.0;
            faults
                .push(format!("an attempt sent {gap:.2}ms after the first SOLD_OUT had arrived got SUCCESS"));
        }
        let units = self.before.remaining_stock;
        if tally.counts.sold_out > 0 && self.success() < units {
            match self.after {
                Err(reason) => faults.push(unknown_after(reason)),
                Ok(after) if self.sold_meanwhile(after) < units => {
                    let sold = self.sold_meanwhile(after);
                    faults.push(format!("SOLD_OUT was said, but only {sold} of {units} units were sold"));
                }
                Ok(_) => {}
            }
        }
        let figures = match tally.counts.sold_out {
            0 => "nobody was told SOLD_OUT".to_owned(),
            _ => "nobody was told SOLD_OUT before the last unit was taken".to_owned(),
        };
        Check::new("P5", "First come, first served", &faults, figures)
    }

    fn every_attempt_answered(&self) -> Check {
        let counts = &self.tally.counts;
        let total = counts.total();
        let mut faults = Vec::new();
        if counts.failed > 0 {
            faults.push(format!("{} of {total} attempts got no answer that counts", counts.failed));
        }
        let refused = match counts.refused {
            0 => String::new(),
            refused => format!(", {refused} of them refused with 429 or 503 and told when to come again"),
        };
        Check::new("Answered", "Every attempt is answered", &faults, format!("{total} of {total}{refused}"))
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Ok(after) = self.after {
            let others = after.total_sold - self.before.total_sold - self.success();
            if others > 0 {
                let whose = match self.tally.counts.failed {
                    0 => "others bought too",
                    _ => "others bought too, or attempts that got no answer did",
                };
                notes.push(format!("{others} more units were sold than this run was told SUCCESS: {whose}"));
            }
        }
        if !self.before.sale_active {
            notes.push("the server said before the load that the sale is not active".to_owned());
        }
        if self.tally.unrecorded > 0 {
            let unrecorded = self.tally.unrecorded;
            notes.push(format!(
                "{unrecorded} purchases were counted, but are too many to be checked one by one"
            ));
        }
        notes
    }

    fn success(&self) -> i64 {
        i64::try_from(self.tally.counts.success).unwrap_or(i64::MAX)
    }

    fn sold_meanwhile(&self, after: &SaleStatus) -> i64 {
        self.success().max(after.total_sold - self.before.total_sold)
    }
}

/// How often something was seen that should not be, and the first case as an example.
#[derive(Default)]
pub(crate) struct Repeats {
    count: u64,
    example: Option<String>,
}

impl Repeats {
    pub(crate) fn see(&mut self, example: impl FnOnce() -> String) {
        self.count += 1;
        self.example.get_or_insert_with(example);
    }

    pub(crate) fn fault(self, what: &str) -> Option<String> {
        self.example.map(|example| format!("{} {what}, such as {example}", self.count))
    }
}

fn stock(status: &SaleStatus) -> i64 {
    status.remaining_stock + status.total_sold
}

fn unknown_after(reason: &str) -> String {
    format!("the status after the load is not known: {reason}")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::reply::Outcome;
    use crate::tally::Entry;

    /// A run of 3 units and 5 users that kept every promise; a test breaks one thing.
    struct Run {
        start: Instant,
        before: SaleStatus,
        after: Result<SaleStatus, String>,
        tally: Tally,
        lookups: Lookups,
    }

    fn status(remaining_stock: i64, total_sold: i64) -> SaleStatus {
        SaleStatus { sale_id: "sale_1".into(), remaining_stock, total_sold, sale_active: true }
    }

    fn success(order: &str) -> Outcome<'_> {
        Outcome::Success(Some(order.into()))
    }

    fn already(order: &str) -> Outcome<'_> {
        Outcome::AlreadyPurchased(Some(order.into()))
    }

    impl Run {
        fn without_load() -> Self {
            let lookups = Lookups { made: 3, fault: None };
            Self {
                start: Instant::now(),
                before: status(3, 0),
                after: Ok(status(0, 3)),
                tally: Tally::new(),
                lookups,
            }
        }

        fn good() -> Self {
            let mut run = Self::without_load();
            for (user, order) in ["o-0", "o-1", "o-2"].into_iter().enumerate() {
                run.enter(user as u64, user as u64, success(order));
            }
            run.enter(3, 3, Outcome::SoldOut);
            run.enter(4, 4, Outcome::SoldOut);
            run.enter(1, 5, already("o-1"));
            run
        }

        /// An attempt in a given millisecond, sent at its beginning and answered at its end.
        fn enter(&mut self, user: u64, millisecond: u64, outcome: Outcome<'_>) {
            let sent = self.start + Duration::from_millis(millisecond);
            let completed = sent + Duration::from_micros(999);
            self.tally.enter(Entry { user, since: sent, sent, completed, outcome });
        }

        fn judge(&self) -> Verdict {
            let users = Users::new("u", None);
            let (after, before) = (self.after.as_ref(), &self.before);
            Evidence { before, after, tally: &self.tally, lookups: &self.lookups, users: &users }.judge()
        }

        /// The promises that do not hold, and all that is said of them.
        fn broken(&self) -> (Vec<&'static str>, String) {
            let verdict = self.judge();
            let broken: Vec<_> = verdict.checks.iter().filter(|check| !check.holds).collect();
            assert_eq!(verdict.passed, broken.is_empty());
            let said: Vec<_> = broken.iter().map(|check| check.figures.as_str()).collect();
            (broken.iter().map(|check| check.promise).collect(), said.join("\n"))
        }

        fn assert_broken(&self, promises: &[&str], because: &str) {
            let (broken, said) = self.broken();
            assert_eq!(broken, promises, "{said}");
            assert!(said.contains(because), "{said}");
        }
    }

    #[test]
    fn a_run_that_kept_every_promise_passes_without_notes() {
        let run = Run::good();
        assert_eq!(run.broken(), (vec![], String::new()));
        assert!(run.judge().notes.is_empty());
    }

    #[test]
    fn p1_more_success_than_units() {
        let mut run = Run::good();
        run.enter(9, 2, success("o-9"));
        run.assert_broken(&["P1"], "4 SUCCESS, but only 3 units were left");
    }

    #[test]
    fn p1_a_success_that_took_no_unit() {
        let mut run = Run::good();
        run.after = Ok(status(1, 2));
        run.assert_broken(&["P1"], "3 SUCCESS, but the stock fell by 2");
    }

    #[test]
    fn p1_a_server_that_admits_to_have_sold_too_much() {
        let mut run = Run::good();
        run.after = Ok(status(-1, 4));
        run.assert_broken(&["P1"], "totalSold is 4 of a stock of 3");
    }

    #[test]
    fn p1_one_order_id_for_two_buyers() {
        let mut run = Run::without_load();
        run.enter(0, 0, success("o-0"));
        run.enter(1, 1, success("o-0"));
        run.assert_broken(&["P1"], "1 order ids were given again, such as o-0 to u-0 and to u-1");
    }

    #[test]
    fn p1_a_success_without_order_id() {
        let mut run = Run::without_load();
        run.enter(0, 0, Outcome::Success(None));
        run.assert_broken(&["P1"], "1 SUCCESS had no order id, such as u-0");
    }

    #[test]
    fn p2_two_success_for_one_user() {
        let mut run = Run::without_load();
        run.enter(0, 0, success("o-0"));
        run.enter(0, 1, success("o-1"));
        run.assert_broken(&["P2"], "went to a user who had one already, such as u-0");
    }

    #[test]
    fn p2_already_purchased_with_the_order_of_somebody_else_or_none() {
        let mut run = Run::good();
        run.enter(2, 9, already("o-1"));
        run.assert_broken(&["P2"], "order id other than their SUCCESS had, such as u-2");
        let mut run = Run::good();
        run.enter(2, 9, Outcome::AlreadyPurchased(None));
        run.assert_broken(&["P2"], "such as u-2");
    }

    #[test]
    fn p2_already_purchased_with_changing_orders() {
        let mut run = Run::good();
        run.enter(8, 9, already("o-8"));
        run.enter(8, 9, already("o-9"));
        run.assert_broken(&["P2"], "u-8 was told ALREADY_PURCHASED with different order ids");
    }

    #[test]
    fn p3_a_buyer_whom_the_server_does_not_know() {
        let mut run = Run::good();
        run.lookups.fault = Some("u-0 was told SUCCESS, but the server knows of no purchase".into());
        run.assert_broken(&["P3"], "u-0 was told SUCCESS");
    }

    #[test]
    fn p4_units_out_of_nowhere() {
        let mut run = Run::good();
        run.after = Ok(status(0, 2));
        run.assert_broken(&["P4"], "before 3 remaining + 0 sold = 3, after 0 remaining + 2 sold = 2");
    }

    #[test]
    fn p5_sold_out_before_the_last_unit_was_asked_for() {
        let mut run = Run::without_load();
        run.enter(0, 0, success("o-0"));
        run.enter(1, 1, Outcome::SoldOut);
        run.enter(2, 2, success("o-2"));
        run.enter(3, 3, success("o-3"));
        run.assert_broken(&["P5"], "sent 1.00ms after the first SOLD_OUT had arrived got SUCCESS");
    }

    #[test]
    fn p5_sold_out_and_success_under_way_together_prove_nothing() {
        let mut run = Run::good();
        run.enter(9, 2, Outcome::SoldOut);
        assert_eq!(run.broken().0, [""; 0]);
    }

    #[test]
    fn p5_sold_out_with_units_left_over() {
        let mut run = Run::good();
        run.before = status(10, 0);
        run.after = Ok(status(7, 3));
        run.assert_broken(&["P5"], "SOLD_OUT was said, but only 3 of 10 units were sold");
    }

    #[test]
    fn other_buyers_are_noted_and_break_nothing() {
        let mut run = Run::good();
        run.before = status(10, 0);
        run.after = Ok(status(0, 10));
        assert_eq!(run.broken().0, [""; 0]);
        assert_eq!(
            run.judge().notes,
            ["7 more units were sold than this run was told SUCCESS: others bought too"]
        );
    }

    #[test]
    fn an_attempt_without_answer_fails_the_run_and_is_no_broken_promise() {
        let mut run = Run::good();
        run.enter(9, 9, Outcome::Failed("no reply".into()));
        run.assert_broken(&["Answered"], "1 of 7 attempts got no answer");
    }

    #[test]
    fn a_refusal_is_an_answer_and_is_shown() {
        let mut run = Run::good();
        run.enter(9, 9, Outcome::Refused);
        let verdict = run.judge();
        assert!(verdict.passed);
        assert!(verdict.checks[5].figures.contains("1 of them refused"), "{}", verdict.checks[5].figures);
    }

    #[test]
    fn what_cannot_be_checked_does_not_hold() {
        let mut run = Run::good();
        run.after = Err("connection refused".into());
        run.assert_broken(&["P1", "P4"], "connection refused");
    }

    #[test]
    fn a_sale_that_was_closed_from_the_start_is_noted() {
        let mut run = Run::good();
        run.before.sale_active = false;
        assert!(run.judge().notes[0].contains("not active"));
    }
}
