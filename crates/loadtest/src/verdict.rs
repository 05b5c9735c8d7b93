//! Whether the promises were kept, judged by nothing but replies. P2 is in `holders`.

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

/// One promise: kept, broken, or not to be checked.
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
    /// Whether it could be checked.
    pub checked: bool,
    /// The figures that show it, or what is wrong, or why it could not be checked.
    pub figures: String,
}

impl Check {
    pub(crate) fn new(promise: &'static str, name: &'static str, faults: &[String], figures: String) -> Self {
        let holds = faults.is_empty();
        let figures = if holds { figures } else { faults.join("; ") };
        Self { promise, name, holds, checked: true, figures }
    }

    pub(crate) fn weigh(
        promise: &'static str,
        name: &'static str,
        findings: &Findings,
        figures: String,
    ) -> Self {
        let Findings { faults, doubts } = findings;
        if !faults.is_empty() || doubts.is_empty() {
            return Self::new(promise, name, faults, figures);
        }
        Self { promise, name, holds: false, checked: false, figures: doubts.join("; ") }
    }
}

/// What speaks against a promise.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Why it is broken.
    pub(crate) faults: Vec<String>,
    /// Why it cannot be checked.
    pub(crate) doubts: Vec<String>,
}

/// All that a run has seen.
pub(crate) struct Evidence<'a> {
    pub(crate) before: &'a SaleStatus,
    /// Or why it could not be read.
    pub(crate) after: Result<&'a SaleStatus, &'a String>,
    pub(crate) tally: &'a Tally,
    pub(crate) lookups: &'a Lookups,
    pub(crate) users: &'a Users,
    /// Whether nobody has bought as one of them before this run.
    pub(crate) fresh_users: bool,
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
        let mut findings = Findings { faults: self.order_id_faults(), ..Findings::default() };
        findings.doubts.extend(self.untested());
        match (self.changed(), self.after) {
            (Some(changed), _) => findings.doubts.push(changed),
            (None, Err(reason)) => {
                findings.faults.extend(self.more_success_than_units());
                findings.doubts.push(unknown_after(reason));
            }
            (None, Ok(after)) => {
                findings.faults.extend(self.more_success_than_units());
                findings.faults.extend(self.stock_faults(after));
            }
        }
        let left = self.after.map_or(0, |after| after.remaining_stock);
        let figures = format!(
            "{} SUCCESS of {} units, {left} left; {} order ids, all distinct",
            self.success(),
            self.before.remaining_stock,
            self.tally.purchases.len(),
        );
        Check::weigh("P1", "Never oversold", &findings, figures)
    }

    fn more_success_than_units(&self) -> Option<String> {
        let (success, units) = (self.success(), self.before.remaining_stock);
        (success > units.max(0)).then(|| format!("{success} SUCCESS, but only {units} units were left"))
    }

    /// What is wrong with the figures after the load.
    fn stock_faults(&self, after: &SaleStatus) -> Vec<String> {
        let mut faults = Vec::new();
        let (success, stock) = (self.success(), stock(self.before));
        let taken = self.before.remaining_stock.saturating_sub(after.remaining_stock);
        if taken < success {
            faults.push(format!("{success} SUCCESS, but the stock fell by {taken}"));
        }
        if after.remaining_stock < 0 {
            faults.push(format!("{} units remain", after.remaining_stock));
        }
        if after.total_sold > stock {
            faults.push(format!("totalSold is {} of a stock of {stock}", after.total_sold));
        }
        faults
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
                        shared.see(|| format!("{order:?} to {first} and to {second}"));
                    }
                }
            }
        }
        faults.extend(shared.fault("order ids were given again"));
        faults.extend(missing.fault("SUCCESS had no order id"));
        faults
    }

    fn success_is_recorded(&self) -> Check {
        let buyers = &self.lookups.buyers;
        let mut findings = Findings::default();
        findings.doubts.extend(self.untested());
        match self.reset() {
            Some(reset) => findings.doubts.push(reset),
            None => findings.faults.extend(buyers.fault.clone()),
        }
        findings.doubts.extend(buyers.doubt.clone());
        let late = if buyers.made < buyers.wanted { " before the time for it was over" } else { "" };
        let figures = format!(
            "{} of {} buyers looked up{late}, all found with their order",
            buyers.made,
            self.success()
        );
        Check::weigh("P3", "SUCCESS means recorded", &findings, figures)
    }

    fn stock_is_conserved(&self) -> Check {
        let before = self.before;
        let sum = |status: &SaleStatus| {
            format!("{} remaining + {} sold = {}", status.remaining_stock, status.total_sold, stock(status))
        };
        let mut findings = Findings::default();
        let mut figures = String::new();
        match (self.changed(), self.after) {
            (Some(changed), _) => findings.doubts.push(changed),
            (None, Err(reason)) => findings.doubts.push(unknown_after(reason)),
            (None, Ok(after)) if stock(after) != stock(before) => {
                findings.faults.push(format!("before {}, after {}", sum(before), sum(after)));
            }
            (None, Ok(after)) => figures = format!("{} before and after", sum(after)),
        }
        Check::weigh("P4", "Stock is conserved", &findings, figures)
    }

    fn first_come_first_served(&self) -> Check {
        let mut findings = Findings::default();
        findings.doubts.extend(self.untested());
        match self.changed() {
            Some(changed) => findings.doubts.push(changed),
            None => {
                findings.faults.extend(self.success_after_sold_out());
                self.weigh_sold_out(&mut findings);
                findings.doubts.extend(self.not_as_open_as_shown());
            }
        }
        let figures = match self.tally.counts.sold_out {
            0 => "nobody was told SOLD_OUT".to_owned(),
            _ => "nobody was told SOLD_OUT before the last unit was taken".to_owned(),
        };
        Check::weigh("P5", "First come, first served", &findings, figures)
    }

    fn success_after_sold_out(&self) -> Option<String> {
        // Both instants err on the server's side: sent is taken before sending, arrived after the last byte.
        let (sold_out, sent) = (self.tally.first_sold_out?, self.tally.last_success_sent?);
        let gap_ms = sent.checked_duration_since(sold_out)?.as_secs_f64() * 1_000.0;
        (gap_ms > 0.0).then(|| {
            format!("an attempt sent {gap_ms:.2}ms after the first SOLD_OUT had arrived got SUCCESS")
        })
    }

    /// Whether all units were sold, where somebody was told so.
    fn weigh_sold_out(&self, findings: &mut Findings) {
        let units = self.before.remaining_stock;
        if self.tally.counts.sold_out == 0 || self.success() >= units {
            return;
        }
        match self.after {
            Err(reason) => findings.doubts.push(unknown_after(reason)),
            Ok(after) if self.sold_meanwhile(after) < units => {
                let sold = self.sold_meanwhile(after);
                findings
                    .faults
                    .push(format!("SOLD_OUT was said, but only {sold} of {units} units were sold"));
            }
            Ok(_) => {}
        }
    }

    /// Where answers contradict the status, which said the same before and after. Somebody may have paused the sale, or
    /// resumed it, in between: it proves nothing.
    fn not_as_open_as_shown(&self) -> Option<String> {
        let (before, after) = (self.before, self.after.ok()?);
        let (counts, same) = (&self.tally.counts, before.status == after.status);
        match (before.sale_active, after.sale_active) {
            (true, true) if counts.not_active > 0 => Some(format!(
                "{} attempts were answered with 400, not active, though the sale was active before and after the \
                 load: was it paused in between?",
                counts.not_active
            )),
            (false, false) if counts.success > 0 && same => Some(format!(
                "{} SUCCESS, though the sale was not active before and after the load",
                counts.success
            )),
            _ => None,
        }
    }

    fn every_attempt_answered(&self) -> Check {
        let counts = &self.tally.counts;
        let total = counts.total();
        let mut findings = Findings::default();
        let unanswered = counts.failed + counts.crowded_out;
        if unanswered > 0 {
            findings.faults.push(format!("{unanswered} of {total} attempts got no answer that counts"));
        }
        if counts.out_of_files > 0 {
            let unsent = counts.out_of_files;
            findings
                .doubts
                .push(format!("{unsent} of {total} attempts were never sent, for want of open files"));
        }
        let refused = match counts.refused {
            0 => String::new(),
            refused => format!(", {refused} of them refused with 429 or 503 and told when to come again"),
        };
        let figures = format!("{total} of {total}{refused}");
        Check::weigh("Answered", "Every attempt is answered", &findings, figures)
    }

    /// Why the answers say nothing of the promises, if they do not.
    pub(crate) fn untested(&self) -> Option<String> {
        (self.tally.counts.decided() == 0).then(|| "nothing was tested: no attempt was decided".to_owned())
    }

    /// That the sale was reset while the load was on, if it was.
    pub(crate) fn reset(&self) -> Option<String> {
        let (before, after) = (self.before.epoch?, self.after.ok()?.epoch?);
        (before != after).then(|| "the sale was reset while the load was on".to_owned())
    }

    /// That the stock is another than before the load, if it is.
    fn changed(&self) -> Option<String> {
        self.reset().or_else(|| {
            let (before, after) = (self.before.total_stock?, self.after.ok()?.total_stock?);
            let changed =
                || format!("the sale's stock was changed from {before} to {after} while the load was on");
            (before != after).then(changed)
        })
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(changed) = self.changed() {
            let promises = if self.reset().is_some() { "P1 to P5" } else { "P1, P4 and P5" };
            notes.push(format!("{changed}: no verdict on {promises}"));
        } else {
            notes.extend(self.others_bought());
        }
        notes.extend(self.nothing_to_sell());
        if self.tally.unrecorded > 0 {
            let unrecorded = self.tally.unrecorded;
            notes.push(format!(
                "{unrecorded} answers were counted, but are too many to be checked one by one"
            ));
        }
        notes
    }

    fn others_bought(&self) -> Option<String> {
        let others =
            self.after.ok()?.total_sold.saturating_sub(self.before.total_sold).saturating_sub(self.success());
        let whose = match self.tally.counts.failed {
            0 => "others bought too",
            _ => "others bought too, or attempts that got no answer did",
        };
        (others > 0).then(|| format!("{others} more units were sold than this run was told SUCCESS: {whose}"))
    }

    /// Why there was nothing to buy when the load began.
    fn nothing_to_sell(&self) -> Option<String> {
        let before = self.before;
        let why = match before.status.as_deref() {
            _ if before.sale_active && before.remaining_stock > 0 => return None,
            _ if before.sale_active => "was sold out",
            _ if before.paused == Some(true) => "was paused",
            Some("UPCOMING") => "had not begun",
            Some("ENDED") => "was over",
            _ => "was not active",
        };
        let counts = &self.tally.counts;
        let tested =
            if counts.success == 0 && counts.decided() > 0 { ": only rejections were tested" } else { "" };
        Some(format!("the sale {why} before the load{tested}"))
    }

    fn success(&self) -> i64 {
        i64::try_from(self.tally.counts.success).unwrap_or(i64::MAX)
    }

    fn sold_meanwhile(&self, after: &SaleStatus) -> i64 {
        self.success().max(after.total_sold.saturating_sub(self.before.total_sold))
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
    status.remaining_stock.saturating_add(status.total_sold)
}

fn unknown_after(reason: &str) -> String {
    format!("the status after the load is not known: {reason}")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::reply::Outcome;
    use crate::sale::Sample;
    use crate::tally::Entry;

    /// A run of 3 units and 5 users that kept every promise; a test breaks one thing.
    struct Run {
        start: Instant,
        before: SaleStatus,
        after: Result<SaleStatus, String>,
        tally: Tally,
        lookups: Lookups,
        fresh_users: bool,
    }

    fn status(remaining_stock: i64, total_sold: i64) -> SaleStatus {
        let (total_stock, epoch, paused) = (Some(3), Some(1), Some(false));
        SaleStatus {
            sale_id: "sale_1".into(),
            remaining_stock,
            total_sold,
            sale_active: true,
            total_stock,
            epoch,
            paused,
            status: Some("ACTIVE".into()),
        }
    }

    fn success(order: &str) -> Outcome<'_> {
        Outcome::Success(Some(order.into()))
    }

    fn already(order: &str) -> Outcome<'_> {
        Outcome::AlreadyPurchased(Some(order.into()))
    }

    impl Run {
        fn without_load() -> Self {
            let buyers = Sample { wanted: 3, made: 3, ..Sample::default() };
            Self {
                start: Instant::now(),
                before: status(3, 0),
                after: Ok(status(0, 3)),
                tally: Tally::new(true),
                lookups: Lookups { buyers, ..Lookups::default() },
                fresh_users: true,
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
            Evidence {
                before: &self.before,
                after: self.after.as_ref(),
                tally: &self.tally,
                lookups: &self.lookups,
                users: &users,
                fresh_users: self.fresh_users,
            }
            .judge()
        }

        /// The promises that do not hold, checked or not, and all that is said of them.
        fn failing(&self, checked: bool) -> (Vec<&'static str>, String) {
            let verdict = self.judge();
            assert_eq!(verdict.passed, verdict.checks.iter().all(|check| check.holds));
            let failing = verdict.checks.iter().filter(|check| !check.holds && check.checked == checked);
            let said: Vec<_> = failing.clone().map(|check| check.figures.as_str()).collect();
            (failing.map(|check| check.promise).collect(), said.join("\n"))
        }

        /// The promises that are broken, and all that is said of them.
        fn broken(&self) -> (Vec<&'static str>, String) {
            self.failing(true)
        }

        fn assert_unchecked(&self, promises: &[&str], because: &str) {
            assert_eq!(self.broken().0, [""; 0]);
            let (unchecked, said) = self.failing(false);
            assert_eq!(unchecked, promises, "{said}");
            assert!(said.contains(because), "{said}");
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
        run.assert_broken(&["P1"], "1 order ids were given again, such as \"o-0\" to u-0 and to u-1");
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
        run.fresh_users = false;
        run.enter(8, 9, already("o-8"));
        run.enter(8, 9, already("o-9"));
        run.assert_broken(&["P2"], "u-8 was told ALREADY_PURCHASED with different order ids");
    }

    #[test]
    fn p3_a_buyer_whom_the_server_does_not_know() {
        let mut run = Run::good();
        run.lookups.buyers.fault = Some("u-0 was told SUCCESS, but the server knows of no purchase".into());
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
        run.assert_unchecked(&["P1", "P4"], "connection refused");
        run.lookups.buyers.doubt = Some("u-0 could not be looked up: time-out".into());
        run.assert_unchecked(&["P1", "P3", "P4"], "time-out");
        run.enter(9, 2, success("o-9"));
        let (broken, said) = run.broken();
        assert_eq!(broken, ["P1"], "what is certain all the same: {said}");
    }

    #[test]
    fn look_ups_that_took_too_long_prove_what_they_have_seen() {
        let mut run = Run::good();
        run.lookups.buyers.made = 2;
        let figures = &run.judge().checks[2].figures;
        assert!(
            figures.starts_with("2 of 3 buyers looked up before the time for it was over, "),
            "{figures}"
        );
    }

    #[test]
    fn a_sale_that_was_reset_meanwhile_is_not_judged() {
        // "P1 broken" was the verdict on a server whose operator had reset the sale.
        let mut run = Run::good();
        run.after = Ok(SaleStatus { epoch: Some(2), ..status(3, 0) });
        run.lookups.buyers.fault = Some("u-0 was told SUCCESS, but the server knows of no purchase".into());
        run.enter(0, 9, success("o-9"));
        let why = "the sale was reset while the load was on";
        run.assert_unchecked(&["P1", "P2", "P3", "P4", "P5"], why);
        assert_eq!(run.judge().notes, [format!("{why}: no verdict on P1 to P5")]);
    }

    #[test]
    fn a_sale_whose_stock_was_changed_meanwhile_is_judged_by_what_does_not_rest_on_it() {
        let mut run = Run::good();
        run.after = Ok(SaleStatus { total_stock: Some(10), ..status(7, 3) });
        run.assert_unchecked(&["P1", "P4", "P5"], "the sale's stock was changed from 3 to 10");
        assert!(run.judge().notes[0].ends_with("while the load was on: no verdict on P1, P4 and P5"));
        run.enter(0, 9, success("o-9"));
        assert_eq!(run.broken().0, ["P2"]);
    }

    #[test]
    fn a_run_in_which_nothing_was_decided_proves_nothing() {
        // A server that refused everybody passed.
        let mut run = Run::without_load();
        run.after = Ok(status(3, 0));
        run.enter(0, 0, Outcome::Refused);
        run.assert_unchecked(&["P1", "P2", "P3", "P5"], "nothing was tested");
        run.enter(1, 1, Outcome::Failed("lost".into()));
        assert_eq!(run.broken().0, ["Answered"]);
    }

    #[test]
    fn attempts_for_which_this_machine_has_no_files_are_not_the_servers_fault() {
        let mut run = Run::good();
        run.tally.counts.out_of_files = 2;
        run.assert_unchecked(&["Answered"], "2 of 8 attempts were never sent, for want of open files");
        run.tally.counts.crowded_out = 1;
        run.assert_broken(&["Answered"], "1 of 9 attempts got no answer");
    }

    #[test]
    fn p2_a_new_user_who_is_told_to_have_bought_before() {
        let mut run = Run::good();
        run.enter(8, 9, already("o-8"));
        run.assert_broken(&["P2"], "1 users were told ALREADY_PURCHASED who had bought nothing, such as u-8");
        // With names that somebody may have used before, it may be true.
        run.fresh_users = false;
        assert_eq!(run.broken(), (vec![], String::new()));
    }

    #[test]
    fn p2_an_answer_that_was_lost_before_may_have_been_the_purchase() {
        for (lost, invented) in [(7, false), (11, true)] {
            let mut run = Run::good();
            run.enter(8, 9, already("o-8"));
            run.enter(8, lost, Outcome::Refused);
            assert_eq!(!run.broken().0.is_empty(), invented, "lost in {lost} ms");
        }
    }

    #[test]
    fn p2_success_for_somebody_who_holds_a_purchase() {
        let mut run = Run::without_load();
        run.fresh_users = false;
        run.enter(0, 0, already("o-0"));
        run.enter(0, 1, success("o-0"));
        run.assert_broken(&["P2"], "went to a user who had one already, such as u-0");
    }

    #[test]
    fn p2_the_order_of_somebody_else() {
        for (owner, order) in [("who bought", "o-1"), ("who had bought before", "o-8")] {
            let mut run = Run::good();
            run.fresh_users = false;
            run.enter(8, 9, already("o-8"));
            run.enter(9, 9, already(order));
            run.assert_broken(&["P2"], "1 order ids were told to somebody else with ALREADY_PURCHASED");
            assert!(run.broken().1.contains(&format!("{order:?} to u-")), "{owner}");
        }
    }

    #[test]
    fn p2_no_order_id_for_somebody_who_bought_before_this_run() {
        let mut run = Run::good();
        run.fresh_users = false;
        run.enter(8, 9, Outcome::AlreadyPurchased(None));
        run.assert_broken(&["P2"], "without an order id, such as u-8");
    }

    #[test]
    fn p2_a_holder_who_is_turned_away() {
        for outcome in [|| Outcome::SoldOut, || Outcome::NotActive(None)] {
            let mut run = Run::good();
            run.after = Ok(SaleStatus { sale_active: false, ..status(0, 3) });
            // Asked again after the SUCCESS had arrived.
            run.enter(2, 3, outcome());
            run.assert_broken(&["P2"], "1 users who hold a purchase were told SOLD_OUT");
        }
        // Asked before it had arrived; or told of the order.
        let mut run = Run::good();
        run.enter(2, 2, Outcome::SoldOut);
        assert_eq!(run.broken().0, [""; 0]);
        run.after = Ok(SaleStatus { sale_active: false, ..status(0, 3) });
        run.enter(2, 9, Outcome::NotActive(Some("o-2".into())));
        assert_eq!(run.broken().0, [""; 0]);
        run.enter(2, 9, Outcome::NotActive(Some("o-1".into())));
        assert_eq!(run.broken().0, ["P2"]);
    }

    #[test]
    fn p2_a_purchase_from_before_that_is_not_found() {
        let mut run = Run::good();
        run.fresh_users = false;
        run.lookups.claimants.fault = Some("u-8 was told ALREADY_PURCHASED, but none is known".into());
        run.assert_broken(&["P2"], "u-8 was told ALREADY_PURCHASED");
    }

    #[test]
    fn p5_a_sale_that_is_not_as_open_as_it_says() {
        // A server that turned everybody away from an open sale passed.
        let mut run = Run::without_load();
        run.after = Ok(status(3, 0));
        run.enter(0, 0, Outcome::NotActive(None));
        run.assert_unchecked(
            &["P5"],
            "1 attempts were answered with 400, not active, though the sale was active",
        );
        run.after = Ok(SaleStatus { sale_active: false, ..status(3, 0) });
        assert!(run.judge().passed, "it may have ended");
    }

    #[test]
    fn p5_a_sale_that_sells_while_it_says_that_it_is_closed() {
        let mut run = Run::good();
        for status in [&mut run.before, run.after.as_mut().expect("known")] {
            (status.sale_active, status.status) = (false, Some("UPCOMING".into()));
        }
        run.assert_unchecked(&["P5"], "3 SUCCESS, though the sale was not active");
        run.after.as_mut().expect("known").status = Some("ENDED".into());
        assert!(run.judge().passed, "it was open in between");
    }

    #[test]
    fn a_sale_with_nothing_to_sell_is_noted() {
        for (active, status, paused, why) in [
            (true, "ACTIVE", false, "was sold out"),
            (false, "ACTIVE", true, "was paused"),
            (false, "UPCOMING", false, "had not begun"),
            (false, "ENDED", false, "was over"),
            (false, "?", false, "was not active"),
        ] {
            let mut run = Run::without_load();
            run.before = SaleStatus {
                sale_active: active,
                status: Some(status.into()),
                paused: Some(paused),
                ..self::status(0, 3)
            };
            run.after = Ok(run.before.clone());
            run.lookups = Lookups::default();
            run.enter(0, 0, if active { Outcome::SoldOut } else { Outcome::NotActive(None) });
            let verdict = run.judge();
            assert!(verdict.passed);
            assert_eq!(
                verdict.notes,
                [format!("the sale {why} before the load: only rejections were tested")]
            );
        }
    }
}
