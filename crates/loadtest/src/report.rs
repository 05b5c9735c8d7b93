//! The report of a run, for people (`Display`) and for programs (`Serialize`).

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::interrupt::Applied;
use crate::options::Options;
use crate::sale::SaleStatus;
use crate::tally::Tally;
use crate::verdict::Verdict;

const WIDTH: usize = 80;
const TITLE: &str = "FLASH SALE STRESS TEST RESULTS";

/// What a run has measured and proved. `Display` prints the stress test's report, then the verdict; the last line is
/// `PASSED` or begins with `FAILED` or `NOT PROVEN`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Report {
    /// Id of the sale.
    pub sale_id: String,
    /// All attempts that were sent, or would have been had the server taken the connection.
    pub total_requests: u64,
    /// Those of them without an answer that counts: no connection, no reply in time, a reply that means nothing.
    pub failed_requests: u64,
    /// Why they failed: the first few distinct reasons, the others summed up. HTTP replies of one status are one reason.
    pub failures: Vec<Failure>,
    /// Attempts that were due and never sent. They are not in `total_requests`.
    pub never_sent: u64,
    /// Why they were not.
    pub never_sent_reasons: Vec<Failure>,
    /// From the start of the clock to when the last attempt was answered or given up, in seconds.
    pub elapsed_seconds: f64,
    /// Answered attempts per second over that time, or over the load's duration where that is longer.
    pub requests_per_second: f64,
    /// Of all attempts that got an answer that counts.
    pub response_time: ResponseTime,
    /// What the answered attempts were told.
    pub outcomes: Outcomes,
    /// The sale before the load.
    pub before: SaleStatus,
    /// The sale after the load; none if the server did not say.
    pub after: Option<SaleStatus>,
    /// Whether it was told to stop before its time. The report is of what was asked until then.
    pub interrupted: bool,
    /// Whether the promises were kept.
    pub verdict: Verdict,
}

/// A reason why attempts failed or were not sent.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Failure {
    /// In words.
    pub reason: String,
    /// How many attempts.
    pub count: u64,
}

/// Response times in milliseconds, to 3 significant digits, of attempts that got an answer that counts; all 0 where
/// none did. In an open loop they count from the intended start.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ResponseTime {
    /// Mean.
    pub average_ms: f64,
    /// Half were faster.
    pub median_ms: f64,
    /// 95% were faster.
    pub p95_ms: f64,
    /// 99% were faster.
    pub p99_ms: f64,
    /// 99.9% were faster.
    pub p999_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

/// How many attempts were told what.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Outcomes {
    /// `SUCCESS`.
    pub success: u64,
    /// `ALREADY_PURCHASED`.
    pub already_purchased: u64,
    /// `SOLD_OUT`.
    pub sold_out: u64,
    /// 400: the sale is not open.
    pub not_active: u64,
    /// 429 or 503 with `Retry-After`.
    pub refused: u64,
}

impl Report {
    pub(crate) fn new(
        options: Options,
        applied: Applied,
        tally: &Tally,
        before: SaleStatus,
        after: Option<SaleStatus>,
        verdict: Verdict,
    ) -> Self {
        let counts = tally.counts;
        let elapsed = tally.last_over().map_or(Duration::ZERO, |at| at - applied.start);
        let lasted = applied.lasted(options.load.duration()).max(elapsed);
        Self {
            total_requests: counts.sent(),
            failed_requests: counts.failed,
            failures: tally.reasons.iter().map(|one| Failure::new(one.to_string(), one.count)).collect(),
            never_sent: counts.never_sent(),
            never_sent_reasons: Failure::never_sent(tally, &options),
            elapsed_seconds: elapsed.as_secs_f64(),
            requests_per_second: counts.answered() as f64 / lasted.as_secs_f64().max(1e-6),
            response_time: ResponseTime::of(tally),
            outcomes: Outcomes {
                success: counts.success,
                already_purchased: counts.already_purchased,
                sold_out: counts.sold_out,
                not_active: counts.not_active,
                refused: counts.refused,
            },
            sale_id: options.sale,
            before,
            after,
            interrupted: applied.stopped.is_some(),
            verdict,
        }
    }

    /// Whether every promise was kept and every attempt answered.
    pub fn passed(&self) -> bool {
        self.verdict.passed
    }

    /// `12 (0.34%)`, of all that were sent.
    fn share(&self, count: u64) -> String {
        let percent = count as f64 * 100.0 / self.total_requests.max(1) as f64;
        format!("{count} ({percent:.2}%)")
    }

    fn write_statistics(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "📊 REQUEST STATISTICS:")?;
        writeln!(f, "   Total Requests: {}", self.total_requests)?;
        writeln!(f, "   Failed Requests: {}", self.share(self.failed_requests))?;
        for Failure { reason, count } in &self.failures {
            writeln!(f, "      {count} × {reason}")?;
        }
        if self.never_sent > 0 {
            writeln!(f, "   Never Sent: {}", self.never_sent)?;
        }
        for Failure { reason, count } in &self.never_sent_reasons {
            writeln!(f, "      {count} × {reason}")?;
        }
        writeln!(f, "   Achieved Rate: {:.2} requests/s", self.requests_per_second)
    }

    fn write_response_time(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ResponseTime { average_ms, median_ms, p95_ms, p99_ms, max_ms, .. } = self.response_time;
        writeln!(f, "⏱️  RESPONSE TIME:")?;
        writeln!(f, "   Average: {average_ms:.2}ms")?;
        writeln!(f, "   Median (p50): {median_ms:.2}ms")?;
        writeln!(f, "   p95: {p95_ms:.2}ms")?;
        writeln!(f, "   p99: {p99_ms:.2}ms")?;
        writeln!(f, "   Max: {max_ms:.2}ms")?;
        let unanswered = self.failed_requests + self.never_sent;
        if unanswered > 0 {
            let answered = self.total_requests - self.failed_requests;
            writeln!(f, "   (of the {answered} answered; {unanswered} more were not)")?;
        }
        Ok(())
    }

    fn write_outcomes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcomes { success, already_purchased, sold_out, not_active, refused } = self.outcomes;
        writeln!(f, "🛒 PURCHASE RESULTS:")?;
        writeln!(f, "   SUCCESS: {}", self.share(success))?;
        writeln!(f, "   ALREADY_PURCHASED: {}", self.share(already_purchased))?;
        writeln!(f, "   SOLD_OUT: {}", self.share(sold_out))?;
        if not_active > 0 {
            writeln!(f, "   NOT_ACTIVE: {}", self.share(not_active))?;
        }
        if refused > 0 {
            writeln!(f, "   REFUSED: {}", self.share(refused))?;
        }
        Ok(())
    }
}

impl Failure {
    fn new(reason: String, count: u64) -> Self {
        Self { reason, count }
    }

    fn never_sent(tally: &Tally, options: &Options) -> Vec<Self> {
        let files = options.open_files.map_or_else(|| "so many".to_owned(), |files| format!("only {files}"));
        let reasons = [
            (tally.counts.crowded_out, format!("no free connection within {:?}", options.timeout)),
            (tally.counts.out_of_files, format!("this machine lets the load generator open {files} files")),
        ];
        let counted = reasons.into_iter().filter(|(count, _)| *count > 0);
        counted.map(|(count, reason)| Self::new(reason, count)).collect()
    }
}

impl ResponseTime {
    fn of(tally: &Tally) -> Self {
        let latency = &tally.latency;
        let quantile_ms = |quantile| latency.value_at_quantile(quantile) as f64 / 1_000.0;
        Self {
            average_ms: latency.mean() / 1_000.0,
            median_ms: quantile_ms(0.5),
            p95_ms: quantile_ms(0.95),
            p99_ms: quantile_ms(0.99),
            p999_ms: quantile_ms(0.999),
            max_ms: latency.max() as f64 / 1_000.0,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = "=".repeat(WIDTH);
        writeln!(f, "{rule}\n{:20}{TITLE}\n{rule}\n", "")?;
        self.write_statistics(f)?;
        writeln!(f)?;
        self.write_response_time(f)?;
        writeln!(f)?;
        self.write_outcomes(f)?;
        writeln!(f, "\n{rule}\n")?;
        write!(f, "{}", self.verdict)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "⚖️  VERDICT:")?;
        for check in &self.checks {
            let mark = match (check.holds, check.checked) {
                (true, _) => "✅",
                (false, true) => "❌",
                (false, false) => "❔",
            };
            // `Answered` names no promise of the design, and its name says it all.
            let number = if check.promise == "Answered" { "" } else { check.promise };
            let space = if number.is_empty() { "" } else { " " };
            writeln!(f, "   {mark} {number}{space}{}: {}", check.name, check.figures)?;
        }
        for note in &self.notes {
            writeln!(f, "   Note: {note}")?;
        }
        let broken = |check: &&crate::Check| !check.holds && check.checked;
        writeln!(f)?;
        f.write_str(match self.checks.iter().filter(broken).map(|check| check.promise).next() {
            _ if self.passed => "PASSED",
            // It is the last of the checks.
            Some("Answered") => "FAILED: an attempt got no answer",
            Some(_) => "FAILED: a promise is broken",
            None => "NOT PROVEN: what is marked ❔ could not be checked",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::Load;
    use crate::reply::Outcome;
    use crate::tally::{Entry, Tallies, Unsent};
    use crate::verdict::Check;

    const SEED: &str = "\
================================================================================
                    FLASH SALE STRESS TEST RESULTS
================================================================================

📊 REQUEST STATISTICS:
   Total Requests: 10000
   Failed Requests: 0 (0.00%)
   Achieved Rate: 1999.80 requests/s

⏱️  RESPONSE TIME:
   Average: 45.23ms
   Median (p50): 38.12ms
   p95: 124.50ms
   p99: 287.34ms
   Max: 450.23ms

🛒 PURCHASE RESULTS:
   SUCCESS: 100 (1.00%)
   ALREADY_PURCHASED: 0 (0.00%)
   SOLD_OUT: 9900 (99.00%)

================================================================================

⚖️  VERDICT:
   ✅ P1 Never oversold: 100 SUCCESS of 100 units
   ✅ Every attempt is answered: 10000 of 10000

PASSED";

    fn check(promise: &'static str, name: &'static str, figures: &str) -> Check {
        Check { promise, name, holds: true, checked: true, figures: figures.to_owned() }
    }

    fn status(remaining_stock: i64, total_sold: i64) -> SaleStatus {
        let (total_stock, epoch, paused) = (Some(100), Some(1), Some(false));
        SaleStatus {
            sale_id: "sale_1".into(),
            remaining_stock,
            total_sold,
            sale_active: true,
            total_stock,
            epoch,
            paused,
            status: None,
        }
    }

    fn seed() -> Report {
        Report {
            sale_id: "sale_1".into(),
            total_requests: 10_000,
            failed_requests: 0,
            failures: vec![],
            never_sent: 0,
            never_sent_reasons: vec![],
            elapsed_seconds: 5.0005,
            requests_per_second: 1_999.8,
            response_time: ResponseTime {
                average_ms: 45.23,
                median_ms: 38.12,
                p95_ms: 124.5,
                p99_ms: 287.34,
                p999_ms: 300.5,
                max_ms: 450.23,
            },
            outcomes: Outcomes {
                success: 100,
                already_purchased: 0,
                sold_out: 9_900,
                not_active: 0,
                refused: 0,
            },
            before: status(100, 0),
            after: Some(status(0, 100)),
            interrupted: false,
            verdict: Verdict {
                passed: true,
                checks: vec![
                    check("P1", "Never oversold", "100 SUCCESS of 100 units"),
                    check("Answered", "Every attempt is answered", "10000 of 10000"),
                ],
                notes: vec![],
            },
        }
    }

    #[test]
    fn the_seeds_figures_print_the_seeds_report() {
        assert_eq!(seed().to_string(), SEED);
    }

    #[test]
    fn what_is_not_in_the_seed_is_shown_when_there_is_some() {
        let mut report = seed();
        report.failed_requests = 3;
        report.failures = vec![Failure { reason: "no reply within 10s".into(), count: 3 }];
        report.never_sent = 7;
        report.never_sent_reasons =
            vec![Failure { reason: "no free connection within 10s".into(), count: 7 }];
        report.outcomes.not_active = 1;
        report.outcomes.refused = 2_500;
        report.verdict.notes = vec!["others bought too".into()];
        let text = report.to_string();
        for line in [
            "   Failed Requests: 3 (0.03%)\n      3 × no reply within 10s\n   Never Sent: 7\n",
            "   Never Sent: 7\n      7 × no free connection within 10s\n   Achieved Rate: ",
            "   Max: 450.23ms\n   (of the 9997 answered; 10 more were not)\n\n",
            "   NOT_ACTIVE: 1 (0.01%)\n   REFUSED: 2500 (25.00%)\n",
            "   Note: others bought too\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn the_last_line_says_how_it_ended() {
        let mut report = seed();
        report.verdict.passed = false;
        report.verdict.checks[1].holds = false;
        assert!(report.to_string().ends_with("\nFAILED: an attempt got no answer"));
        report.verdict.checks[0].holds = false;
        assert!(report.to_string().ends_with("\nFAILED: a promise is broken"));
        assert!(report.to_string().contains("   ❌ P1 Never oversold: "));
    }

    #[test]
    fn what_could_not_be_checked_is_neither_kept_nor_broken() {
        // A server that died was told to have broken a promise.
        let mut report = seed();
        report.verdict.passed = false;
        (report.verdict.checks[0].holds, report.verdict.checks[0].checked) = (false, false);
        let text = report.to_string();
        assert!(text.contains("   ❔ P1 Never oversold: "), "{text}");
        assert!(text.ends_with("\nNOT PROVEN: what is marked ❔ could not be checked"), "{text}");
        report.verdict.checks[1].holds = false;
        assert!(report.to_string().ends_with("\nFAILED: an attempt got no answer"));
    }

    /// A report of a load of one second, on a tally.
    fn of(tally: &Tally, start: Instant, stopped: Option<Instant>) -> Report {
        let load = Load::OpenLoop { rate_per_second: 1.0, duration: Duration::from_secs(1) };
        let options =
            Options { load, open_files: Some(64), ..Options::new("http://127.0.0.1:3000", "sale_1", "run") };
        let (applied, verdict) = (Applied { start, stopped }, seed().verdict);
        Report::new(options, applied, tally, status(1, 0), None, verdict)
    }

    #[test]
    fn the_rate_is_of_answers_over_the_whole_load() {
        // One attempt a second for one second, answered at once, was "901 requests/s".
        let (mut tally, start) = (Tally::new(false), Instant::now());
        let mut enter = |outcome| {
            let completed = start + Duration::from_millis(1);
            tally.enter(Entry { user: 0, since: start, sent: start, completed, outcome });
        };
        enter(Outcome::SoldOut);
        enter(Outcome::Failed("lost".into()));
        let report = of(&tally, start, None);
        assert_eq!((report.requests_per_second, report.total_requests, report.failed_requests), (1.0, 2, 1));
        let half = Some(start + Duration::from_millis(500));
        let report = of(&tally, start, half);
        assert_eq!((report.requests_per_second, report.interrupted), (2.0, true));
    }

    #[test]
    fn what_was_never_sent_is_told_apart_and_files_are_not_the_servers_fault() {
        let tallies = Tallies::new(false);
        tallies.skip(0, Unsent::OutOfFiles);
        tallies.skip(1, Unsent::OutOfFiles);
        tallies.skip(2, Unsent::NoFreeConnection);
        let report = of(&tallies.total(), Instant::now(), None);
        assert_eq!((report.total_requests, report.failed_requests, report.never_sent), (0, 0, 3));
        let text = report.to_string();
        assert!(text.contains("      1 × no free connection within 10s\n"), "{text}");
        assert!(
            text.contains("      2 × this machine lets the load generator open only 64 files\n"),
            "{text}"
        );
    }

    #[test]
    fn no_attempt_at_all_divides_by_nothing() {
        let report = Report { total_requests: 0, ..seed() };
        assert_eq!(report.share(0), "0 (0.00%)");
    }

    #[test]
    fn programs_read_it_in_camel_case() {
        let json = serde_json::to_value(seed()).expect("serializes");
        assert_eq!(json["totalRequests"], 10_000);
        assert_eq!(json["responseTime"]["p95Ms"], 124.5);
        assert_eq!(json["responseTime"]["p999Ms"], 300.5);
        assert_eq!(json["outcomes"]["alreadyPurchased"], 0);
        assert_eq!(json["after"]["totalSold"], 100);
        assert_eq!(json["verdict"]["checks"][0]["promise"], "P1");
    }
}
