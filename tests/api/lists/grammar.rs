//! Every line of the table of PostgREST's grammar in docs/api.md holds, and every pattern finds what a naive matcher finds.

use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::{crowd, get, rows, uuids};
use crate::harness::{TestApp, passenger_with, send};

/// The parts in backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[tokio::test]
async fn every_line_of_the_documented_grammar_table_holds() {
    let app = crowd(200).await;
    let text = include_str!("../../../docs/api.md");
    let section =
        text.split("### PostgREST's grammar").nth(1).expect("a section").split("\n## ").next().expect("its text");
    let lines: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
    assert!(lines.len() > 40, "{section}");
    for line in lines {
        let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
        let [query, taken, other] = cells.as_slice() else { panic!("not three cells: {line}") };
        let query = quoted(query);
        let mut request = app.request(Method::GET, &format!("/v1/passengers?{}", query[0]));
        for (name, value) in query[1..].iter().filter_map(|header| header.split_once(": ")) {
            request = request.header(name, value);
        }
        let answer = send(request).await;
        let other = match quoted(other).first() {
            Some(other) => Some(app.get(&format!("/v1/passengers?{other}")).await),
            None => None,
        };
        if taken.trim().starts_with("yes") {
            answer.expect(StatusCode::OK);
            if let Some(other) = other {
                assert_eq!(answer.body, other.expect(StatusCode::OK).body, "{line}");
            }
        } else {
            assert!(taken.trim().starts_with("no"), "{line}");
            answer.expect_problem(400, "invalid-query");
            assert!(other.is_none_or(|other| other.status == StatusCode::OK), "{line}");
        }
    }
}

/// The meaning of a part of a pattern.
#[derive(Debug, Clone, Copy)]
enum Part {
    Any,
    One,
    This(char),
}

/// Parses a pattern as specified in docs/api.md; `None` if it must be refused.
fn parts(pattern: &str) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        parts.push(match letter {
            '*' | '%' => Part::Any,
            '_' => Part::One,
            '\\' => Part::This(letters.next()?),
            other => Part::This(other),
        });
    }
    Some(parts)
}

/// Tries every way in which the parts may match the text.
fn matches(parts: &[Part], text: &[char], any_case: bool) -> bool {
    let same = |a: char, b: char| if any_case { a.to_lowercase().eq(b.to_lowercase()) } else { a == b };
    match (parts, text) {
        ([], []) => true,
        ([Part::Any, rest @ ..], _) => (0..=text.len()).any(|cut| matches(rest, &text[cut..], any_case)),
        ([Part::One, parts @ ..], [_, text @ ..]) => matches(parts, text, any_case),
        ([Part::This(this), parts @ ..], [letter, text @ ..]) => same(*this, *letter) && matches(parts, text, any_case),
        _ => false,
    }
}

/// Short names, most of whose characters have a meaning in a pattern, a list or a group.
const LETTERS: &[char] = &['a', 'A', 'b', 'Å', 'å', '*', '%', '_', '\\', '"', ',', '(', ')', '.', ' ', '\''];
const CASES: u32 = 150;

async fn insert_names(app: &TestApp, names: &[String]) {
    let client = app.database.as_ref().expect("own database").client().await;
    let sql = "insert into passengers select gen_random_uuid(), n % 2 = 0, 1 + n % 3, name, \
         (array['male', 'female'])[1 + n % 2], null, 0, 0, 1 from unnest($1::text[]) with ordinality t(name, n)";
    client.execute(sql, &[&names]).await.expect("inserted");
}

/// Ways to write a condition, each with whether it is negated.
fn forms(column: &'static str, operator: &str, pattern: &str) -> Vec<(&'static str, String, bool)> {
    let in_quotes = format!("\"{}\"", pattern.replace('\\', "\\\\").replace('"', "\\\""));
    let bare = !pattern.contains([',', '(', ')']) && !pattern.starts_with('"');
    let value = if bare { pattern } else { &in_quotes };
    vec![
        (column, format!("{operator}.{pattern}"), false),
        (column, format!("not.{operator}.{pattern}"), true),
        ("or", format!("({column}.{operator}.{value})"), false),
        ("and", format!("({column}.{operator}.{in_quotes} , {column}.not.is.null)"), false),
        ("and", format!("({column}.not.{operator}.{in_quotes})"), true),
        ("not.or", format!("(not.and({column}.{operator}.{in_quotes} ),{column}.is.null)"), false),
    ]
}

#[tokio::test]
async fn every_escape_of_a_pattern_finds_what_a_naive_matcher_finds() {
    let app = crowd(0).await;
    let mut runner = TestRunner::new(Config::default());
    let letters = |most| prop::collection::vec(select(LETTERS), 1..most).prop_map(String::from_iter);
    let names = prop::collection::vec(letters(6), 150).new_tree(&mut runner).expect("names").current();
    // Names that a wrong escape would find or miss.
    let pairs = ["F05 star*", "F05 percent%", "a_b", "axb", "a\\b", "a*b", "a%b", "*", "%", "_", "\\", "\\\\"];
    insert_names(&app, &[&names[..], &pairs.map(str::to_owned)].concat()).await;
    let everybody = rows(&app.get("/passengerlist").await);
    // Patterns made from names have matches; random ones have unusual escapes.
    let of_name =
        (select(names), any::<prop::sample::Index>(), select(&["*", "%", "_", "\\*", "\\", "\\_", "\\%", "\\\\"][..]))
            .prop_map(|(name, place, part)| {
                let letters: Vec<char> = name.chars().collect();
                let place = place.index(letters.len());
                let escaped =
                    |letter: &char| if "*%_\\".contains(*letter) { format!("\\{letter}") } else { letter.to_string() };
                let (before, behind) = (&letters[..place], &letters[place + 1..]);
                format!(
                    "{}{part}{}",
                    before.iter().map(escaped).collect::<String>(),
                    behind.iter().map(escaped).collect::<String>()
                )
            });
    let of_sex = "(\\*|%|_|\\\\m|m|M|\\\\|a|l|e|fe){1,6}";
    let pattern = prop_oneof![3 => of_name, 2 => letters(6), 1 => of_sex];
    for case in 0..CASES {
        let pattern = pattern.new_tree(&mut runner).expect("a pattern").current();
        let parts = parts(&pattern);
        for (operator, any_case) in [("like", false), ("ilike", true)] {
            let column = if case % 3 == 0 { "sex" } else { "name" };
            for (parameter, value, reversed) in forms(column, operator, &pattern) {
                let answer = get(&app, "/v1/passengers", &[(parameter, &value), ("limit", "1000")]).await;
                let Some(parts) = &parts else {
                    answer.expect_problem(400, "invalid-query");
                    continue;
                };
                let fits = |row: &&Value| {
                    let text: Vec<char> = row[column].as_str().expect("a text").chars().collect();
                    matches(parts, &text, any_case) != reversed
                };
                let expected: Vec<Value> = everybody.iter().filter(fits).cloned().collect();
                assert_eq!(uuids(&rows(&answer)), uuids(&expected), "{parameter}={value}");
            }
        }
    }
}

#[tokio::test]
async fn an_escaped_asterisk_finds_asterisks_alone() {
    let app = crowd(0).await;
    for name in ["F05 star*", "F05 percent%"] {
        app.create(&passenger_with("name", name)).await;
    }
    for (parameter, value) in
        [("name", "like.F05*\\*"), ("or", "(name.like.\"F05*\\\\*\")"), ("or", "(name.ilike.f05*\\*)")]
    {
        let found = rows(&get(&app, "/v1/passengers", &[(parameter, value)]).await);
        assert_eq!(found.len(), 1, "{value}");
        assert_eq!(found[0]["name"], "F05 star*", "{value}");
    }
}
