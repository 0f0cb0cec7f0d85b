//! SQL identifiers.

/// Converts a name to snake case: `passengerClass` is `passenger_class`.
pub fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for (index, letter) in name.char_indices() {
        if letter.is_ascii_uppercase() && index > 0 && !snake.ends_with('_') {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// Quotes an identifier if necessary.
pub fn quoted(identifier: &str) -> String {
    // Words reserved by PostgreSQL 13 to 18, also where they may be function or type names.
    const RESERVED: &str = " all analyse analyze and any array as asc asymmetric authorization between bigint binary bit \
        boolean both case cast char character check coalesce collate collation column concurrently constraint create cross \
        current_catalog current_date current_role current_schema current_time current_timestamp current_user dec decimal \
        default deferrable desc distinct do else end except exists extract false fetch float for foreign freeze from full \
        grant greatest group grouping having ilike in initially inner inout int integer intersect interval into is isnull \
        join lateral leading least left like limit localtime localtimestamp national natural nchar none normalize not notnull \
        null nullif numeric offset on only or order out outer overlaps overlay placing position precision primary real \
        references returning right row select session_user setof similar smallint some substring symmetric system_user table \
        tablesample then time timestamp to trailing treat trim true union unique user using values varchar variadic verbose \
        when where window with xmlattributes xmlconcat xmlelement xmlexists xmlforest xmlnamespaces xmlparse xmlpi xmlroot \
        xmlserialize xmltable ";
    let plain = !identifier.starts_with(|letter: char| letter.is_ascii_digit())
        && identifier.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        && !RESERVED.contains(&format!(" {identifier} "));
    if plain { identifier.to_owned() } else { format!("\"{}\"", identifier.replace('"', "\"\"")) }
}
