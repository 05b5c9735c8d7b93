//! The same crowd at several replicas at once: they are one shop.

use super::stage::{Addresses, Stage};
use crate::history::sell_and_judge;

#[test]
fn what_a_crowd_was_told_by_three_replicas_fits_into_one_sequence() {
    let mut stage = Stage::new(Addresses::shared());
    let third = stage.replica(&[]);
    stage.replicas.push(third);
    sell_and_judge(&stage.replicas);
}
