//! The one door to the inventory: the seed's three sales, and words that are checked before anything is asked.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use flashsale_core::{
    Error, Result,
    clock::Timestamp,
    ids::{Epoch, OrderId, Place, SaleId, UserId},
    inventory::{self, Decision},
    order::{Ending, Purchase, Reservation},
    ports::{Clock, Inventory, OrderIds},
    product::Product,
    sale::{NewSale, Phase, SaleChange, SaleStatus},
    service::{SaleRequest, SaleService},
};
use uuid::Uuid;

const NOW_MS: i64 = 1_771_815_600_000;

/// An inventory of state machines, with a clock that stands still and ids that count.
#[derive(Default)]
struct Shop {
    sales: Mutex<BTreeMap<SaleId, inventory::Inventory>>,
    calls: AtomicU64,
    minted: AtomicU64,
}

impl Shop {
    fn open() -> (Arc<Self>, SaleService) {
        let shop = Arc::new(Self::default());
        (shop.clone(), SaleService::new(shop.clone(), shop.clone(), shop))
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    fn sales(&self) -> MutexGuard<'_, BTreeMap<SaleId, inventory::Inventory>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.sales.lock().expect("nobody panics with the lock in hand")
    }

    fn with<T>(&self, sale: &SaleId, ask: impl FnOnce(&mut inventory::Inventory) -> T) -> Result<T> {
        self.sales().get_mut(sale).map(ask).ok_or_else(|| Error::UnknownSale(sale.clone()))
    }
}

#[async_trait]
impl Inventory for Shop {
    async fn attempt(&self, sale: &SaleId, user: UserId) -> Result<Decision> {
        self.with(sale, |sale| sale.attempt(&user, self.now(), || self.mint(self.now())).decision)
    }

    async fn purchase(&self, sale: &SaleId, user: &UserId) -> Result<Option<Purchase>> {
        self.with(sale, |sale| sale.purchase(user).map(|(purchase, _)| purchase))
    }

    async fn release(&self, reservation: &Reservation, _: Ending) -> Result<bool> {
        self.with(&reservation.sale_id, |sale| sale.release(reservation).is_some())
    }

    async fn status(&self, sale: &SaleId) -> Result<SaleStatus> {
        self.with(sale, |sale| sale.status(self.now()))
    }

    async fn statuses(&self) -> Result<Vec<SaleStatus>> {
        Ok(self.sales().values().map(|sale| sale.status(self.now())).collect())
    }

    async fn create(&self, new: NewSale) -> Result<SaleStatus> {
        let mut sales = self.sales();
        let id = new.id().clone();
        if sales.contains_key(&id) {
            return Err(Error::SaleExists(id));
        }
        let made = inventory::Inventory::new(new.open(Epoch(1)), Place(0));
        let status = made.status(self.now());
        sales.insert(id, made);
        Ok(status)
    }

    async fn change(&self, sale: &SaleId, change: SaleChange) -> Result<SaleStatus> {
        self.with(sale, |sale| sale.change(&change).map(|_| sale.status(self.now())))?
    }

    async fn reset(&self, sale: &SaleId, expected: Option<Epoch>) -> Result<SaleStatus> {
        self.with(sale, |sale| {
            sale.sale().check_epoch(expected)?;
            sale.reset();
            Ok(sale.status(self.now()))
        })?
    }

    async fn delete(&self, sale: &SaleId) -> Result<()> {
        self.sales().remove(sale).map(drop).ok_or_else(|| Error::UnknownSale(sale.clone()))
    }

    async fn ready(&self) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Clock for Shop {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(NOW_MS)
    }

    async fn sleep(&self, _: Duration) {
        unreachable!("the service does not wait")
    }
}

impl OrderIds for Shop {
    fn mint(&self, _: Timestamp) -> OrderId {
        OrderId(Uuid::from_u128(u128::from(self.minted.fetch_add(1, Ordering::Relaxed)) + 1))
    }
}

fn request(sale_id: Option<&str>) -> SaleRequest {
    SaleRequest {
        sale_id: sale_id.map(str::to_owned),
        name: "A sale".to_owned(),
        total_stock: 10,
        starts_at: Timestamp::from_millis(0),
        ends_at: Timestamp::from_millis(1),
        product: Product::default(),
    }
}

fn ids(statuses: &[SaleStatus]) -> Vec<&str> {
    statuses.iter().map(|status| status.sale.id.as_str()).collect()
}

#[tokio::test]
async fn seeding_makes_the_three_sales_of_the_seed() {
    let (_, service) = Shop::open();
    let made = service.seed().await.unwrap();
    assert_eq!(ids(&made), ["sale_1", "sale_2", "sale_3"]);
    let now = service.now();
    let minutes = |count: u64| Duration::from_secs(60 * count);

    let [first, second, third] = &made[..] else { panic!("{made:?}") };
    assert_eq!((first.sale.total_stock, first.phase()), (100, Phase::Active));
    assert_eq!(first.sale.name, "Limited Edition Product - Flash Sale");
    assert_eq!((second.sale.total_stock, second.phase()), (50, Phase::Upcoming));
    assert_eq!(second.sale.window.starts_at(), now.after(minutes(10)));
    assert_eq!((third.sale.total_stock, third.phase()), (200, Phase::Ended));
    assert_eq!(third.sale.window.ends_at(), now.before(minutes(60)));

    assert!(matches!(service.attempt("sale_1", "user123").await, Ok(Decision::Reserved(_))));
    assert_eq!(service.attempt("sale_2", "user123").await, Ok(Decision::NotActive));
    assert_eq!(service.attempt("sale_3", "user123").await, Ok(Decision::NotActive));
}

#[tokio::test]
async fn seeding_again_leaves_what_is_there_and_makes_what_is_missing() {
    let (_, service) = Shop::open();
    service.seed().await.unwrap();
    service.attempt("sale_1", "user123").await.unwrap();
    service.set_paused("sale_2", true).await.unwrap();
    let before = service.statuses().await.unwrap();
    assert_eq!(service.seed().await, Ok(Vec::new()));
    assert_eq!(service.statuses().await.unwrap(), before);

    service.delete("sale_3").await.unwrap();
    assert_eq!(ids(&service.seed().await.unwrap()), ["sale_3"]);
    assert_eq!(service.status("sale_1").await.unwrap().sold(), 1);
}

#[tokio::test]
async fn an_id_that_is_none_is_refused_by_the_name_of_its_field_before_anything_is_asked() {
    let (shop, service) = Shop::open();
    let long = "x".repeat(65);
    for bad in ["", " ", "sale/1", "säle", "sale_1\n", long.as_str()] {
        let change = SaleChange::default();
        let answers = [
            service.attempt(bad, "user123").await.map(drop),
            service.purchase(bad, "user123").await.map(drop),
            service.status(bad).await.map(drop),
            service.change(bad, change).await.map(drop),
            service.set_paused(bad, true).await.map(drop),
            service.reset(bad).await.map(drop),
            service.delete(bad).await,
            service.create(request(Some(bad))).await.map(drop),
        ];
        for answer in answers {
            let Err(Error::Invalid(invalid)) = answer else { panic!("{bad:?}: {answer:?}") };
            assert_eq!(invalid.field, "saleId", "{bad:?}");
        }
    }
    let long = "é".repeat(128);
    for bad in ["", "a\0b", "tab\t", long.as_str()] {
        let answers =
            [service.attempt("sale_1", bad).await.map(drop), service.purchase("sale_1", bad).await.map(drop)];
        for answer in answers {
            let Err(Error::Invalid(invalid)) = answer else { panic!("{bad:?}: {answer:?}") };
            assert_eq!(invalid.field, "userId", "{bad:?}");
        }
    }
    assert_eq!(shop.calls(), 0, "the inventory never hears of it");
}

#[tokio::test]
async fn a_sale_with_a_value_that_is_not_allowed_is_refused_by_the_name_of_its_field() {
    let (shop, service) = Shop::open();
    let good = || request(Some("sale_1"));
    let long = "x".repeat(201);
    for (bad, field) in [
        (SaleRequest { name: " ".to_owned(), ..good() }, "name"),
        (SaleRequest { name: "two\nlines".to_owned(), ..good() }, "name"),
        (SaleRequest { name: long, ..good() }, "name"),
        (SaleRequest { total_stock: 0, ..good() }, "totalStock"),
        (SaleRequest { total_stock: 10_000_001, ..good() }, "totalStock"),
        (SaleRequest { ends_at: good().starts_at, ..good() }, "endsAt"),
    ] {
        let answer = service.create(bad.clone()).await;
        let Err(Error::Invalid(invalid)) = answer else { panic!("{bad:?}: {answer:?}") };
        assert_eq!(invalid.field, field, "{bad:?}");
    }
    assert_eq!(shop.calls(), 0, "the inventory never hears of it");
}

#[tokio::test]
async fn a_sale_without_an_id_gets_one_that_is_new() {
    let (_, service) = Shop::open();
    let (first, second) = (service.create(request(None)).await, service.create(request(None)).await);
    let (first, second) = (first.unwrap().sale.id, second.unwrap().sale.id);
    assert_ne!(first, second);
    assert_eq!(service.status(first.as_str()).await.unwrap().sale.total_stock, 10);
}

#[tokio::test]
async fn an_id_that_is_taken_and_a_sale_that_is_not_there_are_told_apart_from_bad_words() {
    let (_, service) = Shop::open();
    let sale: SaleId = "sale_1".parse().unwrap();
    assert_eq!(service.attempt("sale_1", "user123").await, Err(Error::UnknownSale(sale.clone())));
    service.create(request(Some("sale_1"))).await.unwrap();
    assert_eq!(service.create(request(Some("sale_1"))).await, Err(Error::SaleExists(sale)));
}
