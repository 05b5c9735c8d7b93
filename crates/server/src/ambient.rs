//! Time and randomness of the real world, for the ports that ask for them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use flashsale_core::{
    clock::Timestamp,
    ids::OrderId,
    ports::{Clock, OrderIds},
};
use rand::Rng;
use uuid::Builder;

/// The system's clock.
pub(crate) struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // A clock before 1970 is a broken one; 1970 is then as good as any moment.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// A name for this process among the replicas: anything that no other has.
pub(crate) fn replica_name() -> String {
    format!("{:016x}", rand::rng().next_u64())
}

/// UUIDs of version 7: sortable by time, and 74 random bits that nobody guesses.
pub(crate) struct RandomIds;

impl OrderIds for RandomIds {
    fn mint(&self, now: Timestamp) -> OrderId {
        let mut random = [0_u8; 10];
        rand::rng().fill_bytes(&mut random);
        let millis = u64::try_from(now.as_millis()).unwrap_or(0);
        OrderId(Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }
}
