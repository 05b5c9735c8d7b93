//! Who makes an attempt: a new user each time, or the next of a pool.

use std::sync::Arc;

/// Users are numbered; their ids are `{prefix}-{index}`.
#[derive(Debug, Clone)]
pub(crate) struct Users {
    prefix: Arc<str>,
    pool: Option<u64>,
}

impl Users {
    /// `pool` is `None` for a new user at each attempt, else how many there are, above 0.
    pub(crate) fn new(prefix: &str, pool: Option<u64>) -> Self {
        Self { prefix: prefix.into(), pool }
    }

    /// The index of the user who makes an attempt.
    pub(crate) fn of_attempt(&self, attempt: u64) -> u64 {
        self.pool.map_or(attempt, |users| attempt % users)
    }

    /// Whether a user may make more than one attempt.
    pub(crate) fn come_again(&self) -> bool {
        self.pool.is_some()
    }

    /// What every id begins with, the index following.
    pub(crate) fn stem(&self) -> String {
        format!("{}-", self.prefix)
    }

    /// A user's id.
    pub(crate) fn id(&self, index: u64) -> String {
        format!("{}-{index}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_pool_everybody_is_new() {
        let users = Users::new("run", None);
        assert_eq!([0, 1, 9_999].map(|attempt| users.of_attempt(attempt)), [0, 1, 9_999]);
        assert_eq!(users.id(7), "run-7");
    }

    #[test]
    fn a_pool_takes_turns() {
        let users = Users::new("run", Some(3));
        assert_eq!([0, 1, 2, 3, 4, 5].map(|attempt| users.of_attempt(attempt)), [0, 1, 2, 0, 1, 2]);
    }
}
