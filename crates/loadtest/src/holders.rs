//! P2: a user gets one unit, and is told ever after that they hold it, with its order id; nobody else is.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ptr;
use std::time::Instant;

use crate::tally::Purchase;
use crate::verdict::{Check, Evidence, Findings, Repeats};

/// The first SUCCESS of each user.
type Bought<'a> = HashMap<u64, &'a Purchase>;

impl Evidence<'_> {
    pub(crate) fn one_per_user(&self) -> Check {
        let (tally, claimants) = (self.tally, &self.lookups.claimants);
        let mut bought = Bought::with_capacity(tally.purchases.len());
        for purchase in &tally.purchases {
            bought.entry(purchase.user).or_insert(purchase);
        }
        let mut findings = Findings::default();
        findings.doubts.extend(self.untested());
        match self.reset() {
            Some(reset) => findings.doubts.push(reset),
            None => findings.faults = self.holder_faults(&bought),
        }
        findings.doubts.extend(claimants.doubt.clone());
        let looked_up = match claimants.made {
            0 => String::new(),
            made => format!("; {made} of those who had bought before looked up"),
        };
        let figures = format!(
            "{} SUCCESS to {} users; {} ALREADY_PURCHASED, with the order id of the SUCCESS wherever that was \
             seen{looked_up}",
            tally.counts.success,
            bought.len(),
            tally.counts.already_purchased,
        );
        Check::weigh("P2", "One per user", &findings, figures)
    }

    fn holder_faults(&self, bought: &Bought<'_>) -> Vec<String> {
        let mut faults = Vec::new();
        faults.extend(self.bought_twice(bought));
        faults.extend(self.other_order(bought));
        faults.extend(self.torn());
        faults.extend(self.shared_order());
        faults.extend(self.turned_away(bought));
        faults.extend(self.out_of_thin_air(bought));
        faults.extend(self.lookups.claimants.fault.clone());
        faults
    }

    fn bought_twice(&self, bought: &Bought<'_>) -> Option<String> {
        let mut twice = Repeats::default();
        for purchase in &self.tally.purchases {
            let again = !ptr::eq(bought[&purchase.user], purchase);
            let claim = self.tally.claims.get(&purchase.user);
            if again || claim.is_some_and(|claim| claim.told < purchase.sent) {
                twice.see(|| self.users.id(purchase.user));
            }
        }
        twice.fault("SUCCESS went to a user who had one already")
    }

    fn other_order(&self, bought: &Bought<'_>) -> Vec<String> {
        let (mut wrong, mut missing) = (Repeats::default(), Repeats::default());
        for (user, claim) in &self.tally.claims {
            match bought.get(user) {
                Some(purchase) if purchase.order != claim.order => wrong.see(|| self.users.id(*user)),
                None if claim.order.is_none() => missing.see(|| self.users.id(*user)),
                _ => {}
            }
        }
        let faults = [
            wrong.fault("users were told ALREADY_PURCHASED with an order id other than their SUCCESS had"),
            missing.fault("users were told ALREADY_PURCHASED without an order id"),
        ];
        faults.into_iter().flatten().collect()
    }

    fn torn(&self) -> Option<String> {
        let user = self.users.id(self.tally.torn_claim?);
        Some(format!("{user} was told ALREADY_PURCHASED with different order ids"))
    }

    /// One order id as that of two users. Where both had it with their SUCCESS, that is P1's.
    fn shared_order(&self) -> Option<String> {
        let tally = self.tally;
        if tally.claims.is_empty() {
            return None;
        }
        let with_order = tally.purchases.iter().filter_map(|one| Some((one.order.as_deref()?, one.user)));
        let mut owners: HashMap<&str, u64> = with_order.collect();
        let mut shared = Repeats::default();
        for (user, claim) in &tally.claims {
            let Some(order) = claim.order.as_deref() else { continue };
            match owners.entry(order) {
                Entry::Occupied(owner) if owner.get() != user => {
                    let (first, second) = (self.users.id(*owner.get()), self.users.id(*user));
                    shared.see(|| format!("{order:?} to {first} and to {second}"));
                }
                Entry::Occupied(_) => {}
                Entry::Vacant(free) => {
                    free.insert(*user);
                }
            }
        }
        shared.fault("order ids were told to somebody else with ALREADY_PURCHASED")
    }

    /// Somebody who was known to hold a purchase, asked again, and was answered as if they held none.
    fn turned_away(&self, bought: &Bought<'_>) -> Option<String> {
        let tally = self.tally;
        let mut forgotten = Repeats::default();
        for (user, sent) in &tally.turned_away {
            let told = |told: Option<Instant>| told.is_some_and(|told| told < *sent);
            if told(bought.get(user).map(|one| one.told)) || told(tally.claims.get(user).map(|one| one.told))
            {
                forgotten.see(|| self.users.id(*user));
            }
        }
        forgotten.fault(
            "users who hold a purchase were told SOLD_OUT or that the sale is not active, without their order id",
        )
    }

    /// A purchase of users that nobody can have made: they are new, and nothing of theirs was under way.
    fn out_of_thin_air(&self, bought: &Bought<'_>) -> Option<String> {
        let tally = self.tally;
        // What was not recorded may have been what bought.
        if !self.fresh_users || tally.unrecorded > 0 {
            return None;
        }
        let mut invented = Repeats::default();
        for (user, claim) in &tally.claims {
            let possible = bought.contains_key(user)
                || tally.in_doubt.get(user).is_some_and(|since| *since < claim.told);
            if !possible {
                invented.see(|| self.users.id(*user));
            }
        }
        invented.fault("users were told ALREADY_PURCHASED who had bought nothing")
    }
}
