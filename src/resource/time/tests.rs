//! Every form is parsed to its value, and every fault has its own message.

use proptest::prelude::*;

use super::*;

fn read(text: &str, unzoned: Unzoned) -> Result<String, String> {
    read_date_time(text, unzoned).map(|at| at.to_string()).map_err(|fault| fault.to_string())
}

#[test]
fn every_form_means_what_it_says() {
    for (text, expected) in [
        ("2025-03-04T02:00:00Z", "2025-03-04T02:00:00Z"),
        ("2025-03-04t02:00:00z", "2025-03-04T02:00:00Z"),
        ("2025-03-04 02:00:00+01:00", "2025-03-04T01:00:00Z"),
        ("2025-03-04 02:00:00-05:30", "2025-03-04T07:30:00Z"),
        ("2025-03-04 02:00:00+01", "2025-03-04T01:00:00Z"),
        ("2025-03-04 02:00:00+0130", "2025-03-04T00:30:00Z"),
        ("1900-01-01 00:00:00-00:14:44", "1900-01-01T00:14:44Z"),
        ("20250304T020000Z", "2025-03-04T02:00:00Z"),
        ("2025-03-04T02:00:00-00:00", "2025-03-04T02:00:00Z"),
        ("2025-03-04T02:00Z", "2025-03-04T02:00:00Z"),
        ("2025-03-04T02:00:00.5Z", "2025-03-04T02:00:00.5Z"),
        ("2025-03-04T02:00:00,5Z", "2025-03-04T02:00:00.5Z"),
        ("2025-03-04T02:00:00.123456789Z", "2025-03-04T02:00:00.123457Z"),
        ("2025-03-04T02:00:00.0000005Z", "2025-03-04T02:00:00Z"),
        ("2025-03-04T02:00:00.0000015Z", "2025-03-04T02:00:00.000002Z"),
        ("2025-03-04T23:59:59.9999999Z", "2025-03-05T00:00:00Z"),
        ("2025-02-28T24:00:00Z", "2025-03-01T00:00:00Z"),
        ("2025-12-31T24:00:00.000+01:00", "2025-12-31T23:00:00Z"),
        ("2025-03-04T02:00:00[Europe/Madrid]", "2025-03-04T01:00:00Z"),
        ("2025-07-04T02:00:00[europe/madrid]", "2025-07-04T00:00:00Z"),
        ("2025-03-04T02:00:00[!Europe/Madrid]", "2025-03-04T01:00:00Z"),
        ("2025-03-04[Europe/Madrid]", "2025-03-03T23:00:00Z"),
        ("2025-03-04T02:00:00[+05:30]", "2025-03-03T20:30:00Z"),
        ("2025-03-04T02:00:00[UTC]", "2025-03-04T02:00:00Z"),
        ("2025-03-04T02:00:00+01:00[Europe/Madrid]", "2025-03-04T01:00:00Z"),
        ("2025-03-04T02:00:00+01:00[Europe/Madrid][u-ca=hebrew]", "2025-03-04T01:00:00Z"),
        ("2025-03-04T02:00:00Z[Europe/Madrid][!u-ca=iso8601]", "2025-03-04T02:00:00Z"),
        // The offset selects one of the two hours.
        ("2025-10-26T02:30:00+02:00[Europe/Madrid]", "2025-10-26T00:30:00Z"),
        ("2025-10-26T02:30:00+01:00[Europe/Madrid]", "2025-10-26T01:30:00Z"),
        ("1900-01-01T00:00:00-00:15[Europe/Madrid]", "1900-01-01T00:15:00Z"),
        // As BigQuery, git, Go and Ruby write it.
        ("2025-03-04 02:00:00 UTC", "2025-03-04T02:00:00Z"),
        ("2025-03-04 02:00:00 +0100", "2025-03-04T01:00:00Z"),
        ("2025-03-04 02:00:00.5 -03:30", "2025-03-04T05:30:00.5Z"),
        ("2025-03-04 02:00:00 GMT", "2025-03-04T02:00:00Z"),
        ("2025-03-04T02:00:00 Z", "2025-03-04T02:00:00Z"),
        ("Tue, 04 Mar 2025 02:00:00 GMT", "2025-03-04T02:00:00Z"),
        ("4 March 2025, 2:00 +01:00", "2025-03-04T01:00:00Z"),
        ("2025/03/04 2:00:00 PM Z", "2025-03-04T14:00:00Z"),
        ("2025-03-04 12:00 am +01:00", "2025-03-03T23:00:00Z"),
        ("04.03.2025 02:00Z", "2025-03-04T02:00:00Z"),
        ("2025-W10-2T02:00:00Z", "2025-03-04T02:00:00Z"),
        ("2025-063T02:00:00Z", "2025-03-04T02:00:00Z"),
        ("2025-3-4T2:00:00Z", "2025-03-04T02:00:00Z"),
        // As SAS, web servers, JavaScript, cameras and people in East Asia write it.
        ("04MAR2025:02:00:00 Z", "2025-03-04T02:00:00Z"),
        ("04/Mar/2025:02:00:00 +0100", "2025-03-04T01:00:00Z"),
        ("Tue Mar 04 2025 02:00:00 GMT+0100 (Central European Standard Time)", "2025-03-04T01:00:00Z"),
        ("Tue Mar 04 2025 02:00:00 GMT-0330", "2025-03-04T05:30:00Z"),
        ("2025-03-04 02:00:00utc", "2025-03-04T02:00:00Z"),
        ("2025:03:04 02:00:00+01:00", "2025-03-04T01:00:00Z"),
        ("2025年3月4日 02:00Z", "2025-03-04T02:00:00Z"),
        ("2025. 3. 4. 02:00Z", "2025-03-04T02:00:00Z"),
        // As XML Schema, e-mail, Go, C, Unix, MySQL, browsers, Kibana and PostgreSQL write it.
        ("2025-03-04Z", "2025-03-04T00:00:00Z"),
        ("2025-03-04+01:00", "2025-03-03T23:00:00Z"),
        ("Tue, 04 Mar 2025 02:00:00 +0100 (CET)", "2025-03-04T01:00:00Z"),
        ("2025-03-04 02:00:00.5 +0100 CET", "2025-03-04T01:00:00.5Z"),
        ("2025-03-04 02:00:00 +0000 UTC", "2025-03-04T02:00:00Z"),
        ("Tue Mar  4 02:00:00 UTC 2025", "2025-03-04T02:00:00Z"),
        ("Tue Mar 04 02:00:00 +0100 2025", "2025-03-04T01:00:00Z"),
        ("20250304020000Z", "2025-03-04T02:00:00Z"),
        ("20250304020000.5Z", "2025-03-04T02:00:00.5Z"),
        ("3/14/2025, 2:00:00\u{202f}PM Z", "2025-03-14T14:00:00Z"),
        ("Mar 4, 2025 @ 02:00:00.500 +01:00", "2025-03-04T01:00:00.5Z"),
        ("March 4, 2025 at 2:00 p.m. UTC", "2025-03-04T14:00:00Z"),
        ("4. März 2025 um 02:00:00 UTC", "2025-03-04T02:00:00Z"),
        ("2025-03-04 0:30 a. m. Z", "2025-03-04T00:30:00Z"),
        ("2025-03-04T02:00:00+1", "2025-03-04T01:00:00Z"),
        ("2025-03-04T02:00:00+1:30", "2025-03-04T00:30:00Z"),
        ("2025-03-04 02:00:00 Europe/Madrid", "2025-03-04T01:00:00Z"),
        ("2025-03-04 02:00:00 [Europe/Madrid]", "2025-03-04T01:00:00Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("9999-12-30T22:00:00.999999Z", "9999-12-30T22:00:00.999999Z"),
    ] {
        assert_eq!(read(text, Unzoned::Refused), Ok(expected.to_owned()), "{text}");
        assert_eq!(read(text, Unzoned::Utc), Ok(expected.to_owned()), "{text}");
    }
    for (text, expected) in [
        ("2025-03-04", "2025-03-04T00:00:00Z"),
        ("2025-03-04 02:00:00", "2025-03-04T02:00:00Z"),
        ("20250304020000", "2025-03-04T02:00:00Z"),
        ("Tue Mar  4 02:00:00 2025", "2025-03-04T02:00:00Z"),
        ("2025-03-04T24:00:00", "2025-03-05T00:00:00Z"),
    ] {
        assert_eq!(read(text, Unzoned::Utc), Ok(expected.to_owned()), "{text}");
        assert_eq!(read(text, Unzoned::Refused), Err(TimeFault::NoOffset.to_string()), "{text}");
    }
}

#[test]
fn every_error_has_its_own_message() {
    for (text, expected) in [
        ("2025-02-29T02:00:00Z", "no such day"),
        ("2025-13-01", "no such day"),
        ("2025-03-04T24:00:01Z", "no such time of day"),
        ("2025-03-04T24:00:00.1Z", "no such time of day"),
        ("2025-03-04T25:00:00Z", "no such time of day"),
        ("2025-03-04T02:60:00Z", "no such time of day"),
        ("2025-03-04T02:00:61Z", "no such time of day"),
        ("2016-12-31T23:59:60Z", "second 60"),
        ("2016-12-31T23:59:60.5Z", "second 60"),
        ("2016-12-31T23:59:60", "second 60"),
        ("20161231T235960Z", "second 60"),
        ("2025-03-04T02:00:00.1234567890Z", "more than 9 decimals"),
        ("2025-03-04T02:00:00 01:00", "write %2B"),
        ("2025-03-04 02:00 0100", "write %2B"),
        ("2025-03-04T02:00:00+24:00", "no such offset"),
        ("2025-03-04T02:00:00+01:60", "no such offset"),
        ("2025-03-04T02:00:00[Europe/Madird]", "no time zone \"Europe/Madird\""),
        ("2025-03-04T02:00:00[]", "no time zone \"\""),
        ("2025-03-04T02:00:00[Etc/Unknown]", "no time zone"),
        ("2025-03-04T02:00:00[Factory]", "no time zone"),
        ("9999-12-31T23:59:59Z", "after 9999-12-30T22:00:00.999999Z"),
        ("2025-03-04T02:00:00Z[!Mars/Olympus]", "no time zone"),
        ("2025-03-04T02:00:00[+25:00]", "no time zone"),
        ("2025-03-04T02:00:00[UTC][Europe/Madrid]", "more than one time zone"),
        (
            "2025-03-30T02:30:00[Europe/Madrid]",
            "2025-03-30T02:30:00 does not exist in Europe/Madrid, where clocks went from +01 to +02",
        ),
        (
            "2025-10-26T02:30:00[Europe/Madrid]",
            "2025-10-26T02:30:00 occurs twice in Europe/Madrid; write the intended offset, +02 or +01",
        ),
        ("2025-03-04T02:00:00+02:00[Europe/Madrid]", "its offset +02 is not that of Europe/Madrid, which is +01 then"),
        ("2025-03-04T02:00:00+02:00[+01:00]", "its offset +02 is not that of +01:00"),
        ("2025-03-30T02:30:00+03:00[Europe/Madrid]", "its offset +03"),
        ("2025-03-04T02:00:00Z[!u-ca=hebrew]", "the critical annotation [!u-ca=hebrew] is not supported"),
        ("2025-03-04T02:00:00Z[!x=y]", "critical annotation"),
        ("0001-01-01T00:00:00+01:00", "before the year 1"),
        ("0000-12-31T23:00:00Z", "before the year 1"),
        ("9999-12-31T23:00:00Z", "after 9999-12-30T22:00:00.999999Z"),
        ("9999-12-31T24:00:00Z", "after 9999-12-30T22:00:00.999999Z"),
        ("03/04/2025 02:00Z", "it is 2025-04-03 or 2025-03-04"),
        ("2025-03-04 13:00 PM Z", "no such time of day"),
        ("2025-03-04 02:00:00 CET", "CET is not a unique abbreviation"),
        ("1741053600", "if it counts seconds since 1970, write 2025-03-04T02:00:00Z"),
        ("25-03-04", "two digits"),
    ] {
        let fault = read(text, Unzoned::Utc).expect_err(text);
        assert!(fault.contains(expected), "{text}: {fault}");
        assert!(read_date_time(text, Unzoned::Utc).is_err_and(|fault| fault.of("must be").starts_with("must be; ")));
    }
    for text in [
        "",
        "yesterday",
        "2025",
        "2025-03",
        "2025-0304",
        "202503-04",
        "+002025-03-04",
        "-2025-03-04",
        "2025-03-04T",
        "2025-03-04T02",
        "2025-03-04T02:00:",
        "2025-03-04T02:00:00.",
        "2025-03-04T02:00:00.Z",
        "2025-03-04x02:00:00",
        "2025-03-04T02:00:00ZZ",
        " 2025-03-04",
        "2025-03-04 ",
        "2025-03-04T02:00:00[UTC",
        "2025-03-04T02:00:00[UTC]x",
        "2025-03-04T02:00:00]",
        "[UTC]",
        "２０２５-03-04",
        "2025-03-04T02:00:0ż",
        "2025-03-04T02:00:00\u{2212}01:00",
        "2025-03-04:02:00:00Z",
        "2025-03-04T02:00:00 GMT+1",
        "12:03:2025",
        "2025年3月",
        "2025-03-04-01:00",
        "2025-03-04 02:00:00 +01:00 UTC",
        "0044-03-15 12:00:00+00 BC",
        "2025-03-04 02:00:00 +01:00 PM",
        "2025-03-04 02:00:00 Europe/Nowhere",
        "202503040200001Z",
        "2025-03-04020000Z",
        "2025.3.4.5",
        "2025-W10-21200",
        "2024W0511200",
    ] {
        assert_eq!(read_date_time(text, Unzoned::Utc), Err(TimeFault::Form), "{text}");
    }
}

#[test]
fn a_date_is_accepted_in_each_unambiguous_form() {
    for text in [
        "2024-02-29",
        "2024/02/29",
        "2024.2.29",
        "2024-2-29",
        "20240229",
        "29 February 2024",
        "29-Feb-2024",
        "29th feb 2024",
        "February 29, 2024",
        "Thu, 29 Feb 2024",
        "29.02.2024",
        "29.2.2024",
        "29/02/2024",
        "02/29/2024",
        "29-02-2024",
        "2024-W09-4",
        "2024W094",
        "2024-060",
        "2024-02-29T00:00:00Z",
        "2024-02-29 00:00:00",
        "2024-02-29 00:00:00.000",
        "2024-02-29 00:00:00+00:00",
        "2024-02-29T00:00:00.000-00:00",
        "2024-02-29 00:00:00 UTC",
        "2024-02-29T00:00:00Z[UTC]",
        "2/29/2024 12:00:00 AM",
        "29FEB2024",
        "29FEB2024:00:00:00",
        "2024年2月29日",
        "2024년 2월 29일",
        "2024. 2. 29.",
        "2024:02:29",
        "29. Februar 2024",
        "29 février 2024",
        "29 de febrero de 2024",
        "29 Şubat 2024",
        "29 ŞUBAT 2024",
        "29 févr. 2024",
        "29 fe\u{301}vrier 2024",
        "29th of February 2024",
        "29. 2. 2024",
        "2024-Feb-29",
        "2024/FEB/29",
        "2024 February 29",
        "2024-02-29Z",
    ] {
        assert_eq!(read_date(text), Ok(date(2024, 2, 29)), "{text}");
    }
    for (month, names) in [
        (1, &["janv.", "ene", "gen", "Oca"][..]),
        (3, &["Mrz", "mrt", "MÄR"]),
        (4, &["avr.", "abr", "NİSAN"]),
        (5, &["MAYIS", "mag", "maj"]),
        (8, &["ago", "AĞUSTOS"]),
        (9, &["set", "sept.", "Eylül"]),
        (10, &["out", "ott", "EKİM"]),
        (11, &["KASIM", "Kasım"]),
        (12, &["déc.", "dic", "ARALIK"]),
    ] {
        for name in names {
            assert_eq!(read_date(&format!("4 {name} 2025")), Ok(date(2025, month, 4)), "{name}");
        }
    }
    assert_eq!(read_date("04.03.2025"), Ok(date(2025, 3, 4)));
    assert_eq!(read_date("03/03/2025"), Ok(date(2025, 3, 3)));
    for (text, expected) in [
        ("03/04/2025", "it is 2025-04-03 or 2025-03-04"),
        ("03-04-2025", "it is 2025-04-03 or 2025-03-04"),
        ("2023-02-29", "no such day"),
        ("2023-366", "no such day"),
        ("2025-W53-1", "no such day"),
        ("12.31.2025", "no such day"),
        ("0000-01-01", "no such day"),
        ("04.03.25", "two digits"),
        ("4 March 25", "two digits"),
        ("Mon, 04 Mar 2025", "another day of the week"),
        ("45720", "the days of a spreadsheet, write 2025-03-04"),
        ("1741053600", "seconds since 1970, write 2025-03-04T02:00:00Z"),
        ("1741053600000", "milliseconds since 1970, write 2025-03-04T02:00:00Z"),
        ("1741053600000000", "microseconds since 1970, write 2025-03-04T02:00:00Z"),
        ("1741053600000000000", "nanoseconds since 1970, write 2025-03-04T02:00:00Z"),
        ("2025-03-04+01:00", "time of day"),
        ("2025-03-04T02:00:00Z", "time of day"),
        ("2025-03-04T00:00:00+02:00", "time of day"),
        ("", "form"),
        ("2024-02-29 ", "form"),
        ("2024-0229", "form"),
        ("2025063", "form"),
        ("2025-03", "form"),
        ("2025", "form"),
        ("4 Brumaire 2025", "form"),
        ("today", "form"),
        ("infinity", "form"),
        ("10000-01-01", "form"),
    ] {
        let fault = read_date(text).expect_err(text).to_string();
        assert!(fault.contains(expected), "{text}: {fault}");
    }
}

proptest! {
    #[test]
    fn an_instant_is_read_back_from_any_offset_and_zone(
        seconds in FIRST_SECOND + 86_400..253_402_100_000_i64, micros in 0_i32..1_000_000,
        zone in prop::sample::select(&["Europe/Madrid", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "UTC"][..]),
        minutes in -18 * 60_i32..=18 * 60, mark in prop::sample::select(&["T", "t", " "][..]),
    ) {
        let at = Timestamp::new(seconds, micros * 1000).expect("in range");
        let offset = Offset::from_seconds(minutes * 60).expect("in range");
        let (sign, size) = (if minutes < 0 { '-' } else { '+' }, minutes.abs());
        let text = format!("{:.6}{sign}{:02}:{:02}", offset.to_datetime(at), size / 60, size % 60).replace('T', mark);
        prop_assert_eq!(read_date_time(&text, Unzoned::Refused), Ok(at), "{}", text);
        prop_assert_eq!(read_date_time(&format!("{at}"), Unzoned::Refused), Ok(at));
        // With its zone it is the same instant, or one of the two reported.
        let zoned = ZONES.get(zone).expect("a zone");
        let local = zoned.to_datetime(at);
        match read_date_time(&format!("{local}[{zone}]"), Unzoned::Refused) {
            Ok(read) => prop_assert_eq!(read, at),
            Err(TimeFault::Repeated { before, after, .. }) => {
                prop_assert!([before, after].contains(&zoned.to_offset(at)));
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn no_text_makes_parsing_panic(text in "\\PC{0,30}|[-0-9T:Z.+ \\[\\]!=]{0,40}") {
        let _ = (read_date_time(&text, Unzoned::Utc), read_date_time(&text, Unzoned::Refused), read_date(&text));
    }
}
