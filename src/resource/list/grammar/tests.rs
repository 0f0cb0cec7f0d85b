//! Conditions are parsed back as written, and every error is reported.

use proptest::prelude::*;

use super::super::super::arbitrary::{self, resource};
use super::super::super::registry::passengers;
use super::*;

/// Writes conditions in the grammar, with or without insignificant blanks.
fn write(node: &Node, blank: &str) -> String {
    let not = |negated: bool| if negated { "not." } else { "" };
    match node {
        Node::Group { negated, join, nodes } => {
            let join = if *join == Join::And { "and" } else { "or" };
            let inner: Vec<String> = nodes.iter().map(|node| write(node, blank)).collect();
            format!("{}{join}{blank}({blank}{}){blank}", not(*negated), inner.join(&format!(",{blank}")))
        }
        Node::Condition(Condition { column, negated, predicate }) => {
            let predicate = match predicate {
                Predicate::Compare(comparison, value) => {
                    format!("{}.{}", Comparison::ALL[*comparison as usize].1, quoted(&value.to_string(), blank))
                }
                Predicate::Like { any_case, pattern } => {
                    let pattern = pattern.replace('*', "\\*");
                    format!("{}.{}", if *any_case { "ilike" } else { "like" }, quoted(&pattern, blank))
                }
                Predicate::In(values) => {
                    let values: Vec<String> = values.iter().map(|value| quoted(&value.to_string(), blank)).collect();
                    format!("in.{blank}({blank}{}){blank}", values.join(&format!(",{blank}")))
                }
                Predicate::Is(truth) => format!("is.{}", Truth::ALL[*truth as usize].1),
            };
            format!("{}.{}{predicate}", column.name, not(*negated))
        }
    }
}

fn quoted(text: &str, blank: &str) -> String {
    if text.is_empty() || text.starts_with(BLANKS) || text.contains([',', '(', ')', '"', '\\']) {
        format!("\"{}\"{blank}", text.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        text.to_owned()
    }
}

fn value(column: &'static Column) -> BoxedStrategy<Value<'static>> {
    match &column.kind {
        // A filter may compare with a value that the column cannot contain.
        Kind::Integer { .. } => any::<i64>().prop_map(Value::Integer).boxed(),
        Kind::Number { .. } => any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(Value::Number).boxed(),
        Kind::Text { .. } => "[^\u{0}]{0,10}".prop_map(|text| Value::Text(text.into())).boxed(),
        _ => arbitrary::value(column).prop_filter("a value", |value| !value.is_null()).boxed(),
    }
}

fn predicate(column: &'static Column) -> BoxedStrategy<Predicate> {
    let is = if column.kind == Kind::Boolean { Truth::ALL.to_vec() } else { Truth::ALL[..2].to_vec() };
    let mut predicates = vec![
        prop::sample::select(is).prop_map(|(truth, ..)| Predicate::Is(truth)).boxed(),
        prop::collection::vec(value(column), 0..4).prop_map(Predicate::In).boxed(),
    ];
    let comparisons = if column.kind == Kind::Boolean { &Comparison::ALL[..2] } else { &Comparison::ALL[..] };
    let comparison = prop::sample::select(comparisons.to_vec());
    predicates.push((comparison, value(column)).prop_map(|(name, value)| Predicate::Compare(name.0, value)).boxed());
    if column.is_text() {
        let pattern = "([^\u{0}\\\\]|\\\\[^*\u{0}]){0,10}";
        let like = (any::<bool>(), pattern).prop_map(|(any_case, pattern)| Predicate::Like { any_case, pattern });
        predicates.push(like.boxed());
    }
    proptest::strategy::Union::new(predicates).boxed()
}

fn node(resource: &'static Resource) -> impl Strategy<Value = Node> {
    let leaf = prop::sample::select(resource.columns.iter().collect::<Vec<_>>()).prop_flat_map(|column| {
        (any::<bool>(), predicate(column))
            .prop_map(move |(negated, predicate)| Node::Condition(Condition { column, negated, predicate }))
    });
    leaf.prop_recursive(4, 20, 4, |inner| {
        let join = prop_oneof![Just(Join::And), Just(Join::Or)];
        (any::<bool>(), join, prop::collection::vec(inner, 1..4)).prop_map(|(negated, join, nodes)| Node::Group {
            negated,
            join,
            nodes,
        })
    })
}

proptest! {
    #[test]
    fn conditions_read_back_as_they_were_written(
        (resource, node) in resource().prop_flat_map(|resource| (Just(resource), node(resource))),
        blank in prop::sample::select(&["", " ", "\t  "][..]),
    ) {
        let mut parser = ConditionParser::new(resource);
        let read = parser.group(false, Join::And, &format!("{blank}({blank}{})", write(&node, blank)));
        prop_assert_eq!(parser.take_faults(), Vec::<String>::new());
        prop_assert_eq!(read, Some(Node::Group { negated: false, join: Join::And, nodes: vec![node] }));
    }

    #[test]
    fn a_text_is_parsed_completely_or_an_error_is_reported(
        text in "(age|name|sex|xyz|\\.|eq|gt|in|is|like|not|null|and|or|\\(|\\)|,|\"|\\\\|[0-9]|.){0,20}",
    ) {
        for column in &passengers().columns {
            let mut parser = ConditionParser::new(passengers());
            let read = [
                parser.condition(column, &text).is_none(), parser.group(false, Join::Or, &text).is_none(),
            ];
            prop_assert!(read == [false; 2] || !parser.take_faults().is_empty());
        }
    }
}

fn faults(text: &str) -> Vec<String> {
    let mut parser = ConditionParser::new(passengers());
    let _ = parser.group(false, Join::Or, text);
    parser.take_faults()
}

#[test]
fn each_error_states_what_is_possible() {
    for (text, expected) in [
        ("(agee.eq.1,sex.eq.other)", vec!["unknown column \"agee\"", "sex takes male or female"]),
        ("(age.contains.1,survived.gt.true)", vec!["unknown operator \"contains\"", "survived takes eq, neq, in, is"]),
        ("(age.is.true)", vec!["\"true\" where is takes null or not_null"]),
        ("(age.is.unknown,survived.is.UNKNOWN)", vec!["\"unknown\" where is takes null or not_null"]),
        ("(age.eq.null,age.in.(1,NULL))", vec!["is.null finds", "is.null finds"]),
        ("(age.in.(1,x,2),fare.lt.cheap)", vec!["\"x\" where age takes a number", "fare takes a number"]),
        ("(name.like.a\\)", vec!["ends in a backslash"]),
        ("(name.eq.\"a)", vec!["a closing double quote"]),
        ("(age.eq.1", vec!["a comma or a closing parenthesis"]),
        ("age.eq.1", vec!["a group in parentheses"]),
        ("(age.eq.1)x", vec!["after the closing parenthesis"]),
        ("()", vec!["a condition, such as"]),
        ("(uuid.eq.1)", vec!["uuid takes a uuid"]),
    ] {
        let faults = faults(text);
        assert_eq!(faults.len(), expected.len(), "{text}: {faults:?}");
        for (fault, part) in faults.iter().zip(expected) {
            assert!(fault.contains(part), "{text}: {fault}");
        }
    }
}

#[test]
fn depth_and_number_are_bounded() {
    assert!(faults(&"(and".repeat(100_000))[0].contains("nested more than 8 levels deep"));
    // Each group is a pair of parentheses, the outermost included.
    let nested = |depth: usize| format!("{}(age.eq.1{}", "(and".repeat(depth - 1), ")".repeat(depth));
    assert_eq!(faults(&nested(8)), Vec::<String>::new());
    assert!(faults(&nested(9))[0].contains("nested more than 8 levels deep"));
    let many = |condition: &str, count: usize| format!("({})", vec![condition; count].join(","));
    let listed = |count: usize| format!("(age.in.({}))", vec!["1"; count].join(","));
    let pattern = |length: usize| format!("(name.like.{})", "a".repeat(length));
    for text in [many("age.eq.1", 64), listed(200), many("name.ilike.*a*", 16), pattern(256)] {
        assert_eq!(faults(&text), Vec::<String>::new());
    }
    for (text, bound) in [
        (many("age.eq.1", 65), "more than 64 conditions"),
        (listed(201), "more than 200 values"),
        (many("name.ilike.*a*", 17), "more than 16 patterns"),
        (pattern(257), "more than 256 characters"),
    ] {
        assert!(faults(&text).iter().any(|fault| fault.contains(bound)), "{text}");
    }
}

#[test]
fn a_value_without_an_operator_gets_a_suggestion() {
    for (column, text, expected) in [
        ("age", "30", "write eq.30"),
        ("age", "30.5", "write eq.30.5"),
        ("age", "not.-3e1", "write not.eq.-3e1"),
        ("age", "null", "write is.null"),
        ("age", "not.NULL", "write not.is.null"),
        ("survived", "TRUE", "write eq.TRUE"),
        ("sex", "male", "write eq.male"),
        ("sex", "other", "where an operator and a value"),
        ("name", "Smith, Mr. John", "write eq.Smith, Mr. John"),
        ("uuid", "0192d3a0-0000-7000-8000-000000000000", "write eq.0192d3a0"),
        ("age", "eq", "where an operator and a value, such as is.null, are expected; age takes eq, neq"),
        ("age", "", "where an operator and a value"),
        ("name", "", "where an operator and a value"),
        ("name", "like", "where an operator and a value"),
        ("fare", "Cheap", "where an operator and a value"),
        ("age", "in(1,2)", "where an operator and a value"),
        ("name", "like(any).{a*,b*}", "where an operator and a value"),
        ("name", "EQ.Smith", "where an operator and a value"),
        ("name", "Smith.", "write eq.Smith."),
        ("age", "contains.3", "unknown operator \"contains\""),
    ] {
        let mut parser = ConditionParser::new(passengers());
        assert!(parser.condition(passengers().column(column).expect("a column"), text).is_none(), "{text}");
        let faults = parser.take_faults();
        assert!(faults.len() == 1 && faults[0].contains(expected), "{column}={text}: {faults:?}");
    }
}

#[test]
fn values_are_read_as_postgresql_reads_them() {
    let read = |column: &str, text: &str| {
        let value = passengers().column(column).expect("a column").read_filter(text);
        value.map(|value| value.to_string())
    };
    for (column, text, expected) in [
        ("survived", "True", Some("true")),
        ("survived", "t", Some("true")),
        ("survived", " YES ", Some("true")),
        ("survived", "on", Some("true")),
        ("survived", "1", Some("true")),
        ("survived", "F", Some("false")),
        ("survived", "fal", Some("false")),
        ("survived", "n", Some("false")),
        ("survived", "of", Some("false")),
        ("survived", "0", Some("false")),
        ("survived", "o", None),
        ("survived", "", None),
        ("survived", "truely", None),
        ("survived", "2", None),
        ("passengerClass", "1.0", Some("1")),
        ("passengerClass", "1e0", Some("1")),
        ("passengerClass", "10e-1", Some("1")),
        ("passengerClass", " 1 ", Some("1")),
        ("passengerClass", "-9223372036854775808.0", Some("-9223372036854775808")),
        ("passengerClass", "1.5", None),
        ("passengerClass", "9223372036854775808", None),
        ("passengerClass", "1.00000000000000000000000000001", None),
        ("sex", " male ", Some("male")),
        ("name", " a ", Some(" a ")),
        ("name", "null", Some("null")),
    ] {
        assert_eq!(read(column, text).as_deref(), expected, "{column} {text:?}");
    }
}

#[test]
fn an_escaped_character_of_a_pattern_is_itself() {
    for (text, expected) in [
        ("a*b%c_d", Some("a%b%c_d")),
        (r"\*\%\_\\", Some(r"*\%\_\\")),
        (r"\\*", Some(r"\\%")),
        (r"\\\*", Some(r"\\*")),
        (r"\a", Some(r"\a")),
        (r"\", None),
        (r"a\\\", None),
        ("a\0", None),
        ("\\\0", None),
    ] {
        assert_eq!(like(text).as_deref(), expected, "{text}");
    }
}
