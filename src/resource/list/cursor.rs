//! The position between two rows of an order, as a text that clients hand back: the order, and the values of one row in it.
//!
//! A cursor is not signed: whoever makes one up reaches only a position that a filter would reach too.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use tokio_postgres::Row;

use super::super::row;
use super::super::value::Value;
use super::order::{Key, Order};
use crate::db::error::StoreError;

/// The values of one row in the columns of an order.
pub type Position = Vec<Option<Value<'static>>>;

/// Where a row of the statements that select every column stands in the order.
///
/// # Errors
/// [`StoreError::Unreadable`] for a value that its column cannot have.
pub fn position(order: &Order, row: &Row) -> Result<Position, StoreError> {
    let value = |key: &Key| Ok(Some(row::value(row, key.column)?.into_owned()).filter(|value| !value.is_null()));
    order.keys().iter().map(value).collect()
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
    let read = |(value, key): (&Option<String>, &Key)| match value {
        Some(text) => key.column.read_filter(text).map(Some),
        None => key.column.nullable.then_some(None),
    };
    values.iter().zip(order.keys()).map(read).collect()
}

