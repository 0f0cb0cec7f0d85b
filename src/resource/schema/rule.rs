//! Parses what a check constraint allows from the text in which PostgreSQL displays it. Only constraints written by this
//! program are understood; any other must be compared by hand.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::super::decimal::{Decimal, PRECISION_MAX};
use super::super::kind::Kind;

/// The restrictions on a column's values in addition to their type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    least: Option<String>,
    greatest: Option<String>,
    lengths: Option<(u32, u32)>,
    values: Option<BTreeSet<String>>,
    pattern: Option<String>,
}

/// A token of a constraint's text.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Literal(String),
    Operator(String),
}

impl Rule {
    /// The rule of a description.
    pub fn of(kind: &Kind) -> Self {
        let mut rule = Self::default();
        match kind {
            Kind::Integer { values: Some(values), .. } if !super::is_gapless(values) => {
                rule.values = Some(values.iter().map(ToString::to_string).collect());
            }
            Kind::Integer { bits, minimum, maximum, .. } => {
                let (least, greatest) = (i64::MIN >> (64 - bits), i64::MAX >> (64 - bits));
                rule.least = (*minimum > least).then(|| minimum.to_string());
                rule.greatest = (*maximum < greatest).then(|| maximum.to_string());
            }
            Kind::Number { minimum, maximum } => {
                rule.least = minimum.map(|bound| bound.to_string());
                rule.greatest = maximum.map(|bound| bound.to_string());
            }
            Kind::Decimal { minimum, maximum, .. } => (rule.least, rule.greatest) = (minimum.clone(), maximum.clone()),
            Kind::Text { min_length, max_length, pattern } => {
                rule.lengths = Some((*min_length, *max_length));
                rule.pattern.clone_from(pattern);
            }
            Kind::Enum(texts) => rule.values = Some(texts.iter().cloned().collect()),
            Kind::Boolean | Kind::Date | Kind::DateTime | Kind::Uuid => {}
        }
        rule
    }

    /// Parses a constraint on this column in the form of `pg_get_constraintdef`; `None` when it is not understood.
    pub fn read(definition: &str, column: &str) -> Option<Self> {
        let tokens = tokens(definition.strip_prefix("CHECK ")?)?;
        let mut rule = Self::default();
        for part in tokens.split(|token| *token == Token::Word("AND".to_owned())) {
            rule.add(part, column)?;
        }
        Some(rule)
    }

    fn add(&mut self, part: &[Token], column: &str) -> Option<()> {
        use Token::{Literal, Operator, Word};
        match part {
            [Word(function), Word(of), Operator(operator), Literal(value)]
                if function == "char_length" && of == column =>
            {
                let (least, most) = self.lengths.unwrap_or((0, u32::MAX));
                let value = value.parse().ok()?;
                self.lengths = Some(match operator.as_str() {
                    ">=" => (value, most),
                    "<=" => (least, value),
                    _ => return None,
                });
            }
            [Word(of), Operator(operator), Literal(value)] if of == column => match operator.as_str() {
                // Doubles are always finite, and decimals never NaN.
                ">" | "<" | "<>" if matches!(value.to_ascii_lowercase().as_str(), "infinity" | "-infinity" | "nan") => {
                }
                ">=" => self.least = Some(value.clone()),
                "<=" => self.greatest = Some(value.clone()),
                "=" => self.values = Some(BTreeSet::from([value.clone()])),
                "~" => self.pattern = Some(value.clone()),
                _ => return None,
            },
            [Word(of), Operator(operator), Word(any), Word(array), values @ ..]
                if of == column && operator == "=" && any == "ANY" && array == "ARRAY" =>
            {
                let value = |token: &Token| match token {
                    Literal(value) => Some(value.clone()),
                    _ => None,
                };
                self.values = Some(values.iter().map(value).collect::<Option<_>>()?);
            }
            _ => return None,
        }
        Some(())
    }

    /// Whether both allow the same values.
    pub fn is_same(&self, other: &Self) -> bool {
        self.includes(other) && other.includes(self)
    }

    /// Whether this rule allows every value that another one allows.
    pub fn includes(&self, other: &Self) -> bool {
        let is_at_most = |a: &str, b: &str| compare(a, b).is_some_and(Ordering::is_le);
        let bounds =
            |bound: &Option<String>, other: &Option<String>, fits: &dyn Fn(&str, &str) -> bool| match (bound, other) {
                (None, _) => true,
                (Some(bound), Some(other)) => fits(bound, other),
                (Some(_), None) => false,
            };
        if let (Some(mine), other) = (&self.values, &other.values) {
            return other.as_ref().is_some_and(|other| other.is_subset(mine));
        }
        // A list of numbers replaced by a range.
        if let Some(values) = &other.values {
            let fits = |value: &String| {
                bounds(&self.least, &Some(value.clone()), &is_at_most)
                    && bounds(&self.greatest, &Some(value.clone()), &|a, b| is_at_most(b, a))
            };
            return self.lengths.is_none() && self.pattern.is_none() && values.iter().all(fits);
        }
        let lengths = match (self.lengths, other.lengths) {
            (None, _) => true,
            (Some((least, most)), Some((other_least, other_most))) => least <= other_least && most >= other_most,
            (Some(_), None) => false,
        };
        let pattern = self.pattern.is_none() || self.pattern == other.pattern;
        lengths
            && pattern
            && bounds(&self.least, &other.least, &is_at_most)
            && bounds(&self.greatest, &other.greatest, &|a, b| is_at_most(b, a))
    }
}

/// Compares two numbers, exactly if they fit into a decimal.
fn compare(a: &str, b: &str) -> Option<Ordering> {
    let exact = |text: &str| Decimal::parse(text, PRECISION_MAX, 12).map(Decimal::units);
    match (exact(a), exact(b)) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => a.parse::<f64>().ok()?.partial_cmp(&b.parse().ok()?),
    }
}

/// Tokenises a constraint; parentheses and casts are ignored, because they have no effect in the forms understood.
fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        if letter.is_whitespace() || matches!(letter, '(' | ')' | '[' | ']' | ',') {
            rest = &rest[1..];
        } else if let Some(cast) = rest.strip_prefix("::") {
            let end = cast.find(|letter: char| !(letter.is_ascii_lowercase() || letter == ' ' || letter == '_'));
            rest = &cast[end.unwrap_or(cast.len())..];
            // Type modifiers, such as precision and scale.
            if let Some((digits, remaining)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')'))
                && digits.chars().all(|letter| letter.is_ascii_digit() || letter == ',')
            {
                rest = remaining;
            }
        } else if letter == '\'' || rest.starts_with("E'") {
            let escapes = letter == 'E';
            let (value, remaining) = literal(&rest[if escapes { 2 } else { 1 }..], escapes)?;
            tokens.push(Token::Literal(value));
            rest = remaining;
        } else if letter == '"' {
            let (name, remaining) = rest[1..].split_once('"')?;
            tokens.push(Token::Word(name.to_owned()));
            rest = remaining;
        } else if letter.is_ascii_digit() || letter == '-' {
            let end = rest[1..].find(|letter: char| !(letter.is_ascii_digit() || ".e+-".contains(letter)));
            let (number, remaining) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
            tokens.push(Token::Literal(number.to_owned()));
            rest = remaining;
        } else if letter.is_alphabetic() || letter == '_' {
            let end = rest.find(|letter: char| !(letter.is_alphanumeric() || letter == '_')).unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..end].to_owned()));
            rest = &rest[end..];
        } else if "<>=~".contains(letter) {
            let end = rest.find(|letter: char| !"<>=~".contains(letter)).unwrap_or(rest.len());
            tokens.push(Token::Operator(rest[..end].to_owned()));
            rest = &rest[end..];
        } else {
            return None;
        }
    }
    Some(tokens)
}

/// Parses a literal up to its closing quote, and returns the rest.
fn literal(text: &str, escapes: bool) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices().peekable();
    while let Some((index, letter)) = letters.next() {
        match letter {
            '\'' if letters.peek().is_some_and(|(_, next)| *next == '\'') => {
                letters.next();
                value.push('\'');
            }
            '\'' => return Some((value, &text[index + 1..])),
            '\\' if escapes => value.push(letters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(definition: &str, column: &str) -> Rule {
        Rule::read(definition, column).unwrap_or_else(|| panic!("{definition}"))
    }

    fn range(least: Option<&str>, greatest: Option<&str>) -> Rule {
        Rule { least: least.map(str::to_owned), greatest: greatest.map(str::to_owned), ..Rule::default() }
    }

    #[test]
    fn constraints_are_read_as_postgresql_shows_them() {
        assert_eq!(read("CHECK (((class >= 1) AND (class <= 3)))", "class"), range(Some("1"), Some("3")));
        assert_eq!(
            read("CHECK (((fare >= (0)::double precision) AND (fare < 'Infinity'::double precision)))", "fare"),
            range(Some("0"), None)
        );
        assert_eq!(read("CHECK ((depth >= '-5'::integer))", "depth"), range(Some("-5"), None));
        assert_eq!(read("CHECK ((price <= 10.50))", "price"), range(None, Some("10.50")));
        assert_eq!(
            read("CHECK (((price >= (0)::numeric) AND (price <> 'NaN'::numeric)))", "price"),
            range(Some("0"), None)
        );
        let named = read("CHECK (((char_length(name) >= 1) AND (char_length(name) <= 150)))", "name");
        assert_eq!(named, Rule { lengths: Some((1, 150)), ..Rule::default() });
        let sex = read("CHECK ((sex = ANY (ARRAY['male'::text, 'fe''male'::text])))", "sex");
        assert_eq!(sex.values, Some(["male".to_owned(), "fe'male".to_owned()].into()));
        assert_eq!(read("CHECK ((\"order\" = 'x'::text))", "order").values, Some(["x".to_owned()].into()));
        let code = "CHECK (((char_length(code) >= 1) AND (char_length(code) <= 9) AND (code ~ '^[A-Z]\\d+$'::text)))";
        assert_eq!(read(code, "code").pattern.as_deref(), Some("^[A-Z]\\d+$"));
        for other in
            ["CHECK ((a > b))", "CHECK (((a >= 1) OR (a <= 0)))", "CHECK ((other >= 1))", "CHECK ((a !~ 'x'::text))"]
        {
            assert_eq!(Rule::read(other, "a"), None, "{other}");
        }
    }

    #[test]
    fn a_wider_rule_includes_a_narrower_one() {
        let lengths = |least, most| Rule { lengths: Some((least, most)), ..Rule::default() };
        let values = |values: &[&str]| Rule {
            values: Some(values.iter().map(ToString::to_string).collect()),
            ..Rule::default()
        };
        for (wide, narrow) in [
            (range(None, None), range(Some("0"), Some("1"))),
            (range(Some("0"), Some("10")), range(Some("0.0"), Some("9.5"))),
            (lengths(0, 200), lengths(1, 150)),
            (values(&["a", "b"]), values(&["b"])),
            (range(Some("1"), Some("3")), values(&["1", "3"])),
        ] {
            assert!(wide.includes(&narrow), "{wide:?} {narrow:?}");
            assert!(!narrow.includes(&wide), "{wide:?} {narrow:?}");
        }
        assert!(range(Some("0"), None).is_same(&range(Some("0.0"), None)));
    }
}
