//! Lists: formats, filters, pages.

use std::collections::HashSet;

use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::{DURATIONS_HEADER, HEADER, HISTORY, get, insert, parameters, record, rows, statuses, table};
use crate::harness::{TestApp, send};

#[tokio::test]
async fn csv_is_the_default_and_always_has_a_header() {
    let app = TestApp::start().await;
    let empty = app.get("/v1/steps").await;
    assert_eq!(empty.expect(StatusCode::OK).body, format!("{HEADER}\r\n"));
    assert_eq!(empty.header("content-type"), "text/csv; charset=utf-8; header=present");
    assert_eq!(empty.header("content-disposition"), "attachment; filename=\"steps.csv\"");
    let step = record(&app, ["=cmd()", "1,2", "say \"hi\"", "+\nb"]).await;
    let list = app.get("/v1/steps").await;
    let (id, ts) = (&step["id"], step["ts"].as_str().expect("a time"));
    assert_eq!(list.body, format!("{HEADER}\r\n{id},{ts},'=cmd(),\"1,2\",\"say \"\"hi\"\"\",\"'+\nb\"\r\n"));
    let durations = get(&app, "/v1/steps/durations", &[("format", "csv")]).await;
    assert_eq!(
        durations.body,
        format!("{DURATIONS_HEADER}\r\n{id},'=cmd(),\"1,2\",\"'+\nb\",\"say \"\"hi\"\"\",{ts},,\r\n")
    );
    assert_eq!(durations.header("content-disposition"), "attachment; filename=\"durations.csv\"");
    for path in ["/v1/steps", "/v1/steps/durations"] {
        let nothing = get(&app, path, &[("component", "none"), ("format", "csv")]).await;
        assert_eq!(table(&nothing).len(), 1);
    }
}

#[tokio::test]
async fn the_format_follows_the_parameter_and_then_the_accept_header() {
    let app = TestApp::start().await;
    record(&app, ["a", "1", "me", "build"]).await;
    for (path, default) in [("/v1/steps", "text/csv"), ("/v1/steps/durations", "application/json")] {
        for (query, accept, expected) in [
            ("", "*/*", default),
            ("", "application/json", "application/json"),
            ("", "text/csv", "text/csv"),
            ("", "text/csv;q=0.1, application/json;q=0.2", "application/json"),
            ("", "text/html,application/xhtml+xml,*/*;q=0.8", default),
            ("?format=json", "text/csv", "application/json"),
            ("?format=csv", "application/json", "text/csv"),
            ("?format=csv", "image/png", "text/csv"),
        ] {
            let answer = send(app.request(Method::GET, &format!("{path}{query}")).header("accept", accept)).await;
            let content_type = answer.expect(StatusCode::OK).header("content-type");
            assert!(content_type.starts_with(expected), "{path}{query} {accept}: {content_type}");
            assert_eq!(answer.header("vary"), "accept");
        }
        let refused = send(app.request(Method::GET, path).header("accept", "text/html")).await;
        assert!(
            refused.expect_problem(406, "not-acceptable")["detail"].as_str().is_some_and(|d| d.contains("text/csv"))
        );
    }
}

#[tokio::test]
async fn lists_are_filtered_by_time_component_and_owner() {
    let app = TestApp::start().await;
    insert(&app, HISTORY).await;
    for (parameters, expected) in [
        (vec![], vec![1, 2, 3, 4, 5, 6, 7]),
        (vec![("component", "api")], vec![1, 2, 4, 5, 6, 7]),
        (vec![("component", "ap")], vec![]),
        (vec![("owner", "bob")], vec![2, 5]),
        (vec![("component", "api"), ("owner", "ann")], vec![1, 4, 6, 7]),
        (vec![("start_datetime", "2026-01-31 12:00:00")], vec![2, 3, 4, 5, 6, 7]),
        (vec![("end_datetime", "2026-01-31 12:00:00")], vec![1, 2, 3]),
        (vec![("start_datetime", "2026-01-31 12:00:01"), ("end_datetime", "2026-01-31 12:00:01")], vec![]),
        (vec![("start_datetime", "2026-01-31T13:00:01+01:00"), ("end_datetime", "2026-01-31T12:00:01.000Z")], vec![]),
        (vec![("start_datetime", "2026-01-31T12:00:00[UTC]")], vec![2, 3, 4, 5, 6, 7]),
        (vec![("start_datetime", "2026-02-01")], vec![]),
        (vec![("start_datetime", "2026-01-31 12:00:02"), ("end_datetime", "2026-01-31 12:00:02")], vec![5, 6, 7]),
        (vec![("start_datetime", "2026-01-31 12:00:00"), ("component", "api"), ("owner", "bob")], vec![2, 5]),
        (vec![("end_datetime", "2026-01-31 12:00:01"), ("owner", "ann")], vec![1, 3]),
        (
            vec![("start_datetime", "0000-01-01 00:00:00"), ("end_datetime", "9999-12-31 23:59:59")],
            vec![1, 2, 3, 4, 5, 6, 7],
        ),
    ] {
        let list = get(&app, "/v1/steps", &[parameters.clone(), vec![("format", "json")]].concat()).await;
        let ids: Vec<i64> = rows(&list, "steps").iter().map(|step| step["id"].as_i64().expect("an id")).collect();
        assert_eq!(ids, expected, "{parameters:?}");
        let list = get(&app, "/v1/steps", &parameters).await;
        let ids: Vec<i64> = table(&list)[1..].iter().map(|row| row[0].parse().expect("an id")).collect();
        assert_eq!(ids, expected, "{parameters:?}");
        let durations = get(&app, "/v1/steps/durations", &parameters).await;
        let ids: HashSet<i64> =
            rows(&durations, "durations").iter().map(|row| row["id"].as_i64().expect("an id")).collect();
        assert_eq!(ids, expected.into_iter().collect(), "{parameters:?}");
    }
}

#[tokio::test]
async fn an_invalid_date_is_a_400_that_shows_the_format() {
    let app = TestApp::start().await;
    for path in ["/v1/steps", "/v1/steps/durations"] {
        for bad in [
            "",
            "yesterday",
            "2026-01",
            "2026-01-31T12:00:00 CET",
            "01/02/2026 12:00:00",
            "2026-02-30 12:00:00",
            "2026-01-31 25:00:00",
        ] {
            for name in ["start_datetime", "end_datetime"] {
                let answer = get(&app, path, &[(name, bad)]).await;
                assert_eq!(parameters(&answer), [name]);
                assert!(answer.body.contains("YYYY-MM-DD hh:mm:ss"), "{}", answer.body);
                assert!(answer.body.contains("2026-01-31 12:00:00"), "{}", answer.body);
            }
        }
        let reversed = [("start_datetime", "2026-01-31 12:00:01"), ("end_datetime", "2026-01-31 12:00:00")];
        assert_eq!(parameters(&get(&app, path, &reversed).await), ["end_datetime"]);
        let many = [
            ("since", "x"),
            ("start_datetime", "x"),
            ("end_datetime", "y"),
            ("component", ""),
            ("format", "xml"),
            ("limit", "0"),
            ("after", "z"),
        ];
        let named = many.map(|(name, _)| name);
        assert_eq!(parameters(&get(&app, path, &many).await), named);
        for limit in ["0", "-1", "1001", "1.5", "ten", ""] {
            assert_eq!(parameters(&get(&app, path, &[("limit", limit)]).await), ["limit"]);
        }
        for after in ["1", "-1", "0"] {
            assert_eq!(parameters(&get(&app, path, &[("after", after)]).await), ["after"]);
        }
    }
    assert_eq!(parameters(&get(&app, "/v1/steps", &[("summary", "true")]).await), ["summary"]);
    assert_eq!(parameters(&get(&app, "/v1/steps/durations", &[("summary", "1")]).await), ["summary"]);
    // A space may be encoded either way.
    for blank in ["+", "%20"] {
        app.get(&format!("/v1/steps?start_datetime=2026-01-31{blank}12:00:00")).await.expect(StatusCode::OK);
    }
}

#[tokio::test]
async fn linked_pages_contain_every_row_once() {
    let app = TestApp::start().await;
    insert(&app, HISTORY).await;
    for (path, name) in [("/v1/steps", "steps"), ("/v1/steps/durations", "durations")] {
        for filter in ["", "&component=api", "&owner=ann&end_datetime=2026-01-31+12:00:02"] {
            let whole = rows(&app.get(&format!("{path}?format=json{filter}")).await, name);
            for limit in [1, 2, 3, 7, 1000] {
                let mut next = Some(format!("{path}?format=json&limit={limit}{filter}"));
                let mut paged = Vec::new();
                while let Some(url) = next {
                    let page = app.get(&url).await;
                    let held = rows(&page, name);
                    assert!(held.len() <= limit && !held.is_empty(), "{url}");
                    paged.extend(held);
                    next = page.headers.get("link").map(|link| {
                        let link = link.to_str().expect("ASCII");
                        let url = link.strip_prefix('<').and_then(|rest| rest.strip_suffix(">; rel=\"next\""));
                        url.unwrap_or_else(|| panic!("{link}")).to_owned()
                    });
                }
                assert_eq!(paged, whole, "{path} {filter} {limit}");
            }
            // Without a limit all remaining rows are returned.
            let rest = rows(&app.get(&format!("{path}?format=json&after={}{filter}", whole[0]["id"])).await, name);
            assert_eq!(rest, whole[1..], "{path} {filter}");
        }
    }
    let csv = app.get("/v1/steps?limit=2").await;
    assert_eq!((table(&csv).len(), csv.header("link")), (3, "</v1/steps?limit=2&after=2>; rel=\"next\""));
    // Paging may start after a step that the filters exclude.
    let hidden = app.get("/v1/steps/durations?component=web&after=1").await;
    assert_eq!(statuses(&rows(&hidden, "durations")), ["build"]);
    assert_eq!(rows(&app.get("/v1/steps/durations?component=api&after=3").await, "durations"), [] as [Value; 0]);
}

#[tokio::test]
async fn head_answers_like_get_without_the_body() {
    let app = TestApp::start().await;
    insert(&app, HISTORY).await;
    for url in [
        "/v1/steps",
        "/v1/steps?limit=2&format=json",
        "/v1/steps/durations",
        "/v1/steps/durations?summary=true",
        "/helloworld",
    ] {
        let get = app.get(url).await;
        let head = send(app.request(Method::HEAD, url)).await;
        assert_eq!(head.expect(StatusCode::OK).body, "");
        for header in ["content-length", "content-type"] {
            assert_eq!(head.header(header), get.header(header), "{url}");
        }
        assert_eq!(head.headers.get("link"), get.headers.get("link"), "{url}");
        assert_eq!(get.header("content-length"), get.body.len().to_string(), "{url}");
    }
}
