//! The position between two rows of an order, as a text that clients hand back: the order, and the values of one row in it.
//!
//! A cursor is not signed: whoever makes one up reaches only a position that a filter would reach too.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::super::model::Passenger;
use super::column::Value;
use super::order::Order;

/// The values of one row in the columns of an order.
pub type Position = Vec<Option<Value>>;

/// Where this passenger stands in the order.
pub fn position(order: &Order, passenger: &Passenger<'_>) -> Position {
    order.keys().iter().map(|key| key.column.of(passenger)).collect()
}

/// The position as a text that fits into a URL.
pub fn encode(order: &Order, position: &Position) -> String {
    let mut parts = vec![Some(order.to_string())];
    parts.extend(position.iter().map(|value| value.as_ref().map(ToString::to_string)));
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&parts).expect("texts always serialise"))
}

/// The position that a text names, unless it is mangled or of another order.
pub fn decode(order: &Order, text: &str) -> Option<Position> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let parts: Vec<Option<String>> = serde_json::from_slice(&bytes).ok()?;
    let (name, values) = parts.split_first()?;
    if *name != Some(order.to_string()) || values.len() != order.keys().len() {
        return None;
    }
    let read = |(value, key): (&Option<String>, &super::order::Key)| match value {
        Some(text) => key.column.read(text).map(Some),
        None => key.column.is_nullable().then_some(None),
    };
    values.iter().zip(order.keys()).map(read).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::model::arbitrary;
    use super::super::order::tests::any_order;
    use super::*;

    proptest! {
        #[test]
        fn a_cursor_comes_back_as_the_place_it_was_made_of(passenger in arbitrary::passenger(), order in any_order()) {
            let position = position(&order, &passenger);
            let text = encode(&order, &position);
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
            prop_assert_eq!(decode(&order, &text), Some(position));
        }

        #[test]
        fn a_cursor_of_another_order_is_refused(
            passenger in arbitrary::passenger(), order in any_order(), other in any_order(),
        ) {
            prop_assume!(order != other);
            prop_assert_eq!(decode(&other, &encode(&order, &position(&order, &passenger))), None);
        }

        #[test]
        fn no_text_is_too_odd_to_be_refused(text in ".{0,60}", order in any_order()) {
            prop_assert_eq!(decode(&order, &text), None);
        }
    }
}
