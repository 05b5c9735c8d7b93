//! Why attempts failed: a few reasons with their counts, however many texts a server invents.

use std::fmt;

/// The most reasons that are told apart.
const MOST: usize = 8;
/// Where the others go.
const OTHERS: &str = "other reasons";

/// A reason why attempts failed. `Display` is its words, without the count.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reason {
    /// The first one's words.
    words: String,
    /// Whether others of the kind had other words.
    varies: bool,
    /// How many attempts.
    pub(crate) count: u64,
}

impl Reason {
    pub(crate) fn new(words: impl Into<String>, count: u64) -> Self {
        Self { words: words.into(), varies: false, count }
    }

    /// What makes two reasons the same: of an HTTP reply the status, whatever its body says.
    fn kind(&self) -> &str {
        let status = self.words.split_once(": ").filter(|(status, _)| status.starts_with("HTTP "));
        status.map_or(&self.words, |(status, _)| status)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = if self.varies { " (or other words)" } else { "" };
        write!(f, "{}{more}", self.words)
    }
}

/// Reasons in the order of appearance.
#[derive(Debug, Default)]
pub(crate) struct Reasons(Vec<Reason>);

impl Reasons {
    pub(crate) fn add(&mut self, reason: Reason) {
        let room = self.0.len() < MOST || reason.words == OTHERS;
        match self.0.iter_mut().find(|known| known.kind() == reason.kind()) {
            Some(known) => {
                known.count += reason.count;
                known.varies |= reason.varies || known.words != reason.words;
            }
            None if room => self.0.push(reason),
            None => self.add(Reason::new(OTHERS, reason.count)),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Reason> {
        self.0.iter()
    }

    pub(crate) fn append(&mut self, others: Self) {
        for reason in others.0 {
            self.add(reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(reasons: &Reasons) -> Vec<(String, u64)> {
        reasons.iter().map(|reason| (reason.to_string(), reason.count)).collect()
    }

    #[test]
    fn replies_of_one_status_are_one_reason_whatever_their_words() {
        // A request id in each body filled the list, and what came after was "other reasons".
        let mut reasons = Reasons::default();
        for i in 0..100 {
            reasons.add(Reason::new(format!("HTTP 500: request {i}"), 1));
        }
        reasons.add(Reason::new("HTTP 502: bad gateway", 1));
        reasons.add(Reason::new("no reply within 10s", 2));
        let expected = [
            ("HTTP 500: request 0 (or other words)", 100),
            ("HTTP 502: bad gateway", 1),
            ("no reply within 10s", 2),
        ];
        assert_eq!(told(&reasons), expected.map(|(words, count)| (words.to_owned(), count)));

        let mut all = Reasons::default();
        all.add(Reason::new("HTTP 500: request 0", 1));
        all.append(reasons);
        assert_eq!(told(&all)[0], ("HTTP 500: request 0 (or other words)".to_owned(), 101));
    }

    #[test]
    fn reasons_are_bounded_and_no_failure_is_lost() {
        let mut reasons = Reasons::default();
        for i in 0..100 {
            reasons.add(Reason::new(format!("reason {i}"), 1));
        }
        let told = told(&reasons);
        assert_eq!((told.len(), told.last()), (MOST + 1, Some(&(OTHERS.to_owned(), 92))));
    }
}
