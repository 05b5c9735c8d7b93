//! What was done, and what came of it, as a table.

use std::{error::Error, fmt, sync::atomic::Ordering};

use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};

use crate::program::CRASHES;

/// A promise that was not kept.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) promise: String,
    pub(crate) story: String,
}

impl Broken {
    pub(crate) fn new(promise: &str, story: impl Into<String>) -> Self {
        Self { promise: promise.to_owned(), story: story.into() }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is broken: {}", self.promise, self.story)
    }
}

impl Error for Broken {}

/// What came of one round.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) acknowledged: u64,
    /// Requests without an answer that promises anything.
    pub(crate) unanswered: u64,
    pub(crate) rejected: u64,
}

impl Counts {
    /// What was counted since.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            acknowledged: self.acknowledged - before.acknowledged,
            unanswered: self.unanswered - before.unanswered,
            rejected: self.rejected - before.rejected,
        }
    }
}

#[derive(Default)]
struct Row {
    fault: String,
    drawn: u64,
    fired: u64,
    counts: Counts,
    lost: u64,
    doubled: u64,
    oversold: u64,
    other: u64,
}

/// The table.
#[derive(Default)]
pub(crate) struct Tally {
    rows: Vec<Row>,
    rounds: u64,
    together: u64,
    total: Counts,
    /// Those of the round under way.
    now: Vec<String>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn row(&mut self, fault: &str) -> &mut Row {
        let at = self.rows.iter().position(|row| row.fault == fault).unwrap_or_else(|| {
            self.rows.push(Row { fault: fault.to_owned(), ..Row::default() });
            self.rows.len() - 1
        });
        &mut self.rows[at]
    }

    /// A round begins, with these faults.
    pub(crate) fn begin(&mut self, faults: &[String]) {
        self.now = faults.to_vec();
        for fault in faults {
            self.row(fault).drawn += 1;
        }
    }

    /// A round is over, and all is well; `fired` says of each of its faults whether it came about.
    pub(crate) fn end(&mut self, fired: &[bool], counts: Counts) {
        self.rounds += 1;
        self.together += u64::from(fired.iter().filter(|&&fired| fired).count() > 1);
        add(&mut self.total, counts);
        for (fault, fired) in std::mem::take(&mut self.now).iter().zip(fired) {
            let row = self.row(fault);
            row.fired += u64::from(*fired);
            add(&mut row.counts, counts);
        }
    }

    pub(crate) fn rounds(&self) -> u64 {
        self.rounds
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.total.acknowledged
    }

    /// The round under way has ended badly.
    pub(crate) fn blame(&mut self, broken: Option<&Broken>) {
        for fault in std::mem::take(&mut self.now) {
            let row = self.row(&fault);
            row.fired += 1;
            match broken.map(|broken| broken.promise.as_str()) {
                Some("P1") => row.oversold += 1,
                Some("P2") => row.doubled += 1,
                Some("P3") => row.lost += 1,
                _ => row.other += 1,
            }
        }
    }
}

fn add(to: &mut Counts, more: Counts) {
    to.acknowledged += more.acknowledged;
    to.unanswered += more.unanswered;
    to.rejected += more.rejected;
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        table.set_header([
            "fault",
            "drawn",
            "fired",
            "acknowledged",
            "no answer",
            "lost",
            "doubled",
            "oversold",
            "other",
        ]);
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_by(|one, other| one.fault.cmp(&other.fault));
        for row in &rows {
            let figures = [
                row.drawn,
                row.fired,
                row.counts.acknowledged,
                row.counts.unanswered,
                row.lost,
                row.doubled,
                row.oversold,
                row.other,
            ];
            let cells = figures.iter().map(u64::to_string);
            table.add_row(std::iter::once(row.fault.clone()).chain(cells));
        }
        writeln!(f, "{table}")?;
        let fired: u64 = rows.iter().map(|row| row.fired).sum();
        let Counts { acknowledged, unanswered, rejected } = self.total;
        write!(
            f,
            "{} rounds, {} with several faults at once; {fired} faults fired; {} processes of the program crashed (kill -9); \
             {acknowledged} purchases acknowledged, {rejected} rejections, {unanswered} requests without an answer",
            self.rounds,
            self.together,
            CRASHES.load(Ordering::Relaxed),
        )
    }
}
