//! The order of a list: columns with their directions, made total by the key.

use std::fmt;

use super::super::column::Column;
use super::super::definition::Resource;
use super::grammar::shown;
use crate::http::query::suggestion::order;

/// Maximum number of faults of a request with a suggestion, which is searched for among all columns.
const SUGGESTIONS_MAX: usize = 20;

/// One column of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SortKey {
    /// The column.
    pub column: &'static Column,
    /// Whether the order is descending.
    pub descending: bool,
    /// Whether nulls come first.
    pub nulls_first: bool,
}

impl SortKey {
    /// A column in a direction, with nulls where PostgreSQL puts them by default: as if they were the greatest values.
    pub fn new(column: &'static Column, descending: bool) -> Self {
        Self { column, descending, nulls_first: descending }
    }

    fn reversed(self) -> Self {
        Self { column: self.column, descending: !self.descending, nulls_first: !self.nulls_first }
    }
}

/// A total order: its last column is the key, and no column occurs twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order(Vec<SortKey>);

impl Order {
    /// The order of the key.
    pub fn of_key(resource: &'static Resource) -> Self {
        Self(vec![SortKey::new(resource.key(), false)])
    }

    /// Whether it is the order of the key.
    pub fn is_of_key(&self) -> bool {
        matches!(self.0.as_slice(), [key] if !key.descending)
    }

    /// Parses `order=`; errors are added to `faults`.
    pub fn parse(resource: &'static Resource, text: &str, faults: &mut Vec<String>) -> Self {
        let mut keys: Vec<SortKey> = Vec::new();
        let names: Vec<&str> = resource.columns.iter().map(|column| column.name).collect();
        let mut previous = "";
        for item in text.split(',').map(str::trim) {
            let before = std::mem::replace(&mut previous, item);
            match parse_key(resource, item) {
                Ok(key) if keys.iter().any(|other| other.column == key.column) => {
                    faults.push(format!("has the duplicate column {}; keep one", key.column.name));
                }
                Ok(key) => keys.push(key),
                Err(fault) if faults.len() >= SUGGESTIONS_MAX => faults.push(fault),
                Err(fault) => {
                    // In `age,desc` the direction belongs to the column before it.
                    let suggestion = order(item, &names).or_else(|| order(&format!("{before},{item}"), &names));
                    faults.push(suggestion.map_or(fault, |order| format!("has {}; write {order}", shown(item))));
                }
            }
        }
        Self::total(resource, keys)
    }

    /// Appends the key in the direction of the last column, so that one index serves both.
    fn total(resource: &'static Resource, mut keys: Vec<SortKey>) -> Self {
        match keys.iter().position(|key| key.column.position == 0) {
            Some(index) => keys.truncate(index + 1), // columns after the key have no effect
            None => keys.push(SortKey::new(resource.key(), keys.last().is_some_and(|key| key.descending))),
        }
        Self(keys)
    }

    /// The columns, the key last.
    pub fn keys(&self) -> &[SortKey] {
        &self.0
    }

    /// Whether an index returns it, except for the order of the keys among equal values.
    pub fn is_indexed(&self) -> bool {
        matches!(self.0.as_slice(), [first] | [first, _] if first.column.domain().is_none())
    }

    /// The reverse order.
    pub fn reversed(&self) -> Self {
        Self(self.0.iter().copied().map(SortKey::reversed).collect())
    }
}

fn parse_key(resource: &'static Resource, item: &str) -> Result<SortKey, String> {
    let mut parts = item.split('.');
    let name = parts.next().unwrap_or_default();
    let column = resource
        .column(name)
        .ok_or_else(|| format!("has the unknown column {}; the columns are {}", shown(name), resource.column_names))?;
    let (mut descending, mut nulls_first) = (None, None);
    for part in parts {
        let fresh = match part {
            "asc" | "desc" => nulls_first.is_none() && descending.replace(part == "desc").is_none(),
            "nullsfirst" | "nullslast" => nulls_first.replace(part == "nullsfirst").is_none(),
            _ => false,
        };
        if !fresh {
            return Err(format!("has {} where column[.asc|.desc][.nullsfirst|.nullslast] is expected", shown(item)));
        }
    }
    let key = SortKey::new(column, descending.unwrap_or(false));
    // Only a nullable column can place nulls.
    Ok(SortKey { nulls_first: nulls_first.filter(|_| column.nullable).unwrap_or(key.nulls_first), ..key })
}

/// The complete order, as [`Order::parse`] accepts it.
impl fmt::Display for Order {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, key) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let direction = if key.descending { "desc" } else { "asc" };
            let nulls = if key.nulls_first { "nullsfirst" } else { "nullslast" };
            write!(formatter, "{comma}{}.{direction}.{nulls}", key.column.name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;
    use proptest::sample::subsequence;

    use super::super::super::arbitrary::resource;
    use super::super::super::registry::passengers;
    use super::*;

    /// A random order: some columns, shuffled, each in any direction.
    pub fn any_order(resource: &'static Resource) -> impl Strategy<Value = Order> {
        let all: Vec<&'static Column> = resource.columns.iter().collect();
        let most = all.len().min(4);
        let columns = subsequence(all, 0..=most).prop_shuffle();
        (columns, any::<[(bool, bool); 4]>()).prop_map(move |(columns, directions)| {
            let key = |(column, (descending, nulls_first)): (&'static Column, (bool, bool))| SortKey {
                nulls_first: if column.nullable { nulls_first } else { descending },
                ..SortKey::new(column, descending)
            };
            Order::total(resource, columns.into_iter().zip(directions).map(key).collect())
        })
    }

    proptest! {
        #[test]
        fn an_order_reads_back_as_it_was_written(
            (resource, order) in resource().prop_flat_map(|resource| (Just(resource), any_order(resource))),
        ) {
            let mut faults = Vec::new();
            prop_assert_eq!(&Order::parse(resource, &order.to_string(), &mut faults), &order);
            prop_assert_eq!(faults, Vec::<String>::new());
            prop_assert_eq!(order.reversed().reversed(), order);
        }

        #[test]
        fn no_text_makes_parsing_panic(text in "(age|fare|,|\\.|asc|desc|nullsfirst|[a-z]|.){0,8}") {
            let order = Order::parse(passengers(), &text, &mut Vec::new());
            prop_assert_eq!(order.keys().last().map(|key| key.column), Some(passengers().key()));
        }
    }
}
