//! Who holds what of a sale: a hash table in parts, so that no purchase ever waits for all of it to grow.
//!
//! A table that is full moves all its entries into one of twice the size, and whoever came at that moment waits: 20 ms at
//! a hundred thousand purchasers, half a second at millions. Here a part grows, and parts stay small.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
};

use hashbrown::HashTable;

use crate::{
    ids::{OrderId, Place, Unit, UserId},
    order::{OrderStatus, Purchase},
};

/// Purchasers of a part, if all units are sold and chance is fair; to move them takes a fraction of a millisecond.
const PART: usize = 1 << 12;
/// Room that is made with a sale; the first parts grow quickly, and a sale that nobody buys from costs next to nothing.
const ROOM: usize = 1 << 6;
/// The most parts, so that what a sale takes before anybody has bought is bounded.
const PARTS_MAX: usize = 1 << 10;

/// What a user holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Holding {
    pub(crate) order_id: OrderId,
    pub(crate) unit: Unit,
    pub(crate) confirmed: bool,
    /// Of the event that last changed it.
    pub(crate) place: Place,
}

impl Holding {
    pub(crate) fn purchase(&self) -> Purchase {
        let status = if self.confirmed { OrderStatus::Confirmed } else { OrderStatus::Reserved };
        Purchase { order_id: self.order_id, unit: self.unit, status }
    }
}

/// All who hold a unit of a sale. Nobody goes through them: the order of a hash table rests on chance, and must not matter.
pub(crate) struct Purchasers {
    parts: Vec<HashTable<(UserId, Holding)>>,
    hashes: RandomState,
    len: usize,
}

impl Purchasers {
    /// Nobody yet, in as many parts as `total_stock` purchasers need.
    pub(crate) fn new(total_stock: u32) -> Self {
        let stock = total_stock as usize;
        let parts = stock.div_ceil(PART).next_power_of_two().min(PARTS_MAX);
        let room = if parts == 1 { stock.min(ROOM) } else { 0 };
        let parts = (0..parts).map(|_| HashTable::with_capacity(room)).collect();
        Self { parts, hashes: RandomState::new(), len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, user: &UserId) -> Option<&Holding> {
        let hash = self.hashes.hash_one(user);
        self.parts[self.part(hash)].find(hash, |(holder, _)| holder == user).map(|(_, holding)| holding)
    }

    pub(crate) fn get_mut(&mut self, user: &UserId) -> Option<&mut Holding> {
        let hash = self.hashes.hash_one(user);
        let part = self.part(hash);
        self.parts[part].find_mut(hash, |(holder, _)| holder == user).map(|(_, holding)| holding)
    }

    /// Makes room for so many in all, so that no part grows while they are added.
    pub(crate) fn reserve(&mut self, len: usize) {
        let hashes = &self.hashes;
        // Chance gives hardly a part more than three deviations beyond its share, and those that get more just grow.
        let share = len.div_ceil(self.parts.len());
        let room = share + 3 * share.isqrt();
        for part in &mut self.parts {
            part.reserve(room.saturating_sub(part.len()), |(user, _)| hashes.hash_one(user));
        }
    }

    /// Adds a user who holds nothing.
    pub(crate) fn add(&mut self, user: UserId, holding: Holding) {
        debug_assert!(self.get(&user).is_none(), "{user} holds something already");
        let hash = self.hashes.hash_one(&user);
        let part = self.part(hash);
        let hashes = &self.hashes;
        self.parts[part].insert_unique(hash, (user, holding), |(user, _)| hashes.hash_one(user));
        self.len += 1;
    }

    pub(crate) fn remove(&mut self, user: &UserId) -> Option<Holding> {
        let hash = self.hashes.hash_one(user);
        let part = self.part(hash);
        let entry = self.parts[part].find_entry(hash, |(holder, _)| holder == user).ok()?;
        let ((_, holding), _) = entry.remove();
        self.len -= 1;
        Some(holding)
    }

    /// Bits that a part's own table does not look at: it takes the lowest and the highest seven.
    fn part(&self, hash: u64) -> usize {
        (hash >> 40) as usize & (self.parts.len() - 1)
    }
}

impl Default for Purchasers {
    fn default() -> Self {
        Self::new(0)
    }
}

impl fmt::Debug for Purchasers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Purchasers").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn holding(unit: u32) -> Holding {
        Holding { order_id: OrderId(Uuid::nil()), unit: Unit(unit), confirmed: false, place: Place(1) }
    }

    fn user(number: u32) -> UserId {
        format!("user-{number}").parse().unwrap()
    }

    #[test]
    fn everybody_is_found_changed_and_removed_however_many_parts_there_are() {
        for stock in [1, 100, 4_096, 4_097, 20_000, u32::MAX] {
            let mut purchasers = Purchasers::new(stock);
            for number in 0..stock.min(20_000) {
                purchasers.add(user(number), holding(number + 1));
            }
            for number in 0..stock.min(20_000) {
                purchasers.get_mut(&user(number)).unwrap().confirmed = true;
                assert_eq!(purchasers.get(&user(number)).unwrap().unit, Unit(number + 1));
            }
            assert_eq!(purchasers.len(), stock.min(20_000) as usize);
            assert!(purchasers.get(&user(20_000)).is_none());
            assert!(purchasers.remove(&user(0)).unwrap().confirmed);
            assert!(purchasers.remove(&user(0)).is_none() && purchasers.get(&user(0)).is_none());
            assert_eq!(purchasers.len(), stock.min(20_000) as usize - 1);
        }
    }

    #[test]
    fn with_room_for_all_no_part_grows() {
        let mut purchasers = Purchasers::new(200_000);
        purchasers.add(user(0), holding(1));
        purchasers.reserve(100_000);
        let room = |purchasers: &Purchasers| purchasers.parts.iter().map(HashTable::capacity).sum::<usize>();
        let before = room(&purchasers);
        for number in 1..100_000 {
            purchasers.add(user(number), holding(number + 1));
        }
        assert_eq!(room(&purchasers), before);
        assert!(purchasers.get(&user(0)).is_some(), "who was there before stays");
    }

    #[test]
    fn no_part_holds_much_more_than_its_share() {
        let mut purchasers = Purchasers::new(100_000);
        for number in 0..100_000 {
            purchasers.add(user(number), holding(number + 1));
        }
        assert_eq!(purchasers.parts.len(), 32);
        assert!(purchasers.parts.iter().all(|part| (2_500..3_750).contains(&part.len())));
    }
}
