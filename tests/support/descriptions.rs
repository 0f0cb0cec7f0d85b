//! Random descriptions for the property tests of the engine and of the running service.

use proptest::prelude::*;
use proptest::sample::select;

/// The lines of a column's TOML table, without its name.
fn column() -> impl Strategy<Value = String> {
    let range = |low: i64, high: i64| (low..=high, low..=high).prop_map(|(a, b)| (a.min(b), a.max(b)));
    let kind = prop_oneof![
        Just("type = \"boolean\"".to_owned()),
        select(&["int16", "int32", "int64"][..])
            .prop_map(|format| format!("type = \"integer\"\nformat = \"{format}\"")),
        range(-1000, 1000)
            .prop_map(|(a, b)| format!("type = \"integer\"\nformat = \"int16\"\nminimum = {a}\nmaximum = {b}")),
        prop::collection::btree_set(-9_i64..9, 1..5)
            .prop_map(|values| format!("type = \"integer\"\nenum = {:?}", values.into_iter().collect::<Vec<_>>())),
        Just("type = \"number\"".to_owned()),
        range(-1000, 1000).prop_map(|(a, b)| format!("type = \"number\"\nminimum = {a}\nmaximum = {b}")),
        Just("type = \"number\"\nminimum = 0".to_owned()),
        (1_u8..=35)
            .prop_flat_map(|precision| (Just(precision), 0..=precision))
            .prop_map(|(precision, scale)| format!("type = \"decimal({precision},{scale})\"")),
        (1_u32..5, 5_u32..40).prop_map(|(a, b)| format!("type = \"string\"\nminLength = {a}\nmaxLength = {b}")),
        Just("type = \"string\"\nminLength = 1\npattern = \"^[a-z]+[0-9]?$\"\nmaxLength = 20".to_owned()),
        prop::collection::btree_set("[a-zA-Z0-9][a-z é%_*.-]{0,6}[a-z]", 1..5)
            .prop_map(|values| format!("type = \"string\"\nenum = {:?}", values.into_iter().collect::<Vec<_>>())),
        select(&["date", "date-time", "uuid"][..])
            .prop_map(|format| format!("type = \"string\"\nformat = \"{format}\"")),
    ];
    (kind, any::<bool>(), any::<bool>())
        .prop_map(|(kind, nullable, index)| format!("{kind}\nnullable = {nullable}\nindex = {index}\n"))
}

/// The text of a description.
pub fn description(name: &'static str) -> impl Strategy<Value = String> {
    prop::collection::vec(column(), 1..=12).prop_map(move |columns| {
        let mut text = format!("name = \"{name}\"\n");
        for (index, column) in columns.iter().enumerate() {
            // SQL keywords and names with uppercase letters are valid names.
            let name =
                ["select_", "userName", "table", "desc", "C", "end", "type", "a1", "group", "value", "x_y", "orderBy"]
                    [index];
            text.push_str(&format!("\n[[column]]\nname = \"{name}\"\n{column}"));
        }
        text
    })
}
