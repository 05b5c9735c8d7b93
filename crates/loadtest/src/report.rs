//! The report of a run, for people (`Display`) and for programs (`Serialize`).

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::sale::SaleStatus;
use crate::tally::Tally;
use crate::verdict::Verdict;

const WIDTH: usize = 80;
const TITLE: &str = "FLASH SALE STRESS TEST RESULTS";

/// What a run has measured and proved. `Display` prints the stress test's report, then the verdict; the last line is
/// `PASSED` or begins with `FAILED`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Report {
    /// Id of the sale.
    pub sale_id: String,
    /// All attempts, whatever came of them.
    pub total_requests: u64,
    /// Attempts without an answer that counts: no connection, no reply in time, a reply that means nothing.
    pub failed_requests: u64,
    /// Why they failed: the first few distinct reasons, the others summed up.
    pub failures: Vec<Failure>,
    /// From the start of the clock to the last answer, in seconds.
    pub elapsed_seconds: f64,
    /// Attempts per second over that time.
    pub requests_per_second: f64,
    /// Of all attempts, failed ones included.
    pub response_time: ResponseTime,
    /// What the answered attempts were told.
    pub outcomes: Outcomes,
    /// The sale before the load.
    pub before: SaleStatus,
    /// The sale after the load; none if the server did not say.
    pub after: Option<SaleStatus>,
    /// Whether the promises were kept.
    pub verdict: Verdict,
}

/// A reason why attempts failed.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Failure {
    /// In words.
    pub reason: String,
    /// How many attempts.
    pub count: u64,
}

/// Response times in milliseconds, to 3 significant digits. In an open loop they count from the intended start.
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
        sale_id: String,
        elapsed: Duration,
        tally: &Tally,
        before: SaleStatus,
        after: Option<SaleStatus>,
        verdict: Verdict,
    ) -> Self {
        let counts = tally.counts;
        let failures =
            tally.reasons.iter().map(|(reason, count)| Failure { reason: reason.clone(), count: *count });
        let elapsed_seconds = elapsed.as_secs_f64();
        Self {
            sale_id,
            total_requests: counts.total(),
            failed_requests: counts.failed,
            failures: failures.collect(),
            elapsed_seconds,
            requests_per_second: counts.total() as f64 / elapsed_seconds.max(1e-6),
            response_time: ResponseTime::of(tally),
            outcomes: Outcomes {
                success: counts.success,
                already_purchased: counts.already_purchased,
                sold_out: counts.sold_out,
                not_active: counts.not_active,
                refused: counts.refused,
            },
            before,
            after,
            verdict,
        }
    }

    /// Whether every promise was kept and every attempt answered.
    pub fn passed(&self) -> bool {
        self.verdict.passed
    }

    /// `12 (0.34%)`, of all attempts.
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
        writeln!(f, "   Achieved Rate: {:.2} requests/s", self.requests_per_second)
    }

    fn write_response_time(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ResponseTime { average_ms, median_ms, p95_ms, p99_ms, max_ms, .. } = self.response_time;
        writeln!(f, "⏱️  RESPONSE TIME:")?;
        writeln!(f, "   Average: {average_ms:.2}ms")?;
        writeln!(f, "   Median (p50): {median_ms:.2}ms")?;
        writeln!(f, "   p95: {p95_ms:.2}ms")?;
        writeln!(f, "   p99: {p99_ms:.2}ms")?;
        writeln!(f, "   Max: {max_ms:.2}ms")
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
            let mark = if check.holds { "✅" } else { "❌" };
            // `Answered` names no promise of the design, and its name says it all.
            let number = if check.promise == "Answered" { "" } else { check.promise };
            let space = if number.is_empty() { "" } else { " " };
            writeln!(f, "   {mark} {number}{space}{}: {}", check.name, check.figures)?;
        }
        for note in &self.notes {
            writeln!(f, "   Note: {note}")?;
        }
        let broken = |check: &crate::Check| !check.holds && check.promise != "Answered";
        writeln!(f)?;
        f.write_str(match self.passed {
            true => "PASSED",
            false if self.checks.iter().any(broken) => "FAILED: a promise is broken",
            false => "FAILED: an attempt got no answer",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        Check { promise, name, holds: true, figures: figures.to_owned() }
    }

    fn status(remaining_stock: i64, total_sold: i64) -> SaleStatus {
        SaleStatus { sale_id: "sale_1".into(), remaining_stock, total_sold, sale_active: true }
    }

    fn seed() -> Report {
        Report {
            sale_id: "sale_1".into(),
            total_requests: 10_000,
            failed_requests: 0,
            failures: vec![],
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
        report.outcomes.not_active = 1;
        report.outcomes.refused = 2_500;
        report.verdict.notes = vec!["others bought too".into()];
        let text = report.to_string();
        for line in [
            "   Failed Requests: 3 (0.03%)\n      3 × no reply within 10s\n",
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
