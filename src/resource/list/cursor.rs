//! Cursors: the position after a row in an order, as a text that clients send back. It contains the order, the row's values in
//! it, and, if a replica serves lists, the log position of the page, so that the next page is not older.
//!
//! A cursor is not signed: a forged one selects only a position that a filter could select too.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::super::column::Column;
use super::super::value::Value;
use super::order::{Order, SortKey};
use crate::db::position::Consistency;

/// The values of one row in the columns of an order.
pub type CursorPosition = Vec<Option<Value<'static>>>;

/// The position of a row in the order; `value` returns its value of a column.
///
/// # Errors
/// Those of `value`.
pub fn position<'a, E>(order: &Order, value: impl Fn(&Column) -> Result<Value<'a>, E>) -> Result<CursorPosition, E> {
    let value = |key: &SortKey| Ok(Some(value(key.column)?.into_owned()).filter(|value| !value.is_null()));
    order.keys().iter().map(value).collect()
}

/// Encodes a position as URL-safe text.
pub fn encode(order: &Order, position: &CursorPosition, consistency: Consistency) -> String {
    let mut parts = vec![Some(order.to_string())];
    parts.extend(position.iter().map(|value| value.as_ref().map(ToString::to_string)));
    parts.extend((consistency != Consistency::Eventual).then(|| Some(consistency.to_string())));
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&parts).expect("texts always serialise"))
}

/// Decodes a position; `None` if the text is malformed or belongs to another order.
pub fn decode(order: &Order, text: &str) -> Option<(CursorPosition, Consistency)> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let parts: Vec<Option<String>> = serde_json::from_slice(&bytes).ok()?;
    let (name, values) = parts.split_first()?;
    let (values, consistency) = values.split_at_checked(order.keys().len())?;
    let consistency = match consistency {
        [] => Consistency::Eventual,
        [Some(consistency)] => consistency.parse().ok()?,
        _ => return None,
    };
    if *name != Some(order.to_string()) {
        return None;
    }
    let read = |(value, key): (&Option<String>, &SortKey)| match value {
        Some(text) => key.column.read_filter(text).map(Some),
        None => key.column.nullable.then_some(None),
    };
    Some((values.iter().zip(order.keys()).map(read).collect::<Option<_>>()?, consistency))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::super::super::arbitrary::{record, resource};
    use super::super::super::row::Record;
    use super::super::order::tests::any_order;
    use super::*;

    fn of(order: &Order, record: &Record<'static>) -> CursorPosition {
        let Ok(position) = position(order, |column| Ok::<_, Infallible>(record.value(column)));
        position
    }

    proptest! {
        #[test]
        fn a_cursor_comes_back_as_the_position_it_was_made_of(
            (record, order) in resource().prop_flat_map(|resource| (record(resource), any_order(resource))),
        ) {
            let position = of(&order, &record);
            for consistency in [Consistency::Eventual, "7:16/B374D848".parse().expect("a position"), Consistency::Primary] {
                let text = encode(&order, &position, consistency);
                prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
                prop_assert_eq!(decode(&order, &text), Some((position.clone(), consistency)));
            }
        }

        #[test]
        fn a_cursor_of_another_order_is_rejected(
            (record, order, other) in resource()
                .prop_flat_map(|resource| (record(resource), any_order(resource), any_order(resource))),
        ) {
            prop_assume!(order != other);
            prop_assert_eq!(decode(&other, &encode(&order, &of(&order, &record), Consistency::Eventual)), None);
        }

        #[test]
        fn any_other_text_is_rejected(text in ".{0,60}", order in resource().prop_flat_map(any_order)) {
            prop_assert_eq!(decode(&order, &text), None);
        }
    }
}
