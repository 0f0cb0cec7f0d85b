//! Made-up passengers as CSV, in the form that export writes and import reads; for benchmarks and tests of size.
//!
//! The same seed gives the same bytes, on every machine and in every release, and fewer rows are the beginning of more.
//! Every row satisfies `model`; uuids are version 7 and ascend. Nothing is held in memory but the row under way.

use std::io::{self, Write};

use uuid::{Builder, Uuid};

use super::model::Sex;

const HEADER: &[u8] =
    b"uuid,survived,passengerClass,name,sex,age,siblingsOrSpousesAboard,parentsOrChildrenAboard,fare\n";

/// The first row's creation time, 2020-01-01 in Unix milliseconds; each row is a millisecond younger than the one before.
/// That is in the past, so what a server creates afterwards comes after all of them.
const FIRST_MS: u64 = 1_577_836_800_000;

#[rustfmt::skip] // it would put each name on a line of its own
const SURNAMES: &[&str] = &[
    "Abbott", "Andersson", "Asplund", "Baclini", "Becker", "Bishop", "Boulos", "Brown", "Bourke", "Braund", "Calić",
    "Carter", "Chambers", "Collyer", "Connolly", "Cumings", "Danbom", "Davies", "Dean", "Doherty", "Douglas",
    "Elias", "Fleming", "Ford", "Fortune", "Futrelle", "Goldsmith", "Goodwin", "Graham", "Hansen", "Harper",
    "Harris", "Hart", "Hickman", "Hirvonen", "Hoyt", "Jensen", "Johansson", "Jussila", "Karlsson", "Keane", "Kelly",
    "Kink", "Laroche", "Lefebre", "Lehmann", "Lindström", "Mallet", "McCarthy", "McGowan", "Meyer", "Minahan",
    "Moran", "Murphy", "Nakid", "Nasser", "Navratil", "Newell", "Nicholls", "Nilsson", "O'Brien", "O'Dwyer",
    "Olsen", "Palsson", "Panula", "Peter", "Petterson", "Phillips", "Quick", "Renouf", "Rice", "Richards",
    "Robbins", "Rosblom", "Ryan", "Sage", "Sandström", "Skoog", "Smith", "Stewart", "Svensson", "Taussig", "Taylor",
    "Thayer", "Thorne", "Turpin", "Van Impe", "Vander Planke", "Wells", "West", "Wick", "Williams", "Windeløv",
    "Young", "Yousseff", "Zabour",
];
#[rustfmt::skip] // it would put each name on a line of its own
const MEN: &[&str] = &[
    "Albert", "Alexander", "Alfred", "Anders", "Anthony", "Arthur", "August", "Bernard", "Charles", "Daniel",
    "David", "Edgar", "Edward", "Elias", "Ernest", "Eugene", "Francis", "Frank", "Frederick", "George", "Gerios",
    "Gustaf", "Harold", "Harry", "Henry", "Herbert", "Hudson", "Jakob", "James", "Johan", "John", "Joseph", "Karl",
    "Lawrence", "Leo", "Mansour", "Martin", "Michael", "Nicholas", "Olaf", "Oskar", "Patrick", "Percival", "Peter",
    "Richard", "Robert", "Samuel", "Sidney", "Stephen", "Thomas", "Viktor", "Walter", "Wilhelm", "William",
];
#[rustfmt::skip] // it would put each name on a line of its own
const WOMEN: &[&str] = &[
    "Ada", "Agnes", "Alice", "Amelia", "Anna", "Annie", "Augusta", "Bertha", "Bridget", "Catherine", "Charlotte",
    "Clara", "Constance", "Dorothy", "Edith", "Eleanor", "Elizabeth", "Ellen", "Elsie", "Emily", "Eva", "Fatima",
    "Florence", "Gertrude", "Hanora", "Hedvig", "Helen", "Hilda", "Ida", "Ingeborg", "Jane", "Jessie", "Julia",
    "Kate", "Laura", "Leontine", "Lillian", "Lucy", "Mabel", "Margaret", "Maria", "Marion", "Martha", "Mary",
    "Mathilde", "Nora", "Olga", "Rosa", "Ruth", "Selma", "Sofia", "Susan", "Thamine", "Velin", "Winnifred",
];
const NICKNAMES: &[&str] = &["Bill", "Bertie", "Jack", "Lollie", "Mae", "Nelle", "Polly", "Ted"];

/// Of the real passengers one in five has no known age.
const AGE_UNKNOWN_PERCENT: u64 = 20;
/// Real fares are multiples of a farthing's fraction, written with up to four digits: 7.8958, 71.2833.
const FARE_UNITS_PER_POUND: f64 = 10_000.0;

/// Writes a header and that many passengers.
///
/// # Errors
/// When the output cannot be written.
pub fn generate(mut output: impl Write, rows: u64, seed: u64) -> io::Result<()> {
    output.write_all(HEADER)?;
    let mut random = Random(seed);
    for index in 0..rows {
        write_row(&mut output, key(FIRST_MS + index, &mut random), &mut random)?;
    }
    output.flush()
}

fn key(millis: u64, random: &mut Random) -> Uuid {
    let mut bits = [0; 10];
    bits[..8].copy_from_slice(&random.next().to_be_bytes());
    bits[8..].copy_from_slice(&random.next().to_be_bytes()[..2]);
    Builder::from_unix_timestamp_millis(millis, &bits).into_uuid()
}

fn write_row(output: &mut impl Write, key: Uuid, random: &mut Random) -> io::Result<()> {
    let class = *random.one_of(&[1_u64, 1, 2, 2, 3, 3, 3, 3, 3]);
    let sex = if random.percent(35) { Sex::Female } else { Sex::Male };
    let survived = random.percent(if sex == Sex::Female { 98 - 16 * class } else { 45 - 10 * class });
    let child = random.percent(9);
    write!(output, "{key},{survived},{class},\"")?;
    write_name(output, sex, child, random)?;
    write!(output, "\",{},", sex.as_str())?;
    if random.percent(100 - AGE_UNKNOWN_PERCENT) {
        match (child, random.below(4)) {
            (true, 0) => write!(output, "0.{}", 1 + random.below(9))?,
            (true, _) => write!(output, "{}", 1 + random.below(14))?,
            (false, 0) => write!(output, "{}.5", 15 + random.below(60))?,
            (false, _) => write!(output, "{}", 15 + random.below(60))?,
        }
    }
    let siblings = random.below(2) * random.below(4);
    let parents = random.below(2) * random.below(3);
    // Third class about 7 to 20 pounds, first class 30 to 130.
    let units = (4 - class).pow(2) * (70_000 + random.below(80_000)) / 2 + 30_000;
    #[expect(clippy::cast_precision_loss, reason = "at most 705,000")]
    let fare = units as f64 / FARE_UNITS_PER_POUND;
    writeln!(output, ",{siblings},{parents},{fare}")
}

/// `Surname, Title. Given Given`, in the list's own manner: a wife stands under her husband's name. Inside of quotes,
/// so a quotation mark is doubled.
fn write_name(output: &mut impl Write, sex: Sex, child: bool, random: &mut Random) -> io::Result<()> {
    let surname = random.one_of(SURNAMES);
    match sex {
        Sex::Male => {
            let title = if child { "Master" } else { random.one_of(&["Mr", "Mr", "Mr", "Mr", "Mr", "Dr", "Rev"]) };
            write!(output, "{surname}, {title}. {} {}", random.one_of(MEN), random.one_of(MEN))?;
        }
        Sex::Female if !child && random.percent(45) => {
            let (husband, own, maiden) = (random.one_of(MEN), random.one_of(WOMEN), random.one_of(SURNAMES));
            write!(output, "{surname}, Mrs. {husband} ({own} {} {maiden})", random.one_of(WOMEN))?;
        }
        Sex::Female => write!(output, "{surname}, Miss. {} {}", random.one_of(WOMEN), random.one_of(WOMEN))?,
    }
    if random.percent(3) {
        write!(output, " \"\"{}\"\"", random.one_of(NICKNAMES))?;
    }
    Ok(())
}

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014). Written out here because
/// a library's generator may change its numbers between releases.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below the bound; the bounds here are so small that the remainder's bias does not show.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        let index = self.below(choices.len() as u64);
        &choices[usize::try_from(index).expect("the index is below a length")]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::csv::Header;
    use super::*;

    fn generated(rows: u64, seed: u64) -> Vec<u8> {
        let mut csv = Vec::new();
        generate(&mut csv, rows, seed).expect("memory can be written");
        csv
    }

    #[test]
    fn a_seed_decides_every_byte_and_fewer_rows_are_a_beginning_of_more() {
        assert_eq!(generated(1000, 7), generated(1000, 7));
        assert_ne!(generated(1000, 7), generated(1000, 8));
        assert!(generated(1000, 7).starts_with(&generated(10, 7)));
        // The first row of seed 1, as it was first released: benchmarks of different releases use the same rows.
        let first = String::from_utf8(generated(1, 1)).expect("CSV is UTF-8");
        assert_eq!(
            first.lines().nth(1),
            Some("016f5e66-e800-710a-adec-89025cc1beeb,false,2,\"Renouf, Mr. Albert Samuel\",male,37.5,0,2,29.0028")
        );
    }

    #[test]
    fn every_row_passes_the_importers_rules_and_keys_ascend() {
        let csv = generated(20_000, 42);
        let mut reader = csv::Reader::from_reader(csv.as_slice());
        let header = Header::read(reader.headers().expect("there is a header")).expect("import knows the header");
        let (mut last, mut rows, mut names) = (Uuid::nil(), 0, HashSet::new());
        for record in reader.records() {
            let record = record.expect("the row is CSV");
            let passenger = header.passenger(&record).unwrap_or_else(|error| panic!("{error}: {record:?}"));
            assert_eq!(passenger.uuid.get_version_num(), 7);
            assert!(passenger.uuid > last, "{} does not follow {last}", passenger.uuid);
            last = passenger.uuid;
            rows += 1;
            names.insert(passenger.details.name.into_owned());
        }
        assert_eq!(rows, 20_000);
        assert!(names.len() > 15_000, "only {} different names", names.len());
    }
}
