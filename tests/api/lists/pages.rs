//! Pages in every order, forwards and backwards, under concurrent changes; and counts.

use std::cell::Cell;
use std::cmp::Ordering;

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::{crowd, faults, get, insert, link, rows, uuids};
use crate::harness::{TestApp, passenger, send};

/// Follows the links from a page in one direction and collects the pages.
async fn walk(app: &TestApp, first: &str, relation: &str) -> Vec<Vec<Value>> {
    let mut pages = Vec::new();
    let mut next = Some(first.to_owned());
    while let Some(path) = next {
        let answer = app.get(&path).await;
        pages.push(rows(&answer));
        next = link(&answer, relation);
        assert!(pages.len() < 100, "the links never end");
    }
    pages
}

fn compare(a: &Value, b: &Value, field: &str, descending: bool, nulls_first: bool) -> Ordering {
    let (a, b) = (&a[field], &b[field]);
    if a.is_null() || b.is_null() {
        let ordering = b.is_null().cmp(&a.is_null());
        return if nulls_first { ordering } else { ordering.reverse() };
    }
    let ordering = match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()).expect("numbers"),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        _ => panic!("{a} and {b}"),
    };
    if descending { ordering.reverse() } else { ordering }
}

/// Sorts by `order=` with plain comparisons.
fn sorted(mut rows: Vec<Value>, order: &str) -> Vec<Value> {
    let mut keys: Vec<(String, bool, bool)> = Vec::new();
    for item in order.split(',') {
        let descending = item.contains(".desc");
        let nulls_first = if descending { !item.contains("nullslast") } else { item.contains("nullsfirst") };
        keys.push((item.split('.').next().expect("a name").to_owned(), descending, nulls_first));
    }
    let last = keys.last().is_some_and(|key| key.1);
    keys.push(("uuid".to_owned(), last, false));
    rows.sort_by(|a, b| {
        let each = keys.iter().map(|(field, descending, nulls_first)| compare(a, b, field, *descending, *nulls_first));
        each.fold(Ordering::Equal, Ordering::then)
    });
    rows
}

const ORDERS: &[&str] = &[
    "uuid",
    "uuid.desc",
    "age",
    "age.desc",
    "age.asc.nullsfirst",
    "age.desc.nullslast",
    "name",
    "name.desc",
    "fare.desc,name",
    "sex",
    "sex.desc,age.desc",
    "sex,age.nullsfirst,fare.desc",
    "survived.desc,passengerClass,sex,age",
    "siblingsOrSpousesAboard,parentsOrChildrenAboard.desc,age",
    "passengerClass.desc",
];

#[tokio::test]
async fn pages_of_every_order_contain_each_passenger_once_forwards_and_backwards() {
    let app = crowd(97).await;
    let everybody = rows(&app.get("/passengerlist").await);
    for order in ORDERS {
        let expected = uuids(&sorted(everybody.clone(), order));
        let whole = rows(&app.get(&format!("/passengerlist?order={order}")).await);
        assert_eq!(uuids(&whole), expected, "{order}");
        let pages = walk(&app, &format!("/v1/passengers?limit=20&order={order}"), "next").await;
        assert_eq!(pages.len(), 5, "{order}");
        assert_eq!(uuids(&pages.concat()), expected, "{order}");
        // Backwards from the last page: the pages before it, in the same order.
        let mut path = format!("/v1/passengers?limit=20&order={order}");
        let mut back = None;
        while let Some(next) = link(&app.get(&path).await, "next") {
            let answer = app.get(&next).await;
            back = link(&answer, "prev");
            path = next;
        }
        let mut backwards = walk(&app, &back.expect("a page before the last"), "prev").await;
        backwards.reverse();
        assert_eq!(uuids(&backwards.concat()), expected[..80], "{order}");
    }
}

#[tokio::test]
async fn the_first_page_has_no_previous_page_and_the_last_no_next_page() {
    let app = crowd(5).await;
    let first = app.get("/v1/passengers?limit=3&sex=in.(male,female)").await;
    assert_eq!(link(&first, "prev"), None);
    let second = app.get(&link(&first, "next").expect("a second page")).await;
    assert_eq!(rows(&second).len(), 2);
    assert_eq!(link(&second, "next"), None);
    let back = app.get(&link(&second, "prev").expect("the first page")).await;
    assert_eq!(rows(&back), rows(&first));
    assert_eq!(link(&back, "prev"), None);
    assert!(link(&back, "next").expect("the second page").contains("sex=in.(male%2Cfemale)"));
    assert_eq!(link(&app.get("/v1/passengers?limit=5").await, "next"), None);
}

#[tokio::test]
async fn paging_returns_each_unchanged_row_once_despite_concurrent_changes() {
    let app = crowd(60).await;
    let before = rows(&app.get("/passengerlist").await);
    let client = app.database.as_ref().expect("own database").client().await;
    let mut seen = Vec::new();
    let mut next = Some("/v1/passengers?limit=7&order=age.desc.nullslast,fare".to_owned());
    let mut number = 1000;
    while let Some(path) = next {
        let answer = app.get(&path).await;
        let page = rows(&answer);
        // Delete the last row of the page and insert others anywhere.
        if let Some(last) = page.last() {
            let uuid: uuid::Uuid = last["uuid"].as_str().expect("a uuid").parse().expect("a uuid");
            client.execute("delete from passengers where uuid = $1", &[&uuid]).await.expect("deleted");
        }
        insert(&app, number, number + 3).await;
        number += 3;
        seen.extend(uuids(&page));
        next = link(&answer, "next");
        assert!(seen.len() < 1000, "the links never end");
    }
    for uuid in uuids(&before) {
        assert_eq!(seen.iter().filter(|other| **other == uuid).count(), 1, "{uuid}");
    }
}

#[tokio::test]
async fn a_cursor_of_another_order_or_an_invalid_one_is_refused() {
    let app = crowd(10).await;
    let next = link(&app.get("/v1/passengers?limit=3&order=age").await, "next").expect("a second page");
    let cursor = next.split_once("after=").expect("a cursor").1;
    for query in [
        format!("after={cursor}"),
        format!("order=age.desc&after={cursor}"),
        format!("order=age&after={}", &cursor[1..]),
        format!("order=age&after={cursor}%00"),
        format!("order=age&before={cursor}A"),
        "after=".to_owned(),
        "after=bnVsbA".to_owned(),
    ] {
        let found = faults(&app.get(&format!("/v1/passengers?{query}")).await);
        assert!(found.iter().any(|(_, detail)| detail.contains("is not a cursor of this order")), "{query}: {found:?}");
    }
    let both = format!("/v1/passengers?order=age&after={cursor}&before={cursor}");
    assert!(faults(&app.get(&both).await)[0].1.contains("cannot be combined with after"));
    let unbounded = format!("/passengerlist?order=age&before={cursor}");
    assert!(faults(&app.get(&unbounded).await)[0].1.contains("requires limit"));
    assert_eq!(rows(&app.get(&format!("/passengerlist?order=age&after={cursor}")).await).len(), 7);
}

#[tokio::test]
async fn a_count_is_returned_with_prefer_count() {
    let app = crowd(30).await;
    let client = app.database.as_ref().expect("own database").client().await;
    client.batch_execute("analyze passengers").await.expect("analysed");
    let ask = |path: &str, prefer: &str| send(app.request(Method::GET, path).header("prefer", prefer));
    let answer = ask("/v1/passengers?limit=10", "count=exact").await;
    assert_eq!(answer.expect(StatusCode::OK).header("content-range"), "0-9/30");
    assert_eq!(answer.header("preference-applied"), "count=exact");
    let second = ask(&link(&answer, "next").expect("a second page"), "count=exact").await;
    assert_eq!(second.header("content-range"), "*/30");
    let filtered = ask("/v1/passengers?survived=is.true&select=uuid", "count=exact").await;
    assert_eq!(filtered.header("content-range"), "0-14/15");
    assert_eq!(ask("/v1/passengers?age=gt.99", "count=exact").await.header("content-range"), "*/0");
    let estimated = ask("/passengerlist", "return=minimal, count=estimated").await;
    assert_eq!(estimated.header("content-range"), "*/30");
    assert_eq!(estimated.header("preference-applied"), "count=estimated");
    let ignored = ask("/v1/passengers", "count=planned").await;
    assert!(ignored.headers.get("content-range").is_none() && ignored.headers.get("preference-applied").is_none());
}

#[tokio::test]
async fn a_list_of_many_batches_is_streamed_in_its_order() {
    let app = crowd(4321).await;
    for order in ["age.desc.nullslast", "sex,fare"] {
        let parameters = [("order", order), ("survived", "is.true")];
        let list = rows(&get(&app, "/passengerlist", &parameters).await);
        assert_eq!(list.len(), 2161);
        assert_eq!(uuids(&list), uuids(&sorted(list.clone(), order)));
    }
}

#[tokio::test]
async fn a_list_that_yields_to_other_requests_is_complete_and_in_order() {
    let app = crowd(4321).await;
    let others = format!("/v1/passengers/{}", app.create(&passenger()).await);
    let finished = Cell::new(false);
    let ask = async {
        while !finished.get() {
            for answer in join_all((0..8).map(|_| app.get(&others))).await {
                answer.expect(StatusCode::OK);
            }
        }
    };
    let list = async {
        let list = rows(&app.get("/passengerlist").await);
        finished.set(true);
        list
    };
    let ((), list) = tokio::join!(ask, list);
    assert_eq!(list.len(), 4322);
    assert!(uuids(&list).is_sorted_by(|a, b| a < b));
}

#[tokio::test]
async fn a_page_without_rows_has_a_count_and_no_links() {
    let app = crowd(5).await;
    let second = link(&app.get("/v1/passengers?limit=2").await, "next").expect("a second page");
    let cursor = second.split_once("after=").expect("a cursor").1;
    for path in ["/v1/passengers", "/passengerlist"] {
        for (query, total) in [
            ("", "*/5"),
            ("&age=is.null", "*/1"),
            ("&order=age.desc,name", "*/5"),
            (&format!("&after={cursor}"), "*/5"),
        ] {
            let request = app.request(Method::GET, &format!("{path}?limit=0{query}")).header("prefer", "count=exact");
            let answer = send(request).await;
            assert_eq!((rows(&answer).len(), link(&answer, "next"), link(&answer, "prev")), (0, None, None), "{query}");
            assert_eq!(answer.header("content-range"), total, "{query}");
        }
    }
}

#[tokio::test]
async fn a_page_whose_next_url_would_be_too_long_answers_414() {
    let app = crowd(5).await;
    // Each of these characters is nine bytes long in a link.
    let filter = |names: usize| format!("name=not.in.({}x)", "€€€€€€€€€€,".repeat(names));
    let short = format!("/v1/passengers?{}&limit=2", filter(20));
    let pages = walk(&app, &short, "next").await;
    assert_eq!(pages.iter().map(Vec::len).sum::<usize>(), 5);
    let long = app.get(&format!("/v1/passengers?{}&limit=2", filter(100))).await;
    long.expect_problem(414, "uri-too-long");
    assert!(long.body.contains("the URL of the next page would have"), "{}", long.body);
    assert_eq!(rows(&app.get(&format!("/v1/passengers?{}&limit=5", filter(50))).await).len(), 5);
}
