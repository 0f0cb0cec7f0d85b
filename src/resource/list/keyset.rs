//! Divides the rows after a position in an order into keyset ranges, each of which one index returns in order.
//!
//! "After (a, b)" means "a is equal and b greater, or a is greater". For one condition with `or`, PostgreSQL would read and
//! sort everything. As keyset ranges, read one after the other until a page is full, each scan starts where it is needed. Nulls
//! form a keyset range of their own. A column with few values becomes one keyset range per value: within a frequent value the
//! rows are ordered by the next column, which is therefore the one that needs an index.

use super::super::column::Column;
use super::super::value::Value;
use super::cursor::CursorPosition;
use super::order::{Order, SortKey};

/// Columns with few values are divided by value only while the number of keyset ranges does not exceed this: an empty range may
/// cost a scan of the whole table.
const CUTS_MAX: usize = 6;

/// The bound of a column in a keyset range.
#[derive(Debug, Clone, PartialEq)]
pub struct Bound {
    /// The column.
    pub column: &'static Column,
    /// The bound of its values.
    pub side: Side,
}

/// A bound of the values in a keyset range.
#[derive(Debug, Clone, PartialEq)]
pub enum Side {
    /// Equal to the value.
    At(Value<'static>),
    /// Greater than the value.
    Above(Value<'static>),
    /// Less than the value.
    Below(Value<'static>),
    /// Null.
    Null,
    /// Not null.
    NotNull,
}

/// A contiguous range of a list, in the list's order.
#[derive(Debug, Clone, PartialEq)]
pub struct KeysetRange<'a> {
    /// The bounds of all its rows.
    pub bounds: Vec<Bound>,
    /// The columns by which it is ordered: those that are not constant in the range.
    pub keys: Vec<&'a SortKey>,
}

/// The keyset ranges after a position, or of the whole list, in order; together they contain each row once.
pub fn keyset_ranges<'a>(order: &'a Order, from: Option<&CursorPosition>) -> Vec<KeysetRange<'a>> {
    let mut builder = RangeBuilder { keys: order.keys(), bounds: Vec::new(), out: Vec::new() };
    match from {
        None => builder.all(0, CUTS_MAX),
        Some(position) => builder.after(0, position),
    }
    builder.out
}

struct RangeBuilder<'a> {
    keys: &'a [SortKey],
    /// The bounds of the columns before the current one.
    bounds: Vec<Bound>,
    out: Vec<KeysetRange<'a>>,
}

impl RangeBuilder<'_> {
    /// Adds the rows after the position; the columns before `index` are already bound to it.
    fn after(&mut self, index: usize, position: &CursorPosition) {
        let Some(key) = self.keys.get(index) else { return };
        let value = position.get(index).cloned().flatten();
        let at = value.clone().map_or(Side::Null, Side::At);
        self.with(key.column, at, |builder| builder.after(index + 1, position));
        let Some(value) = value else {
            if key.nulls_first {
                self.with(key.column, Side::NotNull, |builder| builder.end(index));
            }
            return;
        };
        if let Some(domain) = domain(*key) {
            for next in domain.into_iter().skip_while(|other| *other != value).skip(1) {
                self.with(key.column, Side::At(next), |builder| builder.all(index + 1, 1));
            }
            return;
        }
        let side = if key.descending { Side::Below(value) } else { Side::Above(value) };
        self.with(key.column, side, |builder| builder.end(index));
        if key.column.nullable && !key.nulls_first {
            self.with(key.column, Side::Null, |builder| builder.all(index + 1, 1));
        }
    }

    /// Adds all rows; the columns before `index` are bound. Divides them into at most `cuts` keyset ranges.
    fn all(&mut self, index: usize, cuts: usize) {
        let Some(key) = self.keys.get(index) else { return self.end(index) };
        let domain = domain(*key).filter(|domain| domain.len() <= cuts);
        if let Some(domain) = domain {
            let cuts = cuts / domain.len();
            for value in domain {
                self.with(key.column, Side::At(value), |builder| builder.all(index + 1, cuts));
            }
        } else if key.column.nullable {
            let sides = if key.nulls_first { [Side::Null, Side::NotNull] } else { [Side::NotNull, Side::Null] };
            for side in sides {
                let next = if side == Side::Null { index + 1 } else { index };
                self.with(key.column, side, |builder| builder.end(next));
            }
        } else {
            self.end(index);
        }
    }

    fn with(&mut self, column: &'static Column, side: Side, work: impl FnOnce(&mut Self)) {
        self.bounds.push(Bound { column, side });
        work(self);
        self.bounds.pop();
    }

    /// Adds a keyset range ordered by the columns from `index` on.
    fn end(&mut self, index: usize) {
        self.out.push(KeysetRange { bounds: self.bounds.clone(), keys: self.keys[index..].iter().collect() });
    }
}

/// The values of a column with few values, in the order of the sort key.
fn domain(key: SortKey) -> Option<Vec<Value<'static>>> {
    let mut domain = key.column.domain()?;
    if key.descending {
        domain.reverse();
    }
    Some(domain)
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::super::super::arbitrary::{resource, similar_rows};
    use super::super::super::registry::passengers;
    use super::super::super::row::Record;
    use super::super::cursor::position;
    use super::super::order::tests::any_order;
    use super::*;

    /// Compares two values in the order of a sort key.
    fn compare(key: SortKey, a: &Value<'_>, b: &Value<'_>) -> Ordering {
        let (a, b) = match (a.is_null(), b.is_null()) {
            (false, false) => (a, b),
            (true, true) => return Ordering::Equal,
            (null, _) => return if null == key.nulls_first { Ordering::Less } else { Ordering::Greater },
        };
        let ordering = match (a, b) {
            (Value::Uuid(a), Value::Uuid(b)) => a.cmp(b),
            (Value::Boolean(a), Value::Boolean(b)) => a.cmp(b),
            (Value::Integer(a), Value::Integer(b)) => a.cmp(b),
            (Value::Decimal(a), Value::Decimal(b)) => a.units().cmp(&b.units()),
            (Value::Date(a), Value::Date(b)) => a.cmp(b),
            (Value::DateTime(a), Value::DateTime(b)) => a.cmp(b),
            (Value::Number(a), Value::Number(b)) => a.total_cmp(b),
            (Value::Text(a), Value::Text(b)) => a.cmp(b),
            _ => panic!("a column has one kind of value"),
        };
        if key.descending { ordering.reverse() } else { ordering }
    }

    fn holds(bound: &Bound, row: &Record<'static>) -> bool {
        let value = row.value(bound.column);
        let ascending = SortKey::new(bound.column, false);
        let compared = |other| (!value.is_null()).then(|| compare(ascending, &value, other));
        match &bound.side {
            Side::At(other) => compared(other) == Some(Ordering::Equal),
            Side::Above(other) => compared(other) == Some(Ordering::Greater),
            Side::Below(other) => compared(other) == Some(Ordering::Less),
            Side::Null => value.is_null(),
            Side::NotNull => !value.is_null(),
        }
    }

    fn in_order(keys: &[&SortKey], a: &Record<'static>, b: &Record<'static>) -> Ordering {
        let each = keys.iter().map(|key| compare(**key, &a.value(key.column), &b.value(key.column)));
        each.fold(Ordering::Equal, Ordering::then)
    }

    proptest! {
        #[test]
        fn ranges_read_in_turn_are_the_rows_after_the_position_in_order(
            (order, rows) in resource().prop_flat_map(|resource| (any_order(resource), similar_rows(resource, 12))),
            start in any::<Option<prop::sample::Index>>(),
        ) {
            let from = start.map(|index| index.get(&rows));
            let keys: Vec<&SortKey> = order.keys().iter().collect();
            let is_after = |row: &&Record<'static>| from.is_none_or(|from| in_order(&keys, from, row).is_lt());
            let mut expected: Vec<_> = rows.iter().filter(is_after).collect();
            expected.sort_by(|a, b| in_order(&keys, a, b));
            let position = from.map(|from| {
                let Ok(position) = position(&order, |column| Ok::<_, Infallible>(from.value(column)));
                position
            });
            let mut read = Vec::new();
            for range in keyset_ranges(&order, position.as_ref()) {
                let mut found: Vec<_> =
                rows.iter().filter(|row| range.bounds.iter().all(|bound| holds(bound, row))).collect();
                found.sort_by(|a, b| in_order(&range.keys, a, b));
                read.extend(found);
            }
            let uuids = |rows: &[&Record<'static>]| rows.iter().map(|row| row.uuid).collect::<Vec<_>>();
            prop_assert_eq!(uuids(&read), uuids(&expected));
        }
    }

    #[test]
    fn a_column_with_few_values_is_divided_and_the_next_one_orders() {
        let order = Order::parse(passengers(), "sex.desc,fare", &mut Vec::new());
        let whole = keyset_ranges(&order, None);
        assert_eq!(whole.len(), 2);
        assert_eq!(whole[0].bounds[0].side, Side::At(Value::Text("male".into())));
        assert_eq!(whole[0].keys.len(), 2);
        let many = Order::parse(passengers(), "survived,passengerClass,sex", &mut Vec::new());
        assert_eq!(keyset_ranges(&many, None).len(), 6);
    }
}
