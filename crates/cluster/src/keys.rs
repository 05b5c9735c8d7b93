//! The names of the keys in Redis.

use std::sync::Arc;

use flashsale_core::ids::SaleId;

/// How keys are named: plain, as the seed has them, or with the sale in braces, so that Redis Cluster keeps all keys of a
/// sale in one slot.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    pub(crate) namespace: String,
    pub(crate) braces: bool,
}

/// The keys of one sale, in the order in which the functions take them.
#[derive(Clone, Debug)]
pub(crate) struct SaleKeys(pub(crate) Arc<[String; 6]>);

impl SaleKeys {
    #[cfg(test)]
    fn meta(&self) -> &str {
        &self.0[0]
    }

    pub(crate) fn users(&self) -> &str {
        &self.0[2]
    }

    pub(crate) fn outbox(&self) -> &str {
        &self.0[4]
    }
}

impl Keys {
    pub(crate) fn of(&self, sale: &SaleId) -> SaleKeys {
        let key = |what: &str| {
            if self.braces {
                format!("{}sale:{{{sale}}}:{what}", self.namespace)
            } else {
                format!("{}sale:{sale}:{what}", self.namespace)
            }
        };
        SaleKeys(Arc::new(["meta", "stock", "users", "orders", "outbox", "returned"].map(key)))
    }

    /// The key of the list of all sales.
    pub(crate) fn index(&self) -> String {
        format!("{}flashsale:sales", self.namespace)
    }

    /// The key of what the replicas show each other.
    pub(crate) fn replicas(&self) -> String {
        format!("{}flashsale:replicas", self.namespace)
    }

    /// The sale whose meta key this is, where it is one of ours.
    pub(crate) fn sale_of(&self, meta: &str) -> Option<SaleId> {
        let id = meta.strip_prefix(&self.namespace)?.strip_prefix("sale:")?.strip_suffix(":meta")?;
        id.trim_start_matches('{').trim_end_matches('}').parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_seeds_and_lead_back_to_their_sale() {
        let sale: SaleId = "sale_1".parse().unwrap();
        for (namespace, braces, stock) in [
            ("", false, "sale:sale_1:stock"),
            ("", true, "sale:{sale_1}:stock"),
            ("shop:", false, "shop:sale:sale_1:stock"),
        ] {
            let keys = Keys { namespace: namespace.to_owned(), braces };
            assert_eq!(keys.of(&sale).0[1], stock);
            assert_eq!(keys.sale_of(keys.of(&sale).meta()), Some(sale.clone()));
        }
    }
}
