//! Dates in common notations: year first with any separator, names of months, day first with points, and the week and ordinal
//! dates of ISO 8601. A date with two possible readings is rejected with both.

use jiff::ToSpan;
use jiff::civil::{Date, ISOWeekDate, Weekday, date};

use unicode_normalization::UnicodeNormalization;

use super::fault::TimeFault;

/// The dot of a capital i in Turkish, in lower case.
const COMBINING_DOT: char = '\u{307}';

/// The names of each month and their usual abbreviations: English, German, French, Spanish, Italian, Portuguese, Dutch,
/// Scandinavian and Turkish, as [`folded`] writes them. None of them means another month in another of these languages.
const MONTHS: [&str; 12] = [
    "january januar janvier enero gennaio janeiro januari ocak janv ene gen oca",
    "february februar février febrero febbraio fevereiro februari şubat févr fév fev şub",
    "march märz mars marzo março maart marts mart mrz mär mrt",
    "april avril abril aprile nisan avr abr nis",
    "may mai mayo maggio maio mei maj mayis mag",
    "june juni juin junio giugno junho haziran giu haz",
    "july juli juillet julio luglio julho temmuz juil lug tem",
    "august août agosto augustus augusti ağustos ago aoû ağu",
    "september septembre septiembre settembre setembro eylül sept set eyl",
    "october oktober octobre octubre ottobre outubro ekim okt ott out eki",
    "november novembre noviembre novembro kasim kas",
    "december dezember décembre diciembre dicembre dezembro desember aralik dez déc dic des ara",
];
const WEEKDAYS: [(&str, Weekday); 7] = [
    ("monday", Weekday::Monday),
    ("tuesday", Weekday::Tuesday),
    ("wednesday", Weekday::Wednesday),
    ("thursday", Weekday::Thursday),
    ("friday", Weekday::Friday),
    ("saturday", Weekday::Saturday),
    ("sunday", Weekday::Sunday),
];

/// What may be between a number and the name of a month.
const BETWEEN: [char; 5] = [' ', '-', '.', '/', ','];

/// Parses a date at the start of a text and returns the rest; `None` if the text does not start with one.
pub fn day(text: &str) -> Option<(Result<Date, TimeFault>, &str)> {
    let Some((weekday, rest)) = weekday(text) else { return plain(text) };
    let (day, rest) = plain(rest)?;
    let checked = day.and_then(|day| if day.weekday() == weekday { Ok(day) } else { Err(TimeFault::Weekday(day)) });
    Some((checked, rest))
}

/// A number that may count seconds, milliseconds or the days of a spreadsheet, and the date it would denote.
pub fn counted(text: &str) -> Option<TimeFault> {
    let number: i64 = text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    let at = |instant: Result<jiff::Timestamp, jiff::Error>| instant.ok().map(|at| at.to_string());
    let (what, value) = match text.len() {
        5 => ("the days of a spreadsheet", date(1899, 12, 30).checked_add(number.days()).ok()?.to_string()),
        9 | 10 => ("seconds since 1970", at(jiff::Timestamp::from_second(number))?),
        12 | 13 => ("milliseconds since 1970", at(jiff::Timestamp::from_millisecond(number))?),
        15 | 16 => ("microseconds since 1970", at(jiff::Timestamp::from_microsecond(number))?),
        18 | 19 => ("nanoseconds since 1970", at(Ok(jiff::Timestamp::from_nanosecond(number.into()).ok()?))?),
        _ => return None,
    };
    Some(TimeFault::Counted { what, value })
}

fn weekday(text: &str) -> Option<(Weekday, &str)> {
    let (word, rest) = letters(text);
    let weekday = WEEKDAYS.iter().find(|(name, _)| is_called(name, word))?.1;
    Some((weekday, rest.strip_prefix([',', '.']).unwrap_or(rest).trim_start_matches(' ')))
}

fn plain(text: &str) -> Option<(Result<Date, TimeFault>, &str)> {
    let (first, rest) = digits(text);
    match first.len() {
        0 => month_first(text),
        1 | 2 => day_first(number(first)?, rest),
        4 => year_first(number(first)?, rest),
        8 => Some((new(number(&first[..4])?, number(&first[4..6])?, number(&first[6..])?), rest)),
        _ => None,
    }
}

/// `2025/3/4`, `2025. 3. 4.`, `2025年3月4日`, `2025-W10-2`, `2025W102`, `2025-063`, `2025-Mar-04`
fn year_first(year: i32, rest: &str) -> Option<(Result<Date, TimeFault>, &str)> {
    if let Some(week) = rest.strip_prefix("-W").or_else(|| rest.strip_prefix('W')) {
        let (week, rest) = week.split_at_checked(2)?;
        let (day, rest) = rest.strip_prefix('-').unwrap_or(rest).split_at_checked(1)?;
        let weekday = Weekday::from_monday_one_offset(i8::try_from(number(day)?).ok()?);
        let week = i8::try_from(number(week)?).ok()?;
        let date = weekday.ok().and_then(|weekday| ISOWeekDate::new(i16::try_from(year).ok()?, week, weekday).ok());
        return Some((date.map(ISOWeekDate::date).ok_or(TimeFault::Day), rest));
    }
    for [year_mark, month_mark, day_mark] in [['年', '月', '日'], ['년', '월', '일']] {
        if let Some(rest) = rest.strip_prefix(year_mark) {
            let (month, rest) = digits(rest.trim_start_matches(' '));
            let (day, rest) = digits(rest.strip_prefix(month_mark)?.trim_start_matches(' '));
            return Some((new(year, number(month)?, number(day)?), rest.strip_prefix(day_mark)?));
        }
    }
    if let Some((month, rest)) = month(rest.trim_start_matches(BETWEEN)) {
        let (day, rest) = digits(rest.trim_start_matches(BETWEEN));
        return Some((new(year, month, number(day).filter(|_| day.len() <= 2)?), rest));
    }
    // Cameras write 2025:03:04, Koreans and Hungarians 2025. 3. 4.
    let (mark, rest) = rest.strip_prefix(':').map(|rest| (':', rest)).or_else(|| mark(rest))?;
    let rest = if mark == '.' { rest.trim_start_matches(' ') } else { rest };
    let (month, remaining) = digits(rest);
    if month.len() == 3 && mark == '-' {
        let days = i64::from(number(month)?);
        let day = new(year, 1, 1).ok().filter(|_| days > 0).and_then(|day| day.checked_add((days - 1).days()).ok());
        let day = day.filter(|day| i32::from(day.year()) == year);
        return Some((day.ok_or(TimeFault::Day), remaining));
    }
    let remaining = remaining.strip_prefix(mark)?;
    let (day, rest) = digits(if mark == '.' { remaining.trim_start_matches(' ') } else { remaining });
    let fits = |digits: &str| (1..=2).contains(&digits.len());
    (fits(month) && fits(day)).then_some(())?;
    let rest = rest.strip_prefix('.').filter(|_| mark == '.').unwrap_or(rest);
    Some((new(year, number(month)?, number(day)?), rest))
}

/// `4 March 2025`, `4-Mar-2025`, `04.03.2025`, `25/04/2025`
fn day_first<'t>(first: i32, rest: &'t str) -> Option<(Result<Date, TimeFault>, &'t str)> {
    let named = ["st", "nd", "rd", "th", "er"].iter().find_map(|end| rest.strip_prefix(end)).unwrap_or(rest);
    // In Spanish and Portuguese: 4 de marzo de 2025.
    let without_of = |text: &'t str| ["de ", "of "].iter().find_map(|of| text.strip_prefix(of)).unwrap_or(text);
    let named = without_of(named.trim_start_matches(BETWEEN));
    if let Some((month, rest)) = month(named) {
        let (year, rest) = digits(without_of(rest.trim_start_matches(BETWEEN)));
        return year_of(year, rest, |year| new(year, month, first));
    }
    let (mark, rest) = mark(rest)?;
    // In Czech and Slovak: 4. 3. 2025.
    let without_blank = |rest: &'t str| if mark == '.' { rest.trim_start_matches(' ') } else { rest };
    let (second, rest) = digits(without_blank(rest));
    let second = number(second).filter(|_| (1..=2).contains(&second.len()))?;
    let (year, rest) = digits(without_blank(rest.strip_prefix(mark)?));
    year_of(year, rest, |year| match (mark, first, second) {
        // With points the day comes first; with other separators either may.
        ('.', day, month) => new(year, month, day),
        (_, 1..=12, 1..=12) if first != second => {
            Err(TimeFault::Ambiguous(new(year, second, first)?, new(year, first, second)?))
        }
        (_, 13.., _) => new(year, second, first),
        _ => new(year, first, second),
    })
}

/// `March 4, 2025`
fn month_first(text: &str) -> Option<(Result<Date, TimeFault>, &str)> {
    let (month, rest) = month(text)?;
    let (day, rest) = digits(rest.trim_start_matches([' ', '-', '.']));
    let day = number(day).filter(|_| (1..=2).contains(&day.len()))?;
    let rest = ["st", "nd", "rd", "th"].iter().find_map(|end| rest.strip_prefix(end)).unwrap_or(rest);
    let (year, rest) = digits(rest.trim_start_matches([' ', '-', ',']));
    year_of(year, rest, |year| new(year, month, day))
}

fn year_of<'t>(
    year: &str,
    rest: &'t str,
    day: impl FnOnce(i32) -> Result<Date, TimeFault>,
) -> Option<(Result<Date, TimeFault>, &'t str)> {
    match year.len() {
        4 => Some((day(number(year)?), rest)),
        2 => Some((Err(TimeFault::ShortYear), rest)),
        _ => None,
    }
}

fn month(text: &str) -> Option<(i32, &str)> {
    let (word, rest) = letters(text);
    let folded = folded(word);
    let is_named = |names: &&str| folded == names[..3] || names.split(' ').any(|name| name == folded);
    let index = MONTHS.iter().position(is_named)?;
    Some((i32::try_from(index).ok()? + 1, rest))
}

/// In lower case and composed (NFC), and without the difference between the Turkish letters i and ı, whose capitals are not
/// those of other languages.
fn folded(word: &str) -> String {
    let lower = word.nfc().flat_map(char::to_lowercase).filter(|letter| *letter != COMBINING_DOT);
    lower.map(|letter| if letter == 'ı' { 'i' } else { letter }).collect()
}

/// Whether it is the name or its first three letters.
fn is_called(name: &str, word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    word == name || word == name[..3]
}

fn mark(text: &str) -> Option<(char, &str)> {
    let mark = text.chars().next().filter(|letter| "-/.".contains(*letter))?;
    Some((mark, &text[1..]))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len()))
}

fn letters(text: &str) -> (&str, &str) {
    // A mark may be apart from its letter (Unicode, NFD).
    let is_letter = |letter: char| letter.is_alphabetic() || matches!(letter, '\u{300}'..='\u{36f}');
    text.split_at(text.find(|letter| !is_letter(letter)).unwrap_or(text.len()))
}

fn number(digits: &str) -> Option<i32> {
    digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

fn new(year: i32, month: i32, day: i32) -> Result<Date, TimeFault> {
    let part = |part: i32| i8::try_from(part).map_err(|_| TimeFault::Day);
    let year = i16::try_from(year).map_err(|_| TimeFault::Day)?;
    Date::new(year, part(month)?, part(day)?).map_err(|_| TimeFault::Day)
}
