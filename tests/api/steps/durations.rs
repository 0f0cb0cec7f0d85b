//! Durations of steps, compared with a reference computed here.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{DURATIONS_HEADER, get, insert, record, rows, statuses, table};
use crate::harness::TestApp;

/// A small pseudo-random generator (Knuth's constants), so that a failure can be repeated.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// A step of the reference, with everything a duration depends on.
#[derive(Debug, Clone)]
struct Known {
    id: i64,
    micros: i64,
    component: String,
    version: String,
    owner: String,
    status: String,
}

/// Interleaved steps of several components and versions, out of order and with many ties.
async fn random_history(app: &TestApp, count: i64) -> Vec<Known> {
    let mut numbers = Numbers(2026);
    let start = "2026-01-31T12:00:00Z".parse::<Timestamp>().expect("a time").as_microsecond();
    let known: Vec<Known> = (1..=count)
        .map(|id| Known {
            id,
            micros: start + i64::try_from(numbers.below(400)).expect("small") * 250_000,
            component: format!("component-{}", numbers.below(3)),
            version: format!("1.{}", numbers.below(4)),
            owner: format!("owner-{}", numbers.below(3)),
            status: format!("status-{}", numbers.below(5)),
        })
        .collect();
    let client = app.database.as_ref().expect("own database").client().await;
    let column = |text: fn(&Known) -> String| known.iter().map(text).collect::<Vec<_>>();
    let sql = "insert into steps (ts, component, version, owner, status) select * from \
               unnest($1::timestamptz[], $2::text[], $3::text[], $4::text[], $5::text[])";
    let times: Vec<_> = known.iter().map(|s| Timestamp::from_microsecond(s.micros).expect("in range")).collect();
    let (component, version) = (column(|s| s.component.clone()), column(|s| s.version.clone()));
    let (owner, status) = (column(|s| s.owner.clone()), column(|s| s.status.clone()));
    client.execute(sql, &[&times, &component, &version, &owner, &status]).await.expect("inserted");
    known
}

/// Each step with the time of the next one of its component and version, in the order of the response.
fn reference(known: &[Known]) -> Vec<(Known, Option<i64>)> {
    let mut sorted = known.to_vec();
    sorted.sort_by_key(|s| (s.component.clone(), s.version.clone(), s.micros, s.id));
    let next = |index: usize| {
        let (this, next) = (&sorted[index], sorted.get(index + 1)?);
        (this.component == next.component && this.version == next.version).then_some(next.micros)
    };
    (0..sorted.len()).map(|index| (sorted[index].clone(), next(index))).collect()
}

fn time(micros: i64) -> String {
    format!("{:.6}", Timestamp::from_microsecond(micros).expect("in range"))
}

#[expect(clippy::cast_precision_loss, reason = "the times of a test are minutes apart")]
fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}

type Check = fn(&Known) -> bool;

/// Filters, and the steps they select.
fn filters() -> Vec<(Vec<(&'static str, &'static str)>, Check)> {
    const MIDDLE: &str = "2026-01-31 12:00:50";
    fn middle() -> i64 {
        "2026-01-31T12:00:50Z".parse::<Timestamp>().expect("a time").as_microsecond()
    }
    vec![
        (vec![], |_| true),
        (vec![("component", "component-1")], |s| s.component == "component-1"),
        (vec![("owner", "owner-2")], |s| s.owner == "owner-2"),
        (vec![("start_datetime", MIDDLE)], |s| s.micros >= middle()),
        (vec![("end_datetime", MIDDLE)], |s| s.micros <= middle()),
        (vec![("component", "component-2"), ("owner", "owner-0"), ("end_datetime", MIDDLE)], |s| {
            s.component == "component-2" && s.owner == "owner-0" && s.micros <= middle()
        }),
    ]
}

#[tokio::test]
async fn a_step_lasts_until_the_next_of_its_component_and_version_with_any_filter() {
    let app = TestApp::start().await;
    let known = random_history(&app, 3500).await; // several batches
    let all = reference(&known);
    for (parameters, lets_through) in filters() {
        let expected: Vec<Value> = all
            .iter()
            .filter(|(step, _)| lets_through(step))
            .map(|(step, next)| {
                json!({
                    "id": step.id, "component": step.component, "version": step.version, "status": step.status,
                    "owner": step.owner, "start": time(step.micros), "end": next.map(time),
                    "duration_seconds": next.map(|next| seconds(next - step.micros)),
                })
            })
            .collect();
        assert!(expected.len() > 100, "{parameters:?}");
        let durations = rows(&get(&app, "/v1/steps/durations", &parameters).await, "durations");
        assert_eq!(durations, expected, "{parameters:?}");
        assert!(durations.iter().all(|row| row["duration_seconds"].as_f64().is_none_or(|seconds| seconds >= 0.0)));
        let csv = table(&get(&app, "/v1/steps/durations", &[parameters, vec![("format", "csv")]].concat()).await);
        assert_eq!(csv[0].join(","), DURATIONS_HEADER);
        for (row, expected) in csv[1..].iter().zip(&expected) {
            let seconds = expected["duration_seconds"].as_f64().map(|seconds| format!("{seconds:.6}"));
            assert_eq!(
                (&row[6], &row[7]),
                (&expected["end"].as_str().unwrap_or_default().to_owned(), &seconds.unwrap_or_default())
            );
        }
        assert_eq!(csv.len(), expected.len() + 1);
    }
    let list = table(&app.get("/v1/steps").await);
    let mut sorted = known;
    sorted.sort_by_key(|step| (step.micros, step.id));
    let ids: Vec<String> = list[1..].iter().map(|row| row[0].clone()).collect();
    assert_eq!(ids, sorted.iter().map(|step| step.id.to_string()).collect::<Vec<_>>());
}

/// A percentile between the two values next to it, as SQL's `percentile_cont` defines it.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "few values")]
fn percentile(sorted: &[f64], fraction: f64) -> Option<f64> {
    let place = fraction * (sorted.len().checked_sub(1)?) as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    Some(low + (high - low) * place.fract())
}

#[tokio::test]
async fn the_summary_equals_one_computed_by_hand() {
    let app = TestApp::start().await;
    let known = random_history(&app, 2000).await;
    let all = reference(&known);
    let close = |value: &Value, expected: Option<f64>| match (value.as_f64(), expected) {
        (Some(value), Some(expected)) => (value - expected).abs() < 1e-9,
        (None, None) => value.is_null(),
        _ => false,
    };
    for (parameters, lets_through) in filters() {
        let mut expected: BTreeMap<&str, (i64, Vec<f64>)> = BTreeMap::new();
        for (step, next) in all.iter().filter(|(step, _)| lets_through(step)) {
            let (count, durations) = expected.entry(&step.status).or_default();
            *count += 1;
            durations.extend(next.map(|next| seconds(next - step.micros)));
        }
        let asked = [parameters.clone(), vec![("summary", "true")]].concat();
        let answer = get(&app, "/v1/steps/durations", &asked).await;
        let summary = rows(&answer, "summary");
        assert_eq!(statuses(&summary), expected.keys().copied().collect::<Vec<_>>(), "{parameters:?}");
        for (row, (count, durations)) in summary.iter().zip(expected.values_mut()) {
            durations.sort_by(f64::total_cmp);
            assert_eq!((row["count"].as_i64(), row["finished"].as_u64()), (Some(*count), Some(durations.len() as u64)));
            assert!(close(&row["median"], percentile(durations, 0.5)), "{row}");
            assert!(close(&row["p95"], percentile(durations, 0.95)), "{row}");
        }
        // The response includes the first page of the durations.
        let durations = rows(&get(&app, "/v1/steps/durations", &parameters).await, "durations");
        let page = &durations[..durations.len().min(1000)];
        assert_eq!(rows(&answer, "durations"), page, "{parameters:?}");
        assert_eq!(answer.headers.contains_key("link"), durations.len() > 1000, "{parameters:?}");
        let csv = table(&get(&app, "/v1/steps/durations", &[asked, vec![("format", "csv")]].concat()).await);
        assert_eq!(csv[0].join(","), "status,count,finished,median,p95");
        assert_eq!(csv.len(), summary.len() + 1);
    }
    let limited = app.get("/v1/steps/durations?summary=true&limit=2").await;
    assert_eq!((rows(&limited, "durations").len(), rows(&limited, "summary").len()), (2, 5));
    let nothing = app.get("/v1/steps/durations?summary=true&component=none").await;
    assert_eq!(nothing.body, r#"{"summary":[],"durations":[]}"#);
}

#[tokio::test]
async fn a_clock_set_back_makes_no_duration_negative() {
    let app = TestApp::start().await;
    insert(
        &app,
        &[("2099-01-01 00:00:00.25Z", "a", "1", "me", "build"), ("2099-01-01 00:00:00Z", "a", "2", "me", "build")],
    )
    .await;
    let step = record(&app, ["a", "1", "me", "test"]).await;
    assert_eq!(step["ts"], "2099-01-01T00:00:00.250000Z");
    let other = record(&app, ["b", "1", "me", "build"]).await;
    assert!(other["ts"].as_str() < Some("2099"), "only the component and version concerned are affected: {other}");
    let durations = rows(&app.get("/v1/steps/durations?component=a").await, "durations");
    assert_eq!(statuses(&durations), ["build", "test", "build"]);
    assert_eq!((&durations[0]["duration_seconds"], &durations[1]["duration_seconds"]), (&json!(0.0), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_recorded_concurrently_are_all_stored_in_sequence() {
    // Steps of a component and version wait for each other, possibly for a long time on a busy machine.
    let app = TestApp::start_with(&["--checkout-timeout-ms=60000", "--statement-timeout-ms=60000"]).await;
    let work = (0..200).map(|number| {
        let (component, status) = (["a", "b"][number % 2], format!("status-{number}"));
        let app = &app;
        async move { record(app, [component, "1", "me", &status]).await }
    });
    let recorded = futures_util::future::join_all(work).await;
    assert_eq!(recorded.len(), 200);
    let durations = rows(&app.get("/v1/steps/durations").await, "durations");
    assert_eq!(durations.len(), 200);
    assert_eq!(durations.iter().filter(|row| row["end"].is_null()).count(), 2);
    for pair in durations.windows(2).filter(|pair| pair[0]["component"] == pair[1]["component"]) {
        assert_eq!(pair[0]["end"], pair[1]["start"]);
        assert!(pair[0]["duration_seconds"].as_f64().is_some_and(|seconds| seconds >= 0.0), "{pair:?}");
    }
}
