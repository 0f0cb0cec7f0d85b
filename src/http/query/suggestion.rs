//! Suggestions for unknown parameters: names that other services use for the same purpose, and filters whose operator is part
//! of the name.

/// Our parameters, how to use them, and their names in other services, without case and punctuation.
const ELSEWHERE: &[(&str, &str, &[&str])] = &[
    ("start_datetime", "start_datetime", &["start", "from", "since", "begin", "starttime", "startdate"]),
    ("end_datetime", "end_datetime", &["end", "to", "until", "endtime", "enddate"]),
    ("from", "from", &["start", "since", "begin", "starttime", "startdate", "startdatetime"]),
    ("to", "to", &["end", "until", "endtime", "enddate", "enddatetime"]),
    ("entity", "entity", &["entities", "station", "stations", "identity"]),
    (
        "after",
        "after, whose value is in the header Link of the previous page",
        &[
            "offset",
            "page",
            "pagenumber",
            "pageno",
            "pagetoken",
            "nextpage",
            "skip",
            "start",
            "from",
            "cursor",
            "startingafter",
            "since",
        ],
    ),
    ("limit", "limit", &["perpage", "pagesize", "size", "count", "first", "top", "take", "rows", "maxresults", "n"]),
    ("order", "order", &["sort", "sortby", "orderby", "ordering", "direction"]),
    ("select", "select", &["fields", "columns", "include", "only", "props"]),
];

/// Comparison signs, the longer ones first, and the equivalent operators.
pub const SIGNS: [(&str, &str); 10] = [
    (">=", "gte"),
    ("=>", "gte"),
    ("<=", "lte"),
    ("=<", "lte"),
    ("<>", "neq"),
    ("!=", "neq"),
    ("==", "eq"),
    (">", "gt"),
    ("<", "lt"),
    ("=", "eq"),
];

/// Operators of other grammars, without case and punctuation, and the equivalent condition; `{}` is the value.
const WORDS: &[(&str, &[&str])] = &[
    ("eq.{}", &["eq", "equals", "equal", "exact", "equalto"]),
    ("neq.{}", &["neq", "ne", "noteq", "notequal", "notequals", "notequalto", "isnot", "neql", "noteql"]),
    ("gt.{}", &["gt", "greater", "greaterthan", "above", "over", "after", "more", "morethan"]),
    (
        "gte.{}",
        &["gte", "ge", "gteq", "goe", "greaterorequal", "greaterthanorequal", "min", "from", "since", "atleast"],
    ),
    ("lt.{}", &["lt", "less", "lessthan", "below", "under", "before"]),
    ("lte.{}", &["lte", "le", "lteq", "loe", "lessorequal", "lessthanorequal", "max", "to", "until", "atmost"]),
    ("in.({})", &["in", "any", "anyof", "oneof"]),
    ("not.in.({})", &["nin", "notin", "noneof"]),
    ("like.{}", &["like"]),
    ("ilike.{}", &["ilike", "iexact", "ieq"]),
    ("like.*{}*", &["contains", "includes", "substring", "has"]),
    ("ilike.*{}*", &["icontains", "fts", "plfts", "phfts", "wfts"]),
    ("like.{}*", &["startswith", "starts", "startwith", "beginswith", "begins", "prefix"]),
    ("ilike.{}*", &["istartswith"]),
    ("like.*{}", &["endswith", "ends", "endwith", "suffix"]),
    ("ilike.*{}", &["iendswith"]),
    ("is.{}", &["is"]),
];

/// The condition equivalent to an operator of another grammar; `{}` is the value.
pub fn condition(word: &str) -> Option<&'static str> {
    let word = plain(word);
    WORDS.iter().find(|(_, words)| words.contains(&word.as_str())).map(|(condition, _)| *condition)
}

/// Letters and digits only, in lower case.
fn plain(name: &str) -> String {
    name.chars().filter(|letter| letter.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Suggests the parameter that an unknown one probably stands for; `columns` are those that accept conditions.
pub fn suggest(name: &str, value: Option<&str>, columns: &[&'static str], known: &[&'static str]) -> Option<String> {
    if let Some(condition) = columns.iter().find_map(|column| written_in_name(name, value, column)) {
        return Some(format!("write {condition}"));
    }
    let name = plain(name);
    if (name.starts_with("sort") || name.starts_with("order"))
        && let Some(order) = value.and_then(|value| order(value, columns)).filter(|_| known.contains(&"order"))
    {
        return Some(format!("write order={order}"));
    }
    if known.contains(&"select") {
        match (name.as_str(), value) {
            ("count", Some(how @ ("exact" | "estimated"))) => {
                return Some(format!("send the header Prefer: count={how}"));
            }
            ("count", Some("planned")) => return Some("send the header Prefer: count=estimated".to_owned()),
            ("format" | "output" | "type", Some("csv")) => return Some("send the header Accept: text/csv".to_owned()),
            _ => {}
        }
    }
    let elsewhere = ELSEWHERE.iter().find(|(ours, _, theirs)| known.contains(ours) && theirs.contains(&name.as_str()));
    let ours =
        elsewhere.map(|(_, meant, _)| *meant).or_else(|| known.iter().find(|known| plain(known) == name).copied());
    ours.map(|ours| format!("use {ours}"))
}

/// The order that a text in another grammar denotes: `age desc`, `-age`, `age:desc`, `desc(age)`, `age,desc`.
pub fn order(text: &str, columns: &[&str]) -> Option<String> {
    let mut keys: Vec<String> = Vec::new();
    for item in text.split(',') {
        let item = item.trim();
        let mut column = None;
        let mut direction = match item.chars().find(|letter| letter.is_alphanumeric() || "+-".contains(*letter))? {
            '-' => Some("desc"),
            '+' => Some("asc"),
            _ => None,
        };
        let mut nulls = None;
        let words = item.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
        for word in words.filter(|word| !word.is_empty()) {
            let found = columns.iter().find(|known| **known == word);
            let word = plain(word);
            let found = found.or_else(|| columns.iter().find(|known| plain(known) == word));
            let is_new = match (found, word.as_str()) {
                (Some(found), _) => column.replace(*found).is_none(),
                (None, "asc" | "ascending") => direction.replace("asc").is_none(),
                (None, "desc" | "descending") => direction.replace("desc").is_none(),
                (None, "nulls") => true,
                (None, "first" | "nullsfirst") => nulls.replace("nullsfirst").is_none(),
                (None, "last" | "nullslast") => nulls.replace("nullslast").is_none(),
                _ => false,
            };
            if !is_new {
                return None;
            }
        }
        match (column, keys.last_mut()) {
            (Some(column), _) => keys.push(column.to_owned()),
            // `age,desc`
            (None, Some(previous)) if !previous.contains('.') => {}
            _ => return None,
        }
        let key = keys.last_mut()?;
        for part in [direction, nulls].into_iter().flatten() {
            key.push('.');
            key.push_str(part);
        }
    }
    Some(keys.join(","))
}

/// `age>=30`, `age[gte]=30`, `age__gte=30` and similar: a filter whose operator is part of the name instead of the value.
fn written_in_name(name: &str, value: Option<&str>, column: &str) -> Option<String> {
    let whole = value.map_or(name.to_owned(), |value| format!("{name}={value}"));
    let rest = whole.strip_prefix(column)?.trim_start();
    if let Some((value, operator)) =
        SIGNS.iter().find_map(|(sign, operator)| Some((rest.strip_prefix(sign)?, operator)))
    {
        let value = value.trim();
        return (!value.is_empty()).then(|| format!("{column}={operator}.{value}"));
    }
    let rest = ["__", "_", ".", "[", ":", "-", "$"].iter().find_map(|mark| rest.strip_prefix(mark))?;
    let (word, value) = rest.split_once('=').filter(|(_, value)| !value.is_empty())?;
    let condition = condition(word.trim_end_matches(']'))?;
    Some(format!("{column}={}", condition.replace("{}", value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_in_a_parameter_name_is_suggested_in_the_supported_form() {
        for (name, value, expected) in [
            ("age>", Some("30"), "write age=gte.30"),
            ("age<", Some("30"), "write age=lte.30"),
            ("age!", Some("30"), "write age=neq.30"),
            ("age>30", None, "write age=gt.30"),
            ("age < 30", None, "write age=lt.30"),
            ("age<>30", None, "write age=neq.30"),
            ("age[gte]", Some("30"), "write age=gte.30"),
            ("age__lt", Some("30"), "write age=lt.30"),
            ("age.ne", Some("30"), "write age=neq.30"),
            ("age_min", Some("30"), "write age=gte.30"),
            ("age[in]", Some("1,2"), "write age=in.(1,2)"),
            ("age[$gt]", Some("1"), "write age=gt.1"),
            ("Age", Some("eq.30"), "use age"),
            ("sort", Some("age"), "write order=age"),
            ("sort_by", Some("-age,name"), "write order=age.desc,name"),
            ("orderBy", Some("Age DESC NULLS LAST"), "write order=age.desc.nullslast"),
            ("sort", Some("height"), "use order"),
        ] {
            let known = ["age", "name", "order"];
            assert_eq!(suggest(name, value, &known[..2], &known).as_deref(), Some(expected), "{name} {value:?}");
        }
        for (text, expected) in [
            ("age desc", Some("age.desc")),
            ("age:desc, name ASC", Some("age.desc,name.asc")),
            ("desc(age)", Some("age.desc")),
            ("age,desc", Some("age.desc")),
            ("+name", Some("name.asc")),
            ("age.desc nulls first", Some("age.desc.nullsfirst")),
            ("desc", None),
            ("age up", None),
            ("age asc desc", None),
            ("", None),
        ] {
            assert_eq!(order(text, &["age", "name"]).as_deref(), expected, "{text}");
        }
        let steps = ["start_datetime", "end_datetime", "limit", "after"];
        let air_quality = ["entity", "from", "to"];
        for (name, known, expected) in [
            ("from", &steps[..], "use start_datetime"),
            ("until", &steps, "use end_datetime"),
            ("offset", &steps, "use after, whose value is in the header Link of the previous page"),
            ("start", &air_quality, "use from"),
            ("end_datetime", &air_quality, "use to"),
            ("station", &air_quality, "use entity"),
        ] {
            assert_eq!(suggest(name, None, &[], known).as_deref(), Some(expected), "{name}");
        }
        for (name, value) in [("ages", Some("30")), ("age", None), ("age>", None), ("age.x", Some("1"))] {
            assert!(suggest(name, value, &["age"], &[]).is_none(), "{name}");
        }
    }
}
