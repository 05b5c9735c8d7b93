//! A form as it is shown: its fields, what was typed, and what is wrong with it.

/// What a field takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A word of an address.
    Id,
    /// A line of text.
    Text,
    /// A whole number.
    Number,
    /// A decimal.
    Amount,
    /// A currency.
    Code,
    /// A date and a time, UTC.
    Moment,
    /// Text of several lines.
    Lines,
}

impl Kind {
    /// Whether the field may stay empty.
    fn is_optional(self, name: &str) -> bool {
        matches!(self, Self::Id | Self::Amount | Self::Code | Self::Lines) || name == "imageUrl"
    }
}

/// A field of a form.
pub(crate) struct Field {
    /// Its name, as the API has it.
    pub(crate) name: &'static str,
    /// What it is called on the page.
    pub(crate) label: &'static str,
    /// What it takes, in words.
    pub(crate) hint: &'static str,
    /// What it takes.
    pub(crate) kind: Kind,
    /// What it holds.
    pub(crate) value: String,
    /// A fingerprint of what it held when the form was made, in a form that changes something.
    pub(crate) was: Option<String>,
    /// What is wrong with what it holds.
    pub(crate) error: Option<String>,
}

impl Field {
    pub(super) fn is_required(&self) -> bool {
        !self.kind.is_optional(self.name)
    }
}

/// The form of a sale.
pub(crate) struct SaleForm {
    /// Its fields, in their order.
    pub(crate) fields: Vec<Field>,
    /// What is wrong with the whole.
    pub(crate) error: Option<String>,
}

impl SaleForm {
    /// The field of that name.
    pub(crate) fn field(&self, name: &str) -> &Field {
        let field = self.fields.iter().find(|field| field.name == name);
        field.expect("handlers ask for fields that the form has")
    }

    /// What the field of that name holds.
    pub(crate) fn value(&self, name: &str) -> &str {
        &self.field(name).value
    }

    /// Puts a complaint at a field; `false` when there is no such field.
    pub(crate) fn complain(&mut self, name: &str, complaint: String) -> bool {
        let field = self.fields.iter_mut().find(|field| field.name == name);
        field.map(|field| field.error = Some(complaint)).is_some()
    }

    /// The fields that something is wrong with.
    pub(super) fn wrong(&self) -> Vec<&Field> {
        self.fields.iter().filter(|field| field.error.is_some()).collect()
    }

    pub(super) fn is_wrong(&self) -> bool {
        self.error.is_some() || !self.wrong().is_empty()
    }
}
